//! The client side of puddled: a connection, requests, descriptors.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
