//! iceoryx2's request-response: payloads are loaned, written and read in place. Blocking sides wait for its events.

use super::fail;
use crate::plan::Wait;
use crate::worker::{Caller, Serving};
use crate::{Failure, Result, payload};
use iceoryx2::port::client::Client;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::*;
use iceoryx2_cal::event::ListenerWaitError;
use std::mem::MaybeUninit;
use std::path::Path;

const MAX: usize = 1 << 20;
/// Clients of one server.
const CLIENTS: usize = 16;
/// A payload is never empty; one of this size is a no-op.
const NOTHING: usize = 8;

type Calls = iceoryx2::service::port_factory::request_response::PortFactory<
    ipc::Service,
    [u8],
    (),
    [u8],
    (),
>;

/// What both sides open.
struct Ports {
    node: Node<ipc::Service>,
    calls: Calls,
    name: String,
}

impl Ports {
    fn open(at: &Path) -> Result<Self> {
        let name = at.to_string_lossy().into_owned();
        let node = NodeBuilder::new()
            .create::<ipc::Service>()
            .map_err(fail("node"))?;
        let service = name
            .as_str()
            .try_into()
            .map_err(|e| Failure(format!("{name}: {e:?}")))?;
        let calls = node
            .service_builder(&service)
            .request_response::<[u8], [u8]>()
            .max_clients(CLIENTS)
            .max_nodes(CLIENTS)
            .open_or_create()
            .map_err(fail("service"))?;
        Ok(Self { node, calls, name })
    }

    /// The notifier and the listener of one direction, `requests` or `replies`.
    fn event(
        &self,
        direction: &str,
    ) -> Result<iceoryx2::service::port_factory::event::PortFactory<ipc::Service>> {
        let name = format!("{}/{direction}", self.name);
        let service = name
            .as_str()
            .try_into()
            .map_err(|e| Failure(format!("{name}: {e:?}")))?;
        self.node
            .service_builder(&service)
            .event()
            .max_listeners(CLIENTS)
            .max_notifiers(CLIENTS)
            .max_nodes(CLIENTS)
            .open_or_create()
            .map_err(fail("event"))
    }
}

/// A listener for one direction and a notifier for the other.
struct Events {
    listener: Listener<ipc::Service>,
    notifier: Notifier<ipc::Service>,
}

impl Events {
    fn open(ports: &Ports, wait: Wait, listen: &str, notify: &str) -> Result<Option<Self>> {
        if wait == Wait::Poll {
            return Ok(None);
        }
        Ok(Some(Self {
            listener: ports
                .event(listen)?
                .listener_builder()
                .create()
                .map_err(fail("listener"))?,
            notifier: ports
                .event(notify)?
                .notifier_builder()
                .create()
                .map_err(fail("notifier"))?,
        }))
    }
}

fn pause(events: &Option<Events>) -> Result<()> {
    match events {
        None => std::hint::spin_loop(),
        Some(events) => {
            // The harness stops and continues processes: that is no event, and no error.
            match events.listener.blocking_wait(|_| {}) {
                Ok(_) | Err(ListenerWaitError::InterruptSignal) => {}
                Err(e) => return Err(fail("wait")(e)),
            }
        }
    }
    Ok(())
}

fn wake(events: &Option<Events>) -> Result<()> {
    if let Some(events) = events {
        events.notifier.notify().map_err(fail("notify"))?;
    }
    Ok(())
}

/// Loaned memory as bytes, all of which the caller writes.
fn bytes(loaned: &mut [MaybeUninit<u8>]) -> &mut [u8] {
    // SAFETY: shared memory that the kernel has filled with zeroes or an earlier call with bytes: any value is one.
    unsafe { std::slice::from_raw_parts_mut(loaned.as_mut_ptr().cast(), loaned.len()) }
}

/// One thread answers all clients.
pub fn serve(wait: Wait, at: &Path, serving: &'static Serving) -> Result<()> {
    let ports = Ports::open(at)?;
    let server: Server<ipc::Service, [u8], (), [u8], ()> = ports
        .calls
        .server_builder()
        .initial_max_slice_len(MAX)
        .create()
        .map_err(fail("server"))?;
    let events = Events::open(&ports, wait, "requests", "replies")?;
    serving.ready();
    loop {
        let Some(request) = server.receive().map_err(fail("receive"))? else {
            pause(&events)?;
            continue;
        };
        let size = request.payload().len();
        let mut response = request.loan_slice_uninit(size).map_err(fail("loan"))?;
        payload::answer(request.payload(), bytes(response.payload_mut()));
        // SAFETY: every byte has been written: sizes are multiples of 8.
        let response = unsafe { response.assume_init() };
        serving.answered_alone();
        response.send().map_err(fail("send"))?;
        wake(&events)?;
    }
}

/// The client's side.
pub struct Connection {
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    events: Option<Events>,
    _ports: Ports,
}

impl Connection {
    /// Opens the service.
    pub fn open(wait: Wait, at: &Path) -> Result<Self> {
        let ports = Ports::open(at)?;
        let client = ports
            .calls
            .client_builder()
            .initial_max_slice_len(MAX)
            .create()
            .map_err(fail("client"))?;
        Ok(Self {
            client,
            events: Events::open(&ports, wait, "replies", "requests")?,
            _ports: ports,
        })
    }
}

impl Caller for Connection {
    fn call(&mut self, size: usize, seed: u64) -> Result<u64> {
        let mut request = self
            .client
            .loan_slice_uninit(size.max(NOTHING))
            .map_err(fail("loan"))?;
        payload::fill(bytes(request.payload_mut()), seed);
        // SAFETY: every byte has been written: sizes are multiples of 8.
        let request = unsafe { request.assume_init() };
        let pending = request.send().map_err(fail("send"))?;
        wake(&self.events)?;
        loop {
            if let Some(response) = pending.receive().map_err(fail("receive"))? {
                let sum = payload::sum(response.payload());
                return Ok(if size == 0 { 0 } else { sum });
            }
            pause(&self.events)?;
        }
    }
}
