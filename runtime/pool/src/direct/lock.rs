//! The lock of a direct pool's allocator, shared by the processes that have the pool open.
//!
//! Allocator words are undo-logged like all others, so two transactions must not change the same one at a time: an abort of one
//! would take back what the other did. So a transaction that allocates or frees holds this lock to its end.
//!
//! * [`AllocLock`], of an embedded pool: a robust mutex in a small file beside the root puddle. When its owner dies, the next
//!   one recovers what the owner left, and goes on.
//! * [`ServedLock`], of a pool of puddled: one word in a page that puddled hands out. When its owner dies, puddled recovers what
//!   it left, and then frees the word. The processes that share it may belong to different users, so the page holds no
//!   pointers, as a robust mutex of the C library does: whoever writes nonsense into it can make others wait, and no more.

use std::cell::UnsafeCell;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vernal_sys::mem::{self, PAGE_SIZE};
use vernal_sys::{create_like, futex, os};

use crate::Error;

/// How long a transaction waits for another one that allocates in the same pool: longer means that the two wait for each other.
const PATIENCE_SECONDS: libc::time_t = 10;

/// What a transaction asks of the lock.
pub trait PoolLock: Send + Sync + std::fmt::Debug {
    /// Takes the lock. `true` when what this process remembers of the heap is out of date.
    fn lock(&self) -> Result<bool, Error>;
    /// Gives it back; called by the thread that took it.
    fn unlock(&self);
    /// An abort has set the heap back: the next owner's process reads it again.
    fn heap_was_restored(&self);
    /// Whether no other process had the pool open when this one opened it.
    fn was_alone(&self) -> bool;
}

/// What lies in the file. It means nothing once no process has it open: the first one makes it anew.
#[repr(C)]
struct Shared {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// Which process had the lock last: what others remember of the heap is out of date.
    last: AtomicU64,
    /// And its number.
    pid: AtomicI32,
}

/// What to do when the owner of the lock died: recover its logs.
pub type OwnerDied = Box<dyn Fn() -> Result<(), Error> + Send + Sync>;

/// The lock.
pub struct AllocLock {
    shared: *mut Shared,
    path: PathBuf,
    /// This process, and its number.
    id: u64,
    pid: i32,
    /// The heap was rolled back by an abort.
    restored: AtomicBool,
    owner_died: OwnerDied,
    alone: bool,
    /// Kept open for its shared lock: as long as anybody has it, nobody makes the mutex anew.
    _file: File,
}

// SAFETY: the mutex synchronises itself, the rest is atomics; the mapping lives as long as the value.
unsafe impl Send for AllocLock {}
// SAFETY: as above.
unsafe impl Sync for AllocLock {}

impl std::fmt::Debug for AllocLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AllocLock")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn flock(file: &File, how: libc::c_int) -> io::Result<bool> {
    loop {
        // SAFETY: flock takes no pointers.
        if unsafe { libc::flock(file.as_raw_fd(), how) } == 0 {
            return Ok(true);
        }
        let e = io::Error::last_os_error();
        match e.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EWOULDBLOCK) => return Ok(false),
            _ => return Err(e),
        }
    }
}

impl AllocLock {
    /// The lock of the pool in `dir`. The first process to open it makes it.
    pub fn open(dir: &Path, owner_died: OwnerDied) -> Result<Arc<AllocLock>, Error> {
        let path = dir.join("root.puddle.vernal-alloc");
        let fail = |what| {
            let path = path.clone();
            move |e| Error::io(path, what, e)
        };
        let open = || fs::OpenOptions::new().read(true).write(true).open(&path);
        let file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let like = fs::metadata(dir.join("root.puddle")).or_else(|_| fs::metadata(dir));
                match create_like(&path, &like.map_err(fail("reading whose it is"))?) {
                    // Another process was faster.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open(),
                    other => other,
                }
            }
            other => other,
        };
        let file = file.map_err(fail("opening"))?;
        let alone = flock(&file, libc::LOCK_EX | libc::LOCK_NB).map_err(fail("locking"))?;
        if alone {
            file.set_len(PAGE_SIZE)
                .map_err(fail("setting its length"))?;
        }
        if !alone {
            // Waits for one who is making it.
            flock(&file, libc::LOCK_SH).map_err(fail("locking"))?;
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address that the kernel picks; the file is a page long.
        let at = unsafe { mem::mmap(0, PAGE_SIZE, prot, libc::MAP_SHARED, file.as_raw_fd(), 0) }
            .map_err(fail("mapping"))?;
        let shared = at as *mut Shared;
        if alone {
            // SAFETY: no other process has the file open under a lock, so the page is ours alone until the lock is shared.
            unsafe { initialise(shared) }.map_err(fail("making the mutex"))?;
            flock(&file, libc::LOCK_SH).map_err(fail("locking"))?;
        }
        let id = os::random_uuid().map_err(fail("making an identity"))?;
        let (id, _) = id.split_at(8);
        Ok(Arc::new(AllocLock {
            shared,
            path,
            id: id.try_into().map_or(1, u64::from_le_bytes) | 1,
            pid: std::process::id() as i32,
            restored: AtomicBool::new(false),
            owner_died,
            alone,
            _file: file,
        }))
    }

    fn shared(&self) -> &Shared {
        // SAFETY: mapped and initialised as long as `self` lives.
        unsafe { &*self.shared }
    }

    /// A process that dies gives its mutexes up before the locks on its files, which say whether its logs may be recovered.
    fn wait_for_its_end(&self) -> Result<(), Error> {
        let pid = self.shared().pid.load(Ordering::Relaxed);
        // SAFETY: pidfd_open takes no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if pid == self.pid || fd < 0 {
            // It is gone.
            return Ok(());
        }
        // SAFETY: the descriptor was made above and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one structure, writable.
        match unsafe { libc::poll(&mut poll, 1, PATIENCE_SECONDS as libc::c_int * 1000) } {
            1 => Ok(()),
            _ => Err(Error::invalid(format!(
                "{}: process {pid} died with the allocator's lock, and does not end: open the pool again when it has",
                self.path.display()
            ))),
        }
    }

    /// Takes the lock and gives it back, as a check of the pool does: what a dead owner has left is recovered. `true` when
    /// what this process remembers of the heap is out of date.
    pub fn lock_for_check(&self) -> Result<bool, Error> {
        let stale = self.lock()?;
        self.unlock();
        Ok(stale)
    }
}

impl PoolLock for AllocLock {
    fn lock(&self) -> Result<bool, Error> {
        let mutex = self.shared().mutex.get();
        // SAFETY: an initialised, process-shared mutex.
        let mut done = unsafe { libc::pthread_mutex_trylock(mutex) };
        if done == libc::EBUSY {
            let mut until = MaybeUninit::<libc::timespec>::uninit();
            // SAFETY: `until` is writable, and written before it is read.
            let until = unsafe {
                libc::clock_gettime(libc::CLOCK_REALTIME, until.as_mut_ptr());
                let mut until = until.assume_init();
                until.tv_sec += PATIENCE_SECONDS;
                until
            };
            // SAFETY: as above.
            done = unsafe { libc::pthread_mutex_timedlock(mutex, &until) };
        }
        match done {
            0 => {}
            libc::EOWNERDEAD => {
                if let Err(e) = self.wait_for_its_end().and_then(|()| (self.owner_died)()) {
                    // Not consistent: the next owner gets the same, and nobody allocates in a heap that is half changed.
                    // SAFETY: held by this thread.
                    unsafe { libc::pthread_mutex_unlock(mutex) };
                    return Err(e);
                }
                // SAFETY: held by this thread, after its owner died.
                unsafe { libc::pthread_mutex_consistent(mutex) };
                self.shared().last.store(0, Ordering::Relaxed);
            }
            libc::ETIMEDOUT => return Err(Error::Conflict),
            other => {
                return Err(Error::io(
                    &self.path,
                    "locking the allocator (open the pool again)",
                    io::Error::from_raw_os_error(other),
                ));
            }
        }
        let shared = self.shared();
        let last = shared.last.swap(self.id, Ordering::Relaxed);
        shared.pid.store(self.pid, Ordering::Relaxed);
        let restored = self.restored.swap(false, Ordering::Relaxed);
        Ok(last != self.id || restored)
    }

    fn unlock(&self) {
        // SAFETY: called by the thread that holds the lock, once.
        unsafe { libc::pthread_mutex_unlock(self.shared().mutex.get()) };
    }

    fn heap_was_restored(&self) {
        self.restored.store(true, Ordering::Relaxed);
    }

    fn was_alone(&self) -> bool {
        self.alone
    }
}

impl Drop for AllocLock {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing refers to it any more.
        let _ = unsafe { mem::munmap(self.shared as u64, PAGE_SIZE) };
    }
}

/// Makes the mutex.
///
/// # Safety
///
/// `shared` is a writable page that nobody else uses.
unsafe fn initialise(shared: *mut Shared) -> io::Result<()> {
    let cvt = |done| match done {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(e)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: attributes are initialised first; the mutex lies in the caller's page.
    unsafe {
        cvt(libc::pthread_mutexattr_init(attributes))?;
        cvt(libc::pthread_mutexattr_setpshared(
            attributes,
            libc::PTHREAD_PROCESS_SHARED,
        ))?;
        cvt(libc::pthread_mutexattr_setrobust(
            attributes,
            libc::PTHREAD_MUTEX_ROBUST,
        ))?;
        shared.write_bytes(0, 1);
        cvt(libc::pthread_mutex_init((*shared).mutex.get(), attributes))?;
        cvt(libc::pthread_mutexattr_destroy(attributes))
    }
}

/// What lies in the page of a [`ServedLock`].
#[repr(C)]
struct Page {
    /// [`FREE`], or the token of who has the lock, with [`WAITED_FOR`] when others may sleep on it.
    word: AtomicU32,
    _reserved: u32,
    /// The token of the process that had the lock last; 0 after puddled has recovered one that died.
    last: AtomicU64,
}

const FREE: u32 = 0;
const WAITED_FOR: u32 = 1 << 31;

/// The lock of a pool that puddled serves.
pub struct ServedLock {
    page: *mut Page,
    pool: String,
    token: u32,
    restored: AtomicBool,
}

// SAFETY: everything in the page is atomic; the mapping lives as long as the value.
unsafe impl Send for ServedLock {}
// SAFETY: as above.
unsafe impl Sync for ServedLock {}

impl std::fmt::Debug for ServedLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "allocator of pool {}", self.pool)
    }
}

impl ServedLock {
    /// The lock in the page that puddled gave for `pool`, with the token by which puddled knows this process.
    pub fn new(page: &File, token: u32, pool: &str) -> Result<ServedLock, Error> {
        let fail = |what| move |e| Error::io(pool, what, e);
        let len = page
            .metadata()
            .map_err(fail("reading its allocator's page"))?
            .len();
        if len < PAGE_SIZE || token == FREE || token & WAITED_FOR != 0 {
            return Err(Error::invalid(format!(
                "puddled gave an allocator's page of {len} bytes and the token {token:#x} for pool {pool}, which cannot be: update \
                 the older of the two"
            )));
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address that the kernel picks; the file is a page long, and sealed at that by puddled.
        let at = unsafe { mem::mmap(0, PAGE_SIZE, prot, libc::MAP_SHARED, page.as_raw_fd(), 0) }
            .map_err(fail("mapping its allocator's page"))?;
        Ok(ServedLock {
            page: at as *mut Page,
            pool: pool.to_owned(),
            token,
            restored: AtomicBool::new(false),
        })
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped as long as `self` lives; any content is a valid `Page`.
        unsafe { &*self.page }
    }

    #[cold]
    fn wait(&self) -> Result<(), Error> {
        let word = &self.page().word;
        let patience = Duration::from_secs(PATIENCE_SECONDS as u64);
        let began = Instant::now();
        loop {
            // Whoever comes through here cannot know whether others sleep, too: its own unlock wakes them.
            let ours = self.token | WAITED_FOR;
            let Err(now) = word.compare_exchange(FREE, ours, Ordering::Acquire, Ordering::Relaxed)
            else {
                return Ok(());
            };
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(Error::Conflict);
            }
            let waited = now | WAITED_FOR;
            let marked = now & WAITED_FOR != 0
                || word
                    .compare_exchange(now, waited, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            if marked {
                futex::wait(word, waited, left)
                    .map_err(|e| Error::io(&self.pool, "waiting for its allocator", e))?;
            }
        }
    }
}

impl PoolLock for ServedLock {
    fn lock(&self) -> Result<bool, Error> {
        let page = self.page();
        if page
            .word
            .compare_exchange(FREE, self.token, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.wait()?;
        }
        let last = page.last.swap(self.token.into(), Ordering::Relaxed);
        let restored = self.restored.swap(false, Ordering::Relaxed);
        Ok(last != u64::from(self.token) || restored)
    }

    fn unlock(&self) {
        let word = &self.page().word;
        if word.swap(FREE, Ordering::Release) & WAITED_FOR != 0 {
            futex::wake(word, 1);
        }
    }

    fn heap_was_restored(&self) {
        self.restored.store(true, Ordering::Relaxed);
    }

    fn was_alone(&self) -> bool {
        // puddled sweeps what no commit has named; a program never does.
        false
    }
}

impl Drop for ServedLock {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing refers to it any more.
        let _ = unsafe { mem::munmap(self.page as u64, PAGE_SIZE) };
    }
}
