//! A Unix stream socket: eight bytes of length, then the payload.

use super::fail;
use crate::plan::Wait;
use crate::worker::{Caller, Serving};
use crate::{Failure, Result, payload};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// One thread for each connection.
pub fn serve(wait: Wait, at: &Path, serving: &'static Serving) -> Result<()> {
    let listener = UnixListener::bind(at).map_err(fail("bind"))?;
    serving.ready();
    for stream in listener.incoming() {
        let mut stream = Stream::new(stream.map_err(fail("accept"))?, wait)?;
        std::thread::spawn(move || {
            let (mut request, mut reply) = (Vec::new(), Vec::new());
            // The end of the connection ends the thread.
            while let Ok(length) = stream.receive(&mut request) {
                grow(&mut reply, length);
                payload::answer(&request[8..length], &mut reply[8..length]);
                if stream.send(&mut reply[..length]).is_err() {
                    break;
                }
                serving.answered();
            }
        });
    }
    Ok(())
}

/// The client's side.
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(wait: Wait, at: &Path) -> Result<Self> {
        let stream = UnixStream::connect(at).map_err(fail("connect"))?;
        Ok(Self {
            stream: Stream::new(stream, wait)?,
            buffer: Vec::new(),
        })
    }
}

impl Caller for Connection {
    fn call(&mut self, size: usize, seed: u64) -> Result<u64> {
        grow(&mut self.buffer, size + 8);
        payload::fill(&mut self.buffer[8..size + 8], seed);
        self.stream.send(&mut self.buffer[..size + 8])?;
        let length = self.stream.receive(&mut self.buffer)?;
        Ok(payload::sum(&self.buffer[8..length]))
    }
}

/// Makes room for `length` bytes; what is there already is not cleared again.
fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}

/// A stream whose reads and writes either sleep or try again at once.
struct Stream(UnixStream);

impl Stream {
    fn new(stream: UnixStream, wait: Wait) -> Result<Self> {
        stream
            .set_nonblocking(wait == Wait::Poll)
            .map_err(fail("nonblocking"))?;
        Ok(Self(stream))
    }

    /// Sends `message`, whose first eight bytes are free for the length.
    fn send(&mut self, message: &mut [u8]) -> Result<()> {
        let length = (message.len() as u64 - 8).to_le_bytes();
        message[..8].copy_from_slice(&length);
        let mut rest = &message[..];
        while !rest.is_empty() {
            match self.0.write(rest) {
                Ok(0) => return Err(Failure("the peer has closed".to_owned())),
                Ok(n) => rest = &rest[n..],
                Err(e) if again(&e) => std::hint::spin_loop(),
                Err(e) => return Err(fail("write")(e)),
            }
        }
        Ok(())
    }

    /// Receives a whole message, its length in front of it; returns the bytes of both.
    fn receive(&mut self, message: &mut Vec<u8>) -> Result<usize> {
        let mut have = 0;
        let mut want = 8;
        // Room for a small message at once: one system call for each.
        grow(message, 8 + 4096);
        while have < want {
            match self.0.read(&mut message[have..]) {
                Ok(0) => return Err(Failure("the peer has closed".to_owned())),
                Ok(n) => {
                    let before = have;
                    have += n;
                    if before < 8 && have >= 8 {
                        let length = message[..8].try_into().map(u64::from_le_bytes);
                        want = 8 + length.unwrap_or_default() as usize;
                        grow(message, want);
                    }
                }
                Err(e) if again(&e) => std::hint::spin_loop(),
                Err(e) => return Err(fail("read")(e)),
            }
        }
        Ok(want)
    }
}

fn again(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
