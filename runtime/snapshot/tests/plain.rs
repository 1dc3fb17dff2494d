//! Commits of a process with one thread: the path that they take is their own (`runtime/plain.rs`), and no test harness with
//! threads of its own reaches it. A model of two files is compared with their home views after every commit, while a
//! signal handler stores to a third.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_abi as abi;
use vernal_snapshot::{recover_path, runtime, thread};
use vernal_sys::os;

/// A mapped file and what it should hold.
struct Model {
    path: PathBuf,
    base: u64,
    work: Vec<u8>,
    home: Vec<u8>,
}

impl Model {
    fn new(name: &str, len: usize) -> Model {
        let dir = PathBuf::from("/dev/shm");
        let dir = if dir.is_dir() {
            dir
        } else {
            std::env::temp_dir()
        };
        let path = dir.join(format!("vernal-plain-{}-{name}.img", std::process::id()));
        let base = runtime::map_file(&path, len as u64, true).unwrap();
        Model {
            path,
            base,
            work: vec![0; len],
            home: vec![0; len],
        }
    }

    /// What compiled code does: store, then mark.
    fn store(&mut self, at: usize, bytes: &[u8]) {
        self.work[at..at + bytes.len()].copy_from_slice(bytes);
        // SAFETY: inside the mapping, which nobody else uses.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                (self.base as usize + at) as *mut u8,
                bytes.len(),
            );
        }
        thread::mark_range(self.base + at as u64, bytes.len() as u64);
    }

    fn bytes(&self, distance: u64) -> &[u8] {
        // SAFETY: the mapping and its home view, both as long as the file.
        unsafe { std::slice::from_raw_parts((self.base + distance) as *const u8, self.work.len()) }
    }

    /// What a crash would leave now, recovered elsewhere: how long the file is.
    fn length_after_a_crash(&self) -> u64 {
        let stem = self.path.file_name().unwrap().to_str().unwrap();
        let from = self.path.parent().unwrap();
        let to = from.join(format!("{stem}-crash"));
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            let name = entry.file_name();
            if entry.path().is_file() && name.to_str().is_some_and(|n| n.starts_with(stem)) {
                std::fs::copy(entry.path(), to.join(&name)).unwrap();
            }
        }
        let copy = to.join(stem);
        recover_path(&copy).unwrap();
        let len = std::fs::metadata(&copy).unwrap().len();
        std::fs::remove_dir_all(&to).unwrap();
        len
    }

    fn committed(&mut self, what: &str) {
        self.home.copy_from_slice(&self.work);
        self.check(what);
    }

    fn check(&self, what: &str) {
        let (work, home) = (self.bytes(0), self.bytes(abi::HOME_DISTANCE));
        for (name, have, want) in [
            ("working copy", work, &self.work),
            ("home", home, &self.home),
        ] {
            if have != &want[..] {
                let at = have.iter().zip(want).position(|(a, b)| a != b);
                panic!("{what}: the {name} is wrong at byte {at:?}");
            }
        }
    }

    /// Unmaps without committing and maps again: what a crash would leave.
    fn reopen(&mut self) {
        runtime::unmap_file(self.base, true).unwrap();
        let base = runtime::map_file(&self.path, 0, false).unwrap();
        assert_eq!(base, self.base, "a file keeps its home address");
        self.work.copy_from_slice(&self.home);
        self.check("reopened");
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = runtime::unmap_file(self.base, true);
        let _ = std::fs::remove_file(&self.path);
    }
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn change(files: &mut [Model; 2], rng: &mut Rng) {
    let file = &mut files[rng.below(2)];
    let len = file.work.len();
    for _ in 0..1 + rng.below(6) {
        let count = match rng.below(10) {
            0..6 => 8,
            6..9 => 1 + rng.below(400),
            _ => 1 + rng.below(20_000),
        };
        let at = rng.below(len - count);
        let bytes: Vec<u8> = (0..count).map(|_| rng.next() as u8).collect();
        file.store(at, &bytes);
    }
}

fn random_commits(seed: u64) {
    println!("seed {seed:#x}");
    let mut rng = Rng(seed);
    // One ends inside a line; both are longer than the part of home that gets its blocks at once.
    let mut files = [Model::new("a", 300_007), Model::new("b", 512 << 10)];
    for step in 0..4000 {
        let what = format!("seed {seed:#x}, step {step}");
        change(&mut files, &mut rng);
        let before = runtime::stats();
        match rng.below(20) {
            0 => {
                let ticket = runtime::commit_async().unwrap();
                change(&mut files, &mut rng);
                runtime::commit().unwrap();
                runtime::wait(ticket).unwrap();
            }
            1..6 => {
                runtime::tx_begin().unwrap();
                change(&mut files, &mut rng);
                runtime::tx_commit().unwrap();
            }
            6 => {
                runtime::tx_begin().unwrap();
                change(&mut files, &mut rng);
                runtime::tx_abort().unwrap();
                for f in &mut files {
                    f.work.copy_from_slice(&f.home);
                    f.check(&what);
                }
                continue;
            }
            7 if step % 10 == 0 => {
                files.iter_mut().for_each(Model::reopen);
                continue;
            }
            _ => runtime::commit().unwrap(),
        }
        let after = runtime::stats();
        let commits = after.commits - before.commits;
        if after.checkpoints == before.checkpoints && commits == 1 {
            assert_eq!(
                after.flushes - before.flushes,
                1,
                "{what}: flushes of a commit"
            );
        }
        files.iter_mut().for_each(|f| f.committed(&what));
        runtime::commit().unwrap();
        assert_eq!(
            runtime::stats().commits,
            after.commits,
            "{what}: nothing was left to commit"
        );
    }
    files.iter_mut().for_each(Model::reopen);
    assert!(
        runtime::stats().checkpoints > 10,
        "the journal was full more than once"
    );
}

/// A new length waits for a commit, which is not a plain one.
fn a_length_that_changes() {
    let mut f = Model::new("length", 64 << 10);
    for step in 0..200usize {
        let len = ((step * 7919) % 61 + 3) * 1000;
        runtime::resize(f.base, len as u64).unwrap();
        f.work.resize(len, 0);
        f.home.resize(len, 0);
        f.store(step % 2000, &[step as u8; 100]);
        runtime::commit().unwrap();
        f.committed("a new length");
        assert_eq!(std::fs::metadata(&f.path).unwrap().len(), len as u64);
        if step % 20 < 2 {
            assert_eq!(f.length_after_a_crash(), len as u64, "step {step}");
        }
        f.store(step % 2000, &[!step as u8; 100]);
        runtime::commit().unwrap();
        f.committed("after a new length");
    }
    f.reopen();
}

/// More marks than a thread's list has slots for.
fn more_than_the_list_holds() {
    let mut f = Model::new("long", 16 << 20);
    for round in 1..3u8 {
        for at in (0..f.work.len()).step_by(128) {
            f.store(at, &[round; 8]);
        }
        runtime::commit().unwrap();
        f.committed("every other line of 16 MiB");
    }
    f.store(0, &vec![7; 16 << 20]);
    runtime::commit().unwrap();
    f.committed("16 MiB in one piece");
}

static SIGNALLED: AtomicU64 = AtomicU64::new(0);
static CELLS: AtomicU64 = AtomicU64::new(0);
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// Cells that the handler counts up, a line each. The program counts up the words beside them.
const CELL_COUNT: u64 = 16;

extern "C" fn on_signal(_: libc::c_int) {
    let n = SIGNALLED.fetch_add(1, Ordering::Relaxed);
    // Every other one to the line that the program is committing.
    let cell = match n % 2 {
        0 => CURRENT.load(Ordering::Relaxed),
        _ => n / 2 % CELL_COUNT,
    };
    let at = CELLS.load(Ordering::Relaxed) + cell * 64;
    // SAFETY: a word of the mapped file.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }.fetch_add(1, Ordering::Relaxed);
    thread::mark_range(at, 8);
}

/// A handler that stores in the middle of a commit: the next commit has it.
fn stores_of_a_signal_handler() {
    let f = Model::new("signals", 4096);
    CELLS.store(f.base, Ordering::SeqCst);
    // SAFETY: installs a handler that uses atomics and marks, which are made for signals; a timer of this process.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(
            libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()),
            0
        );
    }
    let timer = |microseconds| {
        let every = libc::timeval {
            tv_sec: 0,
            tv_usec: microseconds,
        };
        let timer = libc::itimerval {
            it_interval: every,
            it_value: every,
        };
        // SAFETY: both arguments are valid.
        let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        assert_eq!(set, 0);
    };
    let word = |i: u64, distance| {
        // SAFETY: a word of the mapped file or of its home view.
        unsafe { AtomicU64::from_ptr((f.base + distance + i * 64) as *mut u64) }
            .load(Ordering::Relaxed)
    };
    let block = |how| {
        // SAFETY: the set is initialised before it is used; the third argument may be NULL.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGALRM);
            assert_eq!(libc::sigprocmask(how, &set, std::ptr::null_mut()), 0);
        }
    };
    timer(50);
    for i in 0..100_000u64 {
        let cell = i % CELL_COUNT;
        let at = f.base + cell * 64 + 8;
        CURRENT.store(cell, Ordering::Relaxed);
        // SAFETY: a word of the mapped file.
        unsafe { AtomicU64::from_ptr(at as *mut u64) }.store(i, Ordering::Relaxed);
        thread::mark_range(at, 8);
        runtime::commit().unwrap();
        // What the handler has stored meanwhile is in this commit or marked for the next one: nothing else commits the line.
        block(libc::SIG_BLOCK);
        runtime::commit().unwrap();
        assert_eq!(
            word(cell, 0),
            word(cell, abi::HOME_DISTANCE),
            "the handler's store to cell {cell} is in no commit"
        );
        block(libc::SIG_UNBLOCK);
    }
    timer(0);
    // Whatever came before this line has marked its line, or a commit has it.
    runtime::commit().unwrap();
    let total: u64 = (0..CELL_COUNT).map(|i| word(i, 0)).sum();
    assert_eq!(
        total,
        SIGNALLED.load(Ordering::SeqCst),
        "every signal was counted"
    );
    for i in 0..CELL_COUNT {
        assert_eq!(
            word(i, 0),
            word(i, abi::HOME_DISTANCE),
            "cell {i} was not committed"
        );
    }
    assert!(total > 100, "{total} signals");
}

fn main() {
    // SAFETY: there is one thread. A small journal is recycled often.
    unsafe { std::env::set_var("VERNAL_JOURNAL_MIB", "1") };
    assert!(os::single_threaded());
    for seed in [0x9e37_79b9, 0x1234_5678_9abc] {
        random_commits(seed);
    }
    a_length_that_changes();
    more_than_the_list_holds();
    stores_of_a_signal_handler();
    assert!(os::single_threaded());
    println!("test result: ok");
}
