//! rust-pool: a tree, vectors and strings in a pool, and the same operations on a volatile twin.
//!
//! ```text
//! rust-pool POOL run STEPS    makes steps until STEPS are done, one transaction each; prints the number of each
//! rust-pool POOL digest       prints the steps that the pool has seen, and a digest of everything in it
//! rust-pool POOL threads N    counts to N in two pools and threads, whose failing transactions take each other along
//! rust-pool - twin STEPS      prints the digest of the twin after 0, 1, ... STEPS steps
//! ```
//!
//! A step depends on its number alone. Some steps begin with a transaction that fails: by an error, by a panic, or in an
//! inner one. The twin knows nothing of those.
#![forbid(unsafe_code)]

mod digest;
mod pooled;
mod threads;
mod twin;

use digest::{Digest, Random};
use pooled::Root;
use std::error::Error;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use vernal::Pool;

/// Pools go where their users go; transactions stay (`testsuite/pools/ui`).
const _: fn() = || {
    fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Pool<Root>>();
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a step does, drawn from its number.
pub enum Change {
    Insert { key: u64, text: String },
    Remove { key: u64 },
    Push { text: String },
    Take { at: u64, keep_order: bool },
    Rewrite { at: u64, text: String },
    Sample { value: f64 },
    Flip { at: u64 },
}

/// The changes of a step.
pub fn changes(step: u64) -> Vec<Change> {
    let mut random = Random(step);
    let count = 1 + random.below(5);
    (0..count).map(|_| change(&mut random)).collect()
}

fn change(random: &mut Random) -> Change {
    let text = |random: &mut Random| {
        let n = random.below(1000);
        match random.below(3) {
            0 => String::new(),
            1 => format!("{n}"),
            _ => format!("a longer text, with an umlaut: ü {n}"),
        }
    };
    match random.below(10) {
        0..=2 => Change::Insert {
            key: random.below(300),
            text: text(random),
        },
        3 | 4 => Change::Remove {
            key: random.below(300),
        },
        5 => Change::Push { text: text(random) },
        6 => Change::Take {
            at: random.below(40),
            keep_order: random.below(2) == 0,
        },
        7 => Change::Rewrite {
            at: random.below(40),
            text: text(random),
        },
        8 => Change::Sample {
            value: random.below(1 << 20) as f64 / 64.0,
        },
        _ => Change::Flip {
            at: random.below(64),
        },
    }
}

/// A transaction that fails: nothing of it may stay.
fn fail_on_purpose(pool: &mut Pool<Root>, step: u64) -> Result<()> {
    let before = pooled::sum(pool.root());
    let how = step % 3;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        pool.tx(|tx, mut root| {
            root.steps += 1000;
            for change in changes(step * 17) {
                pooled::apply(tx, &mut root, change)?;
            }
            match how {
                0 => Err("on purpose".into()),
                1 => std::panic::resume_unwind(Box::new("on purpose")),
                _ => {
                    root.tree = None;
                    root.texts.clear();
                    Err::<(), Box<dyn Error>>("after dropping everything".into())
                }
            }
        })
    }));
    let expected = match outcome {
        Ok(Err(_)) => how != 1,
        Err(_) => how == 1,
        Ok(Ok(())) => false,
    };
    if !expected {
        return Err("a transaction that had to fail ended in another way".into());
    }
    if pooled::sum(pool.root()) != before {
        return Err("a failed transaction left something".into());
    }
    Ok(())
}

fn run(pool: &mut Pool<Root>, steps: u64) -> Result<()> {
    let mut out = std::io::stdout();
    while pool.root().steps < steps {
        let step = pool.root().steps + 1;
        if step.is_multiple_of(7) {
            fail_on_purpose(pool, step)?;
        }
        pool.tx(|tx, mut root| {
            root.steps = step;
            for change in changes(step) {
                pooled::apply(tx, &mut root, change)?;
            }
            Ok::<_, vernal::Error>(())
        })?;
        writeln!(out, "{step}")?;
        out.flush()?;
    }
    Ok(())
}

fn perform() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["-", "twin", steps] => {
            let mut twin = twin::Twin::default();
            for step in 0..=steps.parse::<u64>()? {
                if step > 0 {
                    twin.steps = step;
                    changes(step).into_iter().for_each(|c| twin.apply(c));
                }
                println!("{:016x}", twin.sum());
            }
        }
        [path, "run", steps] => {
            let mut pool = open(path)?;
            run(&mut pool, steps.parse()?)?;
            pool.close()?;
        }
        [path, "threads", count] => threads::run(path, count.parse()?)?,
        [path, "digest"] => {
            let pool = open(path)?;
            let root = pool.root();
            println!("{} {:016x}", root.steps, pooled::sum(root));
        }
        _ => {
            return Err(
                "use: rust-pool POOL run STEPS, POOL digest, POOL threads N, - twin STEPS".into(),
            );
        }
    }
    Ok(())
}

fn open(path: &str) -> Result<Pool<Root<'static>>> {
    Ok(Pool::open(path, |_| Ok(Root::new()))?)
}

fn main() -> ExitCode {
    match perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rust-pool: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Is shown each entry of a tree.
pub type Visit<'a> = &'a mut dyn FnMut(u64, &str);

/// The digest of a state that is read in one order.
pub fn digest_of(
    steps: u64,
    tree: &mut dyn FnMut(Visit<'_>),
    texts: &mut dyn Iterator<Item = &str>,
    samples: &[f64],
    flags: &[bool],
) -> u64 {
    let mut digest = Digest::default();
    digest.number(steps);
    tree(&mut |key, text| {
        digest.number(key);
        digest.text(text);
    });
    digest.text("texts");
    texts.for_each(|t| digest.text(t));
    samples.iter().for_each(|s| digest.number(s.to_bits()));
    flags.iter().for_each(|f| digest.number(u64::from(*f)));
    digest.0
}
