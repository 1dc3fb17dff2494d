//! A thread that polls for tasks: started with the first one that has to wait.
//!
//! Futures look for their answer themselves for a moment: a server that polls answers within it, and then no thread is woken at all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::Thread;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use super::table::Place;
use super::{Handle, Inner};
use crate::Error;

/// Looks of a future at the ring before it leaves the wait to the driver.
const LOOKS: u32 = 2000;

/// The thread's handle.
pub(super) struct Driver {
    shared: Arc<Shared>,
    thread: Thread,
}

pub(super) struct Shared {
    stop: AtomicBool,
    /// Readable when the driver has to look at `asked` again.
    nudge: OwnedFd,
    /// Tasks asked for driving since the driver last looked; the earliest of their deadlines.
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Default)]
struct Asked {
    work: bool,
    deadline: Option<Instant>,
}

impl Driver {
    fn start(inner: Weak<Inner>) -> std::io::Result<Driver> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            nudge: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            asked: Mutex::default(),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let handle = std::thread::Builder::new()
            .name("vernal-rpc".into())
            .spawn(move || theirs.run(&inner))?;
        Ok(Driver {
            shared,
            thread: handle.thread().clone(),
        })
    }

    fn ask(&self, deadline: Option<Instant>) {
        let mut asked = self.shared.lock();
        asked.work = true;
        asked.deadline = match (asked.deadline, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.shared.changed.notify_one();
        drop(asked);
        if deadline.is_some() {
            // It may sleep already, and longer than to this deadline.
            self.shared.set_nudge();
            self.thread.unpark();
        }
    }

    pub(super) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let asked = self.shared.lock();
        self.shared.changed.notify_one();
        drop(asked);
        self.shared.set_nudge();
        self.thread.unpark();
    }
}

impl Shared {
    fn set_nudge(&self) {
        // It cannot fail but for a count that is already high, which is as good.
        let _ = rustix::io::write(&self.nudge, &1u64.to_ne_bytes());
    }

    /// Readable when the driver is to come back.
    pub(super) fn nudge(&self) -> BorrowedFd<'_> {
        self.nudge.as_fd()
    }

    /// Takes the nudge; `true`: there was one.
    pub(super) fn take_nudge(&self) -> bool {
        rustix::io::read(&self.nudge, &mut [0u8; 8]).is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, inner: &Weak<Inner>) {
        loop {
            let deadline = {
                let mut asked = self.lock();
                while !asked.work && !self.stop.load(Ordering::Acquire) {
                    asked = self
                        .changed
                        .wait(asked)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                asked.work = false;
                asked.deadline.take()
            };
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let Some(inner) = inner.upgrade() else {
                return;
            };
            inner.drive_once(deadline, self);
            if inner.table.any_waiting() {
                let mut asked = self.lock();
                asked.work = true;
                asked.deadline = match (asked.deadline, deadline) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
    }
}

impl Handle {
    /// Has the driver wait in the place of a task.
    pub(super) fn drive(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let driver = self
            .driver
            .get_or_init(|| Driver::start(Arc::downgrade(&self.0)).ok());
        match driver {
            Some(driver) => {
                driver.ask(deadline);
                Ok(())
            }
            None => Err(Error::os(
                "starting the thread that waits for tasks",
                std::io::Error::from(std::io::ErrorKind::WouldBlock),
            )),
        }
    }
}

impl Inner {
    /// Looks for a moment whether a place becomes ready.
    pub(super) fn look(&self, place: &Place) -> bool {
        for _ in 0..LOOKS {
            if place.is_ready() {
                return true;
            }
            self.pump();
            std::hint::spin_loop();
        }
        place.is_ready()
    }
}
