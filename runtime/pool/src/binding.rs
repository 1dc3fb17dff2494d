//! Process-bound values: vtables and functions, which lie elsewhere in every process.
//!
//! A pool whose types have such fields keeps a *binding record*: the modules (by build id) for which its values are valid,
//! and where they were loaded. A process with the same modules elsewhere rewrites the values together with the pointers, on
//! first touch.
use std::ffi::c_void;
use vernal_format::types::FieldKind;
use vernal_heap::walk::{Binding, Move, Redirects};
use vernal_heap::{HeapError, ObjectSpace, PoolMemory, TYPE_FIRST, TYPE_META, ThreadCache};

use crate::pool::Inner;
use crate::{Error, program};

/// Words of a module in the record: build id (20 bytes, padded to 3 words), start, length.
const MODULE_WORDS: usize = 5;
const MAX_MODULES: usize = 4096;

/// A loaded module.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    id: [u64; 3],
    start: u64,
    len: u64,
}

fn note_build_id(notes: &[u8]) -> Option<[u64; 3]> {
    let word = |at: usize| -> Option<usize> {
        let b: [u8; 4] = notes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(u32::from_le_bytes(b) as usize)
    };
    let mut at = 0usize;
    loop {
        let (name, desc, kind) = (word(at)?, word(at + 4)?, word(at + 8)?);
        let desc_at = at
            .checked_add(12)?
            .checked_add(name.checked_next_multiple_of(4)?)?;
        let end = desc_at.checked_add(desc)?;
        // NT_GNU_BUILD_ID
        if kind == 3 && notes.get(at + 12..at + 16) == Some(b"GNU\0") {
            let mut id = [0; 24];
            for (to, from) in id.iter_mut().zip(notes.get(desc_at..end)?) {
                *to = *from;
            }
            let mut words = [0; 3];
            for (w, b) in words.iter_mut().zip(id.as_chunks::<8>().0) {
                *w = u64::from_le_bytes(*b);
            }
            return Some(words);
        }
        at = end.checked_next_multiple_of(4)?;
    }
}

unsafe extern "C" fn each_module(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    data: *mut c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr passes a live info and the pointer that `modules` gave it.
    let (info, out) = unsafe { (&*info, &mut *data.cast::<Vec<Module>>()) };
    // SAFETY: the program headers of a loaded module.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let (mut low, mut high, mut id) = (u64::MAX, 0, None);
    for h in headers {
        let at = info.dlpi_addr.wrapping_add(h.p_vaddr);
        if h.p_type == libc::PT_LOAD {
            low = low.min(at);
            high = high.max(at.saturating_add(h.p_memsz));
        } else if h.p_type == libc::PT_NOTE && id.is_none() {
            // SAFETY: a note segment is loaded and readable for its size.
            let notes = unsafe { std::slice::from_raw_parts(at as *const u8, h.p_memsz as usize) };
            id = note_build_id(notes);
        }
    }
    if let Some(id) = id
        && low < high
    {
        out.push(Module {
            id,
            start: low,
            len: high - low,
        });
    }
    0
}

fn modules() -> Vec<Module> {
    let mut all: Vec<Module> = Vec::new();
    // SAFETY: the callback gets a pointer to `all`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(each_module), (&raw mut all).cast()) };
    all
}

fn is_bound(pool: &Inner, index: u32) -> bool {
    let desc = pool.heap.type_desc(index);
    desc.is_some_and(|d| {
        d.fields()
            .iter()
            .any(|f| matches!(f.kind, FieldKind::Function | FieldKind::Vtable))
    })
}

fn read_record(pool: &Inner) -> Option<Vec<Module>> {
    let at = pool.heap.binding_record()?;
    let object = pool.heap.object_exact(at).ok()?;
    let words = pool.heap.words(at, (object.size / 8) as usize)?;
    let word = |i: usize| {
        words
            .get(i)
            .map(|w| w.load(std::sync::atomic::Ordering::Relaxed))
    };
    let count = usize::try_from(word(0)?)
        .ok()
        .filter(|n| *n <= MAX_MODULES)?;
    (0..count)
        .map(|m| {
            let first = 1 + m * MODULE_WORDS;
            Some(Module {
                id: [word(first)?, word(first + 1)?, word(first + 2)?],
                start: word(first + 3)?,
                len: word(first + 4)?,
            })
        })
        .collect()
}

/// What has to be rewritten because code lies elsewhere than the record says; `None`: nothing.
pub(crate) fn changed(pool: &Inner) -> Result<Option<Binding>, Error> {
    let bound: Vec<u32> = (TYPE_FIRST..pool.heap.type_end())
        .filter(|i| is_bound(pool, *i))
        .collect();
    if bound.is_empty() {
        return Ok(None);
    }
    let was = read_record(pool).unwrap_or_default();
    let now = modules();
    if was.iter().all(|m| now.contains(m)) && !was.is_empty() {
        return Ok(None);
    }
    let moves: Vec<Move> = was
        .iter()
        .filter_map(|old| {
            let new = now.iter().find(|n| n.id == old.id && n.len == old.len)?;
            Some(Move {
                old: old.start,
                new: new.start,
                len: old.len,
            })
        })
        .collect();
    let functions = Redirects::new(&moves).map_err(|e| Error::Type {
        what: format!(
            "pool {}: its binding record is damaged: {e}",
            pool.info.name
        ),
    })?;
    let mut binding = Binding::new(functions);
    let types = program::all();
    for index in bound {
        let Some(desc) = pool.heap.type_desc(index) else {
            continue;
        };
        match types.iter().find(|t| t.desc.id() == desc.id()) {
            Some(t) => binding.set_vtables(index, &t.bound),
            None if !in_use(pool, index) => {}
            None => {
                return Err(Error::Type {
                    what: format!(
                        "pool {} holds objects of type {}, which call code of a program that has this type, and this one has \
                         not: open it with a program that is compiled with the type",
                        pool.info.name,
                        desc.name()
                    ),
                });
            }
        }
    }
    check_functions(pool, &was, &now)?;
    Ok(Some(binding))
}

fn in_use(pool: &Inner, index: u32) -> bool {
    (0..pool.heap.chunk_count()).any(|chunk| {
        let mut found = false;
        pool.heap.for_each_object(chunk, &mut |o| {
            found = o.type_index == index;
            !found
        });
        found
    })
}

/// A function in a module that is not loaded here would be called at an address of nothing: the pool is refused, by the
/// field's name. Looks at every object, and only when a module of the record is missing.
fn check_functions(pool: &Inner, was: &[Module], now: &[Module]) -> Result<(), Error> {
    let missing: Vec<&Module> = was
        .iter()
        .filter(|old| !now.iter().any(|n| n.id == old.id && n.len == old.len))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut refused = None;
    for chunk in 0..pool.heap.chunk_count() {
        pool.heap.for_each_object(chunk, &mut |o| {
            let Some(desc) = pool.heap.type_desc(o.type_index) else {
                return true;
            };
            let functions = desc
                .fields()
                .iter()
                .filter(|f| f.kind == FieldKind::Function);
            for f in functions {
                let mut element = 0;
                while element + desc.size() <= o.size && desc.size() > 0 {
                    for i in 0..u64::from(f.count) {
                        let at = o.addr + element + f.offset + i * u64::from(f.stride);
                        let value = pool
                            .heap
                            .words(at & !7, 1)
                            .and_then(|w| w.first())
                            .map_or(0, |w| w.load(std::sync::atomic::Ordering::Relaxed));
                        let lost = missing
                            .iter()
                            .find(|m| value >= m.start && value - m.start < m.len);
                        if let Some(m) = lost {
                            refused = Some((format!("{}.{}", desc.name(), f.name), m.id));
                            return false;
                        }
                    }
                    element += desc.size();
                }
            }
            true
        });
        if let Some((field, id)) = &refused {
            return Err(Error::Type {
                what: format!(
                    "pool {}: {field} at one of its objects is a function of the module with the build id {}, which this \
                     process has not loaded: run the build that wrote it, or set the field with it to NULL first",
                    pool.info.name,
                    hex(id)
                ),
            });
        }
    }
    Ok(())
}

fn hex(id: &[u64; 3]) -> String {
    let bytes: Vec<u8> = id.iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.iter().take(20).map(|b| format!("{b:02x}")).collect()
}

/// Writes the modules of this process into the pool.
fn write_record(pool: &Inner, cache: &mut ThreadCache) -> Result<(), HeapError> {
    let now = modules();
    let now = now.get(..now.len().min(MAX_MODULES)).unwrap_or_default();
    let size = 8 * (1 + now.len() * MODULE_WORDS) as u64;
    let old = pool.heap.binding_record();
    let at = pool.heap.alloc(cache, size, 16, TYPE_META)?;
    let values = std::iter::once(now.len() as u64).chain(
        now.iter()
            .flat_map(|m| [m.id[0], m.id[1], m.id[2], m.start, m.len]),
    );
    let memory = &pool.memory;
    for (i, value) in values.enumerate() {
        let to = at + 8 * i as u64;
        memory.before_write(to, 8)?;
        if let Some(w) = memory.words(to, 1).and_then(|w| w.first()) {
            w.store(value, std::sync::atomic::Ordering::Relaxed);
        }
        memory.after_write(to, 8);
    }
    pool.heap.set_binding_record(at)?;
    if let Some(old) = old {
        pool.heap.free(old)?;
    }
    Ok(())
}

/// Writes the modules of this process into the pool that is being opened.
pub(crate) fn record(pool: &Inner) -> Result<(), Error> {
    let mut cache = pool.heap.thread_cache();
    pool.with_room(|p| write_record(p, &mut cache))
}

/// A type was taken into the pool: from the first one with process-bound values on there is a record.
pub(crate) fn note_type(pool: &Inner, cache: &mut ThreadCache, index: u32) -> Result<(), Error> {
    // A volatile pool outlives no process, and its peers are told nothing of where this one's code lies.
    if pool.volatile || !is_bound(pool, index) || pool.heap.binding_record().is_some() {
        return Ok(());
    }
    pool.with_room(|p| write_record(p, cache))
}
