//! What must hold for any input, as plain functions: the fuzz targets in `tests/fuzz` call them, and
//! so does the ordinary test in `tests/corpus.rs`. See `tests/README.md`.
//!
//! Each function takes any bytes at all. It returns when they were handled as promised, and panics
//! when they were not.

mod calls;
mod config_text;
mod frame;
mod pairing_code;
mod parts;
mod path;
mod reconcile;

pub use calls::calls;
pub use config_text::config;
pub use frame::frame;
pub use pairing_code::pairing_code;
pub use parts::{honest_parts, outcomes_of_parts, parts};
pub use path::path;
pub use reconcile::reconcile;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, under the names of their fuzz targets and of the folders of `tests/fuzz/corpus`.
pub const TARGETS: [(&str, Target); 7] = [
    ("frame", frame),
    ("path", path),
    ("config", config),
    ("pairing_code", pairing_code),
    ("reconcile", reconcile),
    ("parts", parts),
    ("calls", calls),
];
