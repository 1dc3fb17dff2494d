//! The heap of one end: objects that this side passes. Nobody maps it but this process.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vernal_abi::{RPC_BASE, RPC_SIZE};
use vernal_format::Uuid;
use vernal_pool::Pool;
use vernal_pool::source::{GrantedPuddle, JournalGrant, PoolInfo, PoolSource};

use crate::Error;

/// Bytes of addresses in use of this process, from the top of the RPC space down. A registry gives its addresses from a place of its own
/// upwards; should both meet, mapping says so.
static USED: AtomicU64 = AtomicU64::new(0);
static NEXT_UUID: AtomicU64 = AtomicU64::new(1);

struct Private {
    name: String,
    free: &'static Mutex<Vec<(u64, u64)>>,
    given: Mutex<Vec<(Uuid, u64, u64)>>,
}

/// Addresses that were given back: address and bytes.
static FREE: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

impl Private {
    fn address(&self, size: u64) -> Option<u64> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = free.iter().position(|(_, bytes)| *bytes == size) {
            return Some(free.swap_remove(at).0);
        }
        let take = |used: u64| used.checked_add(size).filter(|all| *all <= RPC_SIZE);
        let before = USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        before.ok().map(|used| RPC_BASE + RPC_SIZE - used - size)
    }

    fn give_back(&self, addr: u64, size: u64) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push((addr, size));
    }
}

impl PoolSource for Private {
    fn describe(&self) -> PoolInfo {
        PoolInfo {
            name: self.name.clone(),
            direct: false,
            read_only: false,
        }
    }

    fn puddles(&self) -> Result<Vec<GrantedPuddle>, vernal_pool::Error> {
        Ok(Vec::new())
    }

    fn grow(&self, size: u64) -> Result<GrantedPuddle, vernal_pool::Error> {
        let failed = |what: String| vernal_pool::Error::Access {
            what: format!("heap of {}: {what}", self.name),
        };
        let file = memfd_create("vernal-rpc-tcp", MemfdFlags::CLOEXEC)
            .and_then(|file| ftruncate(&file, size).map(|()| file))
            .map_err(|e| failed(format!("no memory of {size} bytes: {e}")))?;
        let addr = self
            .address(size)
            .ok_or_else(|| failed("no addresses are left; free objects".into()))?;
        let number = NEXT_UUID.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; 16];
        let halves = [number.to_le_bytes(), addr.to_le_bytes()];
        let to = bytes.iter_mut();
        to.zip(halves.iter().flatten())
            .for_each(|(to, from)| *to = *from);
        let uuid = Uuid(bytes);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.push((uuid, addr, size));
        Ok(GrantedPuddle {
            uuid,
            addr,
            size,
            file: File::from(file),
            name: format!("memory of {}", self.name),
        })
    }

    fn shrink(&self, puddle: Uuid) -> Result<(), vernal_pool::Error> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = given.iter().position(|(uuid, ..)| *uuid == puddle) {
            let (_, addr, size) = given.swap_remove(at);
            self.give_back(addr, size);
        }
        Ok(())
    }

    fn journal(&self) -> Result<Option<JournalGrant>, vernal_pool::Error> {
        Ok(None)
    }

    fn close(self: Box<Self>) -> Result<(), vernal_pool::Error> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, addr, size) in given.iter() {
            self.give_back(*addr, *size);
        }
        Ok(())
    }
}

/// The heap, made at first use.
pub(super) struct OwnHeap {
    name: String,
    pool: OnceLock<Pool>,
    making: Mutex<()>,
}

impl OwnHeap {
    pub fn new(name: &str) -> OwnHeap {
        OwnHeap {
            name: name.to_owned(),
            pool: OnceLock::new(),
            making: Mutex::default(),
        }
    }

    /// The pool, if there is one.
    pub fn known(&self) -> Option<&Pool> {
        self.pool.get()
    }

    pub fn pool(&self) -> Result<Pool, Error> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = self.pool.get() {
            return Ok(pool.clone());
        }
        let source = Private {
            name: self.name.clone(),
            free: &FREE,
            given: Mutex::default(),
        };
        let pool = Pool::create_volatile(Box::new(source)).map_err(|e| Error::Registry {
            doing: "making the heap of a connection",
            why: e.to_string(),
        })?;
        Ok(self.pool.get_or_init(|| pool).clone())
    }
}

impl Drop for OwnHeap {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let _ = pool.close();
        }
    }
}
