//! A full disk: whatever is asked for is done or refused whole, what is open goes on, and pools can be removed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use puddled::{Layout, Registry};
use vernal_puddled_tests::{Actor, Place};

const DATA: u64 = 8192;
const MIB: u64 = 1 << 20;
/// Bytes of the disk.
const DISK: u64 = 32 * MIB;

/// A small disk of its own, at the data directory of a place, in a mount namespace of its own that lives as long as its holder.
struct Disk {
    holder: Child,
    root: PathBuf,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

impl Disk {
    /// `None`, and it says so, where no file system can be mounted.
    fn new(data: &Path) -> Option<Disk> {
        std::fs::create_dir(data).expect("a fresh place");
        let script = format!(
            "mount -t tmpfs -o size={DISK},mode=700 puddled-full \"$0\" && echo ready && exec cat"
        );
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let out = holder.stdout.take().expect("piped");
        let _ = BufReader::new(out).read_line(&mut line);
        let inside = data.strip_prefix("/").expect("an absolute path");
        let root = Path::new("/proc")
            .join(holder.id().to_string())
            .join("root")
            .join(inside);
        let disk = Disk { holder, root };
        if line != "ready\n" {
            eprintln!("SKIPPED full disk: no file system can be mounted, which needs root");
            return None;
        }
        Some(disk)
    }

    /// A program that runs puddled inside.
    fn wrapper(&self, dir: &Path) -> PathBuf {
        let at = dir.join("puddled-inside");
        let script = format!(
            "#!/bin/sh\nexec nsenter --mount --target {} {} \"$@\"\n",
            self.holder.id(),
            env!("CARGO_BIN_EXE_puddled-under-test")
        );
        let mut file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&at)
            .expect("a fresh place");
        file.write_all(script.as_bytes()).expect("a script");
        at
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.root).expect("it is mounted");
        stat.f_bfree * stat.f_frsize
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }

    /// Leaves so many bytes of it free.
    fn leave(&self, bytes: u64) {
        let _ = std::fs::remove_file(self.filler());
        let file = std::fs::File::create(self.filler()).expect("there is room");
        let size = self.free().saturating_sub(bytes);
        vernal_sys::reserve_space(&file, 0, size).expect("there is so much");
        assert!(self.free() <= bytes);
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).expect("it is there");
    }

    /// Every file but the filler, with its length.
    fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut all = Vec::new();
        let mut dirs = vec![self.root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
                let meta = entry.metadata().expect("it is there");
                if meta.is_dir() {
                    dirs.push(entry.path());
                }
                let registry = entry.file_name() == "registry.redb";
                if entry.path() != self.filler() && !registry {
                    all.push((entry.path(), if meta.is_dir() { 0 } else { meta.len() }));
                }
            }
        }
        all.sort();
        all
    }
}

/// Asks, and it is done, or refused because there is no space; then nothing must be there that was not there before.
fn done_or_nothing(disk: &Disk, actor: &mut Actor, line: &str) -> bool {
    let (before, free) = (disk.files(), disk.free());
    let answer = actor.ask(line);
    if answer.starts_with("ok") {
        return true;
    }
    assert!(answer.starts_with("err NoSpace "), "{line}: {answer}");
    assert!(answer.contains("No space left"), "{line}: {answer}");
    assert!(answer.contains("free disk space"), "{line}: {answer}");
    assert_eq!(disk.files(), before, "{line} left something");
    // The registry may have used what is reserved for it, and no more.
    assert!(disk.free() + 64 * 1024 >= free, "{line} kept blocks");
    false
}

#[test]
fn a_full_disk_refuses_whole_requests_and_nothing_else() {
    let mut place = Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    );
    let Some(disk) = Disk::new(place.layout().data()) else {
        return;
    };
    let inside = disk.wrapper(place.dir());
    place.set_puddled(&inside);
    place.start();
    let mut a = place.actor("a", None);
    a.ok("create one 0600");
    a.ok("create other 0600");
    a.ok("open one w");
    a.ok(&format!("write one 0 {DATA} before"));
    a.ok("commit");
    let mut b = place.actor("b", None);
    // Every amount of free space: each request comes to its end or to nothing, whichever file finds no room.
    let mut refused = 0;
    for pages in (0..=24).chain((32..=560).step_by(16)) {
        disk.leave(pages * 4096);
        for line in [
            "create two 0600",
            "import three 2097152",
            "grow one 2097152",
        ] {
            let done = done_or_nothing(&disk, &mut a, line);
            refused += u32::from(!done);
            if done {
                match line.split(' ').next() {
                    Some("create") => drop(a.ok("remove two")),
                    Some("import") => drop(a.ok("abort")),
                    _ => {
                        a.ok("adopt one");
                        a.ok("commit");
                    }
                }
            }
            // What is open goes on, and so does everything that needs no room.
            a.ok(&format!("write one 0 {DATA} p-{pages:03}"));
            a.ok("commit");
            b.ok("open other r");
            b.ok("close other");
            let text = place.client().metrics().expect("served");
            assert!(text.contains("puddled_pools 2\n"), "{text}");
        }
    }
    assert!(refused > 60, "{refused} refused: the disk was never full");
    // Without any room a pool can be removed, and what a killed program has left is recovered.
    disk.leave(0);
    b.ok("remove other");
    disk.leave(0);
    a.kill();
    place.wait_settled_with(2);
    b.ok("open one r");
    assert_eq!(b.ok(&format!("read one 0 {DATA} 5")), "p-560");
    b.ok("close one");
    disk.empty();
    b.ok("create two 0600");
    b.ok("open one w");
    b.ok("grow one 2097152");
    b.ok("close one");
    b.end();
    place.wait_settled();
    place.stop();
    let registry = Registry::open(&Layout::new(&disk.root).registry()).expect("a registry");
    let snapshot = registry.snapshot().expect("a registry");
    assert!(snapshot.grants.is_empty(), "{snapshot:?}");
    let mut names: Vec<_> = snapshot.pools.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "two"]);
}
