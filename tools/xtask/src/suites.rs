//! The test programs of testsuite/ and how each is run: once by `cargo xtask test`, again and again by `soak`.

use crate::packages::Group;
use std::time::Duration;

/// One program of the testsuite. Those that count tests print `N passed, M failed[, K skipped]` as their last line; all print
/// the seed of what they choose at random, and exit with a status that can be trusted.
pub struct Suite {
    /// What `soak` and `test --only` call it.
    pub name: &'static str,
    /// Its crate.
    pub package: &'static str,
    /// Its arguments in `cargo xtask test`.
    pub once: &'static [&'static str],
    /// Its arguments in one round of a soak; `{seed}` is another one in each round.
    pub soak: &'static [&'static str],
    /// The time limit of a run.
    pub limit: Duration,
    /// The packages it needs besides the toolchain.
    pub groups: &'static [Group],
    /// Features of its crate that are off in ordinary builds.
    pub features: &'static str,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// Every suite, in the order in which `cargo xtask test` runs them.
pub const SUITES: &[Suite] = &[
    // The full enumeration takes many minutes: `cargo xtask soak crash`.
    Suite {
        name: "crash",
        package: "vernal-crash",
        once: &["enumerate", "--quick"],
        soak: &["enumerate", "--seed", "{seed}"],
        limit: minutes(8),
        groups: &[],
        features: "",
    },
    Suite {
        name: "litmus",
        package: "vernal-crash",
        once: &["litmus"],
        soak: &["litmus"],
        limit: minutes(3),
        groups: &[],
        features: "",
    },
    Suite {
        name: "kill",
        package: "vernal-kill",
        once: &["run", "--seconds", "75"],
        soak: &["run", "--seconds", "120", "--seed", "{seed}"],
        limit: minutes(5),
        groups: &[],
        features: "",
    },
    Suite {
        name: "programs",
        package: "vernal-programs",
        once: &["run"],
        soak: &["run", "--seconds", "120", "--seed", "{seed}"],
        limit: minutes(15),
        groups: &[Group::Programs],
        features: "",
    },
    Suite {
        name: "pools",
        package: "vernal-pool-programs",
        once: &["run", "--kills", "6", "--steps", "150"],
        soak: &["run", "--seconds", "120", "--seed", "{seed}"],
        limit: minutes(10),
        groups: &[],
        features: "",
    },
    Suite {
        name: "inspect-page",
        package: "vernal-inspect-page",
        once: &[],
        soak: &[],
        limit: minutes(6),
        groups: &[Group::Browser],
        features: "",
    },
    Suite {
        name: "mutants",
        package: "vernal-crash",
        once: &["mutants"],
        soak: &["mutants", "--all"],
        limit: minutes(15),
        groups: &[],
        features: "",
    },
];

/// What only `cargo xtask soak` runs.
pub const SOAKS: &[Suite] = &[
    // Rounds of a quarter of a minute each, in a guest of its own.
    Suite {
        name: "power",
        package: "vernal-power",
        once: &["run", "--seconds", "1"],
        soak: &["run", "--seconds", "120", "--seed", "{seed}"],
        limit: minutes(60),
        groups: &[Group::Guest],
        features: "",
    },
];

/// The benchmarks, which are no tests.
pub const BENCHES: &[Suite] = &[
    bench("persist", "vernal-bench", &["persist"]),
    bench("limits", "vernal-bench", &["limits"]),
    bench("puddles", "vernal-bench", &["puddles"]),
    bench("overhead", "vernal-bench-overhead", &[]),
    Suite {
        groups: &[Group::RpcPeers],
        features: "peers",
        ..bench("rpc", "vernal-bench-rpc", &[])
    },
];

const fn bench(name: &'static str, package: &'static str, once: &'static [&'static str]) -> Suite {
    Suite {
        name,
        package,
        once,
        soak: &[],
        limit: minutes(120),
        groups: &[Group::Peers, Group::Programs],
        features: "",
    }
}

impl Suite {
    /// The suite of `list` called `name`.
    pub fn find(list: &'static [Suite], name: &str) -> Option<&'static Suite> {
        list.iter().find(|suite| suite.name == name)
    }

    /// The arguments of cargo that run the suite with `arguments`.
    pub fn cargo(&self, arguments: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut words: Vec<String> = [
            "run",
            "--quiet",
            "--release",
            "--package",
            self.package,
            "--features",
            self.features,
            "--bin",
            self.package,
            "--",
        ]
        .map(str::to_owned)
        .to_vec();
        words.extend(arguments);
        words
    }

    /// The arguments of the run in `cargo xtask test`.
    pub fn once(&self) -> Vec<String> {
        self.once.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The arguments of one round of a soak.
    pub fn round(&self, seed: u64) -> Vec<String> {
        self.soak
            .iter()
            .map(|word| word.replace("{seed}", &seed.to_string()))
            .collect()
    }
}
