//! Direct pools: transactions with an undo log.

use vernal_journal::direct::{DirectLog, Home};
use vernal_sys::FileMedia;

use super::puddle::{InPlace, Puddle};
use super::{Actor, Answer, local, refused};

impl Actor {
    pub(super) fn log(&mut self) -> Result<&mut DirectLog<FileMedia>, String> {
        if self.log.is_none() {
            let (info, file) = self.client.log(64 << 10, None).map_err(refused)?;
            let media = FileMedia::from_file(file).map_err(local)?;
            let header = vernal_format::LogHeader {
                file: info.id.into(),
                log: info.log.into(),
                space: info.space.into(),
                position: info.position,
                len: info.size,
            };
            let log = DirectLog::new(media, &header, 1, vernal_journal::direct::NoSupply);
            self.log = Some(log);
        }
        self.log.as_mut().ok_or_else(|| local("no log"))
    }

    /// Begins a transaction on a direct pool, logs a place and changes it.
    pub(super) fn undo(&mut self, name: &str, offset: u64, text: &str) -> Answer {
        self.log()?;
        let pool = self
            .pools
            .get(name)
            .ok_or_else(|| local(format!("{name} is not open")))?;
        let root = pool.puddles.first().ok_or_else(|| local("no puddle"))?;
        let addr = root.info.addr + offset;
        let mut home = InPlace(&pool.puddles);
        let log = self.log.as_mut().ok_or_else(|| local("no log"))?;
        if log.depth() == 0 {
            log.begin().map_err(local)?;
        }
        log.undo(&mut home, addr, text.len() as u64)
            .map_err(local)?;
        home.store(addr, text.as_bytes()).map_err(local)?;
        Ok(String::new())
    }

    /// Logs an undo entry for an address that is not the actor's.
    pub(super) fn undo_at(&mut self, addr: u64, text: &str) -> Answer {
        let log = self.log()?;
        if log.depth() == 0 {
            log.begin().map_err(local)?;
        }
        /// Claims that every address holds the same text.
        struct Anywhere(Vec<u8>);
        impl Home for Anywhere {
            fn load(&self, _addr: u64, buf: &mut [u8]) -> std::io::Result<()> {
                for (to, from) in buf.iter_mut().zip(&self.0) {
                    *to = *from;
                }
                Ok(())
            }
            fn store(&mut self, _addr: u64, _data: &[u8]) -> std::io::Result<()> {
                Ok(())
            }
            fn write_back(&mut self, _line: u64) -> std::io::Result<()> {
                Ok(())
            }
            fn fence(&mut self) -> std::io::Result<()> {
                Ok(())
            }
            fn restore_volatile(&mut self, _addr: u64, _data: &[u8]) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut home = Anywhere(text.as_bytes().to_vec());
        let done = log.undo(&mut home, addr, text.len() as u64);
        done.map(|()| String::new()).map_err(local)
    }

    pub(super) fn end_tx(&mut self) -> Answer {
        let puddles: Vec<&Puddle> = self.pools.values().flat_map(|p| &p.puddles).collect();
        let _ = puddles;
        let pool = self
            .pools
            .values()
            .next()
            .ok_or_else(|| local("nothing is open"))?;
        let mut home = InPlace(&pool.puddles);
        let log = self.log.as_mut().ok_or_else(|| local("no log"))?;
        let done = log.commit(&mut home);
        done.map(|()| String::new()).map_err(local)
    }
}
