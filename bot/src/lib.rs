//! The remote control in a chat: hears and speaks while this node is primary, and on the other node knows what was said.
//!
//! All that it knows is in the tree, as journals that both nodes have: what was received, what was answered, what was sent. A new
//! primary goes on where the old one was. Nothing leaves without a permit of the lease, and the last look at the lease is at the
//! socket.
//!
//! Never here: the disk and the link. The node hands in a [`Port`], and a message can become a control request and nothing else.
//!
//! Read from top to bottom; each module uses only those above it.

mod port;

mod text;

mod say;

mod heard;

mod record;

mod view;

mod ledger;

mod board;

mod books;

mod pace;

mod fence;

mod telegram;

mod term;

mod live;

mod command;

mod files;

mod answer;

mod alarm;

mod poll;

mod handle;

mod send;

mod watch;

mod desk;

mod duty;

pub use desk::Ask;
pub use duty::{BotError, Setup, Token, run};
pub use port::{Asked, Listed, Port};
