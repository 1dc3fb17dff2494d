//! Tests over hand-made debug information.
