//! `cargo vernal` on small packages: programs, tests and C libraries are instrumented, build scripts and macros are not.
//! The tests need libvernal and the pass beside the program or in the release folder next to it; else they are skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

struct Package {
    dir: TempDir,
    libraries: PathBuf,
}

impl Package {
    fn new(files: &[(&str, &str)]) -> Option<Self> {
        let built = Path::new(env!("CARGO_BIN_EXE_cargo-vernal"))
            .parent()
            .unwrap()
            .to_owned();
        let release = built.parent().unwrap().join("release");
        let complete = |dir: &Path| {
            ["libvernal.so", "libvernal_pass_22.so"]
                .iter()
                .all(|n| dir.join(n).exists())
        };
        let Some(libraries) = [built, release].into_iter().find(|d| complete(d)) else {
            eprintln!("skipped: no libvernal.so and pass; run `cargo build --release` first");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Some(Self { dir, libraries })
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vernal"));
        command
            .current_dir(self.dir.path())
            .arg("vernal")
            .args(arguments);
        for variable in [
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "CARGO_MANIFEST_DIR",
        ] {
            command.env_remove(variable);
        }
        command
            .env("CARGO_NET_OFFLINE", "true")
            .env("VERNAL_LIBDIR", &self.libraries)
            .output()
            .unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "cargo vernal {arguments:?}: {}\n{out}\n{err}",
            output.status
        );
        out.into_owned()
    }

    /// Whether the file below the target folder is linked with libvernal.
    fn links_vernal(&self, file: &str) -> bool {
        let path = self.dir.path().join("target/vernal").join(file);
        let output = Command::new("readelf")
            .arg("-d")
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", path.display());
        String::from_utf8_lossy(&output.stdout).contains("[libvernal.so]")
    }
}

const MANIFEST: &str = "[package]\nname = \"p\"\nversion = \"0.1.0\"\nedition = \"2024\"\nbuild = \"build.rs\"\n[dependencies]\nm = { \
                        path = \"m\" }\nl = { path = \"l\" }\n[build-dependencies]\nl = { path = \"l\" }\n[workspace]\n";
const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", MANIFEST),
    (
        "build.rs",
        "fn main() { println!(\"cargo::rustc-env=ANSWER={}\", l::answer()); c(); }\nfn c() { let out = std::env::var(\"OUT_DIR\").unwrap(); let cc = std::env::var(\"CC\").unwrap_or(\"cc\".into()); let run = |p: &str, a: &[&str]| assert!(std::process::Command::new(p).current_dir(&out).args(a).status().unwrap().success()); std::fs::write(format!(\"{out}/c.c\"), \"void set(long *p) { *p = 2; }\").unwrap(); run(&cc, &[\"-O2\", \"-c\", \"c.c\"]); run(\"ar\", &[\"rcs\", \"libc_part.a\", \"c.o\"]); println!(\"cargo::rustc-link-search=native={out}\\ncargo::rustc-link-lib=static=c_part\"); }\n",
    ),
    (
        "src/main.rs",
        "unsafe extern \"C\" { fn set(p: *mut u64); }\nfn main() { let mut v = vec![m::two!()]; unsafe { set(&mut v[0]) }; v.push(l::answer()); println!(\"{} {}\", v.iter().sum::<u64>(), env!(\"ANSWER\")); }\n#[test]\nfn sum() { assert_eq!(l::answer(), 40); }\n",
    ),
    (
        "l/Cargo.toml",
        "[package]\nname = \"l\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
    ),
    (
        "l/src/lib.rs",
        "pub fn answer() -> u64 { let mut s = String::new(); s.push_str(\"40\"); s.parse().unwrap() }\n",
    ),
    (
        "m/Cargo.toml",
        "[package]\nname = \"m\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\nproc-macro = true\n",
    ),
    (
        "m/src/lib.rs",
        "use proc_macro::TokenStream;\n#[proc_macro]\npub fn two(_: TokenStream) -> TokenStream { \"2u64\".parse().unwrap() }\n",
    ),
];

#[test]
fn programs_and_tests_of_a_workspace() {
    let Some(p) = Package::new(FILES) else { return };
    assert_eq!(p.run(&["run"]).trim(), "42 40");
    assert!(p.links_vernal("debug/p"));
    assert!(p.run(&["test"]).contains("1 passed"));
    // Nothing has changed: nothing is built again.
    let again = p.output(&["build"]);
    assert!(
        !String::from_utf8_lossy(&again.stderr).contains("Compiling"),
        "{again:?}"
    );
    let build = p.dir.path().join("target/vernal/debug/build");
    let script = fs::read_dir(build)
        .unwrap()
        .flatten()
        .map(|e| e.path().join("build-script-build"))
        .find(|b| b.exists());
    let script = script.expect("a build script was built");
    let relative = script
        .strip_prefix(p.dir.path().join("target/vernal"))
        .unwrap();
    assert!(!p.links_vernal(relative.to_str().unwrap()));
}

#[test]
fn lto_settings_of_the_package_do_not_matter() {
    let manifest = format!(
        "{MANIFEST}[profile.release]\nlto = \"thin\"\nincremental = true\npanic = \"abort\"\nstrip = true\n"
    );
    let mut files = FILES.to_vec();
    files[0] = ("Cargo.toml", &manifest);
    let Some(p) = Package::new(&files) else {
        return;
    };
    assert_eq!(p.run(&["run", "--release"]).trim(), "42 40");
    assert!(p.links_vernal("release/p"));
}

#[test]
fn what_is_wrong_is_named() {
    let Some(p) = Package::new(FILES) else { return };
    let says = |output: Output, text: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(text),
            "{stderr}"
        );
    };
    says(p.output(&["bild"]), "unknown subcommand bild");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vernal"));
    says(
        command
            .args(["vernal", "build"])
            .env("VERNAL_LIBDIR", p.dir.path())
            .output()
            .unwrap(),
        "libvernal_pass_22.so is missing",
    );
    let help = p.run(&["--help"]);
    assert!(help.contains("cargo vernal build|run|test"), "{help}");
}
