//! The same shapes, as they are meant: this one compiles, so that the others fail for the reason they name.
use vernal::{Error, PBox, PString, PVec, Persist, Pool, Ptr};

#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
enum Kind {
    Plain,
    Special = 7,
}

#[derive(Persist)]
#[repr(C)]
struct Node<'p, T> {
    value: T,
    next: Option<PBox<'p, Node<'p, T>>>,
    previous: Option<Ptr<'p, Node<'p, T>>>,
}

#[derive(Persist)]
#[repr(C)]
#[persist(name = "root")]
struct Root<'p> {
    kind: Kind,
    first: Option<PBox<'p, Node<'p, PString<'p>>>>,
    numbers: PVec<'p, [f64; 3]>,
}

#[derive(Persist)]
#[repr(transparent)]
struct Counter(u64);

fn send_and_sync<T: Send + Sync>(_: &T) {}

fn work() -> Result<(), Error> {
    let mut pool = Pool::<Root>::open("./p", |tx| {
        Ok(Root { kind: Kind::Plain, first: None, numbers: tx.vec([[1.0, 2.0, 3.0]])? })
    })?;
    let mut counter: Pool<Counter> = Pool::open("./c", |_| Ok(Counter(0)))?;
    send_and_sync(&pool);
    let read = pool.tx(|tx, mut root| {
        let next = root.first.take();
        let mut node = tx.alloc(Node { value: tx.string("text")?, next, previous: None })?;
        let previous = Some(Ptr::to(&node));
        if let Some(next) = &mut node.next {
            next.previous = previous;
        }
        root.first = Some(node);
        root.kind = Kind::Special;
        root.numbers[0][1] += 1.0;
        counter.tx(|_, mut counter| {
            counter.0 += 1;
            Ok::<_, Error>(())
        })?;
        Ok::<_, Error>(root.numbers.len())
    })?;
    let shared = pool.root();
    std::thread::scope(|scope| {
        scope.spawn(|| println!("{read} {:?}", shared.first.as_ref().map(|n| n.value.len())));
    });
    let slot = std::sync::RwLock::new(pool);
    slot.read().map(|p| p.root().numbers.len()).ok();
    Ok(())
}

fn main() {
    let _ = work;
}
