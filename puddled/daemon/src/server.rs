//! The listening socket, the threads of connections, and the end of it all.
//!
//! A connection has a thread: what a slow or hostile client delays is its own thread and nothing else. Threads are bounded by the
//! number of connections, which is bounded for all and for each user.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, shutdown, socket_with,
};
use vernal_puddled_proto::{ErrorCode, Failure};

use crate::access::Peer;
use crate::client::Client;
use crate::state::Shared;
use crate::{session, settle};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Stack of a connection's thread. Recovery runs on it; nothing there recurses.
const STACK: usize = 512 << 10;
/// How long the end waits for requests that are being answered.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// A number of things that may go on at a time.
#[derive(Debug)]
pub(crate) struct Permits {
    free: Mutex<usize>,
    given: Condvar,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub fn new(count: usize) -> Self {
        Permits {
            free: Mutex::new(count),
            given: Condvar::new(),
        }
    }

    pub fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .given
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given.notify_one();
    }
}

/// Requests that are being answered.
#[derive(Debug, Default)]
pub(crate) struct Work {
    count: Mutex<usize>,
    none: Condvar,
}

impl Work {
    fn change(&self, by: isize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            self.none.notify_all();
        }
    }

    /// Waits until nothing goes on; `false` when that takes longer than `patience`.
    fn wait(&self, patience: Duration) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, _) = self
            .none
            .wait_timeout_while(count, patience, |n| *n != 0)
            .unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

impl Shared {
    /// Runs a request's work; the end waits for it.
    pub fn work<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Done<'a>(&'a Work);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.change(-1);
            }
        }
        self.work.change(1);
        let _done = Done(&self.work);
        f()
    }
}

/// Makes a listening socket at `path`.
pub(crate) fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let addr = SocketAddrUnix::new(path)?;
    let new = || {
        socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
    };
    // A socket that nobody listens at was left by a puddled that was killed; one that answers is another puddled's.
    if path.exists() {
        match connect(new()?, &addr) {
            Err(Errno::CONNREFUSED) => std::fs::remove_file(path)?,
            Ok(()) => return Err(Errno::ADDRINUSE.into()),
            Err(e) => return Err(e.into()),
        }
    }
    let socket = new()?;
    bind(&socket, &addr)?;
    // Everybody may connect: who may do what is decided for each pool, by the credentials that the kernel vouches for.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(path, mode)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Ends a running puddled from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    wake: Arc<OwnedFd>,
    shared: Arc<Shared>,
}

impl Stopper {
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Stopper {
            wake: Arc::new(wake),
            shared,
        })
    }

    /// No request begins any more, and [`crate::Daemon::serve`] returns when those that have begun are answered. Clients keep what
    /// they have open: what they leave is settled by the next start.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

/// Accepts connections until `stopper` stops it.
pub(crate) fn serve(shared: &Arc<Shared>, listener: &OwnedFd, stopper: &Stopper) -> io::Result<()> {
    while !shared.stopping.load(Ordering::SeqCst) {
        let mut ready = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(stopper.wake.as_fd(), PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let [new, _] = &ready;
        if new.revents().is_empty() {
            continue;
        }
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => admit(shared, socket),
            Err(Errno::INTR | Errno::AGAIN | Errno::CONNABORTED) => {}
            Err(e @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                // The connection stays in the queue: a moment's pause, or this would spin.
                tracing::error!(error = %e, "a connection cannot be accepted; raise the limit of open files");
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => return Err(e.into()),
        }
    }
    if !shared.work.wait(LAST_REQUESTS) {
        tracing::warn!("some requests are still being answered; ending all the same");
    }
    let state = shared.state();
    for (socket, _) in state.clients.values() {
        let _ = shutdown(&**socket, Shutdown::Both);
    }
    Ok(())
}

/// Gives a connection a thread, or says why not.
fn admit(shared: &Arc<Shared>, socket: OwnedFd) {
    let peer = match session::peer(&socket) {
        Ok(peer) => peer,
        Err(e) => {
            tracing::warn!(error = %e, "a connection without credentials was dropped");
            shared.counters.refused();
            return;
        }
    };
    let socket = Arc::new(socket);
    let id = match enter(shared, &socket, &peer) {
        Ok(id) => id,
        Err(failure) => {
            tracing::warn!(
                pid = peer.pid,
                uid = peer.uid,
                text = failure.text,
                "connection refused"
            );
            shared.counters.refused();
            session::refuse(&socket, failure);
            return;
        }
    };
    shared.counters.accepted();
    let thread = std::thread::Builder::new()
        .name(format!("client-{id}"))
        .stack_size(STACK);
    let (theirs, ours) = (shared.clone(), socket.clone());
    let started = thread.spawn(move || connection(&theirs, &ours, Client::new(id, peer)));
    if let Err(e) = started {
        tracing::error!(error = %e, "no thread for a connection");
        shared.state().clients.remove(&id);
        session::refuse(
            &socket,
            Failure::new(
                ErrorCode::Limit,
                format!("puddled has no thread left ({e}): try again later"),
            ),
        );
    }
}

fn enter(shared: &Shared, socket: &Arc<OwnedFd>, peer: &Peer) -> Result<u64, Failure> {
    let mut state = shared.state();
    if state.clients.len() >= shared.max_clients {
        return Err(Failure::new(
            ErrorCode::Limit,
            format!(
                "puddled has {} connections, and may have no more: close some, or raise --max-clients",
                shared.max_clients
            ),
        ));
    }
    let same = state.clients.values().filter(|c| c.1 == peer.uid).count();
    if !peer.admin && same >= shared.max_clients_per_user {
        return Err(Failure::new(
            ErrorCode::Limit,
            format!(
                "user {} has {same} connections, and no user may have more: close some",
                peer.uid
            ),
        ));
    }
    let id = state.next_client;
    state.next_client += 1;
    state.clients.insert(id, (socket.clone(), peer.uid));
    Ok(id)
}

/// The life of a connection.
fn connection(shared: &Arc<Shared>, socket: &Arc<OwnedFd>, mut client: Client) {
    let began = Instant::now();
    session::serve(shared, socket, &mut client);
    let id = client.id;
    // At once: settling may wait for a process, and names, addresses and quotas of RPC need not.
    shared.state().end_rpc(id);
    // When puddled ends, its clients have not: the next start settles what they leave.
    if shared.stopping.load(Ordering::SeqCst) {
        std::mem::forget(client.imports);
        return;
    }
    settle::end(shared, client);
    // Until here it counts: who leaves much behind cannot come back for more at once.
    shared.state().clients.remove(&id);
    tracing::debug!(
        client = id,
        seconds = began.elapsed().as_secs(),
        "client gone"
    );
}
