//! The pool page: who the pool is, which puddles it has, where its root object is.

use std::sync::atomic::Ordering::Relaxed;

use vernal_abi::puddle::{CHUNK_HEADER, MAX_PUDDLES};
use vernal_format::puddle::{
    DIRECTORY_ENTRY_WORDS, DirectorySlot, Extent, PAGE_BYTES, PUDDLE_HEADER_OFFSET, PUDDLE_ROOT,
    PageDesc, Place, PoolHead, PuddleHeader, chunk_field, pool_field, puddle_field,
};
use vernal_format::{FormatError, Uuid};

use crate::block::{Kind, block_at, load, word};
use crate::heap::{Slow, damaged};
use crate::locks::Locks;
use crate::pages::{Pages, aligned_blocks};
use crate::{DirectoryEntry, Heap, HeapError, Mapped, PoolIdentity, PoolMemory};

/// The puddle's extent, if it is one and mapped.
fn extent<M: PoolMemory + ?Sized>(mem: &M, puddle: Mapped) -> Result<Extent, HeapError> {
    let bad = |why| HeapError::BadPuddle {
        uuid: puddle.uuid,
        why,
    };
    let ext = Extent::new(puddle.addr, puddle.size)
        .ok_or_else(|| bad("its address or size is not that of a puddle"))?;
    let last = ext.end() - 8;
    if mem.words(ext.base, 1).is_none() || mem.words(last, 1).is_none() {
        return Err(bad("it is not mapped"));
    }
    Ok(ext)
}

/// Sets words that no abort needs back.
fn store<M: PoolMemory + ?Sized>(mem: &M, addr: u64, values: &[u64]) -> Result<(), HeapError> {
    let len = values.len() as u64 * 8;
    let words = mem
        .words(addr, values.len())
        .ok_or(HeapError::Unmapped { addr, len })?;
    for (word, value) in words.iter().zip(values) {
        word.store(*value, Relaxed);
    }
    mem.after_write(addr, len);
    Ok(())
}

/// Writes the headers of an empty puddle. Its file is new, or was part of a pool that an abort has taken it from.
fn format_puddle<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    header: &PuddleHeader,
    heap_from: u64,
) -> Result<(), HeapError> {
    for chunk in 0..ext.chunks() {
        let addr = ext.chunk_header(chunk);
        let words = mem
            .words(addr, CHUNK_HEADER as usize / 8)
            .ok_or(HeapError::Unmapped {
                addr,
                len: CHUNK_HEADER,
            })?;
        for (i, word) in words.iter().enumerate() {
            if word.load(Relaxed) != 0 {
                word.store(0, Relaxed);
                mem.after_write(addr + i as u64 * 8, 8);
            }
        }
    }
    for (page, order) in aligned_blocks(heap_from, ext.pages()) {
        set_desc(mem, ext, page, PageDesc::Free { order })?;
    }
    store(mem, ext.base + PUDDLE_HEADER_OFFSET, &header.encode())
}

fn set_desc<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    page: u64,
    desc: PageDesc,
) -> Result<(), HeapError> {
    let (addr, shift) = ext.desc_word(page);
    let old = word(mem, addr)?.load(Relaxed) & !(u64::from(u32::MAX) << shift);
    store(mem, addr, &[old | u64::from(desc.encode()) << shift])
}

fn format_error(addr: u64, e: FormatError) -> HeapError {
    HeapError::Format {
        addr,
        why: e.to_string(),
    }
}

/// The header of a puddle, compared with what the directory or the caller says.
fn read_header<M: PoolMemory + ?Sized>(
    mem: &M,
    ext: Extent,
    uuid: Uuid,
) -> Result<PuddleHeader, HeapError> {
    let addr = ext.base + PUDDLE_HEADER_OFFSET;
    let header = PuddleHeader::parse(&load(mem, addr)?).map_err(|e| format_error(addr, e))?;
    let bad = |why| Err(HeapError::BadPuddle { uuid, why });
    if header.uuid != uuid {
        return bad("its header has another uuid");
    }
    if header.size != ext.size() {
        return bad("its header has another size");
    }
    Ok(header)
}

/// What the pool page says: head and directory.
fn read_pool<M: PoolMemory + ?Sized>(
    mem: &M,
    root: Mapped,
) -> Result<(PoolHead, Vec<DirectoryEntry>), HeapError> {
    let ext = extent(mem, root)?;
    let uuid = root.uuid;
    if read_header(mem, ext, uuid)?.flags & PUDDLE_ROOT == 0 {
        let why = "it is not the root puddle of a pool";
        return Err(HeapError::BadPuddle { uuid, why });
    }
    let page = ext.page_addr(ext.first_page());
    let head = PoolHead::parse(&load(mem, page)?).map_err(|e| format_error(page, e))?;
    let entries = read_directory(mem, page)?;
    match entries.first() {
        Some(first) if first.slot == 0 && first.uuid == uuid && first.size == root.size => {}
        _ => {
            return Err(damaged(
                "the directory's entry for the root puddle",
                page,
                0,
            ));
        }
    }
    Ok((head, entries))
}

fn read_directory<M: PoolMemory + ?Sized>(
    mem: &M,
    page: u64,
) -> Result<Vec<DirectoryEntry>, HeapError> {
    let mut entries: Vec<DirectoryEntry> = Vec::new();
    for slot in 0..MAX_PUDDLES {
        let addr = page + DirectorySlot::offset(slot);
        let entry = DirectorySlot::parse(&load(mem, addr)?).map_err(|e| format_error(addr, e))?;
        let Some(entry) = entry else { continue };
        if entries.iter().any(|e| e.uuid == entry.uuid) {
            return Err(damaged("a puddle that the directory has twice", addr, 0));
        }
        entries.push(DirectoryEntry {
            slot,
            uuid: entry.uuid,
            size: entry.size,
            current: entry.current,
            previous: entry.previous,
        });
    }
    Ok(entries)
}

impl<M: PoolMemory> Heap<M> {
    /// Writes an empty heap into the puddle `root`, which becomes the root puddle of a new pool.
    pub fn format_root(mem: &M, root: Mapped, id: &PoolIdentity) -> Result<(), HeapError> {
        let ext = extent(mem, root)?;
        let head = PoolHead {
            uuid: id.uuid,
            label: id.label.clone(),
            direct: id.direct,
        };
        let words = head.encode().ok_or_else(|| HeapError::Label {
            label: id.label.clone(),
        })?;
        let header = PuddleHeader {
            flags: PUDDLE_ROOT,
            uuid: root.uuid,
            size: root.size,
            address_epoch: 1,
            binding_epoch: 1,
        };
        let first = ext.first_page();
        format_puddle(mem, ext, &header, first + 1)?;
        set_desc(mem, ext, first, PageDesc::Pool)?;
        let page = ext.page_addr(first);
        store(mem, page, &[0; PAGE_BYTES as usize / 8])?;
        store(mem, page, &words)?;
        store(mem, page + pool_field::ADDRESS_EPOCH, &[1, 1])?;
        let entry = DirectorySlot {
            uuid: root.uuid,
            size: root.size,
            current: root.addr,
            previous: root.addr,
        };
        store(mem, page + DirectorySlot::offset(0), &entry.encode())
    }
}

impl<M: PoolMemory> Heap<M> {
    /// [`open_with`](Heap::open_with) the standard library's locks.
    pub fn open(mem: M, puddles: &[Mapped]) -> Result<Self, HeapError> {
        Heap::open_with(mem, puddles)
    }

    /// The directory of the pool with this root puddle: which puddles have to be mapped to open it.
    pub fn read_directory(mem: &M, root: Mapped) -> Result<Vec<DirectoryEntry>, HeapError> {
        read_pool(mem, root).map(|(_, entries)| entries)
    }
}

impl<M: PoolMemory, L: Locks> Heap<M, L> {
    /// Opens the pool whose root puddle is `puddles[0]`. All puddles of its directory have to be given; others are ignored.
    ///
    /// Reads the headers of the puddles, the pool page and the type table, and validates what it reads. Page descriptors are
    /// read when they are needed, slabs when they are allocated from.
    ///
    /// The heap's lock is one of the family `L`.
    pub fn open_with(mem: M, puddles: &[Mapped]) -> Result<Self, HeapError> {
        let Some(root) = puddles.first() else {
            return Err(HeapError::UnknownPuddle { uuid: Uuid::NIL });
        };
        let (head, entries) = read_pool(&mem, *root)?;
        let heap = Heap::<M, L>::new(mem, head, puddles.to_vec());
        heap.place_puddles(&mut heap.lock(), &entries)?;
        // The other pages of the heap can only be told apart once the first of them is what it has to be.
        let ext = heap.root_extent()?;
        if block_at(&heap.mem, ext, ext.first_page())?.kind != Kind::Pool {
            let addr = ext.page_addr(ext.first_page());
            return Err(damaged("the page descriptor of the pool page", addr, 0));
        }
        heap.load_types()?;
        let root = heap.root_place()?;
        if !root.is_none() && heap.puddles.address(root).is_none() {
            return Err(damaged("the place of the root object", 0, root.0));
        }
        Ok(heap)
    }

    /// Puts the puddles of the directory into their slots.
    fn place_puddles(&self, slow: &mut Slow, entries: &[DirectoryEntry]) -> Result<(), HeapError> {
        for slot in 0..MAX_PUDDLES {
            let entry = entries.iter().find(|e| e.slot == slot);
            let Some(entry) = entry else {
                self.puddles.clear(slot);
                if let Some(pages) = slow.pages.get_mut(slot) {
                    *pages = None;
                }
                continue;
            };
            let uuid = entry.uuid;
            let known = slow.known.iter().rev().find(|m| m.uuid == uuid);
            let known = *known.ok_or(HeapError::MissingPuddle { uuid })?;
            let bad = |why| Err(HeapError::BadPuddle { uuid, why });
            if known.size != entry.size {
                return bad("it has another size than the directory says");
            }
            let ext = extent(&self.mem, known)?;
            let header = read_header(&self.mem, ext, uuid)?;
            if (header.flags & PUDDLE_ROOT != 0) != (slot == 0) {
                return bad("it is the root puddle of another pool");
            }
            let other = self.puddles.iter().find(|(s, other)| {
                *s != slot && (other.contains(ext.base) || ext.contains(other.base))
            });
            if other.is_some() {
                return bad("it is mapped over another puddle of the pool");
            }
            let Some(pages) = slow.pages.get_mut(slot) else {
                continue;
            };
            if pages.as_ref().map(|p| p.ext) != Some(ext) {
                if !self.puddles.fits(slot, ext.size()) {
                    return bad("its slot served puddles of another size: open the pool again");
                }
                *pages = Some(Pages::new(ext));
                self.puddles.set(slot, ext);
            }
        }
        Ok(())
    }

    /// After an abort has changed the pool page.
    pub(crate) fn reload_directory(&self, slow: &mut Slow) {
        // What was committed was valid when it was read before; if it is not now, the heap keeps what it has.
        if let Ok(entries) = self.directory() {
            let _ = self.place_puddles(slow, &entries);
        }
    }

    pub(crate) fn check_header(&self, slot: usize, ext: Extent) -> Result<(), HeapError> {
        let entries = self.directory()?;
        let entry = entries.iter().find(|e| e.slot == slot);
        let entry = entry.ok_or_else(|| damaged("a puddle without an entry", ext.base, 0))?;
        read_header(&self.mem, ext, entry.uuid).map(drop)
    }

    fn root_extent(&self) -> Result<Extent, HeapError> {
        self.puddles
            .get(0)
            .ok_or_else(|| damaged("the root puddle", 0, 0))
    }

    fn page_addr(&self) -> Result<u64, HeapError> {
        self.root_extent()
            .map(|ext| ext.page_addr(ext.first_page()))
    }

    /// Address of a word of the pool page.
    pub(crate) fn pool_word(&self, offset: u64) -> Result<u64, HeapError> {
        self.page_addr().map(|page| page + offset)
    }

    /// Who the pool is.
    pub fn identity(&self) -> PoolIdentity {
        PoolIdentity {
            uuid: self.head.uuid,
            label: self.head.label.clone(),
            direct: self.head.direct,
        }
    }

    /// The puddles, by slot.
    pub fn directory(&self) -> Result<Vec<DirectoryEntry>, HeapError> {
        read_directory(&self.mem, self.page_addr()?)
    }

    /// Where the puddles are mapped, by slot.
    pub fn mapped(&self) -> Vec<(usize, Extent)> {
        self.puddles.iter().collect()
    }

    /// Formats the puddle and makes it part of the pool.
    pub fn add_puddle(&self, puddle: Mapped) -> Result<(), HeapError> {
        let mut slow = self.lock();
        let uuid = puddle.uuid;
        let ext = extent(&self.mem, puddle)?;
        let entries = self.directory()?;
        let bad = |why| Err(HeapError::BadPuddle { uuid, why });
        if uuid.is_nil() || entries.iter().any(|e| e.uuid == uuid) {
            return bad("a puddle of this pool has the same uuid");
        }
        let mut others = self.puddles.iter();
        if others.any(|(_, o)| o.contains(ext.base) || ext.contains(o.base)) {
            return bad("it is mapped over another puddle of the pool");
        }
        let slot = (1..MAX_PUDDLES)
            .filter(|slot| entries.iter().all(|e| e.slot != *slot))
            .find(|slot| self.puddles.fits(*slot, ext.size()))
            .ok_or(HeapError::TooManyPuddles {
                count: entries.len(),
            })?;
        let (address_epoch, binding_epoch) = self.epochs()?;
        let header = PuddleHeader {
            flags: 0,
            uuid,
            size: puddle.size,
            address_epoch,
            binding_epoch,
        };
        // First the puddle, then its entry: a puddle that nobody names can hold anything. Whether the entry can be changed
        // is asked before.
        self.mem
            .before_write(self.pool_word(DirectorySlot::offset(slot))?, 8)?;
        format_puddle(&self.mem, ext, &header, ext.first_page())?;
        let entry = DirectorySlot {
            uuid,
            size: puddle.size,
            current: puddle.addr,
            previous: puddle.addr,
        };
        self.set_directory_slot(&mut slow, slot, &entry.encode())?;
        slow.known.retain(|m| m.uuid != uuid);
        slow.known.push(puddle);
        if let Some(pages) = slow.pages.get_mut(slot) {
            *pages = Some(Pages::new(ext));
        }
        self.puddles.set(slot, ext);
        Ok(())
    }

    /// A puddle that another process has made part of the pool: [`restored`](Heap::restored) for the pool page then finds where
    /// it is mapped here.
    pub fn learn(&self, puddle: Mapped) {
        let mut slow = self.lock();
        slow.known.retain(|m| m.uuid != puddle.uuid);
        slow.known.push(puddle);
    }

    fn set_directory_slot(
        &self,
        slow: &mut Slow,
        slot: usize,
        words: &[u64; DIRECTORY_ENTRY_WORDS],
    ) -> Result<(), HeapError> {
        let addr = self.pool_word(DirectorySlot::offset(slot))?;
        let words = words.iter().enumerate();
        self.set_words(slow, words.map(|(i, w)| (addr + i as u64 * 8, *w)))
    }

    fn set_words(
        &self,
        slow: &mut Slow,
        words: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<(), HeapError> {
        for (addr, value) in words {
            slow.batch.word(addr, value);
        }
        let done = slow.batch.apply(&self.mem);
        slow.batch.clear();
        done
    }

    /// Takes an empty puddle out of the pool. It stays mapped until the change is committed: an abort brings it back.
    pub fn remove_puddle(&self, uuid: Uuid) -> Result<(), HeapError> {
        let mut slow = self.lock();
        let entries = self.directory()?;
        let entry = entries.iter().find(|e| e.uuid == uuid);
        let slot = entry.ok_or(HeapError::UnknownPuddle { uuid })?.slot;
        self.release_empty_spans(&mut slow)?;
        if !self.is_empty(slot)? {
            return Err(HeapError::NotEmpty { uuid });
        }
        self.set_directory_slot(&mut slow, slot, &[0; DIRECTORY_ENTRY_WORDS])?;
        self.puddles.clear(slot);
        if let Some(pages) = slow.pages.get_mut(slot) {
            *pages = None;
        }
        Ok(())
    }

    /// Whether no page of the puddle is in use.
    fn is_empty(&self, slot: usize) -> Result<bool, HeapError> {
        // The root puddle is never empty: the pool page is in it.
        let Some(ext) = self.puddles.get(slot) else {
            return Ok(false);
        };
        let mut page = ext.first_page();
        while page < ext.pages() {
            let block = block_at(&self.mem, ext, page)?;
            if !matches!(block.kind, Kind::Free { .. }) {
                return Ok(false);
            }
            page += block.pages;
        }
        Ok(true)
    }

    /// Puddles without objects, which `remove_puddle` takes. Empty spans of `cache` are given up first; those of other
    /// threads' caches keep their puddle.
    pub fn empty_puddles(&self, cache: &mut crate::ThreadCache) -> Result<Vec<Uuid>, HeapError> {
        if cache.heap != self.id {
            return Err(HeapError::ForeignCache);
        }
        let mut slow = self.lock();
        self.drain_orphans(&mut slow)?;
        for span in cache.take_spans() {
            self.release_span(&mut slow, cache.generation, span)?;
        }
        for (slot, _) in self.puddles.iter() {
            self.read_chunks(&mut slow, slot, None)?;
        }
        self.release_empty_spans(&mut slow)?;
        let mut empty = Vec::new();
        for entry in self.directory()? {
            if self.is_empty(entry.slot)? {
                empty.push(entry.uuid);
            }
        }
        Ok(empty)
    }

    pub(crate) fn root_place(&self) -> Result<Place, HeapError> {
        let addr = self.pool_word(pool_field::ROOT)?;
        Ok(Place(word(&self.mem, addr)?.load(Relaxed)))
    }

    /// Makes the object at `addr` the root object; 0: none.
    pub fn set_root(&self, addr: u64) -> Result<(), HeapError> {
        let place = self.check_place("the root object", addr)?;
        let to = self.pool_word(pool_field::ROOT)?;
        self.set_words(&mut self.lock(), [(to, place)])
    }

    /// Address of the binding record, an object whose content the pool layer defines.
    pub fn binding_record(&self) -> Option<u64> {
        let addr = self.pool_word(pool_field::BINDING).ok()?;
        let place = Place(word(&self.mem, addr).ok()?.load(Relaxed));
        self.puddles.address(place)
    }

    /// Sets the binding record; 0: none.
    pub fn set_binding_record(&self, addr: u64) -> Result<(), HeapError> {
        let place = self.check_place("the binding record", addr)?;
        let to = self.pool_word(pool_field::BINDING)?;
        self.set_words(&mut self.lock(), [(to, place)])
    }

    /// The pool's address epoch and binding epoch.
    pub fn epochs(&self) -> Result<(u64, u64), HeapError> {
        let addr = self.pool_word(pool_field::ADDRESS_EPOCH)?;
        let [address, binding] = load(&self.mem, addr)?;
        Ok((address, binding))
    }

    /// Starts a new address epoch: each puddle's previous address is what its current one was, and its current one is where
    /// it is mapped.
    pub fn begin_address_epoch(&self) -> Result<u64, HeapError> {
        let mut slow = self.lock();
        let mut words = Vec::new();
        for entry in self.directory()? {
            let Some(ext) = self.puddles.get(entry.slot) else {
                continue;
            };
            let addr = self.pool_word(DirectorySlot::offset(entry.slot))?;
            words.extend([(addr + 24, ext.base), (addr + 32, entry.current)]);
        }
        let epoch = self.epochs()?.0.wrapping_add(1);
        words.push((self.pool_word(pool_field::ADDRESS_EPOCH)?, epoch));
        self.set_words(&mut slow, words)?;
        Ok(epoch)
    }

    /// Starts a new binding epoch.
    pub fn begin_binding_epoch(&self) -> Result<u64, HeapError> {
        let mut slow = self.lock();
        let epoch = self.epochs()?.1.wrapping_add(1);
        let addr = self.pool_word(pool_field::BINDING_EPOCH)?;
        self.set_words(&mut slow, [(addr, epoch)])?;
        Ok(epoch)
    }

    /// The epochs for which the pointers and the process-bound values of a chunk (numbered as in
    /// [`ObjectSpace`](crate::ObjectSpace)) are valid.
    pub fn chunk_epochs(&self, chunk: usize) -> Result<(u64, u64), HeapError> {
        let (_, ext, local) = self
            .chunk_place(chunk)
            .ok_or(HeapError::Outside { addr: 0 })?;
        let [address, binding] = load(&self.mem, ext.chunk_header(local))?;
        let of_puddle = ext.base + PUDDLE_HEADER_OFFSET + puddle_field::ADDRESS_EPOCH;
        let [all_address, all_binding] = load(&self.mem, of_puddle)?;
        Ok((address.max(all_address), binding.max(all_binding)))
    }

    /// Says that a chunk is valid for these epochs.
    pub fn set_chunk_epochs(
        &self,
        chunk: usize,
        address: u64,
        binding: u64,
    ) -> Result<(), HeapError> {
        let (_, ext, local) = self
            .chunk_place(chunk)
            .ok_or(HeapError::Outside { addr: 0 })?;
        let header = ext.chunk_header(local);
        // Without the lock: who touches a chunk for the first time may hold it already.
        self.mem.before_write(header, 16)?;
        word(&self.mem, header + chunk_field::ADDRESS_EPOCH)?.store(address, Relaxed);
        word(&self.mem, header + chunk_field::BINDING_EPOCH)?.store(binding, Relaxed);
        self.mem.after_write(header, 16);
        Ok(())
    }
}
