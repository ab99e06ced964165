//! x
pub mod dev_stack;
