//! gRPC in C++: `cpp/grpc.cc`, compiled when the benchmark starts.

use crate::{Failure, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The program, built when its sources are newer; `out` is the folder for what is generated.
pub fn command(out: &Path) -> Result<Command> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = out.join("grpc");
    let sources = [
        here.join("cpp/grpc.cc"),
        here.join("cpp/worker.hpp"),
        here.join("cpp/store.hpp"),
        here.join("schema/bench.proto"),
    ];
    let newest = sources.iter().map(|s| modified(s)).max().flatten();
    if modified(&program).is_none() || modified(&program) < newest {
        build(here, out, &program)?;
    }
    Ok(Command::new(program))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn build(here: &Path, out: &Path, program: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| Failure(format!("{}: {e}", out.display())))?;
    let plugin = on_path("grpc_cpp_plugin")?;
    let mut protoc = Command::new(on_path("protoc")?);
    protoc
        .arg("-I")
        .arg(here.join("schema"))
        .arg("--cpp_out")
        .arg(out)
        .arg("--grpc_out")
        .arg(out)
        .arg(format!(
            "--plugin=protoc-gen-grpc={}",
            plugin.to_string_lossy()
        ))
        .arg("bench.proto");
    run(protoc)?;
    let flags = Command::new("pkg-config")
        .args(["--cflags", "--libs", "grpc++", "protobuf"])
        .output()
        .map_err(|e| Failure(format!("pkg-config: {e}")))?;
    let flags = String::from_utf8_lossy(&flags.stdout).into_owned();
    let mut compiler = Command::new("g++");
    compiler
        .args(["-O2", "-std=gnu++17", "-I"])
        .arg(out)
        .arg("-I")
        .arg(here.join("cpp"))
        .arg(here.join("cpp/grpc.cc"))
        .arg(out.join("bench.pb.cc"))
        .arg(out.join("bench.grpc.pb.cc"))
        .arg("-o")
        .arg(program)
        .args(flags.split_whitespace())
        .arg("-lpthread");
    run(compiler)
}

fn on_path(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Failure(format!(
                "no {name} on PATH: install Debian's packages libgrpc++-dev and protobuf-compiler-grpc"
            ))
        })
}

fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|e| Failure(format!("{shown}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure(format!(
        "{shown}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}
