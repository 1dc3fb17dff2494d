//! Relocation on first touch.
use crate::Error;
use crate::pool::Inner;

pub(crate) struct Lazy;

impl Lazy {
    pub fn any_pending(&self) -> bool {
        false
    }
    pub fn forget(&self) {}
    pub fn rolled_back(&self, _pool: &Inner) {}
}

pub(crate) fn prepare(_pool: &Inner, _eager: bool) -> Result<(), Error> {
    Ok(())
}

pub(crate) fn finish(_pool: &Inner) -> Result<(), Error> {
    Ok(())
}
