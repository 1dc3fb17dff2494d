//! Field types that can be seen not to be persistent, and why. What cannot be seen here, the compiler finds by the
//! missing `Persist`.

use syn::{Error, GenericArgument, PathArguments, Result, Type};

/// An error that names the field's type, the cause and the remedy, for a type that cannot lie in a pool.
pub fn check(ty: &Type) -> Result<()> {
    match ty {
        Type::Reference(_) => refuse(
            ty,
            "a reference points into this process' memory; own the value with `PBox<'p, T>`",
        ),
        Type::Ptr(_) => refuse(
            ty,
            "a raw pointer may point anywhere; use `Option<PBox<'p, T>>` to own, `Option<Ptr<'p, T>>` to refer",
        ),
        Type::BareFn(_) => refuse(
            ty,
            "a function is elsewhere in the next run; store an enum and match on it",
        ),
        Type::TraitObject(_) | Type::ImplTrait(_) => refuse(
            ty,
            "a trait object points to a vtable of this process; store an enum of the types",
        ),
        Type::Slice(_) => refuse(ty, "a slice has no fixed size; use `PVec<'p, T>`"),
        Type::Tuple(_) => refuse(
            ty,
            "the layout of a tuple may change with the compiler; use a struct with `#[repr(C)]`",
        ),
        Type::Array(array) => check(&array.elem),
        Type::Paren(inner) => check(&inner.elem),
        Type::Group(inner) => check(&inner.elem),
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else {
                return Ok(());
            };
            if let Some(why) = of_std(&last.ident.to_string()) {
                return refuse(ty, why);
            }
            if let PathArguments::AngleBracketed(arguments) = &last.arguments {
                for argument in &arguments.args {
                    if let GenericArgument::Type(inner) = argument {
                        check(inner)?;
                    }
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Why a type of `std` with this name is not persistent.
fn of_std(name: &str) -> Option<&'static str> {
    Some(match name {
        "Box" => "`Box` allocates from this process' heap; use `PBox<'p, T>`",
        "Vec" | "VecDeque" | "LinkedList" => {
            "it allocates from this process' heap; use `PVec<'p, T>`"
        }
        "String" | "str" | "OsString" | "PathBuf" => {
            "it allocates from this process' heap; use `PString<'p>`"
        }
        "Rc" | "Arc" | "Weak" => {
            "it counts the owners in this process' heap; use `PBox<'p, T>` to own, `Ptr<'p, T>` to refer"
        }
        "Cell" | "RefCell" | "UnsafeCell" | "OnceCell" | "Mutex" | "RwLock" | "OnceLock" => {
            "it changes behind a shared reference, outside transactions; `&mut` inside one needs no cell"
        }
        "HashMap" | "HashSet" | "BTreeMap" | "BTreeSet" | "BinaryHeap" => {
            "it allocates from this process' heap; build the structure of `PBox` and `PVec`"
        }
        "Instant" | "Thread" | "JoinHandle" | "File" => "its value means nothing in another run",
        _ => return None,
    })
}

fn refuse(ty: &Type, why: &str) -> Result<()> {
    Err(Error::new_spanned(ty, format!("not persistent: {why}")))
}
