//! Says where libvernal.so is: `VERNAL_LIBDIR`, else this build's own output folder.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=VERNAL_LIBDIR");
    let dir = match env::var_os("VERNAL_LIBDIR").filter(|d| !d.is_empty()) {
        Some(dir) => Some(PathBuf::from(dir)),
        // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out.
        None => env::var_os("OUT_DIR")
            .and_then(|out| Path::new(&out).ancestors().nth(3).map(Path::to_owned)),
    };
    if let Some(dir) = dir {
        println!("cargo::rustc-link-search=native={}", dir.display());
        println!("cargo::metadata=libdir={}", dir.display());
    }
    println!("cargo::rustc-link-lib=dylib=vernal");
}
