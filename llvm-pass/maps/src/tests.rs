//! Tests over hand-made debug information. What clang makes of real programs is checked in `llvm-pass/tests`.

use std::rc::Rc;

use vernal_format::types::{FieldKind, canonical_text, refusal};

use crate::describe::{NO_VIRTUAL_BASE, NO_VTABLE};
use crate::{
    Bound, DescribeError, Described, Describer, Die, DieFlags, NodeId, Slot, Source, VtableView,
    ate, tag,
};

const SIGNED: u32 = 5;

/// Debug information in a vector; node 0 is never used.
#[derive(Default)]
struct Tree {
    dies: Vec<Die>,
    groups: Vec<(String, String, VtableView)>,
}

impl Source for Tree {
    fn die(&self, id: NodeId) -> Rc<Die> {
        Rc::new(self.dies.get(id - 1).cloned().unwrap_or_default())
    }
    fn vtable(&self, symbol: &str) -> VtableView {
        let found = self.groups.iter().find(|g| g.0 == symbol);
        found.map_or(VtableView::Absent, |g| g.2.clone())
    }
    fn vtables(&self) -> Vec<(String, String)> {
        let names = self.groups.iter().map(|g| (g.0.clone(), g.1.clone()));
        names.collect()
    }
}

impl Tree {
    fn add(&mut self, die: Die) -> NodeId {
        self.dies.push(die);
        self.dies.len()
    }

    fn base(&mut self, name: &str, bytes: u64, encoding: u32) -> NodeId {
        self.add(Die {
            tag: tag::BASE,
            name: name.into(),
            size: bytes * 8,
            encoding,
            ..Die::default()
        })
    }

    fn derived(&mut self, what: u16, name: &str, base: NodeId) -> NodeId {
        self.add(Die {
            tag: what,
            name: name.into(),
            base,
            size: if what == tag::POINTER { 64 } else { 0 },
            ..Die::default()
        })
    }

    fn member(&mut self, name: &str, at: u64, base: NodeId) -> NodeId {
        self.add(Die {
            tag: tag::MEMBER,
            name: name.into(),
            offset: at * 8,
            base,
            ..Die::default()
        })
    }

    fn compound(&mut self, what: u16, name: &str, bytes: u64, elements: &[NodeId]) -> NodeId {
        self.add(Die {
            tag: what,
            name: name.into(),
            size: bytes * 8,
            elements: elements.to_vec(),
            ..Die::default()
        })
    }

    fn array(&mut self, base: NodeId, bytes: u64, counts: &[i128]) -> NodeId {
        let elements: Vec<NodeId> = counts
            .iter()
            .map(|&value| {
                self.add(Die {
                    tag: tag::SUBRANGE,
                    value,
                    ..Die::default()
                })
            })
            .collect();
        let id = self.compound(tag::ARRAY, "", bytes, &elements);
        self.dies[id - 1].base = base;
        id
    }

    fn vptr(&mut self, class: &str, at: u64) -> NodeId {
        let code = self.derived(tag::POINTER, "__vtbl_ptr_type", 0);
        let id = self.member(&format!("_vptr${class}"), at, code);
        self.dies[id - 1].flags.artificial = true;
        id
    }

    fn inherit(&mut self, base: NodeId, at: u64) -> NodeId {
        let id = self.derived(tag::INHERITANCE, "", base);
        self.dies[id - 1].offset = at * 8;
        id
    }

    fn describe(&self, ty: NodeId) -> Described {
        Describer::new(self).describe(ty).expect("it has a layout")
    }

    fn text(&self, ty: NodeId) -> String {
        canonical_text(&self.describe(ty).desc)
    }
}

#[test]
fn qualifiers_change_nothing_and_typedefs_name_the_nameless() {
    let mut t = Tree::default();
    let int = t.base("int", 4, SIGNED);
    let constant = t.derived(tag::CONST, "", int);
    let number = t.derived(tag::TYPEDEF, "number", constant);
    let atomic = t.derived(tag::ATOMIC, "", number);
    assert_eq!(t.text(atomic), "int{4,4;0:int:4*1/4:;}");
    let m = t.member("n", 0, atomic);
    let nameless = t.compound(tag::STRUCTURE, "", 4, &[m]);
    let named = t.derived(tag::TYPEDEF, "counter", nameless);
    assert_eq!(t.text(named), "counter{4,4;0:int:4*1/4:;}");
    let name = t.describe(nameless).desc.name().to_owned();
    assert!(name.starts_with("(unnamed struct "), "{name}");
    // The name follows from the layout alone.
    let again = t.compound(tag::STRUCTURE, "", 4, &[m]);
    assert_eq!(t.describe(again).desc.name(), name);
}

#[test]
fn scopes_are_part_of_a_name() {
    let mut t = Tree::default();
    let space = t.compound(tag::NAMESPACE, "space", 0, &[]);
    let hidden = t.compound(tag::NAMESPACE, "", 0, &[]);
    let function = t.compound(tag::SUBPROGRAM, "f", 0, &[]);
    let class = t.compound(tag::CLASS, "inner", 1, &[]);
    t.dies[hidden - 1].scope = space;
    t.dies[function - 1].scope = hidden;
    t.dies[class - 1].scope = function;
    let name = Describer::new(&t).name(class);
    assert_eq!(name, "space::(anonymous namespace)::f()::inner");
}

#[test]
fn pointers_know_their_targets_but_ids_do_not_depend_on_them() {
    let mut t = Tree::default();
    let node = t.compound(tag::STRUCTURE, "node", 16, &[]);
    let pointer = t.derived(tag::POINTER, "", node);
    let next = t.member("next", 0, pointer);
    let opaque = t.compound(tag::STRUCTURE, "opaque", 0, &[]);
    t.dies[opaque - 1].flags.forward = true;
    let other = t.derived(tag::POINTER, "", opaque);
    let unknown = t.member("unknown", 8, other);
    t.dies[node - 1].elements = vec![next, unknown];
    let d = t.describe(node).desc;
    assert_eq!(
        canonical_text(&d),
        "node{16,8;0:ptr:8*1/8:node;8:ptr:8*1/8:opaque;}"
    );
    assert_eq!(d.fields()[0].aux, d.id());
    assert_eq!(d.fields()[1].aux, 0);
    let e = Describer::new(&t).describe(opaque).unwrap_err();
    assert_eq!(e, DescribeError::Incomplete("opaque".into()));
    assert!(e.to_string().contains("include its definition"), "{e}");
}

#[test]
fn packed_structs_show_by_where_their_members_lie() {
    let mut t = Tree::default();
    let long = t.base("long", 8, SIGNED);
    let char = t.base("char", 1, SIGNED);
    let pointer = t.derived(tag::POINTER, "", long);
    let c = t.member("c", 0, char);
    let p = t.member("p", 1, pointer);
    let packed = t.compound(tag::STRUCTURE, "packed", 9, &[c, p]);
    let d = t.describe(packed);
    assert_eq!(d.desc.align(), 1);
    let why = &d.desc.refused().expect("the pointer is refused").target;
    assert_eq!(why, refusal::UNALIGNED);
    assert!(d.refusals()[0].contains("field `p`: unaligned pointer; do not pack"));
    let p = t.member("p", 8, pointer);
    let aligned = t.compound(tag::STRUCTURE, "aligned", 16, &[c, p]);
    assert_eq!(
        t.text(aligned),
        "aligned{16,8;0:int:1*1/1:;8:ptr:8*1/8:long;}"
    );
}

#[test]
fn unions_are_walked_where_members_agree() {
    let mut t = Tree::default();
    let long = t.base("long", 8, SIGNED);
    let char = t.base("char", 1, SIGNED);
    let text = t.derived(tag::POINTER, "", char);
    let number = t.derived(tag::POINTER, "", long);
    let [l, p, q] = [("l", long), ("p", text), ("q", number)].map(|(n, b)| t.member(n, 0, b));
    let union = |t: &mut Tree, members: &[NodeId]| {
        let id = t.compound(tag::UNION, "u", 8, members);
        t.text(id)
    };
    assert_eq!(union(&mut t, &[l]), "u{8,8;0:int:8*1/8:;}");
    assert_eq!(union(&mut t, &[p, q]), "u{8,8;0:ptr:8*1/8:void;}");
    let refused = format!("u{{8,8;0:refused:8*1/8:{};}}", refusal::UNION);
    assert_eq!(union(&mut t, &[l, p]), refused);
    // Notes in the union itself, as an array without elements (C) or a static member (C++).
    let none = t.array(char, 0, &[0]);
    let note = t.member("vernal_active_p", 0, none);
    assert_eq!(union(&mut t, &[l, p, note]), "u{8,8;0:ptr:8*1/8:char;}");
    let note = t.member("vernal_active_p", 0, char);
    t.dies[note - 1].flags.is_static = true;
    assert_eq!(union(&mut t, &[l, p, note]), "u{8,8;0:ptr:8*1/8:char;}");
    let opaque = t.compound(tag::UNION, "u", 8, &[l, p]);
    t.dies[opaque - 1].notes = vec!["vernal:opaque".into()];
    assert_eq!(t.text(opaque), "u{8,8;0:bytes:8*1/8:;}");
    // A member that happens to have such a name, but has a place, is a member.
    let named = t.member("vernal_opaque_p", 0, text);
    assert_eq!(union(&mut t, &[named]), "u{8,8;0:ptr:8*1/8:char;}");
}

#[test]
fn integers_that_hide_pointers_need_a_note() {
    let mut t = Tree::default();
    let long = t.base("unsigned long", 8, 7);
    let hiding = t.derived(tag::TYPEDEF, "uintptr_t", long);
    let mine = t.derived(tag::TYPEDEF, "link_t", hiding);
    let m = t.member("link", 0, mine);
    let s = t.compound(tag::STRUCTURE, "s", 8, &[m]);
    let refused = format!("s{{8,8;0:refused:8*1/8:{};}}", refusal::TAGGED);
    assert_eq!(t.text(s), refused);
    t.dies[m - 1].notes = vec!["vernal:tagged".into()];
    assert_eq!(t.text(s), "s{8,8;0:ptr:8*1/8:void;}");
    t.dies[m - 1].notes = vec!["vernal:opaque".into()];
    assert_eq!(t.text(s), "s{8,8;0:bytes:8*1/8:;}");
}

#[test]
fn enums_have_the_values_of_their_bits() {
    let mut t = Tree::default();
    let mut range = |values: &[i128], class: bool| {
        let elements: Vec<NodeId> = values
            .iter()
            .map(|&value| {
                t.add(Die {
                    tag: tag::ENUMERATOR,
                    value,
                    ..Die::default()
                })
            })
            .collect();
        let e = t.compound(tag::ENUMERATION, "e", 4, &elements);
        t.dies[e - 1].flags.enum_class = class;
        let d = t.describe(e).desc;
        let field = &d.fields()[0];
        (field.kind == FieldKind::Enum).then(|| field.enum_range())
    };
    assert_eq!(range(&[0, 1, 5], false), Some((0, 7)));
    assert_eq!(range(&[-3, 2], false), Some((-4, 3)));
    assert_eq!(range(&[-1], false), Some((-1, 0)));
    assert_eq!(range(&[0], false), Some((0, 0)));
    assert_eq!(range(&[0x7fff_ffff], false), Some((0, i32::MAX)));
    assert_eq!(range(&[0xffff_ffff], false), None);
    assert_eq!(range(&[0, 1], true), None);
    assert_eq!(range(&[], false), None);
}

#[test]
fn the_buffers_of_libstdcxx_hold_what_their_argument_says() {
    let mut t = Tree::default();
    let char = t.base("char", 1, SIGNED);
    let pointer = t.derived(tag::POINTER, "", char);
    let argument = t.derived(tag::TEMPLATE_TYPE, "_Tp", pointer);
    let bytes = t.array(char, 8, &[8]);
    let m = t.member("_M_storage", 0, bytes);
    let gnu = t.compound(tag::NAMESPACE, "__gnu_cxx", 0, &[]);
    let buffer = t.compound(tag::STRUCTURE, "__aligned_membuf<char *>", 8, &[m]);
    t.dies[m - 1].align = 64;
    t.dies[buffer - 1].params = vec![argument];
    t.dies[buffer - 1].scope = gnu;
    let value = t.member("value", 0, buffer);
    let node = t.compound(tag::STRUCTURE, "node", 8, &[value]);
    assert_eq!(t.text(node), "node{8,8;0:ptr:8*1/8:char;}");
    // A program's own type of that name is what it says it is.
    t.dies[buffer - 1].scope = 0;
    assert!(t.text(node).contains("bytes:8"));
}

/// `struct B { virtual…; }`, `struct V { long x; }`, `struct D : B, virtual V {}`.
fn virtual_tree(view: Option<VtableView>) -> (Tree, NodeId) {
    let mut t = Tree::default();
    let long = t.base("long", 8, SIGNED);
    let vptr = t.vptr("B", 0);
    let b = t.compound(tag::STRUCTURE, "B", 8, &[vptr]);
    let x = t.member("x", 0, long);
    let v = t.compound(tag::STRUCTURE, "V", 8, &[x]);
    let from_b = t.inherit(b, 0);
    let from_v = t.inherit(v, 0);
    t.dies[from_v - 1].flags.is_virtual = true;
    // The vtable says 24 bytes in front of its address point where V is.
    t.dies[from_v - 1].offset = 24;
    let d = t.compound(tag::STRUCTURE, "D", 16, &[from_b, from_v]);
    t.dies[d - 1].identifier = "_ZTS1D".into();
    if let Some(view) = view {
        t.groups.push(("_ZTV1D".into(), "D".into(), view));
    }
    (t, d)
}

#[test]
fn virtual_bases_lie_where_the_vtable_says() {
    use Slot::{Code, Number, TypeInfo};
    let table = vec![Number(8), Number(0), TypeInfo, Code];
    let (t, d) = virtual_tree(Some(VtableView::Defined(vec![table])));
    let found = t.describe(d);
    let names: Vec<_> = found.desc.fields().iter().map(|f| &f.name).collect();
    assert_eq!(names, ["B::_vptr$B", "B", "V::x", "V"]);
    assert_eq!(found.desc.fields()[2].offset, 8);
    let bound = Bound {
        symbol: "_ZTV1D".into(),
        offset: 24,
    };
    assert_eq!(found.bound, [bound]);
    assert!(found.text().contains("address point _ZTV1D+24"));
    for view in [
        None,
        Some(VtableView::Declared(vec![4])),
        Some(VtableView::Defined(vec![vec![Number(0), TypeInfo]])),
        Some(VtableView::Defined(vec![vec![]])),
    ] {
        let (t, d) = virtual_tree(view);
        let why = t.describe(d).desc.refused().map(|f| f.target.clone());
        assert_eq!(why.as_deref(), Some(NO_VIRTUAL_BASE));
    }
}

#[test]
fn address_points_of_several_bases() {
    use Slot::{Code, Number, TypeInfo};
    let mut t = Tree::default();
    let bases = ["A", "B"].map(|name| {
        let vptr = t.vptr(name, 0);
        t.compound(tag::CLASS, name, 8, &[vptr])
    });
    let (a, b) = (t.inherit(bases[0], 0), t.inherit(bases[1], 8));
    let d = t.compound(tag::CLASS, "D", 16, &[a, b]);
    let offsets = |t: &Tree| {
        let d = t.describe(d);
        d.bound.iter().map(|b| b.offset).collect::<Vec<_>>()
    };
    // Not mentioned: the first is always behind two words; the second depends on how long the first table is.
    assert_eq!(offsets(&t), [16]);
    assert_eq!(
        t.describe(d).desc.refused().map(|f| f.target.as_str()),
        Some(NO_VTABLE)
    );
    t.groups.push((
        "_ZTV1D".into(),
        "D".into(),
        VtableView::Declared(vec![5, 3]),
    ));
    assert_eq!(offsets(&t), [16, 56]);
    let first = vec![Number(0), TypeInfo, Code, Code];
    let tables = vec![first, vec![Number(-8), TypeInfo, Code]];
    t.groups[0].2 = VtableView::Defined(tables);
    assert_eq!(offsets(&t), [16, 48]);
    // Without type information.
    let first = vec![Number(0), Number(0), Code];
    let tables = vec![first, vec![Number(-8), Number(0), Code]];
    t.groups[0].2 = VtableView::Defined(tables);
    assert_eq!(offsets(&t), [16, 40]);
    // In an array, all elements share the address points.
    let two = t.array(d, 32, &[2]);
    let d = t.describe(two);
    assert_eq!(d.bound.len(), 2);
    assert!(d.desc.fields().iter().all(|f| f.count == 2));
    assert!(
        d.desc
            .fields()
            .iter()
            .any(|f| f.kind == FieldKind::Vtable && f.target == "D")
    );
}

#[test]
fn bit_fields_are_the_bytes_that_hold_them() {
    let mut t = Tree::default();
    let int = t.base("unsigned int", 4, 7);
    let mut bits = |name: &str, at: u64, size: u64| {
        let id = t.member(name, 0, int);
        t.dies[id - 1].offset = at;
        t.dies[id - 1].size = size;
        t.dies[id - 1].flags.bit_field = true;
        id
    };
    let all = [bits("a", 0, 3), bits("b", 3, 9), bits("c", 16, 8)];
    let s = t.compound(tag::STRUCTURE, "s", 4, &all);
    assert_eq!(t.text(s), "s{4,4;0:int:2*1/2:;2:int:1*1/1:;}");
    assert_eq!(t.describe(s).desc.fields()[0].name, "a,b");
}

#[test]
fn floats_and_odd_sizes() {
    let mut t = Tree::default();
    let double = t.base("double", 8, ate::FLOAT);
    assert_eq!(t.text(double), "double{8,8;0:float:8*1/8:;}");
    let complex = t.base("_Complex float", 8, ate::COMPLEX_FLOAT);
    assert_eq!(t.text(complex), "_Complex float{8,8;0:float:4*2/4:;}");
    let bool = t.base("_Bool", 1, ate::BOOLEAN);
    assert_eq!(t.text(bool), "bool{1,1;0:bool:1*1/1:;}");
    let wide = t.base("_BitInt(200)", 32, SIGNED);
    assert!(t.text(wide).ends_with("0:bytes:32*1/32:;}"));
}

#[test]
fn the_json_can_be_read() {
    let mut t = Tree::default();
    let int = t.base("a \"quoted\" \\ name", 4, SIGNED);
    assert_eq!(
        t.describe(int).json(),
        r#"{"type":"a \"quoted\" \\ name","id":"ID","size":4,"align":4,"fields":[{"name":"*","offset":0,"kind":"int","size":4,"count":1,"stride":4,"flex":false,"annotated":false,"target":""}],"bound":[]}"#
            .replace("ID", &format!("{:016x}", t.describe(int).desc.id()))
    );
}

/// Debug information in which everything may refer to everything: a descriptor or an error comes out, in time.
#[test]
fn nonsense_ends() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let tags = [
        tag::ARRAY,
        tag::CLASS,
        tag::STRUCTURE,
        tag::UNION,
        tag::MEMBER,
        tag::INHERITANCE,
        tag::POINTER,
        tag::TYPEDEF,
        tag::BASE,
        tag::SUBRANGE,
        tag::SUBROUTINE,
        tag::ENUMERATION,
    ];
    for round in 0..300 {
        let mut t = Tree::default();
        const NODES: u64 = 12;
        for n in 0..NODES {
            let elements = (0..next(3)).map(|_| 1 + next(NODES) as usize).collect();
            t.add(Die {
                tag: tags[next(tags.len() as u64) as usize],
                name: ["", "a", "b", "_vptr$a", "vernal_active_b"][next(5) as usize].into(),
                size: [0, 8, 64, 65, 1 << 20, u64::MAX][next(6) as usize],
                offset: [0, 8, 64, u64::MAX - 1][next(4) as usize],
                align: [0, 8, u32::MAX][next(3) as usize],
                encoding: next(8) as u32,
                flags: DieFlags {
                    is_virtual: next(4) == 0,
                    bit_field: next(6) == 0,
                    artificial: next(2) == 0,
                    ..DieFlags::default()
                },
                // Most refer to later nodes, so that not all is cycles.
                base: if next(5) == 0 {
                    next(NODES + 1)
                } else {
                    (n + 2) % (NODES + 1)
                } as usize,
                scope: next(NODES + 1) as usize,
                elements,
                value: [-1, 0, 3, i128::MAX][next(4) as usize],
                ..Die::default()
            });
        }
        for id in 1..=NODES as usize {
            if let Ok(d) = Describer::new(&t).describe(id) {
                assert!(!d.desc.name().is_empty(), "round {round}, node {id}");
            }
        }
    }
}
