//! `vernal pool create`, `rm`, `accept` and `quota`.

use super::Common;
use super::name::{Place, connect, fresh_uuid};
use super::outcome::{Outcome, Report, Trouble};
use serde_json::json;
use vernal_format::puddle::LABEL_MAX;
use vernal_heap::PoolIdentity;
use vernal_pool::dir::PoolDir;
use vernal_puddled_proto::PoolKind;

#[derive(clap::Args)]
pub struct Create {
    /// The pool
    pool: String,
    /// Change it in place, on byte-addressable media
    #[arg(long)]
    direct: bool,
    /// Bytes that its first puddle should hold (only for pools of puddled; others start small and grow)
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,
    /// Who may read and write it, in octal (only for pools of puddled; others: the mode of their directory)
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(clap::Args)]
pub struct Rm {
    /// The pool
    pool: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(clap::Args)]
pub struct Accept {
    /// The pool
    pool: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(clap::Args)]
pub struct Quota {
    /// The user, by number
    uid: u32,
    /// Set it to so many bytes
    #[arg(long, value_name = "BYTES", conflicts_with = "default")]
    set: Option<u64>,
    /// Set it back to what puddled gives everybody
    #[arg(long)]
    default: bool,
    #[command(flatten)]
    pub common: Common,
}

/// The bits of an octal mode.
pub fn mode_bits(mode: Option<&str>) -> Result<u16, Trouble> {
    let Some(text) = mode else { return Ok(0o600) };
    match u16::from_str_radix(text, 8) {
        Ok(bits) if bits & !0o666 == 0 => Ok(bits),
        _ => Err(Trouble::new(format!(
            "mode {text} is none of a pool: give read and write bits in octal, as 640"
        ))),
    }
}

pub fn create(options: &Create) -> Outcome {
    let done = |name: &str, id: String| {
        Report::fine(
            format!("{name}: created"),
            json!({"pool": name, "id": id, "state": "created"}),
        )
    };
    match Place::of(&options.pool) {
        Place::Embedded(path) => {
            if options.size.is_some() || options.mode.is_some() {
                return Err(Trouble::new(
                    "--size and --mode are for pools of puddled: an embedded pool grows by itself, and its directory has a mode",
                ));
            }
            let mut label = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            while label.len() > LABEL_MAX {
                label.pop();
            }
            let identity = PoolIdentity {
                uuid: fresh_uuid()?,
                label,
                direct: options.direct,
            };
            PoolDir::create(&path, &identity)?;
            Ok(done(&options.pool, identity.uuid.to_string()))
        }
        Place::Served(name) => {
            let kind = if options.direct {
                PoolKind::Direct
            } else {
                PoolKind::Buffered
            };
            let mode = mode_bits(options.mode.as_deref())?;
            let size = options.size.unwrap_or(0);
            let stat = connect()?.create(&name, mode, kind, size)?;
            Ok(done(&name, stat.id.to_string()))
        }
    }
}

pub fn remove(options: &Rm) -> Outcome {
    match Place::of(&options.pool) {
        Place::Embedded(path) => PoolDir::open(&path)?.delete()?,
        Place::Served(name) => connect()?.remove(&name)?,
    }
    Ok(Report::fine(
        format!("{}: removed", options.pool),
        json!({"pool": options.pool, "state": "removed"}),
    ))
}

pub fn accept(options: &Accept) -> Outcome {
    match Place::of(&options.pool) {
        Place::Embedded(_) => Err(Trouble::new(
            "only pools of puddled are put into quarantine: an embedded pool is recovered when it is opened",
        )),
        Place::Served(name) => {
            connect()?.accept(&name)?;
            Ok(Report::fine(
                format!("{name}: released from quarantine"),
                json!({"pool": name, "state": "accepted"}),
            ))
        }
    }
}

pub fn quota(options: &Quota) -> Outcome {
    let mut puddled = connect()?;
    let (used, limit) = if options.default || options.set.is_some() {
        puddled.set_quota(options.uid, options.set)?
    } else {
        puddled.quota(options.uid)?
    };
    let may = limit.map_or("any number".to_owned(), |bytes| bytes.to_string());
    Ok(Report::fine(
        format!("user {}: {used} bytes in puddles, of {may}", options.uid),
        json!({"uid": options.uid, "used": used, "limit": limit}),
    ))
}
