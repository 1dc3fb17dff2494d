//! Validation of all metadata against each other, and the objects that nothing reaches.

use std::collections::BTreeMap;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};

use vernal_format::puddle::{
    CLASSES, Class, DESC_OFFSET, Extent, PAGE_BYTES, PAGE_SHIFT, PUDDLE_HEADER_OFFSET,
    PUDDLE_HEADER_WORDS, PageDesc, Place, pool_field,
};

use crate::block::{Block, Kind, block_at, desc_bits, slab_header};
use crate::heap::Slow;
use crate::locks::Locks;
use crate::{CheckReport, Heap, HeapError, Object, ObjectSet, ObjectSpace, PoolMemory, TypeUse};

/// Words of a chunk header before the descriptors.
const HEAD_WORDS: usize = (DESC_OFFSET / 8) as usize;

struct Check<'a, M: PoolMemory, L: Locks> {
    heap: &'a Heap<M, L>,
    report: CheckReport,
    types: BTreeMap<u32, TypeUse>,
    epochs: (u64, u64),
}

impl<M: PoolMemory, L: Locks> Heap<M, L> {
    /// Validates everything: headers, descriptors, slabs, directory and types, each against the others. Changes nothing and
    /// takes whatever the words hold. No other thread is inside the heap.
    pub fn check(&self) -> CheckReport {
        let mut check = Check {
            heap: self,
            report: CheckReport::default(),
            types: BTreeMap::new(),
            epochs: self.epochs().unwrap_or_default(),
        };
        let directory = self.directory();
        check.note(directory.map(drop));
        for (slot, ext) in self.puddles.iter() {
            check.puddle(slot, ext);
        }
        check.note(self.validate_types().map(drop));
        check.place("root object", pool_field::ROOT);
        check.place("binding record", pool_field::BINDING);
        check.report.types = check.types.into_iter().collect();
        check.report
    }

    /// The objects that are the pool's own.
    fn own_objects(&self) -> Result<ObjectSet, HeapError> {
        let mut own = ObjectSet::new();
        for addr in self.type_objects()? {
            own.insert(addr);
        }
        if let Some(addr) = self.binding_record() {
            own.insert(addr);
        }
        Ok(own)
    }

    /// Objects that are neither in `reachable` nor the pool's own: allocated by a process that died before it linked them,
    /// or lost by the program.
    pub fn leaks(&self, reachable: &ObjectSet) -> Result<Vec<Object>, HeapError> {
        let own = self.own_objects()?;
        let mut leaks = Vec::new();
        for chunk in 0..self.chunk_count() {
            let Some((_, ext, local)) = self.chunk_place(chunk) else {
                continue;
            };
            crate::for_each_object_in(&self.mem, ext, local, false, &mut |object| {
                if !reachable.contains(object.addr) && !own.contains(object.addr) {
                    leaks.push(object);
                }
                true
            })?;
        }
        Ok(leaks)
    }

    /// Frees the leaks; returns how many they were.
    pub fn reclaim(&self, reachable: &ObjectSet) -> Result<TypeUse, HeapError> {
        let mut freed = TypeUse::default();
        for object in self.leaks(reachable)? {
            self.free(object.addr)?;
            freed.objects += 1;
            freed.bytes += object.size;
        }
        Ok(freed)
    }

    /// Frees the pages of spans without objects that nobody owns; `true`: there were some.
    pub(crate) fn release_empty_spans(&self, slow: &mut Slow) -> Result<bool, HeapError> {
        let spans: Vec<u64> = slow.partial.values().flatten().copied().collect();
        let mut any = false;
        for span in spans {
            let Some((slot, ext)) = self.puddles.locate(span) else {
                continue;
            };
            let words = self.mem.words(span, Class::HEADER_WORDS);
            let empty = words
                .and_then(|w| w.get(Class::BITMAP_WORD..Class::BITMAP_WORD + Class::BITMAP_WORDS))
                .is_some_and(|bitmap| bitmap.iter().all(|w| w.load(SeqCst) == 0));
            if empty {
                self.place_span(slow, slot, ext, ext.page_of(span))?;
                any = true;
            }
        }
        Ok(any)
    }
}

impl<M: PoolMemory, L: Locks> Check<'_, M, L> {
    fn note(&mut self, result: Result<(), HeapError>) {
        if let Err(e) = result {
            let addr = match &e {
                HeapError::Damaged { addr, .. }
                | HeapError::Format { addr, .. }
                | HeapError::Unmapped { addr, .. } => *addr,
                _ => 0,
            };
            self.report.problem(addr, false, e.to_string());
        }
    }

    fn place(&mut self, what: &str, offset: u64) {
        let found = self.heap.pool_word(offset).and_then(|addr| {
            let place = crate::block::word(&self.heap.mem, addr)?.load(Relaxed);
            Ok((addr, Place(place)))
        });
        match found {
            Err(e) => self.note(Err(e)),
            Ok((_, place)) if place.is_none() => {}
            Ok((addr, place)) => {
                let object = self.heap.puddles.address(place);
                let object = object.map(|a| self.heap.object_exact(a));
                if !matches!(object, Some(Ok(_))) {
                    let what = format!("the {what} is no object: place {:#x}", place.0);
                    self.report.problem(addr, false, what);
                }
            }
        }
    }

    fn puddle(&mut self, slot: usize, ext: Extent) {
        self.report.total += ext.size();
        self.report.overhead += ext.first_page() << PAGE_SHIFT;
        self.note(self.heap.check_header(slot, ext));
        for chunk in 0..ext.chunks() {
            self.chunk_head(ext, chunk);
        }
        for page in 0..ext.first_page() {
            match desc_bits(&self.heap.mem, ext, page) {
                Ok(0) => {}
                Ok(bits) => {
                    let what = format!("a page of headers has the descriptor {bits:#x}");
                    self.report.problem(ext.desc_word(page).0, false, what);
                }
                Err(e) => self.note(Err(e)),
            }
        }
        let mut page = ext.first_page();
        let mut lost = false;
        while page < ext.pages() {
            match block_at(&self.heap.mem, ext, page) {
                Ok(block) => {
                    lost = false;
                    self.block(ext, &block);
                    page += block.pages;
                }
                Err(e) => {
                    // One report for each stretch of pages that belong to no block.
                    if !lost {
                        self.note(Err(e));
                    }
                    lost = true;
                    page += 1;
                }
            }
        }
    }

    fn chunk_head(&mut self, ext: Extent, chunk: u64) {
        let addr = ext.chunk_header(chunk);
        let Some(words) = self.heap.mem.words(addr, HEAD_WORDS) else {
            let len = DESC_OFFSET;
            return self.note(Err(HeapError::Unmapped { addr, len }));
        };
        let header = (PUDDLE_HEADER_OFFSET / 8) as usize;
        for (i, word) in words.iter().enumerate() {
            let value = word.load(Relaxed);
            let problem = match i {
                0 if value > self.epochs.0 => "an address epoch that has not begun",
                1 if value > self.epochs.1 => "a binding epoch that has not begun",
                0 | 1 => continue,
                _ if chunk == 0 && (header..header + PUDDLE_HEADER_WORDS).contains(&i) => continue,
                _ if value != 0 => "a reserved word that is not zero",
                _ => continue,
            };
            let what = format!("{problem}: {value:#x}");
            self.report.problem(addr + i as u64 * 8, false, what);
        }
    }

    fn block(&mut self, ext: Extent, block: &Block) {
        let addr = ext.page_addr(block.page);
        self.interior(ext, block);
        match block.kind {
            Kind::Free { order } => {
                let bytes = block.pages << PAGE_SHIFT;
                self.report.free_pages += bytes;
                self.report.largest_free = self.report.largest_free.max(bytes);
                let buddy = block.page ^ 1 << order;
                let other = if buddy >= ext.first_page() && buddy < ext.pages() {
                    desc_bits(&self.heap.mem, ext, buddy).ok()
                } else {
                    None
                };
                let same = Some(PageDesc::Free { order });
                if buddy > block.page && other.and_then(PageDesc::decode) == same {
                    let what = format!("two free blocks of {bytes} bytes are not joined");
                    self.report.problem(addr, true, what);
                }
            }
            Kind::Pool => self.report.overhead += PAGE_BYTES,
            Kind::Object { bytes, type_index } => {
                self.object(addr, type_index, bytes, 1);
                self.report.overhead += (block.pages << PAGE_SHIFT) - bytes;
            }
            Kind::Slab {
                class,
                hint,
                type_index,
            } => {
                if let Some(class) = CLASSES.get(class) {
                    self.slab(addr, class, hint, type_index);
                }
            }
        }
    }

    /// Within a block no other may begin.
    fn interior(&mut self, ext: Extent, block: &Block) {
        let run = matches!(block.kind, Kind::Object { .. }) && block.pages > 1;
        for page in block.page + 1 + u64::from(run)..block.page + block.pages {
            match desc_bits(&self.heap.mem, ext, page) {
                Ok(0) => {}
                Ok(bits) => {
                    let what = format!(
                        "a descriptor {bits:#x} lies within the block at {:#x}",
                        ext.page_addr(block.page)
                    );
                    self.report.problem(ext.desc_word(page).0, false, what);
                }
                Err(e) => return self.note(Err(e)),
            }
        }
    }

    fn slab(&mut self, addr: u64, class: &Class, hint: bool, type_index: u32) {
        let bitmap = match slab_header(&self.heap.mem, addr, class, type_index) {
            Ok(bitmap) => bitmap,
            Err(e) => return self.note(Err(e)),
        };
        let mut used = 0;
        for (i, (word, valid)) in bitmap.iter().zip(class.valid).enumerate() {
            let bits = word.load(Relaxed);
            used += u64::from((bits & valid).count_ones());
            if bits & !valid != 0 {
                let what = format!("the bitmap {bits:#x} of a slab has slots that do not exist");
                let at = addr + ((Class::BITMAP_WORD + i) * 8) as u64;
                self.report.problem(at, false, what);
            }
        }
        let rest = Class::BITMAP_WORD + Class::BITMAP_WORDS;
        if let Some(words) = self.heap.mem.words(addr, Class::HEADER_WORDS) {
            for (i, word) in words.iter().enumerate().skip(rest) {
                if word.load(Relaxed) != 0 {
                    let what = "a reserved word of a slab header is not zero".to_owned();
                    self.report.problem(addr + i as u64 * 8, true, what);
                }
            }
        }
        let free = u64::from(class.slots) - used;
        if free > 0 && !hint {
            let what = format!("a slab with {free} free slots says that it has none");
            self.report.problem(addr, true, what);
        }
        self.object(addr, type_index, used * class.size, used);
        self.report.free_slots += free * class.size;
        self.report.overhead += class.first;
    }

    fn object(&mut self, addr: u64, type_index: u32, bytes: u64, objects: u64) {
        if let Err(e) = self.heap.types.validate(type_index) {
            self.report.problem(addr, false, e.to_string());
        }
        let of_type = self.types.entry(type_index).or_default();
        for sum in [of_type, &mut self.report.all] {
            sum.objects += objects;
            sum.bytes += bytes;
        }
    }
}
