//! Server and client of the attacks on sandboxes.

fn main() -> std::process::ExitCode {
    vernal_rpc_tests::guarded::main()
}
