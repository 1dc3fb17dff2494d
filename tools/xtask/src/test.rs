//! `cargo xtask test`: everything that must pass, stage by stage.

use crate::packages::{self, Group};
use crate::stages::{self, Stage};
use crate::tally::Tally;
use crate::{Result, suites, ui::Ui, workspace::Workspace};
use std::process::Command;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Options {
    /// Print one JSON object on standard output; progress goes to standard error
    #[arg(long)]
    json: bool,
    /// Run only these stages, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "STAGE")]
    only: Vec<String>,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// Runs the stages; the last line is their sum.
pub fn run(options: &Options) -> Result<bool> {
    let ui = Ui::new(options.json);
    let workspace = Workspace::load()?;
    let mut list = all(&workspace)?;
    if !options.only.is_empty() {
        let names: Vec<&str> = list.iter().map(|s| s.name).collect();
        if let Some(unknown) = options
            .only
            .iter()
            .find(|name| !names.contains(&name.as_str()))
        {
            return Err(format!("--only {unknown}: the stages are {}", names.join(", ")).into());
        }
        list.retain(|stage| options.only.iter().any(|name| name == stage.name));
    }
    if let Err(error) = packages::ensure(&ui, Group::ALL) {
        // Whoever reads only the last line must see that nothing has been shown.
        ui.line(&format!("packages: {error}"));
        ui.line(
            &Tally {
                failed: list.len() as u64,
                ..Tally::default()
            }
            .to_string(),
        );
        return Ok(false);
    }
    // Not every distribution has Chromium under this name: without it those tests are skipped, and the sum says so.
    if list.iter().any(|stage| stage.name == "inspect-page")
        && let Err(error) = packages::ensure(&ui, &[Group::Browser])
    {
        ui.line(&format!("packages: {error}; going on without"));
    }
    let report = stages::run(&ui, &workspace, list)?;
    report.print(&ui);
    ui.report(&report.json());
    Ok(report.total().failed == 0)
}

/// Every stage, cheapest first, so that a slip shows early.
fn all(workspace: &Workspace) -> Result<Vec<Stage>> {
    let stage = |name, arguments: &[&str], limit, essential| Stage {
        name,
        command: workspace.cargo(arguments),
        limit,
        essential,
    };
    let mut tidy = Command::new(std::env::current_exe()?);
    tidy.arg("tidy").current_dir(&workspace.root);
    let mut list = vec![
        stage(
            "fmt",
            &["fmt", "--all", "--", "--check", "-l", "--color", "never"],
            minutes(2),
            false,
        ),
        Stage {
            name: "tidy",
            command: tidy,
            limit: minutes(2),
            essential: false,
        },
        stage(
            "build",
            &["build", "--release", "--workspace"],
            minutes(20),
            true,
        ),
        stage(
            "clippy",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--keep-going",
                "--",
                "--deny",
                "warnings",
            ],
            minutes(15),
            false,
        ),
        stage(
            "cargo-test",
            &["test", "--workspace", "--no-fail-fast"],
            minutes(20),
            false,
        ),
    ];
    let prefix = workspace.target.join("xtask/prefix");
    let mut install = Command::new(std::env::current_exe()?);
    install
        .args(["install", "--verify", "--prefix"])
        .arg(prefix)
        .current_dir(&workspace.root);
    list.push(Stage {
        name: "install",
        command: install,
        limit: minutes(5),
        essential: false,
    });
    for suite in suites::SUITES
        .iter()
        .filter(|suite| workspace.has(suite.package))
    {
        let words = suite.cargo(suite.once());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        list.push(stage(suite.name, &words, suite.limit, false));
    }
    Ok(list)
}
