//! A program and a pool that disagree about a type: what is accepted, refused by name, or converted.

mod space;

use space::{array, desc, ptr};
use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_heap::types::{Mapped, Migration, PoolType, TypeMismatch, reconcile, unique};

fn user_v1() -> TypeDesc {
    desc(
        TypeBuilder::new("user", 32, 8)
            .member("next", 0, ptr("user"))
            .member("age", 8, Shape::Integer(4))
            .member("tags", 12, array(3, 4, Shape::Integer(4)))
            .member("mail", 24, ptr("char")),
    )
}

fn user_v2() -> TypeDesc {
    desc(
        TypeBuilder::new("user", 48, 8)
            .member("mail", 0, ptr("char"))
            .member("age", 8, Shape::Integer(8))
            .member("tags", 16, array(5, 4, Shape::Integer(4)))
            .member("next", 40, ptr("user")),
    )
}

fn color(max: i32) -> TypeDesc {
    let shape = Shape::Enum {
        name: "color".into(),
        size: 4,
        min: 0,
        max,
    };
    desc(
        TypeBuilder::new("pixel", 8, 4)
            .member("color", 0, shape)
            .member("n", 4, Shape::Integer(4)),
    )
}

fn pool(types: &[TypeDesc]) -> Vec<PoolType<'_>> {
    types
        .iter()
        .enumerate()
        .map(|(i, desc)| PoolType {
            index: i as u32 + 2,
            desc,
        })
        .collect()
}

const ALL: &dyn Fn(u32) -> bool = &|_| true;
const NO_HOOK: &dyn Fn(&str) -> bool = &|_| false;
const HOOK: &dyn Fn(&str) -> bool = &|_| true;

#[test]
fn same_new_and_widened_types_are_accepted() {
    let types = [user_v1(), color(3)];
    let (same, wider, new) = (user_v1(), color(5), desc(TypeBuilder::new("fresh", 8, 8)));
    let mapping = reconcile(&pool(&types), &[&same, &wider, &new], ALL, NO_HOOK).unwrap();
    assert_eq!(
        mapping.types,
        [
            Mapped::Same { index: 2 },
            Mapped::Widened { index: 3 },
            Mapped::New
        ]
    );
    // An enum that lost values does not fit what is stored.
    assert!(reconcile(&pool(&types), &[&color(2)], ALL, NO_HOOK).is_err());
    // Both forms in the pool: the exact one counts.
    let types = [color(3), color(5)];
    let mapping = reconcile(&pool(&types), &[&wider], ALL, NO_HOOK).unwrap();
    assert_eq!(mapping.types, [Mapped::Same { index: 3 }]);
}

#[test]
fn all_changed_types_are_named_with_both_layouts() {
    let types = [user_v1(), color(3)];
    let other = desc(TypeBuilder::new("pixel", 4, 4).member("color", 0, Shape::Integer(4)));
    let error = reconcile(&pool(&types), &[&user_v2(), &other], ALL, NO_HOOK).unwrap_err();
    let text = error.to_string();
    let TypeMismatch::Changed { types, .. } = error else {
        panic!("{text}")
    };
    assert_eq!(types, ["user", "pixel"]);
    for part in [
        "types `user`, `pixel` of this program changed",
        "in the pool",
        "in the program",
        "user: 32 bytes",
        "user: 48 bytes",
        "vn_migrate",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

#[test]
fn forms_without_objects_do_not_count() {
    // After a migration the old form is still in the table.
    let types = [user_v1(), user_v2()];
    let in_use = |index| index == 3;
    let mapping = reconcile(&pool(&types), &[&user_v2()], &in_use, NO_HOOK).unwrap();
    assert_eq!(mapping.types, [Mapped::Same { index: 3 }]);
    // The old program is not let in again, although the table has its form.
    assert!(reconcile(&pool(&types), &[&user_v1()], &in_use, NO_HOOK).is_err());
    let unused = |_| false;
    assert_eq!(
        reconcile(&pool(&types[..1]), &[&user_v2()], &unused, NO_HOOK)
            .unwrap()
            .types,
        [Mapped::New]
    );
}

#[test]
fn a_program_that_contradicts_itself_is_refused() {
    let error = reconcile(&[], &[&user_v1(), &user_v2()], ALL, NO_HOOK).unwrap_err();
    assert!(matches!(error, TypeMismatch::Ambiguous { .. }), "{error}");
    assert_eq!(unique([&user_v1(), &user_v1(), &user_v2()]).len(), 2);
}

#[test]
fn migration_carries_fields_by_name() {
    let types = [user_v1()];
    let mapping = reconcile(&pool(&types), &[&user_v2()], ALL, HOOK).unwrap();
    let plan: Vec<&Migration> = mapping.migrations().collect();
    let plan = plan[0];
    assert_eq!(
        (
            plan.pool_index,
            plan.dropped.as_slice(),
            plan.added.as_slice()
        ),
        (2, &["age".to_string()][..], &["age".to_string()][..])
    );
    assert_eq!(
        plan.summary(),
        "`user`: 3 fields carry over; dropped: age; new: age"
    );
    // Two elements of an array.
    let old: Vec<u8> = (0..64).collect();
    let mut new = vec![0; plan.new_bytes(64).unwrap() as usize];
    assert_eq!(new.len(), 96);
    plan.carry(&old, &mut new);
    for (element, base) in [(0usize, 0u8), (1, 32)] {
        let new = &new[element * 48..][..48];
        assert_eq!(new[..8], (base + 24..base + 32).collect::<Vec<_>>(), "mail");
        assert_eq!(new[8..16], [0; 8], "age is new");
        assert_eq!(
            new[16..28],
            (base + 12..base + 24).collect::<Vec<_>>(),
            "tags"
        );
        assert_eq!(new[28..40], [0; 12], "more tags");
        assert_eq!(new[40..48], (base..base + 8).collect::<Vec<_>>(), "next");
    }
    // Too little room loses the end and nothing else.
    plan.carry(&old, &mut [0; 50]);
    plan.carry(&old[..40], &mut new);
}

#[test]
fn flexible_tails_carry_over_with_their_elements() {
    let flex = |head: u64| {
        let tail = Shape::Flexible {
            stride: 8,
            element: Box::new(ptr("char")),
        };
        desc(
            TypeBuilder::new("list", head, 8)
                .member("n", head - 8, Shape::Integer(8))
                .member("tail", head, tail),
        )
    };
    let plan = Migration::new(2, &flex(8), &flex(16));
    assert_eq!(plan.new_bytes(8 + 24), Some(16 + 24));
    let old: Vec<u8> = (0..32).collect();
    let mut new = vec![0; 40];
    plan.carry(&old, &mut new);
    assert_eq!(new[16..40], old[8..32]);
    assert_eq!(new[8..16], old[..8]);
}
