//! What seals of pages hold, and what writes through them: the rows of `docs/adr/0019-copies-not-seals.md`, each tried on this kernel.
//!
//! A row that changes is news: a seal that holds against a forked child would be worth building.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const MSEAL: libc::c_long = 462;

// From linux/userfaultfd.h.
const API: libc::c_ulong = 0xc018_aa3f;
const REGISTER: libc::c_ulong = 0xc020_aa00;
const WRITEPROTECT: libc::c_ulong = 0xc018_aa06;
const UFFD_API: u64 = 0xaa;
const FEATURE_WP_SHMEM: u64 = 1 << 12;
const MODE_WP: u64 = 2;
const USER_MODE_ONLY: libc::c_int = 1;

#[repr(C)]
struct Op<const N: usize>([u64; N]);

fn check(rc: libc::c_long) -> io::Result<libc::c_long> {
    if rc < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(rc)
    }
}

/// A segment as its owner has it: a memfd, mapped once, then sealed against further writable mappings.
struct Segment {
    file: OwnedFd,
    at: *mut u8,
    len: usize,
}

fn map(fd: RawFd, len: usize, prot: i32) -> io::Result<*mut u8> {
    // SAFETY: at a place of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(at.cast())
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn seals(fd: RawFd, seals: i32) -> io::Result<()> {
    // SAFETY: F_ADD_SEALS takes no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) }.into()).map(drop)
}

impl Segment {
    fn unsealed(len: usize) -> Segment {
        let flags = libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC;
        // SAFETY: the name is a C string; the descriptor is new and ours.
        let file = unsafe {
            let fd = check(libc::memfd_create(c"seals".as_ptr(), flags).into()).unwrap();
            OwnedFd::from_raw_fd(fd as RawFd)
        };
        // SAFETY: no pointers.
        check(unsafe { libc::ftruncate(file.as_raw_fd(), len as i64) }.into()).unwrap();
        let at = map(file.as_raw_fd(), len, RW).unwrap();
        // SAFETY: mapped just now, and nobody else knows of it.
        unsafe { std::ptr::write_bytes(at, 1, len) };
        Segment { file, at, len }
    }

    fn new(len: usize) -> Segment {
        let segment = Self::unsealed(len);
        let all = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE;
        seals(segment.file.as_raw_fd(), all | libc::F_SEAL_SEAL).unwrap();
        segment
    }

    fn first(&self) -> u8 {
        // SAFETY: mapped for as long as `self` lives; bytes of other threads and processes are read as such.
        unsafe { self.at.read_volatile() }
    }

    /// Stores a byte in a forked child; whether it got there within a second.
    fn store_in_child(&self, child: &Child, value: u8) -> bool {
        child.store(self.at, value);
        let until = Instant::now() + Duration::from_secs(1);
        while self.first() != value && Instant::now() < until {
            std::thread::yield_now();
        }
        self.first() == value
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by `unsealed`; a sealed mapping stays until the process ends, which is no harm.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// A child of this process that stores one byte when told where.
struct Child {
    pid: libc::pid_t,
    to: OwnedFd,
}

impl Child {
    fn fork() -> Child {
        let mut pipe = [0; 2];
        // SAFETY: `pipe` has room for two descriptors, which are ours then.
        let [from, to] = unsafe {
            check(libc::pipe(pipe.as_mut_ptr()).into()).unwrap();
            pipe.map(|fd| OwnedFd::from_raw_fd(fd))
        };
        // SAFETY: the child calls nothing but read and _exit, which are safe after a fork of a process with threads.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let mut order = [0u64; 2];
            // SAFETY: `order` is writable for 16 bytes; the parent sends the address of a byte that was mapped at the fork.
            unsafe {
                if libc::read(from.as_raw_fd(), order.as_mut_ptr().cast(), 16) == 16 {
                    (order[0] as *mut u8).write_volatile(order[1] as u8);
                }
                libc::_exit(0);
            }
        }
        check(pid.into()).unwrap();
        Child { pid, to }
    }

    fn store(&self, at: *mut u8, value: u8) {
        let order = [at as u64, u64::from(value)];
        // SAFETY: `order` is readable for 16 bytes.
        let sent = unsafe { libc::write(self.to.as_raw_fd(), order.as_ptr().cast(), 16) };
        assert_eq!(sent, 16);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: a child of ours that nobody else waits for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// A userfaultfd that write-protects a segment; puddled would hold the descriptor.
struct Protection(OwnedFd);

impl Protection {
    /// Nothing where the kernel has no such thing for shared memory (before 5.19), or forbids it.
    fn of(segment: &Segment) -> Option<Protection> {
        // SAFETY: no pointers; the descriptor is new and ours.
        let uffd = unsafe {
            let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY;
            let fd = check(libc::syscall(libc::SYS_userfaultfd, flags)).ok()?;
            Protection(OwnedFd::from_raw_fd(fd as RawFd))
        };
        uffd.ioctl(API, &mut Op([UFFD_API, FEATURE_WP_SHMEM, 0]))
            .ok()?;
        let range = [segment.at as u64, segment.len as u64];
        uffd.ioctl(REGISTER, &mut Op([range[0], range[1], MODE_WP, 0]))
            .ok()?;
        Some(uffd)
    }

    fn ioctl<const N: usize>(&self, what: libc::c_ulong, op: &mut Op<N>) -> io::Result<()> {
        // SAFETY: `op` has the size that `what` says in its bits.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), what, std::ptr::from_mut(op)) }.into())
            .map(drop)
    }

    fn protect(&self, segment: &Segment, pages: usize, on: bool) {
        let range = [segment.at as u64, (pages * PAGE) as u64];
        self.ioctl(WRITEPROTECT, &mut Op([range[0], range[1], u64::from(on)]))
            .unwrap();
    }
}

fn protected() -> Option<(Segment, Protection)> {
    let segment = Segment::new(2 << 20);
    let Some(protection) = Protection::of(&segment) else {
        eprintln!("SKIPPED: this kernel write-protects no shared memory through userfaultfd");
        return None;
    };
    protection.protect(&segment, 1, true);
    Some((segment, protection))
}

#[test]
fn stores_wait_until_the_protection_is_lifted() {
    let Some((segment, protection)) = protected() else {
        return;
    };
    let at = segment.at as usize;
    // SAFETY: the segment outlives the thread, which is joined below.
    let thread = std::thread::spawn(move || unsafe { (at as *mut u8).write_volatile(7) });
    // It cannot have stored: there is nothing to wait for but time, and time proves nothing. What is seen is that it has not ended.
    for _ in 0..1000 {
        std::thread::yield_now();
        assert_eq!(segment.first(), 1);
    }
    assert!(!thread.is_finished());
    protection.protect(&segment, 1, false);
    thread.join().unwrap();
    assert_eq!(segment.first(), 7);
}

#[test]
fn system_calls_do_not_write_into_a_protected_page() {
    let Some((segment, _protection)) = protected() else {
        return;
    };
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    // SAFETY: the kernel is asked to write 16 bytes into the segment.
    let read = unsafe { libc::read(zeros.as_raw_fd(), segment.at.cast::<c_void>(), 16) };
    assert!(read < 0, "{read}");
    use std::os::unix::fs::FileExt;
    if let Ok(memory) = std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")
    {
        assert!(memory.write_at(&[9; 16], segment.at as u64).is_err());
    }
    assert_eq!(segment.first(), 1);
}

#[test]
fn a_sealed_mapping_stays_as_it_is() {
    let segment = Segment::new(2 << 20);
    // SAFETY: changes what may be done with the mapping, nothing else.
    if unsafe { libc::syscall(MSEAL, segment.at, segment.len, 0) } != 0 {
        eprintln!("SKIPPED: this kernel has no mseal");
        return;
    }
    // SAFETY: each call would change or move the mapping, and is refused; it is looked at afterwards.
    unsafe {
        assert_ne!(libc::mprotect(segment.at.cast(), PAGE, libc::PROT_READ), 0);
        assert_ne!(libc::munmap(segment.at.cast(), PAGE), 0);
        let moved = libc::mremap(segment.at.cast(), PAGE, PAGE, libc::MREMAP_MAYMOVE);
        assert!(moved == libc::MAP_FAILED || moved == segment.at.cast());
        let doubled = libc::mremap(segment.at.cast(), 0, PAGE, libc::MREMAP_MAYMOVE);
        assert_eq!(doubled, libc::MAP_FAILED);
        // This one is not: a child can be given the mapping again.
        assert_eq!(
            libc::madvise(segment.at.cast(), segment.len, libc::MADV_DOFORK),
            0
        );
    }
    assert_eq!(segment.first(), 1);
}

#[test]
fn a_child_writes_through_a_userfaultfd_that_others_hold() {
    let Some((segment, protection)) = protected() else {
        return;
    };
    let after = Child::fork();
    assert!(segment.store_in_child(&after, 42), "a child forked later");
    protection.protect(&segment, 1, false);
    let before = Child::fork();
    protection.protect(&segment, 1, true);
    assert!(segment.store_in_child(&before, 43), "a child forked before");
}

#[test]
fn a_kept_descriptor_lifts_the_protection() {
    let Some((segment, protection)) = protected() else {
        return;
    };
    let kept = Protection(protection.0.try_clone().unwrap());
    kept.protect(&segment, 1, false);
    // SAFETY: mapped and writable.
    unsafe { segment.at.write_volatile(44) };
    assert_eq!(segment.first(), 44);
}

#[test]
fn an_earlier_mapping_writes_through() {
    let segment = Segment::unsealed(2 << 20);
    let second = map(segment.file.as_raw_fd(), PAGE, RW).unwrap();
    seals(segment.file.as_raw_fd(), libc::F_SEAL_FUTURE_WRITE).unwrap();
    let Some(protection) = Protection::of(&segment) else {
        return;
    };
    protection.protect(&segment, 1, true);
    // SAFETY: mapped just above.
    unsafe { second.write_volatile(45) };
    assert_eq!(segment.first(), 45);
    assert!(map(segment.file.as_raw_fd(), PAGE, RW).is_err());
}

#[test]
fn the_write_seal_of_a_memfd_waits_for_nobody_and_holds() {
    let segment = Segment::unsealed(2 << 20);
    let fd = segment.file.as_raw_fd();
    let child = Child::fork();
    assert!(seals(fd, libc::F_SEAL_WRITE).is_err(), "its own mapping");
    // SAFETY: mapped by `unsealed`; not touched before it is mapped again below.
    unsafe { libc::munmap(segment.at.cast(), segment.len) };
    assert!(seals(fd, libc::F_SEAL_WRITE).is_err(), "that of the child");
    drop(child);
    seals(fd, libc::F_SEAL_WRITE | libc::F_SEAL_SEAL).unwrap();
    assert!(map(fd, PAGE, RW).is_err());
    let at = map(fd, segment.len, libc::PROT_READ).unwrap();
    // SAFETY: mapped just above, read-only.
    unsafe {
        assert_eq!(at.read_volatile(), 1);
        assert_ne!(libc::mprotect(at.cast(), PAGE, RW), 0);
        libc::munmap(at.cast(), segment.len);
    }
    std::mem::forget(segment);
}

fn times(mut round: impl FnMut() -> Duration) -> String {
    let mut all: Vec<u128> = (0..200).map(|_| round().as_nanos()).collect();
    all.sort_unstable();
    let micros = |ns: u128| ns as f64 / 1000.0;
    format!(
        "{:.1} / {:.1} µs",
        micros(all[0]),
        micros(all[all.len() / 2])
    )
}

fn timed(f: impl FnOnce()) -> Duration {
    let began = Instant::now();
    f();
    began.elapsed()
}

#[test]
#[ignore = "prints times, checks nothing"]
fn costs() {
    for pages in [1, 100, 1024] {
        let segment = Segment::new(1024 * PAGE);
        if let Some(p) = Protection::of(&segment) {
            let touch = || {
                for page in 0..pages {
                    // SAFETY: mapped, writable, and not protected here.
                    unsafe { segment.at.add(page * PAGE).write_volatile(2) };
                }
            };
            let protect = times(|| {
                touch();
                let took = timed(|| p.protect(&segment, pages, true));
                p.protect(&segment, pages, false);
                took
            });
            let lift = times(|| {
                touch();
                p.protect(&segment, pages, true);
                timed(|| p.protect(&segment, pages, false))
            });
            println!("{pages} pages: protect {protect}, lift {lift}");
        }
        let mut copy = vec![0u8; pages * PAGE];
        let copied = times(|| {
            // SAFETY: both are that long, and do not overlap.
            timed(|| unsafe {
                std::ptr::copy_nonoverlapping(segment.at, copy.as_mut_ptr(), copy.len());
            })
        });
        let mut fill = Vec::new();
        let freeze = times(|| {
            let mut made = None;
            fill.push(timed(|| made = Some(Segment::unsealed(pages * PAGE))));
            let segment = made.expect("made just now");
            let fd = segment.file.as_raw_fd();
            timed(|| {
                // SAFETY: mapped by `unsealed`, and mapped anew below; its drop unmaps that.
                unsafe { libc::munmap(segment.at.cast(), segment.len) };
                seals(fd, libc::F_SEAL_WRITE | libc::F_SEAL_SEAL).unwrap();
                let at = map(fd, segment.len, libc::PROT_READ).unwrap();
                // SAFETY: mapped just now.
                unsafe { libc::munmap(at.cast(), segment.len) };
            })
        });
        fill.sort_unstable();
        println!(
            "{pages} pages: copy {copied}, freeze {freeze}, first touch {:?}",
            fill[fill.len() / 2]
        );
    }
}
