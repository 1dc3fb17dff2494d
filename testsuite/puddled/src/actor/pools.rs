//! Pools of the actor: opened, committed, closed, as the runtime does it.

use std::os::unix::fs::FileExt;

use vernal_abi::{LINE_SIZE, line_of};
use vernal_format::{Member, Uuid};
use vernal_journal::{Committer, Journal, JournalConfig};
use vernal_puddled_proto::{Access, PoolKind};
use vernal_sys::FileMedia;

use super::puddle::{Puddle, take};
use super::{Actor, Answer, LOG_LEN, Open, local, refused};

impl Actor {
    pub(super) fn open(&mut self, name: &str, how: &str) -> Answer {
        let access = match how {
            "r" => Access::Read,
            "s" => Access::Snapshot,
            _ => Access::Write,
        };
        let opened = self.client.open(name, access).map_err(refused)?;
        let mut open = Open {
            id: opened.pool.id,
            kind: opened.pool.kind,
            writes: access == Access::Write,
            puddles: Vec::new(),
            fresh: Vec::new(),
        };
        let serve = open.writes && open.kind == PoolKind::Buffered;
        for granted in opened.puddles {
            let puddle = take(granted)?;
            open.puddles
                .push(if serve { self.serve(puddle)? } else { puddle });
        }
        let infos: Vec<String> = open
            .puddles
            .iter()
            .map(|p| format!("{} {:#x} {}", p.info.id, p.info.addr, p.info.size))
            .collect();
        self.pools.insert(name.to_owned(), open);
        Ok(infos.join(" "))
    }

    pub(super) fn refresh(&mut self, name: &str) -> Answer {
        let pool = self.pool(name)?.id;
        let opened = self.client.refresh(pool).map_err(refused)?;
        let puddles = opened
            .puddles
            .into_iter()
            .map(take)
            .collect::<Result<Vec<_>, _>>()?;
        let text = puddles.len().to_string();
        if let Some(pool) = self.pools.get_mut(name) {
            pool.puddles = puddles;
        }
        Ok(text)
    }

    pub(super) fn committer(&mut self) -> Result<&mut Committer<FileMedia, FileMedia>, String> {
        if self.committer.is_none() {
            let (info, file) = self.client.journal().map_err(refused)?;
            self.journal = Some(file.try_clone().map_err(local)?);
            let media = FileMedia::from_file(file).map_err(local)?;
            let config = JournalConfig {
                uuid: Uuid::from(info.id),
                name: info.name,
                log_len: LOG_LEN,
            };
            let journal = Journal::create(media, config).map_err(local)?;
            self.committer = Some(Committer::new(journal));
        }
        self.committer.as_mut().ok_or_else(|| local("no journal"))
    }

    /// Makes the journal serve a puddle.
    pub(super) fn serve(&mut self, mut puddle: Puddle) -> Result<Puddle, String> {
        let media = puddle
            .file
            .try_clone()
            .and_then(FileMedia::from_file)
            .map_err(local)?;
        let member = Member {
            file: Uuid::from(puddle.info.id),
            base_line: line_of(puddle.info.addr),
            line_count: puddle.info.size / LINE_SIZE,
            committed_len: puddle.info.size,
        };
        let home = self
            .committer()?
            .add_granted(media, "a puddle", member)
            .map_err(local)?;
        puddle.home = Some(home);
        Ok(puddle)
    }

    pub(super) fn commit(&mut self) -> Answer {
        let Some(committer) = &mut self.committer else {
            return Err(local("nothing is open for writing"));
        };
        for pool in self.pools.values().filter(|p| p.writes) {
            for p in pool.puddles.iter().chain(&pool.fresh) {
                let mut bytes = vec![0u8; p.info.size as usize];
                p.file.read_exact_at(&mut bytes, 0).map_err(local)?;
                let first = line_of(p.info.addr);
                for (i, old) in bytes.as_chunks::<64>().0.iter().enumerate() {
                    let (words, _) = old.as_chunks::<8>();
                    let home: [u64; 8] = std::array::from_fn(|k| u64::from_le_bytes(words[k]));
                    committer.stage_line(first + i as u64, &p.line(i), &home);
                }
            }
        }
        committer.commit().map(|s| s.to_string()).map_err(local)
    }

    pub(super) fn close(&mut self, name: &str) -> Answer {
        let pool = self
            .pools
            .remove(name)
            .ok_or_else(|| local(format!("{name} is not open")))?;
        let id = pool.id;
        if let Some(committer) = &mut self.committer {
            for p in pool.puddles.iter().chain(&pool.fresh) {
                if let Some(home) = p.home {
                    committer.remove_granted(home).map_err(local)?;
                }
            }
        }
        drop(pool);
        self.client
            .close(id)
            .map(|()| String::new())
            .map_err(refused)
    }
}
