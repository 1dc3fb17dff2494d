//! `vernal-cc` where clang would stand: every kind of call that build systems make of a compiler. The tests need clang and,
//! beside the driver, libvernal and the pass; what is not there is named, and the test is skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

struct Bench {
    dir: TempDir,
    driver: PathBuf,
    libraries: PathBuf,
}

impl Bench {
    /// None, with a line that says so, when something is missing.
    fn new() -> Option<Self> {
        let driver = PathBuf::from(env!("CARGO_BIN_EXE_vernal-cc"));
        let built = driver.parent().unwrap().to_owned();
        // `cargo test` builds the driver, but not the libraries; a release build beside it has them.
        let release = built.parent().unwrap().join("release");
        let complete = |dir: &Path| {
            [
                "libvernal.so",
                "libvernal.a",
                "libvernal_pass_22.so",
                "include-cxx",
            ]
            .iter()
            .all(|n| dir.join(n).exists())
        };
        let Some(libraries) = [built, release].into_iter().find(|d| complete(d)) else {
            eprintln!("skipped: no libvernal.so and pass; run `cargo build --release` first");
            return None;
        };
        if Command::new("clang-22").arg("--version").output().is_err() {
            eprintln!("skipped: no clang-22");
            return None;
        }
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            driver,
            libraries,
        };
        bench.write("a.c", "int answer(void);\nint main(int c, char **v) { static int x; x = c; (void)v; return answer() - 42 + x - c; }\n");
        bench.write(
            "b.c",
            "#include \"b.h\"\nint answer(void) { static int n; n += 42; return n; }\n",
        );
        bench.write("b.h", "int answer(void);\n");
        bench.write(
            "m.cpp",
            "#include <map>\n#include <string>\n#include <iostream>\nint main() { std::map<std::string, int> m; m[\"a\"] = 1; \
             std::cout << m.size() << std::endl; return m.size() != 1; }\n",
        );
        bench.write(
            "s.s",
            ".globl nothing\nnothing: ret\n.section .note.GNU-stack,\"\",@progbits\n",
        );
        Some(bench)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &Path, line: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .args(line.split_whitespace());
        command
            .env("VERNAL_LIBDIR", &self.libraries)
            .env_remove("VERNAL_CLANG")
            .env_remove("VERNAL_LLVM");
        command
    }

    fn cc_with(&self, line: &str) -> Output {
        self.command(&self.driver, line).output().unwrap()
    }

    /// Runs the driver; it must succeed and print nothing on standard error.
    fn cc(&self, line: &str) -> String {
        let output = self.cc_with(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && stderr.is_empty(),
            "vernal-cc {line}: {}\n{stderr}",
            output.status
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn clang(&self, line: &str) -> String {
        let output = self.command(Path::new("clang-22"), line).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a program that was built; it must succeed.
    fn works(&self, name: &str) -> String {
        let output = Command::new(self.path(name)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether the file refers to the runtime: the name of a hook or of the ABI is in it.
    fn instrumented(&self, name: &str) -> bool {
        let bytes = fs::read(self.path(name)).unwrap();
        bytes.windows(9).any(|w| w == b"__vernal_")
    }
}

#[test]
fn questions_are_answered_as_by_clang() {
    let Some(b) = Bench::new() else { return };
    for line in [
        "--version",
        "-dumpversion",
        "-dumpmachine",
        "-print-search-dirs",
        "-print-libgcc-file-name",
        "-E -dM -x c /dev/null",
    ] {
        assert_eq!(b.cc(line), b.clang(line), "{line}");
    }
    assert_eq!(b.cc("-E a.c"), b.clang("-E a.c"));
    assert_eq!(b.cc("-M b.c"), b.clang("-M b.c"));
    assert_eq!(b.cc("-MM -MT x.o b.c"), b.clang("-MM -MT x.o b.c"));
    let shown = b.cc_with("-### -E a.c");
    assert!(
        shown.status.success() && !String::from_utf8_lossy(&shown.stderr).contains("fpass-plugin"),
        "{shown:?}"
    );
}

#[test]
fn steps_one_by_one() {
    let Some(b) = Bench::new() else { return };
    b.cc("-O2 -Wall -Wextra -Werror -c a.c");
    b.cc("-O0 -MMD -MF b.d -c b.c -o b.o");
    assert!(b.path("b.d").exists());
    assert!(b.instrumented("a.o") && b.instrumented("b.o"));
    b.cc("a.o b.o -o two");
    b.works("two");
    b.cc("-S b.c -o b.S");
    assert!(
        fs::read_to_string(b.path("b.S"))
            .unwrap()
            .contains("__vernal_")
    );
    b.cc("-c b.S -o b2.o");
    b.cc("-c s.s");
    assert!(!b.instrumented("s.o"));
    b.cc("a.o b2.o s.o -Wl,--as-needed -lm -o three");
    b.works("three");
    b.cc("-r a.o b.o -o both.o");
    b.cc("both.o -o four");
    b.works("four");
    b.cc("-c --vernal-no-pass a.c -o plain.o");
    assert!(!b.instrumented("plain.o"));
}

#[test]
fn standard_input_and_response_files() {
    let Some(b) = Bench::new() else { return };
    b.write("args", "-O1 \"a.c\"\n  b.c -o 'from file'\n");
    b.cc("@args");
    b.works("from file");
    let mut child = b
        .command(&b.driver, "-x c - -c -o stdin.o")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(
        &mut child.stdin.take().unwrap(),
        b"int x; void f(int *p) { *p = x; }",
    )
    .unwrap();
    assert!(child.wait().unwrap().success());
    assert!(b.instrumented("stdin.o"));
}

#[test]
fn shared_libraries_and_static_runtime() {
    let Some(b) = Bench::new() else { return };
    b.cc("-fPIC -shared b.c -o libb.so");
    b.cc("a.c -L. -lb -Wl,-rpath,$ORIGIN -o shared");
    b.works("shared");
    b.cc("--vernal-static a.c b.c -o static");
    let output = Command::new("ldd").arg(b.path("static")).output().unwrap();
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains("libvernal"),
        "{output:?}"
    );
    b.works("static");
}

#[test]
fn link_time_optimisation() {
    let Some(b) = Bench::new() else { return };
    for mode in ["-flto", "-flto=thin"] {
        b.cc(&format!("-O2 {mode} -c a.c"));
        b.cc(&format!("-O2 {mode} -c b.c"));
        b.cc(&format!("-O2 {mode} a.o b.o -o lto"));
        assert!(b.instrumented("lto"), "{mode}");
        b.works("lto");
        b.cc(&format!("-O2 {mode} a.c b.c -o once"));
        b.works("once");
    }
    b.cc("-O2 -flto -ffat-lto-objects -c a.c b.c");
    b.cc("a.o b.o -o native-half");
    b.works("native-half");
    b.cc("-flto a.o b.o -o bitcode-half");
    b.works("bitcode-half");
    // Without the driver, and so without the pass, uninstrumented bitcode must not link in silence.
    b.cc("-O2 -flto -c a.c b.c");
    let line = format!(
        "-flto -fuse-ld=lld a.o b.o -L{} -lvernal -o silent",
        b.libraries.display()
    );
    assert!(
        !b.command(Path::new("clang-22"), &line)
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn cxx_programs() {
    let Some(b) = Bench::new() else { return };
    for level in ["-O0", "-O2", "-O2 -flto"] {
        b.cc(&format!("--driver-mode=g++ {level} m.cpp -o m"));
        assert_eq!(b.works("m"), "1\n", "{level}");
    }
    // Strings come from the program, not from libstdc++.so.
    b.write("t.cpp", "#include <string>\nvoid f(std::string &s, const char *t) { s += t; s.insert(0, 3, 'x'); }\n");
    b.cc("-std=c++17 -O2 -c t.cpp");
    let output = Command::new("nm")
        .args(["-u", "-C"])
        .arg(b.path("t.o"))
        .output()
        .unwrap();
    let undefined = String::from_utf8_lossy(&output.stdout);
    assert!(
        !undefined.contains("std::__cxx11::basic_string"),
        "{undefined}"
    );
}

#[test]
fn probes_of_configure_and_errors() {
    let Some(b) = Bench::new() else { return };
    b.write("conftest.c", "#ifdef __cplusplus\nextern \"C\"\n#endif\nchar no_such_function(void); int main(void) { return no_such_function(); }\n");
    assert!(!b.cc_with("conftest.c -o conftest").status.success());
    b.write("conftest.c", "int main(void) { return 0; }\n");
    b.cc("-o conftest -g -O2 conftest.c");
    b.works("conftest");
    assert!(!b.cc_with("-c no-such-file.c").status.success());
    assert!(!b.cc_with("").status.success());
    let output = b.cc_with("-m32 -c a.c");
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("-m32: Vernal tracks stores on 64-bit x86"),
        "{output:?}"
    );
    let output = b.cc_with("-nostdlib -shared b.c -o nolibc.so");
    assert!(
        output.status.success()
            && String::from_utf8_lossy(&output.stderr).contains("libvernal is not linked"),
        "{output:?}"
    );
    let output = b
        .command(&b.driver, "-c a.c")
        .env("VERNAL_LIBDIR", b.dir.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains("libvernal_pass_22.so is missing"),
        "{stderr}"
    );
    let output = b
        .command(&b.driver, "-c a.c")
        .env("VERNAL_LLVM", "7")
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("VERNAL_LLVM=7"),
        "{output:?}"
    );
    let output = b
        .command(&b.driver, "-c a.c")
        .env("VERNAL_CLANG", "/no/clang")
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("VERNAL_CLANG=/no/clang"),
        "{output:?}"
    );
}

#[test]
fn the_command_and_the_statistics_can_be_seen() {
    let Some(b) = Bench::new() else { return };
    let shown = b.cc("--vernal-show -O2 a.c b.c -o x");
    assert!(
        shown.contains("-fpass-plugin=") && shown.trim_end().ends_with("-O2 a.c b.c -o x"),
        "{shown}"
    );
    assert!(!b.path("x").exists());
    assert!(b.cc("--vernal-help").contains("--vernal-static"));
    let output = b.cc_with("--vernal-skips -O2 -c b.c");
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stderr).contains("{"),
        "{output:?}"
    );
}

#[test]
fn types_of_allocations_need_no_debug_information() {
    let Some(b) = Bench::new() else { return };
    b.write(
        "pool.c",
        "#ifdef __clang__\n__declspec(allocator)\n#endif\nvoid *__vn_new(void *, unsigned long, const void *);\n\
         struct node { struct node *next; long key; };\n\
         struct node *make(void *pool) { return (struct node *)__vn_new(pool, sizeof(struct node), 0); }\n",
    );
    let sections = |name: &str| {
        let mut command = Command::new("readelf");
        let output = command.arg("-SW").arg(b.path(name)).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for level in ["-O0", "-O2", "-O2 -g0", "-O2 -flto -ffat-lto-objects"] {
        b.cc(&format!("{level} -c pool.c"));
        let found = sections("pool.o");
        assert!(found.contains(" vernal_types "), "{level}: {found}");
        assert!(!found.contains(".debug"), "{level}: {found}");
        assert!(b.instrumented("pool.o"));
    }
    b.cc("-O2 -g1 -c pool.c");
    let found = sections("pool.o");
    assert!(found.contains(" vernal_types ") && found.contains(".debug_line"));
    let mut command = Command::new("llvm-dwarfdump-22");
    let output = command.arg(b.path("pool.o")).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("DW_TAG_structure_type"));
    b.cc("-O2 -g -c pool.c");
    assert!(sections("pool.o").contains(".debug_info"));
    // Preprocessed elsewhere, compiled here.
    b.write("pool.i", &b.cc("-E pool.c"));
    b.cc("-O2 -c pool.i");
    assert!(sections("pool.o").contains(" vernal_types "));
    // What has no such allocation is compiled to the same bytes.
    for level in ["-O0", "-O2"] {
        b.cc(&format!("{level} -c b.c -o with.o"));
        b.cc(&format!("{level} --vernal-no-types -c b.c -o without.o"));
        let read = |name: &str| fs::read(b.path(name)).unwrap();
        assert_eq!(read("with.o"), read("without.o"), "{level}");
    }
    let said = b.cc("--vernal-print-types -c pool.c");
    assert!(
        said.contains("node: 16 bytes, aligned to 8")
            && said.contains("+0 next: pointer to node")
            && said.contains("{\"type\":\"node\""),
        "{said}"
    );
}

#[test]
fn precompiled_headers() {
    let Some(b) = Bench::new() else { return };
    b.write("p.h", "struct node { struct node *next; };\n");
    b.write(
        "p.c",
        "void f(struct node *n) { n->next = n; }\nint main(void) { return 0; }\n",
    );
    for level in ["-O2", "-O2 -g"] {
        b.cc(&format!("{level} p.h -o p.h.gch"));
        b.cc(&format!("{level} -include p.h -c p.c"));
        assert!(b.instrumented("p.o"));
        b.cc(&format!("{level} -x c++-header p.h -o p.pch"));
        b.cc(&format!("{level} -x c++ -include-pch p.pch -c p.c"));
    }
}
