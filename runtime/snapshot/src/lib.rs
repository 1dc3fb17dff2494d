//! Write tracking and failure-atomic msync.
