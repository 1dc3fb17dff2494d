//! Directories as one small file: what golden images are kept in.
//!
//! Under a zlib stream: for each directory and file its path (length u32, bytes), then a file's length u64 (all ones: a directory) and
//! the blocks of 4096 bytes that are not zero (number u32; offset u64 and bytes of each). All numbers are little-endian.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

const BLOCK: usize = 4096;
/// A length that says: a directory.
const DIRECTORY: u64 = u64::MAX;

/// Packs everything below `folder` into the file `to`.
pub fn pack(folder: &Path, to: &Path) -> io::Result<()> {
    let mut out = ZlibEncoder::new(File::create(to)?, Compression::best());
    let mut folders = vec![PathBuf::new()];
    while let Some(at) = folders.pop() {
        let mut names: Vec<PathBuf> = fs::read_dir(folder.join(&at))?
            .map(|entry| entry.map(|e| at.join(e.file_name())))
            .collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let bytes = name.as_os_str().as_bytes();
            out.write_all(&(bytes.len() as u32).to_le_bytes())?;
            out.write_all(bytes)?;
            if folder.join(&name).is_dir() {
                out.write_all(&DIRECTORY.to_le_bytes())?;
                folders.push(name);
            } else {
                pack_file(&folder.join(&name), &mut out)?;
            }
        }
    }
    out.finish()?.sync_all()
}

fn pack_file(path: &Path, out: &mut impl Write) -> io::Result<()> {
    let content = fs::read(path)?;
    out.write_all(&(content.len() as u64).to_le_bytes())?;
    let blocks: Vec<(usize, &[u8])> = content
        .chunks(BLOCK)
        .enumerate()
        .filter(|(_, block)| block.iter().any(|b| *b != 0))
        .collect();
    out.write_all(&(blocks.len() as u32).to_le_bytes())?;
    for (i, block) in blocks {
        out.write_all(&((i * BLOCK) as u64).to_le_bytes())?;
        let mut whole = [0; BLOCK];
        whole[..block.len()].copy_from_slice(block);
        out.write_all(&whole)?;
    }
    Ok(())
}

/// Makes `folder` what was packed into the file `from`. What is zero takes no room.
pub fn unpack(from: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut from = ZlibDecoder::new(File::open(from)?);
    loop {
        let mut len = [0; 4];
        match from.read_exact(&mut len) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let mut name = vec![0; u32::from_le_bytes(len) as usize];
        from.read_exact(&mut name)?;
        let path = folder.join(PathBuf::from(std::ffi::OsString::from_vec(name)));
        match long(&mut from)? {
            DIRECTORY => fs::create_dir_all(path)?,
            len => unpack_file(&path, len, &mut from)?,
        }
    }
}

fn unpack_file(path: &Path, len: u64, from: &mut impl Read) -> io::Result<()> {
    let file = File::create_new(path)?;
    file.set_len(len)?;
    let mut count = [0; 4];
    from.read_exact(&mut count)?;
    for _ in 0..u32::from_le_bytes(count) {
        let at = long(from)?;
        let mut block = [0; BLOCK];
        from.read_exact(&mut block)?;
        let inside = len.saturating_sub(at).min(BLOCK as u64) as usize;
        file.write_all_at(&block[..inside], at)?;
    }
    Ok(())
}

fn long(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir_all(from.join("empty")).unwrap();
        let mut content = vec![0; 3 * BLOCK + 17];
        content[2 * BLOCK + 5] = 7;
        content[3 * BLOCK + 16] = 9;
        fs::write(from.join("a/b/file"), &content).unwrap();
        fs::write(from.join("nothing"), "").unwrap();
        pack(&from, &dir.path().join("packed")).unwrap();
        unpack(&dir.path().join("packed"), &to).unwrap();
        assert_eq!(fs::read(to.join("a/b/file")).unwrap(), content);
        assert_eq!(fs::read(to.join("nothing")).unwrap(), b"");
        assert!(to.join("empty").is_dir());
    }
}
