//! How long to look for a message before sleeping.
//!
//! A sleep and its wake-up cost some 10 to 60 µs; looking costs a processor. So a waiter looks for about as long as a sleep
//! costs, then lets others run between looks (with few processors the peer may be waiting for this one), then sleeps. The
//! time it looks follows the waits of the past: it grows while waits are short and shrinks while looking was in vain. A
//! waiter that finds itself interrupted while it looks takes that as a crowded machine and gives way at once.

use std::time::{Duration, Instant};

/// How a side waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitPolicy {
    /// Looks all the time; a processor of its own is taken for granted.
    Spin,
    /// Looks for a while, gives way for a while, sleeps.
    #[default]
    Adaptive,
    /// Sleeps at once.
    Block,
}

/// What a waiter does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look again.
    Look,
    /// Ask whether waiting still makes sense (is the peer alive?), then look again. Only for waiters that never sleep.
    Check,
    /// Go to sleep: arm, look again, block.
    Sleep,
}

/// The longest time to look without giving way.
const LOOK_MAX: Duration = Duration::from_micros(50);
/// The shortest one, so that a burst after a quiet time is found.
const LOOK_MIN: Duration = Duration::from_micros(2);
/// What a waiter begins with.
const LOOK_FIRST: Duration = Duration::from_micros(20);
/// How often it gives way before it sleeps.
const YIELDS: u32 = 16;
/// Looks without a pause between them: the answer of a spinning peer comes within these.
const EAGER_LOOKS: u32 = 512;
/// Looks between two readings of the clock.
const LOOKS_PER_READING: u32 = 32;
/// How often a waiter that never sleeps gives way, and asks whether waiting still makes sense.
const CHECK_EVERY: Duration = Duration::from_millis(1);
/// A longer gap between two readings means that somebody else had the processor.
const INTERRUPTED: Duration = Duration::from_micros(100);

/// The memory of a waiter: how long looking has paid.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    policy: WaitPolicy,
    look: Duration,
}

/// One wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    looks: u32,
    yields: u32,
    deadline: Option<Instant>,
    since: Option<Instant>,
    read: Option<Instant>,
    checked: Option<Instant>,
    slept: bool,
}

impl Backoff {
    /// A waiter without a past.
    pub fn new(policy: WaitPolicy) -> Self {
        Backoff {
            policy,
            look: LOOK_FIRST,
        }
    }

    /// How it waits.
    pub fn policy(&self) -> WaitPolicy {
        self.policy
    }

    /// Begins to wait. When the deadline passes, the next step is [`Step::Sleep`] with any policy.
    #[inline]
    pub fn begin(&self, deadline: Option<Instant>) -> Wait {
        Wait {
            looks: 0,
            yields: 0,
            deadline,
            since: None,
            read: None,
            checked: None,
            slept: false,
        }
    }

    /// To be called after each look that found nothing: pauses as long as fits, and says what to do.
    #[inline]
    pub fn step(&mut self, wait: &mut Wait) -> Step {
        if self.policy == WaitPolicy::Block || wait.slept {
            wait.slept = true;
            return Step::Sleep;
        }
        wait.looks = wait.looks.wrapping_add(1);
        if wait.looks < EAGER_LOOKS {
            return Step::Look;
        }
        self.patient_step(wait)
    }

    #[cold]
    fn patient_step(&mut self, wait: &mut Wait) -> Step {
        if !wait.looks.is_multiple_of(LOOKS_PER_READING) {
            std::hint::spin_loop();
            return Step::Look;
        }
        let now = Instant::now();
        let since = *wait.since.get_or_insert(now);
        let gap = wait.read.replace(now).map_or(Duration::ZERO, |r| now - r);
        if wait.deadline.is_some_and(|d| d <= now) {
            return Step::Sleep;
        }
        if self.policy == WaitPolicy::Spin {
            return Self::spin_on(wait, now);
        }
        if gap > INTERRUPTED {
            // Somebody else wants this processor. Who sleeps is woken in time; who gives way waits for its next turn.
            self.look = LOOK_MIN;
            if wait.yields > 0 {
                wait.slept = true;
                return Step::Sleep;
            }
        }
        if now - since < self.look {
            std::hint::spin_loop();
            return Step::Look;
        }
        if wait.yields >= YIELDS {
            wait.slept = true;
            return Step::Sleep;
        }
        wait.yields += 1;
        std::thread::yield_now();
        // The next look that finds nothing reads the clock again.
        wait.looks = wait.looks.wrapping_sub(1);
        Step::Look
    }

    /// A waiter that never sleeps gives way rarely: a peer that does not answer for so long may wait for this processor.
    fn spin_on(wait: &mut Wait, now: Instant) -> Step {
        if now - *wait.checked.get_or_insert(now) < CHECK_EVERY {
            std::hint::spin_loop();
            return Step::Look;
        }
        wait.checked = Some(now);
        std::thread::yield_now();
        Step::Check
    }

    /// Ends a wait that found what it waited for.
    #[inline]
    pub fn end(&mut self, wait: Wait) {
        if wait.looks >= EAGER_LOOKS || wait.slept {
            self.learn(wait);
        }
    }

    #[cold]
    fn learn(&mut self, wait: Wait) {
        let waited = match wait.since {
            Some(since) => since.elapsed(),
            None => return,
        };
        self.look = if waited > LOOK_MAX {
            self.look / 2
        } else {
            // Twice what it took, slowly: one short wait among long ones must not make a waiter look in vain.
            (self.look * 7 + waited * 2) / 8
        }
        .clamp(LOOK_MIN, LOOK_MAX);
    }
}
