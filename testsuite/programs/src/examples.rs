//! The examples of `testsuite/examples`: built as their comments say, used, killed, and checked by their own `check`.

use crate::Result;
use crate::check::Random;
use crate::rust::{self, Profile};
use crate::tools::{Tools, run};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// One example.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// Its name.
    pub name: &'static str,
    /// Commands to run first, one after the other, after the file's name; the last one's output must hold the text.
    story: &'static [&'static [&'static str]],
    says: &'static str,
    /// The command that changes the file until it is killed.
    stress: &'static [&'static str],
    check: &'static [&'static str],
    build: fn(&Tools) -> Result<PathBuf>,
}

/// All of them.
pub const EXAMPLES: &[Example] = &[
    Example {
        name: "phonebook",
        story: &[
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
        build: phonebook,
    },
    Example {
        name: "inventory",
        story: &[&["put", "bolts", "12"], &["take", "bolts", "5"], &["list"]],
        says: "bolts 7",
        stress: &["stress", "100000"],
        check: &["check"],
        build: inventory,
    },
    Example {
        name: "notes",
        story: &[
            &["add", "water the plants"],
            &["add", "call Ada"],
            &["drop", "0"],
            &["list"],
        ],
        says: "0 water the plants",
        stress: &["stress", "100000"],
        check: &["check"],
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
        let command = |file: &str, arguments: &[&str]| {
            let file = folder.join(file);
            let mut command = Command::new(&executable);
            command
                .arg(&file)
                .args(arguments)
                .env("VERNAL_PATHS", &file)
                .stdin(Stdio::null());
            command
        };
        let mut said = String::new();
        for arguments in self.story {
            let output = run(command("story.img", arguments).env("VERNAL_AUDIT", "1"))?;
            said = String::from_utf8_lossy(&output.stdout).into_owned();
        }
        if !said.contains(self.says) {
            return Err(format!("printed {said:?} instead of {:?}", self.says).into());
        }
        for kill in 0..kills {
            let mut child = command("stress.img", self.stress)
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
            std::thread::sleep(Duration::from_micros(random.below(1500)));
            child.kill()?;
            let printed = lines.last().transpose()?.or(printed);
            child.wait()?;
            let output = run(&mut command("stress.img", self.check))
                .map_err(|e| format!("after kill {kill}: {e}"))?;
            let found = last_number(&String::from_utf8_lossy(&output.stdout));
            let expected = printed.as_deref().and_then(last_number);
            if expected.is_some_and(|e| found != Some(e) && found != Some(e + 1)) {
                return Err(format!(
                    "after kill {kill}: {expected:?} was durable, the file has {found:?}"
                )
                .into());
            }
        }
        fs::remove_dir_all(&folder)?;
        Ok(format!(
            "{} commands under audit; {kills} kills, 0 inconsistent",
            self.story.len()
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

fn last_number(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|w| w.parse().ok())
        .next_back()
}
