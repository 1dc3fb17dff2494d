//! Type descriptors: what holds for any shape.

use super::{array, golden, parse, ptr, record};
use proptest::prelude::*;
use vernal_format::types::{
    FieldKind, MAX_TYPE_FIELDS, Member, Shape, TypeBuilder, TypeDesc, diff,
};

fn scalar() -> impl Strategy<Value = (u64, u64, Shape)> {
    prop_oneof![
        "[a-z]{1,3}".prop_map(|t| (8, 8, ptr(&t))),
        Just((
            8,
            8,
            Shape::Function {
                signature: "void ()".into()
            }
        )),
        Just((8, 8, Shape::Vtable { class: "c".into() })),
        prop_oneof![Just(1u32), Just(2), Just(4), Just(8), Just(16)].prop_map(|s| (
            s.into(),
            s.into(),
            Shape::Integer(s)
        )),
        Just((4, 4, Shape::Float(4))),
        Just((1, 1, Shape::Bool)),
        (-9i32..0, 0i32..9).prop_map(|(min, max)| (
            4,
            4,
            Shape::Enum {
                name: "e".into(),
                size: 4,
                min,
                max
            }
        )),
        (1u64..40).prop_map(|n| (n, 1, Shape::Bytes(n))),
    ]
}

/// Size, alignment and shape of a type laid out like C does.
fn any_shape() -> impl Strategy<Value = (u64, u64, Shape)> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            (inner.clone(), 1u64..9).prop_map(|((size, align, s), n)| (
                size * n,
                align,
                array(n, size, s)
            )),
            ("[a-z]{0,4}", proptest::collection::vec(inner, 1..6)).prop_map(|(name, parts)| {
                let (mut at, mut most, mut members) = (0u64, 1u64, Vec::new());
                for (i, (size, align, shape)) in parts.into_iter().enumerate() {
                    at = at.next_multiple_of(align);
                    members.push(Member::new(&format!("m{i}"), at, shape));
                    at += size;
                    most = most.max(align);
                }
                let size = at.next_multiple_of(most);
                (size, most, record(&name, size, members))
            }),
        ]
    })
}

/// Which kind each byte has, by walking the shape itself: what flattening must agree with.
fn paint(shape: &Shape, at: u64, bytes: &mut [u8]) {
    let mut fill =
        |len: u64, kind: FieldKind| bytes[at as usize..(at + len) as usize].fill(kind as u8);
    match shape {
        Shape::Pointer { .. } => fill(8, FieldKind::Pointer),
        Shape::Function { .. } => fill(8, FieldKind::Function),
        Shape::Vtable { .. } => fill(8, FieldKind::Vtable),
        Shape::Integer(n) => fill((*n).into(), FieldKind::Integer),
        Shape::Float(n) => fill((*n).into(), FieldKind::Float),
        Shape::Bool => fill(1, FieldKind::Bool),
        Shape::Enum { size, .. } => fill((*size).into(), FieldKind::Enum),
        Shape::Bytes(n) => fill(*n, FieldKind::Bytes),
        Shape::Refused { size, .. } => fill(*size, FieldKind::Refused),
        Shape::Record { members, .. } => members
            .iter()
            .for_each(|m| paint(&m.shape, at + m.offset, bytes)),
        Shape::Array {
            count,
            stride,
            element,
        } => (0..*count).for_each(|i| paint(element, at + i * stride, bytes)),
        Shape::Flexible { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn flattening_covers_the_same_bytes_as_the_type((size, align, shape) in any_shape()) {
        let mut expected = vec![0u8; size as usize];
        paint(&shape, 0, &mut expected);
        let desc = parse(&TypeBuilder::of("t", size, align as u32, shape));
        prop_assume!(desc.refused().is_none());
        let mut found = vec![0u8; size as usize];
        for f in desc.fields().iter().filter(|f| f.kind != FieldKind::Part) {
            for i in 0..u64::from(f.count) {
                let at = (f.offset + i * u64::from(f.stride)) as usize;
                found[at..at + f.elem_size as usize].fill(f.kind as u8);
            }
        }
        // Arrays of one-byte integers are bytes.
        let plain = |k: &u8| if *k == FieldKind::Integer as u8 { FieldKind::Bytes as u8 } else { *k };
        prop_assert_eq!(found.iter().map(plain).collect::<Vec<_>>(), expected.iter().map(plain).collect::<Vec<_>>());
        prop_assert_eq!(TypeDesc::parse(desc.blob()).unwrap(), desc);
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = TypeDesc::parse(&bytes);
    }

    #[test]
    fn almost_a_descriptor_is_an_answer(which in 0usize..6, edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8)) {
        let mut blob = golden()[which].1.build().unwrap();
        for (at, byte) in edits {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        if let Ok(desc) = TypeDesc::parse(&blob) {
            prop_assert!(desc.fields().len() <= MAX_TYPE_FIELDS);
            let _ = (desc.to_string(), diff(&desc, &desc));
        }
    }
}
