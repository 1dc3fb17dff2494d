//! `cargo xtask tidy`: the rules of the source tree that no compiler checks. Each rule is one test.
//!
//! What a rule allows is written where people read it: the crates and their edges, and the files that may be long, in
//! tables of ARCHITECTURE.md.

mod crates;
mod links;
mod sources;
mod table;

use crate::tally::Tally;
use crate::{Result, ui::Ui, workspace::Workspace};
use std::path::Path;
use std::process::Command;

#[derive(clap::Args)]
pub struct Options {
    /// Print the crate table that ARCHITECTURE.md would need, and check nothing
    #[arg(long)]
    print_crates: bool,
}

/// One source file.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

/// Everything that the rules look at.
struct Tree {
    workspace: Workspace,
    sources: Vec<Source>,
    architecture: String,
}

/// A rule returns what is wrong, one sentence each, with the remedy.
type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[(&str, Rule)] = &[
    (
        "the crate edges are those of ARCHITECTURE.md",
        crates::edges,
    ),
    (
        "crates without unsafe code forbid it",
        crates::forbid_unsafe,
    ),
    (
        "every crate inherits the workspace's lints, edition and licence",
        crates::inherits,
    ),
    ("every dependency says why it is there", crates::reasons),
    (
        "every source file begins by saying what it is for",
        sources::headers,
    ),
    ("no file is long without a reason", sources::lengths),
    ("nothing is left unfinished", sources::unfinished),
    ("no path of somebody's machine", sources::machine_paths),
    ("the links of the documents resolve", links::resolve),
];

/// Checks every rule.
pub fn run(options: &Options) -> Result<bool> {
    let workspace = Workspace::load()?;
    if options.print_crates {
        Ui::new(false).line(crates::print(&workspace).trim_end());
        return Ok(true);
    }
    let ui = Ui::new(false);
    let sources = read_sources(&workspace.root)?;
    let architecture = std::fs::read_to_string(workspace.root.join("ARCHITECTURE.md"))
        .map_err(|e| format!("cannot read ARCHITECTURE.md: {e}"))?;
    let tree = Tree {
        workspace,
        sources,
        architecture,
    };
    let mut tally = Tally::default();
    for (name, rule) in RULES {
        let problems = rule(&tree);
        ui.line(&format!(
            "{} {name}",
            if problems.is_empty() {
                "ok    "
            } else {
                "FAILED"
            }
        ));
        for problem in &problems {
            ui.line(&format!("       {problem}"));
        }
        if problems.is_empty() {
            tally.passed += 1
        } else {
            tally.failed += 1
        }
    }
    ui.line(&tally.to_string());
    Ok(tally.failed == 0)
}

/// The text files that git knows, and new ones that it does not ignore.
fn read_sources(root: &Path) -> Result<Vec<Source>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cannot run git ls-files: {e}: install git"))?;
    if !output.status.success() {
        return Err(format!(
            "git ls-files failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )
        .into());
    }
    let mut sources = Vec::new();
    for path in String::from_utf8(output.stdout)?.split_terminator('\0') {
        // A file that was deleted but not yet committed is still listed; a binary file is not text.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            sources.push(Source {
                path: path.to_owned(),
                text,
            });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources.dedup_by(|a, b| a.path == b.path);
    Ok(sources)
}

impl Tree {
    /// The source at `path`.
    fn source(&self, path: &str) -> Option<&Source> {
        self.sources.iter().find(|s| s.path == path)
    }
}
