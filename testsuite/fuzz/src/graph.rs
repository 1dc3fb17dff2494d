//! A sound graph in a heap as a peer sees it, and as bytes: what the targets for calls begin with.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use vernal_abi::RPC_BASE;
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::Uuid;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{Budget, KnownTypes};
use vernal_heap::{Heap, HeapError, Mapped, OwnedMemory, PoolIdentity, PoolMemory};
use vernal_rpc_core::wire::Encoder;

/// What a receiver takes.
pub(crate) const BUDGET: Budget = Budget {
    objects: 10_000,
    bytes: 1 << 20,
};
/// Where the heap lies.
pub(crate) const BASE: u64 = RPC_BASE;
/// Its bytes.
pub(crate) const SIZE: u64 = PUDDLE_MIN;

/// The graph.
pub(crate) struct Sound {
    /// Its types.
    pub(crate) known: Arc<KnownTypes>,
    /// That of its root.
    pub(crate) root_type: u64,
    /// Address of its root.
    pub(crate) root: u64,
    /// The words of the heap.
    pub(crate) words: Vec<u64>,
    /// The graph on the wire.
    pub(crate) image: Vec<u8>,
}

/// The graph, which is made once.
pub(crate) fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| match make() {
        Ok(sound) => sound,
        Err(e) => panic!("the sound graph cannot be made: {e}"),
    })
}

fn pointer(target: &str) -> Shape {
    Shape::Pointer {
        target: target.into(),
        target_id: 0,
    }
}

fn desc(builder: TypeBuilder) -> Result<TypeDesc, String> {
    let blob = builder.build().map_err(|e| format!("{e:?}"))?;
    TypeDesc::parse(&blob).map_err(|e| format!("{e:?}"))
}

/// `node { node *next; char *name; u64 *numbers; bool flag; table *table; }`, `table { u64 size; node *slot[300]; }`: some of each.
fn make() -> Result<Sound, String> {
    let slots = Shape::Array {
        count: 300,
        stride: 8,
        element: Box::new(pointer("node")),
    };
    let node = desc(
        TypeBuilder::new("node", 40, 8)
            .member("next", 0, pointer("node"))
            .member("name", 8, pointer("char"))
            .member("numbers", 16, pointer("u64"))
            .member("flag", 24, Shape::Bool)
            .member("table", 32, pointer("table")),
    )?;
    let table = desc(
        TypeBuilder::new("table", 2408, 8)
            .member("size", 0, Shape::Integer(8))
            .member("slot", 8, slots),
    )?;
    let place = Mapped {
        uuid: Uuid([1; 16]),
        addr: BASE,
        size: SIZE,
    };
    let mut memory = OwnedMemory::new();
    memory.add_zeroed(BASE, SIZE);
    let identity = PoolIdentity {
        uuid: Uuid([7; 16]),
        label: "fuzz".into(),
        direct: false,
    };
    let failed = |e: HeapError| e.to_string();
    Heap::format_root(&memory, place, &identity).map_err(failed)?;
    let heap = Heap::open(&memory, &[place]).map_err(failed)?;
    let mut cache = heap.thread_cache();
    let node_type = heap.intern_type(&mut cache, node.blob()).map_err(failed)?;
    let table_type = heap.intern_type(&mut cache, table.blob()).map_err(failed)?;
    let mut alloc = |size, ty| heap.alloc(&mut cache, size, 16, ty).map_err(failed);
    let put = |addr: u64, word: u64, value: u64| {
        if let Some(w) = memory.words(addr + word * 8, 1).and_then(|w| w.first()) {
            w.store(value, Ordering::Relaxed);
        }
    };
    let root = alloc(2408, table_type)?;
    let mut next = 0;
    for n in 0..120 {
        let (at, name) = (alloc(40, node_type)?, alloc(16, vernal_heap::TYPE_RAW)?);
        put(name, 0, u64::from_le_bytes(*b"a name\0\0"));
        let top = if n % 50 == 0 { root } else { 0 };
        for (word, value) in [next, name, name, n % 2, top].iter().enumerate() {
            put(at, word as u64, *value);
        }
        put(root, 1 + n, at);
        next = at;
    }
    let known = Arc::new(KnownTypes::new([&node, &table]));
    let mut image = Vec::new();
    Encoder::new(Arc::clone(&known))
        .encode(&heap, root, table.id(), Budget::default(), &mut image)
        .map_err(|e| e.to_string())?;
    drop(cache);
    drop(heap);
    let words = memory.areas().flat_map(|(_, words)| words);
    Ok(Sound {
        known,
        root_type: table.id(),
        root,
        words: words.map(|word| word.load(Ordering::Relaxed)).collect(),
        image,
    })
}
