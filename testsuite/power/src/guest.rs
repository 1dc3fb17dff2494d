//! What the guest boots: Debian's kernel, unpacked and not installed, and a file system in memory with the programs under test.

use crate::{Result, cpio::Cpio, run};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The smallest kernel that has what is needed: virtio disks, ext4, DAX.
const KERNEL: &str = "linux-image-cloud-amd64";
/// In the order in which they are loaded.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "libnvdimm",
    "nd_btt",
    "nd_pmem",
    "nd_e820",
];
const BUSYBOX: &str = "/bin/busybox";
/// Of busybox.
const COMMANDS: &[&str] = &[
    "sh", "mount", "umount", "insmod", "cat", "echo", "tr", "mkdir", "sync", "poweroff",
];

/// Everything that QEMU is given.
#[derive(Debug)]
pub struct Guest {
    /// The kernel.
    pub kernel: PathBuf,
    /// The file system in memory.
    pub initrd: PathBuf,
}

/// Makes the guest in `work` with Vernal's tools of `tools`.
pub fn make(work: &Path, tools: &Path) -> Result<Guest> {
    fs::create_dir_all(work)?;
    let root = kernel(work)?;
    let kernel = find(&root.join("boot"), &|name| name.starts_with("vmlinuz-"))?;
    let initrd = work.join("initrd");
    let mut cpio = Cpio::new(BufWriter::new(File::create(&initrd)?));
    for dir in [
        "dev", "proc", "sys", "bin", "sbin", "modules", "lib64", "data",
    ] {
        cpio.directory(dir)?;
    }
    cpio.device("dev/console", 5, 1)?;
    let busybox = fs::read(BUSYBOX)
        .map_err(|e| format!("{BUSYBOX}: {e}; Debian: apt-get install busybox-static"))?;
    cpio.file("bin/busybox", &busybox)?;
    for command in COMMANDS {
        cpio.link(&format!("bin/{command}"), "busybox")?;
    }
    let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/init");
    cpio.file("init", &fs::read(init)?)?;
    for (i, module) in MODULES.iter().enumerate() {
        let name = format!("{module}.ko");
        let path = find(&root.join("lib/modules"), &|n| n.replace('-', "_") == name)?;
        cpio.file(&format!("modules/{i:02}-{name}"), &fs::read(path)?)?;
    }
    let mut libraries = BTreeSet::new();
    for (name, program) in programs(work, tools)? {
        libraries.extend(needed(&program, tools)?);
        cpio.file(&format!("bin/{name}"), &fs::read(program)?)?;
    }
    let mut folders = BTreeSet::new();
    for library in libraries {
        let inside = library.to_string_lossy().trim_start_matches('/').to_owned();
        let mut folder = PathBuf::new();
        for part in Path::new(&inside).parent().into_iter().flatten() {
            folder.push(part);
            let name = folder.to_string_lossy().into_owned();
            if name != "lib64" && folders.insert(name.clone()) {
                cpio.directory(&name)?;
            }
        }
        // Without what only debuggers read: the guest unpacks it at each boot.
        let small = work.join("library");
        run(Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&small)
            .arg(&library))?;
        cpio.file(&inside, &fs::read(&small)?)?;
    }
    cpio.finish()?;
    Ok(Guest { kernel, initrd })
}

/// Compiles the programs under test.
fn programs(work: &Path, tools: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut built = Vec::new();
    for (name, source) in [
        ("ledger", here.join("guest/ledger.c")),
        ("phonebook", here.join("../examples/phonebook.c")),
    ] {
        let out = work.join(name);
        run(Command::new(tools.join("vernal-cc"))
            .args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(here.join("../../runtime/capi/include"))
            .arg(source)
            .arg("-o")
            .arg(&out))?;
        built.push((name, out));
    }
    Ok(built)
}

/// The libraries of a program, with the loader.
fn needed(program: &Path, tools: &Path) -> Result<Vec<PathBuf>> {
    let listed = run(Command::new("ldd")
        .arg(program)
        .env("LD_LIBRARY_PATH", tools))?;
    let path = |line: &str| {
        let from = line.find('/')?;
        let rest = line.get(from..)?;
        rest.split(" (").next().map(|p| PathBuf::from(p.trim()))
    };
    Ok(listed.lines().filter_map(path).collect())
}

/// Debian's kernel package, unpacked.
fn kernel(work: &Path) -> Result<PathBuf> {
    let root = work.join("kernel");
    if root.join("boot").is_dir() {
        return Ok(root);
    }
    let depends = run(Command::new("apt-cache").args(["depends", KERNEL]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| format!("apt knows no {KERNEL}: apt-get update"))?;
    println!("the guest's kernel: {package}");
    let load = work.join("packages");
    fs::create_dir_all(&load)?;
    run(Command::new("apt-get")
        .args(["-q", "download", package])
        .current_dir(&load))?;
    let deb = find(&load, &|name| {
        name.starts_with(package) && name.ends_with(".deb")
    })?;
    let fresh = work.join("kernel.new");
    let _ = fs::remove_dir_all(&fresh);
    run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&fresh))?;
    fs::rename(&fresh, &root)?;
    Ok(root)
}

/// The first file below `folder` whose name is wanted.
fn find(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).map_err(|e| format!("{}: {e}", at.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if wanted(&name.to_string_lossy()) {
                return Ok(entry.path());
            }
        }
    }
    Err(format!("{} lacks a file that the guest needs", folder.display()).into())
}
