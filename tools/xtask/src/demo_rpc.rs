//! `cargo xtask demo rpc`: two processes share a tree by pointer, and a third one cheats.

use crate::ui::{Ui, seconds};
use crate::{Result, workspace::Workspace};
use serde_json::json;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Whatever takes longer has gone wrong.
const HANG: Duration = Duration::from_secs(60);
const SIGSEGV: i32 = 11;

/// A process that ends with the demonstration.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(programs: &Path, socket: &Path, name: &str) -> Command {
    let mut command = Command::new(programs.join(name));
    command.env("VERNAL_PUDDLED", socket).stdin(Stdio::null());
    command
}

fn told(ui: &Ui, who: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in text.lines() {
        ui.line(&format!("   {who}: {line}"));
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    for line in errors.lines() {
        ui.line(&format!("   {who}: {line}"));
    }
    text
}

/// Runs it; true when every promise was kept.
pub fn run(json: bool) -> Result<bool> {
    let start = Instant::now();
    let ui = Ui::new(json);
    let workspace = Workspace::load()?;
    ui.line("1. Build puddled, a server, a client and a client that cheats");
    let built = workspace
        .cargo(&[
            "build",
            "--quiet",
            "--package",
            "vernal-rpc-tests",
            "--bins",
        ])
        .status()?;
    if !built.success() {
        return Err("the programs of the demonstration do not build".into());
    }
    let programs = workspace.target.join("debug");
    let folder = workspace.target.join("demo-rpc");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let socket = folder.join("socket");
    let began = Instant::now();
    let log = File::create(folder.join("puddled.log"))?;
    let _puddled = Running(
        program(&programs, &socket, "rpc-puddled")
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--socket")
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?,
    );
    while !socket.exists() {
        if began.elapsed() > HANG {
            return Err(format!("puddled does not listen: see {}", folder.display()).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut server = Running(
        program(&programs, &socket, "rpc-demo")
            .arg("server")
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut line = String::new();
    if let Some(out) = server.0.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line.trim() != "serving" {
        return Err("the server does not serve".into());
    }
    let play = |role: &str| program(&programs, &socket, "rpc-demo").arg(role).output();

    ui.line("2. A client passes a tree to the server, and gets one");
    let first = told(&ui, "client", &play("client")?);
    ui.line("3. Another one changes its tree during the call, points into nowhere, and writes to the server's tree");
    let cheat = play("hostile")?;
    let cheated = told(&ui, "cheat", &cheat);
    let stopped = cheat.status.signal() == Some(SIGSEGV);
    if stopped {
        ui.line("   the kernel has ended it: the server's memory is read-only to everybody else");
    }
    ui.line("4. The server has not noticed");
    let second = told(&ui, "client", &play("client")?);
    let alive = server.0.try_wait()?.is_none();
    let right = |text: &str| text.contains("by pointer: right");
    let held = cheated.contains(", 0 saw it CHANGE")
        && !cheated.contains("TAKEN")
        && !cheated.contains("WROTE");
    let holds = right(&first) && right(&second) && held && stopped && alive;
    ui.line("");
    ui.line(&format!(
        "{} in {}",
        if holds {
            "every promise was kept"
        } else {
            "A PROMISE WAS BROKEN"
        },
        seconds(start.elapsed())
    ));
    ui.report(&json!({
        "demo": "rpc", "holds": holds, "cheat_ended_by_the_kernel": stopped, "server_alive": alive,
        "client": [first.trim(), second.trim()], "cheat": cheated.trim(),
    }));
    Ok(holds)
}
