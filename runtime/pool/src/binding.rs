//! Process-bound values.
use vernal_heap::ThreadCache;

use crate::Error;
use crate::pool::Inner;

pub(crate) fn note_type(_pool: &Inner, _cache: &mut ThreadCache, _index: u32) -> Result<(), Error> {
    Ok(())
}
