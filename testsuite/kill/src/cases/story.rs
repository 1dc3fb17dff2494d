//! A stage for stories: one scratch folder, the tool, and what it must say.

use super::{Checked, Problem, wrong};
use crate::child::{self, Ended, Running};
use crate::place::{Build, Medium, Place, Scratch};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A scratch folder in which the tool runs.
pub struct Stage<'p> {
    pub place: &'p Place,
    pub files: Scratch,
    pub notes: Scratch,
    tool: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl<'p> Stage<'p> {
    /// A stage on disk.
    pub fn new(place: &'p Place) -> Result<Stage<'p>, Problem> {
        Stage::on(place, Medium::Disk)
    }

    /// A stage on `medium`.
    pub fn on(place: &'p Place, medium: Medium) -> Result<Stage<'p>, Problem> {
        Ok(Stage {
            place,
            files: Scratch::new(medium, "case")?,
            notes: Scratch::new(Medium::Shm, "notes")?,
            tool: place.compile("cases/tool.c", Build::O2)?,
            environment: Vec::new(),
        })
    }

    /// Sets a variable for every later run.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Stage<'p> {
        self.environment.push((name, value.into()));
        self
    }

    /// Sets or removes a variable.
    pub fn set(&mut self, name: &'static str, value: Option<String>) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.extend(value.map(|value| (name, value)));
    }

    /// The path of file `name`, `.img` if it has no dot.
    pub fn file(&self, name: &str) -> PathBuf {
        if name.contains('.') {
            self.files.file(name)
        } else {
            self.files.file(&format!("{name}.img"))
        }
    }

    /// A command that runs `program` on this stage.
    pub fn command(&self, program: &Path, build: Build) -> Command {
        let mut command = self.place.command(program, build, self.files.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the words of `story`; single capital letters are files.
    pub fn tell(&self, story: &str) -> Result<Ended, Problem> {
        Ok(child::run(self.tool_command(story), self.notes.path())?)
    }

    /// The number of injection points that `story` passes on an empty stage.
    pub fn count(&mut self, story: &str) -> Result<u64, Problem> {
        self.files.clear()?;
        let file = self.notes.file("count");
        let _ = std::fs::remove_file(&file);
        self.set(
            "VERNAL_TEST_COUNT",
            Some(file.to_string_lossy().into_owned()),
        );
        let ended = self.tell(story)?;
        self.set("VERNAL_TEST_COUNT", None);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let count = text.trim().parse();
        count.map_err(|_| {
            Problem::Wrong(format!(
                "`{story}` counted nothing: {}{}",
                ended.out, ended.err
            ))
        })
    }

    /// Starts `story`, which ends in `hang`, and waits until it hangs.
    pub fn start(&self, story: &str) -> Result<Running, Problem> {
        // Its output must not be that of another run.
        let mut running = Running::start(self.tool_command(story), self.files.path())?;
        running.wait_for("hanging")?;
        Ok(running)
    }

    fn tool_command(&self, story: &str) -> Command {
        let mut command = self.command(&self.tool, Build::O2);
        for word in story.split_whitespace() {
            match word.as_bytes() {
                [b'A'..=b'Z'] => command.arg(self.file(&word.to_lowercase())),
                _ => command.arg(word),
            };
        }
        command
    }

    /// Tells a story whose output must be exactly `said` (lines), and which must not fail by itself.
    pub fn expect(&self, story: &str, said: &[&str]) -> Checked {
        let ended = self.tell(story)?;
        let lines: Vec<&str> = ended.out.lines().collect();
        let killed = story.ends_with("kill");
        if lines != said || killed != ended.killed() || (!killed && !ended.status.success()) {
            return wrong(format!(
                "`{story}` said {lines:?}, not {said:?} ({}) {}",
                ended.status,
                ended.err.trim()
            ));
        }
        Ok(())
    }

    /// Tells a story that must say something that contains each of `parts`.
    pub fn expect_parts(&self, story: &str, parts: &[&str]) -> Checked {
        let ended = self.tell(story)?;
        let all = format!("{}{}", ended.out, ended.err);
        match parts.iter().find(|part| !all.contains(**part)) {
            Some(part) => wrong(format!(
                "`{story}` does not say {part:?} but ({}):\n{all}",
                ended.status
            )),
            None => Ok(()),
        }
    }

    /// Runs `vernal` with `arguments` and demands its exit code and that it says each of `parts`.
    pub fn vernal(&self, arguments: &[&str], code: i32, parts: &[&str]) -> Checked {
        let mut command = Command::new(self.place.tool("vernal"));
        for argument in arguments {
            match argument.as_bytes() {
                [b'A'..=b'Z'] => command.arg(self.file(&argument.to_lowercase())),
                _ => command.arg(argument),
            };
        }
        let ended = child::run(command, self.notes.path())?;
        let all = format!("{}{}", ended.out, ended.err);
        if ended.status.code() != Some(code) {
            return wrong(format!(
                "vernal {arguments:?}: {}, not {code}: {all}",
                ended.status
            ));
        }
        match parts.iter().find(|part| !all.contains(**part)) {
            Some(part) => wrong(format!(
                "vernal {arguments:?} does not say {part:?} but: {all}"
            )),
            None => Ok(()),
        }
    }

    /// Runs a command to its end.
    pub fn run(&self, command: Command) -> Result<Ended, Problem> {
        Ok(child::run(command, self.notes.path())?)
    }

    /// The journals in the folder.
    pub fn journals(&self) -> Result<Vec<PathBuf>, Problem> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.files.path())? {
            let path = entry?.path();
            if path.to_string_lossy().contains(".vernal-journal-") {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// The only journal.
    pub fn journal(&self) -> Result<PathBuf, Problem> {
        match self.journals()?.as_slice() {
            [one] => Ok(one.clone()),
            other => wrong(format!(
                "there are {} journals, not one: {other:?}",
                other.len()
            )),
        }
    }
}
