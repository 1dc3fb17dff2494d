//! What stands in front of the user's arguments, and why something was left out.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::args::{Debug, Invocation, Lto, Stop};
use crate::locate::{Component, LocateError};
use crate::options::Options;

/// Where Vernal's files are, and for which LLVM.
#[derive(Debug, Clone)]
pub struct Libraries {
    /// The folder of libvernal and the pass.
    pub dir: PathBuf,
    /// clang's major version.
    pub llvm: u32,
}

/// The arguments to add and the notes to print.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Arguments that go in front of the user's.
    pub prepend: Vec<OsString>,
    /// Lines for standard error, without prefix.
    pub notes: Vec<String>,
}

/// Why the command cannot do what the user wants of it.
#[derive(Debug)]
pub enum PlanError {
    /// A file is missing.
    Locate(LocateError),
    /// The target is not 64-bit x86.
    Target(String),
    /// libstdc++ as an archive, by the option that asks for it.
    StaticCxx(&'static str),
    /// LTO without lld.
    Linker(String),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locate(e) => e.fmt(f),
            Self::Target(option) => write!(
                f,
                "{option}: Vernal tracks stores on 64-bit x86 Linux only; leave the option out, or use clang for this file"
            ),
            Self::StaticCxx(option) => write!(
                f,
                "{option}: libvernal must stand in for functions of libstdc++.so that write into the program's objects; \
                 leave the option out (--vernal-static links libvernal itself statically)"
            ),
            Self::Linker(linker) => write!(
                f,
                "link-time optimisation with the linker {linker:?}: only lld can run the pass; use -fuse-ld=lld or drop -flto"
            ),
        }
    }
}

impl std::error::Error for PlanError {}

impl From<LocateError> for PlanError {
    fn from(e: LocateError) -> Self {
        Self::Locate(e)
    }
}

/// Libraries that the Rust runtime inside libvernal.a needs.
const STATIC_NEEDS: &str = "-Wl,--push-state,--as-needed,-lpthread,-ldl,-lrt,-lm,--pop-state";

/// What to add to the command.
pub fn plan(
    invocation: &Invocation,
    options: &Options,
    libraries: &Libraries,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    if invocation.stop == Stop::Query {
        return Ok(plan);
    }
    if let Some(option) = &invocation.foreign_target
        && (invocation.generates_code() || invocation.stop == Stop::Link)
    {
        return Err(PlanError::Target(option.clone()));
    }
    if invocation.compiles_cxx {
        // For preprocessing, too: build systems cache and compare what it prints.
        let headers = Component::CxxHeaders.find_in(&libraries.dir)?;
        plan.prepend
            .extend(["-cxx-isystem".into(), headers.into_os_string()]);
    }
    if invocation.compiles
        && let Some(headers) = interface(&libraries.dir)
    {
        // Behind every other folder: headers that are installed, or named with -I, count first. What is preprocessed already
        // looks into no folder, which is nothing to warn of.
        plan.prepend.extend([
            "--start-no-unused-arguments".into(),
            "-idirafter".into(),
            headers.into_os_string(),
            "--end-no-unused-arguments".into(),
        ]);
    }
    let types = invocation.compiles && !options.no_pass && !options.no_types;
    if types {
        // For preprocessing, too: headers ask whether there is `__declspec(allocator)`.
        plan.prepend.extend(["-Xclang".into(), "-fdeclspec".into()]);
    }
    if invocation.generates_code() && !options.no_pass {
        let pass = Component::Pass(libraries.llvm).find_in(&libraries.dir)?;
        plan.prepend.push(joined("-fpass-plugin=", &pass));
        if types {
            plan.prepend.extend(debug_information(invocation.debug));
        }
    }
    if invocation.stop == Stop::Link {
        link(invocation, options, libraries, &mut plan)?;
    }
    Ok(plan)
}

/// The folder of vernal.h: beside the libraries of a build, or two levels up (PREFIX/lib/vernal, PREFIX/include).
fn interface(libraries: &Path) -> Option<PathBuf> {
    let installed = libraries.ancestors().nth(2).unwrap_or(libraries);
    [libraries, installed]
        .map(|dir| dir.join("include"))
        .into_iter()
        .find(|dir| dir.join("vernal.h").is_file())
}

/// Asks clang for the types that allocations have, and tells the pass what of this debug information the user did not ask
/// for: it removes that after reading it, so that the rest of the compilation is the same as without.
fn debug_information(asked: Debug) -> Vec<OsString> {
    // Given to the compiler proper, where the last one counts: the user's -g0 or -g1 must not take the types away.
    let mut args: Vec<&str> = vec!["-Xclang", "-debug-info-kind=standalone"];
    let strip = match asked {
        Debug::Off => "vernal-strip",
        Debug::Lines => "vernal-strip-types",
        Debug::Full => "",
    };
    if !strip.is_empty() {
        args.extend(["-Xclang", "-dwarf-debug-flags", "-Xclang", strip]);
    }
    args.into_iter().map(OsString::from).collect()
}

fn link(
    invocation: &Invocation,
    options: &Options,
    libraries: &Libraries,
    plan: &mut Plan,
) -> Result<(), PlanError> {
    let lto = invocation.lto != Lto::Off;
    if lto {
        match &invocation.linker {
            None => plan.prepend.push("-fuse-ld=lld".into()),
            Some(linker) if !invocation.linker_is_lld() => {
                return Err(PlanError::Linker(linker.clone()));
            }
            Some(_) => {}
        }
    }
    // lld also takes bitcode without -flto, as soon as it is the linker.
    if lto || invocation.linker_is_lld() {
        let pass = Component::Pass(libraries.llvm).find_in(&libraries.dir)?;
        plan.prepend.push(joined("-Wl,--load-pass-plugin=", &pass));
    }
    if invocation.relocatable || invocation.links_vernal {
        return Ok(());
    }
    if let Some(option) = &invocation.no_libraries {
        plan.notes.push(format!(
            "{option}: libvernal is not linked, because it needs the C library; add -lvernal if the program has one"
        ));
        return Ok(());
    }
    if invocation.cxx_driver && (invocation.static_libstdcxx || invocation.static_program) {
        return Err(PlanError::StaticCxx(if invocation.static_program {
            "-static"
        } else {
            "-static-libstdc++"
        }));
    }
    // In front of the user's libraries, so that libvernal's mmap, msync, ... and its libstdc++ functions are found before
    // those of libc and libstdc++; whatever the user's --as-needed says, or the calls would go past it.
    if options.static_library || invocation.static_program {
        let archive = Component::Static.find_in(&libraries.dir)?;
        plan.prepend.push("-Wl,--push-state,--whole-archive".into());
        plan.prepend.push(archive.into_os_string());
        plan.prepend.push("-Wl,--pop-state".into());
        plan.prepend.push(STATIC_NEEDS.into());
        return Ok(());
    }
    Component::Shared.find_in(&libraries.dir)?;
    plan.prepend.push(joined("-L", &libraries.dir));
    plan.prepend
        .push("-Wl,--push-state,--no-as-needed,-lvernal,--pop-state".into());
    if !options.no_rpath {
        // -Xlinker takes the folder as it is, commas included.
        plan.prepend.extend([
            "-Xlinker".into(),
            "-rpath".into(),
            "-Xlinker".into(),
            libraries.dir.clone().into_os_string(),
        ]);
    }
    Ok(())
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut arg = OsString::from(option);
    arg.push(path);
    arg
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["libvernal.so", "libvernal.a", "libvernal_pass_22.so"] {
                fs::write(dir.path().join(name), "").unwrap();
            }
            fs::create_dir_all(dir.path().join("include-cxx/bits")).unwrap();
            Self { dir }
        }

        fn plan_with(&self, line: &str, options: Options) -> Result<Plan, PlanError> {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let libraries = Libraries {
                dir: self.dir.path().to_owned(),
                llvm: 22,
            };
            plan(&Invocation::parse(&args, false), &options, &libraries)
        }

        /// The added arguments as one line, the folder written `DIR`.
        fn added(&self, line: &str) -> String {
            self.added_with(line, Options::default())
        }

        fn added_with(&self, line: &str, options: Options) -> String {
            let plan = self.plan_with(line, options).unwrap();
            let words: Vec<_> = plan.prepend.iter().map(|a| a.to_str().unwrap()).collect();
            words
                .join(" ")
                .replace(self.dir.path().to_str().unwrap(), "DIR")
        }
    }

    const DECLSPEC: &str = "-Xclang -fdeclspec";
    const PASS: &str = "-Xclang -fdeclspec -fpass-plugin=DIR/libvernal_pass_22.so \
        -Xclang -debug-info-kind=standalone -Xclang -dwarf-debug-flags -Xclang vernal-strip";
    const LIBRARY: &str =
        "-LDIR -Wl,--push-state,--no-as-needed,-lvernal,--pop-state -Xlinker -rpath -Xlinker DIR";
    const LTO: &str = "-fuse-ld=lld -Wl,--load-pass-plugin=DIR/libvernal_pass_22.so";

    #[test]
    fn each_kind_of_command() {
        let f = Fixture::new();
        for (line, added) in [
            ("--version", String::new()),
            ("-v", String::new()),
            ("-E a.c", DECLSPEC.into()),
            (
                "-E a.cc",
                format!("-cxx-isystem DIR/include-cxx {DECLSPEC}"),
            ),
            ("-c a.s", String::new()),
            ("-c a.c", PASS.into()),
            ("-c -flto a.c", PASS.into()),
            ("-c a.cc", format!("-cxx-isystem DIR/include-cxx {PASS}")),
            ("a.o -o a", LIBRARY.into()),
            ("a.c -o a", format!("{PASS} {LIBRARY}")),
            ("-shared a.o -o a.so", LIBRARY.into()),
            ("-flto a.o", format!("{LTO} {LIBRARY}")),
            ("-flto=thin a.c", format!("{PASS} {LTO} {LIBRARY}")),
            (
                "-fuse-ld=lld a.o",
                format!("-Wl,--load-pass-plugin=DIR/libvernal_pass_22.so {LIBRARY}"),
            ),
            ("-r a.o b.o -o c.o", String::new()),
            ("-nostdlib a.o", String::new()),
            ("a.o -lvernal", String::new()),
        ] {
            assert_eq!(f.added(line), added, "{line}");
        }
    }

    #[test]
    fn static_and_the_other_options() {
        let f = Fixture::new();
        let archive = format!(
            "-Wl,--push-state,--whole-archive DIR/libvernal.a -Wl,--pop-state {STATIC_NEEDS}"
        );
        assert_eq!(f.added("-static a.o"), archive);
        let options = Options {
            static_library: true,
            ..Options::default()
        };
        assert_eq!(f.added_with("a.o", options), archive);
        let options = Options {
            no_pass: true,
            no_rpath: true,
            ..Options::default()
        };
        assert_eq!(
            f.added_with("a.c", options),
            "-LDIR -Wl,--push-state,--no-as-needed,-lvernal,--pop-state"
        );
    }

    #[test]
    fn debug_information_that_was_not_asked_for_is_removed() {
        let f = Fixture::new();
        for (line, strip) in [
            ("-c a.c", Some("vernal-strip")),
            ("-g -g0 -c a.c", Some("vernal-strip")),
            ("-gline-tables-only -c a.c", Some("vernal-strip-types")),
            ("-g1 -gdwarf-4 -c a.c", Some("vernal-strip-types")),
            ("-Rpass=inline -c a.c", Some("vernal-strip-types")),
            ("-g -c a.c", None),
            ("-g1 -ggdb3 -c a.c", None),
            ("-gdwarf-4 -c a.c", None),
        ] {
            let added = f.added(line);
            let flags = "-Xclang -dwarf-debug-flags -Xclang ";
            let found = added.split_once(flags).map(|a| a.1);
            assert_eq!(found, strip, "{line}: {added}");
            assert!(added.contains("-debug-info-kind=standalone"), "{line}");
        }
        let options = Options {
            no_types: true,
            ..Options::default()
        };
        assert_eq!(
            f.added_with("-c a.c", options),
            "-fpass-plugin=DIR/libvernal_pass_22.so"
        );
    }

    #[test]
    fn what_is_left_out_is_said() {
        let f = Fixture::new();
        let notes = f
            .plan_with("-nostdlib a.o", Options::default())
            .unwrap()
            .notes;
        assert!(
            notes[0].contains("-nostdlib") && notes[0].contains("-lvernal"),
            "{notes:?}"
        );
        let none = f
            .plan_with("-nostdlib -c a.c", Options::default())
            .unwrap()
            .notes;
        assert!(none.is_empty(), "{none:?}");
    }

    #[test]
    fn errors_name_the_thing_and_the_remedy() {
        let f = Fixture::new();
        let error = |line: &str| {
            f.plan_with(line, Options::default())
                .unwrap_err()
                .to_string()
        };
        assert!(error("-m32 -c a.c").starts_with("-m32: "));
        assert!(
            error("--driver-mode=g++ -static-libstdc++ a.o").starts_with("-static-libstdc++: ")
        );
        let e = error("-flto -fuse-ld=bfd a.o");
        assert!(e.contains("\"bfd\"") && e.contains("-fuse-ld=lld"), "{e}");
        fs::remove_file(f.dir.path().join("libvernal.so")).unwrap();
        let e = error("a.o");
        assert!(
            e.contains("libvernal.so is missing") && e.contains("cargo build --release"),
            "{e}"
        );
        fs::remove_file(f.dir.path().join("libvernal_pass_22.so")).unwrap();
        let e = error("-c a.c");
        assert!(
            e.contains("libvernal_pass_22.so is missing") && e.contains("llvm-22-dev"),
            "{e}"
        );
    }
}
