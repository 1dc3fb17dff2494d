//! The two processes of a system, and the lines that the harness exchanges with them.
//!
//! ```text
//! server:  ok                                    when it listens
//!          calls              ok N               calls that it has answered
//! client:  ok                                    when it is connected
//!          run SIZE WARM COUNT SEED THREADS      ok NS UNITS SUM
//!          load SIZE RATE COUNT SEED SPIN        ok NS UNITS SUM P50 P99 P999 MAX
//!          open FILE                             ok DOCUMENTS
//!          insert FIRST COUNT                    ok NS UNITS SUM
//!          search FIELD DISTINCT DEPTH WARM COUNT SEED   ok NS UNITS SUM
//! both:    the end of their input ends them
//! ```
//! `cpp/grpc.cc` speaks the same.

use crate::cooldb::{Depth, Source, query_value};
use crate::payload::seed_of;
use crate::{Failure, Result};
use std::io::{BufRead, Write};
use std::sync::Barrier;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One connection, as a client sees it.
pub trait Caller {
    /// Sends a request of `size` bytes made from `seed`; the sum of the reply's words.
    fn call(&mut self, size: usize, seed: u64) -> Result<u64>;

    /// Builds the encoded document in the system's own form and stores it; the store's documents afterwards.
    fn insert(&mut self, document: &[u8]) -> Result<u64> {
        let _ = document;
        Err(Failure("has no document store".to_owned()))
    }

    /// Searches documents whose `field` has `value`, and folds what it reads of them.
    fn search(&mut self, field: &str, value: i64, depth: Depth) -> Result<u64> {
        let _ = (field, value, depth);
        Err(Failure("has no document store".to_owned()))
    }
}

/// What a server process counts, and how it says that it listens.
#[derive(Default)]
pub struct Serving {
    calls: AtomicU64,
    counter: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
}

impl Serving {
    /// A call has been answered.
    pub fn answered(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// As `answered`, in a server with one thread, for which a locked addition would be a part of what is measured.
    pub fn answered_alone(&self) {
        let calls = self.calls.load(Ordering::Relaxed);
        self.calls.store(calls + 1, Ordering::Relaxed);
    }

    /// Who counts the calls, where handlers cannot.
    pub fn counted_by(&self, counter: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.counter.set(Box::new(counter));
    }

    fn count(&self) -> u64 {
        match self.counter.get() {
            Some(counter) => counter(),
            None => self.calls.load(Ordering::Relaxed),
        }
    }

    /// Clients may connect now.
    pub fn ready(&self) {
        say("ok");
    }
}

/// Writes one line at once. A harness that is gone is no news: the end of the input follows.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// A server process: `serve` runs on a thread of its own until the input ends.
pub fn server(serve: impl FnOnce(&'static Serving) -> Result<()> + Send + 'static) -> Result<()> {
    let serving: &'static Serving = Box::leak(Box::default());
    std::thread::spawn(move || {
        if let Err(e) = serve(serving) {
            eprintln!("server: {e}");
            std::process::exit(1);
        }
    });
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Failure(format!("input: {e}")))?;
        if line.trim() == "calls" {
            say(&format!("ok {}", serving.count()));
        }
    }
    // Threads of the system may never end by themselves.
    std::process::exit(0);
}

/// A client process.
pub fn client(connect: impl Fn() -> Result<Box<dyn Caller>> + Sync) -> Result<()> {
    let mut caller = connect()?;
    let mut source = None;
    say("ok");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Failure(format!("input: {e}")))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = command(&words, &mut *caller, &connect, &mut source)
            .map_err(|e| Failure(format!("{line}: {e}")))?;
        say(&answer);
    }
    Ok(())
}

fn command(
    words: &[&str],
    caller: &mut dyn Caller,
    connect: &(impl Fn() -> Result<Box<dyn Caller>> + Sync),
    source: &mut Option<Source>,
) -> Result<String> {
    let number = |at: usize| -> Result<u64> {
        words
            .get(at)
            .and_then(|w| w.parse().ok())
            .ok_or_else(|| Failure(format!("word {at} is no number")))
    };
    let opened = |source: &Option<Source>| {
        source
            .clone()
            .ok_or_else(|| Failure("no documents are open".to_owned()))
    };
    match words.first().copied() {
        Some("run") => {
            let job = Job {
                size: number(1)? as usize,
                warm: number(2)?,
                count: number(3)?,
                seed: number(4)?,
            };
            let threads = number(5)?;
            if threads <= 1 {
                let (start, end, sum) = job.run(caller, 0, || {})?;
                Ok(timed(end - start, job.count, sum))
            } else {
                many(&job, threads, connect)
            }
        }
        Some("load") => load(
            caller,
            number(1)? as usize,
            number(2)?,
            number(3)?,
            number(4)?,
            number(5)? != 0,
        ),
        Some("open") => {
            let path = words.get(1).copied().unwrap_or_default();
            let opened = Source::open(path.as_ref())?;
            let answer = format!("ok {}", opened.len());
            *source = Some(opened);
            Ok(answer)
        }
        Some("insert") => {
            let source = opened(source)?;
            let (first, count) = (number(1)?, number(2)?);
            let start = Instant::now();
            let mut sum = 0u64;
            for id in first..first + count {
                sum = sum.wrapping_add(caller.insert(source.document(id)?)?);
            }
            Ok(timed(start.elapsed(), count, sum))
        }
        Some("search") => {
            let (field, distinct) = (words.get(1).copied().unwrap_or_default(), number(2)?);
            let depth = Depth::parse(words.get(3).copied().unwrap_or_default())?;
            let (warm, count, seed) = (number(4)?, number(5)?, number(6)?);
            let mut sum = 0u64;
            let mut start = Instant::now();
            for i in 0..warm + count {
                if i == warm {
                    start = Instant::now();
                }
                let value = query_value(seed, i, distinct);
                sum = sum.wrapping_add(caller.search(field, value, depth)?);
            }
            Ok(timed(start.elapsed(), count, sum))
        }
        other => Err(Failure(format!("unknown command {other:?}"))),
    }
}

fn timed(time: Duration, units: u64, sum: u64) -> String {
    format!("ok {} {units} {sum}", time.as_nanos())
}

/// A closed loop of calls.
struct Job {
    size: usize,
    warm: u64,
    count: u64,
    seed: u64,
}

impl Job {
    /// Start and end of the timed calls, and the sum of all replies.
    fn run(
        &self,
        caller: &mut dyn Caller,
        thread: u64,
        warm: impl FnOnce(),
    ) -> Result<(Instant, Instant, u64)> {
        let mut sum = 0u64;
        for i in 0..self.warm {
            sum = sum.wrapping_add(caller.call(self.size, seed_of(self.seed, thread, i))?);
        }
        warm();
        let start = Instant::now();
        for i in self.warm..self.warm + self.count {
            sum = sum.wrapping_add(caller.call(self.size, seed_of(self.seed, thread, i))?);
        }
        Ok((start, Instant::now(), sum))
    }
}

/// Each thread has its own connection; the time is from the first start to the last end.
fn many(
    job: &Job,
    threads: u64,
    connect: &(impl Fn() -> Result<Box<dyn Caller>> + Sync),
) -> Result<String> {
    let barrier = Barrier::new(threads as usize);
    let done: Vec<Result<(Instant, Instant, u64)>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    // A thread that fails still comes to the barrier, or the others would wait for ever.
                    let mut arrived = false;
                    let result = connect().and_then(|mut caller| {
                        job.run(&mut *caller, thread, || {
                            arrived = true;
                            barrier.wait();
                        })
                    });
                    if !arrived {
                        barrier.wait();
                    }
                    result
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|h| {
                h.join()
                    .unwrap_or_else(|_| Err(Failure("a client thread panicked".to_owned())))
            })
            .collect()
    });
    let done: Vec<_> = done.into_iter().collect::<Result<_>>()?;
    let start = done.iter().map(|d| d.0).min();
    let end = done.iter().map(|d| d.1).max();
    let sum = done.iter().fold(0u64, |sum, d| sum.wrapping_add(d.2));
    let time = start
        .zip(end)
        .map_or(Duration::ZERO, |(start, end)| end - start);
    Ok(timed(time, job.count * threads, sum))
}

/// Open loop: calls are due at random times of a given mean rate. A call that starts late because the one before took long
/// is counted from when it was due, so that a slow call is not hidden by those that it delays.
fn load(
    caller: &mut dyn Caller,
    size: usize,
    rate: u64,
    count: u64,
    seed: u64,
    spin: bool,
) -> Result<String> {
    let mut latencies = Vec::with_capacity(count as usize);
    let mut random = seed | 1;
    let mut due = 0f64;
    let mut sum = 0u64;
    let start = Instant::now();
    for i in 0..count {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((random >> 11) + 1) as f64 / (1u64 << 53) as f64;
        due += -uniform.ln() * 1e9 / rate as f64;
        let at = Duration::from_nanos(due as u64);
        loop {
            let now = start.elapsed();
            if now >= at {
                break;
            }
            if spin {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(at - now);
            }
        }
        sum = sum.wrapping_add(caller.call(size, seed_of(seed, 0, i))?);
        latencies.push((start.elapsed() - at).as_nanos() as u64);
    }
    let time = start.elapsed();
    latencies.sort_unstable();
    let at = |per_mille: usize| {
        let index = (latencies.len() * per_mille / 1000).min(latencies.len().saturating_sub(1));
        latencies.get(index).copied().unwrap_or_default()
    };
    Ok(format!(
        "{} {} {} {} {}",
        timed(time, count, sum),
        at(500),
        at(990),
        at(999),
        at(1000)
    ))
}
