//! The links of Markdown files: files exist, headings exist.

use super::Tree;
use std::path::{Component, Path, PathBuf};

/// Every relative link names a file of the tree and, with `#`, one of its headings.
pub fn resolve(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for source in tree.sources.iter().filter(|s| s.path.ends_with(".md")) {
        for (line, target) in links(&source.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target
                .split_once('#')
                .map_or((target.as_str(), None), |(f, h)| (f, Some(h)));
            let path = if file.is_empty() {
                Some(source.path.clone())
            } else {
                join(&source.path, file)
            };
            let Some(path) = path else {
                problems.push(format!(
                    "{}:{line}: {target} leaves the project",
                    source.path
                ));
                continue;
            };
            if !tree.workspace.root.join(&path).exists() {
                problems.push(format!(
                    "{}:{line}: {target}: there is no {path}",
                    source.path
                ));
            } else if let Some(heading) = heading
                && let Some(document) = tree.source(&path)
                && !headings(&document.text).iter().any(|h| h == heading)
            {
                problems.push(format!(
                    "{}:{line}: {target}: {path} has no such heading",
                    source.path
                ));
            }
        }
    }
    problems
}

/// `file`, seen from the folder of `from`.
fn join(from: &str, file: &str) -> Option<String> {
    let mut path = PathBuf::from(from);
    path.pop();
    for part in Path::new(file).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path.to_string_lossy().into_owned())
}

/// The inline links outside code, with their line numbers.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Odd pieces between backquotes are code.
        for piece in line.split('`').step_by(2) {
            let mut rest = piece;
            while let Some((_, after)) = rest.split_once("](") {
                let Some((target, next)) = after.split_once(')') else {
                    break;
                };
                found.push((
                    number,
                    target
                        .split_whitespace()
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                ));
                rest = next;
            }
        }
        // A label in backquotes splits its link over two pieces: [`x`](y).
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("`](") {
            let Some((target, next)) = after.split_once(')') else {
                break;
            };
            found.push((
                number,
                target
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            ));
            rest = next;
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Lines outside fenced and indented code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced && !line.starts_with("    ")).then_some((index + 1, line))
    })
}

/// The anchors that renderers give to headings.
fn headings(text: &str) -> Vec<String> {
    let heading = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| heading(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_links_but_not_in_code() {
        let text =
            "[a](b.md) and [`c`](d.md#e \"t\")\n```\n[no](x)\n```\n    [no](y)\n`[no](z)` [f](g)\n";
        let found = links(text);
        assert_eq!(
            found,
            [
                (1, "b.md".to_owned()),
                (1, "d.md#e".to_owned()),
                (6, "g".to_owned())
            ]
        );
    }

    #[test]
    fn anchors_are_those_of_renderers() {
        assert_eq!(
            headings("# A b\n## `msync` & exit\n"),
            ["a-b", "msync--exit"]
        );
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(
            join("docs/how-to/a.md", "../format.md").as_deref(),
            Some("docs/format.md")
        );
        assert_eq!(join("README.md", "../x").as_deref(), None);
        assert_eq!(join("README.md", "/etc/passwd").as_deref(), None);
    }
}
