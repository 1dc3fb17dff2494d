//! A heap that two sides see, and graphs in it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vernal_abi::RPC_BASE;
use vernal_format::Uuid;
use vernal_format::types::{Member, Shape, TypeBuilder, TypeDesc};
use vernal_heap::walk::{
    Allowed, Arena, Budget, Examiner, Fault, GraphError, GraphTarget, KnownTypes, Placed,
};
use vernal_heap::{
    ForeignSpace, Heap, HeapError, Mapped, OwnedMemory, PoolIdentity, PoolMemory, ThreadCache,
};

/// Memory that both sides see: the owner writes it, the peer looks at it.
#[derive(Clone)]
pub struct Shared(pub Arc<OwnedMemory>);

impl PoolMemory for Shared {
    fn words(&self, addr: u64, count: usize) -> Option<&[AtomicU64]> {
        if !addr.is_multiple_of(8) {
            return None;
        }
        self.0.words(addr, count)
    }
    fn before_write(&self, _: u64, _: u64) -> Result<(), HeapError> {
        Ok(())
    }
    fn after_write(&self, _: u64, _: u64) {}
}

pub struct World {
    pub memory: Shared,
    pub heap: Heap<Shared>,
    pub cache: ThreadCache,
    pub space: ForeignSpace<Shared>,
}

pub const SIZE: u64 = 4 << 20;

impl World {
    pub fn new() -> World {
        let root = Mapped {
            uuid: Uuid([1; 16]),
            addr: RPC_BASE,
            size: SIZE,
        };
        let mut memory = OwnedMemory::new();
        memory.add_zeroed(root.addr, root.size);
        let memory = Shared(Arc::new(memory));
        let identity = PoolIdentity {
            uuid: Uuid([9; 16]),
            label: "peer".into(),
            direct: false,
        };
        Heap::format_root(&memory, root, &identity).expect("formatted");
        let heap = Heap::open(memory.clone(), &[root]).expect("opened");
        let space = ForeignSpace::new(memory.clone());
        assert!(space.add(root.addr, root.size));
        World {
            cache: heap.thread_cache(),
            memory,
            heap,
            space,
        }
    }

    pub fn alloc(&mut self, desc: &TypeDesc, size: u64) -> u64 {
        let index = self.heap.intern_type(&mut self.cache, desc.blob());
        let index = index.expect("a type");
        self.heap
            .alloc(&mut self.cache, size, 16, index)
            .expect("room")
    }

    pub fn raw(&mut self, size: u64) -> u64 {
        self.heap.alloc(&mut self.cache, size, 16, 0).expect("room")
    }

    pub fn set(&self, addr: u64, value: u64) {
        self.memory.words(addr, 1).expect("mapped")[0].store(value, Relaxed);
    }

    pub fn get(&self, addr: u64) -> u64 {
        self.memory.words(addr, 1).expect("mapped")[0].load(Relaxed)
    }

    pub fn bytes(&self, addr: u64, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.set(addr + i as u64 * 8, u64::from_le_bytes(word));
        }
    }
}

pub fn pointer(target: &str) -> Shape {
    Shape::Pointer {
        target: target.into(),
        target_id: 0,
    }
}

pub fn built(builder: TypeBuilder) -> TypeDesc {
    TypeDesc::parse(&builder.build().expect("a type")).expect("a type")
}

/// `struct node { bool leaf; enum color (1..=3) color; u32 count; node *child[4]; item *items[2]; char *name; u64 key; }`
pub fn node() -> TypeDesc {
    let array = |count, target| Shape::Array {
        count,
        stride: 8,
        element: Box::new(pointer(target)),
    };
    let color = Shape::Enum {
        name: "color".into(),
        size: 1,
        min: 1,
        max: 3,
    };
    built(
        TypeBuilder::new("node", 72, 8)
            .member("leaf", 0, Shape::Bool)
            .member("color", 1, color)
            .member("count", 4, Shape::Integer(4))
            .member("child", 8, array(4, "node"))
            .member("items", 40, array(2, "item"))
            .member("name", 56, pointer("char"))
            .member("key", 64, Shape::Integer(8)),
    )
}

/// `struct item { u64 a; part p; }`, `struct part { i32 x; i32 y; }`
pub fn item() -> TypeDesc {
    let part = Shape::Record {
        name: "part".into(),
        size: 8,
        members: vec![
            Member::new("x", 0, Shape::Integer(4)),
            Member::new("y", 4, Shape::Integer(4)),
        ],
    };
    built(
        TypeBuilder::new("item", 16, 8)
            .member("a", 0, Shape::Integer(8))
            .member("p", 8, part),
    )
}

pub struct Graph {
    pub world: World,
    pub node: TypeDesc,
    pub known: Arc<KnownTypes>,
    pub root: u64,
    pub nodes: Vec<u64>,
    pub items: Vec<u64>,
    pub text: u64,
}

/// A tree of nodes with a link back to the root, shared items and a shared name.
pub fn graph(count: usize) -> Graph {
    let mut world = World::new();
    let (node, item) = (node(), item());
    let nodes: Vec<u64> = (0..count).map(|_| world.alloc(&node, 72)).collect();
    let items: Vec<u64> = (0..count / 2 + 1).map(|_| world.alloc(&item, 16)).collect();
    let text = world.raw(24);
    world.bytes(text, b"a name that is shared\0");
    for (i, at) in nodes.iter().enumerate() {
        let leaf = u64::from(i * 3 + 1 >= count);
        world.set(*at, leaf | (1 + i as u64 % 3) << 8 | (i as u64) << 32);
        for c in 0..3 {
            world.set(
                at + 8 + c as u64 * 8,
                nodes.get(i * 3 + 1 + c).copied().unwrap_or(0),
            );
        }
        world.set(at + 32, nodes[0]);
        world.set(at + 40, items[i / 2]);
        world.set(at + 56, text);
        world.set(at + 64, i as u64);
    }
    Graph {
        known: Arc::new(KnownTypes::new([&node, &item])),
        root: nodes[0],
        world,
        node,
        nodes,
        items,
        text,
    }
}

impl Graph {
    pub fn verify_in(&self, allowed: Allowed<'_>, budget: Budget) -> Result<u64, GraphError> {
        let mut examiner = Examiner::new(Arc::clone(&self.known));
        let id = self.node.id();
        let verified = examiner.verify(&self.world.space, self.root, id, allowed, budget);
        verified.map(|r| r.objects)
    }

    /// Both ways give the same answer.
    pub fn verify(&self) -> Result<u64, GraphError> {
        let verified = self.verify_in(Allowed::All, Budget::default());
        let mut copies = Recorded::default();
        let mut examiner = Examiner::new(Arc::clone(&self.known));
        let id = self.node.id();
        let copied = examiner.copy(
            &self.world.space,
            self.root,
            id,
            Budget::default(),
            &mut copies,
        );
        assert_eq!(
            copied.map(|c| c.report.objects),
            verified,
            "verify and copy disagree"
        );
        verified
    }

    pub fn fault(&self) -> Fault {
        match self.verify() {
            Err(GraphError::Fault { fault, .. }) => fault,
            other => panic!("expected a fault, got {other:?}"),
        }
    }
}

/// An arena that knows what it gave.
#[derive(Default)]
pub struct Recorded {
    pub arena: Arena,
    pub given: HashMap<u64, (Placed, u64, String)>,
}

impl GraphTarget for Recorded {
    type Error = Infallible;
    fn place(
        &mut self,
        size: u64,
        align: u64,
        ty: Option<&TypeDesc>,
    ) -> Result<Placed, Infallible> {
        let at = self.arena.place(size, align, ty)?;
        assert!(
            at.addr.is_multiple_of(align),
            "{:#x} is not aligned to {align}",
            at.addr
        );
        let name = ty.map_or("", |t| t.name()).to_owned();
        assert!(self.given.insert(at.addr, (at, size, name)).is_none());
        Ok(at)
    }
    fn words(&self, at: Placed, count: usize) -> Option<&[AtomicU64]> {
        self.arena.words(at, count)
    }
}

impl Recorded {
    pub fn get(&self, addr: u64) -> u64 {
        let (start, (at, size, _)) = self
            .given
            .iter()
            .find(|(start, (_, size, _))| addr >= **start && addr < *start + size)
            .unwrap_or_else(|| panic!("{addr:#x} is in no copy"));
        let words = self.arena.words(*at, (size / 8) as usize).expect("a copy");
        words[((addr - start) / 8) as usize].load(Relaxed)
    }
}
