//! The rounds: run, cut, make crash states, check.

use crate::guest::{self, Guest};
use crate::machine::{Disk, Machine, PERSISTENT_BYTES};
use crate::writes::{Cut, Writes};
use crate::{Random, Result, folders, run as run_command};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What to do.
#[derive(Debug)]
pub struct Plan {
    pub time: Duration,
    pub seed: u64,
    /// Crash states of one round.
    pub disks: usize,
    /// With byte-addressable memory beside the disk.
    pub memory: bool,
}

/// Bytes of a disk.
const DISK: u64 = 96 << 20;
/// After so many rounds on the remains of the last one a new disk is made.
const CHAIN: u64 = 4;

/// The last transaction of each program that is known to be durable.
type Floor = BTreeMap<String, u64>;

/// What is checked: an image, and what it must hold at least.
struct State {
    disk: Disk,
    floor: Floor,
    /// For a person.
    what: String,
}

#[derive(Default)]
struct Sums {
    rounds: u64,
    states: u64,
    transactions: u64,
    recovering: u64,
    failed: u64,
}

/// Rounds until the time is over. `false`: something was lost.
pub fn run(plan: &Plan) -> Result<bool> {
    let (tools, work) = folders()?;
    let guest = guest::make(&work, &tools)?;
    let found = work.join("found");
    println!("seed {}", plan.seed);
    // In memory, where the guest's own is a file.
    let place = Some(PathBuf::from("/dev/shm")).filter(|p| plan.memory && p.is_dir());
    let session = tempfile::Builder::new()
        .prefix("vernal-power-")
        .tempdir_in(place.unwrap_or(work))?;
    let mut random = Random(plan.seed);
    let began = Instant::now();
    let mut sums = Sums::default();
    let mut base = None;
    while sums.failed == 0 && (sums.rounds == 0 || began.elapsed() < plan.time) {
        let dir = session.path().join("round");
        fs::create_dir(&dir)?;
        let round = Round {
            guest: &guest,
            dir: &dir,
            plan,
        };
        if sums.rounds % CHAIN == 0 {
            base = None;
        }
        let next = session.path().join("base.next");
        let floor = round.go(base.take(), &next, &mut random, &mut sums)?;
        sums.rounds += 1;
        if sums.failed > 0 {
            let _ = fs::remove_dir_all(&found);
            run_command(Command::new("cp").arg("-r").arg(&dir).arg(&found))?;
            println!("the disks of the round are in {}", found.display());
        }
        fs::remove_dir_all(&dir)?;
        let kept = session.path().join("base");
        fs::rename(&next, &kept)?;
        base = Some((kept, floor));
    }
    println!(
        "{} rounds, {} crash states ({} of them cut while something was recovered), {} transactions said to be durable, {} states wrong, {:.0} s",
        sums.rounds,
        sums.states,
        sums.recovering,
        sums.transactions,
        sums.failed,
        began.elapsed().as_secs_f64()
    );
    println!(
        "{} passed, {} failed",
        sums.states - sums.failed,
        sums.failed
    );
    Ok(sums.failed == 0)
}

struct Round<'a> {
    guest: &'a Guest,
    dir: &'a Path,
    plan: &'a Plan,
}

impl Round<'_> {
    /// One round. `next` becomes the disk with which the next one begins; returned is what that one must hold.
    fn go(
        &self,
        base: Option<(PathBuf, Floor)>,
        next: &Path,
        random: &mut Random,
        sums: &mut Sums,
    ) -> Result<Floor> {
        let (image, log) = (self.dir.join("running"), self.dir.join("log"));
        let start = self.dir.join("start");
        let chained = base.is_some();
        let floor = match base {
            Some((base, floor)) => {
                fs::rename(base, &start)?;
                floor
            }
            None => {
                file_system(&start, DISK)?;
                Floor::new()
            }
        };
        copy(&start, &image)?;
        File::create(&log)?;
        let memory = self.dir.join("memory");
        let mut disks = vec![Disk::Block {
            image,
            log: Some(log.clone()),
        }];
        if self.plan.memory {
            file_system(&memory, PERSISTENT_BYTES)?;
            disks.push(Disk::Memory {
                image: memory.clone(),
            });
        }
        // A short run is cut in recovery, or before the programs have begun.
        let wanted = match random.below(4) {
            0 => random.below(4),
            _ => 20 + random.below(400),
        };
        let said = self.stress(&disks, &log, wanted, random)?;
        sums.transactions += said.len() as u64;
        let writes = Writes::read(File::open(&log)?)?;
        let mut states = Vec::new();
        for i in 0..self.plan.disks {
            let cut = choose(&writes, i, random);
            let end = writes.end_of(&cut);
            sums.recovering += u64::from(chained && said.iter().all(|s| s.log_len > end));
            let floor = floor_of(&floor, &said, end);
            let what = format!(
                "after {} of {} writes, {} of them durable",
                cut.entries,
                writes.entries.len(),
                cut.durable
            );
            let image = self.dir.join(format!("state{i}"));
            let chance = [0, 1, 4, 7, 8][random.below(5) as usize];
            self.make(&start, &writes, &cut, chance, random, &image)?;
            states.push(State {
                disk: Disk::Block { image, log: None },
                floor,
                what,
            });
        }
        // The state from which the next round starts is one that nobody has looked at.
        let cut = choose(&writes, 0, random);
        self.make(&start, &writes, &cut, 4, random, next)?;
        let next_floor = floor_of(&floor, &said, writes.end_of(&cut));
        if self.plan.memory {
            states.push(State {
                disk: Disk::Memory { image: memory },
                floor: said
                    .iter()
                    .filter(|s| s.program == "pooled" || s.program == "direct")
                    .map(|s| (s.program.clone(), s.number))
                    .collect(),
                what: "byte-addressable memory at the end".to_owned(),
            });
        }
        sums.states += states.len() as u64;
        sums.failed += self.check(&states)?;
        println!(
            "round {}: {} transactions, {} writes, {} states checked",
            sums.rounds + 1,
            said.len(),
            writes.entries.len(),
            states.len()
        );
        Ok(next_floor)
    }

    fn make(
        &self,
        start: &Path,
        writes: &Writes,
        cut: &Cut,
        chance: u64,
        random: &mut Random,
        image: &Path,
    ) -> Result<()> {
        copy(start, image)?;
        let disk = File::options().write(true).open(image)?;
        writes.apply(cut, chance, random, &disk)
    }

    /// Runs the programs until they have said `wanted` numbers, and cuts the power a little later.
    fn stress(
        &self,
        disks: &[Disk],
        log: &Path,
        wanted: u64,
        random: &mut Random,
    ) -> Result<Vec<Said>> {
        let mut machine = Machine::boot(self.guest, self.dir, "stress", disks)?;
        let mut said = Vec::new();
        let mut started = 0;
        let mut lines = Vec::new();
        while started < disks.len() || (said.len() as u64) < wanted {
            let Some(line) = machine.line()? else {
                return Err(format!("the guest has ended; it said\n{}", lines.join("\n")).into());
            };
            started += usize::from(line.starts_with("S "));
            lines.push(line.clone());
            Said::hear(&line, log, &mut said)
                .map_err(|e| format!("{e}; the guest said\n{}", lines.join("\n")))?;
        }
        // Not a synchronisation: it varies the moment.
        let until = Instant::now() + Duration::from_millis(random.below(300));
        while let Some(line) = machine.line_until(until) {
            Said::hear(&line, log, &mut said)?;
        }
        machine.cut()?;
        Ok(said)
    }

    /// Boots a guest with all states, and compares; how many are wrong.
    fn check(&self, states: &[State]) -> Result<u64> {
        let disks: Vec<Disk> = states.iter().map(|s| s.disk.clone()).collect();
        let mut machine = Machine::boot(self.guest, self.dir, "check", &disks)?;
        let mut found: BTreeMap<(String, String), (String, String)> = BTreeMap::new();
        let mut lines = Vec::new();
        loop {
            let Some(line) = machine.line()? else {
                return Err(
                    format!("the guest ended too early; it said\n{}", lines.join("\n")).into(),
                );
            };
            if line == "X" {
                break;
            }
            let mut words = line.splitn(5, ' ');
            if let (Some("R"), Some(disk), Some(program), Some(status)) =
                (words.next(), words.next(), words.next(), words.next())
            {
                let text = words.next().unwrap_or_default().to_owned();
                found.insert((disk.into(), program.into()), (status.into(), text));
            }
            lines.push(line);
        }
        let (mut blocks, mut memories) = (0u8, 0);
        let mut wrong = 0;
        for state in states {
            let (name, programs) = match state.disk {
                Disk::Block { .. } => {
                    blocks += 1;
                    (
                        format!("vd{}", char::from(b'a' + blocks - 1)),
                        ["ledger", "book"],
                    )
                }
                Disk::Memory { .. } => {
                    memories += 1;
                    (format!("pmem{}", memories - 1), ["pooled", "direct"])
                }
            };
            let mut fine = true;
            for program in programs {
                let least = state.floor.get(program).copied().unwrap_or(0);
                let (status, text) = found
                    .get(&(name.clone(), program.to_owned()))
                    .cloned()
                    .unwrap_or_else(|| ("-".to_owned(), lines.join("\n")));
                let number = last_number(&text);
                if status != "0" || number.is_none_or(|n| n < least) {
                    fine = false;
                    println!(
                        "WRONG {name}, {}: {program} ends with {status}: {text}; {least} was durable",
                        state.what
                    );
                }
            }
            wrong += u64::from(!fine);
        }
        Ok(wrong)
    }
}

/// A transaction that a program said to be durable.
#[derive(Debug)]
struct Said {
    program: String,
    number: u64,
    /// How long the log of writes was when this was heard: what made it durable lies before.
    log_len: u64,
}

impl Said {
    fn hear(line: &str, log: &Path, said: &mut Vec<Said>) -> Result<()> {
        if line.starts_with("E ") {
            return Err(format!("the guest: {line}").into());
        }
        let Some((program, text)) = line.strip_prefix("A ").and_then(|l| l.split_once(' ')) else {
            return Ok(());
        };
        let words: Vec<&str> = text.split(' ').collect();
        let number = match words.as_slice() {
            [number] | ["batch", number] => number.parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return Err(format!("{program} in the guest: {text}").into());
        };
        said.push(Said {
            program: program.to_owned(),
            number,
            log_len: fs::metadata(log)?.len(),
        });
        Ok(())
    }
}

/// What a disk must hold whose log ended at `end`.
fn floor_of(before: &Floor, said: &[Said], end: u64) -> Floor {
    let mut floor = before.clone();
    for s in said.iter().filter(|s| s.log_len <= end) {
        floor.insert(s.program.clone(), s.number);
    }
    floor
}

/// A moment: the end, or any other, late ones more often.
fn choose(writes: &Writes, i: usize, random: &mut Random) -> Cut {
    let all = writes.entries.len() as u64;
    let entries = match (i, random.below(3)) {
        (0, _) => all,
        (_, 0) => random.below(all + 1),
        _ => all - random.below(all.min(60) + 1),
    };
    writes.cut(entries as usize)
}

fn last_number(text: &str) -> Option<u64> {
    let consistent = text.trim().strip_prefix("consistent: ")?;
    let digits = consistent.rsplit(' ').next()?;
    digits.parse().ok()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run_command(
        Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .arg(from)
            .arg(to),
    )
    .map(|_| ())
}

/// An empty ext4 file system.
fn file_system(at: &Path, size: u64) -> Result<()> {
    File::create(at)?.set_len(size)?;
    run_command(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096"])
            .arg(at),
    )
    .map(|_| ())
}
