//! The types of the receiver, in the form that a peer's graph is compared with.

use std::collections::HashMap;

use super::shape::{Bound, Demand, Rule, Scalar, Target, Values, bounds_of, distrusted, scalar};
use crate::walk::plan::Plan;
use vernal_format::types::{FieldKind, TypeDesc};

/// What a receiver knows of a type.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub desc: TypeDesc,
    pub plan: Plan,
    /// Pointers and values of one element, when those are few.
    pub few: Option<Few>,
    /// By field of the descriptor.
    pub rules: Box<[Rule]>,
    /// Fields that not every value fits.
    pub values: Box<[Values]>,
    /// Whether an element of zeros is none.
    pub zero_is_none: bool,
    /// Whether one of its pointers is never null.
    pub never_null: bool,
    /// Any bytes are a value, and there are no pointers.
    pub plain: bool,
    /// Why its objects are not taken from a peer.
    pub refused: Option<(String, String)>,
}

/// The types that a receiver knows, compiled once. What a peer says of a type counts only as far as it is the same.
#[derive(Debug, Clone, Default)]
pub struct KnownTypes {
    pub(super) types: Vec<Known>,
    by_id: HashMap<u64, u32>,
}

impl KnownTypes {
    /// Compiles these types. Of two with the same id the first counts.
    pub fn new<'a>(types: impl IntoIterator<Item = &'a TypeDesc>) -> KnownTypes {
        let mut known = KnownTypes::default();
        for desc in types {
            if !known.by_id.contains_key(&desc.id()) {
                known.by_id.insert(desc.id(), known.types.len() as u32);
                known.types.push(Known::bare(desc.clone()));
            }
        }
        let mut by_name: HashMap<String, Vec<u32>> = HashMap::new();
        for (slot, k) in known.types.iter().enumerate() {
            let slots = by_name.entry(k.desc.name().to_owned()).or_default();
            slots.push(slot as u32);
        }
        for slot in 0..known.types.len() {
            let Some(desc) = known.types.get(slot).map(|k| k.desc.clone()) else {
                continue;
            };
            let rules = known.rules(&desc, &by_name);
            if let Some(k) = known.types.get_mut(slot) {
                k.few = few(&k.plan, &desc, &rules, &k.values);
                k.rules = rules;
            }
        }
        known
    }

    /// Demands more of a type, if it is known.
    pub fn require(&mut self, id: u64, demands: &[Demand]) {
        let target = |id| self.by_id.get(&id).copied();
        let Some(known) = target(id).and_then(|s| self.types.get_mut(s as usize)) else {
            return;
        };
        let mut values = known.values.to_vec();
        for demand in demands {
            let (at, size) = match demand {
                Demand::NotNull { offset } | Demand::Target { offset, .. } => (*offset, 8),
                Demand::OneOf { offset, size, .. } => (*offset, *size),
            };
            let fields = known.desc.fields().iter().enumerate();
            // An array has one demand for each element; they are all the same.
            let covers = |f: &vernal_format::types::Field| {
                let distance = at.wrapping_sub(f.offset);
                let stride = u64::from(f.stride).max(1);
                at >= f.offset
                    && distance.is_multiple_of(stride)
                    && (f.is_flex() || distance / stride < f.count.into())
                    && f.elem_size == size
            };
            for (index, field) in fields.filter(|(_, f)| covers(f)) {
                match demand {
                    Demand::NotNull { .. } if field.kind == FieldKind::Pointer => {
                        known.never_null = true;
                        if let Some(rule) = known.rules.get_mut(index) {
                            rule.never_null = true;
                        }
                    }
                    Demand::Target { id, .. } if field.kind == FieldKind::Pointer => {
                        let slot = self.by_id.get(id).copied();
                        let rule = known.rules.get_mut(index);
                        let led = slot
                            .zip(rule)
                            .is_some_and(|(slot, rule)| rule.lead_to(slot));
                        if !led {
                            let cause = "what it points to is unknown here, or has two layouts";
                            known.refused = Some((field.name.clone(), cause.to_owned()));
                        }
                    }
                    Demand::OneOf { values: list, .. }
                        if matches!(field.kind, FieldKind::Integer | FieldKind::Enum) =>
                    {
                        let mut list = list.clone();
                        // Two types that are described alike: what both take.
                        let same = |v: &Values| v.field == index as u32;
                        for v in values.iter().filter(|v| same(v)) {
                            list.retain(|n| v.takes(*n));
                        }
                        values.retain(|v: &Values| !same(v));
                        values.push(Values::one_of((index, field), &list));
                    }
                    _ => {}
                }
            }
        }
        known.zero_is_none = known.never_null || values.iter().any(|v| !v.takes(0));
        known.plain &= values.is_empty();
        known.values = values.into();
        known.few = few(&known.plan, &known.desc, &known.rules, &known.values);
    }

    /// How many types.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// The place of the type with this id.
    pub fn slot(&self, id: u64) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The descriptor at a place.
    pub fn desc(&self, slot: u32) -> Option<&TypeDesc> {
        self.types.get(slot as usize).map(|k| &k.desc)
    }

    /// The place of the type that a peer describes so. Ids are short hashes, which can be forged: the layouts are compared.
    pub fn resolve(&self, theirs: &TypeDesc) -> Option<u32> {
        let slot = self.slot(theirs.id())?;
        same_layout(self.desc(slot)?, theirs).then_some(slot)
    }

    fn rules(&self, desc: &TypeDesc, by_name: &HashMap<String, Vec<u32>>) -> Box<[Rule]> {
        let bounds = bounds_of(desc);
        let rule = |(at, f): (usize, &vernal_format::types::Field)| {
            if f.kind != FieldKind::Pointer {
                return Rule::default();
            }
            let bound = bounds.get(&at).cloned().unwrap_or(Bound::One);
            let named = by_name.get(&f.target).map_or(&[][..], Vec::as_slice);
            let by_id = (f.aux != 0).then(|| self.slot(f.aux)).flatten();
            let slot = match (by_id, named) {
                (Some(slot), _) => Some(slot),
                (None, [slot]) => Some(*slot),
                // Two layouts under one name: nobody knows which is meant.
                _ => None,
            };
            // Rust's `char` has four bytes: it is not what C's points to.
            let is_c = |slot: &u32| self.desc(*slot).is_some_and(|d| d.size() == 1);
            let slot = slot.filter(|slot| by_id.is_some() || f.target != "char" || is_c(slot));
            let target = match (slot, scalar(&f.target)) {
                (Some(slot), _) => Target::Type(slot),
                (None, Some(scalar)) => Target::Scalar(scalar),
                (None, None) => Target::Part,
            };
            let bound = match (bound, &target) {
                // C's strings end with a zero byte, and nothing else says where.
                (Bound::One, Target::Scalar(Scalar::Byte)) if f.target == "char" => Bound::Text,
                (bound, _) => bound,
            };
            Rule {
                target,
                exact: slot.unwrap_or(u32::MAX),
                bound,
                never_null: false,
                led: false,
                name: f.target.clone(),
            }
        };
        desc.fields().iter().enumerate().map(rule).collect()
    }
}

impl Known {
    fn bare(desc: TypeDesc) -> Known {
        let values: Box<[Values]> = desc
            .fields()
            .iter()
            .enumerate()
            .filter_map(Values::of)
            .collect();
        let refused = desc
            .refused()
            .map(|f| (f.name.clone(), f.target.clone()))
            .or_else(|| distrusted(&desc));
        let addresses = desc.fields().iter().any(|f| f.kind.is_address());
        Known {
            plan: Plan::of(&desc),
            few: None,
            rules: Box::default(),
            never_null: false,
            zero_is_none: values.iter().any(|v| !v.takes(0)),
            plain: !addresses && values.is_empty() && refused.is_none(),
            values,
            refused,
            desc,
        }
    }
}

/// The words of one element that are looked at, in the form that is fastest to go through.
#[derive(Debug, Clone)]
pub(super) struct Few {
    pub runs: Box<[FewRun]>,
    pub values: Box<[FewValue]>,
}

/// Consecutive words with one rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct FewRun {
    pub first: u32,
    pub count: u32,
    pub rule: u32,
    /// Null needs no second look.
    pub skip_null: bool,
}

/// A value inside one word.
#[derive(Debug, Clone, Copy)]
pub(super) struct FewValue {
    pub word: u32,
    pub shift: u32,
    pub mask: u64,
    pub values: u32,
}

/// Values that are listed one by one.
const FEW_VALUES: u64 = 32;

fn few(plan: &Plan, desc: &TypeDesc, rules: &[Rule], values: &[Values]) -> Option<Few> {
    let element = crate::Object {
        addr: 0,
        size: desc.size(),
        type_index: 0,
    };
    let window = crate::walk::Window {
        start: 0,
        end: desc.size(),
    };
    // Asks whether the pointers are few; which rules they have, the list does not say.
    plan.whole(&element, window)?;
    let mut runs: Vec<FewRun> = Vec::new();
    plan.pointers(&element, window, |word, run| {
        let Some(rule) = rules.get(run.field as usize) else {
            return;
        };
        match runs.last_mut() {
            _ if rule.bound == Bound::Within => {}
            Some(last) if last.rule == run.field && (last.first + last.count) as usize == word => {
                last.count += 1;
            }
            _ => runs.push(FewRun {
                first: word as u32,
                count: 1,
                rule: run.field,
                skip_null: matches!(rule.bound, Bound::One | Bound::Text) && !rule.never_null,
            }),
        }
    });
    let mut list = Vec::new();
    let total: u64 = values.iter().map(|v| v.count).sum();
    if total > FEW_VALUES || values.iter().any(|v| v.flex) {
        return None;
    }
    for (at, v) in values.iter().enumerate() {
        for i in 0..v.count {
            let offset = v.offset + i * v.stride;
            let bits = offset % 8 * 8;
            if v.size == 0 || bits + u64::from(v.size) * 8 > 64 {
                return None;
            }
            list.push(FewValue {
                word: u32::try_from(offset / 8).ok()?,
                shift: bits as u32,
                mask: u64::MAX >> (64 - v.size * 8),
                values: at as u32,
            });
        }
    }
    Some(Few {
        runs: runs.into(),
        values: list.into(),
    })
}

/// Whether two descriptors say the same of every byte. What they call the fields does not matter.
fn same_layout(a: &TypeDesc, b: &TypeDesc) -> bool {
    let head = |d: &TypeDesc| (d.size(), d.align(), d.flags(), d.fields().len());
    let mut fields = a.fields().iter().zip(b.fields());
    head(a) == head(b)
        && a.name() == b.name()
        && fields.all(|(x, y)| {
            let key = |f: &vernal_format::types::Field| {
                (f.offset, f.kind, f.elem_size, f.count, f.stride, f.flags)
            };
            key(x) == key(y) && x.target == y.target
        })
}
