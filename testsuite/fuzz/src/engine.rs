//! The fuzzer itself: LLVM's libFuzzer around the target that `VERNAL_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;
use vernal_fuzz::Target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("VERNAL_FUZZ_TARGET").unwrap_or_default();
        vernal_fuzz::find(&name).unwrap_or_else(|| {
            eprintln!("VERNAL_FUZZ_TARGET={name}: there is no such target");
            std::process::exit(2)
        })
    });
    (target.run)(bytes)
});
