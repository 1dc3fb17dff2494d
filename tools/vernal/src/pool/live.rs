//! What needs the pool open as a program has it: changes that commit as a whole or not at all.

use super::Common;
use super::archive::refuse_untyped;
use super::name::{Place, image};
use super::outcome::{Outcome, Report, Trouble};
use serde_json::json;
use vernal_heap::walk::{Budget, Plans, reach};
use vernal_heap::{ObjectSpace, TYPE_META};
use vernal_pool::{OpenOptions, Pool, tx};

#[derive(clap::Args)]
pub struct Relocate {
    /// The pool
    pool: String,
    /// Relocate although memory without type holds what looks like pointers. Dangerous: nobody rewrites them, and a program that follows one crashes, or worse
    #[arg(long)]
    allow_untyped: bool,
    #[command(flatten)]
    pub common: Common,
}

fn open(name: &str) -> Result<Pool, Trouble> {
    let options = OpenOptions {
        eager: true,
        ..OpenOptions::default()
    };
    Ok(match Place::of(name) {
        Place::Embedded(path) => Pool::open(&path, options)?,
        Place::Served(name) => Pool::open_served(&name, options)?,
    })
}

/// Frees what the root does not reach, in one transaction; how many objects and bytes that was.
pub fn reclaim(name: &str) -> Result<(u64, u64), Trouble> {
    let pool = open(name)?;
    let space = pool.space();
    let plans = Plans::of(space);
    // What nobody else could have changed since: the pool is open for writing, here only.
    let (reached, walk) = reach(space, &plans, &[], Budget::default());
    if walk.exhausted {
        return Err(Trouble::new(format!(
            "{name}: the walk from its root did not end, nothing was freed"
        )));
    }
    let mut leaks = Vec::new();
    for chunk in 0..space.chunk_count() {
        space.for_each_object(chunk, &mut |object| {
            if object.type_index != TYPE_META && !reached.contains(object.addr) {
                leaks.push(object);
            }
            true
        });
    }
    tx::run(|| {
        for leak in &leaks {
            pool.free(leak.addr)?;
        }
        Ok::<_, vernal_pool::Error>(())
    })?;
    pool.close()?;
    let bytes = leaks.iter().map(|leak| leak.size).sum();
    Ok((leaks.len() as u64, bytes))
}

pub fn relocate(options: &Relocate) -> Outcome {
    if options.allow_untyped {
        vernal_pool::allow_untyped();
    } else {
        let (image, _client) = image(&options.pool)?;
        refuse_untyped(&image, false)?;
    }
    let pool = open(&options.pool)?;
    pool.relocate_all()?;
    pool.close()?;
    Ok(Report::fine(
        format!("{}: all pointers mean its present addresses", options.pool),
        json!({"pool": options.pool, "state": "relocated"}),
    ))
}
