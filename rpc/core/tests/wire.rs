//! Graphs as bytes: what goes in comes out, and whatever else comes in is refused without harm.

use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vernal_abi::RPC_BASE;
use vernal_format::Uuid;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{Arena, Budget, GraphError, GraphTarget, KnownTypes, Placed};
use vernal_heap::{Heap, HeapError, Mapped, ObjectSpace, OwnedMemory, PoolIdentity, ThreadCache};
use vernal_rpc_core::wire::{Decoder, Encoder, HEADER_BYTES, WireError};

fn pointer(target: &str) -> Shape {
    Shape::Pointer {
        target: target.into(),
        target_id: 0,
    }
}

fn parsed(builder: TypeBuilder) -> TypeDesc {
    TypeDesc::parse(&builder.build().expect("a type")).expect("a type")
}

/// `struct pair { u64 value; bool flag; pair *a; pair *b; big *c; }` and `struct big { u64 data[400]; pair *p; }`
fn types() -> [TypeDesc; 2] {
    let pair = TypeBuilder::new("pair", 40, 8)
        .member("value", 0, Shape::Integer(8))
        .member("flag", 8, Shape::Bool)
        .member("a", 16, pointer("pair"))
        .member("b", 24, pointer("pair"))
        .member("c", 32, pointer("big"));
    let data = Shape::Array {
        count: 400,
        stride: 8,
        element: Box::new(Shape::Integer(8)),
    };
    let big = TypeBuilder::new("big", 3208, 8)
        .member("data", 0, data)
        .member("p", 3200, pointer("pair"));
    [parsed(pair), parsed(big)]
}

struct Pool {
    heap: Heap<OwnedMemory>,
    cache: ThreadCache,
    index: HashMap<u64, u32>,
}

impl Pool {
    fn new() -> Pool {
        let root = Mapped {
            uuid: Uuid([1; 16]),
            addr: RPC_BASE,
            size: 8 << 20,
        };
        let mut memory = OwnedMemory::new();
        memory.add_zeroed(root.addr, root.size);
        let identity = PoolIdentity {
            uuid: Uuid([9; 16]),
            label: "wire".into(),
            direct: false,
        };
        Heap::format_root(&memory, root, &identity).expect("formatted");
        let heap = Heap::open(memory, &[root]).expect("opened");
        let mut cache = heap.thread_cache();
        let mut index = HashMap::new();
        for desc in types() {
            let at = heap.intern_type(&mut cache, desc.blob()).expect("a type");
            index.insert(desc.id(), at);
        }
        Pool { heap, cache, index }
    }

    fn alloc(&mut self, ty: &TypeDesc) -> u64 {
        let index = self.index[&ty.id()];
        self.heap
            .alloc(&mut self.cache, ty.size(), 16, index)
            .expect("room")
    }

    fn object(&self, addr: u64, bytes: u64) -> &[AtomicU64] {
        self.heap.words(addr, (bytes / 8) as usize).expect("mapped")
    }
}

impl GraphTarget for Pool {
    type Error = HeapError;

    fn place(&mut self, size: u64, align: u64, ty: Option<&TypeDesc>) -> Result<Placed, HeapError> {
        let index = ty.map_or(0, |t| self.index[&t.id()]);
        let addr = self.heap.alloc(&mut self.cache, size, align, index)?;
        Ok(Placed {
            addr,
            ..Placed::default()
        })
    }

    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]> {
        self.heap.words(at.addr, count)
    }
}

/// Of a pair: its value, its flag, the pairs and the big that it points to.
type PairPlan = (u64, bool, [Option<usize>; 2], Option<usize>);

/// What each object of a graph holds.
#[derive(Clone, Debug)]
struct Plan {
    pairs: Vec<PairPlan>,
    bigs: Vec<(u64, Option<usize>)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let to = || prop::option::of(any::<prop::sample::Index>());
    let pairs = prop::collection::vec((any::<u64>(), any::<bool>(), to(), to(), to()), 1..600);
    let bigs = prop::collection::vec((any::<u64>(), to()), 0..20);
    (pairs, bigs).prop_map(|(pairs, bigs)| {
        let (n, m) = (pairs.len(), bigs.len());
        let pick =
            |i: Option<prop::sample::Index>, n: usize| i.filter(|_| n > 0).map(|i| i.index(n));
        Plan {
            pairs: pairs
                .into_iter()
                .map(|(v, f, a, b, c)| (v, f, [pick(a, n), pick(b, n)], pick(c, m)))
                .collect(),
            bigs: bigs.into_iter().map(|(v, p)| (v, pick(p, n))).collect(),
        }
    })
}

/// Builds the graph; the root is the first pair.
fn build(plan: &Plan) -> (Pool, u64) {
    let [pair, big] = types();
    let mut pool = Pool::new();
    let pairs: Vec<u64> = plan.pairs.iter().map(|_| pool.alloc(&pair)).collect();
    let bigs: Vec<u64> = plan.bigs.iter().map(|_| pool.alloc(&big)).collect();
    let to = |list: &[u64], n: Option<usize>| n.map_or(0, |n| list[n]);
    for ((value, flag, [a, b], c), at) in plan.pairs.iter().zip(&pairs) {
        let fields = [
            *value,
            u64::from(*flag),
            to(&pairs, *a),
            to(&pairs, *b),
            to(&bigs, *c),
        ];
        for (word, field) in pool.object(*at, 40).iter().zip(fields) {
            word.store(field, Relaxed);
        }
    }
    for ((value, p), at) in plan.bigs.iter().zip(&bigs) {
        let words = pool.object(*at, 3208);
        for (i, word) in words.iter().enumerate() {
            word.store(value.wrapping_mul(i as u64), Relaxed);
        }
        words[400].store(to(&pairs, *p), Relaxed);
    }
    (pool, pairs[0])
}

/// Compares two graphs of pairs, object by object: the same values, the same shape. How many objects.
fn same_graph(a: &Pool, b: &Pool, roots: (u64, u64)) -> u64 {
    let mut twins = HashMap::from([roots]);
    let mut todo = vec![(roots, true)];
    while let Some(((x, y), is_pair)) = todo.pop() {
        let (bytes, pointers) = if is_pair {
            (40, 2..5)
        } else {
            (3208, 400..401)
        };
        let (xs, ys) = (a.object(x, bytes), b.object(y, bytes));
        for (i, (u, v)) in xs.iter().zip(ys).enumerate() {
            let (u, v) = (u.load(Relaxed), v.load(Relaxed));
            if !pointers.contains(&i) || u == 0 {
                assert_eq!(u, v, "word {i} of {x:#x}");
                continue;
            }
            match twins.get(&u) {
                Some(twin) => assert_eq!(*twin, v, "word {i} of {x:#x}"),
                None => {
                    twins.insert(u, v);
                    todo.push(((u, v), !(is_pair && i == 4)));
                }
            }
        }
    }
    twins.len() as u64
}

fn known() -> Arc<KnownTypes> {
    Arc::new(KnownTypes::new(&types()))
}

fn encode(encoder: &mut Encoder, pool: &Pool, root: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let id = types()[0].id();
    let report = encoder.encode(&pool.heap, root, id, Budget::default(), &mut bytes);
    report.expect("sound");
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Sets the checksum to what it has to be, so that what is behind it is tested.
fn seal(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_BYTES {
        put(bytes, 56, 0);
        let sum = xxhash_rust::xxh3::xxh3_64(bytes);
        put(bytes, 56, sum);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_graph_comes_back(plans in prop::collection::vec(plan(), 1..3)) {
        let mut decoder = Decoder::new(known());
        let id = types()[0].id();
        for plan in &plans {
            let (pool, root) = build(plan);
            let mut encoder = Encoder::new(known());
            let bytes = encode(&mut encoder, &pool, root);
            let mut copy = Pool::new();
            let decoded = decoder.decode(&bytes, id, Budget::default(), &mut copy).expect("sound");
            let objects = same_graph(&pool, &copy, (root, decoded.root));
            prop_assert_eq!(objects, decoded.report.objects);
            // The image depends on the graph alone: not on the heap, not on what the encoder did before.
            prop_assert_eq!(&encode(&mut encoder, &pool, root), &bytes);
            prop_assert_eq!(encode(&mut Encoder::new(known()), &copy, decoded.root), bytes);
        }
    }

    /// Any changed words, with the checksum set right: an error, or a graph that keeps all rules.
    #[test]
    fn mutated_bytes_do_no_harm(
        plan in plan(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u64>(), 0..64u64, Just(u64::MAX), (0..1u64 << 24).prop_map(|n| (1 << 46) + n)]), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        near in any::<bool>(),
    ) {
        let (pool, root) = build(&plan);
        let good = encode(&mut Encoder::new(known()), &pool, root);
        let mut bytes = good.clone();
        for (at, value) in edits {
            // The tables are small beside the objects, and decide more.
            let words = if near { (bytes.len() / 8).min(64) } else { bytes.len() / 8 };
            put(&mut bytes, at.index(words) * 8, value);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
            if bytes.len() >= 40 {
                let length = bytes.len() as u64;
                put(&mut bytes, 32, length);
            }
        }
        seal(&mut bytes);
        let mut decoder = Decoder::new(known());
        let mut copy = Pool::new();
        let id = types()[0].id();
        let budget = Budget { objects: 1000, bytes: 1 << 20 };
        if let Ok(decoded) = decoder.decode(&bytes, id, budget, &mut copy) {
            // What was taken keeps all rules: it can be sent on, and means the same there.
            let again = encode(&mut Encoder::new(known()), &copy, decoded.root);
            let mut third = Pool::new();
            let next = decoder.decode(&again, id, budget, &mut third).expect("sound");
            same_graph(&copy, &third, (decoded.root, next.root));
        }
        // The decoder goes on with the next graph.
        prop_assert!(decoder.decode(&good, id, Budget::default(), &mut Arena::new()).is_ok());
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 40 {
            bytes[..8].copy_from_slice(b"VNGRAPH1");
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
            let length = bytes.len() as u64;
            put(&mut bytes, 32, length);
        }
        seal(&mut bytes);
        let id = types()[0].id();
        prop_assert!(Decoder::new(known()).decode(&bytes, id, Budget::default(), &mut Arena::new()).is_err());
    }
}

fn small() -> (Vec<u8>, Plan) {
    let plan = Plan {
        pairs: vec![
            (7, true, [Some(1), Some(0)], Some(0)),
            (8, false, [Some(0), None], None),
        ],
        bigs: vec![(3, Some(1))],
    };
    let (pool, root) = build(&plan);
    (encode(&mut Encoder::new(known()), &pool, root), plan)
}

fn refused(bytes: &[u8]) -> String {
    let id = types()[0].id();
    let decoded = Decoder::new(known()).decode(bytes, id, Budget::default(), &mut Arena::new());
    decoded.expect_err("refused").to_string()
}

#[test]
fn each_byte_counts() {
    let (bytes, _) = small();
    let id = types()[0].id();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        refused(&changed);
    }
    for len in (0..bytes.len()).step_by(7) {
        refused(&bytes[..len]);
    }
    let mut longer = bytes.clone();
    longer.extend([0; 8]);
    assert!(refused(&longer).contains("length"), "{}", refused(&longer));
    let length = longer.len() as u64;
    put(&mut longer, 32, length);
    seal(&mut longer);
    assert!(
        refused(&longer).contains("bytes of objects"),
        "{}",
        refused(&longer)
    );
    let header: [u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().expect("a header");
    assert_eq!(Decoder::length(&header, 1 << 20), Ok(bytes.len()));
    assert!(Decoder::length(&header, bytes.len() as u64 - 1).is_err());
    let budget = Budget {
        objects: 2,
        bytes: u64::MAX,
    };
    let e = Decoder::new(known()).decode(&bytes, id, budget, &mut Arena::new());
    assert!(
        matches!(e, Err(WireError::Graph(GraphError::Budget { .. }))),
        "{e:?}"
    );
    let e = Decoder::new(known()).decode(&bytes, 5, Budget::default(), &mut Arena::new());
    assert!(
        matches!(e, Err(WireError::Root { expected: 5, .. })),
        "{e:?}"
    );
}

#[test]
fn unknown_types_are_refused_by_name() {
    let (bytes, _) = small();
    let [pair, _] = types();
    let only = Arc::new(KnownTypes::new([&pair]));
    let e = Decoder::new(only).decode(&bytes, pair.id(), Budget::default(), &mut Arena::new());
    assert!(
        matches!(&e, Err(WireError::UnknownType { name, .. }) if name == "big"),
        "{e:?}"
    );
    // A known id under another name.
    let mut forged = bytes.clone();
    let at = forged
        .windows(4)
        .position(|w| w == b"pair")
        .expect("a name");
    forged[at] = b'h';
    seal(&mut forged);
    assert!(refused(&forged).contains("`pair`"), "{}", refused(&forged));
}

/// Words of the objects, by what a pointer may be.
#[test]
fn wild_pointers_and_values_are_refused() {
    let (bytes, _) = small();
    let root = bytes
        .windows(8)
        .position(|w| w == 7u64.to_le_bytes())
        .expect("the root's value");
    let word = |n: usize| {
        let at = root + n * 8;
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a word"))
    };
    let (a, b, c) = (word(2), word(3), word(4));
    let with = |n: usize, value: u64| {
        let mut bytes = bytes.clone();
        put(&mut bytes, root + n * 8, value);
        seal(&mut bytes);
        refused(&bytes)
    };
    for (what, n, value, says) in [
        ("an object of another type", 2, c, "`big`"),
        ("the middle of an object", 2, a + 8, "inside"),
        ("not even aligned", 2, a + 1, "inside"),
        ("behind the last slot", 2, a.max(b) + 48, "free"),
        ("the header of a slab", 2, a & !4095, "free"),
        ("the page behind", 2, (c & !4095) + 4096, "free"),
        (
            "another region",
            2,
            (1 << 46) + (3 << 20),
            "out of the pool",
        ),
        ("below the image", 2, (1 << 46) - 8, "out of the pool"),
        ("kernel addresses", 2, u64::MAX - 7, "out of the pool"),
        ("a bool that is 2", 1, 2, "bool"),
    ] {
        assert!(with(n, value).contains(says), "{what}: {}", with(n, value));
    }
    // Objects that nothing leads to are not sent.
    assert!(with(4, 0).contains("can be reached"), "{}", with(4, 0));
}

#[test]
fn what_its_receiver_would_refuse_is_not_sent() {
    let (_, plan) = small();
    let (pool, root) = build(&plan);
    pool.object(root, 40)[2].store(0x1234_5678, Relaxed);
    let mut bytes = vec![1, 2, 3];
    let id = types()[0].id();
    let e = Encoder::new(known()).encode(&pool.heap, root, id, Budget::default(), &mut bytes);
    assert!(matches!(e, Err(GraphError::Fault { .. })), "{e:?}");
    assert_eq!(bytes, [1, 2, 3]);
}
