//! The examples on pools in `testsuite/examples`: built as their comments say, used, killed, and checked by their own
//! `check`.

use crate::Result;
use crate::build::{compile, here, plain_cargo};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use vernal_programs::check::Random;
use vernal_programs::tools::{Tools, run};

/// One example.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// Its name: of the file, or of the package.
    pub name: &'static str,
    source: Option<&'static str>,
    /// Commands to run first, after the pool's name; the last one's output must hold the text.
    story: &'static [&'static [&'static str]],
    says: &'static str,
}

/// All of them.
pub const EXAMPLES: &[Example] = &[
    Example {
        name: "queue",
        source: Some("queue.c"),
        story: &[
            &["add", "water the plants"],
            &["add", "call Ada"],
            &["take"],
            &["list"],
        ],
        says: "2 call Ada",
    },
    Example {
        name: "stock",
        source: Some("stock.cpp"),
        story: &[
            &["put", "bolts", "12", "shelf 3"],
            &["put", "bolts", "1", "a place with a name that is not short"],
            &["take", "bolts", "5"],
            &["list"],
        ],
        says: "bolts 8: a place with a name that is not short shelf 3",
    },
    Example {
        name: "diary",
        source: None,
        story: &[
            &["write", "it rained", "weather"],
            &["write", "the sun is back", "weather", "good"],
            &["strike", "1"],
            &["list"],
        ],
        says: "2 the sun is back [\"weather\", \"good\"]",
    },
];

impl Example {
    fn build(&self, tools: &Tools) -> Result<PathBuf> {
        let folder = here().join("../examples");
        match self.source {
            Some(source) => compile(
                tools,
                &folder.join(source),
                &["-O2"],
                &format!("pool-{}", self.name),
            ),
            None => plain_cargo(tools, &folder.join(self.name), self.name),
        }
    }

    /// Builds it, follows its story, and kills its stress run `kills` times.
    pub fn check(&self, tools: &Tools, kills: u64, random: &mut Random) -> Result<String> {
        let executable = self.build(tools)?;
        let folder = tools.work.join("run").join(format!("pool-{}", self.name));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let command = |pool: &str, arguments: &[&str]| {
            let mut command = Command::new(&executable);
            command
                .arg(folder.join(pool))
                .args(arguments)
                .env("LD_LIBRARY_PATH", &tools.bin)
                .stdin(Stdio::null());
            command
        };
        let mut said = String::new();
        for arguments in self.story {
            let output = run(&mut command("story", arguments))?;
            said = String::from_utf8_lossy(&output.stdout).into_owned();
        }
        if !said.contains(self.says) {
            return Err(format!("printed {said:?} instead of {:?}", self.says).into());
        }
        for kill in 0..kills {
            let mut child = command("stress", &["stress", "100000"])
                .stdout(Stdio::piped())
                .spawn()?;
            let Some(stdout) = child.stdout.take() else {
                return Err("no pipe".into());
            };
            let mut lines = BufReader::new(stdout).lines();
            let printed = lines
                .by_ref()
                .take(random.below(30) as usize)
                .last()
                .transpose()?;
            // Not a synchronisation: it only varies the moment.
            std::thread::sleep(Duration::from_micros(random.below(1500)));
            child.kill()?;
            let printed = lines.last().transpose()?.or(printed);
            child.wait()?;
            let output = run(&mut command("stress", &["check"]))
                .map_err(|e| format!("after kill {kill}: {e}"))?;
            let found = last_number(&String::from_utf8_lossy(&output.stdout));
            let expected = printed.as_deref().and_then(last_number);
            if expected.is_some_and(|e| found != Some(e) && found != Some(e + 1)) {
                return Err(format!(
                    "after kill {kill} (seed {}): {expected:?} was durable, the pool has {found:?}",
                    random.seed
                )
                .into());
            }
        }
        fs::remove_dir_all(&folder)?;
        Ok(format!(
            "{} commands; {kills} kills, 0 inconsistent",
            self.story.len()
        ))
    }
}

fn last_number(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|w| w.parse().ok())
        .next_back()
}
