//! A list of stages run one after the other, with one summary.

use crate::job;
use crate::tally::{self, Tally};
use crate::ui::{Ui, seconds};
use crate::{Result, workspace::Workspace};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// Lines of a failed stage's log that are shown.
const SHOWN: usize = 40;

/// One stage.
pub struct Stage {
    /// What it is called, in the log's file name too.
    pub name: &'static str,
    /// What it runs.
    pub command: Command,
    /// It is ended after this time.
    pub limit: Duration,
    /// Nothing after it makes sense when it fails.
    pub essential: bool,
}

/// The outcome of all stages.
pub struct Report {
    rows: Vec<Row>,
    wall: Duration,
}

struct Row {
    name: &'static str,
    tally: Tally,
    wall: Duration,
    note: String,
}

impl Report {
    /// The sum over all stages.
    pub fn total(&self) -> Tally {
        let mut sum = Tally::default();
        for row in &self.rows {
            sum += row.tally;
        }
        sum
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "stage": row.name, "passed": row.tally.passed, "failed": row.tally.failed,
                "skipped": row.tally.skipped, "seconds": row.wall.as_secs_f64(), "note": row.note,
            })
        };
        let total = self.total();
        json!({
            "stages": self.rows.iter().map(row).collect::<Vec<_>>(),
            "passed": total.passed, "failed": total.failed, "skipped": total.skipped,
            "seconds": self.wall.as_secs_f64(),
        })
    }

    /// The table and, last and alone on its line, the sum.
    pub fn print(&self, ui: &Ui) {
        ui.line("");
        for row in &self.rows {
            let note = if row.note.is_empty() {
                String::new()
            } else {
                format!("  {}", row.note)
            };
            ui.line(&format!(
                "  {:<14} {:>12}  {}{note}",
                row.name,
                seconds(row.wall),
                row.tally
            ));
        }
        ui.line(&format!("  {:<14} {:>12}", "all", seconds(self.wall)));
        ui.line("");
        ui.line(&self.total().to_string());
    }
}

/// Runs `stages`. A stage that reports no counts is one test. What an essential stage keeps from running counts as
/// failed, for it was asked for and has not been shown to pass.
pub fn run(ui: &Ui, workspace: &Workspace, stages: Vec<Stage>) -> Result<Report> {
    let start = Instant::now();
    let total = stages.len();
    let mut rows = Vec::new();
    let mut blocked: Option<&'static str> = None;
    for (index, mut stage) in stages.into_iter().enumerate() {
        if let Some(culprit) = blocked {
            let note = format!("not run: {culprit} failed");
            rows.push(Row {
                name: stage.name,
                tally: one(false),
                wall: Duration::ZERO,
                note,
            });
            continue;
        }
        let label = format!("[{:>2}/{total}] {:<14}", index + 1, stage.name);
        if !ui.is_terminal() {
            ui.line(&format!("{label} …"));
        }
        let log = workspace.target.join("xtask").join("logs").join(format!(
            "{:02}-{}.log",
            index + 1,
            stage.name
        ));
        let finished = job::run(ui, &label, &mut stage.command, &log, stage.limit)?;
        let mut tally = tally::parse(&finished.output).unwrap_or_else(|| one(finished.success));
        if !finished.success && tally.failed == 0 {
            tally.failed = 1;
        }
        let success = tally.failed == 0;
        let word = if success { "ok" } else { "FAILED" };
        ui.line(&format!(
            "{label} {word}  {}  ({})",
            seconds(finished.wall),
            tally
        ));
        let mut note = String::new();
        if !success {
            note = match finished.reason.as_str() {
                "" => "FAILED".to_owned(),
                reason => format!("FAILED: {reason}"),
            };
            let failures = finished.failures(SHOWN);
            if !failures.is_empty() {
                ui.line(&format!(
                    "    what failed, from {}:",
                    finished.log.display()
                ));
                ui.line(failures.trim_end_matches('\n'));
            }
            ui.line(&format!(
                "    the last lines of {}:",
                finished.log.display()
            ));
            let shown = if failures.is_empty() {
                SHOWN
            } else {
                SHOWN / 4
            };
            ui.line(finished.tail(shown).trim_end_matches('\n'));
            if stage.essential {
                blocked = Some(stage.name);
            }
        }
        rows.push(Row {
            name: stage.name,
            tally,
            wall: finished.wall,
            note,
        });
    }
    Ok(Report {
        rows,
        wall: start.elapsed(),
    })
}

fn one(success: bool) -> Tally {
    Tally {
        passed: u64::from(success),
        failed: u64::from(!success),
        skipped: 0,
    }
}
