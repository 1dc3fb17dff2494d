//! Files that are damaged, missing, too long, too new; media that are full or read-only.

use super::story::Stage;
use super::{Checked, Entry, Problem, wrong};
use crate::place::{Build, Medium, Place};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const CASES: &[Entry] = &[
    (
        "a damaged record is found and nothing is half-applied",
        damaged_record,
    ),
    ("a missing journal is named", missing_journal),
    ("a truncated journal is named", truncated_journal),
    ("a truncated file is named", truncated_file),
    ("damaged metadata are named", damaged_metadata),
    (
        "one damaged copy of the metadata is survived",
        one_copy_damaged,
    ),
    ("a file from a newer version is refused", newer_version),
    ("rubbish instead of metadata is refused", rubbish),
    (
        "Vernal's own files are not taken for mapped files",
        own_files,
    ),
    ("a full medium loses nothing", disk_full),
    ("a read-only medium can be read", read_only),
    (
        "a file without write permission can be read",
        no_write_permission,
    ),
];

/// A file with several commits in its journal, its writer dead.
fn crashed<'p>(place: &'p Place) -> Result<Stage<'p>, Problem> {
    let stage = Stage::new(place)?;
    let mut story = "map A 65536".to_owned();
    let mut said = vec!["map ok"];
    for i in 1..=6 {
        story.push_str(&format!(" set A 0 {i} set A {} {i} sync A", i * 4096));
        said.push("sync ok");
    }
    stage.expect(&format!("{story} kill"), &said)?;
    Ok(stage)
}

fn patch(path: &Path, at: u64, change: impl Fn(u8) -> u8) -> Checked {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[change(byte[0])], at)?;
    Ok(())
}

/// Where the records lie in the log, from `vernal info`.
fn record_offsets(stage: &Stage<'_>) -> Result<Vec<u64>, Problem> {
    let mut command = Command::new(stage.place.tool("vernal"));
    command
        .args(["info", "--records", "--json"])
        .arg(stage.file("a"));
    let out = stage.run(command)?.out;
    let value: serde_json::Value =
        serde_json::from_str(&out).map_err(|e| Problem::Wrong(format!("{e}: {out}")))?;
    let list = value["journal"]["record_list"]
        .as_array()
        .ok_or_else(|| Problem::Wrong(format!("no records: {out}")))?;
    Ok(list
        .iter()
        .filter_map(|record| record["offset"].as_u64())
        .collect())
}

/// Where the log lies in a journal: docs/format.md.
const LOG: u64 = 139_264;

fn damaged_record(place: &Place) -> Checked {
    let stage = crashed(place)?;
    let journal = stage.journal()?;
    let offsets = record_offsets(&stage)?;
    let (Some(&second), true) = (offsets.get(1), offsets.len() >= 4) else {
        return wrong(format!(
            "expected several records, found them at {offsets:?}"
        ));
    };
    let before = std::fs::read(stage.file("a"))?;
    patch(&journal, LOG + second + 44, |byte| byte ^ 0x10)?;
    stage.vernal(&["check", "A"], 4, &["damaged"])?;
    stage.vernal(&["recover", "A"], 4, &["damaged"])?;
    stage.expect_parts("map A 65536", &["EBADMSG", "damaged"])?;
    if std::fs::read(stage.file("a"))? != before {
        return wrong("recovery refused the journal, and changed the file nevertheless");
    }
    // Undamaged again, everything is there.
    patch(&journal, LOG + second + 44, |byte| byte ^ 0x10)?;
    stage.expect(
        "map A 65536 get A 0 get A 24576",
        &["map ok", "a.img[0] = 6", "a.img[24576] = 6"],
    )
}

fn missing_journal(place: &Place) -> Checked {
    let stage = crashed(place)?;
    let journal = stage.journal()?;
    let aside = stage.files.file("aside");
    std::fs::rename(&journal, &aside)?;
    let name = journal
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    stage.vernal(&["check", "A"], 4, &[&name, "missing"])?;
    stage.expect_parts("map A 65536", &["EBADMSG", &name])?;
    std::fs::rename(&aside, &journal)?;
    stage.expect("map A 65536 get A 0", &["map ok", "a.img[0] = 6"])
}

fn truncated_journal(place: &Place) -> Checked {
    let stage = crashed(place)?;
    let journal = stage.journal()?;
    OpenOptions::new()
        .write(true)
        .open(&journal)?
        .set_len(150_000)?;
    stage.vernal(&["check", "A"], 4, &["truncated"])?;
    stage.expect_parts("map A 65536", &["EBADMSG", "truncated"])
}

fn truncated_file(place: &Place) -> Checked {
    let stage = crashed(place)?;
    OpenOptions::new()
        .write(true)
        .open(stage.file("a"))?
        .set_len(100)?;
    stage.vernal(&["check", "A"], 4, &["truncated to 100 bytes"])?;
    stage.expect_parts("map A 64", &["EBADMSG", "truncated"])
}

fn damaged_metadata(place: &Place) -> Checked {
    let stage = crashed(place)?;
    for slot in 0..2 {
        patch(&stage.file("a.img.vernal"), slot * 4096 + 60, |byte| !byte)?;
    }
    stage.vernal(&["check", "A"], 4, &["a.img.vernal", "unusable"])?;
    stage.expect_parts("map A 65536", &["EBADMSG", "a.img"])
}

fn one_copy_damaged(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect("map A 4096 set A 0 9 unmap A", &["map ok", "unmap ok"])?;
    let meta = stage.file("a.img.vernal");
    let good = std::fs::read(&meta)?;
    // A crash while one copy is written damages that one: the older copy, being clean too, says the same.
    let newest = (0..2)
        .max_by_key(|slot| good.get(slot * 4096 + 24).copied())
        .unwrap_or(0);
    let older = 1 - newest;
    patch(&meta, (older * 4096 + 100) as u64, |byte| !byte)?;
    stage.expect(
        "map A 4096 get A 0 unmap A",
        &["map ok", "a.img[0] = 9", "unmap ok"],
    )?;
    stage.vernal(&["check", "A"], 0, &["clean"])
}

fn newer_version(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    stage.expect("map A 4096 set A 0 9 unmap A", &["map ok", "unmap ok"])?;
    // The version lies under the checksum: a real newer file has a right one.
    let path = stage.file("a.img.vernal");
    let mut bytes = std::fs::read(&path)?;
    for slot in bytes.chunks_mut(4096) {
        head::set_version(slot, 99);
    }
    std::fs::write(&path, &bytes)?;
    stage.vernal(&["check", "A"], 4, &["version", "99"])?;
    stage.expect_parts("map A 4096", &["EBADMSG", "99"])
}

/// A slot's head, as docs/format.md draws it: magic 8, checksum 8, version 4.
mod head {
    const VERSION: std::ops::Range<usize> = 16..20;
    const CHECKSUM: std::ops::Range<usize> = 8..16;
    const SUMMED_FROM: usize = 16;

    /// Writes a version and the checksum that goes with it.
    pub fn set_version(slot: &mut [u8], version: u32) {
        slot[VERSION].copy_from_slice(&version.to_le_bytes());
        let sum = xxhash_rust::xxh3::xxh3_64(&slot[SUMMED_FROM..]);
        slot[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }
}

fn rubbish(place: &Place) -> Checked {
    let stage = Stage::new(place)?;
    std::fs::write(stage.file("a"), vec![1; 4096])?;
    std::fs::write(stage.file("a.img.vernal"), b"not metadata")?;
    stage.vernal(&["check", "A"], 4, &["a.img.vernal"])?;
    stage.expect_parts("map A 4096", &["EBADMSG", "a.img"])?;
    if std::fs::read(stage.file("a"))? == vec![1; 4096] {
        Ok(())
    } else {
        wrong("the file was changed")
    }
}

fn own_files(place: &Place) -> Checked {
    let stage = crashed(place)?;
    let journal = stage.journal()?;
    let journal = journal.to_string_lossy();
    let meta = stage.file("a.img.vernal");
    stage.vernal(
        &["check", &meta.to_string_lossy()],
        1,
        &["Vernal's own files"],
    )?;
    stage.vernal(&["recover", &journal], 1, &["Vernal's own files"])?;
    stage.vernal(&["info", "/nowhere/x.img"], 1, &["/nowhere/x.img"])
}

/// A file system of its own, unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// An ext4 of `size` bytes in a file of the stage.
    fn ext4(stage: &Stage<'_>, size: u64) -> Result<Mounted, Problem> {
        let (image, at) = (stage.files.file("medium"), stage.files.file("m"));
        std::fs::File::create(&image)?.set_len(size)?;
        let skip = |what: &str, why: String| {
            Problem::Skip(format!("{what} does not work here: {}", why.trim()))
        };
        let run = |program: &str, arguments: &[&std::ffi::OsStr]| -> Checked {
            let output = Command::new(program)
                .args(arguments)
                .output()
                .map_err(|e| skip(program, e.to_string()))?;
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() {
                Ok(())
            } else {
                Err(skip(program, why))
            }
        };
        run(
            "mkfs.ext4",
            &["-q".as_ref(), "-F".as_ref(), image.as_os_str()],
        )?;
        std::fs::create_dir(&at)?;
        run(
            "mount",
            &[
                "-o".as_ref(),
                "loop".as_ref(),
                image.as_os_str(),
                at.as_os_str(),
            ],
        )?;
        Ok(Mounted(at))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn tmpfs(at: PathBuf, size: &str) -> Result<Mounted, Problem> {
        if !is_root()? {
            return Err(Problem::Skip(
                "mounting a small file system needs root".into(),
            ));
        }
        std::fs::create_dir(&at)?;
        let options = format!("size={size}");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&at)
            .output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Problem::Skip(format!(
                "mounting a tmpfs is not allowed here: {}",
                why.trim()
            )));
        }
        Ok(Mounted(at))
    }

    fn remount(&self, options: &str) -> Checked {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(Problem::Skip("remounting is not allowed here".into()))
        }
    }
}

/// Whether this process may mount: its own entry in /proc belongs to its effective user.
fn is_root() -> Result<bool, Problem> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self")?.uid() == 0)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A mount that is still busy is left to the lazy unmount.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A commit that finds the medium full changes nothing, says so, and can be repeated when there is room.
fn disk_full(place: &Place) -> Checked {
    let mut stage = Stage::on(place, Medium::Disk)?;
    let mount = Mounted::ext4(&stage, 24 << 20)?;
    let file = mount.path().join("a.img");
    let shown = file.to_string_lossy().into_owned();
    stage.set("VERNAL_PATHS", Some(shown.clone()));
    // The file is sparse: it claims 64 MiB on a medium of 24.
    let story = format!(
        "map {shown} 67108864 set {shown} 0 1 sync {shown} fill {shown} 4096 40000000 7 sync {shown} kill"
    );
    let ended = stage.tell(&story)?;
    let lines: Vec<&str> = ended.out.lines().collect();
    match lines.as_slice() {
        ["map ok", "sync ok", full] if full.starts_with("sync ENOSPC: ") => {}
        _ => return wrong(format!("{lines:?} ({}) {}", ended.status, ended.err)),
    }
    let story = format!(
        "map {shown} 67108864 get {shown} 0 sum {shown} 4096 40000000 set {shown} 0 2 sync {shown} kill"
    );
    stage.expect(&story, &["map ok", "a.img[0] = 1", "sum 0", "sync ok"])?;
    // In one process: too much, taken back to what fits, committed.
    let story = format!(
        "map {shown} 67108864 set {shown} 8 5 fill {shown} 4096 40000000 7 sync {shown} fill {shown} 8192 40000000 0 sync {shown} kill"
    );
    let ended = stage.tell(&story)?;
    let lines: Vec<&str> = ended.out.lines().collect();
    match lines.as_slice() {
        ["map ok", full, "sync ok"] if full.starts_with("sync ENOSPC: ") => {}
        _ => {
            return wrong(format!(
                "committing less after ENOSPC: {lines:?} ({}) {}",
                ended.status, ended.err
            ));
        }
    }
    let story =
        format!("map {shown} 67108864 get {shown} 0 get {shown} 8 sum {shown} 4096 40000000");
    stage.expect(
        &story,
        &["map ok", "a.img[0] = 2", "a.img[8] = 5", "sum 28672"],
    )
}

fn read_only(place: &Place) -> Checked {
    let mut stage = Stage::on(place, Medium::Disk)?;
    let mount = Mounted::tmpfs(stage.files.file("m"), "8m")?;
    let shown = mount.0.join("a.img").to_string_lossy().into_owned();
    stage.set("VERNAL_PATHS", Some(shown.clone()));
    stage.expect(
        &format!("map {shown} 65536 set {shown} 0 4 unmap {shown}"),
        &["map ok", "unmap ok"],
    )?;
    mount.remount("ro")?;
    stage.vernal(&["check", &shown], 0, &["clean"])?;
    stage.expect_parts(&format!("map {shown} 65536"), &["E", "a.img"])?;
    // The image is the program's own bytes: anybody can read them.
    let bytes = std::fs::read(&shown)?;
    if bytes.first() == Some(&4) {
        Ok(())
    } else {
        wrong("the committed byte cannot be read")
    }
}

fn no_write_permission(place: &Place) -> Checked {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new(place)?;
    stage.expect("map A 4096 set A 0 4 unmap A", &["map ok", "unmap ok"])?;
    // A program that maps read-only sees the committed state, whoever it is.
    let reader = place.compile("cases/reader.c", Build::O2)?;
    std::fs::set_permissions(stage.file("a"), std::fs::Permissions::from_mode(0o444))?;
    let mut command = stage.command(&reader, Build::O2);
    command.arg(stage.file("a"));
    let ended = stage.run(command)?;
    if ended.status.success() && ended.out.trim() == "4" {
        Ok(())
    } else {
        wrong(format!("{} {} {}", ended.status, ended.out, ended.err))
    }
}
