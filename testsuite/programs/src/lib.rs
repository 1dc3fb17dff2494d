//! Real programs under test.
