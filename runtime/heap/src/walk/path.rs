//! How a walk came to an object, as text: `root.next[3].child`.

use super::graph::Entry;
use crate::ObjectSpace;
use std::fmt::Write;
use vernal_format::types::TypeDesc;

/// Steps that are written out at each end of a long path.
const SHOWN: usize = 12;

/// Steps that are followed back: a path to each of many faults must not take longer than the walk.
const LONGEST: u64 = 1 << 20;

/// The way to the object that is being visited.
#[derive(Debug, Clone, Copy)]
pub struct Trail<'a> {
    entries: &'a [Entry],
    index: usize,
}

impl<'a> Trail<'a> {
    pub(super) fn new(entries: &'a [Entry], index: usize) -> Trail<'a> {
        Trail { entries, index }
    }

    /// The path from the root, fields by name: `root.next[3].child`. Steps that repeat are counted, and the middle of a
    /// long path is left out. `None` for a walk that keeps no trails.
    pub fn path<S: ObjectSpace + ?Sized>(&self, space: &S) -> Option<String> {
        // Names are made at the end: most of a long path is one field again and again.
        let mut steps: Vec<((u32, u64), u64)> = Vec::new();
        let mut index = self.index;
        let mut entry = self.entries.get(index)?;
        let mut walked = 0;
        while entry.parent != index && walked < LONGEST {
            let parent = self.entries.get(entry.parent)?;
            let step = (parent.object.type_index, entry.at);
            match steps.last_mut() {
                Some((last, count)) if *last == step => *count += 1,
                _ => steps.push((step, 1)),
            }
            index = entry.parent;
            entry = parent;
            walked += 1;
        }
        steps.reverse();
        let mut text = if walked < LONGEST { "root" } else { "root …" }.to_string();
        for (at, ((type_index, byte), count)) in steps.iter().enumerate() {
            if at == SHOWN && steps.len() > 2 * SHOWN {
                let _ = write!(text, " … {} steps … ", steps.len() - 2 * SHOWN);
            }
            if at >= SHOWN && at + SHOWN < steps.len() {
                continue;
            }
            let name = place_name(space.type_desc(*type_index), *byte);
            text = join(&text, &name);
            if *count > 1 {
                let _ = write!(text, "{{{count} times}}");
            }
        }
        Some(text)
    }
}

/// The name of the field at byte `at` of an object: `slot[3].key`, or `[7].next` in an array of objects.
pub(super) fn place_name(desc: Option<&TypeDesc>, at: u64) -> String {
    let Some(desc) = desc else {
        return format!("[+{at}]");
    };
    let (element, inside) = match desc.size() {
        size if size > 0 && !desc.is_flexible() => (at / size, at % size),
        _ => (0, at),
    };
    let named = desc.fields().iter().find_map(|f| {
        let distance = inside.checked_sub(f.offset)?;
        let stride = u64::from(f.stride.max(1));
        let index = distance / stride;
        let hit = f.kind.is_address()
            && distance % stride == 0
            && (f.is_flex() || index < u64::from(f.count));
        hit.then(|| f.element_name(index))
    });
    let name = named.unwrap_or_else(|| format!("+{inside}"));
    // The only field of a type that is one value, an array of pointers say, has no name of its own.
    let name = if name == "*" { String::new() } else { name };
    match (element, name.as_str()) {
        (0, "") => "[0]".to_string(),
        (0, _) => name,
        (_, "") => format!("[{element}]"),
        _ => format!("[{element}].{name}"),
    }
}

/// A path and one more step.
pub(super) fn join(path: &str, step: &str) -> String {
    let dot = if step.starts_with('[') { "" } else { "." };
    format!("{path}{dot}{step}")
}
