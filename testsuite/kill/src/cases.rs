//! One process test per promise that the calls make.

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

/// A test.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Place) -> Result<(), Problem>,
}

/// Every test.
pub fn all() -> Vec<Case> {
    Vec::new()
}
