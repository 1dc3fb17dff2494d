//! What library functions write through their arguments, and which calls cannot commit or publish.
//!
//! By name, because TargetLibraryInfo is blind under `-fno-builtin` and knows few of them. A name is only looked up for a
//! function without a body in the module; one with a body is instrumented itself.

/// How much a library function writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Len {
    /// A constant.
    Bytes(u64),
    /// The value of an argument.
    Arg(u8),
    /// The product of two arguments.
    Product(u8, u8),
    /// An argument times a constant.
    Times(u8, u64),
    /// The result, if it is positive.
    Ret,
    /// The result times an argument (`fread`).
    RetTimes(u8),
    /// A terminated string.
    Cstr,
}

/// One thing that a call writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writes {
    /// Through this argument.
    Arg(u8, Len),
    /// Through every variadic pointer argument from this one on (`sscanf`): a string or up to 16 bytes.
    Rest(u8),
    /// The buffers of an `iovec` array: the array, its length.
    Iovec(u8, u8),
    /// A terminated string at the result, if there is one (`strtok` cuts the string it was first given).
    Result,
}

/// A library function.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// What it writes.
    pub writes: &'static [Writes],
    /// Whether it may block on, or be ordered with, another thread or process.
    pub barrier: bool,
}

use Len::{Bytes, Cstr, Product, Ret, RetTimes, Times};
use Writes::{Iovec, Rest, Result};

/// Writers without synchronisation.
const fn quiet(name: &'static str, writes: &'static [Writes]) -> Known {
    Known {
        name,
        writes,
        barrier: false,
    }
}

/// Writers that may synchronise.
const fn sync(name: &'static str, writes: &'static [Writes]) -> Known {
    Known {
        name,
        writes,
        barrier: true,
    }
}

const fn a(arg: u8, len: Len) -> Writes {
    Writes::Arg(arg, len)
}

const fn n(arg: u8) -> Len {
    Len::Arg(arg)
}

/// The known writers.
pub const WRITERS: &[Known] = &[
    // Memory and strings.
    quiet("memcpy", &[a(0, n(2))]),
    quiet("memmove", &[a(0, n(2))]),
    quiet("mempcpy", &[a(0, n(2))]),
    quiet("memset", &[a(0, n(2))]),
    quiet("explicit_bzero", &[a(0, n(1))]),
    quiet("bzero", &[a(0, n(1))]),
    quiet("bcopy", &[a(1, n(2))]),
    quiet("memccpy", &[a(0, n(3))]),
    quiet("memfrob", &[a(0, n(1))]),
    quiet("swab", &[a(1, n(2))]),
    quiet("strcpy", &[a(0, Cstr)]),
    quiet("stpcpy", &[a(0, Cstr)]),
    quiet("strcat", &[a(0, Cstr)]),
    quiet("strncpy", &[a(0, n(2))]),
    quiet("stpncpy", &[a(0, n(2))]),
    quiet("strncat", &[a(0, Cstr)]),
    quiet("strlcpy", &[a(0, Cstr)]),
    quiet("strlcat", &[a(0, Cstr)]),
    quiet("strxfrm", &[a(0, n(2))]),
    quiet("strtok", &[a(0, Cstr), Result]),
    quiet("strfry", &[a(0, Cstr)]),
    quiet("strtok_r", &[a(0, Cstr), a(2, Bytes(8)), Result]),
    quiet("strsep", &[a(0, Bytes(8)), Result]),
    quiet("wmemcpy", &[a(0, Times(2, 4))]),
    quiet("wmempcpy", &[a(0, Times(2, 4))]),
    quiet("wmemmove", &[a(0, Times(2, 4))]),
    quiet("wmemset", &[a(0, Times(2, 4))]),
    quiet("wcsncpy", &[a(0, Times(2, 4))]),
    quiet("mbstowcs", &[a(0, Times(2, 4))]),
    quiet("wcstombs", &[a(0, n(2))]),
    quiet("mbrtowc", &[a(0, Bytes(4)), a(3, Bytes(8))]),
    quiet("wcrtomb", &[a(0, Bytes(16)), a(2, Bytes(8))]),
    quiet("__memcpy_chk", &[a(0, n(2))]),
    quiet("__memmove_chk", &[a(0, n(2))]),
    quiet("__mempcpy_chk", &[a(0, n(2))]),
    quiet("__memset_chk", &[a(0, n(2))]),
    quiet("__memccpy_chk", &[a(0, n(3))]),
    quiet("__explicit_bzero_chk", &[a(0, n(1))]),
    quiet("__strcpy_chk", &[a(0, Cstr)]),
    quiet("__stpcpy_chk", &[a(0, Cstr)]),
    quiet("__strcat_chk", &[a(0, Cstr)]),
    quiet("__strncpy_chk", &[a(0, n(2))]),
    quiet("__stpncpy_chk", &[a(0, n(2))]),
    quiet("__strncat_chk", &[a(0, Cstr)]),
    quiet("__strlcpy_chk", &[a(0, Cstr)]),
    quiet("__strlcat_chk", &[a(0, Cstr)]),
    quiet("__wmemcpy_chk", &[a(0, Times(2, 4))]),
    quiet("__wmemmove_chk", &[a(0, Times(2, 4))]),
    quiet("__wmemset_chk", &[a(0, Times(2, 4))]),
    // Formatted output to memory, input from it.
    quiet("sprintf", &[a(0, Cstr)]),
    quiet("vsprintf", &[a(0, Cstr)]),
    quiet("snprintf", &[a(0, n(1))]),
    quiet("vsnprintf", &[a(0, n(1))]),
    quiet("__sprintf_chk", &[a(0, Cstr)]),
    quiet("__vsprintf_chk", &[a(0, Cstr)]),
    quiet("__snprintf_chk", &[a(0, n(1))]),
    quiet("__vsnprintf_chk", &[a(0, n(1))]),
    quiet("swprintf", &[a(0, Times(1, 4))]),
    quiet("vswprintf", &[a(0, Times(1, 4))]),
    quiet("__swprintf_chk", &[a(0, Times(1, 4))]),
    quiet("__vswprintf_chk", &[a(0, Times(1, 4))]),
    quiet("asprintf", &[a(0, Bytes(8))]),
    quiet("vasprintf", &[a(0, Bytes(8))]),
    quiet("__asprintf_chk", &[a(0, Bytes(8))]),
    quiet("__vasprintf_chk", &[a(0, Bytes(8))]),
    quiet("strftime", &[a(0, n(1))]),
    quiet("sscanf", &[Rest(2)]),
    quiet("__isoc99_sscanf", &[Rest(2)]),
    quiet("__isoc23_sscanf", &[Rest(2)]),
    sync("fscanf", &[Rest(2)]),
    sync("__isoc99_fscanf", &[Rest(2)]),
    sync("__isoc23_fscanf", &[Rest(2)]),
    sync("scanf", &[Rest(1)]),
    sync("__isoc99_scanf", &[Rest(1)]),
    sync("__isoc23_scanf", &[Rest(1)]),
    // Numbers.
    quiet("strtol", &[a(1, Bytes(8))]),
    quiet("strtoul", &[a(1, Bytes(8))]),
    quiet("strtoll", &[a(1, Bytes(8))]),
    quiet("strtoull", &[a(1, Bytes(8))]),
    quiet("strtoimax", &[a(1, Bytes(8))]),
    quiet("strtoumax", &[a(1, Bytes(8))]),
    quiet("__isoc23_strtol", &[a(1, Bytes(8))]),
    quiet("__isoc23_strtoul", &[a(1, Bytes(8))]),
    quiet("__isoc23_strtoll", &[a(1, Bytes(8))]),
    quiet("__isoc23_strtoull", &[a(1, Bytes(8))]),
    quiet("strtod", &[a(1, Bytes(8))]),
    quiet("strtof", &[a(1, Bytes(8))]),
    quiet("strtold", &[a(1, Bytes(8))]),
    quiet("frexp", &[a(1, Bytes(4))]),
    quiet("frexpf", &[a(1, Bytes(4))]),
    quiet("frexpl", &[a(1, Bytes(4))]),
    quiet("modf", &[a(1, Bytes(8))]),
    quiet("modff", &[a(1, Bytes(4))]),
    quiet("modfl", &[a(1, Bytes(16))]),
    quiet("remquo", &[a(2, Bytes(4))]),
    quiet("remquof", &[a(2, Bytes(4))]),
    quiet("sincos", &[a(1, Bytes(8)), a(2, Bytes(8))]),
    quiet("sincosf", &[a(1, Bytes(4)), a(2, Bytes(4))]),
    quiet("lgamma_r", &[a(1, Bytes(4))]),
    quiet("rand_r", &[a(0, Bytes(4))]),
    quiet("random_r", &[a(1, Bytes(4))]),
    // Sorting: the comparison may do anything.
    sync("qsort", &[a(0, Product(1, 2))]),
    sync("qsort_r", &[a(0, Product(1, 2))]),
    // Time, identity, limits.
    quiet("time", &[a(0, Bytes(8))]),
    quiet("gettimeofday", &[a(0, Bytes(16)), a(1, Bytes(8))]),
    quiet("clock_gettime", &[a(1, Bytes(16))]),
    quiet("clock_getres", &[a(1, Bytes(16))]),
    quiet("timespec_get", &[a(0, Bytes(16))]),
    quiet("gmtime_r", &[a(1, Bytes(56))]),
    sync("localtime_r", &[a(1, Bytes(56))]),
    sync("mktime", &[a(0, Bytes(56))]),
    quiet("asctime_r", &[a(1, Cstr)]),
    sync("ctime_r", &[a(1, Cstr)]),
    sync("nanosleep", &[a(1, Bytes(16))]),
    sync("clock_nanosleep", &[a(3, Bytes(16))]),
    sync("getrusage", &[a(1, Bytes(144))]),
    sync("getrlimit", &[a(1, Bytes(16))]),
    sync("uname", &[a(0, Bytes(390))]),
    sync("gethostname", &[a(0, n(1))]),
    sync("sysinfo", &[a(0, Bytes(112))]),
    sync("getrandom", &[a(0, n(1))]),
    sync("getentropy", &[a(0, n(1))]),
    quiet("inet_ntop", &[a(2, n(3))]),
    quiet("inet_pton", &[a(2, Bytes(16))]),
    quiet("uuid_generate", &[a(0, Bytes(16))]),
    // Files.
    sync("read", &[a(1, Ret)]),
    sync("__read_chk", &[a(1, Ret)]),
    sync("pread", &[a(1, Ret)]),
    sync("pread64", &[a(1, Ret)]),
    sync("__pread_chk", &[a(1, Ret)]),
    sync("__pread64_chk", &[a(1, Ret)]),
    sync("readv", &[Iovec(1, 2)]),
    sync("preadv", &[Iovec(1, 2)]),
    sync("preadv64", &[Iovec(1, 2)]),
    sync("preadv2", &[Iovec(1, 2)]),
    sync("process_vm_readv", &[Iovec(1, 2)]),
    sync("recv", &[a(1, Ret)]),
    sync("__recv_chk", &[a(1, Ret)]),
    sync("recvfrom", &[a(1, Ret), a(4, Bytes(128)), a(5, Bytes(4))]),
    sync(
        "__recvfrom_chk",
        &[a(1, Ret), a(5, Bytes(128)), a(6, Bytes(4))],
    ),
    sync("accept", &[a(1, Bytes(128)), a(2, Bytes(4))]),
    sync("accept4", &[a(1, Bytes(128)), a(2, Bytes(4))]),
    sync("getsockname", &[a(1, Bytes(128)), a(2, Bytes(4))]),
    sync("getpeername", &[a(1, Bytes(128)), a(2, Bytes(4))]),
    sync("getsockopt", &[a(3, Bytes(128)), a(4, Bytes(4))]),
    sync("socketpair", &[a(3, Bytes(8))]),
    sync("pipe", &[a(0, Bytes(8))]),
    sync("pipe2", &[a(0, Bytes(8))]),
    sync("poll", &[a(0, Times(1, 8))]),
    sync("epoll_wait", &[a(1, Times(2, 12))]),
    sync("fread", &[a(0, RetTimes(1))]),
    sync("fread_unlocked", &[a(0, RetTimes(1))]),
    sync("__fread_chk", &[a(0, RetTimes(2))]),
    sync("fgets", &[a(0, n(1))]),
    sync("fgets_unlocked", &[a(0, n(1))]),
    sync("__fgets_chk", &[a(0, n(2))]),
    sync("gets", &[a(0, Cstr)]),
    sync("getline", &[a(0, Bytes(8)), a(1, Bytes(8))]),
    sync("getdelim", &[a(0, Bytes(8)), a(1, Bytes(8))]),
    sync("__getdelim", &[a(0, Bytes(8)), a(1, Bytes(8))]),
    sync("getcwd", &[a(0, Cstr)]),
    sync("__getcwd_chk", &[a(0, Cstr)]),
    sync("readlink", &[a(1, Ret)]),
    sync("readlinkat", &[a(2, Ret)]),
    sync("__readlink_chk", &[a(1, Ret)]),
    sync("realpath", &[a(1, Cstr)]),
    sync("__realpath_chk", &[a(1, Cstr)]),
    sync("stat", &[a(1, Bytes(144))]),
    sync("stat64", &[a(1, Bytes(144))]),
    sync("lstat", &[a(1, Bytes(144))]),
    sync("lstat64", &[a(1, Bytes(144))]),
    sync("fstat", &[a(1, Bytes(144))]),
    sync("fstat64", &[a(1, Bytes(144))]),
    sync("fstatat", &[a(2, Bytes(144))]),
    sync("fstatat64", &[a(2, Bytes(144))]),
    sync("statx", &[a(4, Bytes(256))]),
    sync("statvfs", &[a(1, Bytes(112))]),
    sync("fstatvfs", &[a(1, Bytes(112))]),
    sync("fgetpos", &[a(1, Bytes(16))]),
    sync("ttyname_r", &[a(1, n(2))]),
    sync("strerror_r", &[a(1, n(2))]),
    sync("__xpg_strerror_r", &[a(1, n(2))]),
    // Threads, signals, processes.
    sync("pthread_create", &[a(0, Bytes(8))]),
    sync("pthread_join", &[a(1, Bytes(8))]),
    sync("pthread_mutex_init", &[a(0, Bytes(40))]),
    sync("pthread_mutex_destroy", &[a(0, Bytes(40))]),
    sync("pthread_mutex_lock", &[a(0, Bytes(40))]),
    sync("pthread_mutex_trylock", &[a(0, Bytes(40))]),
    sync("pthread_mutex_timedlock", &[a(0, Bytes(40))]),
    sync("pthread_mutex_unlock", &[a(0, Bytes(40))]),
    sync("pthread_mutexattr_init", &[a(0, Bytes(4))]),
    sync("pthread_mutexattr_settype", &[a(0, Bytes(4))]),
    sync("pthread_mutexattr_setpshared", &[a(0, Bytes(4))]),
    sync("pthread_mutexattr_setrobust", &[a(0, Bytes(4))]),
    sync("pthread_rwlock_init", &[a(0, Bytes(56))]),
    sync("pthread_rwlock_rdlock", &[a(0, Bytes(56))]),
    sync("pthread_rwlock_wrlock", &[a(0, Bytes(56))]),
    sync("pthread_rwlock_tryrdlock", &[a(0, Bytes(56))]),
    sync("pthread_rwlock_trywrlock", &[a(0, Bytes(56))]),
    sync("pthread_rwlock_unlock", &[a(0, Bytes(56))]),
    sync("pthread_rwlock_destroy", &[a(0, Bytes(56))]),
    sync("pthread_cond_init", &[a(0, Bytes(48))]),
    sync("pthread_cond_wait", &[a(0, Bytes(48)), a(1, Bytes(40))]),
    sync(
        "pthread_cond_timedwait",
        &[a(0, Bytes(48)), a(1, Bytes(40))],
    ),
    sync("pthread_cond_signal", &[a(0, Bytes(48))]),
    sync("pthread_cond_broadcast", &[a(0, Bytes(48))]),
    sync("pthread_cond_destroy", &[a(0, Bytes(48))]),
    sync("pthread_spin_init", &[a(0, Bytes(4))]),
    sync("pthread_spin_lock", &[a(0, Bytes(4))]),
    sync("pthread_spin_trylock", &[a(0, Bytes(4))]),
    sync("pthread_spin_unlock", &[a(0, Bytes(4))]),
    sync("pthread_barrier_init", &[a(0, Bytes(32))]),
    sync("pthread_barrier_wait", &[a(0, Bytes(32))]),
    sync("pthread_once", &[a(0, Bytes(4))]),
    sync("pthread_key_create", &[a(0, Bytes(4))]),
    sync("pthread_attr_init", &[a(0, Bytes(56))]),
    sync("sem_init", &[a(0, Bytes(32))]),
    sync("sem_wait", &[a(0, Bytes(32))]),
    sync("sem_trywait", &[a(0, Bytes(32))]),
    sync("sem_timedwait", &[a(0, Bytes(32))]),
    sync("sem_post", &[a(0, Bytes(32))]),
    sync("sem_getvalue", &[a(1, Bytes(4))]),
    sync("sem_destroy", &[a(0, Bytes(32))]),
    sync("posix_memalign", &[a(0, Bytes(8))]),
    quiet("sigemptyset", &[a(0, Bytes(128))]),
    quiet("sigfillset", &[a(0, Bytes(128))]),
    quiet("sigaddset", &[a(0, Bytes(128))]),
    quiet("sigdelset", &[a(0, Bytes(128))]),
    sync("sigaction", &[a(2, Bytes(152))]),
    sync("sigprocmask", &[a(2, Bytes(128))]),
    sync("pthread_sigmask", &[a(2, Bytes(128))]),
    sync("wait", &[a(0, Bytes(4))]),
    sync("waitpid", &[a(1, Bytes(4))]),
    sync("setjmp", &[a(0, Bytes(200))]),
    sync("_setjmp", &[a(0, Bytes(200))]),
    sync("__sigsetjmp", &[a(0, Bytes(200))]),
];

/// The C library's allocators: what they return is not tracked memory.
pub const ALLOCATORS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "aligned_alloc",
    "memalign",
    "valloc",
    "strdup",
    "strndup",
    "__strdup",
    "__strndup",
];

/// Functions that neither write through their arguments nor commit, publish or synchronise: no barrier.
pub const HARMLESS: &[&str] = &[
    "strlen",
    "strnlen",
    "strcmp",
    "strncmp",
    "strcasecmp",
    "strncasecmp",
    "strcoll",
    "strchr",
    "strrchr",
    "strchrnul",
    "strstr",
    "strcasestr",
    "strspn",
    "strcspn",
    "strpbrk",
    "memcmp",
    "memchr",
    "memrchr",
    "memmem",
    "rawmemchr",
    "bcmp",
    "wcslen",
    "wmemcmp",
    "wmemchr",
    "free",
    "cfree",
    "malloc_usable_size",
    "abs",
    "labs",
    "llabs",
    "atoi",
    "atol",
    "atoll",
    "atof",
    "isalpha",
    "isdigit",
    "isspace",
    "isalnum",
    "isupper",
    "islower",
    "isxdigit",
    "ispunct",
    "isprint",
    "iscntrl",
    "isgraph",
    "toupper",
    "tolower",
    "__ctype_b_loc",
    "__ctype_tolower_loc",
    "__ctype_toupper_loc",
    "__errno_location",
    "getpid",
    "gettid",
    "getuid",
    "geteuid",
    "difftime",
    "clock",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "pow",
    "sqrt",
    "cbrt",
    "hypot",
    "fmod",
    "floor",
    "ceil",
    "round",
    "lround",
    "llround",
    "trunc",
    "rint",
    "nearbyint",
    "lrint",
    "ldexp",
    "fabs",
    "fmin",
    "fmax",
    "fma",
    "copysign",
    "nan",
    "sinf",
    "cosf",
    "tanf",
    "expf",
    "logf",
    "powf",
    "sqrtf",
    "fmodf",
    "floorf",
    "ceilf",
    "roundf",
    "truncf",
    "fabsf",
    "erf",
    "erfc",
    "tgamma",
    "lgamma",
    "__cxa_begin_catch",
    "_ZdlPv",
    "_ZdlPvm",
    "_ZdaPv",
    "_ZdaPvm",
    "_ZdlPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
];

/// The known function `name`, if it writes.
pub fn writer(name: &str) -> Option<&'static Known> {
    WRITERS.iter().find(|k| k.name == name)
}

/// Whether `name` is one of the C library's allocators.
pub fn is_allocator(name: &str) -> bool {
    ALLOCATORS.contains(&name)
}

/// Whether a call of `name` is no barrier and writes nothing that is tracked.
pub fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name) || is_allocator(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_listed_twice() {
        let mut names: Vec<&str> = WRITERS
            .iter()
            .map(|k| k.name)
            .chain(HARMLESS.iter().copied())
            .collect();
        names.extend(ALLOCATORS);
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|w| w[0] == w[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn writers_are_found_by_name() {
        assert_eq!(writer("memcpy").map(|k| k.writes), Some(&[a(0, n(2))][..]));
        assert!(writer("fread").is_some_and(|k| k.barrier));
        assert!(writer("strlen").is_none() && is_harmless("strlen"));
    }
}
