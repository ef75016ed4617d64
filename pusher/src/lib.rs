//! The side that listens and plans.
//!
//! [`state::Pusher`] decides: events go in, actions come out, and it knows neither a disk nor a
//! socket nor a clock. [`event_loop`] owns it, carries its actions out and brings back what became
//! of them. Never here: the receiver's decisions, being one of the pair (`node`).

pub mod event_loop;
pub mod state;
