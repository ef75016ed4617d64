//! Carries content between a disk and a link.
//!
//! Both sides of the pair give and take content in the same way; this is that way, once. It knows
//! `disk` and `link` and decides nothing: what is to be carried comes from a side's state machine, and
//! what became of it goes back as a [`Done`].
//!
//! Blocking work runs on tokio's blocking threads; what crosses over to them goes through channels
//! that hold a few parts, so a slow disk slows the sender down through QUIC's flow control.

mod clients;
mod commits;
mod content;
mod control;
mod gives;
mod jobs;
mod lane;
mod lease;
mod streams;

pub use clients::{Ask, Clients, Measured, answer_text};
pub use commits::Commits;
pub use content::{Order, Takes, give, give_chunks, give_fetched};
pub use control::{Outbox, Room, control};
pub use gives::{ASKED_MAX, ASKS_TOO_MUCH, CLIENTS_MAX, Gives, Ticket};
pub use jobs::{Done, Ended, Jobs};
pub use lane::{Lane, Place};
pub use lease::{Heard, LeaseLink, Waiting};
pub use streams::{Begun, accept_streams};
