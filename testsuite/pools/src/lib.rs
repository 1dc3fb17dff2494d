//! Programs on pools.
