//! One child process: its output in a log file, a time limit, and its last line shown live.

use crate::{Result, ui::Ui};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(100);

/// What a finished job left.
pub struct Finished {
    /// It exited with status 0, in time.
    pub success: bool,
    /// Why it did not succeed, for a person; empty when it did.
    pub reason: String,
    /// Wall-clock time.
    pub wall: Duration,
    /// Everything it wrote to standard output and standard error.
    pub output: String,
    /// The file that holds `output`.
    pub log: PathBuf,
}

impl Finished {
    /// The last `count` lines of the output, indented.
    pub fn tail(&self, count: usize) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        let from = lines.len().saturating_sub(count);
        lines[from..]
            .iter()
            .map(|line| format!("    {line}\n"))
            .collect()
    }

    /// What of the output says what failed, indented: each panic with the lines that follow it, tests that failed, mutants that
    /// survived, errors. The end of a long log seldom says that.
    pub fn failures(&self, count: usize) -> String {
        failures(&self.output)
            .take(count)
            .map(|line| format!("    {line}\n"))
            .collect()
    }
}

/// Lines after one that says what failed which belong to it: the message of a panic.
const FOLLOWING: usize = 4;

fn failures(output: &str) -> impl Iterator<Item = &str> {
    let says = |line: &str| {
        line.contains(" panicked at ")
            || line.contains("SURVIVED")
            || line.contains("BROKEN")
            || line.starts_with("error")
            || line.starts_with("test ") && line.ends_with("FAILED")
            || line.trim_start().starts_with("FAILED")
    };
    let mut following = 0;
    output.lines().filter(move |line| {
        if says(line) {
            following = if line.contains(" panicked at ") {
                FOLLOWING
            } else {
                0
            };
            return true;
        }
        let belongs = following > 0 && !line.starts_with("stack backtrace");
        following = if belongs { following - 1 } else { 0 };
        belongs
    })
}

/// Runs `command` with its output in `log`, and ends it and its descendants after `limit`.
pub fn run(
    ui: &Ui,
    label: &str,
    command: &mut Command,
    log: &Path,
    limit: Duration,
) -> Result<Finished> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)
            .map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
    }
    let file = File::create(log).map_err(|e| format!("cannot create {}: {e}", log.display()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .env("CARGO_TERM_COLOR", "never")
        .spawn()
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    let spinner = ui.spinner(label);
    let mut reason = String::new();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            reason = format!("ran past its limit of {}", crate::ui::seconds(limit));
            end_tree(&mut child);
            break child.wait()?;
        }
        if ui.is_terminal() {
            spinner.set_message(last_line(log));
        }
        std::thread::sleep(POLL);
    };
    spinner.finish_and_clear();
    if reason.is_empty() && !status.success() {
        reason = status.to_string();
    }
    let output = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    Ok(Finished {
        success: reason.is_empty(),
        reason,
        wall: start.elapsed(),
        output,
        log: log.to_owned(),
    })
}

/// Kills `child` and every process that descends from it. (A process group would also separate it from Ctrl-C.)
fn end_tree(child: &mut Child) {
    let mut doomed = vec![child.id()];
    let mut next = 0;
    while next < doomed.len() {
        doomed.extend(children(doomed[next]));
        next += 1;
    }
    for pid in doomed {
        // A process that has just ended is fine.
        let _ = Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .stderr(Stdio::null())
            .status();
    }
}

/// The processes whose parent is `pid`, from every thread of it.
fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// The last line with text in the last part of `log`.
fn last_line(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(script: &str, limit: Duration, name: &str) -> Finished {
        let log = std::env::temp_dir().join(format!("xtask-job-{}-{name}.log", std::process::id()));
        let finished = run(
            &Ui::new(true),
            name,
            Command::new("sh").args(["-c", script]),
            &log,
            limit,
        );
        let _ = fs::remove_file(&log);
        finished.unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn keeps_both_outputs_and_the_status() {
        let finished = job(
            "echo one; echo two >&2; exit 3",
            Duration::from_secs(60),
            "status",
        );
        assert!(!finished.success);
        assert!(finished.reason.contains('3'), "{}", finished.reason);
        assert_eq!(finished.output, "one\ntwo\n");
        assert_eq!(finished.tail(1), "    two\n");
    }

    #[test]
    fn a_limit_ends_grandchildren_too() {
        let finished = job(
            "echo $$; sh -c 'echo $$; sleep 600; true'; true",
            Duration::from_millis(400),
            "limit",
        );
        assert!(!finished.success);
        assert!(finished.reason.contains("limit"), "{}", finished.reason);
        for pid in finished.output.lines() {
            // A killed process ends when it is scheduled next; a zombie that nobody has collected yet is dead too.
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                if state.is_empty() || state.contains(") Z ") || state.contains(") X ") {
                    break;
                }
                assert!(Instant::now() < deadline, "{pid} is still running: {state}");
                std::thread::sleep(POLL);
            }
        }
    }

    #[test]
    fn what_failed_is_found_in_a_long_log() {
        let log = "\
test a ... ok
test b ... FAILED
thread 'b' (7) panicked at b.rs:1:2:
assertion `left == right` failed: sums
  left: 1
 right: 2
stack backtrace:
   0: start
test result: FAILED. 1 passed; 1 failed
a bug     3.1 s  caught
another bug     4.4 s  SURVIVED 5 runs
error: 1 target failed:
";
        let found: Vec<&str> = failures(log).collect();
        assert_eq!(
            found,
            [
                "test b ... FAILED",
                "thread 'b' (7) panicked at b.rs:1:2:",
                "assertion `left == right` failed: sums",
                "  left: 1",
                " right: 2",
                "another bug     4.4 s  SURVIVED 5 runs",
                "error: 1 target failed:",
            ]
        );
    }
}
