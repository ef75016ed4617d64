//! The contract of the pair.
//!
//! A thing stands here when the two machines would misunderstand each other if their copies of it
//! differed, *and* it is pure: values and the time go in, values come out. There is no disk, no
//! socket, no clock, no chance and no environment in this crate; `clippy.toml` beside it says so to
//! the compiler.
//!
//! Read from top to bottom; each module uses only those above it.

pub mod path;

pub mod hash;

mod limit;

pub mod utc;

pub mod chunk;

pub mod tree;

pub mod ignore;

pub mod merge;

pub mod delta;

pub mod transfer;

pub mod journal;

pub mod reconcile;

pub mod safety;

pub mod mirror;

pub mod control;

pub mod words;

pub mod block;

pub mod lease;

pub mod history;

pub mod wire;
