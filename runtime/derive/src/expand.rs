//! The generated implementation.

use crate::fields;
use crate::options::Options;
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Data, DataEnum, DataStruct, DeriveInput, Error, Fields, GenericParam, Lifetime, Result,
    TypeParamBound,
};

/// The implementation of `Persist` for `input`.
pub fn persist(input: &DeriveInput) -> Result<TokenStream> {
    let options = Options::of(input)?;
    let body = match &input.data {
        Data::Struct(data) => structure(input, &options, data)?,
        Data::Enum(data) => enumeration(input, &options, data)?,
        Data::Union(_) => {
            return Err(Error::new_spanned(
                &input.ident,
                "a union does not say which of its fields is there: it cannot be persistent",
            ));
        }
    };
    let parts = Generics::of(input)?;
    let name = name(input, &options);
    let descriptor = parts.descriptor();
    let (bounded, arguments, elsewhere) = (&parts.bounded, &parts.arguments, &parts.elsewhere);
    let ident = &input.ident;
    Ok(quote! {
        // SAFETY: generated from the type's definition: the shape has each field at its offset, every field is
        // persistent itself, and the layout does not depend on the brand.
        #[automatically_derived]
        unsafe impl<#bounded> ::vernal::Persist for #ident<#arguments> {
            type At<'__brand> = #ident<#elsewhere>;

            fn name() -> ::std::string::String {
                #name
            }

            #body

            #descriptor
        }
    })
}

const BOUNDS: &str = "the parameters of a persistent type have no bounds but `Persist`: put this one on the functions that need it";

/// The generic parameters in the forms that the implementation needs.
struct Generics {
    /// With bounds, after `impl`.
    bounded: TokenStream,
    /// As arguments of the type.
    arguments: TokenStream,
    /// As arguments of the type with another brand.
    elsewhere: TokenStream,
    /// Whether there are parameters other than the brand.
    depends: bool,
}

impl Generics {
    fn of(input: &DeriveInput) -> Result<Self> {
        let mut parts = Self {
            bounded: TokenStream::new(),
            arguments: TokenStream::new(),
            elsewhere: TokenStream::new(),
            depends: false,
        };
        let mut brands = 0;
        if let Some(clause) = &input.generics.where_clause {
            return Err(Error::new_spanned(clause, BOUNDS));
        }
        for param in &input.generics.params {
            match param {
                GenericParam::Lifetime(brand) => {
                    brands += 1;
                    if brands > 1 {
                        return Err(Error::new_spanned(
                            brand,
                            "a persistent type has one lifetime, the brand of its pool's transactions",
                        ));
                    }
                    let here = &brand.lifetime;
                    let other = Lifetime::new("'__brand", Span::call_site());
                    parts.bounded.extend(quote!(#here,));
                    parts.arguments.extend(quote!(#here,));
                    parts.elsewhere.extend(quote!(#other,));
                }
                GenericParam::Type(ty) => {
                    parts.depends = true;
                    let ident = &ty.ident;
                    let persist = |bound: &TypeParamBound| match bound {
                        TypeParamBound::Trait(t) => {
                            t.path.segments.last().is_some_and(|s| s.ident == "Persist")
                        }
                        _ => false,
                    };
                    if let Some(other) = ty.bounds.iter().find(|b| !persist(b)) {
                        return Err(Error::new_spanned(other, BOUNDS));
                    }
                    parts.bounded.extend(quote!(#ident: ::vernal::Persist,));
                    parts.arguments.extend(quote!(#ident,));
                    parts
                        .elsewhere
                        .extend(quote!(<#ident as ::vernal::Persist>::At<'__brand>,));
                }
                GenericParam::Const(constant) => {
                    parts.depends = true;
                    let (ident, ty) = (&constant.ident, &constant.ty);
                    parts.bounded.extend(quote!(const #ident: #ty,));
                    parts.arguments.extend(quote!(#ident,));
                    parts.elsewhere.extend(quote!(#ident,));
                }
            }
        }
        Ok(parts)
    }

    /// A static for a type without parameters; types with some use the registry, as a static is one for all of them.
    fn descriptor(&self) -> TokenStream {
        if self.depends {
            return TokenStream::new();
        }
        quote! {
            fn descriptor() -> &'static ::vernal::layout::Descriptor {
                static DESCRIPTOR: ::std::sync::OnceLock<::vernal::layout::Descriptor> =
                    ::std::sync::OnceLock::new();
                DESCRIPTOR.get_or_init(::vernal::layout::Descriptor::of::<Self>)
            }
        }
    }
}

/// The expression for the type's name in the pool.
fn name(input: &DeriveInput, options: &Options) -> TokenStream {
    let ident = input.ident.to_string();
    let base = match &options.name {
        Some(name) => quote!(::std::string::String::from(#name)),
        None => quote! {
            ::std::string::String::from(::std::concat!(::std::module_path!(), "::", #ident))
        },
    };
    let arguments = input
        .generics
        .params
        .iter()
        .filter_map(|param| match param {
            GenericParam::Lifetime(_) => None,
            GenericParam::Type(ty) => {
                let ident = &ty.ident;
                Some(quote!(<#ident as ::vernal::Persist>::name()))
            }
            GenericParam::Const(constant) => {
                let ident = &constant.ident;
                Some(quote!(::std::string::ToString::to_string(&#ident)))
            }
        });
    let arguments: Vec<_> = arguments.collect();
    if arguments.is_empty() {
        return base;
    }
    quote!(::vernal::layout::generic_name(#base, &[#(#arguments),*]))
}

fn structure(input: &DeriveInput, options: &Options, data: &DataStruct) -> Result<TokenStream> {
    if let Some(packed) = &options.packed {
        return Err(Error::new_spanned(
            packed,
            "a packed struct holds unaligned pointers: it cannot be persistent",
        ));
    }
    if !options.fixed_layout {
        return Err(Error::new_spanned(
            &input.ident,
            "a persistent struct needs `#[repr(C)]`: without it another compiler may lay out its fields differently",
        ));
    }
    if matches!(data.fields, Fields::Unit) || data.fields.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "a struct without fields has nothing to persist",
        ));
    }
    let (mut members, mut collects) = (Vec::new(), Vec::new());
    let (mut demands, mut valid, mut types) = (Vec::new(), Vec::new(), Vec::new());
    let mut errors: Option<Error> = None;
    for (index, field) in data.fields.iter().enumerate() {
        if let Err(e) = fields::check(&field.ty) {
            match &mut errors {
                Some(all) => all.combine(e),
                None => errors = Some(e),
            }
            continue;
        }
        let ty = &field.ty;
        let place = match &field.ident {
            Some(ident) => quote!(#ident),
            None => {
                let index = syn::Index::from(index);
                quote!(#index)
            }
        };
        let text = place.to_string().trim_start_matches("r#").to_owned();
        members.push(quote_spanned! {ty.span()=>
            ::vernal::layout::member::<#ty>(#text, ::std::mem::offset_of!(Self, #place))
        });
        collects.push(quote_spanned! {ty.span()=> <#ty as ::vernal::Persist>::collect(types); });
        demands.push(quote_spanned! {ty.span()=>
            <#ty as ::vernal::Persist>::demand(at + ::std::mem::offset_of!(Self, #place) as u64, demands);
        });
        valid.push(quote_spanned! {ty.span()=>
            ::vernal::layout::is_valid_field::<#ty>(bytes, ::std::mem::offset_of!(Self, #place))
        });
        types.push(ty);
    }
    if let Some(errors) = errors {
        return Err(errors);
    }
    Ok(quote! {
        fn shape() -> ::vernal::layout::Shape {
            ::vernal::layout::record::<Self>(::std::vec![#(#members),*])
        }

        fn collect(types: &mut ::vernal::layout::Collector) {
            if types.enter::<Self>() {
                #(#collects)*
            }
        }

        fn demand(at: u64, demands: &mut ::vernal::layout::Demands) {
            #(#demands)*
        }

        const PLAIN: bool = true #(&& <#types as ::vernal::Persist>::PLAIN)*;
        // As many bytes as its fields have together.
        const DENSE: bool = 0 #(+ ::std::mem::size_of::<#types>())* == ::std::mem::size_of::<Self>()
            #(&& <#types as ::vernal::Persist>::DENSE)*;

        fn is_valid(bytes: &[u8]) -> bool {
            bytes.len() == ::std::mem::size_of::<Self>() #(&& #valid)*
        }
    })
}

fn enumeration(input: &DeriveInput, options: &Options, data: &DataEnum) -> Result<TokenStream> {
    if let Some(variant) = data.variants.iter().find(|v| !v.fields.is_empty()) {
        return Err(Error::new_spanned(
            variant,
            "an enum whose variants hold data hides which pointers are there: use a struct with an `Option<PBox<'p, T>>` \
             for each variant and an enum without data",
        ));
    }
    if options.integer.is_none() {
        return Err(Error::new_spanned(
            &input.ident,
            "a persistent enum needs an integer, as in `#[repr(u8)]`: without it the values may change with the compiler",
        ));
    }
    if data.variants.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "an enum without variants has no values to persist",
        ));
    }
    let variants = data.variants.iter().map(|v| &v.ident);
    let values = quote!(&[#(Self::#variants as i128),*]);
    Ok(quote! {
        fn shape() -> ::vernal::layout::Shape {
            ::vernal::layout::enumeration::<Self>(#values)
        }

        fn collect(types: &mut ::vernal::layout::Collector) {
            types.enter::<Self>();
        }

        fn demand(at: u64, demands: &mut ::vernal::layout::Demands) {
            demands.one_of::<Self>(at, #values);
        }

        const PLAIN: bool = true;
        const DENSE: bool = true;

        fn is_valid(bytes: &[u8]) -> bool {
            bytes.len() == ::std::mem::size_of::<Self>() && ::vernal::layout::is_listed(bytes, #values)
        }
    })
}
