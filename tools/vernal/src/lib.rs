//! The command `vernal`: what a user does with mapped files and pools outside of programs.
//!
//! * [`command`]: all of it, as its tests against a puddled start it too.
//! * [`page`]: the page of `vernal inspect`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod check;
mod command;
mod files;
mod forward;
mod info;
pub mod page;
mod pool;
mod recover;
mod rpc;
mod run;

use command::{code, print};

pub use command::command;
