//! Direct pools with real files and real processes: killed inside transactions, recovered by others.
//!
//! Logs belong to a process, so each life runs in a process of its own: this binary again, with the life's name in the
//! environment.

use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vernal_journal::direct::LogOutcome;
use vernal_pool::Error;
use vernal_pool::direct::space::{DirectMapping, PoolNumber};
use vernal_pool::direct::{
    AllocLock, DirLogs, DirectMemory, PuddleFile, RecoveredSpace, recover_dead, space, tx,
};

const SIZE: u64 = 2 << 20;
const LIFE: &str = "VERNAL_TEST_LIFE";
const DIR: &str = "VERNAL_TEST_DIR";
/// Words that every transaction of a life changes together.
const WORDS: u64 = 16;

/// A directory on memory that stands in for a device; removed when the test ends.
fn temp() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("vernal-direct-")
        .tempdir_in("/dev/shm")
        .unwrap()
}

fn make_pool(dir: &Path, addr: u64) {
    fs::create_dir_all(dir).unwrap();
    let file = File::create_new(dir.join("root.puddle")).unwrap();
    file.set_len(SIZE).unwrap();
    fs::write(dir.join("home"), addr.to_string()).unwrap();
}

/// What pools keep in their metadata.
fn puddles_of(dir: &Path) -> Result<Vec<PuddleFile>, Error> {
    let home = fs::read_to_string(dir.join("home")).unwrap();
    Ok(vec![PuddleFile {
        addr: home.parse().unwrap(),
        size: SIZE,
        path: dir.join("root.puddle"),
    }])
}

fn recover(dir: &Path) -> Result<Vec<RecoveredSpace>, Error> {
    recover_dead(dir, &puddles_of)
}

fn word(dir: &Path, i: u64) -> u64 {
    let mut bytes = [0; 8];
    let file = File::open(dir.join("root.puddle")).unwrap();
    file.read_exact_at(&mut bytes, i * 72).unwrap();
    u64::from_le_bytes(bytes)
}

/// The value that all words have.
fn agreed(dir: &Path) -> u64 {
    let first = word(dir, 0);
    for i in 1..WORDS {
        assert_eq!(word(dir, i), first, "word {i} differs: a torn transaction");
    }
    first
}

fn names(dir: &Path, part: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().contains(part))
        })
        .collect()
}

/// Starts a life.
fn live(life: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life", "--nocapture", "--test-threads=1"])
        .env(LIFE, life)
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a life that ends by itself.
fn live_out(life: &str, dir: &Path) -> ExitStatus {
    let mut child = live(life, dir);
    drop(child.stdin.take());
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        said += &line.unwrap();
        said += "\n";
    }
    let status = child.wait().unwrap();
    assert!(status.code() != Some(101), "the life panicked:\n{said}");
    status
}

fn killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(libc::SIGKILL)
}

// What follows until `life` runs in a process of its own.

struct Pool {
    addr: u64,
    _mapping: DirectMapping,
    number: PoolNumber,
}

impl Pool {
    fn open(dir: &Path) -> Pool {
        let puddle = puddles_of(dir).unwrap().remove(0);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&puddle.path)
            .unwrap();
        let number = PoolNumber::take().unwrap();
        let mapping = DirectMapping::new(&file, "root.puddle", puddle.addr, SIZE, number).unwrap();
        Pool {
            addr: puddle.addr,
            _mapping: mapping,
            number,
        }
    }

    fn place(&self, i: u64) -> u64 {
        self.addr + i * 72
    }

    fn store(&self, i: u64, value: u64) {
        // SAFETY: inside the mapping, aligned.
        unsafe { (self.place(i) as *mut u64).write_volatile(value) };
    }

    fn load(&self, i: u64) -> u64 {
        // SAFETY: as above.
        unsafe { (self.place(i) as *const u64).read_volatile() }
    }

    fn set(&self, i: u64, value: u64) {
        tx::undo(self.place(i), 8).unwrap();
        self.store(i, value);
    }
}

fn die() -> ! {
    // SAFETY: ends this very process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("SIGKILL does not return")
}

fn logs(dir: &Path) -> Arc<DirLogs> {
    let logs = Arc::new(DirLogs::create(dir).unwrap());
    tx::attach(logs.clone());
    logs
}

/// Changes all words together, in a style that depends on the round.
fn round(pool: &Pool, n: u64) {
    tx::begin().unwrap();
    for i in 0..WORDS {
        match n % 3 {
            0 => pool.set(i, n),
            1 => tx::redo(pool.place(i), &n.to_le_bytes()).unwrap(),
            _ if i % 2 == 0 => pool.set(i, n),
            _ => tx::redo(pool.place(i), &n.to_le_bytes()).unwrap(),
        }
    }
    tx::commit().unwrap();
}

#[test]
fn life() {
    let (Some(life), Some(dir)) = (std::env::var_os(LIFE), std::env::var_os(DIR)) else {
        return;
    };
    let dir = PathBuf::from(dir);
    match life.to_str().unwrap() {
        "undo" => {
            let (pool, _logs) = (Pool::open(&dir), logs(&dir));
            for n in 1..=5 {
                round(&pool, n);
            }
            tx::begin().unwrap();
            for i in 0..WORDS / 2 {
                pool.set(i, 999);
            }
            die()
        }
        "endless" => {
            let (pool, _logs) = (Pool::open(&dir), logs(&dir));
            let mut out = std::io::stdout().lock();
            for n in pool.load(0) + 1.. {
                round(&pool, n);
                writeln!(out, "done {n}").unwrap();
            }
        }
        "large" => {
            let (pool, _logs) = (Pool::open(&dir), logs(&dir));
            tx::begin().unwrap();
            for i in 0..SIZE / 72 {
                pool.set(i, 999);
            }
            die()
        }
        "two-pools" => {
            let (a, b) = (dir.join("a"), dir.join("b"));
            let logs = logs(&a);
            logs.add_pool(&b).unwrap();
            let (a, b) = (Pool::open(&a), Pool::open(&b));
            for n in 1..=4 {
                tx::begin().unwrap();
                for i in 0..WORDS {
                    a.set(i, n);
                    b.set(i, n);
                }
                if n == 4 {
                    die()
                }
                tx::commit().unwrap();
            }
        }
        "allocating" => {
            let (pool, _logs) = (Pool::open(&dir), logs(&dir));
            let memory = DirectMemory::new(pool.number, lock(&dir));
            round(&pool, 3);
            tx::begin().unwrap();
            assert!(memory.enter().unwrap(), "nobody had it before");
            assert!(!memory.enter().unwrap(), "held");
            pool.set(0, 999);
            println!("locked");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            die()
        }
        "thread-ends" => threads(&dir),
        "aborts" => aborts(&dir),
        "forks" => forks(&dir),
        other => panic!("no life is called {other}"),
    }
}

fn lock(dir: &Path) -> Arc<AllocLock> {
    let at = dir.to_owned();
    let owner_died = move || recover(&at).map(drop);
    AllocLock::open(dir, Box::new(owner_died)).unwrap()
}

/// Threads that end leave their logs to others, and their open transactions are rolled back.
fn threads(dir: &Path) {
    let (pool, logs) = (Pool::open(dir), logs(dir));
    let pool = Arc::new(pool);
    for n in 1..20 {
        let shared = pool.clone();
        std::thread::spawn(move || {
            round(&shared, n);
            tx::begin().unwrap();
            shared.set(3, 999);
            tx::begin().unwrap();
            shared.set(4, 999);
        })
        .join()
        .unwrap();
        assert_eq!((pool.load(3), pool.load(4)), (n, n));
    }
    assert_eq!(names(dir, "vernal-log-").len(), 1);
    let all: Vec<_> = (0..8)
        .map(|t| {
            let pool = pool.clone();
            std::thread::spawn(move || {
                for n in 1..500 {
                    tx::begin().unwrap();
                    pool.set(100 + 2 * t, n);
                    pool.set(101 + 2 * t, n);
                    if n % 7 == 0 {
                        tx::abort().unwrap();
                        assert_eq!(pool.load(100 + 2 * t), n - 1);
                    } else {
                        tx::commit().unwrap();
                    }
                }
            })
        })
        .collect();
    all.into_iter().for_each(|t| t.join().unwrap());
    tx::detach();
    let path = logs.path().to_owned();
    logs.close().unwrap();
    assert!(!path.exists() && names(dir, "vernal-log").is_empty());
}

static CALLED: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" fn note(digit: *mut c_void) {
    let digit = digit as u64;
    CALLED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            Some(n * 10 + digit)
        })
        .unwrap();
}

fn aborts(dir: &Path) {
    let (pool, _logs) = (Pool::open(dir), logs(dir));
    let call = |digit: usize| {
        // SAFETY: `note` takes any argument.
        unsafe { tx::on_abort(note, digit as *mut c_void) }
    };
    assert!(call(1).is_err(), "no transaction");
    assert!(tx::undo(pool.place(0), 8).is_err(), "no transaction");
    assert!(tx::commit().is_err() && tx::abort().is_err());
    let mut counter = 5u32;
    tx::begin().unwrap();
    pool.set(0, 1);
    call(1).unwrap();
    // SAFETY: the counter outlives the transaction.
    unsafe { tx::volatile((&raw mut counter).cast(), 4) }.unwrap();
    counter += 1;
    tx::begin().unwrap();
    call(2).unwrap();
    pool.set(1, 1);
    assert_eq!(tx::depth(), 2);
    assert!(
        tx::undo(0x1000, 8)
            .unwrap_err()
            .to_string()
            .contains("no open direct pool")
    );
    assert!(tx::undo(pool.addr + SIZE - 4, 8).is_err());
    tx::abort().unwrap();
    assert_eq!(
        (pool.load(0), pool.load(1), CALLED.load(Ordering::Relaxed)),
        (0, 0, 21)
    );
    // SAFETY: the abort has written it behind the compiler's back.
    assert_eq!(unsafe { (&raw const counter).read_volatile() }, 5);
    assert!(tx::is_aborted());
    assert!(matches!(tx::undo(pool.place(0), 8), Err(Error::Aborted)));
    assert!(matches!(tx::commit(), Err(Error::Aborted)));
    assert_eq!(tx::depth(), 0);
    round(&pool, 3);
    assert_eq!(CALLED.load(Ordering::Relaxed), 21, "a commit calls nothing");
    let e = space::pick(1 << 50).unwrap_err().to_string();
    assert!(e.contains("no room"), "{e}");
}

fn forks(dir: &Path) {
    let (pool, _logs) = (Pool::open(dir), logs(dir));
    round(&pool, 3);
    // SAFETY: the child only begins a transaction, which fails, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = tx::begin().is_err_and(|e| e.to_string().contains("forked"));
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(if refused { 0 } else { 1 }) };
    }
    let mut status = -1;
    // SAFETY: `status` is writable, the child is ours.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    round(&pool, 4);
}

// The tests.

fn outcomes(spaces: &[RecoveredSpace]) -> Vec<&LogOutcome> {
    spaces
        .iter()
        .flat_map(|s| &s.logs)
        .map(|l| &l.outcome)
        .collect()
}

fn pool() -> (tempfile::TempDir, PathBuf) {
    let temp = temp();
    let dir = temp.path().to_owned();
    make_pool(&dir, space::pick(SIZE).unwrap());
    (temp, dir)
}

#[test]
fn a_killed_transaction_is_undone_and_its_logs_are_gone() {
    let (_temp, dir) = pool();
    assert!(killed(live_out("undo", &dir)));
    assert_eq!(word(&dir, 0), 999, "killed in the middle");
    let spaces = recover(&dir).unwrap();
    assert!(
        matches!(outcomes(&spaces)[..], [LogOutcome::Undone { entries: 8 }]),
        "{spaces:?}"
    );
    assert_eq!(agreed(&dir), 5);
    assert!(names(&dir, "vernal-log").is_empty());
    assert!(recover(&dir).unwrap().is_empty());
}

#[test]
fn a_transaction_of_several_log_files_is_undone() {
    let (_temp, dir) = pool();
    assert!(killed(live_out("large", &dir)));
    assert!(names(&dir, "vernal-log-").len() > 2);
    let spaces = recover(&dir).unwrap();
    assert!(matches!(outcomes(&spaces)[..], [LogOutcome::Undone { .. }]));
    let all = fs::read(dir.join("root.puddle")).unwrap();
    assert!(all.iter().all(|b| *b == 0));
    assert!(names(&dir, "vernal-log").is_empty());
}

#[test]
fn killed_anywhere_nothing_that_was_committed_is_lost() {
    let (_temp, dir) = pool();
    for lines in [1, 2, 3, 50, 51, 52, 400, 401, 402, 403] {
        let mut child = live("endless", &dir);
        let out = BufReader::new(child.stdout.take().unwrap());
        let done = out
            .lines()
            .map_while(Result::ok)
            .filter_map(|l| l.strip_prefix("done ")?.parse::<u64>().ok());
        let last = done.take(lines).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        recover(&dir).unwrap();
        let found = agreed(&dir);
        assert!(found >= last, "{last} was committed, and {found} is there");
        assert!(names(&dir, "vernal-log").is_empty());
    }
}

#[test]
fn a_living_process_keeps_its_logs() {
    let (_temp, dir) = pool();
    let mut child = live("allocating", &dir);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("locked") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0);
    }
    assert!(recover(&dir).unwrap().is_empty());
    assert_eq!(word(&dir, 0), 999);
    assert_eq!(names(&dir, "vernal-log-").len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(outcomes(&recover(&dir).unwrap()).len(), 1);
    assert_eq!(agreed(&dir), 3);
}

#[test]
fn whoever_gets_the_allocator_of_a_dead_process_recovers_it_first() {
    let (_temp, dir) = pool();
    let mut child = live("allocating", &dir);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("locked") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0);
    }
    // Opened while the other process has the lock, as a second process of the same pool.
    let lock = lock(&dir);
    child.stdin.take().unwrap().write_all(b"die\n").unwrap();
    // This process has no log of its own: the lock is taken as `enter` takes it.
    let waiting = std::thread::spawn(move || lock.lock_for_check());
    assert!(
        waiting.join().unwrap().unwrap(),
        "the heap was changed by another process"
    );
    child.wait().unwrap();
    assert_eq!(agreed(&dir), 3);
}

#[test]
fn a_transaction_across_pools_is_undone_from_any_of_them() {
    for first in ["a", "b"] {
        let temp = temp();
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        let addr = space::pick(2 * SIZE).unwrap();
        make_pool(&a, addr);
        make_pool(&b, addr + SIZE);
        assert!(killed(live_out("two-pools", temp.path())));
        assert_eq!((word(&a, 0), word(&b, 0)), (4, 4));
        recover(&temp.path().join(first)).unwrap();
        assert_eq!((agreed(&a), agreed(&b)), (3, 3), "opened {first} first");
        recover(&a).unwrap();
        recover(&b).unwrap();
        assert!(names(&a, "vernal-").is_empty() && names(&b, "vernal-").is_empty());
    }
}

#[test]
fn a_damaged_log_quarantines_the_pool_and_changes_nothing() {
    let (_temp, dir) = pool();
    assert!(killed(live_out("undo", &dir)));
    let log = names(&dir, "vernal-log-").remove(0);
    let file = OpenOptions::new().write(true).open(&log).unwrap();
    // The address of the first entry.
    file.write_all_at(&[0x77; 8], 4096 + 8).unwrap();
    let before = fs::read(dir.join("root.puddle")).unwrap();
    for _ in 0..2 {
        let e = recover(&dir).unwrap_err();
        assert!(matches!(e, Error::Quarantined { .. }), "{e}");
        assert!(e.to_string().contains("entry 0 is damaged"), "{e}");
        assert_eq!(fs::read(dir.join("root.puddle")).unwrap(), before);
        assert_eq!(names(&dir, "vernal-log").len(), 2);
    }
}

#[test]
fn a_log_that_names_memory_of_nobody_quarantines_the_pool() {
    let (_temp, dir) = pool();
    assert!(killed(live_out("undo", &dir)));
    // The pool says now that it lies elsewhere: none of the log's addresses are its own.
    let elsewhere = space::pick(SIZE).unwrap();
    fs::write(dir.join("home"), elsewhere.to_string()).unwrap();
    let e = recover(&dir).unwrap_err().to_string();
    assert!(e.contains("could not write"), "{e}");
}

#[test]
fn threads_share_logs_one_after_the_other() {
    let (_temp, dir) = pool();
    assert_eq!(live_out("thread-ends", &dir).code(), Some(0));
}

#[test]
fn aborts_restore_memory_and_call_back() {
    let (_temp, dir) = pool();
    assert_eq!(live_out("aborts", &dir).code(), Some(0));
    recover(&dir).unwrap();
    assert_eq!(agreed(&dir), 3);
}

#[test]
fn a_forked_child_may_not_change_direct_pools() {
    let (_temp, dir) = pool();
    assert_eq!(live_out("forks", &dir).code(), Some(0));
}
