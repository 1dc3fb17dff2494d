//! The test programs of testsuite/ and how each is run: briefly by `cargo xtask test`, for a given time by `soak`.

use crate::packages::Group;
use std::time::Duration;

/// One program of the testsuite. All of them print `N passed, M failed[, K skipped]` as their last line, and print the
/// seed of what they chose at random.
pub struct Suite {
    /// What `soak` calls it.
    pub name: &'static str,
    /// Its crate, which has one binary.
    pub package: &'static str,
    /// Its arguments in `cargo xtask test`.
    pub brief: &'static [&'static str],
    /// Its arguments in `soak`; `{minutes}` and `{seed}` are filled in.
    pub soak: &'static [&'static str],
    /// The time limit of the brief run.
    pub limit: Duration,
    /// The packages it needs besides the toolchain.
    pub groups: &'static [Group],
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// Every suite, in the order in which `cargo xtask test` runs them.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "crash",
        package: "vernal-crash",
        brief: &["run", "--seconds", "60"],
        soak: &["run", "--seconds", "{seconds}", "--seed", "{seed}"],
        limit: minutes(5),
        groups: &[],
    },
    Suite {
        name: "kill",
        package: "vernal-kill",
        brief: &["run", "--seconds", "90"],
        soak: &["run", "--seconds", "{seconds}", "--seed", "{seed}"],
        limit: minutes(5),
        groups: &[],
    },
    Suite {
        name: "programs",
        package: "vernal-programs",
        brief: &["run"],
        soak: &["run", "--seconds", "{seconds}"],
        limit: minutes(10),
        groups: &[Group::Programs],
    },
    Suite {
        name: "mutants",
        package: "vernal-mutants",
        brief: &["run"],
        soak: &["run", "--seconds", "{seconds}", "--seed", "{seed}"],
        limit: minutes(10),
        groups: &[],
    },
];

/// The benchmarks, which are no tests.
pub const BENCH: Suite = Suite {
    name: "bench",
    package: "vernal-bench",
    brief: &[],
    soak: &[],
    limit: minutes(60),
    groups: &[Group::Peers, Group::Programs],
};

/// The suite called `name`.
pub fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}

impl Suite {
    /// The arguments of cargo for a run with the suite's `arguments`.
    pub fn cargo(&self, arguments: &[String]) -> Vec<String> {
        let mut words: Vec<String> = [
            "run",
            "--quiet",
            "--release",
            "--package",
            self.package,
            "--",
        ]
        .map(str::to_owned)
        .to_vec();
        words.extend_from_slice(arguments);
        words
    }

    /// The arguments of a brief run.
    pub fn brief(&self) -> Vec<String> {
        self.brief.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The arguments of a soak.
    pub fn soak(&self, minutes: u64, seed: u64) -> Vec<String> {
        let fill = |word: &&str| {
            word.replace("{seconds}", &(minutes * 60).to_string())
                .replace("{seed}", &seed.to_string())
        };
        self.soak.iter().map(fill).collect()
    }
}
