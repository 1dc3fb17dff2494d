//! A mark is interrupted at each of its instructions in turn (the processor's trap flag): by a signal handler, and by a whole
//! other thread, that stores to a line which is being marked, and commits. That commit must hold what they have stored,
//! although the byte of the line may be set already, so that they list nothing.
//!
//! First in a process with one thread, then with two; no harness of tests, which has threads of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use vernal_abi as abi;
use vernal_snapshot::{runtime, thread};
use vernal_sys::os;

/// Lines of a mark, at most.
const LINES: u64 = 5;
/// The processor's flag that makes it trap after each instruction.
const TRAP_FLAG: i64 = 0x100;
/// More instructions than a mark has.
const MANY: i64 = 5000;
/// Lines of the file.
const FILE_LINES: u64 = 1 << 17;

/// First line of this round: another than before, because commits look again at lines of the commits before them.
static BASE: AtomicU64 = AtomicU64::new(0);
/// Instructions until the interruption.
static LEFT: AtomicI64 = AtomicI64::new(0);
/// Number of the interruption, and what is stored in it.
static ROUND: AtomicU64 = AtomicU64::new(0);
/// The line, of those that are marked, that is stored to in it.
static LINE: AtomicU64 = AtomicU64::new(0);
/// `fn()`: what the interruption does.
static INTERRUPTION: AtomicUsize = AtomicUsize::new(0);
static LOST: AtomicBool = AtomicBool::new(false);
/// The round that the other thread is to do, and the one that it has done.
static ASKED: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

fn word(line: u64, i: u64, distance: u64) -> &'static AtomicU64 {
    let at = BASE.load(Ordering::Relaxed) + distance + line * abi::LINE_SIZE + i * 8;
    // SAFETY: a word of the mapped file or of its home view.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }
}

/// Stores to the second word of a line, marks it, commits, and looks whether it is there.
fn store_and_commit() {
    let (round, line) = (ROUND.load(Ordering::Relaxed), LINE.load(Ordering::Relaxed));
    word(line, 1, 0).store(round, Ordering::Relaxed);
    thread::mark_range(std::ptr::from_ref(word(line, 1, 0)) as u64, 8);
    let committed = runtime::commit().is_ok();
    if !committed || word(line, 1, abi::HOME_DISTANCE).load(Ordering::Relaxed) != round {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Lets the other thread do it while this one stays where it is.
fn let_the_other_thread() {
    let round = ROUND.load(Ordering::Relaxed);
    ASKED.store(round, Ordering::Release);
    while DONE.load(Ordering::Acquire) != round {
        std::hint::spin_loop();
    }
}

fn other_thread() {
    loop {
        match ASKED.load(Ordering::Acquire) {
            u64::MAX => return,
            round if round != DONE.load(Ordering::Relaxed) => {
                store_and_commit();
                DONE.store(round, Ordering::Release);
            }
            _ => std::thread::yield_now(),
        }
    }
}

extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if LEFT.fetch_sub(1, Ordering::Relaxed) != 1 {
        return;
    }
    // SAFETY: the kernel's third argument; the flag is not set when the handler returns.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
    // SAFETY: `steps` has stored a `fn()` there.
    let interruption: fn() = unsafe { std::mem::transmute(INTERRUPTION.load(Ordering::Relaxed)) };
    interruption();
}

/// Marks `lines` lines, interrupted behind each instruction in turn; the number of them. Before that, `others` other lines.
fn steps(file: u64, lines: u64, others: u64, interruption: fn()) -> i64 {
    INTERRUPTION.store(interruption as usize, Ordering::Relaxed);
    for at in 1..MANY {
        let round = ROUND.fetch_add(1, Ordering::Relaxed) + 1;
        LINE.store(round % lines, Ordering::Relaxed);
        let base = file + round * LINES * abi::LINE_SIZE;
        BASE.store(base, Ordering::Relaxed);
        (0..lines).for_each(|line| word(line, 0, 0).store(round, Ordering::Relaxed));
        for other in (FILE_LINES - others)..FILE_LINES {
            thread::mark_range(file + other * abi::LINE_SIZE, 1);
        }
        LEFT.store(at, Ordering::Relaxed);
        // SAFETY: sets and clears the trap flag, whose handler is installed.
        unsafe {
            std::arch::asm!("pushfq", "or qword ptr [rsp], {f}", "popfq", f = const TRAP_FLAG);
        }
        thread::mark_range(base, lines * abi::LINE_SIZE);
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("pushfq", "and qword ptr [rsp], {f}", "popfq", f = const !TRAP_FLAG);
        }
        let interrupted = LEFT.load(Ordering::Relaxed) <= 0;
        assert!(
            !LOST.load(Ordering::Relaxed),
            "{lines} lines, interrupted behind instruction {at}: a commit does not hold what was stored before it"
        );
        runtime::commit().unwrap();
        for line in 0..lines {
            let home = word(line, 0, abi::HOME_DISTANCE).load(Ordering::Relaxed);
            assert_eq!(
                home, round,
                "line {line} of {lines}, instruction {at}: the marked store"
            );
        }
        if !interrupted {
            return at - 1;
        }
    }
    panic!("the mark does not end");
}

fn main() {
    let dir = PathBuf::from("/dev/shm");
    let dir = if dir.is_dir() {
        dir
    } else {
        std::env::temp_dir()
    };
    let path = dir.join(format!("vernal-steps-{}.img", std::process::id()));
    let file = runtime::map_file(&path, FILE_LINES * abi::LINE_SIZE, true).unwrap();
    // SAFETY: installs a handler that uses atomics, marks, and commits where no commit and no allocation is interrupted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut()),
            0
        );
    }
    // The first mark of a thread, and the first commit, do more.
    thread::mark_range(file, LINES * abi::LINE_SIZE);
    runtime::commit().unwrap();
    assert!(os::single_threaded());
    for lines in [1, LINES] {
        let n = steps(file, lines, 0, store_and_commit);
        println!("{lines} lines, a handler commits: {n} instructions");
        assert!(n > 10, "traps do not come");
    }
    let other = std::thread::spawn(other_thread);
    for lines in [1, LINES] {
        for interruption in [store_and_commit, let_the_other_thread] {
            let n = steps(file, lines, 0, interruption);
            println!("{lines} lines, two threads: {n} instructions");
        }
    }
    // With no room on the list.
    for interruption in [store_and_commit, let_the_other_thread] {
        let n = steps(file, 1, thread::RING_ROOM, interruption);
        println!("1 line, dropped, two threads: {n} instructions");
    }
    ASKED.store(u64::MAX, Ordering::Release);
    other.join().unwrap();
    runtime::unmap_file(file, true).unwrap();
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_file(path.with_extension("img.vernal"));
}
