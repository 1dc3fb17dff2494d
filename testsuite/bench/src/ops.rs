//! The operations of every workload, generated once per round and sent to each system alike (see `workloads/protocol.h`).

/// What an operation does; the numbers are those of `enum op_kind`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Kind {
    /// Append, or insert `key`.
    Insert = 0,
    /// Remove the head, or `key`.
    Delete = 1,
    /// Visit every element.
    Traverse = 2,
    /// Read the value of `key`.
    Read = 3,
    /// Overwrite the value of `key`.
    Update = 4,
    /// Read, change and write the value of `key`.
    Rmw = 5,
    /// Read `arg` consecutive keys.
    Scan = 6,
    /// Insert `key`, remove `arg`, the oldest key.
    Replace = 7,
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(n: u64) -> Option<Self> {
        use Kind::*;
        [Insert, Delete, Traverse, Read, Update, Rmw, Scan, Replace]
            .into_iter()
            .find(|&k| k as u64 == n)
    }

    /// Whether the operation changes something, so that its batch ends with a commit.
    pub fn updates(self) -> bool {
        !matches!(self, Self::Traverse | Self::Read | Self::Scan)
    }
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Op {
    /// The key.
    pub key: u64,
    /// What else the kind needs: a value, a version, a length.
    pub arg: u64,
    /// What to do.
    pub kind: Kind,
}

impl Op {
    /// Bytes of one operation on the wire.
    pub const SIZE: usize = 24;

    fn new(kind: Kind, key: u64, arg: u64) -> Self {
        Self { key, arg, kind }
    }

    /// The layout of `struct op`.
    pub fn encode(ops: &[Self]) -> Vec<u8> {
        ops.iter()
            .flat_map(|op| [op.key, op.arg, op.kind as u64])
            .flat_map(u64::to_le_bytes)
            .collect()
    }
}

/// The finalizer of splitmix64; `mix64` of `protocol.h`.
pub fn mix64(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix64(self.0)
    }

    /// Uniform in `0..n`.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// YCSB's zipfian distribution over ranks `0..n`, constant 0.99 (Gray et al., SIGMOD 1994).
struct Zipf {
    n: u64,
    zeta_n: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    const THETA: f64 = 0.99;

    fn new(n: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-Self::THETA)).sum::<f64>();
        let zeta_n = zeta(n);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - Self::THETA)) / (1.0 - zeta(2) / zeta_n);
        Self {
            n,
            zeta_n,
            alpha: 1.0 / (1.0 - Self::THETA),
            eta,
        }
    }

    fn rank(&self, rng: &mut Rng) -> u64 {
        let u = rng.unit();
        let uz = u * self.zeta_n;
        if uz < 1.0 {
            return 0;
        }
        if uz < 1.0 + 0.5f64.powf(Self::THETA) {
            return 1;
        }
        ((self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64).min(self.n - 1)
    }
}

/// A sequence of operations over one structure. Live elements are numbered `lo..hi`: inserts take the number `hi`, deletes
/// the number `lo`, so the size stays what it was.
pub struct Generator {
    rng: Rng,
    seed: u64,
    lo: u64,
    hi: u64,
    version: u64,
    zipf: Zipf,
}

impl Generator {
    /// For a structure that is loaded with `size` elements.
    pub fn new(seed: u64, size: u64) -> Self {
        Self {
            rng: Rng(seed),
            seed,
            lo: 0,
            hi: 0,
            version: 1,
            zipf: Zipf::new(size),
        }
    }

    /// The B-tree's key number `i`: random and, as `mix64` is a bijection, unique.
    fn tree_key(&self, i: u64) -> u64 {
        mix64(i.wrapping_add(self.seed << 32).wrapping_add(1))
    }

    /// Inserts of the next `n` elements of a list or tree.
    pub fn inserts(&mut self, n: u64) -> Vec<Op> {
        (0..n)
            .map(|_| {
                let i = self.hi;
                self.hi += 1;
                Op::new(Kind::Insert, self.tree_key(i), i + 1)
            })
            .collect()
    }

    /// Removals of the oldest `n` elements of a list or tree, in the order of their insertion.
    pub fn deletes(&mut self, n: u64) -> Vec<Op> {
        (0..n)
            .map(|_| {
                let i = self.lo;
                self.lo += 1;
                Op::new(Kind::Delete, self.tree_key(i), 0)
            })
            .collect()
    }

    /// `n` visits of the whole structure.
    pub fn traversals(&mut self, n: u64) -> Vec<Op> {
        (0..n).map(|_| Op::new(Kind::Traverse, 0, 0)).collect()
    }

    /// Inserts of the first `n` keys of a key-value store.
    pub fn load(&mut self, n: u64) -> Vec<Op> {
        (0..n)
            .map(|_| {
                let key = self.hi;
                self.hi += 1;
                Op::new(Kind::Insert, key, 0)
            })
            .collect()
    }

    /// A live key, popular ones spread over the whole store.
    fn popular_key(&mut self) -> u64 {
        let rank = self.zipf.rank(&mut self.rng);
        self.lo + mix64(rank ^ 0x5bd1_e995) % (self.hi - self.lo)
    }

    /// A live key, the latest being the most popular.
    fn latest_key(&mut self) -> u64 {
        self.hi - 1 - self.zipf.rank(&mut self.rng).min(self.hi - self.lo - 1)
    }

    fn replace(&mut self) -> Op {
        let op = Op::new(Kind::Replace, self.hi, self.lo);
        self.hi += 1;
        self.lo += 1;
        op
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// `n` operations of one YCSB workload, `A` to `G` (table 2.3 of the thesis).
    pub fn ycsb(&mut self, workload: char, n: u64) -> Vec<Op> {
        (0..n).map(|_| self.ycsb_op(workload)).collect()
    }

    fn ycsb_op(&mut self, workload: char) -> Op {
        let dice = self.rng.below(100);
        match workload {
            'D' if dice < 5 => self.replace(),
            'D' => Op::new(Kind::Read, self.latest_key(), 0),
            'F' if dice < 5 => self.replace(),
            'F' => {
                let length = 1 + self.rng.below(100);
                let start = self
                    .popular_key()
                    .min(self.hi.saturating_sub(length))
                    .max(self.lo);
                Op::new(Kind::Scan, start, length.min(self.hi - start))
            }
            'E' if dice < 50 => {
                let key = self.popular_key();
                Op::new(Kind::Rmw, key, self.next_version())
            }
            'A' if dice < 50 => self.update(),
            'B' if dice < 5 => self.update(),
            'G' => self.update(),
            _ => Op::new(Kind::Read, self.popular_key(), 0),
        }
    }

    fn update(&mut self) -> Op {
        let key = self.popular_key();
        Op::new(Kind::Update, key, self.next_version())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        let run = || {
            let mut g = Generator::new(7, 1000);
            g.load(1000);
            "ABCDEFG"
                .chars()
                .flat_map(|w| g.ycsb(w, 500))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn every_operation_names_a_live_key() {
        let mut g = Generator::new(1, 1000);
        g.load(1000);
        let (mut lo, mut hi) = (0, 1000);
        for workload in "ABCDEFG".chars() {
            for op in g.ycsb(workload, 3000) {
                match op.kind {
                    Kind::Replace => {
                        assert_eq!((op.key, op.arg), (hi, lo));
                        (lo, hi) = (lo + 1, hi + 1);
                    }
                    Kind::Scan => assert!(op.arg >= 1 && lo <= op.key && op.key + op.arg <= hi),
                    _ => assert!(lo <= op.key && op.key < hi),
                }
            }
        }
    }

    #[test]
    fn workloads_have_the_shares_of_updates_that_ycsb_gives_them() {
        let mut g = Generator::new(3, 1000);
        g.load(1000);
        for (workload, percent) in [
            ('A', 50),
            ('B', 5),
            ('C', 0),
            ('D', 5),
            ('E', 50),
            ('F', 5),
            ('G', 100),
        ] {
            let updates = g
                .ycsb(workload, 20_000)
                .iter()
                .filter(|op| op.kind.updates())
                .count();
            assert!(
                (updates as i64 - percent * 200).abs() <= 400,
                "{workload}: {updates} of 20000"
            );
        }
    }

    #[test]
    fn the_zipfian_head_is_popular() {
        let (z, mut rng) = (Zipf::new(10_000), Rng(1));
        let head = (0..100_000).filter(|_| z.rank(&mut rng) < 100).count();
        assert!((45_000..60_000).contains(&head), "{head}");
    }

    #[test]
    fn operations_are_encoded_as_three_words() {
        let bytes = Op::encode(&[Op::new(Kind::Scan, 2, 3)]);
        assert_eq!(bytes.len(), Op::SIZE);
        assert_eq!((bytes[0], bytes[8], bytes[16]), (2, 3, 6));
    }
}
