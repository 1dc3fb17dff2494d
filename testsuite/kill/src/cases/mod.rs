//! One process test per promise of the calls. Each is a story in the language of `cases/tool.c`, or runs one of the
//! programs beside it, and says what must come out.

mod commits;
mod damage;
mod programs;
mod sharing;
mod story;

use crate::Error;
use crate::place::Place;

/// How a test ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Outcome {
    /// The word for reports.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        }
    }
}

/// Why a test did not pass.
pub enum Problem {
    /// It cannot run here; why.
    Skip(String),
    /// What is wrong.
    Wrong(String),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::Wrong(error.to_string())
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Problem {
        Problem::Wrong(error.to_string())
    }
}

type Checked = std::result::Result<(), Problem>;

/// A test.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Place) -> Checked,
}

/// Every test.
pub fn all() -> Vec<Case> {
    let groups = [
        commits::CASES,
        sharing::CASES,
        damage::CASES,
        programs::CASES,
    ];
    let cases = groups.into_iter().flatten();
    cases.map(|&(name, run)| Case { name, run }).collect()
}

/// Name and test; what each file of cases exports a list of.
type Entry = (&'static str, fn(&Place) -> Checked);

fn wrong<T>(text: impl Into<String>) -> std::result::Result<T, Problem> {
    Err(Problem::Wrong(text.into()))
}
