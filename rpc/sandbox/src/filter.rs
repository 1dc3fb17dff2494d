//! The system calls that a helper may make, as a seccomp filter.
//!
//! What is not listed fails with `EPERM`: a library that asks for more gets an error, and nothing happens. A call of another
//! architecture's table ends the helper: its numbers mean something else.

use libc::{sock_filter, sock_fprog};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const fn arg(n: u32) -> u32 {
    16 + 8 * n
}

const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
/// Numbers from here on are those of x32.
const X32: u32 = 0x4000_0000;

/// Needs no further look: memory of its own, its socket, time, its end.
const ALLOWED: [libc::c_long; 25] = [
    libc::SYS_futex,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvmsg,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn op(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The filter of the process `pid`.
fn program(pid: u32) -> Vec<sock_filter> {
    let allow = op(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0);
    let kill = op(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0);
    let refuse = op(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0);
    let mut p = vec![
        op(LOAD, ARCH, 0, 0),
        op(EQUAL, AUDIT_ARCH_X86_64, 1, 0),
        kill,
        op(LOAD, NR, 0, 0),
        op(AT_LEAST, X32, 0, 1),
        kill,
    ];
    for nr in ALLOWED {
        p.extend([op(EQUAL, nr as u32, 0, 1), allow]);
    }
    let exec = libc::PROT_EXEC as u32;
    // No new code, and no anonymous shared memory, which no limit counts.
    let unlimited = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u32;
    p.extend([
        op(EQUAL, libc::SYS_mmap as u32, 0, 7),
        op(LOAD, arg(2), 0, 0),
        op(ANY_BIT, exec, 4, 0),
        op(LOAD, arg(3), 0, 0),
        op(AND, unlimited, 0, 0),
        op(EQUAL, unlimited, 1, 0),
        allow,
        refuse,
    ]);
    p.extend([
        op(EQUAL, libc::SYS_mprotect as u32, 0, 4),
        op(LOAD, arg(2), 0, 0),
        op(ANY_BIT, exec, 1, 0),
        allow,
        refuse,
    ]);
    // Seals of memory that it is given, and a second descriptor of it.
    p.extend([
        op(EQUAL, libc::SYS_fcntl as u32, 0, 5),
        op(LOAD, arg(1), 0, 0),
        op(EQUAL, libc::F_GET_SEALS as u32, 1, 0),
        op(EQUAL, libc::F_DUPFD_CLOEXEC as u32, 0, 1),
        allow,
        refuse,
    ]);
    // Its own end, as abort() wants it.
    p.extend([
        op(EQUAL, libc::SYS_tgkill as u32, 0, 4),
        op(LOAD, arg(0), 0, 0),
        op(EQUAL, pid, 0, 1),
        allow,
        refuse,
    ]);
    p.push(refuse);
    p
}

/// Filters the calls of this thread, of which the process has no other, for good.
pub(crate) fn install() -> std::io::Result<()> {
    let mut program = program(std::process::id());
    let prog = sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `prog` and what it points to outlive the call, which copies them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const prog,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would say: the few operations that the filter uses.
    fn run(program: &[sock_filter], nr: libc::c_long, arch: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend((nr as u32).to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        args.iter().for_each(|a| data.extend(a.to_le_bytes()));
        let (mut at, mut acc) = (0, 0u32);
        loop {
            let o = program[at];
            at += 1;
            let jump = |taken| at + usize::from(if taken { o.jt } else { o.jf });
            match o.code {
                LOAD => {
                    let k = o.k as usize;
                    acc = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                }
                AND => acc &= o.k,
                EQUAL => at = jump(acc == o.k),
                ANY_BIT => at = jump(acc & o.k != 0),
                AT_LEAST => at = jump(acc >= o.k),
                RETURN => return o.k,
                other => panic!("operation {other}"),
            }
        }
    }

    #[test]
    fn the_list_is_what_it_says() {
        let p = program(77);
        let here = AUDIT_ARCH_X86_64;
        let (yes, kill) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS);
        let no = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let none = [0; 6];
        for nr in 0..600 {
            let listed = ALLOWED.contains(&nr);
            let looked_at = [libc::SYS_mmap, libc::SYS_mprotect];
            let expected = if listed || looked_at.contains(&nr) {
                yes
            } else {
                no
            };
            assert_eq!(run(&p, nr, here, none), expected, "call {nr}");
            assert_eq!(run(&p, nr, 0x4000_0003, none), kill, "call {nr} of 32 bits");
            assert_eq!(run(&p, nr | i64::from(X32), here, none), kill, "x32 {nr}");
        }
        let mmap = |prot: i32, flags: i32| {
            let args = [0, 4096, prot as u64, flags as u64, u64::MAX, 0];
            run(&p, libc::SYS_mmap, here, args)
        };
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let (data, code) = (libc::PROT_READ | libc::PROT_WRITE, libc::PROT_EXEC);
        assert_eq!(mmap(data, anonymous), yes);
        assert_eq!(mmap(data, libc::MAP_SHARED | libc::MAP_FIXED), yes);
        assert_eq!(mmap(data, libc::MAP_SHARED | libc::MAP_ANONYMOUS), no);
        assert_eq!(mmap(data | code, anonymous), no);
        assert_eq!(mmap(code, libc::MAP_SHARED), no);
        let mprotect = |prot: i32| run(&p, libc::SYS_mprotect, here, [0, 1, prot as u64, 0, 0, 0]);
        assert_eq!((mprotect(data), mprotect(data | code)), (yes, no));
        let fcntl = |cmd: i32| run(&p, libc::SYS_fcntl, here, [0, cmd as u64, 0, 0, 0, 0]);
        for (cmd, expected) in [
            (libc::F_GET_SEALS, yes),
            (libc::F_DUPFD_CLOEXEC, yes),
            (libc::F_ADD_SEALS, no),
            (libc::F_SETFL, no),
        ] {
            assert_eq!(fcntl(cmd), expected, "{cmd}");
        }
        let tgkill = |pid| run(&p, libc::SYS_tgkill, here, [pid, pid, 6, 0, 0, 0]);
        assert_eq!((tgkill(77), tgkill(78)), (yes, no));
    }
}
