//! Benchmarks against the peers.
