//! Descriptors: what is built is read back, what compilers agree on is checked in, and no bytes make the parser panic.

mod properties;

use std::path::PathBuf;
use vernal_format::types::{
    BuildError, FieldKind, Member, Shape, TypeBuilder, TypeDesc, TypeError, canonical_text, diff,
    field_flags, refusal, type_flags,
};

fn ptr(target: &str) -> Shape {
    Shape::Pointer {
        target: target.into(),
        target_id: 0,
    }
}

fn record(name: &str, size: u64, members: Vec<Member>) -> Shape {
    Shape::Record {
        name: name.into(),
        size,
        members,
    }
}

fn array(count: u64, stride: u64, element: Shape) -> Shape {
    Shape::Array {
        count,
        stride,
        element: Box::new(element),
    }
}

fn parse(builder: &TypeBuilder) -> TypeDesc {
    TypeDesc::parse(&builder.build().unwrap()).unwrap()
}

fn lines(desc: &TypeDesc) -> Vec<String> {
    desc.to_string()
        .lines()
        .map(|l| l.trim().to_string())
        .collect()
}

/// The types whose bytes are checked in: at least one of each kind, and each way to nest.
fn golden() -> Vec<(&'static str, TypeBuilder)> {
    let color = Shape::Enum {
        name: "color".into(),
        size: 4,
        min: -1,
        max: 6,
    };
    let entry = record(
        "entry",
        24,
        vec![
            Member::new("key", 0, ptr("char")),
            Member::new("tag", 8, array(8, 1, Shape::Integer(1))),
            Member::new("hits", 16, Shape::Integer(4)),
        ],
    );
    let link = record(
        "link",
        16,
        vec![
            Member::new("next", 0, ptr("link")),
            Member::new("prev", 8, ptr("link")),
        ],
    );
    vec![
        (
            "list",
            TypeBuilder::new("node", 16, 8)
                .member("next", 0, ptr("node"))
                .member("value", 8, Shape::Integer(8)),
        ),
        (
            "table",
            TypeBuilder::new("table", 208, 8)
                .member("slot", 0, array(8, 24, entry.clone()))
                .member("owner", 192, ptr("void"))
                .member("color", 200, color)
                .member("live", 204, Shape::Bool),
        ),
        (
            "class",
            TypeBuilder::new("shop::order<int, long>", 72, 8)
                .base(
                    "shop::base",
                    0,
                    record(
                        "shop::base",
                        16,
                        vec![
                            Member::new(
                                "vptr",
                                0,
                                Shape::Vtable {
                                    class: "shop::order<int, long>".into(),
                                },
                            ),
                            Member::new("x", 8, Shape::Float(8)),
                        ],
                    ),
                )
                .member("siblings", 16, link)
                .member(
                    "notify",
                    32,
                    Shape::Function {
                        signature: "void (int)".into(),
                    },
                )
                .base(
                    "shop::second",
                    40,
                    record(
                        "shop::second",
                        8,
                        vec![Member::new(
                            "vptr",
                            0,
                            Shape::Vtable {
                                class: "shop::order<int, long>".into(),
                            },
                        )],
                    ),
                )
                .annotated("either", 48, ptr("node"))
                .member("grid", 56, array(2, 4, array(2, 2, Shape::Integer(2))))
                .member("rest", 64, Shape::Bytes(8)),
        ),
        (
            "flexible",
            TypeBuilder::new("message", 8, 8)
                .member("count", 0, Shape::Integer(4))
                .member(
                    "tail",
                    8,
                    Shape::Flexible {
                        stride: 24,
                        element: Box::new(entry),
                    },
                ),
        ),
        (
            "refused",
            TypeBuilder::new("variant", 16, 8)
                .member("kind", 0, Shape::Integer(4))
                .member(
                    "u",
                    8,
                    Shape::Refused {
                        size: 8,
                        reason: refusal::UNION.into(),
                    },
                ),
        ),
        ("opaque", TypeBuilder::of("char", 1, 1, Shape::Integer(1))),
    ]
}

/// Compares with the files of the repository; `VERNAL_BLESS=1` writes them.
#[test]
fn golden_descriptors_are_what_compilers_emit_today() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/types");
    for (name, builder) in golden() {
        let blob = builder.build().unwrap();
        let desc = TypeDesc::parse(&blob).unwrap();
        let text = format!("{}\n{:016x}\n{desc}\n", canonical_text(&desc), desc.id());
        let (blob_path, text_path) = (
            folder.join(format!("{name}.vtyp")),
            folder.join(format!("{name}.txt")),
        );
        if std::env::var_os("VERNAL_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&blob_path, &blob).unwrap();
            std::fs::write(&text_path, &text).unwrap();
        }
        assert_eq!(
            std::fs::read(&blob_path).unwrap(),
            blob,
            "{name}: the bytes of descriptors changed: raise their version"
        );
        assert_eq!(std::fs::read_to_string(&text_path).unwrap(), text, "{name}");
    }
}

#[test]
fn flags_follow_from_the_fields() {
    let flags = |name| {
        let (_, b) = golden().into_iter().find(|(n, _)| *n == name).unwrap();
        parse(&b).flags()
    };
    assert_eq!(flags("list"), 0);
    assert_eq!(flags("class"), type_flags::POLYMORPHIC);
    assert_eq!(flags("flexible"), type_flags::FLEXIBLE);
    assert_eq!(flags("refused"), type_flags::REFUSED);
    assert_eq!(flags("opaque"), type_flags::OPAQUE);
}

#[test]
fn arrays_of_structs_give_each_leaf_a_run() {
    let element = record(
        "cell",
        24,
        vec![
            Member::new("at", 0, array(2, 8, ptr("cell"))),
            Member::new("n", 16, Shape::Integer(4)),
        ],
    );
    let desc = parse(&TypeBuilder::new("grid", 2400, 8).member("cell", 0, array(100, 24, element)));
    assert_eq!(
        lines(&desc)[1..],
        [
            "+0 cell[].at[0]: pointer to cell, 100 times every 24",
            "+0 cell[]: (24 bytes: cell), 100 times every 24",
            "+8 cell[].at[1]: pointer to cell, 100 times every 24",
            "+16 cell[].n: integer of 4, 100 times every 24",
        ]
    );
}

#[test]
fn the_outer_array_is_expanded_where_that_is_shorter() {
    let element = record(
        "",
        808,
        vec![
            Member::new("at", 0, array(100, 8, ptr("cell"))),
            Member::new("n", 800, Shape::Integer(8)),
        ],
    );
    let desc = parse(&TypeBuilder::new("grid", 1616, 8).member("row", 0, array(2, 808, element)));
    assert_eq!(
        lines(&desc)[1..],
        [
            "+0 row[0].at[]: pointer to cell, 100 times every 8",
            "+800 row[0].n: integer of 8",
            "+808 row[1].at[]: pointer to cell, 100 times every 8",
            "+1608 row[1].n: integer of 8",
        ]
    );
    assert_eq!(desc.fields()[2].element_name(7), "row[1].at[7]");
}

#[test]
fn arrays_of_arrays_without_gaps_are_one_run_and_characters_are_bytes() {
    let grid = array(6, 80, array(10, 8, ptr("void")));
    let text = array(4, 16, array(16, 1, Shape::Integer(1)));
    let desc = parse(
        &TypeBuilder::new("t", 544, 8)
            .member("grid", 0, grid)
            .member("text", 480, text),
    );
    assert_eq!(
        lines(&desc)[1..],
        [
            "+0 grid[]: pointer to void, 60 times every 8",
            "+480 text: 64 bytes",
        ]
    );
}

#[test]
fn unaligned_pointers_are_refused_by_name() {
    let packed = TypeBuilder::new("packed", 12, 4)
        .member("next", 0, ptr("packed"))
        .member("n", 8, Shape::Integer(4));
    let desc = parse(&packed);
    let field = desc.refused().unwrap();
    assert_eq!(
        (field.name.as_str(), field.target.as_str()),
        ("next", refusal::UNALIGNED)
    );
    let odd = TypeBuilder::new("odd", 16, 8)
        .member("c", 0, Shape::Integer(1))
        .member("p", 1, ptr("odd"));
    assert_eq!(parse(&odd).refused().unwrap().name, "p");
    let stride = TypeBuilder::new("s", 24, 8).member("p", 0, array(2, 12, ptr("s")));
    assert_eq!(parse(&stride).refused().unwrap().name, "p[]");
}

#[test]
fn too_many_fields_are_refused_by_name() {
    let mut b = TypeBuilder::new("wide", 8 * 5000, 8);
    for i in 0..5000 {
        b = b.member(&format!("m{i}"), i * 8, ptr("wide"));
    }
    let desc = parse(&b);
    assert_eq!(desc.refused().unwrap().target, refusal::TOO_MANY_FIELDS);
    // As a run the same bytes are one field.
    let run =
        parse(&TypeBuilder::new("wide", 8 * 5000, 8).member("m", 0, array(5000, 8, ptr("wide"))));
    assert_eq!(run.fields().len(), 1);
}

#[test]
fn addresses_that_overlap_are_an_error() {
    let cases = [
        (
            "data under a pointer",
            vec![("p", 8, ptr("x")), ("n", 12, Shape::Integer(4))],
        ),
        ("two pointers", vec![("p", 8, ptr("x")), ("q", 8, ptr("y"))]),
        (
            "pointer in a run's gap, too long",
            vec![
                ("a", 0, array(3, 16, ptr("x"))),
                ("b", 24, Shape::Bytes(16)),
            ],
        ),
        (
            "runs out of step",
            vec![
                ("a", 0, array(2, 24, ptr("x"))),
                ("b", 8, array(2, 16, ptr("y"))),
            ],
        ),
    ];
    for (what, members) in cases {
        let mut b = TypeBuilder::new("t", 48, 8);
        for (name, offset, shape) in members {
            b = b.member(name, offset, shape);
        }
        let error = b.build().unwrap_err();
        assert!(
            matches!(error, BuildError::Rule(TypeError::Overlap { .. })),
            "{what}: {error}"
        );
    }
    // Data over data is how bit fields look, and a run may have its gap filled.
    let fine = TypeBuilder::new("t", 64, 8)
        .member("bits", 0, Shape::Integer(4))
        .member("more", 2, Shape::Integer(4))
        .member("a", 8, array(3, 16, ptr("x")))
        .member("b", 16, array(3, 16, Shape::Integer(8)));
    parse(&fine);
}

#[test]
fn flexible_arrays_end_the_object() {
    let flex = |element| Shape::Flexible {
        stride: 8,
        element: Box::new(element),
    };
    parse(&TypeBuilder::new("t", 0, 8).member("tail", 0, flex(ptr("t"))));
    let behind = TypeBuilder::new("t", 16, 8)
        .member("tail", 0, flex(ptr("t")))
        .member("n", 8, Shape::Integer(8));
    assert!(behind.build().is_err());
    let far = TypeBuilder::new("t", 8, 8).member("tail", 24, flex(ptr("t")));
    assert!(far.build().is_err());
}

#[test]
fn names_of_fields_do_not_change_the_id_but_layout_and_targets_do() {
    let id = |b: TypeBuilder| parse(&b).id();
    let node =
        |field: &str, target: &str| TypeBuilder::new("node", 8, 8).member(field, 0, ptr(target));
    assert_eq!(id(node("next", "node")), id(node("link", "node")));
    assert_ne!(id(node("next", "node")), id(node("next", "other")));
    assert_ne!(
        id(node("next", "node")),
        id(TypeBuilder::new("node", 16, 8).member("next", 0, ptr("node")))
    );
    assert_ne!(
        id(node("next", "node")),
        id(TypeBuilder::new("nod", 8, 8).member("next", 0, ptr("node")))
    );
}

#[test]
fn a_changed_type_is_shown_side_by_side() {
    let old = TypeBuilder::new("user", 24, 8)
        .member("next", 0, ptr("user"))
        .member("age", 8, Shape::Integer(4))
        .member("mail", 16, ptr("char"));
    let new = TypeBuilder::new("user", 32, 8)
        .member("next", 0, ptr("user"))
        .member("age", 8, Shape::Integer(8))
        .member("name", 16, ptr("char"))
        .member("mail", 24, ptr("char"));
    let text = diff(&parse(&old), &parse(&new));
    let marked: Vec<&str> = text.lines().filter(|l| l.starts_with('!')).collect();
    assert_eq!(marked.len(), 4, "{text}");
    assert!(
        text.contains("  +0 next: pointer to user") && text.contains("| +16 name: pointer to char"),
        "{text}"
    );
}

#[test]
fn hostile_numbers_and_names_are_answers() {
    let (_, b) = golden().into_iter().find(|(n, _)| *n == "table").unwrap();
    let good = b.build().unwrap();
    assert!(matches!(
        TypeDesc::parse(&good[..40]),
        Err(TypeError::Length { .. })
    ));
    assert!(matches!(
        TypeDesc::parse(&[good.as_slice(), &[0; 8]].concat()),
        Err(TypeError::Length { .. })
    ));
    let with = |at: usize, bytes: &[u8]| {
        let mut blob = good.clone();
        blob[at..at + bytes.len()].copy_from_slice(bytes);
        TypeDesc::parse(&blob).unwrap_err()
    };
    assert!(matches!(with(0, b"X"), TypeError::Magic { .. }));
    assert!(matches!(with(4, &[2]), TypeError::Version { found: 2 }));
    assert!(matches!(with(8, &[0; 8]), TypeError::Id { .. }));
    assert!(matches!(
        with(16, &[0xff; 8]),
        TypeError::Header {
            what: "the size",
            ..
        }
    ));
    assert!(matches!(
        with(24, &[3]),
        TypeError::Header {
            what: "the alignment",
            ..
        }
    ));
    assert!(matches!(
        with(28, &[0xff; 4]),
        TypeError::Header {
            what: "the number of fields",
            ..
        }
    ));
    assert!(matches!(
        with(32, &[0xff; 4]),
        TypeError::Text {
            what: "outside",
            ..
        }
    ));
    assert!(matches!(with(48, &[0xff; 8]), TypeError::Field { .. }));
    assert!(matches!(
        with(48 + 8, &[10]),
        TypeError::Field {
            what: "is of an unknown kind",
            ..
        }
    ));
    let escape = TypeBuilder::new("a\u{1b}[2Jb", 8, 8).build().unwrap_err();
    assert!(matches!(
        escape,
        BuildError::Rule(TypeError::Text {
            what: "not printable",
            ..
        })
    ));
}

/// Every byte counts, or is one of those that identity leaves out.
#[test]
fn each_changed_byte_is_noticed_or_harmless() {
    for (name, builder) in golden() {
        let good = builder.build().unwrap();
        let desc = TypeDesc::parse(&good).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut blob = good.clone();
                blob[at] ^= 1 << bit;
                let Ok(other) = TypeDesc::parse(&blob) else {
                    continue;
                };
                // What is left: the name of a field, the id of a pointer's target, whether an annotation chose a shape.
                assert_eq!(
                    (other.id(), other.flags()),
                    (desc.id(), desc.flags()),
                    "{name}: byte {at}"
                );
                assert_eq!(
                    canonical_text(&other),
                    canonical_text(&desc),
                    "{name}: byte {at}"
                );
                let places = |d: &TypeDesc| {
                    d.fields()
                        .iter()
                        .map(|f| {
                            (
                                f.offset,
                                f.kind,
                                f.elem_size,
                                f.count,
                                f.stride,
                                f.flags & field_flags::FLEX,
                                f.target.clone(),
                            )
                        })
                        .collect::<Vec<_>>()
                };
                assert_eq!(places(&other), places(&desc), "{name}: byte {at}");
                let aux = |d: &TypeDesc| {
                    d.fields()
                        .iter()
                        .filter(|f| f.kind != FieldKind::Pointer)
                        .map(|f| f.aux)
                        .collect::<Vec<_>>()
                };
                assert_eq!(aux(&other), aux(&desc), "{name}: byte {at}");
            }
        }
    }
}
