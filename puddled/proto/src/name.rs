//! Names of pools.

use thiserror::Error;

use crate::limits::MAX_NAME;

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
}
