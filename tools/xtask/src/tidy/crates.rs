//! Rules about crates: their edges, their unsafe code, their manifests.

use super::{Tree, table};
use crate::workspace::{Crate, Workspace};
use std::fmt::Write;

const MARKER: &str = "crates";
const FORBID: &str = "#![forbid(unsafe_code)]";

/// The edges of the workspace equal the table: one that is missing there is as wrong as one too many.
pub fn edges(tree: &Tree) -> Vec<String> {
    let Some(rows) = table::rows(&tree.architecture, MARKER) else {
        return vec![format!(
            "ARCHITECTURE.md has no table between <!-- {MARKER} --> and <!-- /{MARKER} -->"
        )];
    };
    let mut problems = Vec::new();
    for found in &tree.workspace.crates {
        let Some(row) = rows
            .iter()
            .find(|row| row.len() >= 4 && table::quoted(&row[0]) == [found.name.as_str()])
        else {
            problems.push(format!(
                "{} ({}) is not in the table: add `{}`",
                found.name,
                found.folder,
                row_of(found)
            ));
            continue;
        };
        if table::quoted(&row[1]) != [found.folder.as_str()] {
            problems.push(format!(
                "{}: the table says {}, it lies in {}",
                found.name, row[1], found.folder
            ));
        }
        for (what, cell, real) in [
            ("uses", &row[2], &found.uses),
            ("in tests uses", &row[3], &found.tests_use),
        ] {
            let listed = table::quoted(cell);
            for name in real.iter().filter(|name| !listed.contains(name)) {
                problems.push(format!("{} {what} {name}, which the table does not allow: remove the edge, or argue for it there", found.name));
            }
            for name in listed.iter().filter(|name| !real.contains(name)) {
                problems.push(format!(
                    "{}: the table says that it {what} {name}, which it does not: drop it there",
                    found.name
                ));
            }
        }
    }
    for row in &rows {
        for name in row
            .first()
            .map(|cell| table::quoted(cell))
            .unwrap_or_default()
        {
            if !tree.workspace.has(&name) {
                problems.push(format!(
                    "the table lists {name}, which is no crate of the workspace"
                ));
            }
        }
    }
    problems
}

/// The table that would be right, with the remarks left to write.
pub fn print(workspace: &Workspace) -> String {
    let mut text = String::from(
        "| crate | folder | uses | tests also use | unsafe |\n| --- | --- | --- | --- | --- |\n",
    );
    for found in &workspace.crates {
        let _ = writeln!(text, "{}", row_of(found));
    }
    text
}

fn row_of(found: &Crate) -> String {
    let list = |names: &[String]| match names {
        [] => "–".to_owned(),
        names => names
            .iter()
            .map(|n| format!("`{n}`"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    format!(
        "| `{}` | `{}` | {} | {} |  |",
        found.name,
        found.folder,
        list(&found.uses),
        list(&found.tests_use)
    )
}

/// A crate whose table row says `forbid` carries the attribute in each of its roots; another one really needs unsafe.
pub fn forbid_unsafe(tree: &Tree) -> Vec<String> {
    let rows = table::rows(&tree.architecture, MARKER).unwrap_or_default();
    let mut problems = Vec::new();
    for found in &tree.workspace.crates {
        let row = rows
            .iter()
            .find(|row| table::quoted(&row[0]) == [found.name.as_str()]);
        let says_forbid = row
            .and_then(|row| row.get(4))
            .is_some_and(|cell| cell == "forbid");
        let roots = roots(tree, found);
        if says_forbid {
            for root in roots.iter().filter(|root| !root.text.contains(FORBID)) {
                problems.push(format!("{}: add {FORBID}", root.path));
            }
        } else if !roots.is_empty() && roots.iter().all(|root| root.text.contains(FORBID)) {
            problems.push(format!(
                "{} forbids unsafe code: say `forbid` in its row of ARCHITECTURE.md",
                found.name
            ));
        }
    }
    problems
}

/// The files that rustc starts from.
fn roots<'t>(tree: &'t Tree, found: &Crate) -> Vec<&'t super::Source> {
    let src = format!("{}/src/", found.folder);
    let is_root = |path: &str| {
        path.strip_prefix(&src).is_some_and(|rest| {
            rest == "lib.rs"
                || rest == "main.rs"
                || rest
                    .strip_prefix("bin/")
                    .is_some_and(|bin| bin.ends_with(".rs") && !bin.contains('/'))
        })
    };
    tree.sources
        .iter()
        .filter(|source| is_root(&source.path))
        .collect()
}

/// Every manifest takes what all crates share from the workspace.
pub fn inherits(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for found in &tree.workspace.crates {
        let path = format!("{}/Cargo.toml", found.folder);
        let Some(manifest) = tree.source(&path) else {
            continue;
        };
        let lints = manifest
            .text
            .split_once("[lints]")
            .is_some_and(|(_, rest)| rest.trim_start().starts_with("workspace = true"));
        if !lints {
            problems.push(format!("{path}: add `[lints]` with `workspace = true`"));
        }
        for key in [
            "version.workspace = true",
            "edition.workspace = true",
            "license.workspace = true",
        ] {
            if !manifest.text.contains(key) {
                problems.push(format!("{path}: add `{key}`"));
            }
        }
    }
    problems
}

/// Above each external dependency stands a comment; one comment may serve neighbours.
pub fn reasons(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let root = tree
        .source("Cargo.toml")
        .map(|s| s.text.as_str())
        .unwrap_or_default();
    let explained_once = dependencies(root)
        .into_iter()
        .filter(|d| d.explained)
        .map(|d| d.name)
        .collect::<Vec<_>>();
    for found in &tree.workspace.crates {
        let path = format!("{}/Cargo.toml", found.folder);
        let Some(manifest) = tree.source(&path) else {
            continue;
        };
        for dependency in dependencies(&manifest.text) {
            let own = tree.workspace.has(&dependency.name) || dependency.name.starts_with("vernal");
            if !own && !dependency.explained && !explained_once.contains(&dependency.name) {
                problems.push(format!(
                    "{path}: say above `{}` in a comment why it is needed",
                    dependency.name
                ));
            }
        }
    }
    problems
}

struct Dependency {
    name: String,
    explained: bool,
}

/// The entries of every `…dependencies` section, and whether a comment stands above the entry or its neighbours.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    let (mut inside, mut explained) = (false, false);
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            // A comment right above the section explains all of it.
            inside = line.ends_with("dependencies]");
        } else if line.is_empty() {
            explained = false;
        } else if line.starts_with('#') {
            explained = true;
        } else if let Some((key, _)) = line.split_once('=')
            && inside
        {
            let name = key
                .split('.')
                .next()
                .unwrap_or(key)
                .trim()
                .trim_matches('"')
                .to_owned();
            found.push(Dependency {
                name,
                explained: explained || line.contains('#'),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_serves_its_block() {
        let text = "[package]\nname = 1\n[dependencies]\n# because\na = \"1\"\nb.workspace = true\n\nc = \"2\"\n[dev-dependencies]\nd = 1 # why\n";
        let found: Vec<_> = dependencies(text)
            .into_iter()
            .map(|d| (d.name, d.explained))
            .collect();
        assert_eq!(
            found,
            [
                ("a".into(), true),
                ("b".into(), true),
                ("c".into(), false),
                ("d".into(), true)
            ]
        );
    }
}
