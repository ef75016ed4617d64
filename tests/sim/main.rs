//! The simulator: two nodes on the real state machines, with a simulated disk, link and clock, through
//! histories in which everything that can go wrong does. One seed is one history, step for step.
//!
//! ```sh
//! cargo test -p tests --test sim                                            # a fixed number of seeds
//! LAYER_SYNC_SIM_SEED=17 cargo test -p tests --test sim replay -- --nocapture     # one, step by step
//! LAYER_SYNC_SIM_SEEDS=0..1000000 cargo test --release -p tests --test sim seeds -- --nocapture
//! ```
//!
//! A seed with an `m` before it is a history with a mirror as a third place; see `mirror`.
//!
//! Read `world` for what can happen next, `volume` for what a power cut leaves, `oracle` for what has to
//! hold. The disk's modules follow those of the crate `disk` step by step; where that changes, they
//! change with it.

mod chance;
mod defect;
mod disk;
mod give;
mod history;
mod index;
mod link;
mod look;
mod machine;
mod mirror;
mod node;
mod operation;
mod oracle;
mod runs;
mod script;
mod seen;
mod shrink;
mod start;
mod take;
mod user;
mod volume;
mod world;
