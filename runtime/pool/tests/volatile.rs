//! Volatile pools, and the heap of one as its peer sees it.

mod common;

use common::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vernal_abi::{RPC_BASE, RPC_SIZE};
use vernal_format::Uuid;
use vernal_heap::ObjectSpace;
use vernal_pool::foreign::ForeignHeap;
use vernal_pool::segment::Segment;
use vernal_pool::source::{GrantedPuddle, JournalGrant, PoolInfo, PoolSource};
use vernal_pool::{Error, Pool, tx};

/// Where the next segment of this process lies: what puddled does for a machine.
static NEXT: AtomicU64 = AtomicU64::new(RPC_BASE);

fn address(size: u64) -> u64 {
    let addr = NEXT.fetch_add(size, Ordering::Relaxed);
    assert!(addr + size <= RPC_BASE + RPC_SIZE);
    addr
}

fn segment_file(size: u64) -> File {
    let fd = memfd_create("segment", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let fd = fd.expect("a memfd");
    ftruncate(&fd, size).expect("its size");
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).expect("seals");
    fd.into()
}

/// What the owner has mapped: nobody maps it writable from now on.
fn ready(file: &File) {
    fcntl_add_seals(file, SealFlags::FUTURE_WRITE | SealFlags::SEAL).expect("seals");
}

/// The segments that a source has given: file, address, size.
type Given = Arc<Mutex<Vec<(File, u64, u64)>>>;

struct Memfds {
    name: String,
    given: Given,
    limit: u64,
}

impl PoolSource for Memfds {
    fn describe(&self) -> PoolInfo {
        PoolInfo {
            name: self.name.clone(),
            direct: false,
            read_only: false,
        }
    }
    fn puddles(&self) -> Result<Vec<GrantedPuddle>, Error> {
        Ok(Vec::new())
    }
    fn grow(&self, size: u64) -> Result<GrantedPuddle, Error> {
        let mut given = self.given.lock().expect("the segments");
        let total: u64 = given.iter().map(|g| g.2).sum();
        if total + size > self.limit {
            return Err(Error::Access {
                what: "the quota is used up".into(),
            });
        }
        let file = segment_file(size);
        let addr = address(size);
        let uuid = Uuid([u8::try_from(given.len() + 1).expect("few segments"); 16]);
        given.push((file.try_clone().expect("a descriptor"), addr, size));
        Ok(GrantedPuddle {
            uuid,
            addr,
            size,
            file,
            name: format!("{}/{uuid}", self.name),
        })
    }
    fn shrink(&self, puddle: Uuid) -> Result<(), Error> {
        let _ = puddle;
        Ok(())
    }
    fn journal(&self) -> Result<Option<JournalGrant>, Error> {
        Ok(None)
    }
    fn close(self: Box<Self>) -> Result<(), Error> {
        self.given.lock().expect("the segments").clear();
        Ok(())
    }
}

fn volatile(name: &str, limit: u64) -> (Pool, Given) {
    let given = Given::default();
    let source = Memfds {
        name: name.into(),
        given: Arc::clone(&given),
        limit,
    };
    let pool = Pool::create_volatile(Box::new(source)).expect("a volatile pool");
    (pool, given)
}

#[test]
fn a_list_grows_over_several_segments_and_goes_with_its_pool() {
    let (pool, given) = volatile("list", 64 << 20);
    assert!(pool.is_volatile());
    for value in 0..200_000 {
        push(&pool, value);
    }
    assert!(given.lock().expect("segments").len() > 1, "it has grown");
    assert_sound(&pool);
    let values = list(&pool);
    assert!(values.iter().rev().copied().eq(0..200_000));
    let mut at = load(root(&pool));
    while at != 0 {
        let next = load(at);
        pool.free(at).expect("free");
        at = next;
    }
    store(root(&pool), 0);
    store(root(&pool) + 8, 0);
    assert_sound(&pool);
    let empty = pool.shrink().expect("shrink");
    assert!(empty > 0, "puddles without objects are given back");
    push(&pool, 7);
    assert_eq!(list(&pool), [7]);
    let inside = root(&pool);
    assert_eq!(
        Pool::containing(inside).map(|p| p.handle()),
        Some(pool.handle())
    );
    pool.close().expect("close");
    assert!(Pool::containing(inside).is_none());
    assert!(given.lock().expect("segments").is_empty());
}

#[test]
fn what_is_not_granted_is_an_error_and_the_pool_goes_on() {
    let (pool, _given) = volatile("quota", 4 << 20);
    let mut made = Vec::new();
    let refused = loop {
        match pool.alloc_bytes(1 << 20) {
            Ok(at) => made.push(at),
            Err(e) => break e,
        }
        assert!(made.len() < 10);
    };
    assert!(matches!(refused, Error::Access { .. }), "{refused}");
    pool.free(made.pop().expect("an object")).expect("free");
    pool.alloc_bytes(1 << 20).expect("there is room again");
    assert_sound(&pool);
    pool.close().expect("close");
}

#[test]
fn a_transaction_takes_nothing_back() {
    let _turn = turn();
    let (pool, _given) = volatile("tx", 8 << 20);
    push(&pool, 1);
    tx::begin().expect("begin");
    push(&pool, 2);
    tx::abort().expect("abort");
    assert_eq!(list(&pool), [2, 1]);
    tx::begin().expect("begin");
    push(&pool, 3);
    tx::commit().expect("commit");
    assert_eq!(list(&pool), [3, 2, 1]);
    assert_sound(&pool);
    pool.close().expect("close");
}

#[test]
fn threads_allocate_and_free_without_overlap() {
    let (pool, _given) = volatile("threads", 256 << 20);
    std::thread::scope(|s| {
        for t in 0..4u64 {
            let pool = &pool;
            s.spawn(move || {
                let mut mine: Vec<u64> = Vec::new();
                for i in 0..20_000u64 {
                    let at = node(pool);
                    assert_eq!((load(at), load(at + 8)), (0, 0), "fresh objects are zero");
                    store(at + 8, t << 32 | i);
                    mine.push(at);
                    if i % 3 == 0 {
                        let at = mine.swap_remove((i as usize * 7919) % mine.len());
                        assert_eq!(load(at + 8) >> 32, t, "nobody else wrote it");
                        pool.free(at).expect("free");
                    }
                }
                for at in mine {
                    assert_eq!(load(at + 8) >> 32, t, "nobody else wrote it");
                    pool.free(at).expect("free");
                }
            });
        }
    });
    assert_sound(&pool);
    pool.close().expect("close");
}

#[test]
fn a_child_does_not_have_its_parents_segments() {
    let size = 2 << 20;
    let file = segment_file(size);
    let addr = address(size);
    let segment = Segment::own(&file, "mine", addr, size).expect("mapped");
    segment.words()[0].store(1, Ordering::Relaxed);
    // SAFETY: the child makes one store and ends.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        // SAFETY: ends the process, one way or the other.
        unsafe {
            (addr as *mut u64).write_volatile(2);
            libc::_exit(0);
        }
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert!(
        libc::WIFSIGNALED(status),
        "a child must not write: {status:#x}"
    );
    assert_eq!(segment.words()[0].load(Ordering::Relaxed), 1);
}

#[test]
fn a_segment_is_checked_before_it_is_mapped() {
    let size = 2 << 20;
    let file = segment_file(size);
    let peer = |file: &File, addr| Segment::peer(file, "theirs", addr, size).map(drop);
    let why = peer(&file, address(size)).expect_err("it can be mapped for writing");
    assert!(why.to_string().contains("mapped for writing"), "{why}");
    ready(&file);
    let addr = address(size);
    let mapped = Segment::peer(&file, "theirs", addr, size).expect("sealed");
    assert_eq!(mapped.words()[0].load(Ordering::Relaxed), 0);
    let why = peer(&file, addr).expect_err("taken");
    assert!(why.to_string().contains("another segment"), "{why}");
    drop(mapped);
    peer(&file, addr).expect("free again");
    for bad in [
        0,
        RPC_BASE - size,
        RPC_BASE + RPC_SIZE,
        addr + 4096,
        u64::MAX - 4095,
    ] {
        assert!(peer(&file, bad).is_err(), "{bad:#x}");
    }
    assert!(
        Segment::peer(&file, "theirs", addr, 2 * size).is_err(),
        "longer than the file"
    );
    // A file that shrinks would kill whoever reads it.
    let fd = memfd_create("short", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
    ftruncate(&fd, size).expect("size");
    fcntl_add_seals(&fd, SealFlags::FUTURE_WRITE).expect("seals");
    let why = peer(&fd.into(), addr).expect_err("it can be truncated");
    assert!(why.to_string().contains("truncated"), "{why}");
    let path = std::env::temp_dir().join(format!("vernal-volatile-{}", std::process::id()));
    let plain = File::create_new(&path).expect("a file");
    let _ = std::fs::remove_file(&path);
    plain.set_len(size).expect("size");
    assert!(peer(&plain, addr).is_err(), "a file without seals");
}

/// Runs `test` of this file in a process of its own, which gets the segments; a segment has one address in a process.
fn in_peer(test: &str, segments: &[(File, u64, u64)], args: &str) -> ExitStatus {
    let mut list = String::new();
    let mut kept = Vec::new();
    for (file, addr, size) in segments {
        let fd = rustix::io::dup(file).expect("a descriptor that a child gets");
        list += &format!("{},{addr},{size};", fd.as_raw_fd());
        kept.push(fd);
    }
    let exe = std::env::current_exe().expect("this program");
    Command::new(exe)
        .args([test, "--exact", "--nocapture"])
        .env("VERNAL_TEST_SEGMENTS", list)
        .env("VERNAL_TEST_ARGS", args)
        .status()
        .expect("a child")
}

/// In the child: the segments of the heap, and the arguments.
fn as_peer() -> Option<(ForeignHeap, Vec<u64>)> {
    let list = std::env::var("VERNAL_TEST_SEGMENTS").ok()?;
    let heap = ForeignHeap::new("seen");
    for segment in list.split_terminator(';') {
        let n: Vec<u64> = segment
            .split(',')
            .map(|n| n.parse().expect("a number"))
            .collect();
        // SAFETY: the parent has left this descriptor open for us, and nobody else owns it.
        let file = unsafe { File::from_raw_fd(n[0] as i32) };
        heap.add(&file, n[1], n[2]).expect("a segment of the peer");
    }
    let args = std::env::var("VERNAL_TEST_ARGS").expect("arguments");
    Some((
        heap,
        args.split(',')
            .map(|n| n.parse().expect("a number"))
            .collect(),
    ))
}

fn sealed(given: &Given) -> Vec<(File, u64, u64)> {
    let given = given.lock().expect("segments");
    let each = given.iter().map(|(f, a, s)| {
        ready(f);
        (f.try_clone().expect("a descriptor"), *a, *s)
    });
    each.collect()
}

#[test]
fn a_peer_sees_objects_and_types() {
    if let Some((heap, args)) = as_peer() {
        let root = args[0];
        let object = heap.object_at(root).expect("the root is an object");
        assert_eq!(heap.type_desc(object.type_index), Some(&NODE.desc));
        assert_eq!(heap.root(), Some(root));
        let (mut at, mut count) = (root, 0);
        while let Some(o) = heap.object_at(at).filter(|o| o.addr == at) {
            assert_eq!(o.type_index, object.type_index);
            at = heap.words(at, 2).expect("its words")[0].load(Ordering::Relaxed);
            count += 1;
        }
        assert_eq!((at, count), (0, args[1]));
        assert!(heap.type_desc(3).is_none() && heap.type_desc(u32::MAX).is_none());
        let (last, size) = *heap.segments().last().expect("segments");
        assert!(heap.words(last + size, 1).is_none() && heap.words(last + size - 8, 2).is_none());
        assert!(heap.contains(last + size - 8, 8) && !heap.contains(last + size - 8, 9));
        assert!(heap.object_at(8).is_none() && heap.object_at(last + size).is_none());
        return;
    }
    let (pool, given) = volatile("seen", 64 << 20);
    for value in 0..150_000 {
        push(&pool, value);
    }
    assert!(given.lock().expect("segments").len() > 1);
    let args = format!("{},{}", root(&pool), 150_001);
    let status = in_peer("a_peer_sees_objects_and_types", &sealed(&given), &args);
    assert!(status.success(), "{status}");
    pool.close().expect("close");
}

#[test]
fn a_peer_cannot_write() {
    if let Some((_heap, args)) = as_peer() {
        // SAFETY: ends this process, as it should.
        unsafe { (args[0] as *mut u64).write_volatile(2) };
        return;
    }
    let (pool, given) = volatile("kept", 64 << 20);
    push(&pool, 1);
    let args = format!("{}", root(&pool) + 8);
    let status = in_peer("a_peer_cannot_write", &sealed(&given), &args);
    assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
    assert_eq!(list(&pool), [1]);
    pool.close().expect("close");
}

#[test]
fn a_peer_copies_a_list_into_a_pool_of_its_own() {
    use std::sync::Arc;
    use vernal_heap::walk::{Allowed, Budget, Examiner, GraphError, KnownTypes};
    use vernal_pool::foreign::copy_verified;

    let id = NODE.desc.id();
    if let Some((heap, args)) = as_peer() {
        let (head, count) = (args[0], args[1]);
        // Addresses that the parent does not use.
        NEXT.fetch_add(1 << 30, Ordering::Relaxed);
        let (pool, _given) = volatile("mine", 64 << 20);
        let mut examiner = Examiner::new(Arc::new(KnownTypes::new([&NODE.desc])));
        let budget = Budget::default();
        let report = examiner.verify(&heap, head, id, Allowed::All, budget);
        assert_eq!(report.expect("sound").objects, count);
        for _ in 0..2 {
            let copied = copy_verified(&mut examiner, &heap, head, id, budget, &pool);
            let copied = copied.expect("sound");
            assert_eq!(copied.objects.len() as u64, count);
            let (mut at, mut next) = (copied.root, count - 1);
            while at != 0 {
                assert!(Pool::containing(at).is_some());
                assert_eq!(load(at + 8), next);
                at = load(at);
                next = next.wrapping_sub(1);
            }
            assert_eq!(next, u64::MAX);
            assert_sound(&pool);
            for object in copied.objects {
                pool.free(object).expect("freed");
            }
        }
        // A list that ends in what is no node: nothing of it stays.
        let few = Budget {
            objects: count - 1,
            ..budget
        };
        let refused = copy_verified(&mut examiner, &heap, head, id, few, &pool);
        assert!(matches!(refused, Err(GraphError::Budget { .. })));
        let mut left = 0;
        for chunk in 0..pool.space().chunk_count() {
            pool.space().for_each_object(chunk, &mut |o| {
                left += u32::from(o.type_index > 1);
                true
            });
        }
        assert_eq!(left, 0, "objects were left behind");
        pool.close().expect("close");
        return;
    }
    let (pool, given) = volatile("theirs", 64 << 20);
    for value in 0..150_000 {
        push(&pool, value);
    }
    let args = format!("{},{}", load(root(&pool)), 150_000);
    let name = "a_peer_copies_a_list_into_a_pool_of_its_own";
    let status = in_peer(name, &sealed(&given), &args);
    assert!(status.success(), "{status}");
    pool.close().expect("close");
}
