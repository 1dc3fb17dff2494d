//! Vernal's calls over shared memory, with puddled as the registry.
//!
//! `vernal` trusts nobody: what lies in a peer's heap is copied while it is checked. `vernal-plain` passes pointers between sides
//! that trust each other. `vernal-process` runs handlers in a helper process, which reads arguments in place; the client trusts the
//! server. In the store the server checks the documents that it is given, and the client reads what it has found
//! in the server's heap.

mod documents;
mod heap;

use super::fail;
use crate::cooldb::{Depth, Store, fold};
use crate::plan::{System, Wait};
use crate::worker::{Caller, Serving};
use crate::{Failure, Result, payload};
use documents::{Doc, Found, Outgoing};
use heap::{Buffers, Types};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use vernal_rpc_core::registry::Puddled;
use vernal_rpc_core::shm::Shm;
use vernal_rpc_core::tcp::Tcp;
use vernal_rpc_core::{
    Answer, Body, Call, CallOptions, Channel, ChannelOptions, Code, ConnectOptions, INLINE_MAX,
    Sandbox, Signature, TEXT_MAX, Trust, WaitPolicy,
};

const NOTHING: u32 = 1;
const BYTES: u32 = 2;
const OBJECT: u32 = 3;
const INSERT: u32 = 4;
const SEARCH: u32 = 5;

fn policy(wait: Wait) -> WaitPolicy {
    match wait {
        Wait::Poll => WaitPolicy::Spin,
        Wait::Block => WaitPolicy::Block,
        Wait::Adapt => WaitPolicy::Adaptive,
    }
}

fn trust(system: System) -> Trust {
    match system {
        System::VernalPlain | System::VernalProcess => Trust::Plain,
        _ => Trust::Verify,
    }
}

/// A name of the registry for what other systems take for a path.
fn name_of(at: &Path) -> String {
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    format!("bench/{name}")
}

/// Where a server leaves the address that TCP has given it.
fn address_file(at: &Path) -> PathBuf {
    at.with_extension("address")
}

fn registry() -> Result<Shm> {
    let puddled = Puddled::new("bench rpc").map_err(fail("puddled"))?;
    Ok(Shm::new(Arc::new(puddled)))
}

fn internal<E: std::fmt::Display>(e: E) -> vernal_rpc_core::Failure {
    vernal_rpc_core::Failure::new(Code::Internal, e.to_string())
}

fn bad(why: &str) -> vernal_rpc_core::Failure {
    vernal_rpc_core::Failure::new(Code::BadArgument, why.to_owned())
}

/// Serves until the process ends; handlers run where the message was read.
pub fn serve(system: System, wait: Wait, at: &Path, serving: &'static Serving) -> Result<()> {
    let types = Types::new()?;
    let options = ChannelOptions {
        trust: trust(system),
        wait: policy(wait),
        types: Some(types.known()),
        sandbox: match system {
            System::VernalProcess => Sandbox::Process,
            _ => Sandbox::None,
        },
        ..ChannelOptions::default()
    };
    let name = name_of(at);
    let channel = Channel::open(&registry()?, &name, options).map_err(fail("channel"))?;
    if system == System::VernalProcess {
        // What handlers count stays in their helper.
        let counted = channel.clone();
        serving.counted_by(move || counted.stats().calls);
    }
    channel.serve(NOTHING, Signature::default(), move |_: &mut Call| {
        serving.answered_alone();
        Ok(Answer::EMPTY)
    });
    channel.serve(BYTES, Signature::default(), move |call: &mut Call| {
        let request = call.bytes();
        let mut reply = [0; TEXT_MAX];
        let reply = reply.get_mut(..request.len()).unwrap_or_default();
        payload::answer(request, reply);
        serving.answered_alone();
        Answer::bytes(reply)
    });
    let words = Signature {
        argument: Some(types.words.id()),
        reply: Some(types.words.id()),
    };
    let (buffers, word_type) = (Buffers::default(), types.words.clone());
    channel.serve(OBJECT, words, move |call: &mut Call| {
        let heap = call.heap().map_err(internal)?;
        let addr = call.object().ok_or_else(|| bad("no object"))?;
        // SAFETY: the object was admitted as words, a count before them; it stays until the handler returns.
        let request = unsafe { heap::words(addr) };
        let (mut reply, release) = buffers
            .take(&heap, &word_type, request.len())
            .map_err(internal)?;
        payload::answer(request, reply.bytes());
        serving.answered_alone();
        Ok(Answer::Object {
            addr: reply.addr(),
            type_id: word_type.id(),
            release,
        })
    });
    store(&channel, &types, serving)?;
    if system == System::VernalTcp {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = channel.listen_tcp(&Tcp::new(), local);
        let address = address.map_err(fail("listen"))?;
        std::fs::write(address_file(at), address).map_err(fail("address"))?;
    }
    serving.ready();
    channel.run().map_err(fail("run"))
}

/// The methods of the document store.
fn store(channel: &Channel, types: &Types, serving: &'static Serving) -> Result<()> {
    let store: Arc<Mutex<Store<Doc>>> = Arc::default();
    let shared = channel
        .shared_heap()
        .ok_or_else(|| Failure("the channel has no heap".to_owned()))?
        .pool()
        .map_err(fail("heap"))?;
    let document = Signature {
        argument: Some(types.document.id()),
        reply: None,
    };
    let (documents, own) = (Arc::clone(&store), types.clone());
    channel.serve(INSERT, document, move |call: &mut Call| {
        let addr = call.object().ok_or_else(|| bad("no document"))?;
        // SAFETY: admitted as a document; it stays until the handler returns.
        let document = unsafe { Doc::at(addr) };
        let kept = document.keep(&shared, &own).map_err(|e| bad(&e.0))?;
        let count = documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kept);
        serving.answered_alone();
        Answer::bytes(&count.to_le_bytes())
    });
    let found = Signature {
        argument: None,
        reply: Some(types.found.id()),
    };
    let (buffers, found_type) = (Buffers::default(), types.found.clone());
    channel.serve(SEARCH, found, move |call: &mut Call| {
        let heap = call.heap().map_err(internal)?;
        let (value, field) = call
            .bytes()
            .split_first_chunk()
            .ok_or_else(|| bad("a search has a value and a field"))?;
        let field = std::str::from_utf8(field).map_err(|e| bad(&e.to_string()))?;
        let store = store.lock().unwrap_or_else(PoisonError::into_inner);
        let documents = store.search(field, i64::from_le_bytes(*value));
        let (mut reply, release) = buffers
            .take(&heap, &found_type, documents.len() * 8)
            .map_err(internal)?;
        Found::write(reply.bytes(), documents);
        serving.answered_alone();
        Ok(Answer::Object {
            addr: reply.addr(),
            type_id: found_type.id(),
            release,
        })
    });
    Ok(())
}

fn connect(
    tcp: bool,
    trust: Trust,
    wait: Wait,
    at: &Path,
    types: &Types,
) -> Result<vernal_rpc_core::Connection> {
    let options = ConnectOptions {
        trust,
        wait: policy(wait),
        types: Some(types.known()),
        ..ConnectOptions::default()
    };
    let connected = if tcp {
        let address = std::fs::read_to_string(address_file(at)).map_err(fail("address"))?;
        vernal_rpc_core::Connection::connect(&Tcp::new(), &address, &options)
    } else {
        vernal_rpc_core::Connection::connect(&registry()?, &name_of(at), &options)
    };
    connected.map_err(fail("connect"))
}

/// The client's side.
pub struct Connection {
    connection: vernal_rpc_core::Connection,
    /// A connection on which the store's server is trusted, and how to make it.
    store: Option<vernal_rpc_core::Connection>,
    wait: Wait,
    at: PathBuf,
    /// Whether 64 bytes and 4 KiB travel as objects, too.
    plain: bool,
    types: Types,
    buffers: Buffers,
    bytes: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(system: System, wait: Wait, at: &Path) -> Result<Self> {
        let types = Types::new()?;
        Ok(Self {
            connection: connect(system == System::VernalTcp, trust(system), wait, at, &types)?,
            store: None,
            wait,
            at: at.to_owned(),
            plain: system != System::Vernal,
            types,
            buffers: Buffers::default(),
            bytes: vec![0; TEXT_MAX],
        })
    }

    fn store(&mut self) -> Result<vernal_rpc_core::Connection> {
        if self.store.is_none() {
            let made = connect(false, Trust::Plain, self.wait, &self.at, &self.types)?;
            self.store = Some(made);
        }
        self.store
            .clone()
            .ok_or_else(|| Failure("no connection to the store".to_owned()))
    }

    fn object(&mut self, size: usize, seed: u64) -> Result<u64> {
        let heap = self.connection.link().heap().map_err(fail("heap"))?;
        let words = &self.types.words;
        let (mut request, release) = self.buffers.take(&heap, words, size)?;
        payload::fill(request.bytes(), seed);
        let argument = Body::Object {
            addr: request.addr(),
            type_id: words.id(),
        };
        let options = CallOptions {
            reply_type: Some(words.id()),
            ..CallOptions::default()
        };
        let reply = self
            .connection
            .call(OBJECT, argument, &options)
            .map_err(fail("call"))?;
        let addr = reply
            .object()
            .ok_or_else(|| Failure("the reply is no object".to_owned()))?;
        // SAFETY: admitted as words, and kept by `reply`.
        let sum = payload::sum(unsafe { heap::words(addr) });
        // The server is done with the request: it has answered.
        release();
        Ok(sum)
    }
}

impl Caller for Connection {
    fn call(&mut self, size: usize, seed: u64) -> Result<u64> {
        let options = CallOptions::default();
        if size == 0 {
            self.connection
                .call(NOTHING, Body::EMPTY, &options)
                .map_err(fail("call"))?;
            return Ok(0);
        }
        if size > TEXT_MAX || (self.plain && size > INLINE_MAX) {
            return self.object(size, seed);
        }
        let bytes = self.bytes.get_mut(..size).unwrap_or_default();
        payload::fill(bytes, seed);
        let argument = Body::from_bytes(bytes).unwrap_or(Body::EMPTY);
        let reply = self
            .connection
            .call(BYTES, argument, &options)
            .map_err(fail("call"))?;
        Ok(payload::sum(reply.bytes()))
    }

    fn insert(&mut self, document: &[u8]) -> Result<u64> {
        let connection = self.store()?;
        let heap = connection.link().heap().map_err(fail("heap"))?;
        let outgoing = Outgoing::build(&heap, &self.types, document)?;
        let argument = Body::Object {
            addr: outgoing.addr(),
            type_id: self.types.document.id(),
        };
        let reply = connection
            .call(INSERT, argument, &CallOptions::default())
            .map_err(fail("insert"))?;
        outgoing.free(&heap)?;
        let count = reply.bytes().try_into().map(u64::from_le_bytes);
        count.map_err(|_| Failure("the reply is no number".to_owned()))
    }

    fn search(&mut self, field: &str, value: i64, depth: Depth) -> Result<u64> {
        let mut query = value.to_le_bytes().to_vec();
        query.extend(field.as_bytes());
        let argument = Body::from_bytes(&query).unwrap_or(Body::EMPTY);
        let options = CallOptions {
            reply_type: Some(self.types.found.id()),
            ..CallOptions::default()
        };
        let reply = self
            .store()?
            .call(SEARCH, argument, &options)
            .map_err(fail("search"))?;
        let addr = reply
            .object()
            .ok_or_else(|| Failure("the reply is no object".to_owned()))?;
        // SAFETY: admitted as found documents, and kept by `reply`; the documents lie in the channel's heap, which is mapped
        // as long as the connection is.
        let found = unsafe { Found::read(addr) };
        Ok(fold(found.iter().map(|d| &**d), depth))
    }
}
