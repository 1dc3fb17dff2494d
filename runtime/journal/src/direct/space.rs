//! The log space on its medium: one double slot.

use std::io;

use vernal_format::{
    LOG_SPACE_LEN, LogRef, LogSpace, MAX_LOG_FILES, SLOT_COUNT, SLOT_LEN, Slot, Uuid, newest_slot,
};
use vernal_sys::Media;

use super::error::DirectError;

/// A log space and its medium.
#[derive(Debug)]
pub struct LogSpaceFile<M> {
    media: M,
    space: LogSpace,
    /// The slot that the next store goes to.
    next: usize,
}

impl<M: Media> LogSpaceFile<M> {
    /// Makes an empty log space of `media`, durable.
    pub fn create(mut media: M, uuid: Uuid) -> Result<LogSpaceFile<M>, DirectError> {
        if media.len() < LOG_SPACE_LEN {
            media.set_len(LOG_SPACE_LEN).map_err(io_error(uuid))?;
        }
        let mut file = LogSpaceFile {
            media,
            space: LogSpace {
                update: 0,
                uuid,
                files: Vec::new(),
            },
            next: 0,
        };
        file.store()?;
        Ok(file)
    }

    /// Reads the log space on `media`, called `name` in messages.
    pub fn load(media: M, name: &str) -> Result<LogSpaceFile<M>, DirectError> {
        let mut slots = [[0; SLOT_LEN]; SLOT_COUNT];
        for (at, slot) in (0u64..).step_by(SLOT_LEN).zip(&mut slots) {
            media.read(at, slot).map_err(io_error(Uuid::NIL))?;
        }
        let (newest, space) =
            newest_slot::<LogSpace>(&slots).map_err(|source| DirectError::Format {
                what: name.to_owned(),
                source,
            })?;
        Ok(LogSpaceFile {
            media,
            space,
            next: 1 - newest.min(1),
        })
    }

    /// What it names.
    pub fn space(&self) -> &LogSpace {
        &self.space
    }

    /// The medium.
    pub fn into_media(self) -> M {
        self.media
    }

    /// Names a log file, durably: it may be used afterwards.
    pub fn add(&mut self, file: LogRef) -> Result<(), DirectError> {
        if self.space.files.len() >= MAX_LOG_FILES {
            return Err(DirectError::SpaceFull {
                space: self.space.uuid,
                limit: MAX_LOG_FILES,
            });
        }
        self.space.files.push(file);
        self.store()
    }

    /// Names the files of a log no more. They may be deleted afterwards, and not before.
    pub fn remove(&mut self, log: Uuid) -> Result<(), DirectError> {
        self.space.files.retain(|f| f.log != log);
        self.store()
    }

    fn store(&mut self) -> Result<(), DirectError> {
        // The first store is the change. The second replaces the older copy, so that a slot that decays is made up for by
        // one that says the same.
        for _ in 0..SLOT_COUNT {
            self.space.update += 1;
            let mut slot = [0; SLOT_LEN];
            self.space.encode(&mut slot);
            self.media
                .write_durable((self.next * SLOT_LEN) as u64, &slot)
                .map_err(io_error(self.space.uuid))?;
            self.next = 1 - self.next;
        }
        Ok(())
    }
}

fn io_error(log: Uuid) -> impl Fn(io::Error) -> DirectError {
    move |source| DirectError::Io {
        log,
        doing: "storing or reading a log space",
        source,
    }
}
