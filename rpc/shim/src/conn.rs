//! A connection that may use shared memory: what both directions are doing, and who may still change that.
//!
//! A connection begins as an ordinary socket. Each direction goes over to its ring by itself, and never back:
//!
//! - *The sender decides*: once it knows that the peer has mapped its segment, it says after how many bytes of the socket the ring goes on
//!   (the word `SWITCH`), and from then on writes nothing to the socket but bells.
//! - *The receiver counts*: the bytes before the switch are the stream, all later ones are bells. It reads the word again after each read
//!   of the socket, because a bell may have come with the last bytes: the word was published before the bell was sent.
//!
//! So each byte of the stream has one place, whenever either side learns what. Before anything is said (`Unsettled`) either side can stay
//! with the socket for good; it says so, and nobody has to answer.
//!
//! All that changes lies in memory that forked children share, under locks that they share: a child and its parent can both use the
//! connection, as they could use the socket.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use vernal_ring::{Corrupt, Mapped, Sleeper, StreamConsumer, StreamProducer};

use crate::greet::{self, Called, Greeting};
use crate::lock::{Guard, Locked};
use crate::segment::{
    CLOSED, CLOSED_ALL, CLOSED_READING, END, GIVEN_UP, MAPPED, Mapping, STATE, SWITCH, Segment,
    Words,
};

pub(crate) type Memory = Mapped<Words>;

/// Where the incoming bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The socket; the peer has not said more.
    Socket,
    /// So many more bytes of the socket, then the ring.
    Rest(u64),
    /// The ring.
    Ring,
}

/// The incoming direction.
#[derive(Debug)]
pub struct Rx {
    /// Where bytes come from.
    pub source: Source,
    pub(crate) consumer: Option<StreamConsumer<Memory, Memory>>,
    pub(crate) sleeper: Option<Sleeper<Memory>>,
    pub(crate) sleepers: u32,
    /// Bytes taken from the socket.
    pub(crate) from_socket: u64,
    /// The socket has ended: the peer is gone, or will send no bell.
    pub(crate) eof: bool,
    /// The program has shut the direction down.
    pub(crate) shut: bool,
    /// The peer has broken its ring, or a sibling has died within.
    pub(crate) broken: bool,
    /// Reads in a row that found nothing.
    pub(crate) vain: u32,
    /// The process of the one thread that sleeps in the socket and takes its bells; 0: none does.
    pub(crate) leader: u32,
    /// Threads that sleep until that one, or whoever took a bell, has looked.
    pub(crate) followers: u32,
}

/// The outgoing direction.
#[derive(Debug)]
pub struct Tx {
    /// Bytes go into the ring.
    pub switched: bool,
    pub(crate) producer: Option<StreamProducer<Memory, Memory>>,
    pub(crate) sleeper: Option<Sleeper<Memory>>,
    pub(crate) sleepers: u32,
    /// Bytes given to the socket.
    pub(crate) to_socket: u64,
    /// The program has shut the direction down.
    pub(crate) shut: bool,
    /// This direction stays with the socket.
    pub(crate) stays: bool,
    /// As in [`Rx`].
    pub(crate) broken: bool,
    /// How often a write found no room: edges of epoll.
    pub(crate) full: u64,
}

const UNSETTLED: u8 = 0;
const LIVE: u8 = 1;
const SOCKET: u8 = 2;

/// What forked children share.
#[derive(Debug)]
pub(crate) struct Control {
    rx: Locked<Rx>,
    tx: Locked<Tx>,
    phase: AtomicU8,
    welcomed: AtomicBool,
    /// Descriptors in all processes.
    refs: AtomicU32,
    nonblocking: AtomicBool,
    /// The socket says that the peer is gone.
    gone: AtomicBool,
    /// Looks for a welcome so far.
    asked: AtomicU32,
    /// Changes whenever bells were taken: a futex.
    pub(crate) turn: AtomicU32,
    /// Bells that epoll has heard, and nobody has taken from the socket.
    bells: AtomicU32,
}

/// Looks for a welcome before the client stays with the socket: its server accepts in a process without a shim.
const ASK: u32 = 4096;
/// Bells left in the socket before they are taken: each one costs a buffer there.
const BELLS: u32 = 32;
/// Reads in vain before the socket is asked whether the peer is gone.
const VAIN: u32 = 64;

/// The side connection, until both know where they are.
#[derive(Debug)]
struct Side {
    socket: OwnedFd,
    /// The server's segment, for the welcome.
    file: Option<OwnedFd>,
}

/// A connection in this process.
#[derive(Debug)]
pub struct Conn {
    // First: unmapped after nothing.
    control: Mapping,
    own: Segment,
    peer: OnceLock<Segment>,
    side: Locked<Option<Side>>,
    client: bool,
    /// Its descriptors are closed by `exec`.
    marked: AtomicBool,
}

/// Sends one byte on the socket, which wakes whoever waits for it.
fn ring_bell(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    match send(fd, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        // Full of bells: the peer has something to wake up for.
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(e) => Err(e),
    }
}

impl Conn {
    /// A connection that a client has asked for.
    pub fn called(called: Called, nonblocking: bool) -> Result<Conn, Errno> {
        let side = Side {
            socket: called.side,
            file: None,
        };
        Conn::new(called.own, side, true, nonblocking)
    }

    /// A connection that a server has accepted with a hello.
    pub fn accepted(
        side: OwnedFd,
        hello: &Greeting,
        ring: usize,
        nonblocking: bool,
    ) -> Result<Conn, Errno> {
        let peer = hello.segment()?;
        let (own, file) = Segment::own(ring)?;
        let side = Side {
            socket: side,
            file: Some(greet::move_away(file)?),
        };
        let conn = Conn::new(own, side, false, nonblocking)?;
        conn.attach(peer)?;
        Ok(conn)
    }

    fn new(own: Segment, side: Side, client: bool, nonblocking: bool) -> Result<Conn, Errno> {
        const { assert!(size_of::<Control>() <= 4096) };
        let control = Mapping::shared(4096)?;
        let first = Control {
            rx: Locked::new(Rx {
                source: Source::Socket,
                consumer: None,
                sleeper: None,
                sleepers: 0,
                from_socket: 0,
                eof: false,
                shut: false,
                broken: false,
                vain: 0,
                leader: 0,
                followers: 0,
            }),
            tx: Locked::new(Tx {
                switched: false,
                producer: None,
                sleeper: None,
                sleepers: 0,
                to_socket: 0,
                shut: false,
                stays: false,
                broken: false,
                full: 0,
            }),
            phase: AtomicU8::new(UNSETTLED),
            welcomed: AtomicBool::new(false),
            refs: AtomicU32::new(1),
            nonblocking: AtomicBool::new(nonblocking),
            gone: AtomicBool::new(false),
            asked: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            bells: AtomicU32::new(0),
        };
        // SAFETY: new memory of the right size and alignment (a page), which nobody else knows.
        unsafe { control.at().cast::<Control>().write(first) };
        Ok(Conn {
            control,
            own,
            peer: OnceLock::new(),
            side: Locked::new(Some(side)),
            client,
            marked: AtomicBool::new(false),
        })
    }

    pub(crate) fn control(&self) -> &Control {
        // SAFETY: written in `new`, mapped as long as `self`, and shared by design: locks and atomics only.
        unsafe { &*self.control.at().cast::<Control>() }
    }

    /// Both segments are mapped: makes the rings.
    fn attach(&self, peer: Segment) -> Result<(), Errno> {
        let (own_area, peer_area) = (self.own.area(), peer.area());
        let bad = |_| Errno::PROTO;
        let producer = StreamProducer::new(
            own_area,
            self.own.words(own_area.data()),
            self.own.words(own_area.writer()),
            peer.words(peer_area.reader()),
        );
        let consumer = StreamConsumer::new(
            peer_area,
            peer.words(peer_area.data()),
            self.own.words(own_area.reader()),
            peer.words(peer_area.writer()),
        );
        let mut news = Sleeper::new(self.own.words(own_area.reader())).map_err(bad)?;
        let mut room = Sleeper::new(self.own.words(own_area.writer())).map_err(bad)?;
        let (producer, consumer) = (producer.map_err(bad)?, consumer.map_err(bad)?);
        self.peer.set(peer).map_err(|_| Errno::PROTO)?;
        let (mut rx, mut tx) = (self.rx(), self.tx());
        // Threads that sleep since before there was anything to announce it in.
        if rx.sleepers > 0 {
            news.arm();
        }
        if tx.sleepers > 0 {
            room.arm();
        }
        (rx.consumer, rx.sleeper) = (Some(consumer), Some(news));
        (tx.producer, tx.sleeper) = (Some(producer), Some(room));
        Ok(())
    }

    /// The incoming direction.
    #[inline]
    pub fn rx(&self) -> Guard<'_, Rx> {
        let mut rx = self.control().rx.lock();
        rx.broken |= rx.orphan;
        rx
    }

    /// The outgoing direction.
    #[inline]
    pub fn tx(&self) -> Guard<'_, Tx> {
        let mut tx = self.control().tx.lock();
        tx.broken |= tx.orphan;
        tx
    }

    /// A word of the peer's header; 0 as long as there is none.
    #[inline]
    pub fn peer_word(&self, word: usize) -> u64 {
        self.peer.get().map_or(0, |p| p.get(word))
    }

    /// Whether the program wants calls that do not block.
    pub fn nonblocking(&self) -> bool {
        self.control().nonblocking.load(Ordering::Relaxed)
    }

    /// The program has changed that.
    pub fn set_nonblocking(&self, on: bool) {
        self.control().nonblocking.store(on, Ordering::Relaxed);
    }

    /// One more descriptor of it, in this or another process.
    pub fn add_descriptors(&self, more: u32) {
        self.control().refs.fetch_add(more, Ordering::Relaxed);
    }

    /// One less. The last one says good-bye.
    pub fn drop_descriptor(&self) {
        if self.control().refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.give_up();
            self.own.set(CLOSED, CLOSED_ALL | CLOSED_READING);
        }
    }

    /// The lock of what a child does not share, for `fork`.
    pub fn side_lock(&self) -> &crate::lock::Lock {
        self.side.raw()
    }

    /// Whether it stays with the socket for good, so that the shim can forget it.
    #[inline]
    pub fn is_socket(&self) -> bool {
        self.control().phase.load(Ordering::Acquire) == SOCKET
    }

    /// Whether the descriptors have still to be marked: true once.
    #[inline]
    pub fn must_mark(&self) -> bool {
        !self.marked.load(Ordering::Relaxed) && !self.marked.swap(true, Ordering::Relaxed)
    }

    /// Whether the sides have greeted each other.
    #[inline]
    pub fn is_live(&self) -> bool {
        self.control().phase.load(Ordering::Acquire) == LIVE
    }

    /// Stays with the socket, if nothing is settled yet. Whether it does.
    pub fn give_up(&self) -> bool {
        let mut side = self.side.lock();
        let phase = &self.control().phase;
        let was = phase.compare_exchange(UNSETTLED, SOCKET, Ordering::AcqRel, Ordering::Acquire);
        if was.is_ok() {
            self.own.set(STATE, GIVEN_UP);
            *side = None;
        }
        was != Err(LIVE)
    }

    /// To be called before each use: sends or looks for the welcome. Whether the connection is the shim's.
    #[inline]
    pub fn settle(&self) -> bool {
        match self.control().phase.load(Ordering::Acquire) {
            LIVE => !self.peer_gave_up(),
            UNSETTLED => self.greet(),
            _ => false,
        }
    }

    #[cold]
    fn greet(&self) -> bool {
        let control = self.control();
        let mut guard = self.side.lock();
        let Some(side) = guard.as_ref() else {
            return control.phase.load(Ordering::Acquire) == LIVE;
        };
        let done = if self.client {
            match greet::receive(&side.socket) {
                Ok(welcome) => welcome.segment().and_then(|peer| self.attach(peer)),
                Err(Errno::AGAIN) if control.asked.fetch_add(1, Ordering::Relaxed) < ASK => {
                    return true;
                }
                Err(e) => Err(e),
            }
        } else if control.welcomed.swap(true, Ordering::AcqRel) {
            // A sibling has sent it.
            Ok(())
        } else {
            let file = side.file.as_ref().ok_or(Errno::PROTO);
            file.and_then(|f| {
                greet::send(
                    &side.socket,
                    &[0; 16],
                    self.own.area().capacity(),
                    f.as_fd(),
                )
            })
        };
        let (phase, state) = match done {
            Ok(()) => (LIVE, MAPPED),
            Err(_) => (SOCKET, GIVEN_UP),
        };
        // Before another thread of this side goes over: the peer has to be able to answer with bells.
        self.own.set(STATE, state);
        control.phase.store(phase, Ordering::Release);
        *guard = None;
        phase == LIVE
    }

    /// Whether the client stays with the socket, so that its server can forget the connection, too.
    #[inline]
    fn peer_gave_up(&self) -> bool {
        let gave_up = self.peer_word(STATE) == GIVEN_UP;
        if gave_up {
            self.control().phase.store(SOCKET, Ordering::Release);
        }
        gave_up
    }

    /// Lets the outgoing direction go over to the ring, when it can.
    #[inline]
    pub fn switch(&self, tx: &mut Tx) {
        if tx.switched || tx.stays || !self.is_live() || self.peer_word(STATE) != MAPPED {
            return;
        }
        tx.switched = true;
        self.own.set(SWITCH, tx.to_socket + 1);
    }

    /// Whether room is the kernel's to tell, and how often there was none so far.
    pub fn socket_room(&self) -> Option<u64> {
        let tx = self.tx();
        (!tx.switched).then_some(tx.full)
    }

    /// Notices that the incoming direction has gone over.
    #[inline]
    pub fn follow(&self, rx: &mut Rx) {
        if rx.source == Source::Socket && rx.consumer.is_some() {
            let said = self.peer_word(SWITCH);
            if said != 0 {
                // A peer that says less than was taken already has sent bells as bytes: it harms its own stream.
                rx.source = Source::Rest((said - 1).saturating_sub(rx.from_socket));
            }
        }
        if rx.source == Source::Rest(0) {
            rx.source = Source::Ring;
        }
    }

    /// Wakes a peer that waits for room, from the incoming direction. The outgoing one goes over first: before that, a bell
    /// would be a byte of the stream.
    pub fn bell_for_room(&self, fd: BorrowedFd<'_>) {
        let mut tx = self.tx();
        self.switch(&mut tx);
        if tx.switched {
            self.bell(fd);
        }
    }

    /// Wakes the peer; a broken pipe is remembered. Only when the outgoing direction has gone over.
    pub fn bell(&self, fd: BorrowedFd<'_>) {
        if ring_bell(fd).is_err() {
            self.control().gone.store(true, Ordering::Relaxed);
        }
    }

    /// Whether nobody will read what is written.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.control().gone.load(Ordering::Relaxed) || self.peer_word(CLOSED) & CLOSED_READING != 0
    }

    /// Whether the peer has closed the connection.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.peer_word(CLOSED) & CLOSED_ALL != 0
    }

    /// Takes bells from the socket, and notices its end. Only when the incoming direction has gone over.
    pub fn drain(&self, rx: &mut Rx, fd: BorrowedFd<'_>) {
        // A thread that sleeps in the socket is woken by its bell only if nobody takes it before.
        if rx.source != Source::Ring || rx.leader != 0 {
            return;
        }
        self.control().bells.store(0, Ordering::Relaxed);
        self.next_turn(rx);
        for _ in 0..8 {
            let mut bells = [0; 256];
            match recv(fd, &mut bells, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return self.ended(rx, fd),
                Ok((n, _)) if n == bells.len() => {}
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.ended(rx, fd),
            }
        }
    }

    /// The socket has ended.
    pub fn ended(&self, rx: &mut Rx, fd: BorrowedFd<'_>) {
        rx.eof = true;
        // A peer that has only shut its direction down still reads.
        if kernel_events(fd, PollFlags::RDHUP).intersects(PollFlags::HUP | PollFlags::ERR) {
            self.control().gone.store(true, Ordering::Relaxed);
        }
    }

    /// epoll has heard a bell. Most stay in the socket, since each new one is an edge of its own.
    pub fn heard(&self, fd: BorrowedFd<'_>, ended: bool) {
        let bells = self.control().bells.fetch_add(1, Ordering::Relaxed);
        if ended || bells >= BELLS {
            let mut rx = self.rx();
            self.drain(&mut rx, fd);
            if ended && rx.source == Source::Ring {
                self.ended(&mut rx, fd);
            }
        }
    }

    /// A read found nothing: now and then it is the socket that says why.
    pub fn in_vain(&self, rx: &mut Rx, fd: BorrowedFd<'_>) {
        rx.vain += 1;
        if rx.vain.is_multiple_of(VAIN) {
            self.drain(rx, fd);
        }
    }

    /// A fork is near: a client that waits for its welcome stays with the socket, for only one of both processes would hear it.
    pub fn before_fork(&self) {
        if self.client {
            self.give_up();
        }
    }

    /// Ends the outgoing direction: after what is in the ring. False: the socket has to do it.
    pub fn end_writing(&self, fd: BorrowedFd<'_>) -> bool {
        let mut guard = self.tx();
        let tx = &mut *guard;
        self.switch(tx);
        tx.shut = true;
        if !tx.switched {
            tx.stays = true;
            return false;
        }
        if let Some(producer) = &mut tx.producer {
            self.own.set(END, producer.written() + 1);
            if producer.must_wake() {
                self.bell(fd);
            }
        }
        true
    }

    /// Ends the incoming direction: what comes later is dropped by its sender.
    pub fn end_reading(&self) {
        self.rx().shut = true;
        self.own.set(CLOSED, CLOSED_READING);
    }

    /// Whether the peer has said where the stream ends.
    #[inline]
    pub fn has_end(&self) -> bool {
        self.peer_word(END) != 0
    }

    /// Whether the stream has ended where the consumer is.
    pub fn at_end(&self, rx: &mut Rx) -> Result<bool, Corrupt> {
        let Some(consumer) = &mut rx.consumer else {
            return Ok(rx.eof || rx.shut);
        };
        let end = self.peer_word(END);
        let over = rx.eof || rx.shut || self.is_closed() || end == consumer.taken().wrapping_add(1);
        // What was written before the end was published before it.
        Ok(over && consumer.refresh()? == consumer.taken())
    }
}

/// What the kernel says of the socket now.
pub fn kernel_events(fd: BorrowedFd<'_>, wanted: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, wanted)];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(1) => fds.first().map_or(PollFlags::empty(), |fd| fd.revents()),
        _ => PollFlags::empty(),
    }
}
