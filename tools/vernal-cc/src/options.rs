//! The driver's own options, all of which begin with `--vernal-`.

use std::ffi::OsString;
use std::fmt;

/// What `--vernal-help` prints.
pub const HELP: &str = "\
vernal-cc, vernal-c++: clang and clang++ with failure-atomic msync

  Use them as you use clang: CC=vernal-cc CXX=vernal-c++ ./configure, cmake -DCMAKE_C_COMPILER=vernal-cc, ...
  All of clang's arguments are passed on. Compilations get the pass that tracks stores, links get libvernal.

  --vernal-static      link libvernal.a into the program instead of libvernal.so (implied by -static)
  --vernal-no-pass     do not instrument what this command compiles; its stores into mapped files are not seen
  --vernal-no-rpath    do not record the folder of libvernal.so in the program
  --vernal-show        print the clang command instead of running it
  --vernal-skips       print what the pass instrumented, and what it left out and why
  --vernal-print-types print the layout of every type that is allocated in a pool, as text and as JSON
  --vernal-no-types    do not look for the types of allocations in pools: compiles a little faster what has none
  --vernal-help        print this text

  VERNAL_LLVM=22|19    which LLVM to use; default: 22, else 19
  VERNAL_CLANG=PATH    which clang to run; its version must be 22 or 19
  VERNAL_LIBDIR=DIR    where libvernal and the pass are; default: beside this program, or in ../lib/vernal

  At run time: VERNAL_PATHS='/data/*.img' ./program makes mmap and msync on the matching files failure-atomic;
  VERNAL_AUDIT=1 reports every byte that changed without being seen.";

/// The driver's own options, as given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// `--vernal-help`
    pub help: bool,
    /// `--vernal-show`
    pub show: bool,
    /// `--vernal-skips`
    pub skips: bool,
    /// `--vernal-print-types`
    pub print_types: bool,
    /// `--vernal-no-types`
    pub no_types: bool,
    /// `--vernal-static`
    pub static_library: bool,
    /// `--vernal-no-pass`
    pub no_pass: bool,
    /// `--vernal-no-rpath`
    pub no_rpath: bool,
}

/// An option that begins with `--vernal-` and is none.
#[derive(Debug)]
pub struct UnknownOption(String);

impl fmt::Display for UnknownOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown option {}; --vernal-help lists the options",
            self.0
        )
    }
}

impl Options {
    /// Takes the driver's own options out of `args`; the rest is for clang.
    pub fn split(args: &[OsString]) -> Result<(Self, Vec<OsString>), UnknownOption> {
        let mut options = Self::default();
        let mut rest = Vec::with_capacity(args.len());
        for arg in args {
            match arg.to_str() {
                Some("--vernal-help") => options.help = true,
                Some("--vernal-show") => options.show = true,
                Some("--vernal-skips") => options.skips = true,
                Some("--vernal-print-types") => options.print_types = true,
                Some("--vernal-no-types") => options.no_types = true,
                Some("--vernal-static") => options.static_library = true,
                Some("--vernal-no-pass") => options.no_pass = true,
                Some("--vernal-no-rpath") => options.no_rpath = true,
                Some(other) if other.starts_with("--vernal-") => {
                    return Err(UnknownOption(other.to_owned()));
                }
                _ => rest.push(arg.clone()),
            }
        }
        Ok((options, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_options_are_taken_out() {
        let args = ["-c", "--vernal-static", "a.c", "--vernal-show"].map(OsString::from);
        let (options, rest) = Options::split(&args).unwrap();
        assert_eq!(
            options,
            Options {
                static_library: true,
                show: true,
                ..Options::default()
            }
        );
        assert_eq!(rest, ["-c", "a.c"]);
        let error = Options::split(&["--vernal-sttic".into()])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--vernal-sttic") && error.contains("--vernal-help"),
            "{error}"
        );
    }
}
