//! Objects whose type has changed since the pool was written become objects of the new type, before the program sees the
//! pool.
//!
//! All of it is one commit: the new objects, the pointers to them, the end of the old ones. A crash leaves the pool as it
//! was, and the next opening begins again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, RwLock};
use vernal_heap::types::Migration;
use vernal_heap::walk::{Move, Plans, Redirects, Rewrite};
use vernal_heap::{Object, ObjectSpace, PoolMemory};
use vernal_snapshot::runtime;
use vernal_snapshot::thread::mark_range;

use crate::Error;
use crate::pool::Inner;

/// Fills a new object from an old one. Fields of the same name and kind are copied already.
pub type Hook = Arc<dyn Fn(&[u8], &mut [u8]) + Send + Sync>;

static HOOKS: LazyLock<RwLock<HashMap<String, Hook>>> = LazyLock::new(RwLock::default);

/// Registers the hook for a type; before the pool is opened.
pub fn register(type_name: &str, hook: Hook) {
    let mut hooks = HOOKS.write().unwrap_or_else(|e| e.into_inner());
    hooks.insert(type_name.to_owned(), hook);
}

pub(crate) fn has_hook(type_name: &str) -> bool {
    hook(type_name).is_some()
}

fn hook(type_name: &str) -> Option<Hook> {
    let hooks = HOOKS.read().unwrap_or_else(|e| e.into_inner());
    hooks.get(type_name).cloned()
}

/// Converts every object that has to be. Pointers are those of the addresses where the pool is mapped.
pub(crate) fn run(pool: &Inner, migrations: &[Migration]) -> Result<(), Error> {
    if migrations.is_empty() {
        return Ok(());
    }
    if pool.info.read_only {
        return Err(Error::Type {
            what: format!(
                "pool {}: type {} of this program changed since the pool was written: open the pool once for writing, so that its \
                 objects are converted",
                pool.info.name,
                migrations.first().map_or("", |m| m.new.name())
            ),
        });
    }
    runtime::tx_begin()?;
    match convert(pool, migrations) {
        Ok(()) => Ok(runtime::tx_commit()?),
        Err(e) => {
            runtime::tx_abort()?;
            Err(e)
        }
    }
}

fn objects_of(pool: &Inner, index: u32) -> Vec<Object> {
    let mut all = Vec::new();
    for chunk in 0..pool.heap.chunk_count() {
        pool.heap.for_each_object(chunk, &mut |o| {
            if o.type_index == index {
                all.push(o);
            }
            true
        });
    }
    all
}

fn bytes_of(words: &[AtomicU64]) -> Vec<u8> {
    let words = words.iter();
    words
        .flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes())
        .collect()
}

fn convert(pool: &Inner, migrations: &[Migration]) -> Result<(), Error> {
    let mut cache = pool.heap.thread_cache();
    let mut moves = Vec::new();
    let mut old_objects = Vec::new();
    let mut root = None;
    for m in migrations {
        let index = pool.with_room(|p| p.heap.intern_type(&mut cache, m.new.blob()))?;
        let align = u64::from(m.new.align()).max(16);
        let hook = hook(m.new.name());
        for old in objects_of(pool, m.pool_index) {
            let too_large = || Error::Type {
                what: format!(
                    "an object of type {} is too large to be converted",
                    m.new.name()
                ),
            };
            let len = m.new_bytes(old.size).ok_or_else(too_large)?;
            let at = pool.with_room(|p| p.heap.alloc(&mut cache, len, align, index))?;
            let words = pool.heap.words(old.addr, (old.size / 8) as usize);
            let from = bytes_of(words.ok_or_else(too_large)?);
            let mut to = vec![0; usize::try_from(len).map_err(|_| too_large())?];
            m.carry(&from, &mut to);
            if let Some(hook) = &hook {
                hook(&from, &mut to);
            }
            write(pool, at, &to).ok_or_else(too_large)?;
            redirect(m, &old, at, &mut moves);
            if pool.heap.root() == Some(old.addr) {
                root = Some(at);
            }
            old_objects.push(old);
        }
    }
    let pointers = Redirects::new(&moves).map_err(|e| Error::Type {
        what: format!(
            "pool {}: its objects cannot be converted: {e}",
            pool.info.name
        ),
    })?;
    let plans = Plans::of(&pool.heap);
    let rewrite = Rewrite {
        plans: &plans,
        pointers: &pointers,
        binding: None,
    };
    for chunk in 0..pool.heap.chunk_count() {
        let Some((start, end)) = pool.heap.chunk_range(chunk) else {
            continue;
        };
        if let Some(words) = pool.heap.words(start, ((end - start) / 8) as usize) {
            rewrite
                .chunk(&pool.heap, chunk, words, &mut |line| {
                    mark_range(line, vernal_abi::LINE_SIZE);
                })
                .map_err(|e| Error::Type {
                    what: format!("pool {}: {e}", pool.info.name),
                })?;
        }
    }
    if let Some(root) = root {
        pool.heap.set_root(root).map_err(|e| pool.heap_error(e))?;
    }
    for old in old_objects {
        pool.heap.free(old.addr).map_err(|e| pool.heap_error(e))?;
    }
    Ok(())
}

fn write(pool: &Inner, at: u64, bytes: &[u8]) -> Option<()> {
    let words = pool.memory.words(at, bytes.len().div_ceil(8))?;
    for (word, bytes) in words.iter().zip(bytes.chunks(8)) {
        let mut le = [0; 8];
        for (to, from) in le.iter_mut().zip(bytes) {
            *to = *from;
        }
        word.store(u64::from_le_bytes(le), Ordering::Relaxed);
    }
    pool.memory.after_write(at, bytes.len() as u64);
    Some(())
}

/// Where pointers to an old object, and to the fields of it that are kept, point from now on.
fn redirect(m: &Migration, old: &Object, new: u64, moves: &mut Vec<Move>) {
    let elements = m.old.elements_in(old.size).max(1);
    for element in 0..elements {
        let (from, to) = (
            old.addr + element * m.old.size(),
            new + element * m.new.size(),
        );
        let first = moves.len();
        for c in &m.carried {
            let Some(count) = c.count else { continue };
            moves.extend((0..count).map(|i| Move {
                old: from + c.old_offset + i * c.old_stride,
                new: to + c.new_offset + i * c.new_stride,
                len: c.elem_size,
            }));
        }
        // A pointer to the whole is one to the first byte, and stays one, whatever field lies there now.
        match moves
            .get_mut(first..)
            .and_then(|own| own.iter_mut().find(|m| m.old == from))
        {
            Some(at_front) => at_front.new = to,
            None => moves.push(Move {
                old: from,
                new: to,
                len: 1,
            }),
        }
    }
}
