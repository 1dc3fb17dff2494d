//! Transactions: what the pools build their commits and aborts on.
//!
//! A transaction is an `op` bracket whose end commits. An abort rolls back everything that is uncommitted, in every thread:
//! working memory knows which lines changed and not whose change it was. Therefore:
//!
//! - the aborting thread announces its abort, leaves its bracket, and whoever next holds the commit lock with the gate closed
//!   does the roll-back: nothing half-done of it can be committed in between;
//! - a transaction that has left its bracket and waits for its commit carries its arrival number; a roll-back kills those
//!   that no commit has gathered, and they report [`Error::RolledBack`].

use super::pipeline::{arrive, journal_error};
use super::{FORKED, MAPPED, Place, State, lock, plain};
use crate::error::Error;
use crate::gate;
use crate::thread::{self, Control};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vernal_sys::{Media, mem, os};

static ABORT_PENDING: AtomicBool = AtomicBool::new(false);
static EPOCH: AtomicU64 = AtomicU64::new(0);
static HOOK: OnceLock<fn(&[u64])> = OnceLock::new();

/// Calls `hook` after each roll-back with the addresses of the lines that were taken back, while no thread is inside an
/// operation. It must not commit, map or unmap.
pub fn on_roll_back(hook: fn(&[u64])) {
    let _ = HOOK.set(hook);
}

#[inline]
pub(super) fn abort_pending() -> bool {
    ABORT_PENDING.load(Ordering::Acquire)
}

/// Counts roll-backs.
#[inline]
pub(super) fn epoch() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

fn check_fork() -> Result<(), Error> {
    if FORKED.load(Ordering::Relaxed) && MAPPED.load(Ordering::Relaxed) == 0 {
        return Err(Error::Forked);
    }
    Ok(())
}

/// Begins a transaction of this thread.
#[inline]
pub fn tx_begin() -> Result<(), Error> {
    check_fork()?;
    gate::enter();
    Ok(())
}

/// [`tx_begin`] for `own`, this thread's block, in the process' only thread: `false`, and nothing has happened, when there are
/// others or this is a forked child.
#[inline]
pub fn tx_begin_plainly(own: &Control) -> bool {
    os::single_threaded() && !FORKED.load(Ordering::Relaxed) && gate::enter_alone(own)
}

/// [`tx_commit`] for `own`, this thread's block, where the plain commit does it; `None`, and nothing has happened: it does not.
#[inline]
pub fn tx_commit_plainly(own: &'static Control) -> Option<Result<(), Box<Error>>> {
    let done = plain::commit(own);
    if done.is_some() {
        gate::leave();
    }
    done
}

/// Ends the transaction and makes it durable, with whatever else is uncommitted.
#[inline]
pub fn tx_commit() -> Result<(), Error> {
    if let Some(own) = thread::known()
        && let Some(done) = tx_commit_plainly(own)
    {
        return done.map_err(|e| *e);
    }
    end(|s, own, mine| {
        if s.served >= mine && s.served_ok {
            s.stats.grouped += 1;
            return Ok(());
        }
        s.lead(own)
    })
}

/// Ends the transaction: atomic now, durable when [`super::wait`] has returned for the ticket.
pub fn tx_commit_async() -> Result<u64, Error> {
    end(|s, own, mine| {
        if s.gathered < mine {
            s.commit(own, false)?;
        }
        s.ticket += 1;
        Ok(s.ticket)
    })
}

#[inline]
fn end<R>(
    commit: impl FnOnce(&mut State, Option<&Control>, u64) -> Result<R, Error>,
) -> Result<R, Error> {
    // The arrival before the bracket's end: a commit that gathers this transaction has seen it then.
    let mine = arrive();
    let own = thread::current();
    if let Some(c) = own {
        c.tx_ticket.store(mine, Ordering::Release);
    }
    gate::leave();
    let locked = lock();
    let killed = own.is_some_and(|c| {
        c.tx_ticket.store(0, Ordering::Relaxed);
        // Written under the lock by others, and only while the ticket was set.
        let killed = c.tx_killed.load(Ordering::Relaxed);
        if killed {
            c.tx_killed.store(false, Ordering::Relaxed);
        }
        killed
    });
    let mut locked = locked?;
    check_fork()?;
    if killed {
        return Err(Error::RolledBack);
    }
    let own = locked.own;
    let done = commit(locked.state(), own, mine);
    locked.release();
    done
}

/// Ends the transaction and takes every mapped file back to its last commit, as soon as no other thread is inside an
/// operation.
pub fn tx_abort() -> Result<(), Error> {
    if super::puddles::nothing_mapped() && !abort_pending() {
        // Nothing of this transaction is there to take back, so nobody else's is rolled back with it, and nobody is waited
        // for: who is inside may wait for the allocator of a direct pool that a committing thread holds.
        gate::leave();
        return Ok(());
    }
    // Announced first: a commit that finds this thread's bracket left must find this too.
    ABORT_PENDING.store(true, Ordering::SeqCst);
    gate::leave();
    let mut locked = lock()?;
    let own = locked.own;
    let s = locked.state();
    // Somebody else's commit may have met the announcement and done it.
    if !abort_pending() {
        return Ok(());
    }
    let _closed = gate::close(own);
    s.absorb();
    s.roll_back(own)
}

impl State {
    /// Takes everything uncommitted back. The gate is closed, or no other thread is storing.
    pub(super) fn roll_back(&mut self, own: Option<&Control>) -> Result<(), Error> {
        if let Some((engine, path)) = &mut self.engine {
            // Asynchronous commits are commits: they stay.
            engine.flush().map_err(|e| journal_error(path, e))?;
            self.durable = self.ticket;
        }
        for i in 0..self.mappings.len() {
            if self.mappings[i].new_len.take().is_some() {
                let committed = match self.mappings[i].place {
                    Place::Member(id) => {
                        self.engine.as_ref().and_then(|(e, _)| e.committed_len(id))
                    }
                    _ => self.mappings[i]
                        .owner
                        .own()
                        .map(|o| o.meta.meta().committed_len),
                };
                let (Some(len), path) = (committed, self.mappings[i].path.clone()) else {
                    continue;
                };
                let have = self.gather.extents[i].len;
                if len > have {
                    // An uncommitted shrink: the old content is in the home still.
                    self.gather.set_len(i, len);
                } else {
                    self.gather.set_len(i, len);
                    if let Some(home) = self.home_mut(i) {
                        home.set_len(len)
                            .map_err(|e| Error::io(&path, "cutting", e))?;
                    }
                }
            }
        }
        self.resizing = false;
        let mut restored = Vec::new();
        self.gather.roll_back(own, |line| restored.push(line));
        if let Some(t) = &self.tracker {
            for m in self.mappings.iter().filter(|m| !m.read_only) {
                let len = mem::page_up(
                    self.gather
                        .extents
                        .iter()
                        .find(|e| e.base == m.slot.base)
                        .map_or(0, |e| e.len),
                );
                let mut ranges = Vec::new();
                t.take_written(m.slot.base, len.unwrap_or(0), |lo, hi| {
                    ranges.push((lo, hi))
                })
                .map_err(|e| Error::io(&m.path, "scanning for written pages", e))?;
                for (lo, hi) in ranges {
                    // SAFETY: drops the process's own copies of pages; they read as the home image again.
                    unsafe { mem::madvise(lo, hi - lo, libc::MADV_DONTNEED) }
                        .map_err(|e| Error::io(&m.path, "dropping pages of", e))?;
                }
            }
        }
        for c in thread::all() {
            let ticket = c.tx_ticket.load(Ordering::Acquire);
            if ticket != 0 && ticket > self.gathered {
                c.tx_killed.store(true, Ordering::Relaxed);
            }
        }
        EPOCH.fetch_add(1, Ordering::AcqRel);
        ABORT_PENDING.store(false, Ordering::Release);
        if let Some(hook) = HOOK.get() {
            hook(&restored);
        }
        Ok(())
    }
}
