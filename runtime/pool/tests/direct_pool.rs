//! Direct pools through the same interface as buffered ones: heap, transactions, aborts, killed processes, two processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use vernal_pool::{Error, OpenOptions, Pool, capi, tx};

const LIFE: &str = "VERNAL_TEST_LIFE";
const DIR: &str = "VERNAL_TEST_DIR";
const OPTIONS: OpenOptions = OpenOptions {
    create: true,
    exclusive: false,
    read_only: false,
    direct: true,
    eager: false,
};
/// Words of a list node: next, value, value again.
const NODE: u64 = 24;

fn temp() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("vernal-direct-pool-")
        .tempdir_in("/dev/shm")
        .unwrap()
}

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

/// Runs a life that ends by itself; what it said.
fn live_out(life: &str, dir: &Path) -> (Option<i32>, String) {
    let mut child = live(life, dir);
    drop(child.stdin.take());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    let code = child.wait().unwrap().code();
    assert_ne!(code, Some(101), "the life panicked:\n{}", said.join("\n"));
    (code, said.join("\n"))
}

fn load(addr: u64) -> u64 {
    // SAFETY: a word of an object in an open pool.
    unsafe { (addr as *const u64).read_volatile() }
}

fn store(addr: u64, value: u64) {
    // SAFETY: a word of an object in an open pool, logged or freshly allocated.
    unsafe { (addr as *mut u64).write_volatile(value) };
}

/// The root object: head of the list, length.
fn root(pool: &Pool) -> u64 {
    match pool.root() {
        Some(root) => root,
        None => {
            tx::begin().unwrap();
            let root = pool.alloc_bytes(16).unwrap();
            pool.set_root(root).unwrap();
            tx::commit().unwrap();
            root
        }
    }
}

/// Pushes a node, inside a transaction. With redo entries the list changes when the transaction commits.
fn push_as(pool: &Pool, value: u64, redo: bool) -> Result<(), Error> {
    let root = root(pool);
    let node = pool.alloc_bytes(NODE)?;
    store(node, load(root));
    store(node + 8, value);
    store(node + 16, value);
    if !redo {
        capi::tx_add(root, 16)?;
        store(root, node);
        store(root + 8, load(root + 8) + 1);
    } else {
        let length = load(root + 8) + 1;
        // SAFETY: both values are 8 bytes.
        unsafe {
            capi::tx_set(root, (&raw const node).cast(), 8)?;
            capi::tx_set(root + 8, (&raw const length).cast(), 8)?;
        }
    }
    Ok(())
}

fn push(pool: &Pool, value: u64) -> Result<(), Error> {
    push_as(pool, value, false)
}

fn pop(pool: &Pool) -> Result<(), Error> {
    let root = root(pool);
    let node = load(root);
    if node == 0 {
        return Ok(());
    }
    capi::tx_add(root, 16)?;
    store(root, load(node));
    store(root + 8, load(root + 8) - 1);
    pool.free(node)
}

/// Values of the list, whose objects must be exactly those of the heap.
fn list(pool: &Pool) -> Vec<u64> {
    let root = root(pool);
    let (mut values, mut node) = (Vec::new(), load(root));
    while node != 0 {
        assert_eq!(load(node + 8), load(node + 16), "a torn node");
        values.push(load(node + 8));
        node = load(node);
    }
    assert_eq!(load(root + 8), values.len() as u64);
    let report = pool.check();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(
        report.all.objects,
        values.len() as u64 + 1,
        "objects that nobody has linked"
    );
    values
}

#[test]
fn life() {
    let (Some(life), Some(dir)) = (std::env::var_os(LIFE), std::env::var_os(DIR)) else {
        return;
    };
    let dir = PathBuf::from(dir);
    let pool = Pool::open(&dir, OPTIONS).unwrap();
    match life.to_str().unwrap() {
        "keeps" => {
            for n in 0..100 {
                tx::begin().unwrap();
                push_as(&pool, n, n % 2 == 0).unwrap();
                tx::commit().unwrap();
            }
            assert_eq!(list(&pool), (0..100).rev().collect::<Vec<_>>());
            pool.close().unwrap();
        }
        "looks" => {
            println!("{:?}", list(&pool));
            pool.close().unwrap();
        }
        "aborts" => {
            tx::begin().unwrap();
            push(&pool, 1).unwrap();
            tx::commit().unwrap();
            for n in 0..40 {
                tx::begin().unwrap();
                for k in 0..=n {
                    push(&pool, 100 + 2 * k).unwrap();
                }
                tx::begin().unwrap();
                pop(&pool).unwrap();
                if n % 2 == 0 {
                    tx::commit().unwrap();
                } else {
                    tx::abort().unwrap();
                    assert!(tx::is_aborted());
                    assert!(push(&pool, 8).is_err());
                }
                tx::abort().unwrap();
                assert_eq!(list(&pool), [1]);
            }
            // Growth, taken back and done.
            for keep in [false, true] {
                tx::begin().unwrap();
                let big = pool.alloc_bytes(5 << 20).unwrap();
                store(big, 7);
                if keep {
                    pool.free(big).unwrap();
                    tx::commit().unwrap();
                } else {
                    tx::abort().unwrap();
                }
                assert_eq!(list(&pool), [1]);
            }
            pool.close().unwrap();
        }
        "endless" => {
            let mut out = std::io::stdout().lock();
            let mut next = list(&pool).first().map_or(0, |n| n + 1);
            loop {
                tx::begin().unwrap();
                push_as(&pool, next, next % 5 < 2).unwrap();
                if next % 5 == 4 {
                    for _ in 0..3 {
                        pop(&pool).unwrap();
                    }
                    push(&pool, next).unwrap();
                }
                if next % 7 == 6 && load(root(&pool) + 8) > 10 {
                    tx::abort().unwrap();
                    tx::begin().unwrap();
                    push(&pool, next).unwrap();
                }
                tx::commit().unwrap();
                writeln!(out, "done {next}").unwrap();
                next += 1;
            }
        }
        "two" => {
            // In turns with another process: one push whenever a line comes.
            let mut line = String::new();
            println!("open");
            while std::io::stdin().read_line(&mut line).unwrap() > 0 {
                let n: u64 = line.trim().parse().unwrap();
                line.clear();
                tx::begin().unwrap();
                push(&pool, 2 * n).unwrap();
                if n % 3 == 2 {
                    tx::abort().unwrap();
                } else {
                    tx::commit().unwrap();
                }
                println!("{:?}", list(&pool));
            }
            pool.close().unwrap();
        }
        "threads" => {
            let all: Vec<_> = (0..4)
                .map(|t| {
                    let pool = pool.clone();
                    std::thread::spawn(move || {
                        let mut conflicts = 0;
                        for n in 0..100u64 {
                            tx::begin().unwrap();
                            // The allocator first: it orders the threads, as a lock of their own would.
                            let spare = pool.alloc_bytes(8 * (1 + n)).unwrap();
                            push(&pool, 2 * (100 * t + n)).unwrap();
                            pool.free(spare).unwrap();
                            if n % 10 == 9 {
                                tx::abort().unwrap();
                            } else if let Err(e) = tx::commit() {
                                // Another thread's abort: nothing of it was kept, also not in the direct pool.
                                assert!(matches!(e, Error::Conflict), "{e}");
                                conflicts += 1;
                            }
                        }
                        conflicts
                    })
                })
                .collect();
            let conflicts: usize = all.into_iter().map(|t| t.join().unwrap()).sum();
            assert_eq!(list(&pool).len(), 360 - conflicts);
            pool.close().unwrap();
        }
        other => panic!("no life is called {other}"),
    }
}

#[test]
fn a_direct_pool_keeps_what_was_committed() {
    let temp = temp();
    let dir = temp.path().join("pool");
    assert_eq!(live_out("keeps", &dir).0, Some(0));
    let (code, said) = live_out("looks", &dir);
    assert_eq!(code, Some(0));
    assert!(said.contains("[99, 98, 97,"), "{said}");
    let left: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.contains("vernal-log") || n.contains("journal"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn aborts_take_everything_back() {
    let temp = temp();
    assert_eq!(live_out("aborts", &temp.path().join("pool")).0, Some(0));
}

#[test]
fn threads_that_allocate_take_turns() {
    let temp = temp();
    assert_eq!(live_out("threads", &temp.path().join("pool")).0, Some(0));
}

#[test]
fn killed_anywhere_the_heap_is_sound_and_nothing_is_lost() {
    let temp = temp();
    let dir = temp.path().join("pool");
    for lines in [1, 2, 3, 40, 41, 42, 200, 201] {
        let mut child = live("endless", &dir);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let done = out
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .filter_map(|l| l.strip_prefix("done ")?.parse::<u64>().ok());
        let last = done.take(lines).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (code, said) = live_out("looks", &dir);
        assert_eq!(code, Some(0), "{said}");
        let newest = said
            .rsplit('[')
            .next()
            .unwrap()
            .split([',', ']'])
            .next()
            .unwrap();
        let newest: u64 = newest.parse().unwrap();
        assert!(
            newest >= last,
            "{last} was committed, and {newest} is the newest"
        );
    }
}

#[test]
fn two_processes_have_one_pool_open() {
    let temp = temp();
    let dir = temp.path().join("pool");
    assert_eq!(live_out("looks", &dir).0, Some(0));
    let mut lives = Vec::new();
    for _ in 0..2 {
        let mut child = live("two", &dir);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("open") {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "the life ended");
        }
        lives.push((child, out));
    }
    let mut want = Vec::new();
    for n in 0..60u64 {
        let (child, out) = &mut lives[(n / 2 % 2) as usize];
        writeln!(child.stdin.as_ref().unwrap(), "{n}").unwrap();
        let mut line = String::new();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the life ended");
        if n % 3 != 2 {
            want.insert(0, 2 * n);
        }
        assert_eq!(line.trim(), format!("{want:?}"));
    }
    // One is killed; the other goes on, and a third one sees what was committed.
    let (mut dead, _) = lives.remove(0);
    dead.kill().unwrap();
    dead.wait().unwrap();
    let (code, said) = live_out("looks", &dir);
    assert_eq!(code, Some(0));
    assert!(said.contains(&format!("{want:?}")), "{said}");
    let (mut child, _out) = lives.remove(0);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
