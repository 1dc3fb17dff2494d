//! Rules about single files.

use super::{Tree, table};

/// Lines above which a source file needs a reason.
const LONG: usize = 600;

/// A source file says in its first lines what it is for.
pub fn headers(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for source in &tree.sources {
        let Some(starts) = comment_starts(&source.path) else {
            continue;
        };
        let mut lines = source
            .text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        let mut first = lines.next().unwrap_or_default();
        if first.starts_with("#!/") {
            first = lines.next().unwrap_or_default();
        }
        if !starts.iter().any(|start| first.starts_with(start)) {
            problems.push(format!(
                "{}: begin with a comment ({}) that says what the file is for",
                source.path, starts[0]
            ));
        }
    }
    problems
}

/// How the first comment of a file of this kind begins; `None` for what needs none.
fn comment_starts(path: &str) -> Option<&'static [&'static str]> {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name
        .rsplit_once('.')
        .map_or(name, |(_, extension)| extension)
    {
        "rs" => Some(&["//!"]),
        "c" | "h" | "cpp" | "hpp" | "cc" | "S" | "ld" => Some(&["/*", "//"]),
        "ll" => Some(&[";"]),
        "sh" | "py" | "cmake" | "run" => Some(&["#", "\"\"\""]),
        "lua" => Some(&["--"]),
        "md" if !path.starts_with(".github") => Some(&["# ", "<!--"]),
        _ => None,
    }
}

/// No source file is longer than [`LONG`] lines, but those that ARCHITECTURE.md gives a reason for.
pub fn lengths(tree: &Tree) -> Vec<String> {
    let rows = table::rows(&tree.architecture, "long-files").unwrap_or_default();
    let allowed: Vec<String> = rows.iter().flat_map(|row| table::quoted(&row[0])).collect();
    let mut problems = Vec::new();
    for source in &tree.sources {
        let lines = source.text.lines().count();
        let listed = allowed.contains(&source.path);
        if lines > LONG && !listed && is_code(&source.path) {
            problems.push(format!(
                "{} has {lines} lines: split it, or give the reason in ARCHITECTURE.md (<!-- long-files -->)",
                source.path
            ));
        } else if lines <= LONG && listed {
            problems.push(format!(
                "{} has only {lines} lines: drop it from the long files of ARCHITECTURE.md",
                source.path
            ));
        }
    }
    for path in allowed.iter().filter(|path| tree.source(path).is_none()) {
        problems.push(format!(
            "{path} is listed as a long file and does not exist"
        ));
    }
    problems
}

fn is_code(path: &str) -> bool {
    comment_starts(path).is_some() && !path.ends_with(".md")
}

/// No marker of unfinished work. (The words are put together here, or this file would be the first to be found.)
pub fn unfinished(tree: &Tree) -> Vec<String> {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("todo", "!("),
        concat!("unimple", "mented!("),
    ];
    find(tree, &words, "finish it, or write an issue")
}

/// No path that exists only on one machine.
pub fn machine_paths(tree: &Tree) -> Vec<String> {
    let roots = [
        concat!("/wo", "rk/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/tmp", "/vt"),
    ];
    find(
        tree,
        &roots,
        "take it from the environment or from the program's own place",
    )
}

/// Where one of `words` occurs as a word of its own.
fn find(tree: &Tree, words: &[&str], remedy: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for source in tree.sources.iter().filter(|s| s.path != "Cargo.lock") {
        for (number, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| stands_alone(line, word)) {
                problems.push(format!(
                    "{}:{}: `{word}`: {remedy}",
                    source.path,
                    number + 1
                ));
            }
        }
    }
    problems
}

/// Whether `word` occurs in `line` with no letter, digit or path character before it (in `$X/home/` that one does not count).
fn stands_alone(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let joins = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let path = word.starts_with('/');
        !before.is_some_and(|c| joins(c) || path && matches!(c, '.' | '}' | '*' | '<' | '>'))
            && (path || word.ends_with('(') || !after.is_some_and(joins))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_paths_stand_alone() {
        assert!(stands_alone(concat!("// TO", "DO: x"), concat!("TO", "DO")));
        assert!(!stands_alone("MASTODON TODOS", concat!("TO", "DO")));
        assert!(stands_alone(
            concat!("cd /ho", "me/x"),
            concat!("/ho", "me/")
        ));
        assert!(!stands_alone(
            concat!("$X/a/ho", "me/x"),
            concat!("/ho", "me/")
        ));
    }

    #[test]
    fn kinds_of_files() {
        assert_eq!(comment_starts("a/b.rs"), Some(&["//!"][..]));
        assert_eq!(comment_starts(".ci/run"), Some(&["#", "\"\"\""][..]));
        assert_eq!(comment_starts("Cargo.lock"), None);
        assert!(is_code("x.cpp") && !is_code("README.md") && !is_code("a.svg"));
    }
}
