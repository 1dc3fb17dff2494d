//! Relocation: what was built at one place and moved is what is built at the other.

mod space;

use proptest::prelude::*;
use space::{Rng, Space, desc, graph, ptr};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use vernal_abi::puddle::CHUNK_SIZE;
use vernal_format::types::{Shape, TypeBuilder};
use vernal_heap::walk::{
    Binding, Hint, MAX_RANGES, Move, Plans, Redirects, Rewrite, RewriteError, Translate,
    Translation, TranslationError,
};
use vernal_heap::{ObjectSpace, TYPE_FIRST};

const A: u64 = 0x5800_0000_0000;
const SIZE: u64 = 2 * CHUNK_SIZE;

fn bases(seed: u64, count: u64) -> Vec<u64> {
    let mut rng = Rng(seed);
    let mut places = BTreeSet::new();
    while (places.len() as u64) < count {
        places.insert(rng.below(4 * count));
    }
    let mut bases: Vec<u64> = places.into_iter().map(|p| A + p * SIZE).collect();
    // Old and new order differ.
    let by = rng.below(count) as usize;
    bases.rotate_left(by);
    bases
}

fn relocate(space: &Space, translation: &Translation) -> Vec<u64> {
    let plans = Plans::of(space);
    let rewrite = Rewrite {
        plans: &plans,
        pointers: translation,
        binding: None,
    };
    let mut lines = Vec::new();
    for chunk in 0..space.chunk_count() {
        let (start, end) = space.chunk_range(chunk).unwrap();
        let words = space.words(start, ((end - start) / 8) as usize).unwrap();
        rewrite
            .chunk(space, chunk, words, &mut |line| lines.push(line))
            .unwrap();
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    #[test]
    fn moving_gives_what_building_there_gives(seed in any::<u64>(), puddles in 1u64..6) {
        let (from, to) = (bases(seed, puddles), bases(!seed, puddles));
        let built = graph(seed, &to, SIZE, 400);
        let original = graph(seed, &from, SIZE, 400);
        let before = original.image();
        let (moved, moves) = original.moved_to(&to);
        let translation = Translation::new(&moves).unwrap();
        let lines = relocate(&moved, &translation);
        let after = moved.image();
        for (area, (a, b)) in after.iter().zip(&built.image()).enumerate() {
            let differ = a.iter().zip(b).position(|(x, y)| x != y);
            prop_assert_eq!(differ, None, "puddle {}, word", area);
        }
        // Exactly the lines that changed are reported.
        let mut changed = BTreeSet::new();
        for ((base, _), (old, new)) in moved.areas.iter().zip(before.iter().zip(&after)) {
            for (at, (x, y)) in old.iter().zip(new).enumerate() {
                if x != y {
                    changed.insert((base + at as u64 * 8) & !63);
                }
            }
        }
        prop_assert_eq!(lines.into_iter().collect::<BTreeSet<_>>(), changed);
        // And back.
        let (back, _) = moved.moved_to(&from);
        relocate(&back, &translation.inverse());
        prop_assert_eq!(back.image(), before);
    }

    #[test]
    fn parallel_is_serial(seed in any::<u64>()) {
        let (from, to) = (bases(seed, 4), bases(!seed, 4));
        let (serial, moves) = graph(seed, &from, SIZE, 600).moved_to(&to);
        let (parallel, _) = graph(seed, &from, SIZE, 600).moved_to(&to);
        let translation = Translation::new(&moves).unwrap();
        let mut lines = relocate(&serial, &translation);
        let plans = Plans::of(&parallel);
        let found = Mutex::new(Vec::new());
        let rewrite = Rewrite { plans: &plans, pointers: &translation, binding: None };
        let report = rewrite.pool(&parallel, &|line| found.lock().unwrap().push(line)).unwrap();
        prop_assert_eq!(serial.image(), parallel.image());
        prop_assert!(report.changed <= report.pointers && report.unknown == 0);
        let mut found = found.into_inner().unwrap();
        lines.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(lines, found);
    }

    #[test]
    fn translation_is_what_a_list_of_ranges_says(seed in any::<u64>(), count in 0usize..=MAX_RANGES) {
        let mut rng = Rng(seed);
        let mut moves = Vec::new();
        let mut at = 0x5700_0000_0000;
        for i in 0..count {
            at += rng.below(3) * 4096;
            let len = 4096 * (1 + rng.below(4));
            moves.push(Move { old: at, new: 0x5900_0000_0000 + (count - i) as u64 * 65536, len });
            at += len;
        }
        let translation = Translation::new(&moves).unwrap();
        let naive = |v: u64| {
            let end = moves.iter().find(|m| v == m.old + m.len);
            let inside = moves.iter().find(|m| v >= m.old && v < m.old + m.len);
            end.or(inside).map_or(v, |m| v - m.old + m.new)
        };
        let mut values: Vec<u64> = vec![0, 1, u64::MAX, u64::MAX - 1, 0x5700_0000_0000 - 1];
        for m in &moves {
            values.extend([m.old - 1, m.old, m.old + 1, m.old + m.len - 1, m.old + m.len, m.old + m.len + 1, m.new]);
            values.push(m.old + rng.below(m.len));
        }
        // In this order, and in another: what is remembered of the last value must not change the next.
        let mut hint = Hint::default();
        for &v in &values {
            prop_assert_eq!(translation.translate(v), naive(v), "{:#x}", v);
            prop_assert_eq!(translation.translate_near(v, &mut hint), naive(v), "{:#x}", v);
        }
        for _ in 0..values.len() {
            let v = values[rng.below(values.len() as u64) as usize];
            prop_assert_eq!(translation.translate_near(v, &mut hint), naive(v), "{:#x}", v);
        }
    }
}

#[test]
fn ranges_that_are_none_are_refused() {
    let m = |old, new, len| Move { old, new, len };
    let refused = |moves: &[Move]| Translation::new(moves).unwrap_err();
    assert!(matches!(
        refused(&[m(8, 8, 0)]),
        TranslationError::Range { .. }
    ));
    assert!(matches!(
        refused(&[m(u64::MAX - 7, 8, 64)]),
        TranslationError::Range { .. }
    ));
    assert!(matches!(
        refused(&[m(8, u64::MAX - 7, 64)]),
        TranslationError::Range { .. }
    ));
    assert!(matches!(
        refused(&[m(9, 8, 64)]),
        TranslationError::Range { .. }
    ));
    assert!(matches!(
        refused(&[m(64, 640, 64), m(120, 1280, 64)]),
        TranslationError::Overlap { .. }
    ));
    assert!(matches!(
        refused(&[m(64, 640, 64), m(128, 696, 64)]),
        TranslationError::Overlap { .. }
    ));
    assert!(matches!(
        refused(&[m(8, 8, 8); MAX_RANGES + 1]),
        TranslationError::TooMany { .. }
    ));
}

#[test]
fn the_end_of_a_puddle_moves_with_it_even_where_another_begins() {
    let m = |old, new| Move {
        old,
        new,
        len: SIZE,
    };
    let apart = Translation::new(&[m(A, A + 16 * SIZE), m(A + 2 * SIZE, A + 32 * SIZE)]).unwrap();
    assert_eq!(apart.translate(A + SIZE), A + 17 * SIZE);
    let adjacent = Translation::new(&[m(A, A + 16 * SIZE), m(A + SIZE, A + 32 * SIZE)]).unwrap();
    assert_eq!(adjacent.translate(A + SIZE), A + 17 * SIZE);
    assert_eq!(adjacent.translate(A + SIZE + 1), A + 32 * SIZE + 1);
    assert_eq!(adjacent.translate(A), A + 16 * SIZE);
}

/// An object of several chunks, done chunk by chunk in copies, in any order.
#[test]
fn chunks_are_independent_and_a_copy_is_as_good() {
    let types = space::types();
    for (name, bytes) in [
        ("node *", 5 * CHUNK_SIZE),
        ("table", 5 * CHUNK_SIZE),
        ("message", 5 * CHUNK_SIZE),
        ("node", 5 * CHUNK_SIZE),
    ] {
        let make = |base: u64| {
            let mut space = Space::new(&[base], 6 * CHUNK_SIZE, &types);
            let index = space.type_index(name);
            // The object does not begin with a chunk, and elements lie over the borders.
            space.alloc(0, 48, 0).unwrap();
            let addr = space.alloc(0, bytes, index).unwrap();
            let d = space.type_desc(index).unwrap().clone();
            let mut pointers = 0u64;
            let elements = d.elements_in(bytes);
            for element in 0..elements {
                for f in d.fields().iter().filter(|f| f.kind.is_address()) {
                    let count = if f.is_flex() {
                        (bytes - f.offset - 8) / 24 + 1
                    } else {
                        f.count.into()
                    };
                    for i in 0..count {
                        let at = addr + element * d.size() + f.offset + i * u64::from(f.stride);
                        space.set(at, base + (at * 7 + 13) % (6 * CHUNK_SIZE));
                        pointers += 1;
                    }
                }
            }
            (space, pointers)
        };
        let (old, pointers) = make(A);
        let (moved, moves) = old.moved_to(&[A + 64 * SIZE]);
        let translation = Translation::new(&moves).unwrap();
        let plans = Plans::of(&moved);
        let rewrite = Rewrite {
            plans: &plans,
            pointers: &translation,
            binding: None,
        };
        let before = moved.image();
        let mut seen = 0;
        for chunk in (0..moved.chunk_count()).rev() {
            let (start, end) = moved.chunk_range(chunk).unwrap();
            let words = moved.words(start, ((end - start) / 8) as usize).unwrap();
            let copy: Vec<AtomicU64> = words
                .iter()
                .map(|w| AtomicU64::new(w.load(Ordering::Relaxed)))
                .collect();
            let report = rewrite
                .chunk(&moved, chunk, &copy, &mut |line| {
                    assert!(line + 63 >= start && line < end)
                })
                .unwrap();
            seen += report.pointers;
            assert_eq!(report.changed, report.pointers, "{name}");
            // The chunk itself was not touched; the copy has each pointer moved and nothing else.
            for (at, (w, c)) in words.iter().zip(&copy).enumerate() {
                let (w, c) = (w.load(Ordering::Relaxed), c.load(Ordering::Relaxed));
                assert_eq!(c, translation.translate(w), "{name}: word {at}");
            }
        }
        assert_eq!(moved.image(), before);
        assert_eq!(seen, pointers, "{name}: every pointer once");
    }
}

#[test]
fn words_that_are_not_the_chunk_are_refused() {
    let space = graph(1, &[A], SIZE, 10);
    let plans = Plans::of(&space);
    let translation = Translation::new(&[]).unwrap();
    let rewrite = Rewrite {
        plans: &plans,
        pointers: &translation,
        binding: None,
    };
    let few = [AtomicU64::new(0)];
    assert!(matches!(
        rewrite.chunk(&space, 0, &few, &mut |_| ()),
        Err(RewriteError::Words { .. })
    ));
    assert!(matches!(
        rewrite.chunk(&space, 99, &few, &mut |_| ()),
        Err(RewriteError::NoChunk { chunk: 99 })
    ));
}

#[test]
fn unknown_types_are_counted_and_left_alone() {
    let mut space = Space::new(&[A], CHUNK_SIZE, &space::types());
    let addr = space.alloc(0, 64, 4000).unwrap();
    space.set(addr, addr);
    let (moved, moves) = space.moved_to(&[A + SIZE]);
    let plans = Plans::of(&moved);
    let translation = Translation::new(&moves).unwrap();
    let rewrite = Rewrite {
        plans: &plans,
        pointers: &translation,
        binding: None,
    };
    let report = rewrite.pool(&moved, &|_| ()).unwrap();
    assert_eq!((report.unknown, report.changed), (1, 0));
    assert_eq!(moved.get(addr + SIZE), addr);
}

#[test]
fn vtables_follow_the_type_and_functions_their_module() {
    let mut space = Space::new(&[A], CHUNK_SIZE, &space::types());
    let index = space.type_index("shape");
    let object = space.alloc(0, 24 * 3, index).unwrap();
    for i in 0..2 {
        space.set(object + 24 * i, 0x1111_1111_0010);
        space.set(object + 24 * i + 8, object + 24 * (1 - i));
    }
    space.set(object + 16, 0x7f00_0000_1234);
    space.set(object + 24 + 16, 0x7e00_0000_1234);
    let plans = Plans::of(&space);
    let modules = Redirects::new(&[Move {
        old: 0x7f00_0000_0000,
        new: 0x7d00_0000_0000,
        len: 0x10000,
    }])
    .unwrap();
    let mut binding = Binding::new(modules);
    binding.set_vtables(index, &[0x2222_2222_0010]);
    let still = Translation::new(&[]).unwrap();
    let rewrite = Rewrite {
        plans: &plans,
        pointers: &still,
        binding: Some(&binding),
    };
    let report = rewrite.pool(&space, &|_| ()).unwrap();
    assert_eq!(space.get(object), 0x2222_2222_0010);
    assert_eq!(space.get(object + 24), 0x2222_2222_0010);
    assert_eq!(
        space.get(object + 48),
        0,
        "an element that was never constructed"
    );
    assert_eq!(space.get(object + 16), 0x7d00_0000_1234);
    assert_eq!(
        (report.rebound, report.changed, report.refused_count),
        (3, 0, 1)
    );
    let refused = &report.refused[0];
    assert_eq!(
        (refused.addr, refused.value),
        (object + 40, 0x7e00_0000_1234)
    );
    let d = space.type_desc(refused.type_index).unwrap();
    assert_eq!(d.fields()[refused.field as usize].name, "draw");
    // A program that does not have the type cannot bind its vtable.
    let none = Binding::default();
    let report = Rewrite {
        plans: &plans,
        pointers: &still,
        binding: Some(&none),
    }
    .pool(&space, &|_| ())
    .unwrap();
    assert_eq!((report.rebound, report.refused_count), (0, 4));
}

#[test]
fn redirects_move_objects_and_pointers_into_them() {
    let list = desc(
        TypeBuilder::new("n", 16, 8)
            .member("a", 0, ptr("n"))
            .member("b", 8, ptr("n")),
    );
    let mut space = Space::new(&[A], CHUNK_SIZE, &[list]);
    let old = space.alloc(0, 16, TYPE_FIRST).unwrap();
    let new = space.alloc(0, 32, TYPE_FIRST).unwrap();
    let user = space.alloc(0, 16, TYPE_FIRST).unwrap();
    space.set(user, old);
    space.set(user + 8, old + 8);
    space.set(new, user);
    let redirects = Redirects::new(&[Move { old, new, len: 16 }]).unwrap();
    let plans = Plans::of(&space);
    Rewrite {
        plans: &plans,
        pointers: &redirects,
        binding: None,
    }
    .pool(&space, &|_| ())
    .unwrap();
    assert_eq!(
        (space.get(user), space.get(user + 8), space.get(new)),
        (new, new + 8, user)
    );
}

/// Opaque memory is never touched, whatever it looks like.
#[test]
fn integers_that_look_like_pointers_stay() {
    let number = desc(
        TypeBuilder::new("n", 16, 8)
            .member("a", 0, Shape::Integer(8))
            .member("b", 8, Shape::Bytes(8)),
    );
    let mut space = Space::new(&[A], CHUNK_SIZE, &[number]);
    let object = space.alloc(0, 16, TYPE_FIRST).unwrap();
    space.set(object, object);
    space.set(object + 8, object);
    let (moved, moves) = space.moved_to(&[A + SIZE]);
    relocate(&moved, &Translation::new(&moves).unwrap());
    assert_eq!(
        (moved.get(object + SIZE), moved.get(object + SIZE + 8)),
        (object, object)
    );
}
