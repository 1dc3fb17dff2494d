//! The first touch of protected memory: a handler that makes it accessible while the touching instruction waits.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::OnceLock;

/// Gets the address, and whether it was a store. `true`: the memory is accessible now, try again.
pub type Handler = fn(addr: u64, store: bool) -> bool;

struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written once, by the sigaction call that installs the handler which reads it.
unsafe impl Sync for Previous {}
static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::zeroed()));
static HANDLER: OnceLock<Handler> = OnceLock::new();

/// Bit of the page fault's error code: it was a store.
const ERROR_WRITE: i64 = 2;

extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: glibc's errno of this thread; the interrupted code must find it as it was.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel hands an SA_SIGINFO handler a live siginfo and ucontext; for SIGSEGV si_addr is set.
    let (addr, store) = unsafe {
        let context = &*context.cast::<libc::ucontext_t>();
        let code = context.uc_mcontext.gregs[libc::REG_ERR as usize];
        ((*info).si_addr() as u64, code & ERROR_WRITE != 0)
    };
    let done = HANDLER.get().is_some_and(|h| h(addr, store));
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    if !done {
        // SAFETY: PREVIOUS was filled in when this handler was installed; the arguments are this handler's own.
        unsafe {
            crate::signal::chain((*PREVIOUS.0.get()).assume_init_ref(), signal, info, context)
        };
    }
}

/// Calls `handler` for each SIGSEGV, before whoever handled it until now. It runs on the stack of the touching thread, with
/// the signal unblocked: it may touch other protected memory. Only the first call's handler counts.
pub fn on_touch(handler: Handler) -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(|e| e.into_inner());
    let _ = HANDLER.set(handler);
    if *installed {
        return Ok(());
    }
    // Not on the alternative stack, which may be a few KiB small: the touching thread's own stack is in order, or else it
    // would not have got as far as a pool's memory.
    // SAFETY: the handler has the signature that SA_SIGINFO asks for; PREVIOUS is not read before this call returns.
    let rc = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSEGV, &action, (*PREVIOUS.0.get()).as_mut_ptr())
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    *installed = true;
    Ok(())
}
