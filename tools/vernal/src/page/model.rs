//! What the page shows, gathered from a heap.

use super::columns::varint;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use vernal_format::Uuid;
use vernal_format::types::Field;
use vernal_heap::{DirectoryEntry, Object, ObjectSpace, TYPE_META, TYPE_RAW};

/// Cells of a puddle's fill map at most.
const CELLS: u64 = 4096;
/// Bytes of a cell at least: a page.
const CELL_MIN: u64 = 4096;

/// Which pool it is.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// `buffered` or `direct`.
    pub mode: &'static str,
}

/// How much of the objects' content goes into the page.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of one object.
    pub per_object: u64,
    /// Of all.
    pub total: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            per_object: 4096,
            total: 256 << 20,
        }
    }
}

/// A puddle in the page.
#[derive(Debug, Clone)]
pub(super) struct PagePuddle {
    pub(super) uuid: Uuid,
    pub(super) addr: u64,
    pub(super) size: u64,
    pub(super) used: u64,
    /// Share of each cell that objects take, 255 for all of it.
    pub(super) fill: Vec<u8>,
}

/// A type in the page.
#[derive(Debug, Clone, Default)]
pub(super) struct PageType {
    pub(super) name: String,
    pub(super) id: Option<u64>,
    pub(super) size: u64,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) fields: Vec<Field>,
}

/// What the page shows.
#[derive(Debug)]
pub struct Model {
    pub(super) about: About,
    pub(super) root: u64,
    pub(super) puddles: Vec<PagePuddle>,
    pub(super) types: Vec<PageType>,
    /// Objects in the page.
    pub objects: u64,
    pub(super) used: u64,
    pub(super) total: u64,
    /// Bytes of objects that the limits kept out.
    pub cut: u64,
    pub(super) addr_column: Vec<u8>,
    pub(super) size_column: Vec<u8>,
    pub(super) type_column: Vec<u8>,
    pub(super) stored_column: Vec<u8>,
    pub(super) content: Vec<u8>,
}

impl Model {
    /// A pool without puddles.
    pub(super) fn empty(about: About) -> Model {
        Model {
            about,
            root: 0,
            puddles: Vec::new(),
            types: Vec::new(),
            objects: 0,
            used: 0,
            total: 0,
            cut: 0,
            addr_column: Vec::new(),
            size_column: Vec::new(),
            type_column: Vec::new(),
            stored_column: Vec::new(),
            content: Vec::new(),
        }
    }
}

/// Gathers what the page shows. `puddles` are those of `space`, at the addresses that its objects have.
pub fn collect(
    space: &impl ObjectSpace,
    puddles: &[DirectoryEntry],
    about: About,
    limits: Limits,
) -> Model {
    // By address, across puddles: the page finds objects by binary search.
    let mut chunks: Vec<(u64, usize)> = (0..space.chunk_count())
        .filter_map(|chunk| Some((space.chunk_range(chunk)?.0, chunk)))
        .collect();
    chunks.sort_unstable();
    let mut puddles: Vec<&DirectoryEntry> = puddles.iter().collect();
    puddles.sort_by_key(|p| p.current);
    let mut gather = Gather {
        space,
        model: Model::empty(about),
        cells: Vec::new(),
        dense: HashMap::new(),
        limits,
        last: 0,
        puddle: 0,
    };
    for puddle in puddles {
        let cell = (puddle.size / CELLS).max(CELL_MIN);
        gather.model.total += puddle.size;
        gather
            .cells
            .push((cell, vec![0; (puddle.size / cell) as usize]));
        gather.model.puddles.push(PagePuddle {
            uuid: puddle.uuid,
            addr: puddle.current,
            size: puddle.size,
            used: 0,
            fill: Vec::new(),
        });
    }
    for (_, chunk) in chunks {
        space.for_each_object(chunk, &mut |object| {
            gather.object(object);
            true
        });
    }
    gather.finish()
}

struct Gather<'a, S> {
    space: &'a S,
    model: Model,
    /// For each puddle, bytes of a cell and how many are used of each.
    cells: Vec<(u64, Vec<u64>)>,
    dense: HashMap<u32, usize>,
    limits: Limits,
    last: u64,
    puddle: usize,
}

impl<S: ObjectSpace> Gather<'_, S> {
    fn object(&mut self, object: Object) {
        // A heap that passes its own validation gives ascending addresses; one that does not is not shown twice.
        let Some(delta) = object.addr.checked_sub(self.last) else {
            return;
        };
        let stored = self.store(object);
        let model = &mut self.model;
        varint(&mut model.addr_column, delta / 8);
        varint(&mut model.size_column, object.size / 8);
        varint(&mut model.stored_column, stored / 8);
        let index = match self.dense.get(&object.type_index) {
            Some(index) => *index,
            None => {
                let index = model.types.len();
                model.types.push(page_type(self.space, object.type_index));
                self.dense.insert(object.type_index, index);
                index
            }
        };
        varint(&mut model.type_column, index as u64);
        if let Some(ty) = model.types.get_mut(index) {
            ty.objects += 1;
            ty.bytes += object.size;
        }
        model.objects += 1;
        model.used += object.size;
        model.cut += object.size - stored;
        self.last = object.addr;
        self.fill(object);
    }

    /// Appends the object's content as far as the limits allow; returns how many bytes.
    fn store(&mut self, object: Object) -> u64 {
        let left = self
            .limits
            .total
            .saturating_sub(self.model.content.len() as u64);
        let want = object.size.min(self.limits.per_object).min(left) / 8;
        let Some(words) = self.space.words(object.addr, want as usize) else {
            return 0;
        };
        for word in words {
            let bytes = word.load(Ordering::Relaxed).to_le_bytes();
            self.model.content.extend_from_slice(&bytes);
        }
        want * 8
    }

    fn fill(&mut self, object: Object) {
        while self
            .model
            .puddles
            .get(self.puddle)
            .is_some_and(|p| object.addr >= p.addr + p.size)
        {
            self.puddle += 1;
        }
        let Some(puddle) = self.model.puddles.get_mut(self.puddle) else {
            return;
        };
        let Some((cell, used)) = self.cells.get_mut(self.puddle) else {
            return;
        };
        puddle.used += object.size;
        let start = object.addr.saturating_sub(puddle.addr);
        let end = start.saturating_add(object.size).min(puddle.size);
        let mut at = start;
        while at < end {
            let stop = end.min((at / *cell + 1) * *cell);
            if let Some(used) = used.get_mut((at / *cell) as usize) {
                *used += stop - at;
            }
            at = stop;
        }
    }

    fn finish(mut self) -> Model {
        self.model.root = self.space.root().unwrap_or(0);
        for (puddle, (cell, used)) in self.model.puddles.iter_mut().zip(&self.cells) {
            let share = |used: &u64| match used {
                0 => 0,
                // A cell with anything in it is never shown as empty.
                n => (n * 255 / cell).clamp(24, 255) as u8,
            };
            puddle.fill = used.iter().map(share).collect();
        }
        self.model
    }
}

fn page_type(space: &impl ObjectSpace, index: u32) -> PageType {
    match space.type_desc(index) {
        Some(desc) => PageType {
            name: desc.name().to_owned(),
            id: Some(desc.id()),
            size: desc.size(),
            fields: desc.fields().to_vec(),
            ..PageType::default()
        },
        None => PageType {
            name: match index {
                TYPE_RAW => "(no type)".to_owned(),
                TYPE_META => "(the pool's own)".to_owned(),
                other => format!("(unknown type {other})"),
            },
            ..PageType::default()
        },
    }
}
