//! The systems: each has a server and a connection.

#[cfg(feature = "peers")]
mod capnp;
mod grpc;
#[cfg(feature = "peers")]
mod iceoryx;
mod local;
mod memory;
mod sockets;
#[cfg(feature = "peers")]
mod tonic;
mod vernal;

pub use grpc::command as grpc_command;

use crate::plan::{System, Wait};
use crate::worker::{Caller, Serving};
use crate::{Failure, Result};
use std::path::Path;

/// Serves `system` at the socket or name `at`.
pub fn serve(system: System, wait: Wait, at: &Path, serving: &'static Serving) -> Result<()> {
    match system {
        System::Vernal | System::VernalPlain | System::VernalProcess | System::VernalTcp => {
            vernal::serve(system, wait, at, serving)
        }
        System::Local => local::serve(serving),
        System::Lines => memory::serve(memory::Signal::Spin, at, serving),
        System::Futex => memory::serve(memory::Signal::Futex, at, serving),
        System::Eventfd => memory::serve(memory::Signal::Eventfd, at, serving),
        System::Uds => sockets::serve(wait, at, serving),
        #[cfg(feature = "peers")]
        System::Iceoryx2 => iceoryx::serve(wait, at, serving),
        #[cfg(feature = "peers")]
        System::Capnp => capnp::serve(at, serving),
        #[cfg(feature = "peers")]
        System::Tonic => tonic::serve(wait, at, serving),
        #[cfg(not(feature = "peers"))]
        System::Iceoryx2 | System::Capnp | System::Tonic => Err(not_built(system)),
        System::Grpc | System::Shim => Err(Failure("is a program of its own".to_owned())),
    }
}

/// Connects to it.
pub fn connect(system: System, wait: Wait, at: &Path) -> Result<Box<dyn Caller>> {
    Ok(match system {
        System::Vernal | System::VernalPlain | System::VernalProcess | System::VernalTcp => {
            Box::new(vernal::Connection::open(system, wait, at)?)
        }
        System::Local => Box::new(local::Local::default()),
        System::Lines => Box::new(memory::Connection::open(memory::Signal::Spin, at)?),
        System::Futex => Box::new(memory::Connection::open(memory::Signal::Futex, at)?),
        System::Eventfd => Box::new(memory::Connection::open(memory::Signal::Eventfd, at)?),
        System::Uds => Box::new(sockets::Connection::open(wait, at)?),
        #[cfg(feature = "peers")]
        System::Iceoryx2 => Box::new(iceoryx::Connection::open(wait, at)?),
        #[cfg(feature = "peers")]
        System::Capnp => Box::new(capnp::Connection::open(at)?),
        #[cfg(feature = "peers")]
        System::Tonic => Box::new(tonic::Connection::open(wait, at)?),
        #[cfg(not(feature = "peers"))]
        System::Iceoryx2 | System::Capnp | System::Tonic => return Err(not_built(system)),
        System::Grpc | System::Shim => {
            return Err(Failure("is a program of its own".to_owned()));
        }
    })
}

#[cfg(not(feature = "peers"))]
fn not_built(system: System) -> Failure {
    Failure(format!(
        "{} is not in this build: use `cargo xtask bench rpc`, or --features peers",
        system.name()
    ))
}

/// A failure of a library, with what was being done.
fn fail<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> Failure {
    move |e| Failure(format!("{what}: {e}"))
}
