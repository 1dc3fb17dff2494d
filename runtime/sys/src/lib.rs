//! All of the operating system and the CPU that Vernal touches.
#![warn(missing_docs)]
mod media;
pub use media::Media;
