//! Whether every pointer points to what its type says, and every value is one of its type.

use super::graph::{Budget, Edge, Flow, View, Visitor, WalkReport, Walker};
use super::inspect::{enum_value, read_uint};
use super::matching::{Match, pointer_matches};
use super::path::{Trail, join, place_name};
use super::plan::Plans;
use crate::{ObjectSpace, TYPE_FIRST, TYPE_RAW};
use std::collections::HashMap;
use thiserror::Error;
use vernal_format::types::{Field, FieldKind, field_flags};

/// What a program may keep in a pointer that is annotated as tagged.
const TAG_BITS: u64 = 7;

/// What is checked, and how much.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// Limits of the walk from the root.
    pub budget: Budget,
    /// Whether objects that the root does not reach are checked, too. The budget counts for both together.
    pub unreachable: bool,
    /// Whether pointers out of the pool are faults; otherwise they are only counted.
    pub refuse_external: bool,
    /// Faults that are listed.
    pub limit: usize,
}

impl Default for VerifyOptions {
    fn default() -> VerifyOptions {
        VerifyOptions {
            budget: Budget::default(),
            unreachable: true,
            refuse_external: true,
            limit: 1000,
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// Type confusion.
    #[error(
        "points to {value:#x}, where `{found}` begins, but its type is a pointer to `{expected}`"
    )]
    WrongType {
        /// The pointer.
        value: u64,
        /// What its field says.
        expected: String,
        /// Type of the object that it points to.
        found: String,
    },
    /// A pointer into the middle of something.
    #[error("points to {value:#x}, inside a `{found}`, where no `{expected}` begins")]
    Interior {
        /// The pointer.
        value: u64,
        /// What its field says.
        expected: String,
        /// Type of the object that it points into.
        found: String,
    },
    /// A pointer to what is no object.
    #[error(
        "points to {value:#x}, which is free memory or the heap's own: the object was freed, or the pointer is wild"
    )]
    Free {
        /// The pointer.
        value: u64,
    },
    /// A pointer out of the pool.
    #[error("points to {value:#x}, out of the pool")]
    Outside {
        /// The pointer.
        value: u64,
    },
    /// A pointer that the target's type does not allow.
    #[error("points to {value:#x}, which is not aligned to {align} as `{expected}` is")]
    Unaligned {
        /// The pointer.
        value: u64,
        /// What its field says.
        expected: String,
        /// Alignment of that type.
        align: u32,
    },
    /// A bool that is neither.
    #[error("is the bool {value}, neither 0 nor 1")]
    Bool {
        /// Its byte.
        value: u64,
    },
    /// An enum out of its range.
    #[error("is {value}, but `{name}` has the values {min} to {max}")]
    Enum {
        /// Its value.
        value: i64,
        /// The enum.
        name: String,
        /// Least value.
        min: i32,
        /// Greatest value.
        max: i32,
    },
    /// An object too small for its type.
    #[error("has {size} bytes, but a `{name}` needs {needed}")]
    TooSmall {
        /// Bytes of the object.
        size: u64,
        /// The type.
        name: String,
        /// Bytes of the type.
        needed: u64,
    },
    /// A type that is not in the table.
    #[error("has type index {index}, which is not in the pool's type table")]
    UnknownType {
        /// The index.
        index: u32,
    },
    /// A type that cannot be allocated.
    #[error("is a `{name}`, whose field `{field}` is refused: {cause}")]
    RefusedType {
        /// The type.
        name: String,
        /// The field.
        field: String,
        /// Why.
        cause: String,
    },
    /// Memory without type that holds pointers: they would not be relocated.
    #[error(
        "is memory without type, and {count} of its words are addresses of objects: allocate it with its type"
    )]
    UntypedPointers {
        /// How many.
        count: u64,
    },
    /// A type of a peer that the receiver does not have, or has with another layout.
    #[error(
        "is a `{name}`, which is unknown here or laid out otherwise: build both sides from the same definition"
    )]
    ForeignType {
        /// The type.
        name: String,
    },
    /// An object outside the ranges that are sealed.
    #[error("points to {value:#x}, and the {size} bytes there are not all sealed")]
    NotSealed {
        /// The object.
        value: u64,
        /// Its bytes.
        size: u64,
    },
    /// A number that is none of those that its type has.
    #[error("is {value}, which is none of the values that it can have")]
    NotListed {
        /// The number.
        value: u64,
    },
    /// A length or end that does not fit the object.
    #[error("has {len} elements and room for {capacity}, which the object at {value:#x} has not")]
    Length {
        /// The pointer.
        value: u64,
        /// Elements.
        len: u64,
        /// Elements that it should have memory for.
        capacity: u64,
    },
    /// Text that is none.
    #[error("is text at {value:#x} that {why}")]
    Text {
        /// The pointer.
        value: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Null where that is no value.
    #[error("is null, and never is in a `{expected}`")]
    Null {
        /// What its field says.
        expected: String,
    },
    /// The root is no object.
    #[error("is {value:#x}, which is no object")]
    Root {
        /// Its value.
        value: u64,
    },
}

/// One fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path} (at {addr:#x}) {fault}")]
pub struct Problem {
    /// Way from the root: `root.next[3].child`; an object that is not reached is named by its address.
    pub path: String,
    /// Where it lies.
    pub addr: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The first faults, as many as the options allow.
    pub problems: Vec<Problem>,
    /// All faults.
    pub problem_count: u64,
    /// Pointers checked.
    pub pointers: u64,
    /// Pointers out of the pool.
    pub external: u64,
    /// What the walk from the root did.
    pub walk: WalkReport,
    /// Objects that it did not reach, if they were checked.
    pub unreachable: u64,
}

impl VerifyReport {
    /// Whether everything was looked at, and nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0 && !self.walk.exhausted && self.walk.unmapped == 0
    }
}

struct Checker<'a, S: ?Sized> {
    space: &'a S,
    options: VerifyOptions,
    aligns: HashMap<&'a str, u32>,
    report: VerifyReport,
}

impl<'a, S: ObjectSpace + ?Sized> Checker<'a, S> {
    fn new(space: &'a S, options: VerifyOptions) -> Checker<'a, S> {
        let mut aligns = HashMap::new();
        let mut index = TYPE_FIRST;
        while let Some(desc) = space.type_desc(index) {
            aligns.insert(desc.name(), desc.align());
            let Some(next) = index.checked_add(1) else {
                break;
            };
            index = next;
        }
        Checker {
            space,
            options,
            aligns,
            report: VerifyReport::default(),
        }
    }

    fn fault(&mut self, path: impl FnOnce() -> String, addr: u64, fault: Fault) {
        self.report.problem_count += 1;
        if self.report.problems.len() < self.options.limit {
            let path = path();
            self.report.problems.push(Problem { path, addr, fault });
        }
    }

    /// The object itself and its values that are no pointers.
    fn check_object(&mut self, view: &View<'_>, path: &dyn Fn() -> String) {
        let object = view.object;
        let Some(desc) = view.desc else {
            match object.type_index {
                TYPE_RAW => self.check_raw(view, path),
                index if index >= TYPE_FIRST => {
                    self.fault(path, object.addr, Fault::UnknownType { index });
                }
                _ => {}
            }
            return;
        };
        if let Some(field) = desc.refused() {
            let fault = Fault::RefusedType {
                name: desc.name().to_string(),
                field: field.name.clone(),
                cause: field.target.clone(),
            };
            self.fault(path, object.addr, fault);
        }
        if object.size < desc.size() {
            let fault = Fault::TooSmall {
                size: object.size,
                name: desc.name().to_string(),
                needed: desc.size(),
            };
            return self.fault(path, object.addr, fault);
        }
        for field in desc.fields() {
            if matches!(field.kind, FieldKind::Bool | FieldKind::Enum) {
                self.check_values(
                    view,
                    field,
                    desc.size(),
                    desc.elements_in(object.size),
                    path,
                );
            }
        }
    }

    fn check_values(
        &mut self,
        view: &View<'_>,
        field: &Field,
        size: u64,
        elements: u64,
        path: &dyn Fn() -> String,
    ) {
        for element in 0..elements {
            for index in 0..view.count_of(field) {
                let at = element * size + field.offset + index * u64::from(field.stride);
                let raw = read_uint(view.words, at, field.elem_size);
                // Arrays are often larger than what is in use: their rest is zero, whatever zero means.
                let spare = raw == 0 && (element > 0 || field.is_flex());
                let Some(fault) = value_fault(field, raw).filter(|_| !spare) else {
                    continue;
                };
                let place = if element == 0 {
                    field.element_name(index)
                } else {
                    format!("[{element}].{}", field.element_name(index))
                };
                self.fault(|| join(&path(), &place), view.object.addr + at, fault);
            }
        }
    }

    fn check_raw(&mut self, view: &View<'_>, path: &dyn Fn() -> String) {
        let hits = (0..view.words.len())
            .filter(|word| super::scan::looks_like_pointer(self.space, view.word(*word)));
        let count = hits.count() as u64;
        if count > 0 {
            self.fault(path, view.object.addr, Fault::UntypedPointers { count });
        }
    }

    fn check_pointer(
        &mut self,
        view: &View<'_>,
        field: &Field,
        word: usize,
        value: u64,
        path: &dyn Fn() -> String,
    ) {
        self.report.pointers += 1;
        let expected = || field.target.clone();
        let found = || {
            let object = self.space.object_at(value);
            let desc = object.and_then(|o| self.space.type_desc(o.type_index));
            desc.map_or("?".to_string(), |d| d.name().to_string())
        };
        let annotated = field.flags & field_flags::ANNOTATED != 0;
        let mut fit = pointer_matches(self.space, &field.target, field.aux, value);
        let mut value = value;
        if annotated && fit != Match::Fits && fit != Match::Outside {
            // The low bits may be a tag.
            value &= !TAG_BITS;
            fit = pointer_matches(self.space, &field.target, field.aux, value);
        }
        let fault = match fit {
            // The other member of a union.
            Match::Outside if annotated => return,
            Match::Fits => match self.aligns.get(field.target.as_str()) {
                Some(align) if !value.is_multiple_of((*align).into()) => Fault::Unaligned {
                    value,
                    expected: expected(),
                    align: *align,
                },
                _ => return,
            },
            Match::WrongType => Fault::WrongType {
                value,
                expected: expected(),
                found: found(),
            },
            Match::Interior => Fault::Interior {
                value,
                expected: expected(),
                found: found(),
            },
            Match::Free => Fault::Free { value },
            Match::Outside => {
                self.report.external += 1;
                if !self.options.refuse_external {
                    return;
                }
                Fault::Outside { value }
            }
        };
        let at = word as u64 * 8;
        let place = || join(&path(), &place_name(view.desc, at));
        self.fault(place, view.object.addr + at, fault);
    }
}

fn value_fault(field: &Field, raw: u64) -> Option<Fault> {
    if field.kind == FieldKind::Bool {
        return (raw > 1).then_some(Fault::Bool { value: raw });
    }
    let (min, max) = field.enum_range();
    let value = enum_value(raw, field);
    (value < min.into() || value > max.into()).then(|| Fault::Enum {
        value,
        name: field.target.clone(),
        min,
        max,
    })
}

impl<S: ObjectSpace + ?Sized> Visitor for Checker<'_, S> {
    fn object(&mut self, view: &View<'_>, trail: &Trail<'_>) -> Flow {
        let space = self.space;
        self.check_object(view, &|| trail.path(space).unwrap_or_default());
        Flow::Continue
    }

    fn edge(&mut self, edge: &Edge<'_>, trail: &Trail<'_>) -> Flow {
        let space = self.space;
        if let Some(field) = edge.from.field(edge.run) {
            let path = || trail.path(space).unwrap_or_default();
            self.check_pointer(edge.from, field, edge.word, edge.value, &path);
        }
        Flow::Continue
    }
}

/// Checks the graph from the root, with the path to each fault; then every other object, if the options ask for it.
pub fn verify<S: ObjectSpace + ?Sized>(
    space: &S,
    plans: &Plans,
    options: VerifyOptions,
) -> VerifyReport {
    let mut checker = Checker::new(space, options);
    let mut walker = Walker::with_paths(space, plans, options.budget);
    if let Some(root) = space.root() {
        if space.object_at(root).is_none_or(|o| o.addr != root) {
            checker.fault(|| "root".to_string(), root, Fault::Root { value: root });
        }
        checker.report.walk = walker.run(root, &mut checker);
    }
    if options.unreachable && !checker.report.walk.exhausted {
        let seen = walker.into_seen();
        let mut left = options.budget;
        left.objects = left.objects.saturating_sub(checker.report.walk.objects);
        left.bytes = left.bytes.saturating_sub(checker.report.walk.bytes);
        for chunk in 0..space.chunk_count() {
            space.for_each_object(chunk, &mut |object| {
                if seen.contains(object.addr) {
                    return true;
                }
                checker.report.walk.exhausted = left.objects == 0 || left.bytes < object.size;
                if checker.report.walk.exhausted {
                    return false;
                }
                left.objects -= 1;
                left.bytes -= object.size;
                checker.report.unreachable += 1;
                match View::of(space, plans, object) {
                    Some(view) => checker.lone(&view),
                    None => checker.report.walk.unmapped += 1,
                }
                true
            });
            if checker.report.walk.exhausted {
                break;
            }
        }
    }
    checker.report
}

impl<S: ObjectSpace + ?Sized> Checker<'_, S> {
    /// An object that the root does not reach.
    fn lone(&mut self, view: &View<'_>) {
        let path = || {
            let name = view.desc.map_or("object", |d| d.name());
            format!("{name}@{:#x}", view.object.addr)
        };
        self.check_object(view, &path);
        view.plan
            .pointers(&view.object, view.window(), |word, run| {
                let value = view.word(word);
                if let Some(field) = view.field(run).filter(|_| value != 0) {
                    self.check_pointer(view, field, word, value, &path);
                }
            });
    }
}
