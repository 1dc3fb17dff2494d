//! The examples on pools in `testsuite/examples`: built as their comments say, used, killed, and checked by their own
//! `check`.

use crate::Result;
use crate::build::{compile, here};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use vernal_programs::attack::{Data, Story};
use vernal_programs::check::Random;
use vernal_programs::rust::plain;
use vernal_programs::tools::Tools;

/// One example.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// Its name: of the file, or of the package.
    pub name: &'static str,
    source: Option<&'static str>,
    /// Its arguments follow the pool's name.
    story: Story,
}

/// All of them.
pub const EXAMPLES: &[Example] = &[
    Example {
        name: "queue",
        source: Some("queue.c"),
        story: Story {
            commands: &[
                &["add", "water the plants"],
                &["add", "call Ada"],
                &["take"],
                &["list"],
            ],
            says: "2 call Ada",
            stress: &["stress", "100000"],
            check: &["check"],
        },
    },
    Example {
        name: "stock",
        source: Some("stock.cpp"),
        story: Story {
            commands: &[
                &["put", "bolts", "12", "shelf 3"],
                &["put", "bolts", "1", "a place with a name that is not short"],
                &["take", "bolts", "5"],
                &["list"],
            ],
            says: "bolts 8: a place with a name that is not short shelf 3",
            stress: &["stress", "100000"],
            check: &["check"],
        },
    },
    Example {
        name: "diary",
        source: None,
        story: Story {
            commands: &[
                &["write", "it rained", "weather"],
                &["write", "the sun is back", "weather", "good"],
                &["strike", "1"],
                &["list"],
            ],
            says: "2 the sun is back [\"weather\", \"good\"]",
            stress: &["stress", "100000"],
            check: &["check"],
        },
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
            None => plain(tools, &folder.join(self.name), self.name),
        }
    }

    /// Builds it, follows its story, and kills its stress run `kills` times.
    pub fn check(&self, tools: &Tools, kills: u64, random: &mut Random) -> Result<String> {
        let executable = self.build(tools)?;
        let folder = tools.work.join("run").join(format!("pool-{}", self.name));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let command = |data: Data, arguments: &[&str]| {
            let mut command = Command::new(&executable);
            command
                .arg(folder.join(match data {
                    Data::Story => "story",
                    Data::Stress => "stress",
                }))
                .args(arguments)
                .env("LD_LIBRARY_PATH", &tools.bin)
                .stdin(Stdio::null());
            command
        };
        self.story.follow(command, kills, random)?;
        fs::remove_dir_all(&folder)?;
        Ok(format!(
            "{} commands; {kills} kills, 0 inconsistent",
            self.story.commands.len()
        ))
    }
}
