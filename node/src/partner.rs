//! The other node of the pair, as this one remembers it.

use std::path::PathBuf;

use config::Home;
use link::{Fingerprint, Paired};
use serde::{Deserialize, Serialize};
use shared::control::exit;
use shared::wire::PairId;

use crate::Failure;
use crate::small_file;

/// The other node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partner {
    /// The pair, chosen when it was made.
    pub(crate) pair: PairId,
    /// Its key.
    pub(crate) key: Fingerprint,
    /// Its name, for people.
    pub(crate) name: String,
}

impl Partner {
    pub(crate) fn read(home: &Home) -> Result<Option<Self>, Failure> {
        let file = file(home);
        small_file::read(&file).map_err(|error| {
            Failure::new(
                exit::DAEMON_CONFIG,
                format!("{} cannot be read: {error}", file.display()),
                "pair the two machines again: `layer-sync pair`, then `layer-sync join`",
            )
        })
    }

    pub(crate) fn write(&self, home: &Home) -> std::io::Result<()> {
        small_file::write(&file(home), self)
    }
}

impl From<&Paired> for Partner {
    fn from(paired: &Paired) -> Self {
        Self {
            pair: PairId(paired.pair_id),
            key: paired.peer,
            name: paired.peer_name.clone(),
        }
    }
}

fn file(home: &Home) -> PathBuf {
    home.state_dir().join("partner.json")
}
