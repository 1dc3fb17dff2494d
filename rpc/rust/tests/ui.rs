//! Programs that must not compile, each for the reason that it states.
//!
//! Messages are those of the compiler that the workspace names; `TRYBUILD=overwrite` writes them anew.

#[test]
fn what_must_not_compile_does_not() {
    let tests = trybuild::TestCases::new();
    tests.compile_fail("ui/*.rs");
}
