//! The journal as its one writer sees it: append records, flush, recycle, grow, change members.

use vernal_format::{
    FormatError, LOG_OFFSET, MAX_MEMBERS, MEMBER_PATH_LEN, MEMBER_PATH_MAX, Member, MemberPath,
    RECORD_ALIGN, RecordKey, SLOT_COUNT, SLOT_LEN, Slot, Superblock, Uuid,
};
use vernal_sys::Media;
use zerocopy::IntoBytes;

use crate::builder::{Place, RecordBuilder, align_up};
use crate::error::JournalError;

/// Log length that suits most programs.
pub const DEFAULT_LOG_LEN: u64 = 16 << 20;

/// How to create a journal.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Its identity: 16 random bytes.
    pub uuid: Uuid,
    /// Its name for messages.
    pub name: String,
    /// Length of the log in bytes; rounded up to whole write units.
    pub log_len: u64,
}

/// The log of one process. Records go to the front of the log first; when it is full and the homes are durable, a new
/// generation starts at the front again.
#[derive(Debug)]
pub struct Journal<M: Media> {
    media: M,
    name: String,
    /// As on the medium.
    sb: Superblock,
    /// Where `sb` is.
    sb_slot: usize,
    /// Lengths that the next generation begins with.
    next_lens: [u64; MAX_MEMBERS],
    key: RecordKey,
    unit: usize,
    /// Where the next record goes, from the start of the log.
    head: u64,
    next_sequence: u64,
    /// Records written (or buffered) since the last flush.
    unflushed: u32,
    /// Block media: the records since the last flush, to be written at `buffer_at`.
    buffer: Vec<u64>,
    buffer_at: u64,
    poison: Option<String>,
}

impl<M: Media> Journal<M> {
    /// Makes a new journal on `media`, whatever it held.
    pub fn create(mut media: M, config: JournalConfig) -> Result<Self, JournalError> {
        let JournalConfig {
            uuid,
            name,
            log_len,
        } = config;
        let unit = media.write_unit().max(RECORD_ALIGN).next_power_of_two();
        let log_len = log_len.next_multiple_of(SLOT_LEN.max(unit) as u64);
        let needed = LOG_OFFSET + log_len;
        media
            .set_len(needed)
            .map_err(|e| JournalError::space(&name, needed, e))?;
        let zeros = [0; SLOT_LEN];
        for at in (0..LOG_OFFSET).step_by(SLOT_LEN) {
            media
                .write(at, &zeros)
                .map_err(|e| JournalError::io(&name, "writing", e))?;
        }
        media
            .persist()
            .map_err(|e| JournalError::io(&name, "flushing", e))?;
        let sb = Superblock {
            update: 0,
            journal: uuid,
            generation: 1,
            first_sequence: 1,
            log_offset: LOG_OFFSET,
            log_len,
            write_unit: unit as u64,
            members: vec![None; MAX_MEMBERS],
        };
        let mut journal = Journal {
            media,
            name,
            key: RecordKey::new(uuid, sb.generation),
            sb: sb.clone(),
            sb_slot: SLOT_COUNT - 1,
            next_lens: [0; MAX_MEMBERS],
            unit,
            head: 0,
            next_sequence: 1,
            unflushed: 0,
            buffer: Vec::new(),
            buffer_at: 0,
            poison: None,
        };
        journal.store_superblock(sb)?;
        Ok(journal)
    }

    /// Its identity.
    pub fn uuid(&self) -> Uuid {
        self.sb.journal
    }

    /// Its name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its medium.
    pub fn media(&self) -> &M {
        &self.media
    }

    /// Gives the medium back; what was not flushed is lost.
    pub fn into_media(self) -> M {
        self.media
    }

    /// Length of the log.
    pub fn capacity(&self) -> u64 {
        self.sb.log_len
    }

    /// Bytes of log that are free.
    pub fn free_bytes(&self) -> u64 {
        self.sb.log_len - self.head.min(self.sb.log_len)
    }

    /// Generation of the records that are alive.
    pub fn generation(&self) -> u64 {
        self.sb.generation
    }

    /// Sequence of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Sequence of the last record that is durable (0: none).
    pub fn durable_sequence(&self) -> u64 {
        self.next_sequence - 1 - u64::from(self.unflushed)
    }

    /// Whether this generation has no record yet.
    pub fn is_unused(&self) -> bool {
        self.next_sequence == self.sb.first_sequence
    }

    /// The members, by index.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.sb.members.iter().flatten()
    }

    /// Why the journal has stopped, if it has.
    pub fn poison(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    /// Stops the journal: every later change fails with this cause.
    pub(crate) fn set_poison(&mut self, cause: &JournalError) {
        if self.poison.is_none() {
            self.poison = Some(cause.to_string());
        }
    }

    #[inline]
    fn check_usable(&self) -> Result<(), JournalError> {
        match &self.poison {
            None => Ok(()),
            Some(cause) => Err(JournalError::Poisoned {
                cause: cause.clone(),
            }),
        }
    }

    /// Turns a failure of the medium into the error that stops the journal.
    #[cold]
    fn fail(&mut self, op: &'static str, source: std::io::Error) -> JournalError {
        let e = JournalError::io(&self.name, op, source);
        self.set_poison(&e);
        e
    }

    /// Bytes of log that `record` takes in a journal with nothing in it.
    pub fn needed_bytes(&self, record: &RecordBuilder) -> u64 {
        record.record_bytes().next_multiple_of(self.unit as u64)
    }

    /// Whether `record` fits without recycling.
    #[inline]
    pub fn fits(&self, record: &RecordBuilder) -> bool {
        align_up(self.head + record.record_bytes(), self.unit as u64) <= self.sb.log_len
    }

    /// Whether nothing keeps `record` from being appended at once.
    #[inline]
    pub(crate) fn admits(&self, record: &RecordBuilder) -> bool {
        self.poison.is_none() && self.unflushed == 0 && record.is_describable() && self.fits(record)
    }

    #[inline]
    fn admit(&self, record: &RecordBuilder) -> Result<(), JournalError> {
        self.check_usable()?;
        if !record.is_describable() {
            return Err(JournalError::TooLarge {
                bytes: record.record_bytes(),
                entries: record.entry_count(),
            });
        }
        if !self.fits(record) {
            return Err(JournalError::Full {
                needed: self.needed_bytes(record),
                free: self.free_bytes(),
            });
        }
        Ok(())
    }

    #[inline]
    fn place(&self) -> Place<'_> {
        Place {
            key: &self.key,
            generation: self.sb.generation,
            sequence: self.next_sequence,
            unflushed: self.unflushed,
        }
    }

    /// Appends `record` durably, with exactly one flush: the commit point. Returns its sequence.
    /// [`JournalError::Full`] is returned before anything is written.
    #[inline]
    pub fn append(&mut self, record: &mut RecordBuilder) -> Result<u64, JournalError> {
        if self.unflushed != 0 {
            let sequence = self.append_unflushed(record)?;
            self.flush()?;
            return Ok(sequence);
        }
        self.admit(record)?;
        self.append_admitted(record)
    }

    /// [`Journal::append`] in a journal that is usable, has nothing to flush, and has room: for callers that know that.
    #[inline]
    pub(crate) fn append_admitted(
        &mut self,
        record: &mut RecordBuilder,
    ) -> Result<u64, JournalError> {
        let sealed = record.seal(self.place(), self.unit);
        let bytes = sealed.as_bytes();
        if let Err(e) = self
            .media
            .write_durable(self.sb.log_offset + self.head, bytes)
        {
            return Err(self.fail("writing a record", e));
        }
        self.head += bytes.len() as u64;
        self.next_sequence += 1;
        Ok(self.next_sequence - 1)
    }

    /// Appends `record` so that it becomes durable with the next flush, together with all others of its kind.
    /// [`JournalError::Full`] is returned before anything is written.
    pub fn append_unflushed(&mut self, record: &mut RecordBuilder) -> Result<u64, JournalError> {
        self.admit(record)?;
        if self.unflushed == u32::MAX {
            self.flush()?;
            self.admit(record)?;
        }
        // Only the flush is padded to whole write units: the next record starts at the next 64 bytes.
        let sealed = record.seal(self.place(), RECORD_ALIGN);
        let len = sealed.as_bytes().len() as u64;
        if self.unit == RECORD_ALIGN {
            if let Err(e) = self
                .media
                .write(self.sb.log_offset + self.head, sealed.as_bytes())
            {
                return Err(self.fail("writing a record", e));
            }
        } else {
            if self.unflushed == 0 {
                self.buffer.clear();
                self.buffer_at = self.head;
            }
            self.buffer.extend_from_slice(sealed);
        }
        self.head += len;
        self.unflushed += 1;
        self.next_sequence += 1;
        Ok(self.next_sequence - 1)
    }

    /// Makes every appended record durable, with at most one flush. Returns the last durable sequence.
    pub fn flush(&mut self) -> Result<u64, JournalError> {
        self.check_usable()?;
        if self.unflushed != 0 {
            let done = if self.unit == RECORD_ALIGN {
                self.media.persist()
            } else {
                let end = (self.buffer.len() * 8).next_multiple_of(self.unit);
                self.buffer.resize(end / 8, 0);
                self.media
                    .write_durable(self.sb.log_offset + self.buffer_at, self.buffer.as_bytes())
            };
            if let Err(e) = done {
                return Err(self.fail("flushing records", e));
            }
            self.head = self.head.next_multiple_of(self.unit as u64);
            self.unflushed = 0;
        }
        Ok(self.next_sequence - 1)
    }

    /// Notes the length that `file` has when the next generation begins.
    pub fn note_len(&mut self, file: Uuid, len: u64) {
        if let Some((i, _)) = self.sb.member(file) {
            self.next_lens[i] = len;
        }
    }

    /// Starts a new generation at the front of the log. Everything that the records say must be durable in the homes.
    pub fn recycle(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        let mut sb = self.sb.clone();
        sb.generation += 1;
        sb.first_sequence = self.next_sequence;
        for (member, len) in sb.members.iter_mut().zip(self.next_lens) {
            if let Some(m) = member {
                m.committed_len = len;
            }
        }
        self.store_superblock(sb)?;
        self.key = RecordKey::new(self.sb.journal, self.sb.generation);
        self.head = 0;
        Ok(())
    }

    /// Makes the log at least `log_len` bytes long. [`JournalError::NoSpace`] leaves it as it was.
    pub fn grow(&mut self, log_len: u64) -> Result<(), JournalError> {
        self.check_usable()?;
        let log_len = log_len.next_multiple_of(SLOT_LEN.max(self.unit) as u64);
        if log_len <= self.sb.log_len {
            return Ok(());
        }
        let needed = self.sb.log_offset + log_len;
        if let Err(e) = self.media.set_len(needed) {
            let e = JournalError::space(&self.name, needed, e);
            if !e.is_recoverable() {
                self.set_poison(&e);
            }
            return Err(e);
        }
        // The superblock may not promise a log that a crash takes back.
        if let Err(e) = self.media.persist() {
            return Err(self.fail("growing", e));
        }
        let sb = Superblock {
            log_len,
            ..self.sb.clone()
        };
        self.store_superblock(sb)
    }

    /// Adds a file durably. Must be done before its metadata names this journal.
    pub fn add_member(&mut self, member: Member, meta_path: &[u8]) -> Result<(), JournalError> {
        self.check_usable()?;
        if meta_path.len() > MEMBER_PATH_MAX {
            return Err(JournalError::PathTooLong {
                path: String::from_utf8_lossy(meta_path).into_owned(),
                limit: MEMBER_PATH_MAX,
            });
        }
        if let Some(other) = self
            .members()
            .find(|m| m.overlaps(&member) || m.file == member.file)
        {
            return Err(JournalError::Overlap {
                file: member.file,
                other: other.file,
            });
        }
        let Some(index) = self.sb.members.iter().position(Option::is_none) else {
            return Err(JournalError::TooManyMembers { limit: MAX_MEMBERS });
        };
        let mut sb = self.sb.clone();
        sb.members[index] = Some(member);
        sb.validate().map_err(|source| self.format_error(source))?;
        let entry: [u8; MEMBER_PATH_LEN] = MemberPath {
            file: member.file,
            path: meta_path.to_vec(),
        }
        .encode();
        if let Err(e) = self
            .media
            .write(MemberPath::offset(index), &entry)
            .and_then(|()| self.media.persist())
        {
            return Err(self.fail("writing a member", e));
        }
        self.store_superblock(sb)?;
        self.next_lens[index] = member.committed_len;
        Ok(())
    }

    /// Removes a file durably. Its metadata must no longer name this journal, and no
    /// record of this generation may name the file.
    pub fn remove_member(&mut self, file: Uuid) -> Result<(), JournalError> {
        self.check_usable()?;
        let Some((index, _)) = self.sb.member(file) else {
            return Err(JournalError::UnknownMember { file });
        };
        let mut sb = self.sb.clone();
        sb.members[index] = None;
        self.store_superblock(sb)
    }

    fn format_error(&self, source: FormatError) -> JournalError {
        JournalError::Format {
            name: self.name.clone(),
            source,
        }
    }

    /// Replaces the superblock, one slot after the other, with one flush each. The first is the change; the second takes
    /// the old value away, so that a slot that decays later is not made up for by one that is out of date.
    fn store_superblock(&mut self, mut sb: Superblock) -> Result<(), JournalError> {
        self.check_usable()?;
        for _ in 0..SLOT_COUNT {
            sb.update += 1;
            let slot = (self.sb_slot + 1) % SLOT_COUNT;
            let mut bytes = [0; SLOT_LEN];
            sb.encode(&mut bytes);
            if let Err(e) = self.media.write_durable((slot * SLOT_LEN) as u64, &bytes) {
                return Err(self.fail("writing the superblock", e));
            }
            self.sb_slot = slot;
        }
        self.sb = sb;
        Ok(())
    }
}
