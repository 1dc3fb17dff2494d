//! What a type is called: fully qualified, with template arguments as clang writes them, and nothing in it that another
//! build of the same source would spell differently.

use std::borrow::Cow;

use crate::die::{Die, Fuel, NodeId, Source, tag};

/// Deeper than any type is nested.
const MAX_DEPTH: u32 = 64;

/// The name of a type. Qualifiers do not count; a typedef counts only where it is the one name of a struct, as in C's
/// `typedef struct {…} node;`. Types without any name are called by `unnamed`.
pub fn name_of<S: Source + ?Sized>(
    src: &S,
    ty: NodeId,
    unnamed: &dyn Fn(NodeId) -> String,
) -> String {
    name(src, ty, unnamed, &Fuel::new(), 0)
}

fn name<S: Source + ?Sized>(
    src: &S,
    ty: NodeId,
    unnamed: &dyn Fn(NodeId) -> String,
    fuel: &Fuel,
    depth: u32,
) -> String {
    if ty == 0 {
        return "void".to_owned();
    }
    if depth > MAX_DEPTH || !fuel.burn() {
        return "...".to_owned();
    }
    let die = src.die(ty);
    let of = |id| name(src, id, unnamed, fuel, depth + 1);
    match die.tag {
        tag::TYPEDEF | tag::TEMPLATE_ALIAS => match names_nothing(src, die.base) {
            true => qualified(src, &die, die.name.clone(), depth),
            false => of(die.base),
        },
        tag::CONST | tag::VOLATILE | tag::RESTRICT | tag::ATOMIC | tag::IMMUTABLE => of(die.base),
        tag::POINTER => format!("{}*", of(die.base)),
        tag::REFERENCE => format!("{}&", of(die.base)),
        tag::RVALUE_REFERENCE => format!("{}&&", of(die.base)),
        tag::PTR_TO_MEMBER => format!("{} ::*", of(die.base)),
        tag::SUBROUTINE => signature(&die, &of),
        tag::ARRAY => {
            let mut text = of(die.base);
            for &id in &die.elements {
                let range = src.die(id);
                match range.value {
                    ..0 => text.push_str("[]"),
                    n => text.push_str(&format!("[{n}]")),
                }
            }
            text
        }
        tag::BASE if die.name == "_Bool" => "bool".to_owned(),
        tag::STRUCTURE | tag::CLASS | tag::UNION | tag::ENUMERATION if die.name.is_empty() => {
            qualified(src, &die, unnamed(ty), depth)
        }
        tag::STRUCTURE | tag::CLASS | tag::UNION | tag::ENUMERATION => {
            qualified(src, &die, without_places(&die.name).into_owned(), depth)
        }
        _ => die.name.clone(),
    }
}

/// Whether a type is a struct, union or enum without a name, perhaps qualified.
fn names_nothing<S: Source + ?Sized>(src: &S, ty: NodeId) -> bool {
    let mut at = ty;
    for _ in 0..MAX_DEPTH {
        if at == 0 {
            return false;
        }
        let die = src.die(at);
        match die.tag {
            tag::CONST | tag::VOLATILE | tag::ATOMIC | tag::RESTRICT => at = die.base,
            tag::STRUCTURE | tag::CLASS | tag::UNION | tag::ENUMERATION => {
                return die.name.is_empty();
            }
            _ => return false,
        }
    }
    false
}

/// `int(char*, ...)`.
fn signature(die: &Die, of: &dyn Fn(NodeId) -> String) -> String {
    let mut types = die.elements.iter();
    let returned = types.next().map_or("void".to_owned(), |&t| of(t));
    let taken: Vec<String> = types
        .map(|&t| if t == 0 { "...".to_owned() } else { of(t) })
        .collect();
    format!("{returned}({})", taken.join(", "))
}

/// Puts the names of namespaces, classes and functions in front.
fn qualified<S: Source + ?Sized>(src: &S, die: &Die, own: String, depth: u32) -> String {
    let mut parts = vec![own];
    let mut at = die.scope;
    for _ in depth..MAX_DEPTH {
        if at == 0 {
            break;
        }
        let scope = src.die(at);
        match scope.tag {
            tag::NAMESPACE if scope.name.is_empty() => {
                parts.push("(anonymous namespace)".to_owned())
            }
            tag::NAMESPACE => parts.push(scope.name.clone()),
            tag::STRUCTURE | tag::CLASS | tag::UNION if scope.name.is_empty() => {
                parts.push("(unnamed)".to_owned());
            }
            tag::STRUCTURE | tag::CLASS | tag::UNION => {
                parts.push(without_places(&scope.name).into_owned());
            }
            tag::SUBPROGRAM => parts.push(format!("{}()", without_places(&scope.name))),
            _ => {}
        }
        at = scope.scope;
    }
    parts.reverse();
    parts.join("::")
}

/// Template arguments without names are spelled with file, line and column: `(lambda at a.cc:3:5)`. Those would change
/// with every edit above them, so only what they are stays.
fn without_places(name: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = name;
    while let Some(open) = rest.match_indices('(').map(|(at, _)| at).find(|&at| {
        ["lambda at ", "unnamed ", "anonymous "]
            .iter()
            .any(|w| rest.get(at + 1..).is_some_and(|r| r.starts_with(w)))
    }) {
        let tail = rest.get(open..).unwrap_or_default();
        let Some(close) = tail.find(')') else { break };
        let inside = tail.get(..close).unwrap_or_default();
        let Some(at) = inside.find(" at ") else {
            out.push_str(rest.get(..open + close + 1).unwrap_or_default());
            rest = rest.get(open + close + 1..).unwrap_or_default();
            continue;
        };
        out.push_str(rest.get(..open + at).unwrap_or_default());
        out.push(')');
        rest = tail.get(close + 1..).unwrap_or_default();
    }
    if out.is_empty() {
        return Cow::Borrowed(name);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::without_places;

    #[test]
    fn places_in_the_source_are_no_part_of_a_name() {
        for (name, want) in [
            ("plain<int>", "plain<int>"),
            ("holder<(lambda at a b.cc:3:5)>", "holder<(lambda)>"),
            (
                "pair<(lambda at a.cc:3:5), (unnamed struct at b.cc:1:1)>",
                "pair<(lambda), (unnamed struct)>",
            ),
            (
                "v<(anonymous namespace)::T, (lambda at x:1:1)>",
                "v<(anonymous namespace)::T, (lambda)>",
            ),
            ("odd<(lambda at", "odd<(lambda at"),
        ] {
            assert_eq!(without_places(name), want);
        }
    }
}
