//! Puts beside `vernal-cc` what belongs to it: `vernal-c++` (cargo cannot name a binary with `+`, so it is a link to the same
//! program, which looks at the name it was called by) and the folders `include-cxx` and `include`.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Some(out) = env::var_os("OUT_DIR") else {
        return;
    };
    // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out, the programs land in <target>/<profile>.
    let Some(profile) = Path::new(&out).ancestors().nth(3) else {
        return;
    };
    put_header(profile);
    put_interface(profile);
    put_link(profile);
}

/// vernal.h and its kin, so that a program compiles against this build before anything is installed.
fn put_interface(profile: &Path) {
    const HEADERS: &str = "../../runtime/capi/include";
    println!("cargo::rerun-if-changed={HEADERS}");
    let to = profile.join("include");
    let copied = fs::create_dir_all(&to).and_then(|()| {
        for entry in fs::read_dir(HEADERS)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    });
    if let Err(e) = copied {
        println!(
            "cargo::warning={}: {e}; vernal-cc will not find vernal.h",
            to.display()
        );
    }
}

fn put_header(profile: &Path) {
    const HEADER: &str = "include-cxx/bits/c++config.h";
    println!("cargo::rerun-if-changed={HEADER}");
    let to = profile.join(HEADER);
    let copied =
        fs::create_dir_all(to.parent().unwrap_or(profile)).and_then(|()| fs::copy(HEADER, &to));
    if let Err(e) = copied {
        println!(
            "cargo::warning={}: {e}; vernal-c++ will not find it",
            to.display()
        );
    }
}

fn put_link(profile: &Path) {
    let link = profile.join("vernal-c++");
    if fs::read_link(&link).is_ok_and(|to| to == Path::new("vernal-cc")) {
        return;
    }
    let _ = fs::remove_file(&link);
    if let Err(e) = symlink("vernal-cc", &link) {
        println!(
            "cargo::warning={}: {e}; make this link to vernal-cc by hand, or call `vernal-cc --driver-mode=g++`",
            link.display()
        );
    }
}
