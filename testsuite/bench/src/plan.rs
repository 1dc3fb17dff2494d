//! What is measured: systems, media, rows, batches, and how many operations each measurement takes.

use clap::ValueEnum;
use std::fmt;

/// A system under test; the names are those of the result rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum System {
    /// The plain msync program, compiled by vernal-cc.
    Vernal,
    /// Anonymous memory, no durability at all.
    Volatile,
    /// libpmemobj transactions.
    Pmdk,
    /// The plain msync program, compiled by clang: durable, not crash-consistent.
    Msync,
    /// LMDB.
    Lmdb,
    /// SQLite, WAL, synchronous=FULL.
    Sqlite,
    /// redb.
    Redb,
    /// Kyoto Cabinet with its own write-ahead log, hard.
    KyotoWal,
    /// Kyoto Cabinet without its log, one msync per transaction: not crash-consistent.
    KyotoNowal,
    /// The same program, compiled by vernal-c++.
    KyotoVernal,
    /// A buffered pool: vn_new, transactions, plain assignments.
    Pool,
    /// A direct pool: the same program, with VN_TX_ADD where PMDK has TX_ADD.
    Direct,
}

/// Which benchmark runs the structures: the systems that take part, and the floors that are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// `bench persist`: failure-atomic msync.
    Persist,
    /// `bench puddles`: pools.
    Puddles,
}

impl Suite {
    /// The benchmark's name in result rows and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Persist => "persist",
            Self::Puddles => "puddles",
        }
    }

    /// The systems that it measures unless told otherwise.
    pub fn systems(self) -> Vec<System> {
        let pools = [System::Pool, System::Direct];
        match self {
            Self::Persist => System::value_variants()
                .iter()
                .copied()
                .filter(|s| !pools.contains(s))
                .collect(),
            Self::Puddles => [System::Volatile, System::Pmdk]
                .into_iter()
                .chain(pools)
                .collect(),
        }
    }

    /// The media that it measures on unless told otherwise.
    pub fn media(self) -> Vec<Media> {
        match self {
            Self::Persist => Media::value_variants().to_vec(),
            Self::Puddles => vec![Media::Shm],
        }
    }
}

impl System {
    /// Whether the system runs the list and the B-tree, not only the key-value workloads.
    pub fn runs_structures(self) -> bool {
        matches!(
            self,
            Self::Vernal | Self::Volatile | Self::Pmdk | Self::Msync | Self::Pool | Self::Direct
        )
    }

    /// What a commit of this system guarantees on `media`.
    pub fn durability(self, media: Media) -> &'static str {
        match (self, media) {
            (Self::Volatile, _) => "none",
            (Self::Msync | Self::KyotoNowal, Media::Ext4) => "durable, torn by a crash",
            (Self::Msync | Self::KyotoNowal, _) => "none (tmpfs flushes nothing)",
            (Self::Vernal | Self::KyotoVernal | Self::Pool, Media::Ext4) => {
                "atomic and durable (one O_DSYNC write)"
            }
            (Self::Vernal | Self::KyotoVernal | Self::Pool, _) => "atomic and durable (one fence)",
            (Self::Direct, _) => "atomic and durable (undo log, write-backs and fences)",
            (Self::Pmdk, Media::Ext4) => "atomic and durable (msync for each flush)",
            (Self::Pmdk, _) => "atomic and durable (clwb and fences)",
            (_, Media::Ext4) => "atomic and durable (fsync or msync)",
            _ => "atomic (tmpfs flushes nothing)",
        }
    }
}

/// Where the data lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Media {
    /// tmpfs as a stand-in for byte-addressable persistent memory.
    Shm,
    /// A file on the disk's file system.
    Ext4,
    /// tmpfs behind the emulated memory-semantic CXL SSD.
    CxlSsd,
}

/// A data structure, and the session that its rows share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Structure {
    /// Singly linked list.
    List,
    /// B-tree of order 8.
    Btree,
    /// Hash table with 100-byte values.
    Kv,
}

impl Structure {
    /// Every structure.
    pub const ALL: [Self; 3] = [Self::List, Self::Btree, Self::Kv];

    /// Its name in rows and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Btree => "btree",
            Self::Kv => "kv",
        }
    }

    /// Bytes of the file that holds it.
    pub fn file_bytes(self) -> u64 {
        match self {
            Self::List | Self::Btree => 64 << 20,
            Self::Kv => 160 << 20,
        }
    }
}

/// One row of the results.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Row {
    /// Append to the list, or insert into the B-tree.
    Insert(Structure),
    /// Visit every element.
    Traverse(Structure),
    /// Remove the head of the list, or the oldest key of the B-tree.
    Delete(Structure),
    /// A YCSB workload, `A` to `G`.
    Ycsb(char),
}

impl Row {
    /// Every row, in the order of the tables.
    pub fn all() -> Vec<Self> {
        let mut rows = Vec::new();
        for s in [Structure::List, Structure::Btree] {
            rows.extend([Self::Insert(s), Self::Traverse(s), Self::Delete(s)]);
        }
        rows.extend(('A'..='G').map(Self::Ycsb));
        rows
    }

    /// The structure that it belongs to.
    pub fn structure(self) -> Structure {
        match self {
            Self::Insert(s) | Self::Traverse(s) | Self::Delete(s) => s,
            Self::Ycsb(_) => Structure::Kv,
        }
    }

    /// Whether no operation updates anything, so that batches mean nothing.
    pub fn reads_only(self) -> bool {
        matches!(self, Self::Traverse(_) | Self::Ycsb('C'))
    }

    /// Whether most operations update something: the rows that the floors against PMDK are about.
    pub fn update_heavy(self) -> bool {
        matches!(
            self,
            Self::Insert(_) | Self::Delete(_) | Self::Ycsb('A' | 'E' | 'G')
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Insert(s) => format!("{}/insert", s.name()),
            Self::Traverse(Structure::Btree) => "btree/read".to_owned(),
            Self::Traverse(s) => format!("{}/traverse", s.name()),
            Self::Delete(s) => format!("{}/delete", s.name()),
            Self::Ycsb(w) => format!("kv/{w}"),
        };
        f.pad(&name)
    }
}

/// Operations on a disk are planned for flushes of this many microseconds.
const FAST_FLUSH_US: u64 = 250;

/// Operations per commit.
pub const BATCHES: [u64; 4] = [1, 10, 100, 1000];

/// Size of one run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Elements that each structure is loaded with.
    pub elements: u64,
    /// Measured rounds of each measurement on ext4; the other media get twice as many, shorter ones.
    pub rounds: u32,
    /// Factor on the operations per round.
    pub factor: u64,
    /// What a flush of the disk takes, in microseconds: slow disks get fewer operations.
    pub flush_us: u64,
}

impl Scale {
    /// Some minutes on two cores.
    pub const QUICK: Self = Self {
        elements: 100_000,
        rounds: 5,
        factor: 1,
        flush_us: 0,
    };
    /// The committed result sets.
    pub const FULL: Self = Self {
        elements: 100_000,
        rounds: 9,
        factor: 3,
        flush_us: 0,
    };

    /// Measured rounds on `media`.
    pub fn rounds(&self, media: Media) -> u32 {
        if media == Media::Ext4 {
            self.rounds
        } else {
            2 * self.rounds + 1
        }
    }

    /// Timed operations of one round.
    pub fn ops(&self, media: Media, row: Row, batch: u64) -> u64 {
        if matches!(row, Row::Traverse(_)) {
            return 2;
        }
        let structures = row.structure() != Structure::Kv;
        let base = match media {
            Media::Shm if structures => 4000,
            Media::CxlSsd if structures => 2000,
            Media::Shm => 2000,
            Media::CxlSsd => 1000,
            // A commit costs a device flush here, so the operations are few where the commits are many.
            Media::Ext4 if row.reads_only() => 4000,
            Media::Ext4 => {
                let (ops, least) = match (row.update_heavy(), batch) {
                    (true, 1) => (120, 12),
                    (true, 10) => (300, 60),
                    (true, 100) => (1000, 300),
                    (true, _) => (1000, 1000),
                    (false, 1) => (1000, 150),
                    (false, _) => (2000, 400),
                };
                (ops * FAST_FLUSH_US / self.flush_us.max(FAST_FLUSH_US)).max(least)
            }
        };
        (base * self.factor).next_multiple_of(batch)
    }

    /// Whether a system's time is taken. Kyoto Cabinet's log is flushed for every record, so that on a slow disk a round of
    /// it takes many seconds at any batch: there it is only measured where the floors are about it.
    pub fn takes_time(&self, media: Media, row: Row, round: u32, system: System) -> bool {
        let slow = media == Media::Ext4 && self.flush_us > 4 * FAST_FLUSH_US;
        !(slow && system == System::KyotoWal) || (row == Row::Ycsb('G') && round <= 2)
    }

    /// Untimed operations before each round: whole batches, to warm the caches after the other systems' turns.
    pub fn warm_ops(&self, media: Media, row: Row, batch: u64) -> u64 {
        match (row, media) {
            (Row::Traverse(_), _) => 1,
            (_, Media::Ext4) if batch >= 100 => 100,
            _ => (self.ops(media, row, batch) / 8).clamp(1, 1000),
        }
    }
}

/// Pages of the emulated device's cache, in MiB: about a sixth of the key-value data, as in the thesis (128 MiB for five
/// million pairs).
pub const CXL_CACHE_MIB: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_names_of_the_result_format() {
        let names: Vec<String> = Row::all().iter().map(Row::to_string).collect();
        assert_eq!(
            names.join(" "),
            "list/insert list/traverse list/delete btree/insert btree/read btree/delete \
             kv/A kv/B kv/C kv/D kv/E kv/F kv/G"
        );
    }

    #[test]
    fn timed_operations_are_whole_batches() {
        for row in Row::all()
            .into_iter()
            .filter(|r| !matches!(r, Row::Traverse(_)))
        {
            for media in Media::value_variants() {
                for batch in BATCHES {
                    assert_eq!(
                        Scale::QUICK.ops(*media, row, batch) % batch,
                        0,
                        "{row} {media:?} {batch}"
                    );
                }
            }
        }
    }
}
