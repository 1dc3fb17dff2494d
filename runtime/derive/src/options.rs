//! The attributes that matter: `#[repr(...)]` and `#[persist(...)]`.

use proc_macro2::Ident;
use syn::punctuated::Punctuated;
use syn::{DeriveInput, LitStr, Meta, Result, Token};

/// Integers that an enum can be represented as.
const INTEGERS: &[&str] = &[
    "u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize",
];

/// What the attributes of a type say.
#[derive(Default)]
pub struct Options {
    /// `#[persist(name = "...")]`
    pub name: Option<LitStr>,
    /// `repr(C)` or `repr(transparent)`.
    pub fixed_layout: bool,
    /// The integer of an enum.
    pub integer: Option<Ident>,
    /// `repr(packed)`.
    pub packed: Option<Ident>,
}

impl Options {
    /// Reads them.
    pub fn of(input: &DeriveInput) -> Result<Self> {
        let mut options = Self::default();
        for attribute in &input.attrs {
            if attribute.path().is_ident("persist") {
                attribute.parse_nested_meta(|meta| {
                    if !meta.path.is_ident("name") {
                        return Err(meta.error("the only option is `name = \"...\"`"));
                    }
                    let name: LitStr = meta.value()?.parse()?;
                    if name.value().is_empty() || name.value().chars().any(char::is_control) {
                        return Err(syn::Error::new(
                            name.span(),
                            "a type's name is printable text and not empty",
                        ));
                    }
                    options.name = Some(name);
                    Ok(())
                })?;
            } else if attribute.path().is_ident("repr") {
                let items =
                    attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?;
                for item in items {
                    let Some(word) = item.path().get_ident() else {
                        continue;
                    };
                    let text = word.to_string();
                    match text.as_str() {
                        "C" | "transparent" => options.fixed_layout = true,
                        "packed" => options.packed = Some(word.clone()),
                        _ if INTEGERS.contains(&text.as_str()) => {
                            options.integer = Some(word.clone())
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(options)
    }
}
