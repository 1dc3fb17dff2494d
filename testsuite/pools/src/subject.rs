//! What is demanded of each program: after every kill the pool holds the state of the last transaction that was reported
//! durable, or of the one after it, exactly as the volatile twin had it then; moved to another address it holds the same.

use crate::Result;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use vernal_programs::attack::run_and_kill;
use vernal_programs::check::Random;
use vernal_programs::tools::run;

/// Steps of one run that is killed at an injection point.
const STRETCH: u64 = 6;
/// Every so many-th recovery is killed, too.
const RECOVERY_EVERY: u64 = 4;
/// Injection points of a recovery that are tried.
const RECOVERY_POINTS: u64 = 12;

/// A program and where it works.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// The executable.
    pub executable: PathBuf,
    /// The folder for its pools.
    pub folder: PathBuf,
    /// The folder of libvernal.so.
    pub libraries: PathBuf,
    /// The command `vernal`, if it is built, for programs whose pools can be moved.
    pub vernal: Option<PathBuf>,
    /// Whether it has the command `threads`.
    pub threads: bool,
    /// Steps to make.
    pub steps: u64,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Steps compared.
    pub steps: u64,
    /// Kills survived.
    pub kills: u64,
    /// Of those, inside recovery.
    pub in_recovery: u64,
    /// Copies opened at another address.
    pub moved: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps as the twin; {} kills ({} in recovery), 0 inconsistent; {} moved",
            self.steps, self.kills, self.in_recovery, self.moved
        )
    }
}

impl Subject {
    fn pool(&self) -> PathBuf {
        self.folder.join("pool")
    }

    fn command(&self, pool: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .arg(pool)
            .args(arguments)
            .env("LD_LIBRARY_PATH", &self.libraries)
            .env_remove("VERNAL_AUDIT")
            .env_remove("VERNAL_TEST_KILL_AT")
            .env_remove("VERNAL_TEST_COUNT")
            .stdin(Stdio::null());
        command
    }

    fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        Ok(fs::create_dir_all(&self.folder)?)
    }

    /// The digest after each number of steps, from a run without any pool.
    fn twin(&self) -> Result<Vec<String>> {
        let mut command = self.command(Path::new("-"), &["twin", &self.steps.to_string()]);
        let output = run(&mut command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() as u64 != self.steps + 1 {
            return Err(format!(
                "the twin printed {} digests for {} steps",
                lines.len(),
                self.steps
            )
            .into());
        }
        Ok(lines)
    }

    /// Steps that a pool has seen, and its digest.
    fn digest(&self, pool: &Path) -> Result<(u64, String)> {
        let output = run(&mut self.command(pool, &["digest"]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace();
        match (words.next().and_then(|w| w.parse().ok()), words.next()) {
            (Some(steps), Some(digest)) => Ok((steps, digest.to_owned())),
            _ => Err(format!("digest printed {text:?}").into()),
        }
    }

    /// The pool's steps, if its contents are those of the twin after as many.
    fn compare(&self, pool: &Path, twin: &[String]) -> Result<u64> {
        let (steps, digest) = self.digest(pool)?;
        let expected = usize::try_from(steps).ok().and_then(|s| twin.get(s));
        if expected != Some(&digest) {
            return Err(format!(
                "{} has {steps} steps and digest {digest}, the twin's is {expected:?}; it is kept",
                pool.display()
            )
            .into());
        }
        Ok(steps)
    }

    /// No damage, no leaks, no pointer that leads astray, as `vernal pool check` sees it with the types alone.
    fn sound(&self) -> Result<()> {
        if let Some(vernal) = &self.vernal {
            run(Command::new(vernal)
                .args(["pool", "check"])
                .arg(self.pool()))?;
        }
        Ok(())
    }

    /// Everything. Kills `kills` times in both ways, and on until `until`.
    pub fn check(&self, kills: u64, until: Instant, random: &mut Random) -> Result<Report> {
        let twin = self.twin()?;
        let mut report = Report {
            steps: self.steps,
            ..Report::default()
        };
        self.audit(&twin)?;
        if self.threads {
            // The program compares the outcome itself.
            let path = self.folder.join("threads");
            run(&mut self.command(&path, &["threads", &self.steps.to_string()]))?;
        }
        if let Some(vernal) = &self.vernal {
            report.moved = self.moved(vernal, &twin)?;
        }
        self.kill_at_points(&twin, kills, random, &mut report)?;
        self.kill_at_moments(&twin, kills, until, random, &mut report)?;
        self.clear()?;
        Ok(report)
    }

    /// Two runs under audit: no byte may change without a mark, and the second begins with what the first has left.
    fn audit(&self, twin: &[String]) -> Result<()> {
        self.clear()?;
        for steps in [self.steps / 2, self.steps] {
            let mut command = self.command(&self.pool(), &["run", &steps.to_string()]);
            run(command.env("VERNAL_AUDIT", "1")).map_err(|e| format!("under audit: {e}"))?;
            let found = self.compare(&self.pool(), twin)?;
            if found != steps {
                return Err(format!("{steps} steps were made, the pool has {found}").into());
            }
        }
        Ok(())
    }

    /// A clone has other addresses: its pointers are rewritten when they are touched. Both go on by themselves.
    fn moved(&self, vernal: &Path, twin: &[String]) -> Result<u64> {
        self.clear()?;
        let half = self.steps / 2;
        run(&mut self.command(&self.pool(), &["run", &half.to_string()]))?;
        let mut from = self.pool();
        let mut moved = 0;
        for (number, steps) in [(1, half + 10), (2, half + 20)] {
            let to = self.folder.join(format!("clone-{number}"));
            let mut command = Command::new(vernal);
            run(command.args(["pool", "clone"]).arg(&from).arg(&to))?;
            let (before, cloned) = (self.compare(&from, twin)?, self.compare(&to, twin)?);
            if before != cloned {
                return Err(format!("the clone has {cloned} steps, its original {before}").into());
            }
            run(&mut self.command(&to, &["run", &steps.to_string()]))?;
            for (pool, expected) in [(&to, steps), (&from, before)] {
                let found = self.compare(pool, twin)?;
                if found != expected {
                    let pool = pool.display();
                    return Err(format!("{pool} has {found} steps instead of {expected}").into());
                }
            }
            moved += 1;
            from = to;
        }
        Ok(moved)
    }

    /// Kills by the process itself, at injection points.
    fn kill_at_points(
        &self,
        twin: &[String],
        kills: u64,
        random: &mut Random,
        report: &mut Report,
    ) -> Result<()> {
        self.clear()?;
        let count = self.folder.join("count");
        let mut command = self.command(&self.pool(), &["run", &STRETCH.to_string()]);
        run(command.env("VERNAL_TEST_COUNT", &count))?;
        let text = fs::read_to_string(&count)?;
        let points: u64 = text.lines().filter_map(|l| l.parse::<u64>().ok()).sum();
        if points == 0 {
            return Err("a run passes no injection points".into());
        }
        let mut done = self.compare(&self.pool(), twin)?;
        for _ in 0..kills {
            if done + STRETCH > self.steps || random.below(4) == 0 {
                self.clear()?;
                done = 0;
            }
            let point = 1 + random.below(points);
            let mut command = self.command(&self.pool(), &["run", &(done + STRETCH).to_string()]);
            command.env("VERNAL_TEST_KILL_AT", point.to_string());
            let output = command.output()?;
            let printed = last_line(&output.stdout).unwrap_or(done);
            if output.status.code().is_some_and(|c| c != 0) {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("it failed: {}\n{text}", output.status).into());
            }
            report.kills += 1;
            if random.below(RECOVERY_EVERY) == 0 {
                let at = 1 + random.below(RECOVERY_POINTS);
                let mut command = self.command(&self.pool(), &["digest"]);
                let output = command
                    .env("VERNAL_TEST_KILL_AT", at.to_string())
                    .output()?;
                report.kills += 1;
                report.in_recovery += u64::from(output.status.code().is_none());
            }
            done = self
                .compare(&self.pool(), twin)
                .and_then(|found| durable(printed, found))
                .and_then(|found| self.sound().map(|()| found))
                .map_err(|e| format!("kill at point {point} (seed {}): {e}", random.seed))?;
        }
        Ok(())
    }

    /// Kills from outside, at random moments.
    fn kill_at_moments(
        &self,
        twin: &[String],
        kills: u64,
        until: Instant,
        random: &mut Random,
        report: &mut Report,
    ) -> Result<()> {
        self.clear()?;
        let mut done = 0;
        let mut kill = 0;
        while kill < kills || Instant::now() < until {
            let mut command = self.command(&self.pool(), &["run", &self.steps.to_string()]);
            let printed = run_and_kill(&mut command, 24, |line| line.parse().ok(), random)?;
            let printed = printed.unwrap_or(done);
            done = self
                .compare(&self.pool(), twin)
                .and_then(|found| durable(printed, found))
                .map_err(|e| format!("kill {kill} (seed {}): {e}", random.seed))?;
            kill += 1;
            report.kills += 1;
            if done >= self.steps {
                self.clear()?;
                done = 0;
            }
        }
        Ok(())
    }
}

/// A kill may come between the commit and the line that reports it.
fn durable(printed: u64, found: u64) -> Result<u64> {
    if found == printed || found == printed + 1 {
        return Ok(found);
    }
    Err(format!("step {printed} was reported durable, the pool has {found}").into())
}

fn last_line(output: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(output);
    text.lines().filter_map(|l| l.parse().ok()).next_back()
}
