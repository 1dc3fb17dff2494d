//! QEMU: a machine with disks, what its programs say, and the end of its power.

use crate::{Result, guest::Guest};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Nothing takes so long, even on a machine that does much else besides.
const HANG: Duration = Duration::from_secs(600);
/// Bytes of the guest's memory.
const MEMORY: u64 = 384 << 20;
/// Where byte-addressable memory begins in it, and its bytes. QEMU puts the kernel before and the first file system behind.
const PERSISTENT: u64 = 192 << 20;
pub const PERSISTENT_BYTES: u64 = 128 << 20;

/// A disk of the machine.
#[derive(Debug, Clone)]
pub enum Disk {
    /// A virtio disk with a volatile cache, which a power cut loses.
    Block {
        /// Its content.
        image: PathBuf,
        /// What is written to it, in order.
        log: Option<PathBuf>,
    },
    /// Byte-addressable memory, one for each machine: a part of its memory, which outlives it. All stores have reached it.
    Memory {
        /// Its content, before and after.
        image: PathBuf,
    },
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    monitor: PathBuf,
    lines: Receiver<String>,
    /// The machine's memory, and the image that it is to leave.
    memory: Option<(PathBuf, PathBuf)>,
}

impl Machine {
    /// Boots. `folder` gets the monitor's socket.
    pub fn boot(guest: &Guest, folder: &Path, mode: &str, disks: &[Disk]) -> Result<Machine> {
        let monitor = folder.join("monitor");
        let _ = std::fs::remove_file(&monitor);
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args([
                "-accel",
                "tcg",
                "-cpu",
                "max",
                "-smp",
                "1",
                "-nodefaults",
                "-no-user-config",
            ])
            .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", monitor.display()))
            .arg("-kernel")
            .arg(&guest.kernel)
            .arg("-initrd")
            .arg(&guest.initrd);
        let mut names = Vec::new();
        let mut memory = None;
        let mut parameters = String::new();
        let mut blocks = 0u8;
        for disk in disks {
            match disk {
                Disk::Block { image, log } => {
                    let letter = char::from(b'a' + blocks);
                    let node = format!("disk{letter}");
                    let file = |name: &str, path: &Path| {
                        json!({"driver": "file", "node-name": name, "filename": path, "cache": {"direct": false}}).to_string()
                    };
                    match log {
                        None => {
                            command.args(["-blockdev", &file(&node, image)]);
                        }
                        Some(log) => {
                            let (below, beside) = (format!("{node}-file"), format!("{node}-log"));
                            let logging = json!({"driver": "blklogwrites", "node-name": node, "file": below, "log": beside});
                            command.args(["-blockdev", &file(&below, image)]);
                            command.args(["-blockdev", &file(&beside, log)]);
                            command.args(["-blockdev", &logging.to_string()]);
                        }
                    }
                    command.arg("-device");
                    command.arg(format!("virtio-blk-pci,drive={node},write-cache=on"));
                    names.push(format!("vd{letter}"));
                    blocks += 1;
                }
                Disk::Memory { image } => {
                    let ram = folder.join("ram");
                    let file = File::create(&ram)?;
                    file.set_len(MEMORY)?;
                    copy_range(&File::open(image)?, 0, &file, PERSISTENT)?;
                    memory = Some((ram, image.clone()));
                    parameters =
                        format!(" memmap={}M!{}M", PERSISTENT_BYTES >> 20, PERSISTENT >> 20);
                    names.push("pmem0".to_owned());
                }
            }
        }
        command.arg("-m").arg(format!("{}M", MEMORY >> 20));
        match &memory {
            None => command.args(["-machine", "pc"]),
            Some((ram, _)) => command
                .args(["-machine", "pc,memory-backend=ram", "-object"])
                .arg(format!(
                    "memory-backend-file,id=ram,share=on,size={MEMORY},mem-path={}",
                    ram.display()
                )),
        };
        command.arg("-append").arg(format!(
            "console=ttyS0 quiet loglevel=1 panic=-1 power.mode={mode} power.disks={}{parameters}",
            names.join(",")
        ));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| {
                format!("qemu-system-x86_64: {e}; Debian: apt-get install qemu-system-x86")
            })?;
        let out = child.stdout.take().ok_or("no serial line")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut bytes = Vec::new();
            // The end of the machine may cut a character.
            while let Ok(1..) = out.read_until(b'\n', &mut bytes) {
                let whole = bytes.ends_with(b"\n");
                let line = String::from_utf8_lossy(&bytes).trim().to_owned();
                if whole && send.send(line).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        Ok(Machine {
            child,
            monitor,
            lines,
            memory,
        })
    }

    /// The next line of the serial port; `None` when the machine has ended.
    pub fn line(&mut self) -> Result<Option<String>> {
        match self.lines.recv_timeout(HANG) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("the guest says nothing for {} s", HANG.as_secs()).into())
            }
        }
    }

    /// The next line, if one comes until `deadline`.
    pub fn line_until(&mut self, deadline: Instant) -> Option<String> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).ok()
    }

    /// Stops the guest between two instructions, every write that it has begun being done, and then cuts its power.
    pub fn cut(mut self) -> Result<()> {
        let stream = UnixStream::connect(&self.monitor)?;
        stream.set_read_timeout(Some(HANG))?;
        let mut to = stream.try_clone()?;
        let mut from = BufReader::new(stream);
        let mut line = String::new();
        from.read_line(&mut line)?;
        for command in ["qmp_capabilities", "stop"] {
            writeln!(to, "{}", json!({"execute": command}))?;
            loop {
                line.clear();
                if from.read_line(&mut line)? == 0 {
                    return Err("the machine has ended by itself".into());
                }
                let answer: Value = serde_json::from_str(&line)?;
                if answer.get("error").is_some() {
                    return Err(format!("{command}: {answer}").into());
                }
                if answer.get("return").is_some() {
                    break;
                }
            }
        }
        self.child.kill()?;
        self.child.wait()?;
        if let Some((ram, image)) = &self.memory {
            copy_range(&File::open(ram)?, PERSISTENT, &File::create(image)?, 0)?;
        }
        Ok(())
    }
}

/// Copies the bytes of byte-addressable memory. What is zero takes no room.
fn copy_range(from: &File, at: u64, to: &File, to_at: u64) -> Result<()> {
    let mut block = vec![0; 1 << 20];
    for done in (0..PERSISTENT_BYTES).step_by(block.len()) {
        from.read_exact_at(&mut block, at + done)?;
        if block.iter().any(|b| *b != 0) {
            to.write_all_at(&block, to_at + done)?;
        }
    }
    if to.metadata()?.len() < to_at + PERSISTENT_BYTES {
        to.set_len(to_at + PERSISTENT_BYTES)?;
    }
    Ok(())
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
