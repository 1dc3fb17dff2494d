//! The examples of `testsuite/examples`: built as their comments say, used, killed, and checked by their own `check`.

use crate::Result;
use crate::attack::{Data, Story};
use crate::check::Random;
use crate::rust::{self, Profile};
use crate::tools::{Tools, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One example.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// Its name.
    pub name: &'static str,
    /// Its arguments follow the file's name.
    story: Story,
    build: fn(&Tools) -> Result<PathBuf>,
}

/// All of them.
pub const EXAMPLES: &[Example] = &[
    Example {
        name: "phonebook",
        story: Story {
            commands: &[
                &["add", "Ada", "1815"],
                &["add", "Grace", "1906"],
                &["add", "Ada", "1852"],
                &["call", "Grace"],
                &["remove", "Grace"],
                &["find", "Ada"],
            ],
            says: "Ada (0 calls): 1852 1815",
            stress: &["stress", "0", "1", "64"],
            check: &["check", "replay"],
        },
        build: phonebook,
    },
    Example {
        name: "inventory",
        story: Story {
            commands: &[&["put", "bolts", "12"], &["take", "bolts", "5"], &["list"]],
            says: "bolts 7",
            stress: &["stress", "100000"],
            check: &["check"],
        },
        build: inventory,
    },
    Example {
        name: "notes",
        story: Story {
            commands: &[
                &["add", "water the plants"],
                &["add", "call Ada"],
                &["drop", "0"],
                &["list"],
            ],
            says: "0 water the plants",
            stress: &["stress", "100000"],
            check: &["check"],
        },
        build: notes,
    },
];

fn folder(tools: &Tools) -> PathBuf {
    tools
        .here
        .parent()
        .unwrap_or(Path::new(""))
        .join("examples")
}

fn compile(tools: &Tools, cxx: bool, source: &str, name: &str) -> Result<PathBuf> {
    let out = tools.work.join("bin").join(name);
    fs::create_dir_all(tools.work.join("bin"))?;
    let mut command = Command::new(tools.compiler(cxx));
    if cxx {
        command.arg("-std=c++17");
    }
    run(command
        .args(["-O2", "-Wall", "-Wextra", "-Werror"])
        .arg(folder(tools).join(source))
        .arg("-o")
        .arg(&out))?;
    Ok(out)
}

fn phonebook(tools: &Tools) -> Result<PathBuf> {
    compile(tools, false, "phonebook.c", "phonebook")
}

fn inventory(tools: &Tools) -> Result<PathBuf> {
    compile(tools, true, "inventory.cpp", "inventory")
}

fn notes(tools: &Tools) -> Result<PathBuf> {
    rust::build(
        tools,
        &folder(tools).join("notes"),
        "notes",
        Profile::Release,
    )
}

impl Example {
    /// Builds it, follows its story, and kills its stress run `kills` times.
    pub fn check(&self, tools: &Tools, kills: u64, random: &mut Random) -> Result<String> {
        let executable = (self.build)(tools)?;
        let folder = tools.work.join("run").join(self.name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let command = |data: Data, arguments: &[&str]| {
            let file = folder.join(match data {
                Data::Story => "story.img",
                Data::Stress => "stress.img",
            });
            let mut command = Command::new(&executable);
            command
                .arg(&file)
                .args(arguments)
                .env("VERNAL_PATHS", &file)
                .stdin(Stdio::null());
            if data == Data::Story {
                command.env("VERNAL_AUDIT", "1");
            }
            command
        };
        self.story.follow(command, kills, random)?;
        fs::remove_dir_all(&folder)?;
        Ok(format!(
            "{} commands under audit; {kills} kills, 0 inconsistent",
            self.story.commands.len()
        ))
    }
}

/// The phone book with the pass left out: the audit must find what it writes, or all the zeros above mean nothing.
pub fn audit_finds(tools: &Tools) -> Result<String> {
    let executable = tools.work.join("bin/phonebook-no-pass");
    let mut compiler = Command::new(tools.compiler(false));
    run(compiler
        .args(["-O2", "--vernal-no-pass"])
        .arg(folder(tools).join("phonebook.c"))
        .arg("-o")
        .arg(&executable))?;
    let folder = tools.work.join("run/no-pass");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let file = folder.join("book.img");
    let output = Command::new(&executable)
        .arg(&file)
        .args(["stress", "3"])
        .env("VERNAL_PATHS", &file)
        .env("VERNAL_AUDIT", "1")
        .stdin(Stdio::null())
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    fs::remove_dir_all(&folder)?;
    if output.status.code() != Some(AUDIT_STATUS) || !stderr.contains("bytes in the line at") {
        return Err(format!(
            "an uninstrumented program passed the audit: {}\n{stderr}",
            output.status
        )
        .into());
    }
    Ok("an uninstrumented program is found".to_owned())
}

/// What a program ends with when the audit has found something.
const AUDIT_STATUS: i32 = 86;
