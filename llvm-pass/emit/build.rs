//! Compiles the C++ shim against the headers of the LLVM that this plugin is for. Links no LLVM: the program that loads
//! the plugin has it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let version = package.rsplit('-').next().unwrap_or_default().to_owned();
    let emit = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../emit");
    let shim = emit.join("shim/shim.cpp");
    println!("cargo:rerun-if-changed={}", shim.display());
    println!("cargo:rerun-if-changed={}", emit.join("build.rs").display());
    println!("cargo:rerun-if-env-changed=VERNAL_LLVM_CONFIG_{version}");
    let config = env::var(format!("VERNAL_LLVM_CONFIG_{version}"))
        .unwrap_or(format!("llvm-config-{version}"));
    let include = match Command::new(&config).arg("--includedir").output() {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        Ok(out) => fail(&format!(
            "{config} --includedir failed: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        )),
        Err(e) => fail(&format!(
            "cannot run {config}: {e}. The headers of LLVM {version} are in the Debian package llvm-{version}-dev \
             (apt-get install llvm-{version}-dev), or set VERNAL_LLVM_CONFIG_{version}"
        )),
    };
    if !Path::new(&include).join("llvm/IR/Module.h").exists() {
        fail(&format!(
            "{include} has no LLVM headers: install the Debian package llvm-{version}-dev"
        ));
    }
    let out = PathBuf::from(env::var("OUT_DIR").unwrap_or_default());
    let object = out.join("shim.o");
    let compilers = [
        env::var("CXX").unwrap_or_default(),
        format!("clang++-{version}"),
        "g++".into(),
        "c++".into(),
    ];
    let Some(compiler) = compilers.iter().find(|c| !c.is_empty() && runs(c)) else {
        fail(&format!(
            "no C++ compiler: install the Debian package clang-{version} or g++"
        ));
    };
    let status = Command::new(compiler)
        .args([
            "-c",
            "-O2",
            "-fPIC",
            "-std=c++17",
            "-fno-exceptions",
            "-fno-rtti",
            "-fvisibility=hidden",
        ])
        .args([
            "-D_GNU_SOURCE",
            "-D__STDC_CONSTANT_MACROS",
            "-D__STDC_FORMAT_MACROS",
            "-D__STDC_LIMIT_MACROS",
        ])
        .args(["-Wall", "-Wno-unknown-warning-option", "-isystem", &include])
        .arg(&shim)
        .arg("-o")
        .arg(&object)
        .status();
    if !status.is_ok_and(|s| s.success()) {
        fail(&format!("{compiler} could not compile {}", shim.display()));
    }
    // An object rather than an archive: nothing in Rust refers to some of its symbols.
    println!("cargo:rustc-link-arg-cdylib={}", object.display());
    println!("cargo:rustc-link-arg-cdylib=-lstdc++");
}

fn runs(compiler: &str) -> bool {
    Command::new(compiler)
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success())
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(1)
}
