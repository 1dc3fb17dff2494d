//! Placeholder, replaced by its author in a moment.
