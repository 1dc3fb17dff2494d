//! A growing array in a pool.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Index, IndexMut};
use std::ptr::{self, NonNull};

use super::Brand;
use super::boxed::free;
use super::persist::{Persist, pointer_to};
use super::tx::{Tx, announce};
use crate::error::Error;
use crate::layout::{self, Collector, Demands, Shape};

/// `Vec` in a pool: pointer, length and capacity, 24 bytes. Reads are those of a slice; a write through an index
/// announces one element. What can allocate takes the transaction.
#[repr(C)]
pub struct PVec<'p, T> {
    /// Null as long as the capacity is 0.
    items: Option<NonNull<T>>,
    len: usize,
    capacity: usize,
    brand: Brand<'p>,
}

// SAFETY: sharing a vector shares its elements and nothing else.
unsafe impl<T: Sync> Sync for PVec<'_, T> {}

// SAFETY: one pointer, to an array of T in the same pool, and two lengths.
unsafe impl<'p, T: Persist> Persist for PVec<'p, T> {
    type At<'q> = PVec<'q, T::At<'q>>;
    fn name() -> String {
        format!("vernal::PVec<{}>", T::name())
    }
    fn shape() -> Shape {
        layout::record::<Self>(vec![
            layout::Member::new("items", 0, pointer_to::<T>()),
            layout::member::<usize>("len", 8),
            layout::member::<usize>("capacity", 16),
        ])
    }
    fn collect(types: &mut Collector) {
        if types.enter::<Self>() {
            T::collect(types);
            types.pointee::<T>();
        }
    }
    fn demand(at: u64, demands: &mut Demands) {
        // Whoever verifies knows vectors by name, and that they are null when they have no memory.
        demands.target::<T>(at);
    }
}

const _: () = assert!(std::mem::offset_of!(PVec<'static, u64>, len) == 8);
const _: () = assert!(std::mem::offset_of!(PVec<'static, u64>, capacity) == 16);
const _: () = assert!(size_of::<PVec<'static, u64>>() == 24);

impl<T> Default for PVec<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PVec<'_, T> {
    /// An empty vector, without memory of its own.
    pub const fn new() -> Self {
        Self {
            items: None,
            len: 0,
            capacity: 0,
            brand: PhantomData,
        }
    }

    /// Elements that it has memory for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn start(&self) -> NonNull<T> {
        self.items.unwrap_or(NonNull::dangling())
    }

    /// The address of element `index`, which is at most the capacity.
    fn place(&self, index: usize) -> *mut T {
        self.start().as_ptr().wrapping_add(index)
    }

    /// Element `index`, to be changed.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        if index >= self.len {
            return None;
        }
        self.changing(index, 1);
        // SAFETY: inside the length, so initialised; the vector is exclusively borrowed.
        Some(unsafe { &mut *self.place(index) })
    }

    /// The last element, to be changed.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.get_mut(self.len.wrapping_sub(1))
    }

    /// All elements, to be changed: announces every one of them.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.changing(0, self.len);
        // SAFETY: as many elements are initialised, and the vector is exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }

    /// Announces elements. Panics when a direct pool's log is full, as `PBox` does.
    #[track_caller]
    fn changing(&self, index: usize, count: usize) {
        if count > 0
            && let Err(e) = announce(self.place(index), count * size_of::<T>())
        {
            panic!("the vector cannot be changed: {e}");
        }
    }

    /// Takes the last element.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        self.changing(last, 1);
        self.len = last;
        // SAFETY: it was inside the length and no longer is: this is the only owner.
        let value = unsafe { self.place(last).read() };
        self.vacate();
        Some(value)
    }

    /// Clears the place behind the last element, which has been announced and moved from: the pool's check, and whoever else
    /// follows pointers by type alone, sees the whole memory, and would find what the element has freed.
    fn vacate(&mut self) {
        // SAFETY: the place lies in the vector's memory, because the length was greater by one, and nobody owns what it held.
        unsafe { ptr::write_bytes(self.place(self.len), 0, 1) };
    }

    /// Drops the elements from `len` on; keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            drop(self.pop());
        }
    }

    /// Drops all elements; keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Takes element `index` and moves the later ones up.
    ///
    /// # Panics
    ///
    /// When there is no such element.
    #[track_caller]
    pub fn remove(&mut self, index: usize) -> T {
        assert!(
            index < self.len,
            "no element {index} in a vector of {}",
            self.len
        );
        self.changing(index, self.len - index);
        self.len -= 1;
        // SAFETY: element `index` is read once and its place is then taken by the ones behind it.
        let value = unsafe {
            let value = self.place(index).read();
            ptr::copy(self.place(index + 1), self.place(index), self.len - index);
            value
        };
        self.vacate();
        value
    }

    /// Takes element `index` and puts the last one in its place.
    ///
    /// # Panics
    ///
    /// When there is no such element.
    #[track_caller]
    pub fn swap_remove(&mut self, index: usize) -> T {
        assert!(
            index < self.len,
            "no element {index} in a vector of {}",
            self.len
        );
        self.changing(index, 1);
        self.changing(self.len - 1, 1);
        self.len -= 1;
        // SAFETY: element `index` is read once; the last one moves into its place, or is the same.
        let value = unsafe {
            let value = self.place(index).read();
            ptr::copy(self.place(self.len), self.place(index), 1);
            value
        };
        self.vacate();
        value
    }
}

impl<'p, T: Persist<At<'p> = T>> PVec<'p, T> {
    /// Makes room for `more` elements.
    pub fn reserve(&mut self, tx: &Tx<'p>, more: usize) -> Result<(), Error> {
        let needed = self.len.saturating_add(more);
        if needed <= self.capacity {
            return Ok(());
        }
        let least = (64 / size_of::<T>().max(1)).max(1);
        let capacity = needed.max(self.capacity.saturating_mul(2)).max(least);
        let items = tx.allocate::<T>(capacity)?;
        let bytes = self.len * size_of::<T>();
        // SAFETY: both hold `len` elements, and the new memory is not the old.
        unsafe { ptr::copy_nonoverlapping(self.start().as_ptr(), items.as_ptr(), self.len) };
        if bytes > 0
            && let Err(e) = announce(items.as_ptr(), bytes)
        {
            // SAFETY: the elements still belong to the old memory.
            unsafe { free(items) };
            return Err(e);
        }
        if let Some(old) = self.items.replace(items) {
            // SAFETY: its elements have moved.
            unsafe { free(old) };
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Appends an element.
    pub fn push(&mut self, tx: &Tx<'p>, value: T) -> Result<(), Error> {
        self.reserve(tx, 1)?;
        announce(self.place(self.len), size_of::<T>())?;
        // SAFETY: inside the capacity and beyond the length: nothing is overwritten.
        unsafe { self.place(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    /// Puts an element before element `index`.
    ///
    /// # Panics
    ///
    /// When `index` is beyond the length.
    #[track_caller]
    pub fn insert(&mut self, tx: &Tx<'p>, index: usize, value: T) -> Result<(), Error> {
        assert!(
            index <= self.len,
            "no place {index} in a vector of {}",
            self.len
        );
        self.reserve(tx, 1)?;
        announce(self.place(index), (self.len - index + 1) * size_of::<T>())?;
        // SAFETY: the elements from `index` on move by one, inside the capacity, and the gap is filled.
        unsafe {
            ptr::copy(self.place(index), self.place(index + 1), self.len - index);
            self.place(index).write(value);
        }
        self.len += 1;
        Ok(())
    }

    /// Appends elements.
    pub fn extend(&mut self, tx: &Tx<'p>, items: impl IntoIterator<Item = T>) -> Result<(), Error> {
        let items = items.into_iter();
        self.reserve(tx, items.size_hint().0)?;
        for item in items {
            self.push(tx, item)?;
        }
        Ok(())
    }
}

impl<T> Drop for PVec<'_, T> {
    fn drop(&mut self) {
        let Some(items) = self.items else { return };
        if std::mem::needs_drop::<T>() {
            let _ = announce(items.as_ptr(), self.len * size_of::<T>());
        }
        // SAFETY: the vector owns the memory and its initialised elements, and is not used again.
        unsafe {
            ptr::drop_in_place(ptr::slice_from_raw_parts_mut(items.as_ptr(), self.len));
            free(items);
        }
    }
}

impl<T> Deref for PVec<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: as many elements are initialised.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }
}

impl<T> Index<usize> for PVec<'_, T> {
    type Output = T;
    fn index(&self, index: usize) -> &T {
        &(**self)[index]
    }
}

impl<T> IndexMut<usize> for PVec<'_, T> {
    #[track_caller]
    fn index_mut(&mut self, index: usize) -> &mut T {
        let len = self.len;
        match self.get_mut(index) {
            Some(element) => element,
            None => panic!("no element {index} in a vector of {len}"),
        }
    }
}

impl<'a, T> IntoIterator for &'a PVec<'_, T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for PVec<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
impl<'q, T: PartialEq<U>, U> PartialEq<PVec<'q, U>> for PVec<'_, T> {
    fn eq(&self, other: &PVec<'q, U>) -> bool {
        **self == **other
    }
}
impl<T: Eq> Eq for PVec<'_, T> {}
