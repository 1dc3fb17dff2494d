//! One function for each parser of bytes that a crash, a bad disk or an attacker may have written. The fuzzer, the replay of the
//! corpora and a debugger call the same functions: they must return, for any bytes, without a panic and in bounded time.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod archive;
mod format;
mod graph;
mod greet;
mod heap;
mod input;
mod journal;
mod log;
mod media;
mod peer;
mod proto;
mod ring;
mod wire;

/// One parser, or one way into it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its corpus.
    pub name: &'static str,
    /// Gives it the bytes.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("archive-head", archive::head),
    target("archive-manifest", archive::manifest),
    target("archive-whole", archive::whole),
    target("direct-log", log::recover),
    target("greeting", greet::packet),
    target("heap", heap::hostile),
    target("journal", journal::recover),
    target("journal-payload", journal::payload),
    target("log-space", log::space),
    target("peer", peer::examine),
    target("pool-page", format::pool_page),
    target("proto", proto::packets),
    target("ring", ring::hostile),
    target("slots", format::slots),
    target("tcp-frames", greet::frames),
    target("tcp-hello", greet::hello),
    target("types", format::types),
    target("wire", wire::decode),
];

/// The target called `name`.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
