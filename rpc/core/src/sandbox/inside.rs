//! The helper's life: it takes calls, admits their arguments, runs handlers, answers.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vernal_format::Uuid;
use vernal_pool::Pool;
use vernal_pool::foreign::ForeignHeap;
use vernal_pool::source::{GrantedPuddle, JournalGrant, PoolInfo, PoolSource};
use vernal_sandbox::{Inside, Turn};

use super::Setup;
use super::turns::{self, CALL, GO, GROW, HELLO, PEER, REPLIES};
use crate::error::{Code, Error, Failure};
use crate::message::{Body, Kind, Message};
use crate::options::{Passed, Trust, Types};
use crate::server::call::{failed, perform};
use crate::server::conn::{Client, Running};
use crate::server::methods::Snapshot;
use crate::shm::{Inspector, Limits};
use crate::transport::{Admitted, Link, Peer, Tx};

type Room = Arc<Mutex<Inside>>;

fn enter(room: &Room) -> MutexGuard<'_, Inside> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something that is answered by [`GO`]; `None`: the server is gone, or refuses.
fn ask(inside: &mut Inside, turn: &Turn, bytes: &[u8]) -> Option<Turn> {
    inside.say(turn, bytes);
    let answer = inside.wait(&mut Vec::new())?;
    (answer.kind == GO && answer.code == 0).then_some(answer)
}

/// Where the helper's own heap, which replies come from, gets its memory.
struct Replies(Room);

impl PoolSource for Replies {
    fn describe(&self) -> PoolInfo {
        PoolInfo {
            name: "replies".to_owned(),
            direct: false,
            read_only: false,
        }
    }

    fn puddles(&self) -> Result<Vec<GrantedPuddle>, vernal_pool::Error> {
        Ok(Vec::new())
    }

    fn grow(&self, size: u64) -> Result<GrantedPuddle, vernal_pool::Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let mut inside = enter(&self.0);
        let turn = Turn {
            kind: GROW,
            aux: [size, 0],
            ..Turn::default()
        };
        let lent = ask(&mut inside, &turn, &[]).and_then(|_| inside.lent());
        let Some(lent) = lent.filter(|lent| lent.kind == REPLIES) else {
            return Err(vernal_pool::Error::Access {
                what: format!(
                    "{size} bytes more for replies of a sandbox: reply with less, or raise max_bytes"
                ),
            });
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut uuid = [0; 16];
        let halves = [number.to_le_bytes(), lent.addr.to_le_bytes()];
        uuid.iter_mut()
            .zip(halves.iter().flatten())
            .for_each(|(to, from)| *to = *from);
        Ok(GrantedPuddle {
            uuid: Uuid(uuid),
            addr: lent.addr,
            size: lent.size,
            file: lent.file,
            name: format!("replies {number}"),
        })
    }

    fn shrink(&self, _puddle: Uuid) -> Result<(), vernal_pool::Error> {
        // The server keeps it until the helper ends.
        Ok(())
    }

    fn journal(&self) -> Result<Option<JournalGrant>, vernal_pool::Error> {
        Ok(None)
    }

    fn close(self: Box<Self>) -> Result<(), vernal_pool::Error> {
        Ok(())
    }
}

/// The client as the helper knows it.
struct HelperLink {
    room: Room,
    peer: Peer,
    heap: ForeignHeap,
    inspector: Arc<Inspector>,
    trust: Trust,
    replies: OnceLock<Pool>,
}

impl Link for HelperLink {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn acknowledge(&self) -> Result<(), Error> {
        Ok(())
    }

    fn admit(&self, body: &Body, expected: u64) -> Result<Admitted, Error> {
        let unverified = |why: String| Error::Unverified {
            peer: self.peer.name.clone(),
            why,
        };
        let (addr, type_id) = match *body {
            Body::Object { addr, type_id } => (addr, type_id),
            _ => return Err(unverified("it is no object of the client's heap".into())),
        };
        if type_id != expected {
            return Err(unverified(format!(
                "an object of type {type_id:#x}, where one of type {expected:#x} is expected"
            )));
        }
        match self.trust {
            Trust::Plain if addr.is_multiple_of(8) && self.heap.contains(addr, 8) => Ok(Admitted {
                addr,
                passed: Passed::Plain,
                guard: Box::new(()),
            }),
            Trust::Plain => Err(unverified(format!("{addr:#x} is no object of its heap"))),
            Trust::Verify => {
                let copied = self.inspector.copy(&self.heap, addr, expected);
                let (addr, arena) = copied.map_err(unverified)?;
                Ok(Admitted {
                    addr,
                    passed: Passed::Copied,
                    guard: Box::new(arena),
                })
            }
        }
    }

    fn heap(&self) -> Result<Pool, Error> {
        if let Some(pool) = self.replies.get() {
            return Ok(pool.clone());
        }
        let source = Box::new(Replies(Arc::clone(&self.room)));
        let pool = Pool::create_volatile(source).map_err(|e| Error::Registry {
            doing: "making a heap for replies",
            why: e.to_string(),
        })?;
        Ok(self.replies.get_or_init(|| pool).clone())
    }

    fn close(&self) {}
}

/// Items of streams go to the server one by one, which waits for its client's credit.
struct Items {
    room: Room,
    running: Arc<Running>,
}

impl Tx for Items {
    fn try_send(&mut self, message: &Message) -> Result<bool, Error> {
        let (turn, bytes) = turns::answer(message);
        match ask(&mut enter(&self.room), &turn, bytes) {
            Some(_) => {
                self.running.add_credit(1);
                Ok(true)
            }
            None => Err(Error::Closed {
                what: "the stream".into(),
            }),
        }
    }
}

/// A client's helper.
struct Helper<'a> {
    room: Room,
    link: Arc<HelperLink>,
    client: Client,
    running: Arc<Running>,
    methods: &'a Snapshot,
}

/// What a helper does until its server is gone.
pub(super) fn live(inside: Inside, setup: &Setup, methods: &Snapshot) {
    let room: Room = Arc::new(Mutex::new(inside));
    let mut bytes = Vec::new();
    let hello = enter(&room).wait(&mut bytes);
    let Some(hello) = hello.filter(|turn| turn.kind == HELLO) else {
        return;
    };
    let some = |n: u64| u32::try_from(n).ok();
    let [uid, gid, pid, _] = hello.words;
    let link = Arc::new(HelperLink {
        room: Arc::clone(&room),
        peer: Peer {
            name: String::from_utf8_lossy(&bytes).into_owned(),
            uid: some(uid),
            gid: some(gid),
            pid: some(pid),
        },
        heap: ForeignHeap::new("client"),
        inspector: Inspector::new(&Limits {
            trust: setup.trust,
            budget: setup.budget,
            types: Types::Given(Arc::clone(&setup.types)),
            lends: false,
        }),
        trust: setup.trust,
        replies: OnceLock::new(),
    });
    let running = Arc::new(Running::default());
    let items = Box::new(Items {
        room: Arc::clone(&room),
        running: Arc::clone(&running),
    });
    let shared: Arc<dyn Link> = Arc::<HelperLink>::clone(&link);
    let helper = Helper {
        client: Client::new(shared, items, None),
        room,
        link,
        running,
        methods,
    };
    let go = Turn {
        kind: GO,
        ..Turn::default()
    };
    enter(&helper.room).say(&go, &[]);
    loop {
        // A statement of its own: the handler must find the room free.
        let turn = enter(&helper.room).wait(&mut bytes);
        match turn {
            Some(turn) if turn.kind == CALL => {
                let message = helper.call(&turn, &bytes);
                let (turn, data) = turns::answer(&message);
                enter(&helper.room).say(&turn, data);
            }
            _ => return,
        }
    }
}

impl Helper<'_> {
    fn call(&self, turn: &Turn, bytes: &[u8]) -> Message {
        // The server has copied the last reply.
        self.client.release_all();
        let [left, lent] = turn.aux;
        if let Err(failure) = self.take(lent) {
            return failed(0, &failure);
        }
        let message = Message {
            kind: Kind::Call,
            call: 0,
            method: turn.code,
            deadline: left,
            body: turns::body(turn, bytes).unwrap_or(Body::EMPTY),
        };
        let deadline = crate::server::call::until(left);
        let at = self.methods.binary_search_by_key(&turn.code, |(n, _)| *n);
        let Some((_, method)) = at.ok().and_then(|at| self.methods.get(at)) else {
            return failed(
                0,
                &Failure::new(Code::UnknownMethod, "unknown in the sandbox"),
            );
        };
        self.running.begin(0);
        perform(
            &self.client,
            &self.running,
            method,
            &message,
            deadline,
            None,
        )
    }

    /// Takes what the server lends with a call.
    fn take(&self, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            let lent = enter(&self.room).lent();
            let Some(lent) = lent.filter(|lent| lent.kind == PEER) else {
                return Err(Failure::new(Code::Internal, "the sandbox got no memory"));
            };
            let added = self.link.heap.add(&lent.file, lent.addr, lent.size);
            added.map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
        }
        Ok(())
    }
}
