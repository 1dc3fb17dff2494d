//! What a vtable pointer must hold, and where virtual bases lie: both are read from the class's group of vtables.
//!
//! A group (`_ZTV…` of the Itanium C++ ABI) is one array of pointers for each vtable pointer of a complete object:
//!
//! ```text
//! … offsets of virtual bases …, offset to the top of the object, type information, functions …
//!                                                                                  ^ address point
//! ```

/// One entry of a vtable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// An offset; a null pointer is 0.
    Number(i64),
    /// The address of the class's type information.
    TypeInfo,
    /// The address of a function.
    Code,
}

/// What a module knows of a group of vtables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VtableView {
    /// It does not mention it.
    Absent,
    /// It declares it: the length of each array.
    Declared(Vec<u64>),
    /// It defines it.
    Defined(Vec<Vec<Slot>>),
}

/// The address of one address point: a symbol and a distance in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bound {
    /// The group's symbol.
    pub symbol: String,
    /// Bytes from it.
    pub offset: u64,
}

const SLOT: u64 = 8;

/// The group of a class that has no name outside its module: found by its readable name, if only one fits.
pub(crate) fn local_symbol(class: &str, candidates: Vec<(String, String)>) -> Option<String> {
    let wanted = comparable(class);
    let mut fitting = candidates
        .into_iter()
        .filter(|(_, name)| comparable(name) == wanted);
    let found = fitting.next()?;
    fitting.next().is_none().then_some(found.0)
}

/// A class's name without what demanglers and debug information spell differently: blanks, parameters of functions.
fn comparable(name: &str) -> String {
    const ANONYMOUS: &str = "(anonymous namespace)";
    let mut out = String::new();
    let mut depth = 0u32;
    for c in name.replace(ANONYMOUS, "{}").chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ' ' => {}
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

/// Index of the address point: behind the type information, or behind the numbers when there is none (`-fno-rtti`
/// leaves a null there).
fn address_point(table: &[Slot]) -> Option<usize> {
    let first = table.iter().position(|s| !matches!(s, Slot::Number(_)));
    let point = match first {
        Some(at) if table.get(at) == Some(&Slot::TypeInfo) => at + 1,
        Some(at) => at,
        None => table.len(),
    };
    (point >= 2).then_some(point)
}

/// Bytes from the start of the complete object to the part whose vtable this is.
fn part_offset(table: &[Slot], point: usize) -> Option<u64> {
    match table.get(point.checked_sub(2)?)? {
        Slot::Number(to_top) => to_top.checked_neg()?.try_into().ok(),
        _ => None,
    }
}

impl VtableView {
    /// The address point of the vtable pointer at `offset` in the complete object, in bytes from the symbol. `parts`: the
    /// offsets of all vtable pointers, ascending; `simple`: the class has no virtual bases, so that every table starts
    /// with nothing but its two words.
    pub(crate) fn point(&self, offset: u64, parts: &[u64], simple: bool) -> Option<u64> {
        const PLAIN_POINT: u64 = 2;
        match self {
            VtableView::Defined(tables) => {
                let mut start = 0u64;
                for table in tables {
                    let point = address_point(table)?;
                    if part_offset(table, point) == Some(offset) {
                        return start.checked_add(point as u64)?.checked_mul(SLOT);
                    }
                    start = start.checked_add(table.len() as u64)?;
                }
                None
            }
            // Tables stand in the order of the parts; without virtual bases that is the order of their offsets.
            VtableView::Declared(lengths) if simple && lengths.len() == parts.len() => {
                let index = parts.iter().position(|&p| p == offset)?;
                let start = lengths
                    .iter()
                    .take(index)
                    .try_fold(0u64, |n, l| n.checked_add(*l))?;
                start.checked_add(PLAIN_POINT)?.checked_mul(SLOT)
            }
            _ if simple && parts.first() == Some(&offset) => Some(PLAIN_POINT * SLOT),
            _ => None,
        }
    }

    /// Where the virtual base lies, from the start of the complete object, that the vtable of the part at `part` knows
    /// `before` bytes in front of its address point.
    pub(crate) fn virtual_base(&self, part: u64, before: u64) -> Option<u64> {
        let VtableView::Defined(tables) = self else {
            return None;
        };
        for table in tables {
            let point = address_point(table)?;
            if part_offset(table, point) != Some(part) {
                continue;
            }
            let index = point.checked_sub(usize::try_from(before / SLOT).ok()?)?;
            let Some(Slot::Number(distance)) = table.get(index) else {
                return None;
            };
            return part.checked_add_signed(*distance);
        }
        None
    }
}
