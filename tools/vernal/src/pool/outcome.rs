//! How the commands end: one report, for people or as JSON, and an exit code.

use super::Common;
use serde_json::{Value, json};
use vernal_heap::walk::Untyped;
use vernal_pool::archive::{ArchiveFailure, Dangling};

/// Done, nothing wrong.
pub const FINE: u8 = 0;
/// A problem was found.
pub const PROBLEM: u8 = 1;
/// It could not be done.
pub const TROUBLE: u8 = 2;

/// What a command has to say.
pub struct Report {
    /// The exit code.
    pub code: u8,
    /// For a person.
    pub text: String,
    /// For a program.
    pub json: Value,
}

impl Report {
    /// Nothing wrong.
    pub fn fine(text: impl Into<String>, json: Value) -> Report {
        Report {
            code: FINE,
            text: text.into(),
            json,
        }
    }
}

/// Why a command could not be done.
pub struct Trouble {
    code: u8,
    text: String,
    detail: Value,
}

/// What a command returns.
pub type Outcome = Result<Report, Trouble>;

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Trouble {
        Trouble {
            code: TROUBLE,
            text: error.to_string(),
            detail: Value::Null,
        }
    }
}

impl Trouble {
    /// In these words.
    pub fn new(text: impl Into<String>) -> Trouble {
        Trouble {
            code: TROUBLE,
            text: text.into(),
            detail: Value::Null,
        }
    }

    /// An export that found pointers out of the pool has found a problem, and lists them.
    pub fn of_archive(error: ArchiveFailure) -> Trouble {
        match &error {
            ArchiveFailure::Dangling { count, list, .. } => Trouble {
                code: PROBLEM,
                text: format!("{error}\n{}", dangling_text(list)),
                detail: json!({"dangling": dangling_json(list), "dangling_count": count}),
            },
            ArchiveFailure::Untyped { count, list, .. } => Trouble {
                code: PROBLEM,
                text: format!("{error}\n{}", untyped_text(list)),
                detail: json!({"untyped": untyped_json(list), "untyped_count": count}),
            },
            _ => error.into(),
        }
    }
}

/// Pointers out of a pool, one a line.
pub fn dangling_text(list: &[Dangling]) -> String {
    let lines = list.iter().map(|d| {
        format!(
            "  {} of the object at {:#x} -> {:#x}",
            d.field, d.object, d.target
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The same for programs.
pub fn dangling_json(list: &[Dangling]) -> Value {
    let rows = list.iter().map(|d| {
        json!({"field": d.field, "object": format!("{:#x}", d.object), "target": format!("{:#x}", d.target)})
    });
    rows.collect()
}

/// Words of memory without type that look like pointers, one a line.
fn untyped_text(list: &[Untyped]) -> String {
    let lines = list.iter().map(|u| {
        format!(
            "  the word at {:#x} of the memory at {:#x} -> {:#x}",
            u.addr, u.object.addr, u.value
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The same for programs.
fn untyped_json(list: &[Untyped]) -> Value {
    let rows = list.iter().map(|u| {
        json!({"object": format!("{:#x}", u.object.addr), "address": format!("{:#x}", u.addr), "target": format!("{:#x}", u.value)})
    });
    rows.collect()
}

/// Prints what a command has to say; the exit code.
pub fn finish(common: Common, outcome: Outcome) -> u8 {
    finish_on(common, outcome, false)
}

/// The same, on standard error if standard output holds an archive.
pub fn finish_on(common: Common, outcome: Outcome, stdout_taken: bool) -> u8 {
    let say = |text: &str| {
        if stdout_taken {
            eprintln!("{text}");
        } else {
            crate::print(text);
        }
    };
    match outcome {
        Ok(report) => {
            if common.json {
                say(&report.json.to_string());
            } else if !report.text.is_empty() && report.code == FINE {
                say(&report.text);
            } else if !report.text.is_empty() {
                eprintln!("vernal: {}", report.text);
            }
            report.code
        }
        Err(trouble) => {
            if common.json {
                let mut value = json!({"error": trouble.text});
                if let (Some(to), Some(from)) = (value.as_object_mut(), trouble.detail.as_object())
                {
                    to.extend(from.clone());
                }
                say(&value.to_string());
            } else {
                eprintln!("vernal: {}", trouble.text);
            }
            trouble.code
        }
    }
}
