//! Import and clone: pools whose content a client writes before anybody sees them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;
use vernal_puddled_proto::limits::MAX_IMPORTS;
use vernal_puddled_proto::{Access, ErrorCode, Id, Reply};
use vernal_sys::service::{Hold, try_lock_as};

use super::stage::{Spec, Staged};
use super::{Answer, open};
use crate::client::Client;
use crate::fail::{Outcome, io as io_failure, not_found, refuse};
use crate::layout::open_rw;
use crate::page::{self, Page};
use crate::puddle;
use crate::state::{Shared, info};

fn room(client: &Client) -> Outcome<()> {
    if client.imports.len() < MAX_IMPORTS {
        return Ok(());
    }
    refuse(
        ErrorCode::Limit,
        format!("this client has {MAX_IMPORTS} imports unfinished: finish or abort one"),
    )
}

/// Hands the staged puddles to the client, for writing.
fn hand_out(client: &mut Client, staged: Staged, files: Vec<File>) -> Outcome<Answer> {
    // The client's descriptors share this lock: when it is free again, nobody can write to the puddles any more.
    if let Some(root) = files.first()
        && !try_lock_as(root, Hold::Exclusive).unwrap_or(false)
    {
        return refuse(
            ErrorCode::Internal,
            "a staged puddle is locked by somebody else",
        );
    }
    let id = staged.record.id;
    let puddles = staged.record.puddles.iter().map(info).collect();
    client.imports.insert(id, staged);
    Ok(Answer {
        reply: Reply::Import {
            import: id,
            puddles,
        },
        files,
    })
}

pub(crate) fn begin(
    shared: &Arc<Shared>,
    client: &mut Client,
    spec: Spec,
    sparse: bool,
) -> Outcome<Answer> {
    room(client)?;
    let staged = Staged::reserve(shared, &client.peer, spec)?;
    let files = staged.make_puddles(sparse)?;
    hand_out(client, staged, files)
}

pub(crate) fn clone(
    shared: &Arc<Shared>,
    client: &mut Client,
    from: &str,
    name: String,
    mode: u16,
) -> Outcome<Answer> {
    room(client)?;
    // As any reader: nobody writes meanwhile, and nobody sees an unsettled pool.
    let source = open::open(shared, client, from, Access::Snapshot)?;
    let id = match &source.reply {
        Reply::Opened { pool, .. } => pool.id,
        _ => Id::default(),
    };
    let copied = copy(shared, client, id, &source.files, name, mode);
    drop(source);
    open::close(shared, client, id)?;
    let (staged, files) = copied?;
    hand_out(client, staged, files)
}

fn copy(
    shared: &Arc<Shared>,
    client: &Client,
    from: Id,
    sources: &[File],
    name: String,
    mode: u16,
) -> Outcome<(Staged, Vec<File>)> {
    let (kind, sizes) = {
        let state = shared.state();
        let pool = state.pools.get(&from).ok_or_else(|| not_found(&name))?;
        let sizes = pool.record.puddles.iter().map(|p| p.size).collect();
        (pool.record.kind, sizes)
    };
    let spec = Spec {
        name,
        owner: None,
        group: None,
        mode,
        kind,
        sizes,
    };
    let staged = Staged::reserve(shared, &client.peer, spec)?;
    let files = staged.make_puddles(true)?;
    for (i, (to, from)) in files.iter().zip(sources).enumerate() {
        let size = staged.record.puddles.get(i).map_or(0, |p| p.size);
        if ioctl_ficlone(to, from).is_err() {
            copy_data(from, to, size).map_err(|e| io_failure("copying to", &staged.path(i), &e))?;
        }
    }
    Ok((staged, files))
}

/// Copies what is no hole.
fn copy_data(from: &File, to: &File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let start = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let end = seek(from, SeekFrom::Hole(start))?.min(size);
        copy_range(from, to, start, end)?;
        at = end.max(start + 1);
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut off_in, mut off_out) = (start, start);
    while off_in < end {
        let rest = usize::try_from(end - off_in).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut off_in), to, Some(&mut off_out), rest) {
            // The file became shorter: its owner's doing; what is missing reads as zeros.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_plain(from, to, off_in, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn copy_plain(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buf = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let part = buf.get_mut(..want).unwrap_or_default();
        let n = from.read_at(part, at)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all_at(part.get(..n).unwrap_or_default(), at)?;
        at += n as u64;
    }
    Ok(())
}

pub(crate) fn finish(shared: &Arc<Shared>, client: &mut Client, import: Id) -> Outcome<Answer> {
    let Some(staged) = client.imports.remove(&import) else {
        return Err(unknown(import));
    };
    // Checked before it is given up or published: a client that can still write could change what was checked.
    if let Err(e) = check(&staged) {
        // Its content is what is wrong, so there is nothing to try again with the same import, unless it is only still open.
        if e.code == ErrorCode::Busy {
            client.imports.insert(import, staged);
        }
        return Err(e);
    }
    let record = staged.publish()?;
    tracing::info!(pool = %record.name, id = %record.id, owner = record.owner, bytes = record.bytes(), client = client.id, "pool imported");
    let state = shared.state();
    let pool = state.pools.get(&record.id);
    pool.map(|p| Reply::Pool(p.stat()).into())
        .ok_or_else(|| not_found(&record.name))
}

fn unknown(import: Id) -> vernal_puddled_proto::Failure {
    vernal_puddled_proto::Failure::new(
        ErrorCode::NotFound,
        format!("this client has no import {import}: begin one"),
    )
}

fn check(staged: &Staged) -> Outcome<()> {
    let record = &staged.record;
    let fail = |i: usize, e: io::Error| io_failure("reading", &staged.path(i), &e);
    for (i, p) in record.puddles.iter().enumerate() {
        let file = match puddle::open(&staged.path(i), p.size, true) {
            Ok(file) => file,
            Err(damage) => {
                return refuse(
                    ErrorCode::Invalid,
                    format!("import of pool {:?}: {damage}", record.name),
                );
            }
        };
        if i == 0 && !try_lock_as(&file, Hold::Exclusive).map_err(|e| fail(i, e))? {
            return refuse(
                ErrorCode::Busy,
                format!(
                    "the puddles of the import of pool {:?} are still open or mapped: close them, then finish it",
                    record.name
                ),
            );
        }
        file.sync_all().map_err(|e| fail(i, e))?;
    }
    let root = open_rw(&staged.path(0)).map_err(|e| fail(0, e))?;
    match page::read_file(&root, record) {
        Page::Named(named) => {
            let there = record.puddles.iter().map(|p| p.id).collect();
            if named == there {
                return Ok(());
            }
            refuse(
                ErrorCode::Invalid,
                format!(
                    "import of pool {:?}: its pool page names other puddles than those of the import; write the identities that the import gave",
                    record.name
                ),
            )
        }
        Page::Damaged(why) => refuse(
            ErrorCode::Invalid,
            format!(
                "import of pool {:?}: {why}; the archive is damaged or no pool",
                record.name
            ),
        ),
    }
}

pub(crate) fn abort(client: &mut Client, import: Id) -> Outcome<Answer> {
    match client.imports.remove(&import) {
        Some(staged) => {
            drop(staged);
            Ok(Reply::Done.into())
        }
        None => Err(unknown(import)),
    }
}
