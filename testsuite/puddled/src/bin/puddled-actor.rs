//! A client process that does what it is told, line by line.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    vernal_puddled_tests::actor::main()
}
