//! Names of pools.

use thiserror::Error;

use crate::limits::{MAX_CHANNEL_NAME, MAX_NAME};

/// Why a name cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the pool name {name:?} {why}: use 1 to {MAX_NAME} of A-Z a-z 0-9 . _ - and begin with a letter, a digit or _"
)]
pub struct NameProblem {
    name: String,
    why: &'static str,
}

/// Checks that `name` can name a pool: no path, nothing that a shell or a terminal could misread.
pub fn check_name(name: &str) -> Result<(), NameProblem> {
    let problem = |why| {
        let name = name.chars().take(MAX_NAME).collect();
        Err(NameProblem { name, why })
    };
    let Some(&first) = name.as_bytes().first() else {
        return problem("is empty");
    };
    if name.len() > MAX_NAME {
        return problem("is too long");
    }
    if !(first.is_ascii_alphanumeric() || first == b'_') {
        return problem("has a first character that is not allowed");
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !name.bytes().all(fine) {
        return problem("has a character that is not allowed");
    }
    Ok(())
}

/// Why a name cannot be that of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the channel name {name:?} {why}: use parts of A-Z a-z 0-9 . _ - with / between them, {MAX_CHANNEL_NAME} bytes in all, each part beginning with a letter, a digit or _"
)]
pub struct ChannelNameProblem {
    name: String,
    why: &'static str,
}

/// Checks that `name` can name a channel: parts like `shop/stock`, each as plain as the name of a pool.
pub fn check_channel_name(name: &str) -> Result<(), ChannelNameProblem> {
    let problem = |why| {
        let name = name.chars().take(MAX_CHANNEL_NAME).collect();
        Err(ChannelNameProblem { name, why })
    };
    if name.is_empty() {
        return problem("is empty");
    }
    if name.len() > MAX_CHANNEL_NAME {
        return problem("is too long");
    }
    if name.split('/').all(|part| check_name(part).is_ok()) {
        Ok(())
    } else {
        problem("has a part that is empty, or has a character that is not allowed there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in [
            "a",
            "sensors",
            "sensors-copy",
            "A.b_c-9",
            "_x",
            &"x".repeat(63),
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-x",
            "a/b",
            "a b",
            "a\n",
            "ä",
            &"x".repeat(64),
            "a\0b",
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn channels_have_parts() {
        for good in [
            "a",
            "shop/stock",
            "a/b/c.d/_e-9",
            &"x/".repeat(31).as_str()[..61],
        ] {
            assert!(check_channel_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "a/./b",
            "../a",
            "a/..",
            "a/-b",
            "a b",
            "a/\0",
            &"x".repeat(64),
            &"x/".repeat(32),
        ] {
            let e = check_channel_name(bad).expect_err(bad);
            assert!(e.to_string().contains("channel name"), "{e}");
        }
    }
}
