//! What a clang command line asks for, as far as Vernal must know: which inputs are compiled, where the work stops, what
//! is linked and by which linker.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Where the driver stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Nothing is compiled: a question (`--version`, `-print-...`) or no input.
    Query,
    /// `-E`, `-M`, `-fsyntax-only`, `--analyze`, ...: no code is generated.
    NoCode,
    /// `-S`, `-c`, `-emit-llvm`: code is generated but not linked.
    Object,
    /// A program, a shared library or (`-r`) a relocatable object is linked.
    Link,
}

/// Link-time optimisation asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lto {
    /// None.
    Off,
    /// `-flto`, `-flto=full`
    Full,
    /// `-flto=thin`
    Thin,
}

/// Debug information asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debug {
    /// None.
    Off,
    /// Lines only: `-g1`, `-gline-tables-only`; also what remarks of the optimiser need.
    Lines,
    /// `-g`
    Full,
}

/// How one input is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// C, Objective-C, LLVM IR, ...: goes through the optimiser.
    Compiled,
    /// The same, and its headers are the C++ library's.
    CompiledCxx,
    /// Assembly, with or without preprocessing.
    Assembly,
    /// An object, an archive or a library.
    Linked,
}

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Where the driver stops.
    pub stop: Stop,
    /// Some input goes through the optimiser.
    pub compiles: bool,
    /// Some input is C++.
    pub compiles_cxx: bool,
    /// The driver is `clang++`: links get the C++ library.
    pub cxx_driver: bool,
    /// Link-time optimisation.
    pub lto: Lto,
    /// Debug information.
    pub debug: Debug,
    /// `-fuse-ld=` or `--ld-path=`.
    pub linker: Option<String>,
    /// `-r`: the output is an object again.
    pub relocatable: bool,
    /// `-static`, `-static-pie`.
    pub static_program: bool,
    /// `-static-libstdc++`
    pub static_libstdcxx: bool,
    /// The option that keeps the standard libraries out (`-nostdlib`, `-nodefaultlibs`).
    pub no_libraries: Option<String>,
    /// `-lvernal` or a file named `libvernal...` is already among the inputs.
    pub links_vernal: bool,
    /// Another target than 64-bit x86 Linux, by the option that asks for it.
    pub foreign_target: Option<String>,
}

/// Options whose value is the next argument.
const TAKES_VALUE: &[&str] = &[
    "--config",
    "--include-directory",
    "--language",
    "--output",
    "--param",
    "--serialize-diagnostics",
    "--sysroot",
    "-A",
    "-B",
    "-D",
    "-F",
    "-I",
    "-L",
    "-MF",
    "-MJ",
    "-MQ",
    "-MT",
    "-T",
    "-Tbss",
    "-Tdata",
    "-Ttext",
    "-U",
    "-Xanalyzer",
    "-Xassembler",
    "-Xclang",
    "-Xcuda-ptxas",
    "-Xlinker",
    "-Xopenmp-target",
    "-Xpreprocessor",
    "-arch",
    "-aux-info",
    "-ccc-install-dir",
    "-current_version",
    "-dumpbase",
    "-dumpbase-ext",
    "-dumpdir",
    "-e",
    "-exported_symbols_list",
    "-framework",
    "-idirafter",
    "-imacros",
    "-imultilib",
    "-include",
    "-include-pch",
    "-index-store-path",
    "-install_name",
    "-iprefix",
    "-iquote",
    "-isysroot",
    "-isystem",
    "-isystem-after",
    "-ivfsoverlay",
    "-iwithprefix",
    "-iwithprefixbefore",
    "-l",
    "-mllvm",
    "-o",
    "-resource-dir",
    "-rpath",
    "-serialize-diagnostics",
    "-target",
    "-u",
    "-undefined",
    "-working-directory",
    "-x",
    "-z",
];

/// Options that answer a question and do no work, whatever else is given.
const QUERIES: &[&str] = &[
    "--autocomplete",
    "--help",
    "--help-hidden",
    "--print-",
    "--target-help",
    "--version",
    "-cc1",
    "-ccc-print-",
    "-dumpmachine",
    "-dumpversion",
    "-help",
    "-print-",
];

const NO_CODE: &[&str] = &[
    "--analyze",
    "--migrate",
    "--precompile",
    "--preprocess",
    "-E",
    "-M",
    "-MM",
    "-fsyntax-only",
    "-rewrite-objc",
];
const OBJECT: &[&str] = &["--assemble", "--compile", "-S", "-c", "-emit-llvm"];

impl Invocation {
    /// Parses clang's arguments (response files expanded, without the program's name). `cxx`: the driver is `clang++`.
    pub fn parse(args: &[OsString], cxx: bool) -> Self {
        let mut parser = Parser {
            out: Self {
                stop: Stop::Link,
                compiles: false,
                compiles_cxx: false,
                cxx_driver: false,
                lto: Lto::Off,
                debug: Debug::Off,
                linker: None,
                relocatable: false,
                static_program: false,
                static_libstdcxx: false,
                no_libraries: None,
                links_vernal: false,
                foreign_target: None,
            },
            cxx,
            language: None,
            inputs: 0,
            headers: 0,
            header_language: false,
            remarks: false,
        };
        parser.run(args);
        if parser.inputs == 0 {
            parser.out.stop = Stop::Query;
        }
        if parser.headers > 0 && parser.headers == parser.inputs {
            parser.out.stop = parser.out.stop.min(Stop::NoCode);
        }
        parser.out.cxx_driver = parser.cxx;
        if parser.remarks && parser.out.debug == Debug::Off {
            parser.out.debug = Debug::Lines;
        }
        parser.out
    }

    /// Whether the code generated by this command can be instrumented by it.
    pub fn generates_code(&self) -> bool {
        self.compiles && self.stop >= Stop::Object
    }

    /// Whether the linker is lld or left to us.
    pub fn linker_is_lld(&self) -> bool {
        self.linker
            .as_deref()
            .is_some_and(|l| l.rsplit('/').next().unwrap_or(l).contains("lld"))
    }
}

struct Parser {
    out: Invocation,
    cxx: bool,
    /// `-x LANGUAGE` for the inputs that follow.
    language: Option<Input>,
    inputs: usize,
    /// Inputs that become precompiled headers.
    headers: usize,
    /// `-x` named the language of a header.
    header_language: bool,
    /// The optimiser's remarks are wanted; they name lines.
    remarks: bool,
}

impl Parser {
    fn run(&mut self, args: &[OsString]) {
        let mut args = args.iter();
        let mut only_inputs = false;
        while let Some(arg) = args.next() {
            let text = arg.to_string_lossy();
            if only_inputs || text == "-" || !text.starts_with('-') {
                self.input(arg);
            } else if text == "--" {
                only_inputs = true;
            } else if TAKES_VALUE.contains(&text.as_ref()) {
                let value = args
                    .next()
                    .map(|v| v.to_string_lossy().into_owned())
                    .unwrap_or_default();
                self.with_value(&text, &value);
            } else {
                self.option(&text);
            }
        }
    }

    fn with_value(&mut self, option: &str, value: &str) {
        match option {
            "-x" | "--language" => self.set_language(value),
            "-l" => self.library(value),
            "-target" => self.target(option, value),
            "-Xlinker" => self.linker_option(value),
            _ => {}
        }
    }

    fn option(&mut self, text: &str) {
        if QUERIES.iter().any(|q| {
            if q.ends_with('-') {
                text.starts_with(q)
            } else {
                text == *q
            }
        }) {
            self.out.stop = Stop::Query;
        } else if NO_CODE.contains(&text) {
            self.out.stop = self.out.stop.min(Stop::NoCode);
        } else if OBJECT.contains(&text) {
            self.out.stop = self.out.stop.min(Stop::Object);
        } else if let Some(value) = text
            .strip_prefix("-fuse-ld=")
            .or_else(|| text.strip_prefix("--ld-path="))
        {
            self.out.linker = Some(value.to_owned());
        } else if let Some(value) = text.strip_prefix("-Wl,") {
            value.split(',').for_each(|v| self.linker_option(v));
        } else if let Some(value) = text.strip_prefix("--target=") {
            self.target("--target", value);
        } else if let Some(value) = text.strip_prefix("--language=") {
            self.set_language(value);
        } else if let Some(value) = text.strip_prefix("--driver-mode=") {
            self.cxx = value == "g++";
        } else if let Some(value) = text.strip_prefix("-x") {
            self.set_language(value);
        } else if let Some(value) = text.strip_prefix("-l") {
            self.library(value);
        } else {
            self.flag(text);
        }
    }

    fn flag(&mut self, text: &str) {
        match text {
            "-flto" | "-flto=full" | "-flto=auto" | "-flto=jobserver" => self.out.lto = Lto::Full,
            "-flto=thin" => self.out.lto = Lto::Thin,
            "-fno-lto" => self.out.lto = Lto::Off,
            "-g0" | "-ggdb0" => self.out.debug = Debug::Off,
            "-g1" | "-ggdb1" | "-gmlt" | "-gline-tables-only" | "-gline-directives-only" => {
                self.out.debug = Debug::Lines;
            }
            "-g" | "-g2" | "-g3" | "-gfull" | "-glldb" | "-gsce" | "-gdbx" => {
                self.out.debug = Debug::Full;
            }
            _ if text.starts_with("-ggdb") => self.out.debug = Debug::Full,
            _ if text.starts_with("-gdwarf") && self.out.debug == Debug::Off => {
                self.out.debug = Debug::Full;
            }
            _ if text.starts_with("-Rpass") || text.starts_with("-fsave-optimization-record") => {
                self.remarks = true;
            }
            "-r" => self.out.relocatable = true,
            "-static" | "--static" | "-static-pie" => self.out.static_program = true,
            "-static-libstdc++" => self.out.static_libstdcxx = true,
            "-nostdlib" | "--no-standard-libraries" | "-nodefaultlibs" => {
                self.out.no_libraries = Some(text.to_owned());
            }
            "-m32" | "-mx32" | "-m16" => self.out.foreign_target = Some(text.to_owned()),
            "-m64" => self.out.foreign_target = None,
            _ => {}
        }
    }

    fn linker_option(&mut self, value: &str) {
        match value {
            "-r" | "--relocatable" => self.out.relocatable = true,
            _ => {
                if let Some(name) = value.strip_prefix("-l") {
                    self.library(name);
                }
            }
        }
    }

    fn library(&mut self, name: &str) {
        self.inputs += 1;
        if matches!(name, "vernal" | ":libvernal.so" | ":libvernal.a") {
            self.out.links_vernal = true;
        }
    }

    fn target(&mut self, option: &str, triple: &str) {
        let known =
            triple.starts_with("x86_64-") && triple.contains("linux") && !triple.ends_with("x32");
        self.out.foreign_target = (!known).then(|| format!("{option}={triple}"));
    }

    fn set_language(&mut self, language: &str) {
        self.header_language = language.ends_with("-header");
        self.language = match language {
            "none" => None,
            "assembler" | "assembler-with-cpp" => Some(Input::Assembly),
            l if l.contains("c++") => Some(Input::CompiledCxx),
            _ => Some(Input::Compiled),
        };
    }

    fn input(&mut self, arg: &OsStr) {
        self.inputs += 1;
        let path = Path::new(arg);
        if path
            .file_name()
            .is_some_and(|n| n == "libvernal.so" || n == "libvernal.a")
        {
            self.out.links_vernal = true;
        }
        self.headers += usize::from(match self.language {
            Some(_) => self.header_language,
            None => is_header(path),
        });
        let kind = match self.language {
            Some(language) => language,
            None => by_extension(path),
        };
        // clang++ takes C and LLVM IR for what they are, except `.c`, which it compiles as C++.
        let is_c =
            self.language.is_none() && path.extension().is_some_and(|e| e == "c" || e == "i");
        match kind {
            Input::CompiledCxx => (self.out.compiles, self.out.compiles_cxx) = (true, true),
            Input::Compiled => {
                self.out.compiles = true;
                self.out.compiles_cxx |= self.cxx && is_c;
            }
            Input::Assembly | Input::Linked => {}
        }
    }
}

/// clang precompiles these, whatever else it is asked for.
fn is_header(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or("");
    matches!(extension, "h" | "H" | "hh" | "hpp" | "hxx" | "tcc")
}

fn by_extension(path: &Path) -> Input {
    if path == Path::new("-") {
        // Standard input has no language without -x: only preprocessing is allowed.
        return Input::Compiled;
    }
    match path.extension().and_then(OsStr::to_str).unwrap_or("") {
        "c" | "i" | "m" | "mi" | "ll" | "bc" | "cl" | "h" => Input::Compiled,
        "C" | "CPP" | "CXX" | "c++" | "c++m" | "cc" | "ccm" | "cp" | "cpp" | "cppm" | "cxx"
        | "cxxm" | "cu" | "H" | "hh" | "hpp" | "hxx" | "ii" | "iim" | "M" | "mii" | "mm"
        | "tcc" => Input::CompiledCxx,
        "s" | "S" | "sx" | "asm" => Input::Assembly,
        _ => Input::Linked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Invocation {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Invocation::parse(&args, false)
    }

    #[test]
    fn where_it_stops() {
        for (line, stop) in [
            ("", Stop::Query),
            ("-v", Stop::Query),
            ("--version a.c", Stop::Query),
            ("-print-search-dirs", Stop::Query),
            ("-dumpmachine", Stop::Query),
            ("-O2 -Wall", Stop::Query),
            ("-o out", Stop::Query),
            ("-E a.c", Stop::NoCode),
            ("-E -c a.c", Stop::NoCode),
            ("-c -MM a.c", Stop::NoCode),
            ("-fsyntax-only a.c", Stop::NoCode),
            ("-MD -MF a.d -MT a.o -c a.c -o a.o", Stop::Object),
            ("-S a.c", Stop::Object),
            ("-S -emit-llvm a.c", Stop::Object),
            ("-x c -", Stop::Link),
            ("a.h", Stop::NoCode),
            ("-x c++-header a.in -o a.pch", Stop::NoCode),
            ("-x c a.h", Stop::Link),
            ("a.h b.c -c", Stop::Object),
            ("a.c", Stop::Link),
            ("a.o -o a", Stop::Link),
            ("-shared a.o -o liba.so", Stop::Link),
            ("-lfoo", Stop::Link),
            ("-### a.c", Stop::Link),
        ] {
            assert_eq!(parse(line).stop, stop, "{line}");
        }
    }

    #[test]
    fn what_is_compiled() {
        for (line, code) in [
            ("-c a.c", true),
            ("-c a.cpp", true),
            ("-c a.s", false),
            ("-c a.S", false),
            ("-x assembler -c a.c", false),
            ("-x assembler-with-cpp -c -", false),
            ("-x c -", true),
            ("-xc++ -c -", true),
            ("-x c a.txt -x none b.o", true),
            ("-c -- -odd.c", true),
            ("a.o b.a c.so -lm", false),
            ("libfoo.so.1", false),
            ("-E a.c", false),
            ("-include pre.c -o a.c b.o", false),
            ("a.ll -c", true),
        ] {
            assert_eq!(parse(line).generates_code(), code, "{line}");
        }
    }

    #[test]
    fn which_language() {
        let cxx = |line: &str, driver: bool| {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            Invocation::parse(&args, driver).compiles_cxx
        };
        for (line, driver, expected) in [
            ("-c a.c", false, false),
            ("-c a.c", true, true),
            ("-x c -c a.c", true, false),
            ("-c a.cc", false, true),
            ("-x c++ -c a.c", false, true),
            ("--driver-mode=g++ -c a.c", false, true),
            ("-c a.ll", true, false),
            ("a.o", true, false),
        ] {
            assert_eq!(cxx(line, driver), expected, "{line} {driver}");
        }
    }

    #[test]
    fn link_options() {
        assert_eq!(parse("-flto a.c").lto, Lto::Full);
        assert_eq!(parse("-flto=thin a.c").lto, Lto::Thin);
        assert_eq!(parse("-flto=auto -fno-lto a.c").lto, Lto::Off);
        assert!(parse("-r a.o b.o -o c.o").relocatable);
        assert!(parse("-Wl,-r a.o b.o -o c.o").relocatable);
        assert!(parse("a.o -Wl,-z,now -lvernal").links_vernal);
        assert!(parse("a.o -Xlinker -lvernal").links_vernal);
        assert!(parse("a.o /usr/lib/libvernal.so").links_vernal);
        assert!(parse("-static a.c").static_program);
        assert_eq!(
            parse("-nostdlib a.o").no_libraries.as_deref(),
            Some("-nostdlib")
        );
        assert!(parse("-fuse-ld=lld a.o").linker_is_lld());
        assert!(parse("--ld-path=/opt/bin/ld.lld a.o").linker_is_lld());
        assert!(!parse("--ld-path=/opt/lld/ld.bfd a.o").linker_is_lld());
    }

    #[test]
    fn other_targets_are_named() {
        assert_eq!(parse("-m32 -c a.c").foreign_target.as_deref(), Some("-m32"));
        assert_eq!(parse("-m32 -m64 -c a.c").foreign_target, None);
        assert_eq!(
            parse("--target=x86_64-pc-linux-gnu -c a.c").foreign_target,
            None
        );
        assert_eq!(
            parse("-target aarch64-linux-gnu -c a.c")
                .foreign_target
                .as_deref(),
            Some("-target=aarch64-linux-gnu")
        );
    }
}
