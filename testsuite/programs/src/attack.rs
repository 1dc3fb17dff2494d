//! What programs on mapped files and programs on pools are put through alike: kills at random moments, and an example's story.

use crate::Result;
use crate::check::Random;
use crate::tools::run;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a program that prints the number of each step when it is durable, and kills it after at most `lines` lines and a moment.
/// Returns the last number that it printed; `number` finds it in a line.
pub fn run_and_kill(
    command: &mut Command,
    lines: u64,
    number: impl Fn(&str) -> Option<u64>,
    random: &mut Random,
) -> Result<Option<u64>> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let Some(stdout) = child.stdout.take() else {
        return Err("no pipe".into());
    };
    let mut said = BufReader::new(stdout).lines();
    let mut last = None;
    for _ in 0..random.below(lines) {
        match said.next() {
            Some(line) => last = number(&line?).or(last),
            None => break,
        }
    }
    // Not a synchronisation: it only varies the moment.
    std::thread::sleep(Duration::from_micros(random.below(1500)));
    child.kill()?;
    // What it had printed before it died counts, too.
    for line in said {
        last = number(&line?).or(last);
    }
    let output = child.wait_with_output()?;
    if output.status.code().is_some_and(|c| c != 0) {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("it failed: {}\n{text}", output.status).into());
    }
    Ok(last)
}

/// The last number in a text.
pub fn last_number(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|w| w.parse().ok())
        .next_back()
}

/// How an example is used, changed until it is killed, and asked whether it is whole.
#[derive(Debug, Clone, Copy)]
pub struct Story {
    /// Commands, one after the other; the last one's output must hold `says`.
    pub commands: &'static [&'static [&'static str]],
    /// What the last one says.
    pub says: &'static str,
    /// The command that makes changes until it is killed.
    pub stress: &'static [&'static str],
    /// The command that verifies.
    pub check: &'static [&'static str],
}

/// Which data a command works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Those of the story.
    Story,
    /// Those of the kills.
    Stress,
}

impl Story {
    /// Follows the story, and kills the stress run `kills` times. `command` makes a run of the example.
    pub fn follow(
        &self,
        command: impl Fn(Data, &[&str]) -> Command,
        kills: u64,
        random: &mut Random,
    ) -> Result<()> {
        let mut said = String::new();
        for arguments in self.commands {
            let output = run(&mut command(Data::Story, arguments))?;
            said = String::from_utf8_lossy(&output.stdout).into_owned();
        }
        if !said.contains(self.says) {
            return Err(format!("printed {said:?} instead of {:?}", self.says).into());
        }
        for kill in 0..kills {
            let mut stress = command(Data::Stress, self.stress);
            let expected = run_and_kill(&mut stress, 30, last_number, random)?;
            let output = run(&mut command(Data::Stress, self.check))
                .map_err(|e| format!("after kill {kill} (seed {}): {e}", random.seed))?;
            let found = last_number(&String::from_utf8_lossy(&output.stdout));
            if expected.is_some_and(|e| found != Some(e) && found != Some(e + 1)) {
                return Err(format!(
                    "after kill {kill} (seed {}): {expected:?} was durable, {found:?} was found",
                    random.seed
                )
                .into());
            }
        }
        Ok(())
    }
}
