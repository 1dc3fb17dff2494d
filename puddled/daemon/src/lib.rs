//! The daemon that owns pools: grants, recovery, address space, registry, quotas.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
