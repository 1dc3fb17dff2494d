//! Response files: `@file` stands for the arguments in the file, in GNU quoting, as clang reads them.
//!
//! Only a copy is expanded, to see what the command does; clang receives the `@file` itself.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// How deep response files may name others; clang's own limit is of this order too.
const MAX_DEPTH: usize = 32;
/// How many arguments an expansion may have in all, against files that name each other exponentially.
const MAX_ARGUMENTS: usize = 4 << 20;

/// Why response files could not be expanded.
#[derive(Debug)]
pub struct TooDeep(OsString);

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.display();
        write!(
            f,
            "response file {name}: files name each other too deeply; does one name itself?"
        )
    }
}

/// `args` with every readable `@file` replaced by what it holds. Like clang's, an argument whose file cannot be read
/// stays as it is.
pub fn expand(args: &[OsString]) -> Result<Vec<OsString>, TooDeep> {
    let mut out = Vec::with_capacity(args.len());
    expand_into(args, 0, &mut out)?;
    Ok(out)
}

fn expand_into(args: &[OsString], depth: usize, out: &mut Vec<OsString>) -> Result<(), TooDeep> {
    for arg in args {
        let content = match arg.as_bytes() {
            [b'@', path @ ..] if !path.is_empty() => fs::read(OsStr::from_bytes(path)).ok(),
            _ => None,
        };
        match content {
            Some(_) if depth == MAX_DEPTH || out.len() > MAX_ARGUMENTS => {
                return Err(TooDeep(arg.clone()));
            }
            Some(text) => expand_into(&tokenize(&text), depth + 1, out)?,
            None => out.push(arg.clone()),
        }
    }
    Ok(())
}

/// Splits GNU style: blanks separate, `'...'` is literal, in `"..."` and outside a backslash takes the next byte as it is.
fn tokenize(text: &[u8]) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = text.iter().copied();
    while let Some(b) = bytes.next() {
        match (quote, b) {
            (Some(q), _) if b == q => quote = None,
            (None | Some(b'"'), b'\\') => {
                let next = bytes.next();
                // A backslash before a line end joins the lines.
                if next != Some(b'\n') {
                    word.get_or_insert_default().extend(next);
                }
            }
            (Some(_), _) => word.get_or_insert_default().push(b),
            (None, b'\'' | b'"') => {
                quote = Some(b);
                word.get_or_insert_default();
            }
            (None, _) if b.is_ascii_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(b),
        }
    }
    words.extend(word);
    words.into_iter().map(OsString::from_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokenize(text.as_bytes())
            .into_iter()
            .map(|w| w.into_string().unwrap())
            .collect()
    }

    #[test]
    fn gnu_quoting() {
        assert_eq!(words("-c a.c\n\t-o  'b c.o'"), ["-c", "a.c", "-o", "b c.o"]);
        assert_eq!(
            words(r#"-DX=\"v\" "a \" b" '\n' """#),
            ["-DX=\"v\"", "a \" b", "\\n", ""]
        );
        assert_eq!(words("a\\\nb"), ["ab"]);
        assert_eq!(words(""), Vec::<String>::new());
        assert_eq!(words("\"unterminated"), ["unterminated"]);
    }

    #[test]
    fn nested_missing_and_looping_files() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        let outer = dir.path().join("outer");
        fs::write(&inner, "-O2 x.c").unwrap();
        fs::write(&outer, format!("-c @{}", inner.display())).unwrap();
        let at = |p: &std::path::Path| OsString::from(format!("@{}", p.display()));
        assert_eq!(
            expand(&[at(&outer), "-v".into()]).unwrap(),
            ["-c", "-O2", "x.c", "-v"]
        );
        assert_eq!(
            expand(&["@/no/such/file".into(), "@".into()]).unwrap(),
            ["@/no/such/file", "@"]
        );
        fs::write(&inner, format!("@{}", inner.display())).unwrap();
        assert!(
            expand(&[at(&inner)])
                .unwrap_err()
                .to_string()
                .contains("inner")
        );
    }
}
