//! A machine that was taken over, against the real daemon.
//!
//! Two nodes are paired and hold the same tree. Then one of them is stopped, and this test speaks in
//! its place, with its key, and says what no honest machine says. After each attack the victim still
//! runs and answers, has said why it ended the link, and has kept its tree, its private folder and
//! everything outside of its root as they were. In the end the honest machine comes back, and the two
//! become equal.
//!
//! What the victim's process took in memory at most (`VmHWM`) is printed for each attack and has a
//! bound. `LAYER_SYNC_E2E_FLOOD=10000000` sends that many rows, far beyond the limit at which a victim refuses.

mod content;
mod flood;
mod peer;
mod pusher;
mod receiver;
mod victim;
