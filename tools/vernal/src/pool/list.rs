//! `vernal pool ls`.

use super::Common;
use super::name::connect;
use super::outcome::{FINE, Outcome, PROBLEM, Report};
use crate::files;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vernal_pool::archive::{ROOT_FILE, peek};
use vernal_puddled_proto::{Condition, PoolKind};

#[derive(clap::Args)]
pub struct Ls {
    /// A directory of embedded pools, or such a pool; the pools of puddled if not given
    directory: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

struct Row {
    name: String,
    mode: &'static str,
    bytes: u64,
    puddles: u64,
    state: String,
    json: Value,
}

pub fn run(options: &Ls) -> Outcome {
    let rows = match &options.directory {
        Some(directory) => embedded(directory)?,
        None => served()?,
    };
    let wrong = rows
        .iter()
        .any(|row| row.state.starts_with("damaged") || row.state.starts_with("quarantined"));
    let wide = rows
        .iter()
        .map(|row| row.name.chars().count())
        .max()
        .unwrap_or(0);
    let lines = rows.iter().map(|row| {
        format!(
            "{:<wide$}  {:<8}  {:>10}  {:>3} puddles  {}",
            row.name,
            row.mode,
            indicatif::BinaryBytes(row.bytes).to_string(),
            row.puddles,
            row.state
        )
    });
    let text: Vec<String> = lines.collect();
    let json = json!({"pools": rows.iter().map(|row| row.json.clone()).collect::<Vec<_>>()});
    // The list itself is no error message, whatever is in it.
    if !options.common.json {
        for line in &text {
            crate::print(line);
        }
    }
    Ok(Report {
        code: if wrong { PROBLEM } else { FINE },
        text: String::new(),
        json,
    })
}

fn kind(direct: bool) -> &'static str {
    if direct { "direct" } else { "buffered" }
}

fn embedded(directory: &Path) -> Result<Vec<Row>, super::outcome::Trouble> {
    let mut pools = Vec::new();
    if directory.join(ROOT_FILE).exists() {
        pools.push(directory.to_owned());
    }
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // Staging directories of imports are no pools yet.
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.join(ROOT_FILE).exists() {
            pools.push(path);
        }
    }
    pools.sort();
    Ok(pools.iter().map(|path| embedded_row(path)).collect())
}

fn embedded_row(path: &Path) -> Row {
    let name = path.display().to_string();
    match peek(path) {
        Ok((head, directory)) => {
            let bytes = directory.iter().map(|p| p.size).sum();
            let state = state(&path.join(ROOT_FILE));
            let mode = kind(head.direct);
            let json = json!({"pool": name, "id": head.uuid.to_string(), "label": head.label, "mode": mode,
                "bytes": bytes, "puddles": directory.len(), "state": state});
            Row {
                name,
                mode,
                bytes,
                puddles: directory.len() as u64,
                state,
                json,
            }
        }
        Err(e) => {
            let state = format!("damaged: {e}");
            let json = json!({"pool": name, "state": state});
            Row {
                name,
                mode: "",
                bytes: 0,
                puddles: 0,
                state,
                json,
            }
        }
    }
}

/// Whether anybody has the pool open, or died with it.
fn state(root: &Path) -> String {
    match files::look(root) {
        Ok(seen) => match (seen.holder, &seen.journal) {
            (Some(pid), _) => format!("open in process {pid}"),
            (None, Some(_)) => "its last writer died; opening it completes it".to_owned(),
            (None, None) => "closed".to_owned(),
        },
        Err(trouble) => format!("damaged: {}", trouble.text),
    }
}

fn served() -> Result<Vec<Row>, super::outcome::Trouble> {
    let pools = connect()?.list()?;
    Ok(pools
        .into_iter()
        .map(|pool| {
            let state = match &pool.condition {
                Condition::Ready => match pool.users.len() {
                    0 => "closed".to_owned(),
                    n => format!("open ({n})"),
                },
                Condition::Recovering => "recovering".to_owned(),
                Condition::Lingering => "still mapped by a process without connection".to_owned(),
                Condition::Quarantined { reason } => format!("quarantined: {reason}"),
                Condition::Damaged { reason } => format!("damaged: {reason}"),
            };
            let mode = kind(pool.kind == PoolKind::Direct);
            let json = json!({"pool": pool.name, "id": pool.id.to_string(), "mode": mode, "bytes": pool.bytes,
                "puddles": pool.puddles, "owner": pool.owner, "group": pool.group,
                "access": format!("{:o}", pool.mode), "state": state});
            Row {
                name: pool.name,
                mode,
                bytes: pool.bytes,
                puddles: pool.puddles.into(),
                state,
                json,
            }
        })
        .collect())
}
