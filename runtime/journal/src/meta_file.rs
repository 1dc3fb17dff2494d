//! A file's metadata on its medium, and the typestate that keeps unrecovered files from being used.

use std::marker::PhantomData;

use vernal_format::{
    JOURNAL_PATH_MAX, META_FILE_LEN, Meta, MetaState, SLOT_COUNT, SLOT_LEN, Slot, Uuid, newest_slot,
};
use vernal_sys::Media;

use crate::error::{JournalError, RecoveryError};

/// The file may lack commits: only [`crate::recover_home`] takes it further.
#[derive(Debug)]
pub struct Unrecovered(());

/// The home image is complete, or a running committer completes it.
#[derive(Debug)]
pub struct Recovered(());

/// The metadata file of one opted-in file.
#[derive(Debug)]
pub struct MetaFile<M, S = Recovered> {
    media: M,
    name: String,
    meta: Meta,
    slot: usize,
    state: PhantomData<S>,
}

impl<M, S> MetaFile<M, S> {
    /// What the newest valid slot says.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the medium back.
    pub fn into_media(self) -> M {
        self.media
    }
}

impl<M: Media> MetaFile<M, Unrecovered> {
    /// Reads the metadata from `media`; `name` is for messages.
    pub fn load(media: M, name: impl Into<String>) -> Result<Self, RecoveryError> {
        let name = name.into();
        let mut slots = [[0; SLOT_LEN]; SLOT_COUNT];
        read_slots(&media, &mut slots).map_err(|e| RecoveryError::io(&name, "reading", e))?;
        let (slot, meta) =
            newest_slot::<Meta>(&slots).map_err(|e| RecoveryError::format(&name, e))?;
        Ok(MetaFile {
            media,
            name,
            meta,
            slot,
            state: PhantomData,
        })
    }

    /// The journal without which the file cannot be recovered: its identity and where it is.
    pub fn needed_journal(&self) -> Option<(Uuid, &[u8])> {
        match &self.meta.state {
            MetaState::Clean => None,
            MetaState::Active { journal, path } => Some((*journal, path)),
        }
    }

    /// Takes the file as it is, whatever a journal may hold. Only for whoever knows that the journal named here holds nothing of
    /// the file (it never became a member of it, or has left it), or for a user who has decided to give that up.
    pub fn without_journal(self) -> MetaFile<M, Recovered> {
        self.into_recovered()
    }

    /// Says that recovery is done. Only recovery may say so.
    pub(crate) fn into_recovered(self) -> MetaFile<M, Recovered> {
        let MetaFile {
            media,
            name,
            meta,
            slot,
            ..
        } = self;
        MetaFile {
            media,
            name,
            meta,
            slot,
            state: PhantomData,
        }
    }
}

impl<M: Media> MetaFile<M, Recovered> {
    /// Makes the metadata of a file that had none. `media` is given its length; what it held is lost.
    ///
    /// A crash in here leaves an unusable metadata file: create it under another name and rename it when this returns.
    pub fn create(mut media: M, name: impl Into<String>, meta: Meta) -> Result<Self, JournalError> {
        let name = name.into();
        meta.validate().map_err(|source| JournalError::Format {
            name: name.clone(),
            source,
        })?;
        media
            .set_len(META_FILE_LEN)
            .map_err(|e| JournalError::space(&name, META_FILE_LEN, e))?;
        let zeros = [0; SLOT_LEN];
        for slot in 0..SLOT_COUNT {
            media
                .write(slot_offset(slot), &zeros)
                .map_err(|e| JournalError::io(&name, "writing", e))?;
        }
        media
            .persist()
            .map_err(|e| JournalError::io(&name, "flushing", e))?;
        // The first store goes to slot 0.
        let mut file = MetaFile {
            media,
            name,
            meta,
            slot: 1,
            state: PhantomData,
        };
        file.store(|_| ())?;
        Ok(file)
    }

    /// Changes the metadata durably, one slot after the other, with one flush each. The first is the change; the second
    /// takes the old value away, so that a slot that decays later is not made up for by one that is out of date. On an
    /// error the old value stands, or the new one, and nothing between.
    pub fn store(&mut self, change: impl FnOnce(&mut Meta)) -> Result<(), JournalError> {
        let mut next = self.meta.clone();
        change(&mut next);
        next.validate().map_err(|source| JournalError::Format {
            name: self.name.clone(),
            source,
        })?;
        for _ in 0..SLOT_COUNT {
            next.update = self.meta.update + 1;
            let mut bytes = [0; SLOT_LEN];
            next.encode(&mut bytes);
            let slot = (self.slot + 1) % SLOT_COUNT;
            self.media
                .write_durable(slot_offset(slot), &bytes)
                .map_err(|e| JournalError::io(&self.name, "writing", e))?;
            self.meta = next.clone();
            self.slot = slot;
        }
        Ok(())
    }

    /// Says that `journal`, at `path`, may hold commits that the file lacks. Must be durable before the first of them.
    pub fn activate(
        &mut self,
        journal: Uuid,
        path: &[u8],
        committed_len: u64,
    ) -> Result<(), JournalError> {
        if path.len() > JOURNAL_PATH_MAX {
            return Err(JournalError::PathTooLong {
                path: String::from_utf8_lossy(path).into_owned(),
                limit: JOURNAL_PATH_MAX,
            });
        }
        self.store(|m| {
            m.committed_len = committed_len;
            m.state = MetaState::Active {
                journal,
                path: path.to_vec(),
            };
        })
    }

    /// Says that the file is complete and needs no journal. Its content must be durable before.
    pub fn set_clean(&mut self, committed_len: u64) -> Result<(), JournalError> {
        self.store(|m| {
            m.committed_len = committed_len;
            m.state = MetaState::Clean;
        })
    }
}

fn slot_offset(slot: usize) -> u64 {
    (slot * SLOT_LEN) as u64
}

/// The two slots of a medium.
pub(crate) type Slots = [[u8; SLOT_LEN]; SLOT_COUNT];

/// Reads both slots; what lies beyond the end of the medium stays zero.
pub(crate) fn read_slots<M: Media>(media: &M, slots: &mut Slots) -> std::io::Result<()> {
    for (i, slot) in slots.iter_mut().enumerate() {
        let there = media
            .len()
            .saturating_sub(slot_offset(i))
            .min(SLOT_LEN as u64) as usize;
        media.read(slot_offset(i), &mut slot[..there])?;
    }
    Ok(())
}
