//! `cargo xtask build`: installs what is missing and builds every tool into target/release.

use crate::packages::{self, Group};
use crate::{Result, job, ui::Ui, workspace::Workspace};
use std::time::Duration;

/// A cold build of everything takes about three minutes on two cores.
const LIMIT: Duration = Duration::from_secs(1800);

#[derive(clap::Args)]
pub struct Options {
    /// The LLVM version of the pass, 22 or 19; more than one may be given
    #[arg(long, value_name = "VERSION", default_values_t = [22])]
    llvm: Vec<u32>,
}

/// Builds; the tools' paths are printed.
pub fn run(options: &Options) -> Result<bool> {
    let ui = Ui::new(false);
    let workspace = Workspace::load()?;
    packages::ensure(&ui, &[Group::Toolchain])?;
    for &version in &options.llvm {
        match version {
            22 => release(&ui, &workspace)?,
            19 => {
                packages::ensure(&ui, &[Group::Llvm19])?;
                pass_for_19(&ui, &workspace)?;
            }
            other => {
                return Err(format!("--llvm {other}: there is a pass for LLVM 22 and 19").into());
            }
        }
    }
    ui.line(&format!(
        "The tools are in {}",
        workspace.target.join("release").display()
    ));
    Ok(true)
}

/// Builds everything, output shown only when it fails.
pub fn release(ui: &Ui, workspace: &Workspace) -> Result<()> {
    step(ui, workspace, "build", &["build", "--release"])
}

/// Builds what a user of Vernal needs, and not the test suite.
pub fn tools(ui: &Ui, workspace: &Workspace) -> Result<()> {
    let mut arguments = vec!["build", "--release"];
    arguments.extend(TOOLS.iter().flat_map(|package| ["--package", package]));
    step(ui, workspace, "build the tools", &arguments)
}

/// The crates that make the tools and libraries.
const TOOLS: &[&str] = &[
    "vernal-cc",
    "vernal-pass-22",
    "vernal-capi",
    "vernal-shim",
    "vernal-cli",
    "puddled",
    "cargo-vernal",
];

fn pass_for_19(ui: &Ui, workspace: &Workspace) -> Result<()> {
    step(ui, workspace, "build the pass for LLVM 19", PASS_19)
}

/// How cargo builds the pass for LLVM 19.
const PASS_19: &[&str] = &["build", "--release", "--package", "vernal-pass-19"];

fn step(ui: &Ui, workspace: &Workspace, label: &str, arguments: &[&str]) -> Result<()> {
    let log = workspace
        .target
        .join("xtask/logs")
        .join(format!("{}.log", label.replace(' ', "-")));
    let finished = job::run(ui, label, &mut workspace.cargo(arguments), &log, LIMIT)?;
    if finished.success {
        ui.line(&format!("{label}: {}", crate::ui::seconds(finished.wall)));
        return Ok(());
    }
    Err(format!(
        "`cargo {}` failed ({}); {} ends with\n{}",
        arguments.join(" "),
        finished.reason,
        log.display(),
        finished.tail(40)
    )
    .into())
}
