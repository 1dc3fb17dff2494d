//! Documents like NoBench's: strings, numbers, a field of changing type, a nested object, a nested array, and ten of a
//! thousand sparse attributes; about 605 bytes as JSON.

use super::store::INDEXED;
use crate::{Failure, Result};
use std::io::Write;
use std::path::Path;

/// Sparse attributes in all, and in one document; those of one document are neighbours, as NoBench has them.
const SPARSE: u64 = 1000;
const SPARSE_EACH: u64 = 10;

/// Writes `count` documents to a file that [`super::Source`] reads.
pub fn write_documents(path: &Path, count: u64, seed: u64) -> Result<()> {
    let fail = |e: std::io::Error| Failure(format!("{}: {e}", path.display()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(fail)?);
    let mut random = Random(seed);
    for id in 0..count {
        let mut bytes = Vec::with_capacity(1024);
        document(&mut bytes, id, count, &mut random);
        file.write_all(&(bytes.len() as u32).to_le_bytes())
            .and_then(|()| file.write_all(&bytes))
            .map_err(fail)?;
    }
    file.flush().map_err(fail)
}

fn document(out: &mut Vec<u8>, id: u64, count: u64, random: &mut Random) {
    let sparse = id % (SPARSE / SPARSE_EACH) * SPARSE_EACH;
    object(out, 9 + INDEXED.len() as u32 + SPARSE_EACH as u32);
    name(out, "str1");
    text(out, &random.text(40));
    name(out, "str2");
    text(out, &random.text(56));
    name(out, "num");
    int(out, (random.next() % count.max(1)) as i64);
    name(out, "bool");
    out.push(1 + (random.next() & 1) as u8);
    name(out, "dyn1");
    // Of one type in most documents and of another in some.
    if id.is_multiple_of(20) {
        text(out, &random.text(12));
    } else {
        int(out, random.next() as i64 >> 32);
    }
    name(out, "dyn2");
    match id % 4 {
        0 => out.push(0),
        1 => {
            out.push(4);
            let real = (random.next() >> 12) as f64 / 1024.0;
            out.extend(real.to_bits().to_le_bytes());
        }
        2 => out.push(1 + (random.next() & 1) as u8),
        _ => text(out, &random.text(12)),
    }
    name(out, "nested_obj");
    object(out, 2);
    name(out, "str");
    text(out, &random.text(36));
    name(out, "num");
    int(out, (random.next() % count.max(1)) as i64);
    name(out, "nested_arr");
    let items = random.next() % 8;
    out.push(6);
    out.extend((items as u32).to_le_bytes());
    for _ in 0..items {
        text(out, &random.text(12));
    }
    name(out, "thousandth");
    int(out, (id % 1000) as i64);
    for (field, found) in INDEXED {
        name(out, field);
        int(out, (id % (count / found).max(1)) as i64);
    }
    for i in 0..SPARSE_EACH {
        name(out, &format!("sparse_{:03}", sparse + i));
        text(out, &random.text(8));
    }
}

fn object(out: &mut Vec<u8>, fields: u32) {
    out.push(7);
    out.extend(fields.to_le_bytes());
}

fn name(out: &mut Vec<u8>, name: &str) {
    out.extend((name.len() as u32).to_le_bytes());
    out.extend(name.as_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(5);
    name(out, text);
}

fn int(out: &mut Vec<u8>, value: i64) {
    out.push(3);
    out.extend(value.to_le_bytes());
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn text(&mut self, length: usize) -> String {
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut word = 0;
        (0..length)
            .map(|i| {
                if i % 12 == 0 {
                    word = self.next();
                }
                let letter = LETTERS[(word & 31) as usize];
                word >>= 5;
                char::from(letter)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Json, Source};
    use super::*;

    fn json_length(value: &Json) -> usize {
        match value {
            Json::Null => 4,
            Json::Bool(b) => 5 - usize::from(*b),
            Json::Int(i) => i.to_string().len(),
            Json::Real(r) => r.to_string().len(),
            Json::Text(t) => t.len() + 2,
            Json::Array(items) => 1 + items.iter().map(|i| 1 + json_length(i)).sum::<usize>(),
            Json::Object(fields) => {
                1 + fields
                    .iter()
                    .map(|(name, value)| name.len() + 4 + json_length(value))
                    .sum::<usize>()
            }
        }
    }

    #[test]
    fn a_document_is_about_as_long_as_nobench_has_them() {
        let file = std::env::temp_dir().join(format!("vernal-nobench-{}", std::process::id()));
        write_documents(&file, 1000, 9).unwrap();
        let source = Source::open(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let total: usize = (0..1000)
            .map(|id| json_length(&Json::decode(source.document(id).unwrap()).unwrap()))
            .sum();
        assert!(
            (590..620).contains(&(total / 1000)),
            "{} bytes",
            total / 1000
        );
    }
}
