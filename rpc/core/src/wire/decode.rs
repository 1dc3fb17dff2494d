//! From bytes to a graph in the receiver's own memory. The bytes come from anybody.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use vernal_heap::walk::{Budget, Examiner, GraphCopy, GraphError, GraphTarget, KnownTypes};

use super::error::WireError;
use super::image::{Image, Run, class, index_of};
use super::{CHECKSUM, HEADER_BYTES, MAGIC, NAME_MAX, SPAN_BYTES, WHOLE, WIRE_VERSION, checksum};

/// Decodes graphs. It keeps its memory from one to the next.
#[derive(Debug)]
pub struct Decoder {
    examiner: Examiner,
}

/// What is left of the bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<E>(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], WireError<E>> {
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(WireError::Short { what })?;
        self.0 = rest;
        Ok(head)
    }

    fn word<E>(&mut self, what: &'static str) -> Result<u64, WireError<E>> {
        let (head, rest) = self
            .0
            .split_first_chunk::<8>()
            .ok_or(WireError::Short { what })?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
    }
}

fn same<E>(what: &'static str, found: u64, expected: u64) -> Result<(), WireError<E>> {
    match found == expected {
        true => Ok(()),
        false => Err(WireError::Header {
            what,
            found,
            expected,
        }),
    }
}

struct Header {
    types: u64,
    spans: u64,
    objects: u64,
    root: u64,
    root_type: u64,
}

fn header<E>(bytes: &[u8], reader: &mut Reader<'_>) -> Result<Header, WireError<E>> {
    let mut word = || reader.word("header");
    same("magic", word()?, MAGIC)?;
    let (version, spans) = (word()?, word()?);
    same("version", version & 0xffff_ffff, WIRE_VERSION.into())?;
    same("reserved word", spans >> 32, 0)?;
    let (objects, length, root, root_type) = (word()?, word()?, word()?, word()?);
    same("length", length, bytes.len() as u64)?;
    let expected = word()?;
    let found = checksum(bytes);
    if found != expected {
        return Err(WireError::Checksum { found, expected });
    }
    Ok(Header {
        types: version >> 32,
        spans,
        objects,
        root,
        root_type,
    })
}

/// The receiver's place of a type that the sender names.
fn known_type<E>(known: &KnownTypes, reader: &mut Reader<'_>) -> Result<u32, WireError<E>> {
    const WHAT: &str = "types";
    let (id, len) = (reader.word(WHAT)?, reader.word(WHAT)?);
    if len > NAME_MAX as u64 {
        return Err(WireError::Header {
            what: "length of a type's name",
            found: len,
            expected: NAME_MAX as u64,
        });
    }
    let len = len as usize;
    let padded = reader.take(len.next_multiple_of(8), WHAT)?;
    let (name, padding) = padded.split_at_checked(len).unwrap_or((padded, &[]));
    if padding.iter().any(|b| *b != 0) {
        return Err(WireError::Header {
            what: "padding",
            found: 1,
            expected: 0,
        });
    }
    let name = || String::from_utf8_lossy(name).into_owned();
    let slot = known.slot(id);
    let Some((slot, desc)) = slot.and_then(|s| Some((s, known.desc(s)?))) else {
        return Err(WireError::UnknownType {
            name: name().escape_debug().to_string(),
            id,
        });
    };
    if desc.name() != name() {
        return Err(WireError::TypeName {
            id,
            found: name(),
            expected: desc.name().to_owned(),
        });
    }
    Ok(slot)
}

fn run<E>(
    index: usize,
    types: &[u32],
    reader: &mut Reader<'_>,
    word: usize,
) -> Result<Run, WireError<E>> {
    let (entry, size) = (reader.word("spans")?, reader.word("spans")?);
    let (number, ty) = (entry as u8, (entry as u32) >> 8);
    let count = (entry >> 32) as u32;
    let bad = |what, found| WireError::Span { index, what, found };
    let slot = match ty.checked_sub(1) {
        None => None,
        Some(at) => Some(*types.get(at as usize).ok_or(bad("type", ty.into()))?),
    };
    let class = match number {
        WHOLE => None,
        _ => Some(class(number).ok_or(bad("class", number.into()))?),
    };
    let (most, bytes) = match class {
        Some((_, class)) if size == 0 => (class.slots, class.size),
        None if size > 0 && size.is_multiple_of(8) => (1, size),
        _ => return Err(bad("size", size)),
    };
    if count == 0 || count > most {
        return Err(bad("objects", count.into()));
    }
    Ok(Run {
        start: 0,
        class,
        type_index: index_of(slot),
        count,
        size: bytes,
        word,
    })
}

/// The image, and how many objects it says it has.
fn image<'a, E>(
    known: &'a KnownTypes,
    bytes: &[u8],
    expected: u64,
    budget: Budget,
) -> Result<(Image<'a>, Header), WireError<E>> {
    let mut reader = Reader(bytes);
    let header = header(bytes, &mut reader)?;
    if header.root_type != expected {
        return Err(WireError::Root {
            found: header.root_type,
            expected,
        });
    }
    // Nothing is reserved for a count before the bytes that it counts are there.
    let mut types = Vec::new();
    for _ in 0..header.types {
        types.push(known_type(known, &mut reader)?);
    }
    if header.spans > (reader.0.len() / SPAN_BYTES) as u64 {
        return Err(WireError::Short { what: "spans" });
    }
    let mut runs = Vec::with_capacity(header.spans as usize);
    let (mut objects, mut words) = (0u64, 0usize);
    for index in 0..header.spans as usize {
        let run = run(index, &types, &mut reader, words)?;
        objects += u64::from(run.count);
        let new = u64::from(run.count).checked_mul(run.size / 8);
        let all = new.and_then(|n| words.checked_add(usize::try_from(n).ok()?));
        words = all.ok_or(WireError::Short { what: "objects" })?;
        runs.push(run);
    }
    same("count of objects", header.objects, objects)?;
    let length = (words as u64).saturating_mul(8);
    if objects > budget.objects || length > budget.bytes {
        return Err(WireError::Graph(GraphError::Budget {
            objects: budget.objects,
            bytes: budget.bytes,
        }));
    }
    same("bytes of objects", reader.0.len() as u64, length)?;
    let (rest, _) = reader.0.as_chunks::<8>();
    let words = rest.iter().map(|c| AtomicU64::new(u64::from_le_bytes(*c)));
    let words: Vec<AtomicU64> = words.collect();
    let image = Image::new(known, runs, words.into(), header.root);
    let image = image.map_err(|index| WireError::Span {
        index,
        what: "no address behind",
        found: index as u64,
    })?;
    Ok((image, header))
}

impl Decoder {
    /// A decoder for graphs of these types.
    pub fn new(known: Arc<KnownTypes>) -> Decoder {
        Decoder {
            examiner: Examiner::new(known),
        }
    }

    /// Copies the graph of these bytes, whose root is of the type with the id `expected`, into `target`, and verifies it on the
    /// way, with the rules for a peer's heap in shared memory. After an error the copies that were made are not linked to
    /// anything.
    pub fn decode<T: GraphTarget>(
        &mut self,
        bytes: &[u8],
        expected: u64,
        budget: Budget,
        target: &mut T,
    ) -> Result<GraphCopy, WireError<T::Error>> {
        let known = Arc::clone(self.examiner.known());
        let (image, header) = image(&known, bytes, expected, budget)?;
        let copy = self
            .examiner
            .copy(&image, header.root, expected, budget, target)?;
        if copy.report.objects != header.objects {
            return Err(WireError::Unreached {
                sent: header.objects,
                reached: copy.report.objects,
            });
        }
        Ok(copy)
    }

    /// The bytes of the image that begins with this header, if `limit` allows as many: how much to read from a stream.
    pub fn length(header: &[u8; HEADER_BYTES], limit: u64) -> Result<usize, WireError> {
        let mut reader = Reader(header);
        same("magic", reader.word("header")?, MAGIC)?;
        let length = header.get(32..40).and_then(|b| b.first_chunk::<8>());
        let length = length.map_or(0, |b| u64::from_le_bytes(*b));
        let least = (CHECKSUM + 8) as u64;
        if length > limit || length < least || !length.is_multiple_of(8) {
            return Err(WireError::Header {
                what: "length",
                found: length,
                expected: limit,
            });
        }
        Ok(length as usize)
    }
}
