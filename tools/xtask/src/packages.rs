//! The Debian packages that each command needs, and their installation.
//!
//! Sources are as on a stock Debian 12: LLVM 22 and 19 come from the security suite and main. Nothing is enabled or
//! pinned; a package that apt does not know yet is looked up again after one `apt-get update`.

use crate::{Result, ui::Ui};
use std::process::{Command, Stdio};

/// What a package is needed for; a command names the groups that it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Building the tools, and compiling programs with vernal-cc.
    Toolchain,
    /// Building the pass for LLVM 19 as well, and its tests.
    Llvm19,
    /// The tests of the pass.
    FileCheck,
    /// The systems that `bench persist` compares with.
    Peers,
    /// The systems that `bench rpc` compares with.
    RpcPeers,
    /// The real programs that the tests build.
    Programs,
    /// The page of `vernal inspect` in a real browser. Its tests are skipped, and counted so, where there is none.
    Browser,
    /// Power cuts in a guest of QEMU: `soak power`.
    Guest,
}

/// One row: package, the groups that need it, and why.
struct Package {
    name: &'static str,
    groups: &'static [Group],
    why: &'static str,
}

const fn package(name: &'static str, groups: &'static [Group], why: &'static str) -> Package {
    Package { name, groups, why }
}

use Group::{Browser, FileCheck, Guest, Llvm19, Peers, Programs, RpcPeers, Toolchain};

/// Every package that any command needs. Rust itself, and the C linker that Rust needs, are given.
#[rustfmt::skip]
const PACKAGES: &[Package] = &[
    package("clang-22",             &[Toolchain], "the compiler that vernal-cc drives"),
    package("lld-22",               &[Toolchain], "its linker; LTO loads the pass through it"),
    package("llvm-22-dev",          &[Toolchain], "headers for the pass's C++ shim"),
    package("libclang-rt-22-dev",   &[Toolchain], "sanitizer runtimes, so that programs can be built with -fsanitize"),
    package("g++",                  &[Toolchain], "the C++ library, and the compiler of the shim"),
    package("pkg-config",           &[Toolchain, Peers, RpcPeers], "finds the peers' libraries; tests of vernal.pc"),
    package("clang-19",             &[Llvm19],    "the pass also supports LLVM 19"),
    package("lld-19",               &[Llvm19],    "LTO with LLVM 19"),
    package("llvm-19-dev",          &[Toolchain, Llvm19], "headers for the shim of the pass for LLVM 19, which a full build makes too"),
    package("llvm-22",              &[FileCheck], "opt, to run the pass on one .ll file"),
    package("llvm-22-tools",        &[FileCheck], "FileCheck"),
    package("llvm-19",              &[Llvm19],    "opt for LLVM 19"),
    package("llvm-19-tools",        &[Llvm19],    "FileCheck for LLVM 19"),
    package("libpmemobj-dev",       &[Peers],     "peer: PMDK"),
    package("libpmem-dev",          &[Peers],     "peer: PMDK"),
    package("liblmdb-dev",          &[Peers],     "peer: LMDB"),
    package("libsqlite3-dev",       &[Peers],     "peer: SQLite"),
    package("libkyotocabinet-dev",  &[Peers],     "peer: Kyoto Cabinet"),
    package("libgrpc++-dev",        &[RpcPeers],  "peer: gRPC in C++"),
    package("libprotobuf-dev",      &[RpcPeers],  "peer: gRPC's messages in C++"),
    package("protobuf-compiler",    &[RpcPeers],  "peers: generates gRPC's messages"),
    package("protobuf-compiler-grpc", &[RpcPeers], "peer: generates gRPC's calls in C++"),
    package("capnproto",            &[RpcPeers],  "peer: generates Cap'n Proto's messages"),
    package("memcached",            &[Programs, RpcPeers], "program: unmodified, over the shim for sockets"),
    package("libboost-dev",         &[Programs],  "program: Boost.Interprocess managed_mapped_file"),
    package("dpkg-dev",             &[Programs],  "program: Kyoto Cabinet from Debian's source package"),
    package("chromium",             &[Browser],   "shows the page of vernal inspect to its tests"),
    package("qemu-system-x86",      &[Guest],     "the machine whose power is cut; its kernel is only unpacked"),
    package("busybox-static",       &[Guest],     "what the guest boots with"),
    package("e2fsprogs",            &[Guest],     "the guest's file systems"),
    package("zlib1g-dev",           &[Programs, Peers], "Kyoto Cabinet links it"),
];

impl Group {
    /// All groups that every test needs, in the order of the table.
    pub const ALL: &'static [Group] = &[Toolchain, Llvm19, FileCheck, Peers, Programs];
}

/// Installs the packages of `groups` that are missing. Says first which and why.
pub fn ensure(ui: &Ui, groups: &[Group]) -> Result<()> {
    let missing = missing(groups);
    if missing.is_empty() {
        return Ok(());
    }
    ui.line("Debian packages that are missing here:");
    for package in &missing {
        ui.line(&format!("  {:<20} {}", package.name, package.why));
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    let by_hand = format!(
        "sudo apt-get install --no-install-recommends {}",
        names.join(" ")
    );
    if std::env::var_os("VERNAL_NO_INSTALL").is_some() {
        return Err(format!("VERNAL_NO_INSTALL is set; install them with\n  {by_hand}").into());
    }
    if !works("apt-get", &["--version"]) {
        return Err(format!(
            "this system has no apt-get: install what corresponds to {} with its own package manager \
             (`cargo xtask packages` says what each is for), then run `cargo build --release` and `cargo test` directly",
            names.join(", ")
        )
        .into());
    }
    let sudo = if is_root() {
        &[][..]
    } else if works("sudo", &["-n", "true"]) || (ui.is_terminal() && works("sudo", &["--version"]))
    {
        &["sudo"][..]
    } else {
        return Err(format!(
            "installing needs root, and sudo cannot be used here: as root, run\n  {by_hand}"
        )
        .into());
    };
    if !names.iter().all(|name| known_to_apt(name)) {
        ui.line("  (apt-get update: some are not in the package lists yet)");
        apt(ui, sudo, &["update"])?;
    }
    ui.line(&format!(
        "  installing: {}",
        by_hand.trim_start_matches(if sudo.is_empty() { "sudo " } else { "" })
    ));
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&names);
    if apt(ui, sudo, &arguments).is_err() {
        // Package lists that are older than the mirror name files that are gone: refresh once, and try again.
        apt(ui, sudo, &["update"])?;
        apt(ui, sudo, &arguments)?;
    }
    let still = self::missing(groups);
    if still.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = still.iter().map(|p| p.name).collect();
    Err(format!(
        "apt-get succeeded, but dpkg does not list {}: check `dpkg -l`",
        names.join(", ")
    )
    .into())
}

/// `cargo xtask packages`.
pub fn list() -> Result<bool> {
    let ui = Ui::new(false);
    for package in PACKAGES {
        let state = if installed(package.name) {
            "installed"
        } else {
            "missing"
        };
        ui.line(&format!(
            "{:<20} {:<10} {:?}: {}",
            package.name, state, package.groups, package.why
        ));
    }
    Ok(true)
}

fn missing(groups: &[Group]) -> Vec<&'static Package> {
    PACKAGES
        .iter()
        .filter(|p| p.groups.iter().any(|g| groups.contains(g)) && !installed(p.name))
        .collect()
}

fn installed(name: &str) -> bool {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status} ", name])
        .stderr(Stdio::null())
        .output();
    // Several architectures of one package give several words.
    output.is_ok_and(|o| {
        o.status.success()
            && String::from_utf8_lossy(&o.stdout)
                .split_whitespace()
                .any(|s| s == "installed")
    })
}

fn known_to_apt(name: &str) -> bool {
    let output = Command::new("apt-cache")
        .args(["policy", name])
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|o| {
        let text = String::from_utf8_lossy(&o.stdout).into_owned();
        text.contains("Candidate:") && !text.contains("Candidate: (none)")
    })
}

fn apt(ui: &Ui, sudo: &[&str], arguments: &[&str]) -> Result<()> {
    let mut words: Vec<&str> = sudo.to_vec();
    words.extend([
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-q",
        "-o",
        "DPkg::Lock::Timeout=120",
    ]);
    words.extend(arguments);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    // Standard output may carry a JSON report: apt talks on standard error.
    command.stdin(if ui.is_terminal() {
        Stdio::inherit()
    } else {
        Stdio::null()
    });
    command.stdout(Stdio::from(std::io::stderr()));
    let status = command
        .status()
        .map_err(|e| format!("cannot run {}: {e}", words[0]))?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "`{}` failed ({status}): its message above says why",
        words.join(" ")
    )
    .into())
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|s| s.success())
}

/// Whether the effective user is root.
pub fn is_root() -> bool {
    // The owner of our own /proc entry is the effective uid of a process that is dumpable, as this one is.
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
