//! Lengths, ends and text beside pointers.

use crate::world::*;
use std::sync::Arc;
use vernal_format::types::Member;
use vernal_format::types::Shape;
use vernal_format::types::TypeBuilder;
use vernal_heap::walk::Allowed;
use vernal_heap::walk::Budget;
use vernal_heap::walk::Demand;
use vernal_heap::walk::Examiner;
use vernal_heap::walk::Fault;
use vernal_heap::walk::GraphError;
use vernal_heap::walk::KnownTypes;

/// `PVec<T>` as Rust lays it out.
fn vector(element: &str) -> Shape {
    Shape::Record {
        name: format!("vernal::PVec<{element}>"),
        size: 24,
        members: vec![
            Member::new("items", 0, pointer(element)),
            Member::new("len", 8, Shape::Integer(8)),
            Member::new("capacity", 16, Shape::Integer(8)),
        ],
    }
}

/// `std::vector` and `std::string` as libstdc++ lays them out, with an allocator of 8 bytes.
fn std_vector(element: &str) -> Shape {
    Shape::Record {
        name: format!("std::vector<{element}, vn::allocator<{element}> >"),
        size: 32,
        members: vec![
            Member::new("root_", 0, pointer("void")),
            Member::new("_M_impl._M_start", 8, pointer(element)),
            Member::new("_M_impl._M_finish", 16, pointer(element)),
            Member::new("_M_impl._M_end_of_storage", 24, pointer(element)),
        ],
    }
}

fn std_string() -> Shape {
    Shape::Record {
        name: "std::__cxx11::basic_string<char, std::char_traits<char>, vn::allocator<char> >"
            .into(),
        size: 40,
        members: vec![
            Member::new("_M_dataplus.root_", 0, pointer("void")),
            Member::new("_M_dataplus._M_p", 8, pointer("char")),
            Member::new("_M_string_length", 16, Shape::Integer(8)),
            Member::new("local", 24, Shape::Bytes(16)),
        ],
    }
}

#[test]
fn lengths_stay_inside_their_objects() {
    let text = Shape::Record {
        name: "vernal::PString".into(),
        size: 24,
        members: vec![Member::new("bytes", 0, vector("u8"))],
    };
    let owner = built(
        TypeBuilder::new("owner", 184, 8)
            .member("nodes", 0, vector("node"))
            .member("text", 24, text)
            .member("flags", 48, vector("bool"))
            .member("chars", 72, vector("char"))
            .member("more", 96, std_vector("node"))
            .member("word", 128, std_string()),
    );
    let known = Arc::new(KnownTypes::new([&owner, &node(), &item()]));
    struct Owned {
        world: World,
        at: u64,
        nodes: u64,
        long: u64,
    }
    let make = || {
        let mut world = World::new();
        let at = world.alloc(&owner, 184);
        let nodes = world.alloc(&node(), 72 * 5);
        for i in 0..3 {
            world.set(nodes + i * 72, 1 << 8);
        }
        // Behind what is in use lies what was there before.
        world.set(nodes + 3 * 72 + 8, 0x1234);
        let long = world.raw(64);
        world.bytes(long, "Ein längerer Text".as_bytes());
        let put = |at: u64, values: &[u64]| {
            for (i, v) in values.iter().enumerate() {
                world.set(at + i as u64 * 8, *v);
            }
        };
        put(at, &[nodes, 3, 5]);
        put(at + 24, &[long, 18, 64]);
        let flags = world
            .heap
            .alloc(&mut world.heap.thread_cache(), 16, 16, 0)
            .expect("room");
        world.bytes(flags, &[1, 0, 1, 1]);
        let put = |at: u64, values: &[u64]| {
            for (i, v) in values.iter().enumerate() {
                world.set(at + i as u64 * 8, *v);
            }
        };
        put(at + 48, &[flags, 4, 16]);
        put(at + 104, &[nodes, nodes + 3 * 72, nodes + 5 * 72]);
        put(at + 136, &[at + 152, 5]);
        world.bytes(at + 152, b"short\0");
        Owned {
            world,
            at,
            nodes,
            long,
        }
    };
    let look = |o: &Owned| -> Result<Recorded, Fault> {
        let mut examiner = Examiner::new(Arc::clone(&known));
        let (space, id) = (&o.world.space, owner.id());
        let verified = examiner.verify(space, o.at, id, Allowed::All, Budget::default());
        let mut copies = Recorded::default();
        let copied = examiner.copy(space, o.at, id, Budget::default(), &mut copies);
        assert_eq!(
            copied.as_ref().map(|c| c.report),
            verified.as_ref().map(|r| *r)
        );
        match copied {
            Ok(c) => {
                let root = c.root;
                let items = copies.get(root);
                assert_eq!(copies.get(root + 104), items, "one array");
                assert_eq!(copies.get(root + 112), items + 3 * 72);
                assert_eq!(copies.get(root + 120), items + 5 * 72);
                assert_eq!(
                    copies.get(items + 3 * 72 + 8),
                    0,
                    "what is not in use is not copied"
                );
                if o.world.get(o.at + 136) == o.at + 152 {
                    assert_eq!(
                        copies.get(root + 136),
                        root + 152,
                        "short text lies in the string"
                    );
                }
                Ok(copies)
            }
            Err(GraphError::Fault { fault, .. }) => Err(fault),
            Err(e) => panic!("{e}"),
        }
    };
    look(&make()).expect("sound");
    let attack = |offset: u64, value: &dyn Fn(&Owned) -> u64| {
        let o = make();
        o.world.set(o.at + offset, value(&o));
        look(&o).err()
    };
    let refused = |offset: u64, value: &dyn Fn(&Owned) -> u64, what: &str| {
        let fault = attack(offset, value);
        assert!(fault.is_some(), "{what} passed");
    };
    refused(8, &|_| 6, "a length beyond the capacity");
    refused(8, &|_| u64::MAX, "a length without end");
    refused(8, &|_| 4, "a length that counts what was left behind");
    refused(16, &|_| 6, "a capacity beyond the object");
    refused(16, &|_| u64::MAX / 72 + 2, "a capacity that overflows");
    refused(16, &|_| 2, "a capacity below the length");
    refused(0, &|_| 0, "a null array with elements");
    refused(0, &|o| o.nodes + 72, "an array that begins later");
    refused(0, &|o| o.long, "an array of something else");
    refused(32, &|_| 65, "text beyond its object");
    refused(40, &|_| 65, "a capacity of text beyond its object");
    refused(24, &|o| o.long + 60, "text that begins later");
    refused(112, &|o| o.nodes + 71, "an end between elements");
    refused(112, &|o| o.nodes - 72, "an end before the beginning");
    refused(112, &|o| o.nodes + 6 * 72, "an end beyond the memory");
    refused(120, &|o| o.nodes + 7 * 72, "memory beyond the object");
    refused(120, &|o| o.nodes, "memory without room");
    refused(104, &|_| 0, "a null vector with an end");
    refused(144, &|_| 16, "short text that is too long");
    refused(144, &|_| 4, "short text without end");
    refused(136, &|o| o.at + 144, "short text elsewhere");
    refused(136, &|_| 0, "a string without text");
    refused(
        136,
        &|o| o.long,
        "long text with the capacity of short text",
    );
    let o = make();
    o.world.set(o.at + 136, o.long);
    o.world.set(o.at + 144, 18);
    o.world.set(o.at + 152, 63);
    look(&o).expect("long text");
    o.world.set(o.at + 144, 17);
    assert!(look(&o).is_err(), "long text without a zero byte behind it");
    let o = make();
    o.world.bytes(o.long, b"\xff\xfe");
    assert!(matches!(look(&o).err(), Some(Fault::Text { .. })));
    let o = make();
    let flags = o.world.get(o.at + 48);
    o.world.bytes(flags, &[1, 2]);
    assert!(matches!(look(&o).err(), Some(Fault::Bool { value: 2 })));
    let o = make();
    let chars = o.long + 32;
    o.world.set(chars, 0xd800);
    for (i, v) in [o.long, 8, 16].into_iter().enumerate() {
        o.world.set(o.at + 72 + i as u64 * 8, v);
    }
    assert!(look(&o).is_err(), "a surrogate is no character");
    let o = make();
    // The second element in use has a colour that there is not.
    o.world.set(o.nodes + 72, 0);
    assert!(matches!(look(&o).err(), Some(Fault::Enum { .. })));
}

/// What Rust promises of a type beyond its layout: boxes are never null, enums have only their own values.
#[test]
fn demands_of_a_language_are_kept() {
    let owner = built(
        TypeBuilder::new("owned", 32, 8)
            .member("boxed", 0, pointer("item"))
            .member("all", 8, vector("vernal::PBox<item>")),
    );
    let boxed =
        built(TypeBuilder::new("vernal::PBox<item>", 8, 8).member("at", 0, pointer("item")));
    let wide = built(TypeBuilder::new("wide", 16, 8).member("kind", 8, Shape::Integer(8)));
    let mut known = KnownTypes::new([&owner, &boxed, &item(), &wide]);
    known.require(owner.id(), &[Demand::NotNull { offset: 0 }]);
    known.require(boxed.id(), &[Demand::NotNull { offset: 0 }]);
    let kinds = Demand::OneOf {
        offset: 8,
        size: 8,
        values: vec![1 << 40, 7],
    };
    known.require(wide.id(), &[kinds]);
    let known = Arc::new(known);
    let mut world = World::new();
    let at = world.alloc(&owner, 32);
    let one = world.alloc(&item(), 16);
    let boxes = world.alloc(&boxed, 4 * 8);
    world.set(at, one);
    for (i, value) in [boxes, 2, 4].into_iter().enumerate() {
        world.set(at + 8 + i as u64 * 8, value);
    }
    world.set(boxes, one);
    world.set(boxes + 8, one);
    let look = |world: &World, at: u64, id: u64| {
        let mut examiner = Examiner::new(Arc::clone(&known));
        let verified = examiner.verify(&world.space, at, id, Allowed::All, Budget::default());
        let mut copies = Recorded::default();
        let copied = examiner.copy(&world.space, at, id, Budget::default(), &mut copies);
        assert_eq!(copied.map(|c| c.report), verified);
        match verified {
            Ok(_) => None,
            Err(GraphError::Fault { fault, .. }) => Some(fault),
            Err(e) => panic!("{e}"),
        }
    };
    assert_eq!(
        look(&world, at, owner.id()),
        None,
        "what is behind the length is spare"
    );
    for null in [at, boxes, boxes + 8] {
        let old = world.get(null);
        world.set(null, 0);
        let fault = look(&world, at, owner.id());
        assert!(
            matches!(fault, Some(Fault::Null { .. })),
            "{null:#x}: {fault:?}"
        );
        world.set(null, old);
    }
    let wide_at = world.alloc(&wide, 16);
    for (kind, good) in [
        (7, true),
        (1 << 40, true),
        (0, false),
        (8, false),
        (u64::MAX, false),
    ] {
        world.set(wide_at + 8, kind);
        let fault = look(&world, wide_at, wide.id());
        let listed = matches!(fault, None | Some(Fault::NotListed { .. }));
        assert!(listed && fault.is_none() == good, "{kind:#x}: {fault:?}");
    }
}

/// A name can stand for two layouts: where a demand says which, that one counts, and C's strings stay what they are.
#[test]
fn a_demand_says_what_a_pointer_leads_to() {
    let letter = Shape::Enum {
        name: "char".into(),
        size: 4,
        min: 0,
        max: 0x10_ffff,
    };
    let letter = built(TypeBuilder::of("char", 4, 4, letter));
    let rust = built(TypeBuilder::new("rust", 8, 8).member("letter", 0, pointer("char")));
    let c = built(TypeBuilder::new("c", 8, 8).member("text", 0, pointer("char")));
    let lost = built(TypeBuilder::new("lost", 8, 8).member("x", 0, pointer("item")));
    let mut known = KnownTypes::new([&rust, &letter, &c, &lost]);
    let leads = |id| Demand::Target { offset: 0, id };
    known.require(rust.id(), &[leads(letter.id())]);
    known.require(lost.id(), &[leads(item().id())]);
    let known = Arc::new(known);
    let mut world = World::new();
    let letters = world.alloc(&letter, 4);
    let text = world.raw(16);
    let at = [&rust, &c, &lost].map(|ty| world.alloc(ty, 8));
    let look = |world: &World, at: u64, id: u64| {
        let mut examiner = Examiner::new(Arc::clone(&known));
        let verified = examiner.verify(&world.space, at, id, Allowed::All, Budget::default());
        verified.is_ok()
    };
    world.set(at[0], letters);
    for (value, good) in [(0x41, true), (0xd800, false), (0x11_0000, false)] {
        world.set(letters, value);
        assert_eq!(look(&world, at[0], rust.id()), good, "{value:#x}");
    }
    world.set(letters, 0x41);
    world.set(at[0], letters + 2);
    assert!(!look(&world, at[0], rust.id()), "half a character");
    world.set(at[1], text);
    world.bytes(text, &[b'x'; 15]);
    assert!(look(&world, at[1], c.id()), "a text that ends");
    world.bytes(text, &[b'x'; 16]);
    assert!(!look(&world, at[1], c.id()), "a text without end");
    assert!(!look(&world, at[2], lost.id()), "what nobody knows");
}

/// A vector that nothing else points into: only its own three words say how long it is.
#[test]
fn the_ends_of_a_vector_are_in_order() {
    let list = built(TypeBuilder::new("list", 32, 8).member("v", 0, std_vector("item")));
    let known = Arc::new(KnownTypes::new([&list, &item()]));
    let mut world = World::new();
    let at = world.alloc(&list, 32);
    let items = world.alloc(&item(), 16 * 4);
    let look = |start: u64, finish: u64, end: u64| {
        for (n, value) in [start, finish, end].into_iter().enumerate() {
            world.set(at + 8 + n as u64 * 8, value);
        }
        let mut examiner = Examiner::new(Arc::clone(&known));
        let (space, budget) = (&world.space, Budget::default());
        let verified = examiner.verify(space, at, list.id(), Allowed::All, budget);
        let mut copies = Recorded::default();
        let copied = examiner.copy(space, at, list.id(), budget, &mut copies);
        assert_eq!(copied.map(|c| c.report), verified);
        verified.is_ok()
    };
    let end = items + 64;
    for finish in [items, items + 16, end] {
        assert!(look(items, finish, end), "{finish:#x}");
    }
    for (start, finish, end) in [
        (items, items - 16, end),
        (items, end + 16, end),
        (items, 0, end),
        (items, u64::MAX - 15, end),
        (items, items, items - 16),
        (items, end, end + 16),
        (items + 16, items, end),
        (items - 16, items, end),
        (0, items, end),
    ] {
        assert!(!look(start, finish, end), "{start:#x} {finish:#x} {end:#x}");
    }
}
