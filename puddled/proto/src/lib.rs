//! The messages between puddled and its clients: versioned, bounded, parsed from hostile bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
