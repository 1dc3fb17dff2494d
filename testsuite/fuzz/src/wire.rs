//! Graphs as bytes: raw ones, and a sound one with changed words. The checksum is set right, or nothing else would be reached.

use crate::input::Input;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use vernal_abi::TRACKED_BASE;
use vernal_abi::puddle::PUDDLE_MIN;
use vernal_format::Uuid;
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{Arena, Budget, KnownTypes};
use vernal_heap::{Heap, Mapped, OwnedMemory, PoolIdentity, PoolMemory};
use vernal_rpc_core::wire::{Decoder, Encoder};

/// What a receiver takes.
const BUDGET: Budget = Budget {
    objects: 10_000,
    bytes: 1 << 20,
};
/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 56..64;

struct Sound {
    known: Arc<KnownTypes>,
    root_type: u64,
    image: Vec<u8>,
}

fn desc(builder: TypeBuilder) -> Result<TypeDesc, String> {
    let blob = builder.build().map_err(|e| format!("{e:?}"))?;
    TypeDesc::parse(&blob).map_err(|e| format!("{e:?}"))
}

/// `node { node *next; char *name; u64 *numbers; bool flag; table *table; }`, `table { u64 size; node *slot[300]; }`: some of each.
fn make() -> Result<Sound, String> {
    let pointer = |target: &str| Shape::Pointer {
        target: target.into(),
        target_id: 0,
    };
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
    let root = Mapped {
        uuid: Uuid([1; 16]),
        addr: TRACKED_BASE + (1 << 30),
        size: PUDDLE_MIN,
    };
    let mut memory = OwnedMemory::new();
    memory.add_zeroed(root.addr, root.size);
    let identity = PoolIdentity {
        uuid: Uuid([7; 16]),
        label: "fuzz".into(),
        direct: false,
    };
    let failed = |e: vernal_heap::HeapError| e.to_string();
    Heap::format_root(&memory, root, &identity).map_err(failed)?;
    let heap = Heap::open(&memory, &[root]).map_err(failed)?;
    let mut cache = heap.thread_cache();
    let node_type = heap.intern_type(&mut cache, node.blob()).map_err(failed)?;
    let table_type = heap.intern_type(&mut cache, table.blob()).map_err(failed)?;
    let mut alloc = |size, ty| heap.alloc(&mut cache, size, 16, ty).map_err(failed);
    let put = |addr: u64, word: u64, value: u64| {
        if let Some(w) = memory.words(addr + word * 8, 1).and_then(|w| w.first()) {
            w.store(value, Ordering::Relaxed);
        }
    };
    let top = alloc(2408, table_type)?;
    let mut next = 0;
    for n in 0..120 {
        let (at, name) = (alloc(40, node_type)?, alloc(16, vernal_heap::TYPE_RAW)?);
        put(name, 0, u64::from_le_bytes(*b"a name\0\0"));
        for (word, value) in [next, name, name, n % 2, if n % 50 == 0 { top } else { 0 }]
            .iter()
            .enumerate()
        {
            put(at, word as u64, *value);
        }
        put(top, 1 + n, at);
        next = at;
    }
    let known = Arc::new(KnownTypes::new([&node, &table]));
    let mut image = Vec::new();
    Encoder::new(Arc::clone(&known))
        .encode(&heap, top, table.id(), Budget::default(), &mut image)
        .map_err(|e| e.to_string())?;
    Ok(Sound {
        known,
        root_type: table.id(),
        image,
    })
}

fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| match make() {
        Ok(sound) => sound,
        Err(e) => panic!("the sound graph cannot be made: {e}"),
    })
}

fn set(bytes: &mut [u8], at: std::ops::Range<usize>, value: u64) {
    if let Some(place) = bytes.get_mut(at) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// First byte odd: the rest is an image, whose length and type are set right. Even: pairs of a place (16 bits) and a word for the sound one.
pub(crate) fn decode(bytes: &[u8]) {
    let sound = sound();
    let mut input = Input(bytes);
    let mut image = match input.u8() % 2 {
        1 => {
            let mut image = input.0.to_vec();
            let length = image.len() as u64;
            set(&mut image, 0..8, u64::from_le_bytes(*b"VNGRAPH1"));
            set(&mut image, 32..40, length);
            set(&mut image, 48..56, sound.root_type);
            image
        }
        _ => {
            let mut image = sound.image.clone();
            while !input.is_empty() {
                let at = usize::from(input.u16()) * 8 % image.len();
                set(&mut image, at..at + 8, input.u64());
            }
            image
        }
    };
    set(&mut image, CHECKSUM, 0);
    let sum = xxhash_rust::xxh3::xxh3_64(&image);
    set(&mut image, CHECKSUM, sum);
    let mut decoder = Decoder::new(Arc::clone(&sound.known));
    let mut arena = Arena::new();
    let decoded = decoder.decode(&image, sound.root_type, BUDGET, &mut arena);
    let unchanged = image == sound.image;
    assert!(
        !unchanged || decoded.is_ok(),
        "the sound graph is refused: {decoded:?}"
    );
    // What went wrong does not stay.
    let again = decoder.decode(&sound.image, sound.root_type, BUDGET, &mut arena);
    assert!(again.is_ok(), "the next graph is refused: {again:?}");
}
