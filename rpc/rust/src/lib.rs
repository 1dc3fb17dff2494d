//! Calls between processes that pass Rust values by pointer.
//!
//! A server opens a *channel* under a name and serves methods; clients connect and call. Arguments and replies are built in heaps that both
//! sides see at the same addresses: nothing is serialised. A receiver gets a value that was copied into its own memory and
//! verified on the way, so that a reference to it is as sound as any other, whatever the peer does. [`vernal`]'s types make
//! values that have parts: `PBox`, `PVec`, `PString`, and structs and enums with `#[derive(Persist)]`.
//!
//! ```no_run
//! use vernal::{PString, PVec, Persist};
//! use vernal_rpc::{Call, Channel, Method, Ref};
//!
//! #[derive(Persist)]
//! #[repr(C)]
//! struct Query<'p> {
//!     words: PVec<'p, PString<'p>>,
//!     most: u64,
//! }
//!
//! #[derive(Persist)]
//! #[repr(C)]
//! struct Doc<'p> {
//!     title: PString<'p>,
//! }
//!
//! /// Both sides name it: the types of argument and reply are checked at compile time.
//! const FIND: Method<Query, Doc> = Method::new(1);
//!
//! fn server() -> Result<(), vernal_rpc::Error> {
//!     let chan = Channel::open("shop/stock")?;
//!     chan.serve(FIND, |call: Call<Query>| {
//!         let title = format!("{} words", call.words.len());
//!         call.reply(|heap| Ok(Doc { title: heap.string(&title)? }))
//!     })?;
//!     chan.run()
//! }
//!
//! fn client() -> Result<(), vernal_rpc::Error> {
//!     let conn = vernal_rpc::connect("shop/stock")?;
//!     let query = conn.build::<Query>(|heap| {
//!         Ok(Query { words: heap.vec([heap.string("bolts")?])?, most: 10 })
//!     })?;
//!     let doc: Ref<Doc> = conn.call(FIND, &query)?;
//!     println!("{}", doc.title);
//!     Ok(())
//! }
//! ```
//!
//! [`Connection::call_async`] gives a future for any executor, [`Connection::stream`] many items, [`Connection::timeout`] a
//! deadline. `tcp://host:port/name` connects to another host, with copies in the place of shared memory.
//!
//! # What this crate does not do
//!
//! It contains no runtime: it calls libvernal. It does not check what a value *means*: a peer's numbers are numbers, its lists
//! may have cycles. Values are verified, not trusted: see `docs/trust.md`.
//!
//! # Threads and panics
//!
//! [`Connection`] and [`Channel`] may be used by any thread. A handler that panics fails its call, not the server. None of this may
//! be used in a child of `fork`.

mod call;
mod channel;
mod connection;
mod error;
mod method;
mod options;
mod pending;
mod reference;
mod stream;
mod sys;
mod value;

pub use call::{Call, Items, Reply};
pub use channel::{Channel, Running, Shared};
pub use connection::{Arg, Argument, Connection};
pub use error::{Code, Error, Failure};
pub use method::{Method, StreamMethod};
pub use options::{ChannelOptions, ConnectOptions, Sandbox, Wait};
pub use pending::Pending;
pub use reference::Ref;
pub use stream::Stream;
pub use value::{Passed, Peer};

/// Connects to the server that has opened the name on this host, or to `tcp://host:port/name`.
pub fn connect(address: &str) -> Result<Connection, Error> {
    ConnectOptions::new().connect(address)
}
