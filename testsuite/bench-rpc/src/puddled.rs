//! puddled, the registry of Vernal's calls, for the time of the run.

use crate::process::Folders;
use crate::{Failure, Result};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running daemon; it ends with this value.
pub struct Puddled(Child);

/// Where it listens.
pub fn socket(folders: &Folders) -> PathBuf {
    folders.run.join("puddled.sock")
}

/// It listens long before this.
const PATIENCE: Duration = Duration::from_secs(60);

impl Puddled {
    /// Starts it, and waits until it listens.
    pub fn start(folders: &Folders) -> Result<Self> {
        let this = std::env::current_exe()
            .map_err(|e| Failure(format!("where this program lies: {e}")))?;
        let program = this.with_file_name("puddled");
        if !program.exists() {
            return Err(Failure(format!(
                "{} does not exist: run `cargo build --release -p puddled` first",
                program.display()
            )));
        }
        let data = folders.run.join("puddled");
        std::fs::create_dir_all(&data).map_err(|e| Failure(format!("{}: {e}", data.display())))?;
        let log = folders.log.join("rpc-puddled.log");
        let errors = std::fs::File::create(&log);
        let errors = errors.map_err(|e| Failure(format!("{}: {e}", log.display())))?;
        let child = Command::new(&program)
            .arg("--data")
            .arg(&data)
            .arg("--socket")
            .arg(socket(folders))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(|e| Failure(format!("cannot start {}: {e}", program.display())))?;
        let mut puddled = Self(child);
        let start = Instant::now();
        while !socket(folders).exists() {
            if matches!(puddled.0.try_wait(), Ok(Some(_)) | Err(_)) || start.elapsed() > PATIENCE {
                return Err(Failure(format!(
                    "puddled does not listen: see {}",
                    log.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(puddled)
    }
}

impl Drop for Puddled {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
