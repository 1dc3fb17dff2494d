//! How long calls take: a histogram that costs nothing where nobody measures.
//!
//! A polling call takes less than ten readings of the clock, so not every call is measured: the first [`ALWAYS`] of a connection are,
//! then one in [`ONE_IN`]. Each power of two nanoseconds has [`PARTS`] buckets, so that a quantile is at most an eighth off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of so many calls one is measured.
pub const ONE_IN: u64 = 64;
/// Calls of a connection that are all measured, before that.
pub const ALWAYS: u64 = 64;

/// Buckets of each power of two.
const PARTS: u32 = 4;
/// Below 2^FIRST ns is the first bucket, from 2^LAST ns on the last.
const FIRST: u32 = 6;
const LAST: u32 = 34;
/// Buckets of a histogram.
pub const BUCKETS: usize = ((LAST - FIRST) * PARTS) as usize + 2;
/// Words of a histogram in memory: the sum of its nanoseconds, then the buckets.
pub(crate) const WORDS: usize = BUCKETS + 1;

/// Whether the call with this number since its connection or channel began is measured.
#[inline(always)]
pub(crate) fn is_sampled(number: u64) -> bool {
    number.is_multiple_of(ONE_IN) || number < ALWAYS
}

fn bucket_of(nanos: u64) -> usize {
    let power = nanos.checked_ilog2().unwrap_or(0);
    if power < FIRST {
        return 0;
    }
    if power >= LAST {
        return BUCKETS - 1;
    }
    // The bits behind the leading one.
    let part = nanos >> (power - PARTS.ilog2()) & u64::from(PARTS - 1);
    ((power - FIRST) * PARTS) as usize + part as usize + 1
}

/// First nanosecond that is not in the bucket any more.
fn end_of(bucket: usize) -> u64 {
    let Some(last) = bucket.checked_sub(1) else {
        return 1 << FIRST;
    };
    let (power, part) = (last as u32 / PARTS + FIRST, last as u64 % u64::from(PARTS));
    (1 << power) + ((part + 1) << power >> PARTS.ilog2())
}

/// What was measured. It is its owner's own word for it, when it comes from a peer's memory: a number to show, never one to rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    sum: u64,
    counts: Box<[u64]>,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency {
            sum: 0,
            counts: vec![0; BUCKETS].into(),
        }
    }
}

impl Latency {
    /// A histogram of these words: the sum, then the buckets.
    pub(crate) fn of(words: impl IntoIterator<Item = u64>) -> Latency {
        let mut words = words.into_iter();
        let mut latency = Latency {
            sum: words.next().unwrap_or(0),
            ..Latency::default()
        };
        for (count, word) in latency.counts.iter_mut().zip(words) {
            *count = word;
        }
        latency
    }

    /// Calls that were measured.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |n, c| n.wrapping_add(*c))
    }

    /// What they took together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// What was measured since `earlier`.
    pub fn since(&self, earlier: &Latency) -> Latency {
        let pairs = self.counts.iter().zip(&earlier.counts);
        Latency {
            sum: self.sum.saturating_sub(earlier.sum),
            counts: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
        }
    }

    /// What so many of all calls stay below: `0.5` is the median. The end of a bucket, so at most a quarter too much. `None`: nothing
    /// was measured.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let all = self.count();
        let wanted = ((all as f64 * q).ceil() as u64).max(1);
        let mut seen = 0u64;
        let mut buckets = self.counts.iter().enumerate();
        let found = buckets.find(|(_, count)| {
            seen = seen.saturating_add(**count);
            seen >= wanted
        });
        found.map(|(bucket, _)| Duration::from_nanos(end_of(bucket)))
    }

    /// The buckets with something in them: the first time that is not in it any more, and how many calls took less than that and not less
    /// than the bucket before allows.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let some = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        some.map(|(bucket, count)| (Duration::from_nanos(end_of(bucket)), *count))
    }
}

/// A histogram that is written to: [`WORDS`] words of memory.
#[derive(Debug)]
pub(crate) struct Recorder<W> {
    words: W,
}

impl Recorder<Box<[AtomicU64]>> {
    /// One of its own.
    pub(crate) fn new() -> Self {
        Recorder::over((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl<W: AsRef<[AtomicU64]>> Recorder<W> {
    /// One in these words, which only this process writes.
    pub(crate) fn over(words: W) -> Self {
        Recorder { words }
    }

    /// Counts a call. Out of line: few calls are measured.
    #[cold]
    pub(crate) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let words = self.words.as_ref();
        for (word, more) in [(0, nanos), (1 + bucket_of(nanos), 1)] {
            if let Some(word) = words.get(word) {
                word.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// What was counted so far.
    pub(crate) fn read(&self) -> Latency {
        let words = self.words.as_ref().iter();
        Latency::of(words.map(|w| w.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_the_bucket_that_ends_next() {
        let mut before = 0;
        for bucket in 0..BUCKETS - 1 {
            let end = end_of(bucket);
            assert!(end > before, "bucket {bucket}");
            assert_eq!(bucket_of(before), bucket, "first of {bucket}");
            assert_eq!(bucket_of(end - 1), bucket, "last of {bucket}");
            // A quarter of its beginning at most.
            assert!(
                bucket == 0 || (end - before) * 4 <= before,
                "bucket {bucket}"
            );
            before = end;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(before), BUCKETS - 1);
        assert_eq!(before, 1 << LAST);
    }

    #[test]
    fn quantiles_are_near_what_was_recorded() {
        let recorder = Recorder::new();
        assert_eq!(recorder.read().quantile(0.5), None);
        for n in 1..=1000 {
            recorder.record(Duration::from_micros(n));
        }
        let early = recorder.read();
        assert_eq!(early.count(), 1000);
        assert_eq!(early.sum(), Duration::from_micros(500_500));
        for (q, exact) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0), (0.0, 1.0)] {
            let found = early.quantile(q).expect("some").as_secs_f64() * 1e6;
            assert!(
                found >= exact && found <= exact * 1.25 + 0.1,
                "{q}: {found} for {exact}"
            );
        }
        assert_eq!(early.buckets().map(|(_, n)| n).sum::<u64>(), 1000);
        recorder.record(Duration::from_secs(100));
        let later = recorder.read().since(&early);
        assert_eq!((later.count(), later.sum()), (1, Duration::from_secs(100)));
        assert!(later.quantile(0.5) > Some(Duration::from_secs(17)));
    }

    #[test]
    fn the_first_calls_and_then_some_are_measured() {
        let sampled = (0..ALWAYS + 10 * ONE_IN).filter(|n| is_sampled(*n));
        assert_eq!(sampled.count() as u64, ALWAYS + 10);
    }
}
