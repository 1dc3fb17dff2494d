//! The key-value workloads on redb: `driver.c` and the engine programs of `workloads/` in Rust. Durability is redb's
//! default, each commit is synced.

use crate::ops::{Kind, Op, mix64};
use crate::{Failure, Result};
use redb::{Database, ReadableTable, TableDefinition};
use std::io::{BufRead, Read, Write};
use std::time::Instant;

const TABLE: TableDefinition<u64, &[u8; VALUE_BYTES]> = TableDefinition::new("kv");

/// `VALUE_BYTES` of `value.h`; the functions below are those of that header.
const VALUE_BYTES: usize = 100;
const VALUE_WORDS: usize = 12;
type Value = [u8; VALUE_BYTES];

fn word(v: &Value, i: usize) -> u64 {
    let mut w = [0; 8];
    w.copy_from_slice(&v[8 * i..8 * i + 8]);
    u64::from_le_bytes(w)
}

fn tail(v: &Value) -> u32 {
    let mut w = [0; 4];
    w.copy_from_slice(&v[8 * VALUE_WORDS..]);
    u32::from_le_bytes(w)
}

fn value_make(key: u64, version: u64) -> Value {
    let mut v = [0; VALUE_BYTES];
    let mut x = mix64(
        key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(version),
    );
    for i in 0..VALUE_WORDS {
        v[8 * i..8 * i + 8].copy_from_slice(&x.to_le_bytes());
        x = x.wrapping_add(0x2545_f491_4f6c_dd1d);
    }
    v[8 * VALUE_WORDS..].copy_from_slice(&(x as u32).to_le_bytes());
    v
}

fn value_change(v: &mut Value, by: u64) {
    for i in 0..VALUE_WORDS {
        let w = word(v, i).wrapping_add(by | 1);
        v[8 * i..8 * i + 8].copy_from_slice(&w.to_le_bytes());
    }
    let t = tail(v).wrapping_add(by as u32 | 1);
    v[8 * VALUE_WORDS..].copy_from_slice(&t.to_le_bytes());
}

fn value_read(v: &Value, sum: &mut u64) {
    let copy = std::hint::black_box(*v);
    *sum = sum.wrapping_add(word(&copy, 0));
}

fn entry_hash(key: u64, v: &Value) -> u64 {
    let hash = (0..VALUE_WORDS).fold(0u64, |h, i| mix64(h.wrapping_add(word(v, i))));
    mix64(key ^ hash)
}

fn fail(e: impl std::fmt::Display) -> Failure {
    Failure(format!("redb: {e}"))
}

/// The reads, the same inside a write transaction and outside.
fn read_op(table: &impl ReadableTable<u64, &'static Value>, op: Op, sum: &mut u64) -> Result<()> {
    if op.kind == Kind::Scan {
        for entry in table.range(op.key..op.key + op.arg).map_err(fail)? {
            value_read(entry.map_err(fail)?.1.value(), sum);
        }
    } else if let Some(v) = table.get(op.key).map_err(fail)? {
        value_read(v.value(), sum);
    }
    Ok(())
}

fn write_op(table: &mut redb::Table<'_, u64, &'static Value>, op: Op, sum: &mut u64) -> Result<()> {
    match op.kind {
        Kind::Read | Kind::Scan => read_op(table, op, sum)?,
        Kind::Rmw => {
            let mut v = *table
                .get(op.key)
                .map_err(fail)?
                .ok_or_else(|| fail("a key is missing"))?
                .value();
            value_read(&v, sum);
            value_change(&mut v, op.arg);
            table.insert(op.key, &v).map_err(fail)?;
        }
        Kind::Insert | Kind::Update | Kind::Replace => {
            table
                .insert(op.key, &value_make(op.key, op.arg))
                .map_err(fail)?;
            if op.kind == Kind::Replace {
                table.remove(op.arg).map_err(fail)?;
            }
        }
        Kind::Delete | Kind::Traverse => {
            return Err(fail("an operation that a key-value store does not have"));
        }
    }
    Ok(())
}

/// One batch: reads before its first update need no write transaction, as in `driver.c`.
fn run_batch(db: &Database, ops: &[Op], sum: &mut u64) -> Result<()> {
    let first = ops
        .iter()
        .position(|op| op.kind.updates())
        .unwrap_or(ops.len());
    let (reads, rest) = ops.split_at(first);
    for &op in reads {
        let txn = db.begin_read().map_err(fail)?;
        read_op(&txn.open_table(TABLE).map_err(fail)?, op, sum)?;
    }
    if rest.is_empty() {
        return Ok(());
    }
    let txn = db.begin_write().map_err(fail)?;
    {
        let mut table = txn.open_table(TABLE).map_err(fail)?;
        for &op in rest {
            write_op(&mut table, op, sum)?;
        }
    }
    txn.commit().map_err(fail)
}

fn receive(input: &mut impl Read, count: usize) -> Result<Vec<Op>> {
    let mut bytes = vec![0; count * Op::SIZE];
    input.read_exact(&mut bytes).map_err(fail)?;
    let mut words = bytes
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]));
    let mut next = || words.next().ok_or_else(|| fail("a short command"));
    (0..count)
        .map(|_| {
            let (key, arg, kind) = (next()?, next()?, next()?);
            let kind = Kind::from_number(kind).ok_or_else(|| fail("an unknown operation"))?;
            Ok(Op { key, arg, kind })
        })
        .collect()
}

fn check(db: &Database) -> Result<(u64, u64)> {
    let txn = db.begin_read().map_err(fail)?;
    let (mut hash, mut entries) = (0u64, 0);
    for entry in txn.open_table(TABLE).map_err(fail)?.iter().map_err(fail)? {
        let (k, v) = entry.map_err(fail)?;
        hash = hash.wrapping_add(entry_hash(k.value(), v.value()));
        entries += 1;
    }
    Ok((hash, entries))
}

/// The main program of the engine process.
pub fn main(path: &std::path::Path, cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(e) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("not pinned to CPU {cpu}: {e}");
    }
    let db = Database::create(path).map_err(fail)?;
    let txn = db.begin_write().map_err(fail)?;
    txn.open_table(TABLE).map_err(fail)?;
    txn.commit().map_err(fail)?;
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut say = |line: String| {
        output
            .write_all(line.as_bytes())
            .and_then(|()| output.flush())
            .map_err(fail)
    };
    say("ok\n".to_owned())?;
    let mut line = String::new();
    while input.read_line(&mut line).map_err(fail)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["run", warm, count, batch] => {
                let number = |s: &str| s.parse::<usize>().map_err(fail);
                let (warm, count, batch) = (number(warm)?, number(count)?, number(batch)?.max(1));
                let ops = receive(&mut input, warm.saturating_add(count))?;
                let mut sum = 0;
                for part in ops[..warm].chunks(batch) {
                    run_batch(&db, part, &mut sum)?;
                }
                let start = Instant::now();
                for part in ops[warm..].chunks(batch) {
                    run_batch(&db, part, &mut sum)?;
                }
                say(format!(
                    "ok {} {count} {sum} 0\n",
                    start.elapsed().as_nanos()
                ))?;
            }
            ["load", count, batch] => {
                let number = |s: &str| s.parse::<usize>().map_err(fail);
                let mut sum = 0;
                for part in receive(&mut input, number(count)?)?.chunks(number(batch)?.max(1)) {
                    run_batch(&db, part, &mut sum)?;
                }
                say(format!("ok 0 {count} {sum} 0\n"))?;
            }
            ["check"] => {
                let (hash, entries) = check(&db)?;
                say(format!("ok {hash} {entries}\n"))?;
            }
            _ => return Err(fail(format!("unknown command {line:?}"))),
        }
        line.clear();
    }
    Ok(())
}
