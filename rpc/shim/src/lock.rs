//! A lock in memory that forked children share: a futex, and whoever dies with it is noticed.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::futex;
use std::cell::UnsafeCell;
use std::num::NonZeroU32;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

/// Somebody sleeps on the lock.
const WAITERS: u32 = 1 << 31;
/// Looks before sleeping: what is done under these locks takes less.
const LOOKS: u32 = 200;
/// After so long a sleeper asks whether the owner still lives.
const PATIENCE: rustix::time::Timespec = rustix::time::Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// This process; changes in a forked child.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Notes which process this is: when the library is loaded, and in each forked child.
pub fn note_process() {
    PROCESS.store(
        rustix::process::getpid().as_raw_pid() as u32,
        Ordering::Relaxed,
    );
}

/// This process.
pub fn process() -> u32 {
    PROCESS.load(Ordering::Relaxed)
}

/// Whether this is a child of `vfork`, which runs in its parent's memory: nothing here may change then.
pub fn in_vfork_child() -> bool {
    PROCESS.load(Ordering::Relaxed) != rustix::process::getpid().as_raw_pid() as u32
}

/// The lock alone. Free when zero, else the owner's process number.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Lock(AtomicU32);

impl Lock {
    /// A free one.
    pub const fn new() -> Lock {
        Lock(AtomicU32::new(0))
    }

    /// Takes it. False: the owner has died with it, and what it guards may be half changed.
    #[inline]
    pub fn lock(&self) -> bool {
        let own = PROCESS.load(Ordering::Relaxed);
        let taken = self
            .0
            .compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok() || self.wait(own)
    }

    #[cold]
    fn wait(&self, own: u32) -> bool {
        let mut looks = 0;
        loop {
            let now = self.0.load(Ordering::Relaxed);
            if now == 0 {
                // Others may sleep still: the bit stays until an unlock finds nobody.
                let next = own | if looks > LOOKS { WAITERS } else { 0 };
                let taken = self
                    .0
                    .compare_exchange(0, next, Ordering::Acquire, Ordering::Relaxed);
                if taken.is_ok() {
                    return true;
                }
                continue;
            }
            looks += 1;
            if looks <= LOOKS {
                std::hint::spin_loop();
                continue;
            }
            let asleep = now | WAITERS;
            let set = self
                .0
                .compare_exchange(now, asleep, Ordering::Relaxed, Ordering::Relaxed);
            if set.is_err() {
                continue;
            }
            let slept = futex::wait(&self.0, futex::Flags::empty(), asleep, Some(&PATIENCE));
            if slept == Err(rustix::io::Errno::TIMEDOUT) && !alive(now & !WAITERS) {
                let stolen = self.0.compare_exchange(
                    asleep,
                    own | WAITERS,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                );
                if stolen.is_ok() {
                    return false;
                }
            }
        }
    }

    /// Gives it back.
    #[inline]
    pub fn unlock(&self) {
        if self.0.swap(0, Ordering::Release) & WAITERS != 0 {
            let one = NonZeroU32::MIN.get();
            // A wake-up that fails finds nobody.
            let _ = futex::wake(&self.0, futex::Flags::empty(), one);
        }
    }
}

/// Whether a process runs; one that waits to be reaped does not.
pub fn alive(process: u32) -> bool {
    let Some(pid) = Pid::from_raw(process as i32) else {
        return false;
    };
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return false;
    };
    let mut fds = [rustix::event::PollFd::new(
        &fd,
        rustix::event::PollFlags::IN,
    )];
    let ended = rustix::event::poll(&mut fds, Some(&rustix::time::Timespec::default()));
    ended == Ok(0)
}

/// Something behind a [`Lock`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Locked<T> {
    lock: Lock,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard only, and a guard holds the lock.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    /// Nobody holds it.
    pub const fn new(value: T) -> Locked<T> {
        Locked {
            lock: Lock::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        let orphan = !self.lock.lock();
        Guard { of: self, orphan }
    }

    /// The lock alone, for `fork`.
    pub fn raw(&self) -> &Lock {
        &self.lock
    }
}

/// Holds a [`Locked`].
#[derive(Debug)]
pub struct Guard<'a, T> {
    of: &'a Locked<T>,
    /// The last owner died with the lock.
    pub orphan: bool,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock.
        unsafe { &*self.of.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard holds the lock, and is borrowed mutably.
        unsafe { &mut *self.of.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.of.lock.unlock();
    }
}
