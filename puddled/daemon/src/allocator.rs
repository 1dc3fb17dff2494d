//! The lock of a direct pool's allocator: a page in memory that all writers of the pool map, and that puddled frees when one of
//! them dies with it.
//!
//! The word is the writers' own: one that writes nonsense there makes the others wait, as it could by never giving the lock back.
//! puddled believes nothing of it but the token of a client that is dead, and that only after its logs are recovered.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vernal_puddled_proto::{ErrorCode, Failure, Id, PoolKind, Reply};

use crate::client::Client;
use crate::fail::{Outcome, refuse};
use crate::ops::Answer;
use crate::records::GrantRecord;
use crate::state::Shared;

/// Bytes of the page.
const PAGE: u64 = 4096;
/// Set in the first word when others wait.
const WAITED_FOR: u32 = 1 << 31;
/// Where the token of the last owner is.
const LAST: u64 = 8;

/// What the client `id` writes into the first word. Two clients of one pool have the same one only if 2^31 others came between.
fn token(id: u64) -> u32 {
    u32::try_from(id % u64::from(WAITED_FOR - 1)).unwrap_or(0) + 1
}

fn make() -> rustix::io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let page = memfd_create(c"vernal-allocator", flags)?;
    ftruncate(&page, PAGE)?;
    // Nobody can make the others fault.
    fcntl_add_seals(&page, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(File::from(page))
}

/// The page of a direct pool that the client has open for writing.
pub(crate) fn give(shared: &Shared, client: &mut Client, id: Id) -> Outcome<Answer> {
    client.granted(id)?;
    let mut state = shared.state();
    let pool = state.opened(client.id, id)?;
    if pool.record.kind != PoolKind::Direct {
        return refuse(
            ErrorCode::Invalid,
            format!(
                "pool {:?} is buffered, and its one writer needs no lock",
                pool.record.name
            ),
        );
    }
    let failed = |e: std::io::Error| {
        Failure::new(
            ErrorCode::Internal,
            format!("a page for the lock of the allocator: {e}"),
        )
    };
    if pool.allocator.is_none() {
        pool.allocator = Some(make().map_err(|e| failed(e.into()))?);
    }
    let page = pool.allocator.as_ref().map(File::try_clone);
    let files = page.into_iter().collect::<Result<_, _>>().map_err(failed)?;
    Ok(Answer {
        reply: Reply::Allocator {
            token: token(client.id),
        },
        files,
    })
}

/// Frees the locks that a client has died with. What it left is recovered.
pub(crate) fn release(shared: &Shared, grant: &GrantRecord) {
    let state = shared.state();
    for granted in &grant.pools {
        let page = state.pools.get(&granted.pool);
        if let Some(page) = page.and_then(|p| p.allocator.as_ref())
            && let Err(e) = free(page, token(grant.client))
        {
            tracing::error!(pool = %granted.pool, client = grant.client, error = %e, "the allocator's lock of a dead client could not be freed; end the pool's other writers");
        }
    }
}

fn free(page: &File, token: u32) -> std::io::Result<()> {
    let mut word = [0; 4];
    page.read_exact_at(&mut word, 0)?;
    if u32::from_ne_bytes(word) & !WAITED_FOR != token {
        return Ok(());
    }
    // Whoever comes next reads the heap again: recovery has changed it. Before the lock is free.
    page.write_all_at(&0u64.to_ne_bytes(), LAST)?;
    page.write_all_at(&0u32.to_ne_bytes(), 0)?;
    vernal_sys::futex::wake_file(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_of_the_dead_client_is_freed() {
        let page = make().unwrap();
        let words = |page: &File| {
            let mut bytes = [0; 16];
            page.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let (dead, other) = (token(7), token(8));
        for (owner, freed) in [
            (dead, true),
            (dead | WAITED_FOR, true),
            (other, false),
            (other | WAITED_FOR, false),
        ] {
            page.write_all_at(&owner.to_ne_bytes(), 0).unwrap();
            page.write_all_at(&u64::from(owner).to_ne_bytes(), LAST)
                .unwrap();
            let before = words(&page);
            free(&page, dead).unwrap();
            let expected = if freed { [0; 16] } else { before };
            assert_eq!(words(&page), expected, "owner {owner:#x}");
        }
    }

    #[test]
    fn tokens_fit() {
        for id in [0, 1, 2, u64::from(WAITED_FOR), u64::MAX] {
            let token = token(id);
            assert!(token != 0 && token & WAITED_FOR == 0, "{id}");
        }
    }

    #[test]
    fn nobody_can_cut_the_page() {
        let page = make().unwrap();
        assert!(page.set_len(0).is_err());
        assert!(page.set_len(2 * PAGE).is_err());
    }
}
