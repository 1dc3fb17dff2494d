//! A client that uses everything.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use vernal::{PVec, Tx};
use vernal_rpc::{Code, Connection, Error, Failure, Passed};

use crate::Result;
use crate::server::copy;
use crate::types::*;

const PATIENCE: Duration = Duration::from_secs(60);

macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            return Err(format!("{}:{}: {}", file!(), line!(), stringify!($condition)).into());
        }
    };
}

/// Until it is so; an error after a minute.
fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > until {
            return Err(format!("not within a minute: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn leaf<'p>(heap: &Tx<'p>, text: &str) -> std::result::Result<Leaf<'p>, vernal::Error> {
    Ok(Leaf {
        text: heap.string(text)?,
        kind: Kind::Leaf,
    })
}

/// A tree with something in each of its fields.
pub fn tree<'p>(heap: &Tx<'p>, depth: u32) -> std::result::Result<Tree<'p>, vernal::Error> {
    let mut children = PVec::new();
    let mut maybe = None;
    if depth > 0 {
        children.push(heap, tree(heap, depth - 1)?)?;
        children.push(heap, tree(heap, depth - 1)?)?;
        maybe = Some(heap.alloc(tree(heap, depth - 1)?)?);
    }
    let boxed = heap.alloc(leaf(heap, "boxed")?)?;
    let mut boxes = PVec::new();
    boxes.push(heap, heap.alloc(leaf(heap, "in a vector")?)?)?;
    Ok(Tree {
        name: heap.string("Bäume, and a name that is not short")?,
        kinds: [Kind::Leaf, Kind::Inner, Kind::Other],
        is_root: depth == 0,
        letter: 'ß',
        wide: Wide::Low,
        back: Some(vernal::Ptr::to(&boxed)),
        boxed,
        maybe,
        children,
        pair: [heap.string("one")?, heap.string("")?],
        rows: [leaf(heap, "first")?, leaf(heap, "second")?],
        numbers: heap.vec([1, 2, u64::MAX])?,
        letters: heap.vec("aäβ😀".chars())?,
        flags: heap.vec([true, false, true])?,
        boxed_letter: heap.alloc('x')?,
        boxed_flag: heap.alloc(true)?,
        boxed_row: heap.alloc([1, 2, 3, 4])?,
        boxes,
    })
}

fn is_same(a: &Tree<'_>, b: &Tree<'_>) -> bool {
    let leaf = |a: &Leaf<'_>, b: &Leaf<'_>| a.text == b.text && a.kind == b.kind;
    a.name == b.name
        && a.kinds == b.kinds
        && a.is_root == b.is_root
        && (a.letter, a.wide) == (b.letter, b.wide)
        && leaf(&a.boxed, &b.boxed)
        && a.back.is_some_and(|p| p.is(&a.boxed)) == b.back.is_some_and(|p| p.is(&b.boxed))
        && a.pair.iter().zip(&b.pair).all(|(a, b)| a == b)
        && a.rows.iter().zip(&b.rows).all(|(a, b)| leaf(a, b))
        && a.numbers == b.numbers
        && a.letters == b.letters
        && a.flags == b.flags
        && (*a.boxed_letter, *a.boxed_flag, *a.boxed_row)
            == (*b.boxed_letter, *b.boxed_flag, *b.boxed_row)
        && a.boxes.len() == b.boxes.len()
        && a.boxes.iter().zip(&b.boxes).all(|(a, b)| leaf(a, b))
        && a.children.len() == b.children.len()
        && a.children
            .iter()
            .zip(&b.children)
            .all(|(a, b)| is_same(a, b))
        && match (&a.maybe, &b.maybe) {
            (Some(a), Some(b)) => is_same(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
}

const PLAINEST: Plain = Plain {
    number: 7,
    letter: 'ä',
    kind: Kind::Other,
    flag: true,
    rest: *b"resttt",
};

fn values(conn: &Connection) -> Result<()> {
    let mut argument = conn.build::<Tree>(|heap| tree(heap, 3))?;
    let reply = conn.call(ECHO, &argument)?;
    ensure!(is_same(&argument, &reply));
    ensure!(reply.passed() == Passed::Copied);
    argument.change(|heap, tree| {
        tree.name.set(heap, "another")?;
        tree.children.clear();
        tree.maybe = None;
        Ok(())
    })?;
    let again = conn.call(ECHO, &argument)?;
    ensure!(again.name == "another" && again.children.is_empty() && again.maybe.is_none());
    ensure!(is_same(&argument, &again) && reply.children.len() == 2);
    let copied = conn.call_with(ECHO, |heap| copy(heap, &reply))?;
    ensure!(is_same(&copied, &reply));

    let plain = conn.call(PLAIN, &PLAINEST)?;
    ensure!(*plain == PLAINEST && plain.passed() == Passed::Inline);
    let built = conn.build::<Plain>(|_| Ok(PLAINEST))?;
    ensure!(*conn.call(PLAIN, &built)? == PLAINEST);
    let object = conn.call(OBJECT, &PLAINEST)?;
    ensure!(*object == PLAINEST && object.passed() == Passed::Copied);
    let large = Large {
        numbers: std::array::from_fn(|n| n as u64),
    };
    ensure!(conn.call(LARGE, &large)?.numbers == large.numbers);
    let padded = Padded { small: 3, large: 9 };
    ensure!(*conn.call_with(PADDED, |_| Ok(padded))? == padded);
    let table = conn.call(TABLE, &())?;
    ensure!(table.text == "for all" && table.kind == Kind::Other);

    let dropped = *conn.call(DROPS, &())?;
    for _ in 0..500 {
        ensure!(conn.call(COUNTED, &())?.text == "a reply");
    }
    // The server's three threads may run the question before the last release.
    eventually("every reply is dropped, once", || {
        Ok(*conn.call(DROPS, &())? == dropped + 1000)
    })
}

fn failures(conn: &Connection) -> Result<()> {
    match conn.call(FAIL, &77) {
        Err(Error::Remote(Failure {
            code: Code::Application(77),
            text,
        })) => ensure!(text == "code 77, as asked"),
        other => return Err(format!("{other:?}").into()),
    }
    match conn.call(FAIL, &0) {
        Err(Error::Remote(Failure {
            code: Code::Internal,
            text,
        })) => ensure!(text.ends_with("panicked: as asked")),
        other => return Err(format!("{other:?}").into()),
    }
    let none = conn.call(NONE, &());
    ensure!(matches!(&none, Err(Error::Remote(f)) if f.code == Code::UnknownMethod));
    let late = conn.timeout(Duration::from_millis(20)).call(HANG, &0);
    ensure!(matches!(late, Err(Error::DeadlineExceeded(_))));
    Ok(())
}

fn streams(conn: &Connection) -> Result<()> {
    let numbers: Result<Vec<u64>> = conn.stream(COUNT, &1000)?.map(|n| Ok(*n?)).collect();
    ensure!(numbers?.into_iter().eq(0..1000));
    ensure!(conn.stream(COUNT, &0)?.next().is_none());
    ensure!(conn.stream(TEXTS, &0)?.next().is_none());
    let mut texts = Vec::new();
    for text in conn.stream(TEXTS, &100)? {
        texts.push(text?);
    }
    ensure!(texts.len() == 100);
    ensure!((texts.iter().enumerate()).all(|(n, t)| t.text.as_str() == format!("text {n}")));
    let mut unlucky = conn.stream(TEXTS, &13)?;
    ensure!(unlucky.by_ref().take(13).all(|t| t.is_ok()));
    ensure!(matches!(unlucky.next(), Some(Err(e)) if e.application_code() == Some(13)));
    ensure!(unlucky.next().is_none());
    // One that nobody reads to its end.
    let mut endless = conn.stream(COUNT, &u64::MAX)?;
    ensure!(matches!(endless.next(), Some(Ok(n)) if *n == 0));
    Ok(())
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor that there is.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// An argument for a call that hangs, which no other one has.
fn own() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed)
}

fn tasks(conn: &Connection) -> Result<()> {
    let argument = conn.build::<Tree>(|heap| tree(heap, 1))?;
    let under_way: Vec<_> = (0..50).map(|_| conn.call_async(ECHO, &argument)).collect();
    for call in under_way.into_iter().rev() {
        let reply = block_on(call)?;
        ensure!(is_same(&reply, &argument));
    }
    let waited = conn.call_async(PLAIN, &PLAINEST).wait()?;
    ensure!(*waited == PLAINEST);
    ensure!(*block_on(conn.call_async(OBJECT, &PLAINEST))? == PLAINEST);
    let counted = block_on(async {
        let mut stream = conn.stream(COUNT, &300)?;
        let mut count = 0;
        while let Some(n) = stream.next_item().await {
            count += u64::from(*n? == count);
        }
        Ok::<_, Error>(count)
    })?;
    ensure!(counted == 300);

    // Dropping cancels, whether the call was polled or not.
    for polled in [false, true] {
        let id = own();
        let mut call = Box::pin(conn.call_async(HANG, &id));
        eventually("the call hangs", || Ok(*conn.call(HANGING, &id)? == [1, 0]))?;
        if polled {
            let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
            let polled = call.as_mut().poll(&mut Context::from_waker(&waker));
            ensure!(polled.is_pending());
        }
        drop(call);
        eventually("the handler hears of it", || {
            Ok(*conn.call(HANGING, &id)? == [1, 1])
        })?;
    }
    let late = conn.timeout(Duration::from_millis(20));
    ensure!(matches!(
        block_on(late.call_async(HANG, &0)),
        Err(Error::DeadlineExceeded(_))
    ));
    Ok(())
}

fn tokio(conn: &Connection) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..100u32 {
            let conn = conn.clone();
            tasks.push(tokio::spawn(async move {
                let plain = Plain { number, ..PLAINEST };
                conn.call_async(PLAIN, &plain).await.map(|p| p.number)
            }));
        }
        for (number, task) in tasks.into_iter().enumerate() {
            ensure!(task.await?? as usize == number);
        }
        let id = own();
        let hang = conn.call_async(HANG, &id);
        let until = Instant::now() + PATIENCE;
        while conn.call_async(HANGING, &id).await?[0] == 0 {
            ensure!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let late = tokio::time::timeout(Duration::from_millis(20), hang).await;
        ensure!(late.is_err());
        while conn.call_async(HANGING, &id).await?[1] == 0 {
            ensure!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    })
}

fn threads(conn: &Connection) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                scope.spawn(move || {
                    for n in 0..200 {
                        let number = thread << 16 | n;
                        let plain = Plain { number, ..PLAINEST };
                        if conn.call(PLAIN, &plain)?.number != number {
                            return Ok(false);
                        }
                        let reply = conn.call_with(ECHO, |heap| tree(heap, 0))?;
                        if reply.numbers.len() != 3 {
                            return Ok(false);
                        }
                    }
                    Ok::<_, Error>(true)
                })
            })
            .collect();
        for thread in threads {
            ensure!(thread.join().is_ok_and(|t| t == Ok(true)));
        }
        Ok(())
    })
}

pub fn check(address: &str) -> Result<()> {
    let conn = vernal_rpc::connect(address)?;
    ensure!(conn.is_open());
    let who = *conn.call(WHO, &())?;
    if address.starts_with("tcp://") {
        ensure!(conn.peer().pid.is_none() && who.pid == u32::MAX && who.uid == u32::MAX);
    } else {
        ensure!(conn.peer().pid.is_some() && who.pid == std::process::id());
        ensure!(Some(who.uid) == conn.peer().uid);
    }
    values(&conn)?;
    failures(&conn)?;
    streams(&conn)?;
    tasks(&conn)?;
    tokio(&conn)?;
    threads(&conn)?;
    let missing = vernal_rpc::connect("no/such/channel");
    ensure!(matches!(missing, Err(Error::NotFound(_))));
    println!("ok");
    Ok(())
}

/// Handlers that end their process, in a server that has helpers for that.
pub fn abort(address: &str) -> Result<()> {
    let conn = vernal_rpc::connect(address)?;
    let argument = conn.build::<Tree>(|heap| tree(heap, 2))?;
    for _ in 0..3 {
        ensure!(is_same(&*conn.call(ECHO, &argument)?, &argument));
        ensure!(*conn.call(PLAIN, &PLAINEST)? == PLAINEST);
        ensure!(matches!(conn.call(FAIL, &7), Err(e) if e.application_code() == Some(7)));
        let failed = conn.call(FAIL, &0);
        ensure!(matches!(failed, Err(Error::Remote(f)) if f.code == Code::Internal));
        ensure!(matches!(conn.call(DIE, &()), Err(Error::Remote(_))));
    }
    println!("ok");
    Ok(())
}

/// A list for a server that may be written in C++.
pub fn sum(address: &str, token: &str) -> Result<()> {
    let conn = vernal_rpc::ConnectOptions::new()
        .token(token.as_bytes())
        .connect(address)?;
    let list = |length: u64| {
        conn.build::<Node>(move |heap| {
            let mut next = None;
            for value in 1..length {
                next = Some(heap.alloc(Node { next, value })?);
            }
            Ok(Node {
                next,
                value: length,
            })
        })
    };
    let total = conn.call(SUM, &list(100)?)?;
    ensure!((total.sum, total.count) == (5050, 100));
    match conn.call(SUM, &list(2000)?) {
        Err(Error::Remote(f)) => {
            ensure!(f.code == Code::Internal && f.text == "a list without end")
        }
        // Not every server counts.
        other => ensure!(other?.count == 2000),
    }
    println!("ok");
    Ok(())
}

/// The server ends in the middle of a call.
pub fn die(address: &str) -> Result<()> {
    let conn = vernal_rpc::connect(address)?;
    let kept = conn.call_with(ECHO, |heap| tree(heap, 2))?;
    let argument = conn.build::<Tree>(|heap| tree(heap, 1))?;
    let hangs = conn.call_async(HANG, &0);
    let dies = conn.call(DIE, &());
    ensure!(matches!(dies, Err(Error::PeerDied(_))));
    ensure!(matches!(block_on(hangs), Err(Error::PeerDied(_))));
    ensure!(matches!(
        conn.call(ECHO, &argument),
        Err(Error::PeerDied(_))
    ));
    ensure!(!conn.is_open());
    // What was there before stays.
    drop(conn);
    ensure!(kept.children.len() == 2 && kept.maybe.as_ref().is_some_and(|t| t.letter == 'ß'));
    ensure!(argument.rows[1].text == "second");
    println!("ok");
    Ok(())
}
