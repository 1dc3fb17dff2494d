//! Power cuts. A guest in QEMU runs programs on a pool and on a mapped file, each of which says which of its transactions is
//! durable; its power is cut; what its disk may hold then is given to another guest, which must find every transaction that was
//! said to be durable, whole.
//!
//! A power cut loses what the disk's cache holds. So QEMU keeps every write in order (`blklogwrites`), and a crash state is: all
//! writes up to a moment, those before the last flush surely, of each later sector either the old or the new content. One run
//! gives many such states, of any moment; the state of one round is what the next one starts from, so that recovery is cut, too.
#![forbid(unsafe_code)]

mod cpio;
mod guest;
mod machine;
mod rounds;
mod writes;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Errors that end a run.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(
    about = "Cuts the power of a guest in QEMU, again and again, and checks what its disk may hold then"
)]
struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Rounds until the time is over; the round that runs then is finished
    Run {
        /// For how long
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Of what is chosen at random. The guest's own timing is not: a seed repeats the choices, not the run
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Disks to check in each round
        #[arg(long, default_value_t = 6)]
        disks: usize,
        /// Without byte-addressable memory
        #[arg(long)]
        no_dax: bool,
    },
}

fn main() -> ExitCode {
    let Action::Run {
        seconds,
        seed,
        disks,
        no_dax,
    } = Options::parse().action;
    let done = rounds::run(&rounds::Plan {
        time: Duration::from_secs(seconds),
        seed,
        disks: disks.clamp(1, 20),
        memory: !no_dax,
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("vernal-power: {e}");
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// Where Vernal's tools are, and where the guest is made.
fn folders() -> Result<(PathBuf, PathBuf)> {
    let program = std::env::current_exe()?;
    let complete = |dir: &std::path::Path| {
        let tools = ["vernal-cc", "libvernal.so", "libvernal_pass_22.so"];
        tools.iter().all(|name| dir.join(name).exists())
    };
    let tools = program
        .ancestors()
        .skip(1)
        .take(3)
        .find(|dir| complete(dir));
    let tools = tools.ok_or("Vernal's tools are not beside this program: cargo build --release")?;
    let work = tools.parent().unwrap_or(tools).join("power");
    Ok((tools.to_owned(), work))
}

/// Runs a command; what it prints.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run {name}: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{said}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A small generator of numbers, so that a seed is all it takes to repeat the choices.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}
