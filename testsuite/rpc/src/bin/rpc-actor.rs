//! A server and client process that does what it is told, line by line.

fn main() -> std::process::ExitCode {
    vernal_rpc_tests::actor::main()
}
