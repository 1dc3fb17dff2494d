//! The run: all contenders are alive at once, and take turns at each row, in an order that rotates.

use crate::cooldb::{Depth, INDEXED, Source, write_documents};
use crate::machine::{Machine, cpus};
use crate::plan::{CLIENTS, Contender, Part, Placement, RATES, SIZES, SMALL, Scale, System, Wait};
use crate::process::{Folders, Pair, Sample};
use crate::puddled::Puddled;
use crate::results::{Key, Results};
use crate::{Failure, Options, Result, floors, graphs, memcached, report};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The least and the most calls of one timed turn.
const COUNTS: [u64; 2] = [20, 2_000_000];

/// Calls of each client in the first attempt at a row of `clients`.
const CROWD_FIRST: u64 = 10;

/// The run with everything that it needs.
struct Run<'a> {
    options: &'a Options,
    scale: Scale,
    folders: Folders,
    pairs: Vec<Pair>,
    results: Results,
    skipped: Vec<(String, String)>,
    /// When the part began that is measured now.
    began: Instant,
}

/// Measures, prints and keeps the results; whether every floor holds.
pub fn run(options: &Options) -> Result<bool> {
    let scale = options.scale();
    let out = options.out.clone().unwrap_or_else(target);
    let folders = Folders {
        run: Path::new("/dev/shm").join(format!("vernal-rpc-{}", std::process::id())),
        log: out.join("log"),
        bin: out.join("bin"),
    };
    for folder in [&folders.run, &folders.log, &folders.bin] {
        fs::create_dir_all(folder).map_err(|e| Failure(format!("{}: {e}", folder.display())))?;
    }
    let machine = Machine::this();
    let mut run = Run {
        options,
        scale,
        folders,
        pairs: Vec::new(),
        results: Results::default(),
        skipped: Vec::new(),
        began: Instant::now(),
    };
    let puddled = Puddled::start(&run.folders)?;
    let measured = run.all();
    // Processes first: they use what is removed then.
    run.pairs.clear();
    drop(puddled);
    let removed = fs::remove_dir_all(&run.folders.run);
    measured?;
    removed.map_err(|e| Failure(format!("{}: {e}", run.folders.run.display())))?;
    keep(&run, &machine, &out)
}

fn target() -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    // target/release/vernal-bench-rpc
    let target = here.ancestors().nth(2).unwrap_or(Path::new("."));
    target.join("bench")
}

fn keep(run: &Run, machine: &Machine, out: &Path) -> Result<bool> {
    let text = report::text(&run.results, machine, &run.skipped);
    let json = run.results.json_lines();
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|e| Failure(format!("{}: {e}", path.display())))
    };
    write(&out.join("rpc.txt"), &text)?;
    write(&out.join("rpc.jsonl"), &json)?;
    write(&out.join("rpc-samples.jsonl"), &run.results.raw_lines())?;
    if let Some(path) = &run.options.json {
        write(path, &json)?;
    }
    print!("{text}");
    println!("tables, rows and raw samples: {}", out.display());
    Ok(floors::floors(&run.results).iter().all(|f| f.holds()))
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        for contender in self.options.contenders() {
            if !contender.system.built() {
                self.skip(contender, "not in this build (feature peers)");
            } else if contender.placements(cpus().len()).is_empty() {
                self.skip(contender, "two sides that poll need two CPUs");
            } else {
                self.start(contender)?;
            }
        }
        for part in self.options.parts() {
            eprintln!("bench rpc: {}", crate::results::part_name(part));
            self.began = Instant::now();
            match part {
                Part::Calls => self.calls()?,
                Part::Load => self.load()?,
                Part::Clients => self.clients()?,
                Part::Cooldb => self.cooldb()?,
                Part::Graphs => self.results.graphs = graphs::run(self.scale.rounds)?,
                Part::Memcached => {
                    let (folders, rounds) = (&self.folders, self.scale.rounds);
                    if let Some(why) = memcached::run(folders, rounds, &mut self.results)? {
                        self.skipped.push(("memcached".to_owned(), why));
                    }
                }
            }
        }
        for pair in &mut self.pairs {
            pair.check_calls()?;
        }
        Ok(())
    }

    fn start(&mut self, contender: Contender) -> Result<()> {
        self.pairs.push(Pair::start(contender, &self.folders)?);
        Ok(())
    }

    fn skip(&mut self, contender: Contender, why: &str) {
        self.skipped.push((contender.to_string(), why.to_owned()));
    }

    fn seed(&self, round: u32) -> u64 {
        self.options.seed.wrapping_add(u64::from(round) << 48)
    }

    /// Whether there is time for `round` when `done` of the part's rows are finished: on a busy machine rows get fewer
    /// rounds, but all rows get one.
    fn in_time(&self, round: u32, done: usize, rows: usize) -> bool {
        let share = self.scale.part_s as f64 * (done + 1) as f64 / rows as f64;
        round == 0 || self.began.elapsed().as_secs_f64() < share
    }

    /// The order of a round: a different contender is first in each.
    fn order(&self, round: u32) -> Vec<usize> {
        let n = self.pairs.len();
        (0..n).map(|i| (i + round as usize) % n.max(1)).collect()
    }

    fn calls(&mut self) -> Result<()> {
        for (at, (size, name)) in SIZES.into_iter().enumerate() {
            let mut counts = BTreeMap::new();
            for (i, pair) in self.pairs.iter_mut().enumerate() {
                for placement in pair.contender.placements(cpus().len()) {
                    let ns = self.scale.turn_ms * 1_000_000;
                    let count = calibrate(pair, placement, size, self.options.seed, ns)?;
                    counts.insert((i, placement), count);
                }
            }
            for round in 0..self.scale.rounds {
                if !self.in_time(round, at, SIZES.len()) {
                    break;
                }
                for i in self.order(round) {
                    let seed = self.seed(round);
                    let pair = &mut self.pairs[i];
                    for placement in pair.contender.placements(cpus().len()) {
                        let count = counts.get(&(i, placement)).copied().unwrap_or(COUNTS[0]);
                        let sample = pair.run(placement, size, [count / 10 + 2, count], seed, 1)?;
                        let key = Key {
                            part: Part::Calls,
                            row: (at, name.to_owned()),
                            contender: pair.contender,
                            placement,
                        };
                        self.results.add(key, &sample);
                    }
                }
            }
        }
        Ok(())
    }

    fn load(&mut self) -> Result<()> {
        // A rate that a contender did not reach is the last that it is asked for.
        let mut behind = vec![false; self.pairs.len()];
        for (at, rate) in RATES.into_iter().enumerate() {
            for round in 0..self.scale.rounds.div_ceil(3) {
                if !self.in_time(round, at, RATES.len()) {
                    break;
                }
                for i in self.order(round) {
                    let seed = self.seed(round);
                    let pair = &mut self.pairs[i];
                    if behind[i] || pair.contender.system == System::Local {
                        continue;
                    }
                    let poll = pair.contender.wait == Wait::Poll;
                    let placement = match pair.contender.wait {
                        Wait::Block => Placement::Same,
                        Wait::Poll | Wait::Adapt => Placement::Two,
                    };
                    let count = (rate * self.scale.turn_ms * 5 / 1000).max(100);
                    let sample = pair.load(placement, SMALL, rate, count, seed, poll)?;
                    if round == 0 && sample.per_call() > 1.5e9 / rate as f64 {
                        behind[i] = true;
                    }
                    let key = Key {
                        part: Part::Load,
                        row: (at, rate.to_string()),
                        contender: pair.contender,
                        placement,
                    };
                    self.results.add(key, &sample);
                }
            }
        }
        Ok(())
    }

    fn clients(&mut self) -> Result<()> {
        // Each contender's part of the time, its connections included: who has used it up gets one round of each further row.
        let share = self.scale.part_s as f64 / self.pairs.len().max(1) as f64;
        let mut spent = vec![0.0; self.pairs.len()];
        for (at, clients) in CLIENTS.into_iter().enumerate() {
            // Threads that only spin, more than there are CPUs, measure the scheduler.
            let crowded = 2 * clients as usize > cpus().len();
            for round in 0..self.scale.rounds.div_ceil(3) {
                if !self.in_time(round, at, CLIENTS.len()) {
                    break;
                }
                for i in self.order(round) {
                    let seed = self.seed(round);
                    let pair = &mut self.pairs[i];
                    let spins = pair.contender.wait == Wait::Poll;
                    if pair.contender.system == System::Local || (crowded && spins) {
                        continue;
                    }
                    if round > 0 && spent[i] > share {
                        continue;
                    }
                    let began = Instant::now();
                    let sample = crowd(pair, seed, clients, self.scale.turn_ms * 2_000_000)?;
                    spent[i] += began.elapsed().as_secs_f64();
                    let key = Key {
                        part: Part::Clients,
                        row: (at, clients.to_string()),
                        contender: pair.contender,
                        placement: Placement::Free,
                    };
                    self.results.add(key, &sample);
                }
            }
        }
        Ok(())
    }

    /// How many documents can be inserted when one takes about `ns` nanoseconds, by all systems together: as many as planned,
    /// or a whole number of thousands that a busy machine inserts in the time of the part.
    fn affordable(&mut self, ns: f64) -> u64 {
        let planned = self.scale.documents;
        let possible = self.scale.part_s as f64 * 1e9 / ns.max(1.0);
        if possible >= planned as f64 {
            return planned;
        }
        let documents = (possible as u64 / 1000).max(1) * 1000;
        let why = format!("the machine is busy: {documents} documents instead of {planned}");
        self.skipped.push(("cooldb".to_owned(), why));
        documents
    }

    fn cooldb(&mut self) -> Result<()> {
        let with_store: Vec<usize> = (0..self.pairs.len())
            .filter(|&i| self.pairs[i].contender.has_store())
            .collect();
        let home = |pair: &Pair| match (pair.contender.system, pair.contender.wait) {
            (System::Local, _) | (_, Wait::Block) => Placement::Same,
            (_, Wait::Poll | Wait::Adapt) => Placement::Two,
        };
        let mut ns = 0.0;
        for &i in &with_store {
            let placement = home(&self.pairs[i]);
            let probe = self.pairs[i].run(placement, SMALL, [10, 100], self.options.seed, 1)?;
            ns += 2.0 * probe.per_call();
        }
        let documents = self.affordable(ns);
        let file = self.folders.run.join("documents");
        write_documents(&file, documents, self.options.seed)?;
        if Source::open(&file)?.len() as u64 != documents {
            return Err(Failure("the file of documents is incomplete".to_owned()));
        }
        for &i in &with_store {
            let placement = home(&self.pairs[i]);
            self.pairs[i].open(placement, &file)?;
        }
        let slice = documents / self.scale.slices;
        for round in 0..self.scale.slices {
            let mut agreed = Agreed::default();
            for turn in 0..with_store.len() {
                let i = with_store[(turn + round as usize) % with_store.len()];
                let pair = &mut self.pairs[i];
                let placement = home(pair);
                let sample = pair.insert(placement, round * slice, slice)?;
                agreed.check("insert", pair.contender, sample.sum)?;
                let key = cooldb_key(0, "insert", pair.contender, placement);
                self.results.add(key, &sample);
            }
        }
        self.began = Instant::now();
        let mut rows = Vec::new();
        for (field, found) in INDEXED {
            rows.push((format!("find {found}"), field, found, Depth::Fields));
        }
        rows.push((
            "read 100".to_owned(),
            INDEXED[1].0,
            INDEXED[1].1,
            Depth::Whole,
        ));
        let searches = rows.len();
        for (at, (name, field, found, depth)) in rows.into_iter().enumerate() {
            let words = format!("{field} {} {}", documents / found, depth.name());
            let count = (self.scale.searches / self.scale.slices).max(5);
            for round in 0..self.scale.slices {
                // Inserting takes as long as it takes: the share of the searches begins after it.
                if !self.in_time(round as u32, at, searches) {
                    break;
                }
                let mut agreed = Agreed::default();
                for turn in 0..with_store.len() {
                    let i = with_store[(turn + round as usize) % with_store.len()];
                    let seed = self.seed(round as u32);
                    let pair = &mut self.pairs[i];
                    let placement = home(pair);
                    let sample = pair.search(placement, &words, [2, count], seed)?;
                    agreed.check(&name, pair.contender, sample.sum)?;
                    let key = cooldb_key(1 + at, &name, pair.contender, placement);
                    self.results.add(key, &sample);
                }
            }
        }
        Ok(())
    }
}

fn cooldb_key(at: usize, row: &str, contender: Contender, placement: Placement) -> Key {
    Key {
        part: Part::Cooldb,
        row: (at, row.to_owned()),
        contender,
        placement,
    }
}

/// What the first contender of a round has found; the others must find the same.
#[derive(Default)]
struct Agreed(Option<(Contender, u64)>);

impl Agreed {
    fn check(&mut self, row: &str, contender: Contender, sum: u64) -> Result<()> {
        let (first, agreed) = *self.0.get_or_insert((contender, sum));
        if agreed == sum {
            return Ok(());
        }
        Err(Failure(format!(
            "{row}: {contender} found {sum}, {first} found {agreed}: they have not done the same work"
        )))
    }
}

/// Calls of many clients at once, for about `ns` nanoseconds. A contender whose calls take many milliseconds then makes a few calls
/// with each client and no more.
fn crowd(pair: &mut Pair, seed: u64, clients: u64, ns: u64) -> Result<Sample> {
    let mut count = CROWD_FIRST;
    loop {
        let calls = [count / 10 + 1, count];
        let sample = pair.run(Placement::Free, SMALL, calls, seed, clients)?;
        let enough = sample.ns.saturating_mul(2) >= ns;
        if enough || count >= COUNTS[1] {
            return Ok(sample);
        }
        let per_call = (sample.ns / count).max(1);
        count = (ns / per_call).clamp(count * 2, count * 64).min(COUNTS[1]);
    }
}

/// How many calls take about `ns` nanoseconds.
fn calibrate(
    pair: &mut Pair,
    placement: Placement,
    size: usize,
    seed: u64,
    ns: u64,
) -> Result<u64> {
    let mut count = COUNTS[0];
    loop {
        let sample = pair.run(placement, size, [2, count], seed, 1)?;
        if sample.ns * 5 >= ns || count >= COUNTS[1] {
            let per_call = (sample.ns / sample.units.max(1)).max(1);
            return Ok((ns / per_call).clamp(COUNTS[0], COUNTS[1]));
        }
        count *= 4;
    }
}
