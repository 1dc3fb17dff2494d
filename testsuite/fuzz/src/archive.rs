//! Archives.

use vernal_format::archive::{ArchiveHeader, DataLayout, HEADER_LEN, Manifest, Trailer, chunk_sum};
use vernal_pool::archive::read_head;

/// The bytes are an archive as they come: header, manifest, trailer.
pub(crate) fn head(bytes: &[u8]) {
    let mut from = bytes;
    match read_head(&mut from, "fuzz") {
        Ok((header, manifest)) => {
            assert!(header.data_offset() <= bytes.len() as u64);
            let skip = usize::try_from(manifest.stored_bytes()).unwrap_or(usize::MAX);
            let _ = Trailer::decode(from.get(skip..).unwrap_or_default(), &manifest);
        }
        Err(e) => drop(e.to_string()),
    }
}

/// The bytes are a manifest behind a header that fits it.
pub(crate) fn manifest(bytes: &[u8]) {
    match Manifest::decode(bytes) {
        Ok(manifest) => {
            assert_eq!(manifest.encode(), bytes);
            let chunks = manifest.stored_chunks();
            let sum = chunks.fold(0u64, |sum, chunk| sum.saturating_add(chunk.bytes));
            assert_eq!(sum, manifest.stored_bytes());
            let _ = (manifest.total_size(), Trailer::len_for(&manifest));
        }
        Err(e) => drop(e.to_string()),
    }
    let mut whole = ArchiveHeader::of(DataLayout::Packed, bytes)
        .encode()
        .to_vec();
    whole.extend_from_slice(bytes);
    whole.resize(whole.len().next_multiple_of(HEADER_LEN), 0);
    let _ = read_head(&mut whole.as_slice(), "fuzz");
}

/// The bytes are a manifest and then the data; everything is sealed as a writer would, and the trailer must fit.
pub(crate) fn whole(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let (manifest, data) = rest.split_at((u16::from_le_bytes(*len) as usize).min(rest.len()));
    let Ok(manifest) = Manifest::decode(manifest) else {
        return;
    };
    let mut sums = Vec::new();
    let mut left = data;
    for chunk in manifest.stored_chunks() {
        let take = usize::try_from(chunk.bytes).map_or(left.len(), |n| n.min(left.len()));
        let (part, after) = left.split_at(take);
        left = after;
        let mut state = chunk_sum();
        state.update(part);
        sums.push(state.digest());
    }
    let trailer = Trailer {
        stored: manifest.stored_bytes(),
        sums,
    };
    let mut end = trailer.encode();
    assert_eq!(Trailer::decode(&end, &manifest).as_ref(), Ok(&trailer));
    // The same trailer with a hostile byte is refused or, beyond its end, never looked at.
    if let Some(byte) = data.first()
        && let Some(at) = end.get_mut(usize::from(*byte))
    {
        *at ^= 1;
        assert!(Trailer::decode(&end, &manifest).is_err());
    }
}
