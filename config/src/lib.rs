//! Typed settings, read once at the edge, and the places of a node's home.
//!
//! A daemon reads its [`Settings`] and [`Secrets`] when it starts and hands out values; nobody
//! below looks at a file, a flag or the environment again. Nothing here behaves: it parses, checks
//! rights, and says in one sentence what is wrong.
//!
//! Read from top to bottom; each module uses only those above it.

mod rights;

pub mod address;
pub mod home;
pub mod quantity;
pub mod secrets;
pub mod settings;

pub use address::Address;
pub use home::{Home, HomeRefused};
pub use secrets::{Secrets, SecretsRefused};
pub use settings::{
    KeptSettings, Link, NodeSettings, Settings, SettingsRefused, SyncSettings, WriteRefused,
};
