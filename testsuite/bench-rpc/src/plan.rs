//! What is measured: systems, how they wait, where they run, rows and scales.

use clap::ValueEnum;
use serde::Serialize;
use std::fmt;

/// A way to call another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// Vernal; neither side trusts the other.
    Vernal,
    /// Vernal between sides that trust each other: pointers are used as they are.
    VernalPlain,
    /// Vernal; the server's handlers run in a helper process, and read the client's memory in place.
    VernalProcess,
    /// Vernal over TCP, on the loopback interface: what calls to another host cost before the network.
    VernalTcp,
    /// No other process: what a call's own work costs.
    Local,
    /// Two cache lines of shared memory: what no call can go below.
    Lines,
    /// The same memory; the two sides sleep on futexes.
    Futex,
    /// The same memory; the two sides sleep on eventfds.
    Eventfd,
    /// A Unix stream socket.
    Uds,
    /// iceoryx2's request-response.
    Iceoryx2,
    /// Cap'n Proto over a Unix socket.
    Capnp,
    /// gRPC in Rust, over a Unix socket.
    Tonic,
    /// gRPC in C++, over a Unix socket.
    Grpc,
    /// A Unix socket of programs that nobody has changed, over the preloaded shim; in the part `memcached` only.
    Shim,
}

/// What a side does while it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// It looks again and again.
    Poll,
    /// It sleeps in the kernel.
    Block,
    /// It polls for as long as that has paid off lately, then sleeps: what Vernal does unless told otherwise.
    Adapt,
}

impl Wait {
    /// The name in arguments and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Block => "block",
            Self::Adapt => "adapt",
        }
    }
}

/// A system with its way to wait: one column of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contender {
    /// What carries the calls.
    pub system: System,
    /// How its sides wait.
    pub wait: Wait,
}

impl System {
    /// The ways to wait that the system has.
    pub fn waits(self) -> &'static [Wait] {
        match self {
            Self::Local | Self::Lines => &[Wait::Poll],
            Self::Futex | Self::Eventfd | Self::Capnp | Self::Grpc => &[Wait::Block],
            Self::Vernal => &[Wait::Poll, Wait::Block, Wait::Adapt],
            Self::VernalPlain
            | Self::VernalProcess
            | Self::VernalTcp
            | Self::Shim
            | Self::Uds
            | Self::Iceoryx2
            | Self::Tonic => &[Wait::Poll, Wait::Block],
        }
    }

    /// Whether this build has it.
    pub fn built(self) -> bool {
        cfg!(feature = "peers")
            || !matches!(
                self,
                Self::Iceoryx2 | Self::Capnp | Self::Tonic | Self::Grpc
            )
    }

    /// The name in tables, rows and arguments.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|v| v.get_name().to_owned())
            .unwrap_or_default()
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.system.name())?;
        match self.system.waits() {
            [_] => Ok(()),
            _ => write!(f, "-{}", self.wait.name()),
        }
    }
}

/// The CPUs of client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Both on one.
    Same,
    /// Each on its own.
    Two,
    /// Wherever the kernel puts them.
    Free,
}

impl Placement {
    /// The name in tables and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Two => "two",
            Self::Free => "free",
        }
    }
}

impl Contender {
    /// Whether the document store runs on it. Of the gRPC peers the sides that sleep: those that poll are no faster there.
    pub fn has_store(self) -> bool {
        match self.system {
            System::Local | System::Vernal => true,
            System::Tonic | System::Grpc => self.wait == Wait::Block,
            _ => false,
        }
    }

    /// The placements to try. Two sides that poll on one CPU only take turns at the scheduler's pace.
    pub fn placements(self, cpus: usize) -> Vec<Placement> {
        match (self.system, self.wait) {
            (System::Local, _) => vec![Placement::Same],
            (_, Wait::Poll) if cpus > 1 => vec![Placement::Two],
            (_, Wait::Poll) => vec![],
            _ if cpus > 1 => vec![Placement::Same, Placement::Two],
            _ => vec![Placement::Same],
        }
    }
}

/// The parts of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// Round trips of one client: no-op, 64 B, 4 KiB, 1 MiB
    Calls,
    /// Latency at given rates of calls, counted from when a call was due
    Load,
    /// Calls per second of 1 to n clients
    Clients,
    /// The document store: inserts and searches
    Cooldb,
    /// Graphs of a peer: verified in place, and copied while they are verified
    Graphs,
    /// memcached as Debian ships it: YCSB over its Unix socket, and over the shim
    Memcached,
}

/// Bytes of request and reply in `calls`, with the names of the rows.
pub const SIZES: [(usize, &str); 4] = [
    (0, "no-op"),
    (64, "64 B"),
    (4096, "4 KiB"),
    (1 << 20, "1 MiB"),
];

/// Calls per second in `load`.
pub const RATES: [u64; 6] = [1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];

/// Clients in `clients`.
pub const CLIENTS: [u64; 4] = [1, 2, 4, 8];

/// Bytes of the calls in `load` and `clients`.
pub const SMALL: usize = 64;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Rounds of each row.
    pub rounds: u32,
    /// Milliseconds of one timed turn.
    pub turn_ms: u64,
    /// Documents of the store.
    pub documents: u64,
    /// Slices in which they are inserted, and searched.
    pub slices: u64,
    /// Searches of each row.
    pub searches: u64,
    /// Seconds after which a part measures no further rounds.
    pub part_s: u64,
}

impl Scale {
    /// Within eight minutes on two cores.
    pub const QUICK: Self = Self {
        rounds: 7,
        turn_ms: 40,
        documents: 100_000,
        slices: 10,
        searches: 300,
        part_s: 90,
    };
    /// The full run.
    pub const FULL: Self = Self {
        rounds: 15,
        turn_ms: 150,
        documents: 100_000,
        slices: 20,
        searches: 1000,
        part_s: 1200,
    };
}
