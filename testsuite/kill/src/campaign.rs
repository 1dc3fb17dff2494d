//! The campaign: a program is killed, and the file must hold the last acknowledged state, or the one in flight, whole.

use crate::Result;
use crate::child::{Ended, Rig, Running};
use crate::model::{Model, Workload};
use crate::place::{Build, Medium, Place, Scratch};
use crate::rng::Rng;
use std::process::Command;
use std::time::{Duration, Instant};

/// Operations of a program whose injection points are enumerated.
const SMALL: u64 = 12;
/// Operations of a program that is killed at random moments.
const LARGE: u64 = 4000;
/// Operations done after a crash, to see that the file goes on working.
const AFTER: u64 = 3;
/// Recovery of every so many-th crash is itself killed at every point.
const RECOVERY_EVERY: u64 = 8;
/// Recovery passes fewer points than this.
const RECOVERY_POINTS: u64 = 256;
/// `vernal`'s exit status for a file that Vernal has never mapped.
const NO_METADATA: i32 = 5;
/// Failures of one plan that are reported in full.
const SHOWN: usize = 3;

/// When the kills come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// At each injection point, by the process itself.
    Points,
    /// At random moments, from outside.
    Moments,
}

/// One program on one medium, killed in one way.
pub struct Plan {
    workload: Workload,
    build: Build,
    medium: Medium,
    when: When,
    seed: u64,
    ops: u64,
}

/// What a plan did.
#[derive(Default)]
pub struct Stats {
    /// Injection points that the program passes.
    points: u64,
    /// Of those, the ones at which it was killed.
    covered: u64,
    /// Processes killed.
    kills: u64,
    /// Of those, inside recovery.
    in_recovery: u64,
    /// States found after a crash that held the operation in flight.
    in_flight: u64,
    /// What was wrong, with the way to repeat it.
    pub failures: Vec<String>,
    failed: u64,
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.points > 0 {
            write!(f, "points {} of {}, ", self.covered, self.points)?;
        }
        write!(
            f,
            "kills {} ({} inside recovery), ",
            self.kills, self.in_recovery
        )?;
        write!(
            f,
            "commit in flight survived {} times, wrong states {}",
            self.in_flight, self.failed
        )
    }
}

impl Stats {
    fn fail(&mut self, text: String) {
        self.failed += 1;
        if self.failures.len() < SHOWN {
            self.failures.push(text);
        }
    }
}

/// Every plan of a run.
pub fn plans(seed: u64) -> Vec<Plan> {
    let mut plans = Vec::new();
    for workload in Workload::ALL {
        for build in [Build::O0, Build::O2] {
            plans.push(Plan::points(workload, build, Medium::Shm, seed, SMALL));
        }
        plans.push(Plan::points(workload, Build::O2, Medium::Disk, seed, SMALL));
        for medium in [Medium::Shm, Medium::Disk] {
            let ops = LARGE;
            plans.push(Plan {
                workload,
                build: Build::O2,
                medium,
                when: When::Moments,
                seed,
                ops,
            });
        }
    }
    plans.push(Plan::points(
        Workload::Kv,
        Build::Lto,
        Medium::Shm,
        seed,
        SMALL,
    ));
    plans.push(Plan::points(
        Workload::Btree,
        Build::Page,
        Medium::Shm,
        seed,
        SMALL,
    ));
    plans
}

impl Plan {
    /// Kills at injection points.
    pub fn points(workload: Workload, build: Build, medium: Medium, seed: u64, ops: u64) -> Plan {
        Plan {
            workload,
            build,
            medium,
            when: When::Points,
            seed,
            ops,
        }
    }

    /// What reports call it.
    pub fn name(&self) -> String {
        let when = match self.when {
            When::Points => "points",
            When::Moments => "moments",
        };
        format!(
            "kill {} {} {} {when}",
            self.workload.name(),
            self.build.name(),
            self.medium.name()
        )
    }

    /// Runs until everything is covered or `deadline` has passed.
    pub fn run(&self, place: &Place, deadline: Instant) -> Result<Stats> {
        let rig = self.rig(place)?;
        match self.when {
            When::Points => self.at_points(&rig, deadline),
            When::Moments => self.at_moments(&rig, deadline),
        }
    }

    /// Repeats the kill at one point, its recovery killed too.
    pub fn replay(&self, place: &Place, at: u64) -> Result<Stats> {
        let rig = self.rig(place)?;
        let mut stats = Stats::default();
        self.one_point(&rig, at, true, &mut stats)?;
        Ok(stats)
    }

    fn rig<'p>(&self, place: &'p Place) -> Result<Rig<'p>> {
        Ok(Rig {
            place,
            build: self.build,
            program: place.compile(&format!("workloads/{}.c", self.workload.name()), self.build)?,
            files: Scratch::new(self.medium, self.workload.name())?,
            notes: Scratch::new(Medium::Shm, "notes")?,
        })
    }

    fn at_points(&self, rig: &Rig<'_>, deadline: Instant) -> Result<Stats> {
        let points = rig.count(&["run", &self.seed.to_string(), &self.ops.to_string()])?;
        let mut stats = Stats {
            points,
            ..Stats::default()
        };
        if stats.points < self.ops {
            return Err(format!(
                "only {} injection points for {} commits: injection is off",
                stats.points, self.ops
            )
            .into());
        }
        for (index, point) in Rng::new(self.seed)
            .order(stats.points)
            .into_iter()
            .enumerate()
        {
            if Instant::now() > deadline && index > 0 {
                break;
            }
            let kill_recovery = (index as u64).is_multiple_of(RECOVERY_EVERY);
            self.one_point(rig, point + 1, kill_recovery, &mut stats)?;
            stats.covered += 1;
        }
        Ok(stats)
    }

    fn one_point(
        &self,
        rig: &Rig<'_>,
        at: u64,
        kill_recovery: bool,
        stats: &mut Stats,
    ) -> Result<()> {
        rig.files.clear()?;
        let ended = rig.run(&["run", &self.seed.to_string(), &self.ops.to_string()], at)?;
        let mut problem = self.unexpected_end(&ended);
        stats.kills += u64::from(ended.killed());
        let acknowledged = ended.last("C").unwrap_or(0);
        let begun = ended.last("B").unwrap_or(0);
        if problem.is_none() && kill_recovery {
            problem = self.kill_recovery(rig, acknowledged, begun, stats)?;
        }
        if problem.is_none() {
            problem = self.verify(rig, acknowledged, begun, at.is_multiple_of(2), stats)?;
        }
        if let Some(problem) = problem {
            stats.fail(format!(
                "killed at point {at}: {problem}\n  repeat: vernal-kill replay --workload {} --build {} --medium {} --seed {} --ops {} --at {at}",
                self.workload.name(),
                self.build.name(),
                self.medium.name(),
                self.seed,
                self.ops,
            ));
        }
        Ok(())
    }

    /// A process under test either finishes or is killed; an error of its own is a finding.
    fn unexpected_end(&self, ended: &Ended) -> Option<String> {
        (!ended.killed() && !ended.status.success()).then(|| {
            format!(
                "the program failed by itself ({}): {}",
                ended.status,
                ended.err.trim()
            )
        })
    }

    /// Kills the process that recovers, at each of its points, always from the same crash state.
    fn kill_recovery(
        &self,
        rig: &Rig<'_>,
        acknowledged: u64,
        begun: u64,
        stats: &mut Stats,
    ) -> Result<Option<String>> {
        let crashed = rig.files.snapshot()?;
        for at in 1..=RECOVERY_POINTS {
            rig.files.restore(&crashed)?;
            let ended = rig.run(&["dump"], at)?;
            if let Some(problem) = self.unexpected_end(&ended) {
                return Ok(Some(format!("recovery after it: {problem}")));
            }
            if !ended.killed() {
                break;
            }
            stats.kills += 1;
            stats.in_recovery += 1;
            if let Some(problem) = self.verify(rig, acknowledged, begun, false, stats)? {
                return Ok(Some(format!(
                    "recovery killed at its point {at}: {problem}"
                )));
            }
        }
        rig.files.restore(&crashed)?;
        Ok(None)
    }

    /// Recovers, compares with the model, and lets the program go on; the sentence that says what is wrong, if anything is.
    fn verify(
        &self,
        rig: &Rig<'_>,
        acknowledged: u64,
        begun: u64,
        by_tool: bool,
        stats: &mut Stats,
    ) -> Result<Option<String>> {
        if by_tool && rig.image().exists() {
            // The other way to recover; the dump below then finds a file that stands alone.
            let mut recover = Command::new(rig.place.tool("vernal"));
            recover.arg("recover").arg(rig.image());
            let ended = crate::child::run(recover, rig.notes.path())?;
            // Killed before its metadata were made, the file is not Vernal's yet.
            let untouched = ended.status.code() == Some(NO_METADATA)
                && !rig.files.file("heap.img.vernal").exists();
            if !ended.status.success() && !untouched {
                return Ok(Some(format!(
                    "vernal recover failed ({}): {}{}",
                    ended.status, ended.out, ended.err
                )));
            }
        }
        let done = match self.dump(rig)? {
            Ok(done) => done,
            Err(problem) => return Ok(Some(problem)),
        };
        if done != acknowledged && done != begun.max(acknowledged) {
            return Ok(Some(format!(
                "the file holds operation {done}; acknowledged {acknowledged}, in flight {begun}"
            )));
        }
        stats.in_flight += u64::from(done > acknowledged);
        let more = done + AFTER;
        let ended = rig.run(&["run", &self.seed.to_string(), &more.to_string()], 0)?;
        if !ended.status.success() {
            return Ok(Some(format!(
                "after recovery the program cannot go on ({}): {}",
                ended.status,
                ended.err.trim()
            )));
        }
        match self.dump(rig)? {
            Ok(found) if found == more => Ok(None),
            Ok(found) => Ok(Some(format!("going on from {done} to {more} left {found}"))),
            Err(problem) => Ok(Some(format!("after going on: {problem}"))),
        }
    }

    /// The number of operations in the file, whose contents are those of the model.
    fn dump(&self, rig: &Rig<'_>) -> Result<std::result::Result<u64, String>> {
        let ended = rig.run(&["dump"], 0)?;
        if !ended.status.success() {
            return Ok(Err(format!(
                "the file does not open or is broken ({}): {}",
                ended.status,
                ended.err.trim()
            )));
        }
        let mut lines: Vec<&str> = ended.out.lines().collect();
        if lines.pop() != Some("end") || lines.is_empty() {
            return Ok(Err("the dump is cut short".to_owned()));
        }
        let Some(done) = lines
            .remove(0)
            .strip_prefix("done ")
            .and_then(|n| n.parse().ok())
        else {
            return Ok(Err("the dump has no head".to_owned()));
        };
        let mut model = Model::new(self.workload, self.seed);
        model.advance(done);
        if model.matches(&lines) {
            return Ok(Ok(done));
        }
        let expected = model.lines();
        let odd = lines
            .iter()
            .find(|line| !expected.iter().any(|e| e == *line));
        Ok(Err(format!(
            "after {done} operations the file holds {} entries, the model {}; the first odd entry is {odd:?}",
            lines.len(),
            expected.len()
        )))
    }

    /// Kills from outside, again and again on the same file, which must never lose ground.
    fn at_moments(&self, rig: &Rig<'_>, deadline: Instant) -> Result<Stats> {
        let mut stats = Stats::default();
        let mut rng = Rng::new(self.seed ^ 0x6d6f_6d65_6e74);
        let mut reached = 0;
        while Instant::now() < deadline && stats.failed < SHOWN as u64 {
            if reached >= self.ops {
                rig.files.clear()?;
                reached = 0;
            }
            let mut running = Running::start(
                rig.command(&["run", &self.seed.to_string(), &self.ops.to_string()]),
                rig.notes.path(),
            )?;
            std::thread::sleep(Duration::from_micros(rng.below(40_000)));
            running.kill()?;
            let ended = running.end()?;
            stats.kills += u64::from(ended.killed());
            let acknowledged = ended.last("C").unwrap_or(reached);
            let begun = ended.last("B").unwrap_or(acknowledged);
            let mut problem = self.unexpected_end(&ended);
            if problem.is_none() {
                problem = self.verify(rig, acknowledged, begun, rng.below(2) == 0, &mut stats)?;
            }
            match problem {
                Some(problem) => {
                    let text = format!(
                        "kill {} from outside, at operation {acknowledged}: {problem}",
                        stats.kills
                    );
                    stats.fail(format!(
                        "{text} (seed {}; the moment itself cannot be repeated)",
                        self.seed
                    ));
                    rig.files.clear()?;
                    reached = 0;
                }
                // Verifying went on by a few operations.
                None => reached = self.dump(rig)?.unwrap_or(0),
            }
        }
        Ok(stats)
    }
}
