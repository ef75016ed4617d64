//! The side that dials and reports.
//!
//! [`state::Receiver`] decides: events go in, actions come out, and it knows neither a disk nor a
//! socket nor a clock. [`event_loop`] owns it, dials the pusher and carries its actions out. Never
//! here: planning, which is the pusher's alone.

pub mod event_loop;
mod farewell;
pub mod state;

pub use farewell::farewell;
