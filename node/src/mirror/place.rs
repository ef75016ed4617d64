//! Where a mirror is, and what lets this node in there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::settings::{MIRROR_API_DEFAULT, MirrorSettings, MirrorTarget};
use config::{Home, Secrets, Settings};
use mirror::any::AnyTarget;
use mirror::drive::consent::{
    Credentials, OauthClient, SCOPE_ALL, SCOPE_OWN, ask_device, ask_loopback,
};
use mirror::drive::{Drive, Where};
use mirror::folder::Folder;
use mirror::store::Store;
use mirror::target::Wrong;
use serde::{Deserialize, Serialize};
use shared::control::exit;
use shared::hash::ContentHash;

use crate::{Failure, small_file};

/// The secrets that name the client to which a person gives consent.
const CLIENT_ID: &str = "DRIVE_CLIENT_ID";
const CLIENT_SECRET: &str = "DRIVE_CLIENT_SECRET";

/// What kind of place it is, in a word.
pub(super) fn kind(target: &MirrorTarget) -> &'static str {
    match target {
        MirrorTarget::Folder(_) => "folder",
        MirrorTarget::Drive { .. } => "Drive",
    }
}

/// Where it is, for people.
pub(super) fn shown(target: &MirrorTarget) -> String {
    match target {
        MirrorTarget::Folder(folder) => folder.display().to_string(),
        MirrorTarget::Drive { name, .. } => name.clone(),
    }
}

/// Opens what this node remembers of a target.
pub(super) fn store(home: &Home, target: &MirrorTarget, owner: &str) -> Result<Store, Failure> {
    let key = match target {
        MirrorTarget::Folder(folder) => format!("folder {}", folder.display()),
        MirrorTarget::Drive { name, shared_drive } => {
            format!(
                "drive {} {name}",
                shared_drive.as_deref().unwrap_or_default()
            )
        }
    };
    let name = format!(
        "mirror-{}.sqlite",
        ContentHash::of_bytes(key.as_bytes()).short()
    );
    let file = home.state_dir().join(name);
    let opened = Store::open(&file, owner).or_else(|error| {
        // It is a cache: what is in it can be heard again.
        tracing::warn!(%error, file = %file.display(), "what was known of the mirror is begun anew");
        std::fs::rename(&file, file.with_extension("damaged")).ok();
        Store::open(&file, owner)
    });
    opened.map_err(|error| Failure::other(&format!("{} cannot be used", file.display()), error))
}

/// Returns a number by chance.
pub(super) fn seed() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::other("the system gives no chance", error))?;
    Ok(u64::from_le_bytes(bytes))
}

/// What is needed to open a target.
pub(super) struct Place<'a> {
    pub(super) settings: &'a MirrorSettings,
    pub(super) home: &'a Home,
    pub(super) node: &'a str,
    /// Whether a mirror is made when there is none.
    pub(super) makes: bool,
}

impl Place<'_> {
    /// Opens a target.
    pub(super) async fn open(
        &self,
        target: &MirrorTarget,
        store: &Store,
    ) -> Result<AnyTarget, Wrong> {
        let expected = store.fact("root")?;
        match target {
            MirrorTarget::Folder(folder) => {
                let folder = Folder::new(folder.clone(), self.node, expected);
                Ok(AnyTarget::Folder(Box::new(folder)))
            }
            MirrorTarget::Drive { name, shared_drive } => {
                let stored = Stored::read(self.home)?;
                let place = Where {
                    folder: name.clone(),
                    drive: shared_drive.clone(),
                    api: self.settings.api.clone(),
                    budget: self.settings.budget,
                    expected,
                    makes: self.makes,
                };
                let drive = Drive::new(place, stored.credentials).await?;
                Ok(AnyTarget::Drive(Box::new(drive)))
            }
        }
    }
}

/// What is stored of a consent.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    /// Where Drive is.
    pub(super) api: String,
    credentials: Credentials,
}

impl Stored {
    pub(super) fn read(home: &Home) -> Result<Self, Wrong> {
        let file = file(home);
        let stored = small_file::read(&file).map_err(|error| {
            Wrong::NoConsent(format!("{} cannot be read: {error}", file.display()))
        })?;
        stored.ok_or_else(|| Wrong::NoConsent("nobody has given consent yet".to_owned()))
    }
}

fn file(home: &Home) -> PathBuf {
    home.identity_dir().join("drive.json")
}

/// How a node is let into Drive.
pub enum Grant {
    /// By a person in the browser of this machine.
    Loopback,
    /// By a person on another device.
    Device,
    /// As a service account, with the key in this file.
    Service(PathBuf),
}

/// Asks for consent, and stores what comes of it for this node alone. `all` asks for the whole Drive, and not just for what this
/// program makes there. `show` shows a person where to give it.
///
/// # Errors
/// Why there is none.
pub fn authorise(
    home: &Home,
    grant: &Grant,
    all: bool,
    api: Option<&str>,
    show: impl Fn(&str, Option<&str>) + Send + Sync + 'static,
) -> Result<(), Failure> {
    home.create()?;
    let set = Settings::read(home)
        .ok()
        .map(|settings| settings.mirror.api);
    let api = api
        .map(ToOwned::to_owned)
        .or(set)
        .unwrap_or_else(|| MIRROR_API_DEFAULT.to_owned());
    let scope = if all { SCOPE_ALL } else { SCOPE_OWN };
    let credentials = match grant {
        Grant::Service(key) => service(key, scope)?,
        Grant::Device if all => {
            return Err(Failure::new(
                exit::USAGE,
                "Google gives no consent for a whole Drive by a code on another device",
                "leave out --device, or --all",
            ));
        }
        Grant::Device | Grant::Loopback => {
            let client = client(home, &api)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::other("the runtime cannot be started", error))?;
            let show: mirror::drive::consent::Show = Arc::new(show);
            let asked = runtime.block_on(async {
                match grant {
                    Grant::Device => ask_device(&client, scope, show).await,
                    _ => ask_loopback(&client, scope, show).await,
                }
            });
            asked.map_err(|wrong| {
                Failure::new(
                    exit::ERROR,
                    format!("there is no consent: {wrong}"),
                    "run the same command again",
                )
            })?
        }
    };
    let stored = Stored { api, credentials };
    std::fs::create_dir_all(home.identity_dir())
        .and_then(|()| small_file::write(&file(home), &stored))
        .map_err(|error| Failure::other("the consent cannot be stored", error))
}

fn client(home: &Home, api: &str) -> Result<OauthClient, Failure> {
    let secrets = Secrets::read(home, std::env::vars_os())?;
    let (Some(id), Some(secret)) = (secrets.get(CLIENT_ID), secrets.get(CLIENT_SECRET)) else {
        return Err(Failure::new(
            exit::ERROR,
            format!("{CLIENT_ID} and {CLIENT_SECRET} are not set"),
            "make an OAuth client in the Google Cloud console (kind: desktop app, for --device: TV), and write both into `.env` of \
             the home (mode 0600)",
        ));
    };
    Ok(OauthClient::new(id, secret, api))
}

fn service(key: &Path, scope: &str) -> Result<Credentials, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Failure::new(
            exit::ERROR,
            format!("{} is no key of a service account: {error}", key.display()),
            "make one in the Google Cloud console, as JSON",
        )
    };
    let text = std::fs::read(key).map_err(|error| unreadable(&error))?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| unreadable(&error))?;
    if json["private_key"].as_str().is_none() || json["client_email"].as_str().is_none() {
        return Err(unreadable(&"it has no private_key and client_email"));
    }
    Ok(Credentials::Service {
        key: Box::new(json),
        scope: scope.to_owned(),
    })
}
