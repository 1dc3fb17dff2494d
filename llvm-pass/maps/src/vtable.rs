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

/// The group's symbol. Clang gives a class the mangled name of its type information only when other modules may have to
/// emit that, too; else the group is found by the class's readable name, if only one fits, or the name is simple enough to
/// be mangled here.
pub(crate) fn symbol_of(
    class: &str,
    identifier: &str,
    candidates: impl FnOnce() -> Vec<(String, String)>,
) -> Option<String> {
    if let Some(mangled) = identifier.strip_prefix("_ZTS") {
        return Some(format!("_ZTV{mangled}"));
    }
    mentioned(class, candidates()).or_else(|| Some(format!("_ZTV{}", mangled(class)?)))
}

/// The mangled name of a class that is no template, neither in a function nor in an anonymous namespace.
fn mangled(class: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let parts: Vec<&str> = class.split("::").collect();
    if !parts.iter().all(|p| !p.is_empty() && p.chars().all(plain)) {
        return None;
    }
    let coded = parts.iter().enumerate().map(|(i, p)| match (i, *p) {
        (0, "std") if parts.len() > 1 => "St".to_owned(),
        (_, p) => format!("{}{p}", p.len()),
    });
    let text: String = coded.collect();
    let nested = parts.len() > 2 || (parts.len() == 2 && parts.first() != Some(&"std"));
    Some(if nested { format!("N{text}E") } else { text })
}

fn mentioned(class: &str, candidates: Vec<(String, String)>) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::{comparable, mangled, symbol_of};

    #[test]
    fn simple_names_are_mangled() {
        for (class, want) in [
            ("far_base", Some("8far_base")),
            ("outer::v1::deep", Some("N5outer2v14deepE")),
            ("std::exception", Some("St9exception")),
            (
                "std::pmr::memory_resource",
                Some("NSt3pmr15memory_resourceE"),
            ),
            ("std", Some("3std")),
            ("box<int>", None),
            ("(anonymous namespace)::x", None),
            ("f()::x", None),
        ] {
            assert_eq!(mangled(class).as_deref(), want, "{class}");
        }
    }

    #[test]
    fn groups_are_found_by_name() {
        let known = |names: &[&str]| {
            names
                .iter()
                .enumerate()
                .map(|(i, n)| (format!("_ZTV{i}"), (*n).to_owned()))
                .collect::<Vec<_>>()
        };
        let find = |class: &str, names: &[&str]| symbol_of(class, "", || known(names));
        let names = ["b<int, a<int>>", "(anonymous namespace)::c", "f(int)::d"];
        assert_eq!(find("b<int, a<int> >", &names).as_deref(), Some("_ZTV0"));
        assert_eq!(
            find("(anonymous namespace)::c", &names).as_deref(),
            Some("_ZTV1")
        );
        assert_eq!(find("f()::d", &names).as_deref(), Some("_ZTV2"));
        // Two functions called f: which of them is unknown.
        assert_eq!(find("f()::d", &["f(int)::d", "f(char)::d"]), None);
        assert_eq!(
            symbol_of("x", "_ZTS1x", Vec::new).as_deref(),
            Some("_ZTV1x")
        );
        assert_ne!(comparable("(anonymous namespace)::c"), comparable("c"));
    }
}
