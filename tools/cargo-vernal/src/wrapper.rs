//! What cargo calls in place of rustc: decides what a call builds and rewrites its arguments.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::ffi::{OsStr, OsString};
use std::hash::Hasher;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The folder of libvernal, from the front to the wrapper.
pub(crate) const DIR_VARIABLE: &str = "CARGO_VERNAL_DIR";
/// The pass, from the front to the wrapper.
pub(crate) const PASS_VARIABLE: &str = "CARGO_VERNAL_PASS";

/// What one rustc call builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A question, or metadata only.
    Nothing,
    /// A program, test, C library of the workspace: linked, instrumented.
    Program,
    /// A library that programs are made of.
    Library,
    /// A build script or procedural macro: runs while building.
    Tool,
    /// A shared library that rustc cannot link with LTO: `dylib`, or `cdylib` together with `rlib`.
    NoLto,
}

/// What a program is linked with.
#[derive(Debug, Clone)]
pub struct Link {
    /// Folder of libvernal.
    pub dir: PathBuf,
    /// The pass for rustc's LLVM.
    pub pass: PathBuf,
}

/// What the arguments of rustc build. `names_bin`: cargo says (in `CARGO_BIN_NAME`) that it is a binary of a package.
pub fn kind_of(args: &[OsString], names_bin: bool) -> Kind {
    let mut crate_name = String::new();
    let mut types = Vec::new();
    let mut test = false;
    let mut emit = None;
    let mut words = args.iter().map(|a| a.to_string_lossy());
    while let Some(word) = words.next() {
        let mut value = |name: &str| -> Option<String> {
            let rest = word.strip_prefix(name)?;
            if rest.is_empty() {
                words.next().map(|v| v.into_owned())
            } else {
                rest.strip_prefix('=').map(str::to_owned)
            }
        };
        if let Some(v) = value("--crate-name") {
            crate_name = v;
        } else if let Some(v) = value("--crate-type") {
            types.extend(v.split(',').map(str::to_owned));
        } else if let Some(v) = value("--emit") {
            emit = Some(v);
        } else if word == "--test" {
            test = true;
        }
    }
    let links = emit
        .as_deref()
        .is_none_or(|e| e.split(',').any(|e| e.split('=').next() == Some("link")));
    let is = |t: &str| types.iter().any(|x| x == t);
    if !links || crate_name.is_empty() || crate_name == "___" {
        Kind::Nothing
    } else if test {
        Kind::Program
    } else if is("proc-macro") || (!names_bin && crate_name.starts_with("build_script_")) {
        Kind::Tool
    } else if is("dylib") || (is("cdylib") && (is("rlib") || is("lib"))) {
        Kind::NoLto
    } else if is("bin") || is("cdylib") || is("staticlib") || types.is_empty() {
        Kind::Program
    } else {
        Kind::Library
    }
}

/// The arguments with which rustc builds the instrumented form of `kind`.
pub fn rewrite(args: &[OsString], kind: Kind, link: &Link) -> Vec<OsString> {
    match kind {
        Kind::Nothing => args.to_vec(),
        Kind::Library | Kind::NoLto => {
            // Both bitcode (for programs) and machine code (for build scripts): cargo drops one of them to save time.
            let mut out = without_codegen(args, &["embed-bitcode", "linker-plugin-lto", "lto"]);
            out.push("-Cembed-bitcode=yes".into());
            out
        }
        Kind::Tool => {
            // C code that a tool links may be instrumented: then it needs the library. At the end of the command line, where
            // libc has already given what tools use, it is dropped unless a hook refers to it.
            let [search, _, rpath] = library_arguments(link);
            let mut out = args.to_vec();
            out.extend([search, "-Clink-args=-Wl,--as-needed -lvernal".into(), rpath]);
            out
        }
        Kind::Program => {
            // Incremental compilation and LTO exclude each other.
            let mut out = without_codegen(
                args,
                &["embed-bitcode", "linker-plugin-lto", "lto", "incremental"],
            );
            out.extend(
                ["-Cembed-bitcode=yes", "-Clto=fat", "-Clinker-plugin-lto"].map(OsString::from),
            );
            let mut plugin = OsString::from("-Clink-arg=-Wl,--load-pass-plugin=");
            plugin.push(&link.pass);
            out.push(plugin);
            out.extend(library_arguments(link));
            out
        }
    }
}

/// `-l` on the command line puts libvernal in front of libc, so that its mmap, msync, ... are found first.
fn library_arguments(link: &Link) -> [OsString; 3] {
    let mut search = OsString::from("-Lnative=");
    search.push(&link.dir);
    let mut rpath = OsString::from("-Clink-args=-Xlinker -rpath -Xlinker ");
    rpath.push(&link.dir);
    [search, "-ldylib=vernal".into(), rpath]
}

/// `args` without `-C name[=value]` for the names given, in each of its spellings.
fn without_codegen(args: &[OsString], names: &[&str]) -> Vec<OsString> {
    let dropped = |option: &OsStr| {
        let text = option.to_string_lossy();
        let name = text.split('=').next().unwrap_or("").replace('_', "-");
        names.contains(&name.as_str())
    };
    let mut out = Vec::with_capacity(args.len());
    let mut words = args.iter().peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if matches!(text.as_ref(), "-C" | "--codegen") && words.peek().is_some_and(|o| dropped(o)) {
            words.next();
        } else if let Some(option) = text
            .strip_prefix("-C")
            .or_else(|| text.strip_prefix("--codegen="))
            && !option.is_empty()
            && dropped(OsStr::new(option))
        {
            // Dropped as a whole.
        } else {
            out.push(word.clone());
        }
    }
    out
}

/// Runs rustc for cargo: `args` are rustc's path and its arguments.
pub fn run(inner: &OsStr, args: &[OsString]) -> Result<ExitCode, String> {
    let Some((rustc, args)) = args.split_first() else {
        return Err(
            "called as RUSTC_WRAPPER without a compiler; run `cargo vernal build` instead"
                .to_owned(),
        );
    };
    let variable = |name: &str| {
        env::var_os(name).ok_or_else(|| format!("{name} is not set; run `cargo vernal` to set it"))
    };
    let link = Link {
        dir: variable(DIR_VARIABLE)?.into(),
        pass: variable(PASS_VARIABLE)?.into(),
    };
    let mut command = if inner.is_empty() {
        Command::new(rustc)
    } else {
        let mut command = Command::new(inner);
        command.arg(rustc);
        command
    };
    if args.iter().any(|a| a == "-vV") {
        return version(command, args, &link);
    }
    let kind = kind_of(args, env::var_os("CARGO_BIN_NAME").is_some());
    if kind == Kind::NoLto {
        eprintln!(
            "warning: cargo vernal: a crate of type \"dylib\", or \"cdylib\" together with \"rlib\", cannot be linked with \
             LTO, and its shared library is not instrumented; make \"cdylib\" the only type of a package of its own"
        );
    }
    let error = command.args(rewrite(args, kind, &link)).exec();
    Err(format!(
        "cannot run {}: {error}",
        command.get_program().display()
    ))
}

/// `rustc -vV` with one line more: cargo hashes all of it into its fingerprints, so that a new pass or a new wrapper
/// rebuilds what an old one has built.
fn version(mut command: Command, args: &[OsString], link: &Link) -> Result<ExitCode, String> {
    let output = command.args(args).stderr(Stdio::inherit()).output();
    let output =
        output.map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))?;
    let mut out = std::io::stdout().lock();
    let written = out.write_all(&output.stdout).and_then(|()| {
        writeln!(
            out,
            "vernal: {} {:016x}",
            env!("CARGO_PKG_VERSION"),
            content_hash(&link.pass)?
        )
    });
    written.map_err(|e| format!("{}: {e}", link.pass.display()))?;
    Ok(ExitCode::from(
        output
            .status
            .code()
            .and_then(|c| u8::try_from(c).ok())
            .unwrap_or(1),
    ))
}

fn content_hash(path: &Path) -> std::io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(&std::fs::read(path)?);
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn link() -> Link {
        Link {
            dir: "DIR".into(),
            pass: "DIR/pass.so".into(),
        }
    }

    #[test]
    fn what_a_call_builds() {
        for (line, names_bin, kind) in [
            ("-vV", false, Kind::Nothing),
            (
                "- --crate-name ___ --print=file-names --crate-type bin --crate-type rlib",
                false,
                Kind::Nothing,
            ),
            (
                "--crate-name a src/main.rs --crate-type bin --emit=dep-info,link",
                true,
                Kind::Program,
            ),
            (
                "--crate-name a src/main.rs --crate-type bin --emit=dep-info,metadata",
                true,
                Kind::Nothing,
            ),
            (
                "--crate-name a --crate-type bin --emit=dep-info,link=/x/a",
                false,
                Kind::Program,
            ),
            (
                "--crate-name a src/lib.rs --emit=dep-info,link --test",
                false,
                Kind::Program,
            ),
            (
                "--crate-name a src/lib.rs --crate-type lib --emit=dep-info,metadata,link",
                false,
                Kind::Library,
            ),
            (
                "--crate-name build_script_build build.rs --crate-type bin --emit=dep-info,link",
                false,
                Kind::Tool,
            ),
            (
                "--crate-name build_script_a main.rs --crate-type bin --emit=dep-info,link",
                true,
                Kind::Program,
            ),
            (
                "--crate-name m --crate-type proc-macro --emit=dep-info,link",
                false,
                Kind::Tool,
            ),
            (
                "--crate-name m --crate-type proc-macro --emit=dep-info,link --test",
                false,
                Kind::Program,
            ),
            (
                "--crate-name a --crate-type=cdylib --crate-type=rlib --emit=link",
                false,
                Kind::NoLto,
            ),
            (
                "--crate-name a --crate-type dylib --emit=link",
                false,
                Kind::NoLto,
            ),
        ] {
            assert_eq!(kind_of(&args(line), names_bin), kind, "{line}");
        }
    }

    #[test]
    fn libraries_keep_bitcode_and_machine_code() {
        let out = rewrite(
            &args(
                "--crate-type lib -C embed-bitcode=no -C linker-plugin-lto -C debuginfo=2 -C incremental=/x",
            ),
            Kind::Library,
            &link(),
        );
        assert_eq!(
            out,
            args("--crate-type lib -C debuginfo=2 -C incremental=/x -Cembed-bitcode=yes")
        );
    }

    #[test]
    fn programs_are_linked_as_a_whole() {
        let out = rewrite(
            &args(
                "--crate-type bin -Clto=thin --codegen lto=off -C embed_bitcode=no -C incremental=/x -Copt-level=0",
            ),
            Kind::Program,
            &link(),
        );
        let mut expected = args(
            "--crate-type bin -Copt-level=0 -Cembed-bitcode=yes -Clto=fat -Clinker-plugin-lto \
             -Clink-arg=-Wl,--load-pass-plugin=DIR/pass.so -Lnative=DIR -ldylib=vernal",
        );
        expected.push("-Clink-args=-Xlinker -rpath -Xlinker DIR".into());
        assert_eq!(out, expected);
    }

    #[test]
    fn tools_stay_as_they_are_but_for_a_library_they_may_need() {
        let out = rewrite(
            &args("--crate-type proc-macro -C embed-bitcode=no"),
            Kind::Tool,
            &link(),
        );
        let mut expected = args("--crate-type proc-macro -C embed-bitcode=no -Lnative=DIR");
        expected.push("-Clink-args=-Wl,--as-needed -lvernal".into());
        expected.push("-Clink-args=-Xlinker -rpath -Xlinker DIR".into());
        assert_eq!(out, expected);
    }

    #[test]
    fn questions_stay_as_they_are() {
        let question = args("- --print=cfg -C lto=thin");
        assert_eq!(rewrite(&question, Kind::Nothing, &link()), question);
    }
}
