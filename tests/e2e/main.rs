//! The real program, as a person meets it: two homes, two daemons, loopback, and files.
//!
//! Nothing of ours judges: trees are compared by `diff` and `find`. Every wait is for a condition and
//! has a bound. Heavier variants run when a variable asks for them:
//!
//! | Variable | Does |
//! | --- | --- |
//! | `LAYER_SYNC_E2E_BIN=FILE` | tests that program instead of building one |
//! | `LAYER_SYNC_E2E_OPERATIONS=5000`, `LAYER_SYNC_E2E_KILLS=100` | sizes of the crash test |
//! | `LAYER_SYNC_E2E_SEED=N` | its seed, which every run prints |
//! | `LAYER_SYNC_E2E_HUGE=1` | a file of 2 GiB instead of 64 MiB |
//! | `LAYER_SYNC_E2E_FLOOD=10000000` | rows that a hostile partner sends, instead of 100,000 |
//! | `LAYER_SYNC_E2E_SQLITE_SECONDS=120` | how long a database is written while it is synced |
//! | `LAYER_SYNC_E2E_ROUNDS=200` | changes of the primary, of every kind, that a talking bot survives |
//! | `LAYER_SYNC_E2E_PLANNED=1` | all of them planned |
//! | `LAYER_SYNC_E2E_BACKLOG=10000` | messages that wait for a bot after a day offline |
//! | `LAYER_SYNC_E2E_IDLE_SECONDS=600` | how long a pair with a bot does nothing, which is measured |
//! | `LAYER_SYNC_E2E_IDLE_RECEIVER=1` | the receiver is primary meanwhile, which renews its lease and polls more often |
//! | `LAYER_SYNC_E2E_SLEEP_SECONDS=300` | how long a primary is suspended |
//! | `LAYER_SYNC_E2E_MIRROR_FILES=5000` | files that are mirrored before some change |
//! | `LAYER_SYNC_E2E_MIRROR_BYTES=209715200` | length of an upload that is killed twice |
//! | `LAYER_SYNC_E2E_MIRROR_TURNS=50` | edits that cross by the mirror, each way |
//! | `LAYER_SYNC_E2E_REAL_INTERVAL=1` | no watches, and the shipped interval of 30 s |
//!
//! `cargo test -p tests --test e2e -- --nocapture` shows what is measured and what is skipped.

// GNU diff and find, /proc, namespaces.
#![cfg(target_os = "linux")]

mod harness;

mod bot;
mod clock;
mod conflict;
mod crash;
mod daemons;
mod dashboard;
mod deaf;
mod decide;
mod doctor;
mod failover;
mod full;
mod guard;
mod held;
mod hostile;
mod idle;
mod ignored;
mod kept;
mod mirror;
mod names;
mod observer;
mod operations;
mod primary;
mod refused;
mod renames;
mod rot;
mod service;
mod sqlite;
mod strange;
mod targets;
mod up;
mod verbs;
mod watches;
