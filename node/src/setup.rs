//! Makes a node: the pusher's by itself, the receiver's together with its pairing.

use std::fs;
use std::path::{Path, PathBuf};

use config::settings::{Link, NodeSettings, SyncSettings};
use config::{Home, Settings};
use link::{CodeError, Dialer, Identity, PairingCode, Pins};
use shared::control::exit;
use shared::lease::Prefer;

use crate::Failure;
use crate::daemon::runtime;
use crate::partner::Partner;

/// What a new pusher is told.
#[derive(Debug, Clone)]
pub struct InitPusher {
    /// The folder that is kept equal.
    pub root: PathBuf,
    /// Address and UDP port to listen on.
    pub listen: String,
    /// Its name; by default the machine's.
    pub name: Option<String>,
}

/// What a new receiver is told.
#[derive(Debug, Clone)]
pub struct Join {
    /// The code that the pusher printed.
    pub code: String,
    /// The folder that is kept equal.
    pub root: PathBuf,
    /// Its name; by default the machine's.
    pub name: Option<String>,
}

/// Makes the home of a pusher.
///
/// # Errors
/// What is wrong with the home, the root or the address. Settings that exist are never overwritten.
pub fn init_pusher(home: &Home, wish: &InitPusher) -> Result<(), Failure> {
    let listen = wish.listen.parse().map_err(|_| {
        let text = format!("{:?} is not an address to listen on", wish.listen);
        Failure::new(
            exit::USAGE,
            text,
            "give an IP address and a UDP port, such as 0.0.0.0:9797",
        )
    })?;
    let settings = new_settings(
        &wish.root,
        wish.name.as_deref(),
        Link::Listen {
            listen,
            advertise: None,
        },
    )?;
    home.create()?;
    settings.write_new(home)?;
    Identity::load_or_create(&home.identity_dir())?;
    Ok(())
}

/// Makes the home of a receiver and pairs it; returns the pusher's name. Joining again with a new
/// code pairs an existing home anew.
///
/// # Errors
/// What is wrong with the code, the home or the root, or why the pusher refused.
pub fn join(home: &Home, wish: &Join) -> Result<String, Failure> {
    let code: PairingCode = wish.code.trim().parse().map_err(|error: CodeError| {
        Failure::new(
            exit::ERROR,
            error.to_string(),
            "copy the whole code, or make a new one: `layer-sync pair`",
        )
    })?;
    let peer = code
        .address()
        .parse()
        .map_err(|error| Failure::other("the address in the code", error))?;
    let settings = new_settings(&wish.root, wish.name.as_deref(), Link::Dial { peer })?;
    home.create()?;
    let existing = home
        .settings_file()
        .exists()
        .then(|| Settings::read(home))
        .transpose()?;
    if existing
        .as_ref()
        .is_some_and(|old| (&old.link, &old.node.root) != (&settings.link, &settings.node.root))
    {
        let file = home.settings_file();
        return Err(Failure::new(
            exit::ERROR,
            format!(
                "{} belongs to another pusher or root; it was not changed",
                file.display()
            ),
            "use another --home, or correct the file by hand",
        ));
    }
    let identity = Identity::load_or_create(&home.identity_dir())?;
    let paired = runtime()?.block_on(async {
        let dialer = Dialer::new(&identity, Pins::new([]));
        let paired = link::join(&dialer, &code, &settings.node.name).await;
        dialer.close().await;
        paired
    });
    let paired = paired.map_err(|error| {
        Failure::new(
            exit::ERROR,
            error.to_string(),
            "`layer-sync pair` on the pusher makes a new code",
        )
    })?;
    fs::create_dir_all(home.state_dir())
        .map_err(|error| Failure::other("the state folder cannot be made", error))?;
    Partner::from(&paired)
        .write(home)
        .map_err(|error| Failure::other("the pairing cannot be stored", error))?;
    if existing.is_none() {
        settings.write_new(home)?;
    }
    Ok(paired.peer_name)
}

fn new_settings(root: &Path, name: Option<&str>, link: Link) -> Result<Settings, Failure> {
    let root = usable_root(root)?;
    let name = match name {
        Some(name) => name.to_owned(),
        None => machine_name(),
    };
    let settings = Settings {
        node: NodeSettings { name, root },
        sync: SyncSettings::default(),
        link,
        rate_limit: None,
        prefer: Prefer::default(),
        kept: config::settings::KeptSettings::default(),
        mirror: config::settings::MirrorSettings::default(),
        bot_api: config::settings::BOT_API_DEFAULT.to_owned(),
        dashboard: Some(config::settings::DASHBOARD_DEFAULT),
    };
    // What is written must be readable: this checks the name as the file would be.
    Settings::parse(&settings.render(), "the new settings")?;
    Ok(settings)
}

/// Returns the root as an absolute path without links.
pub(crate) fn usable_root(root: &Path) -> Result<PathBuf, Failure> {
    let shown = root.display();
    let found = root.canonicalize().map_err(|error| {
        Failure::new(
            exit::ERROR,
            format!("the root {shown} cannot be opened: {error}"),
            format!("make it: mkdir -p {shown}"),
        )
    })?;
    if !found.is_dir() {
        return Err(Failure::new(
            exit::ERROR,
            format!("the root {shown} is not a directory"),
            "choose a folder",
        ));
    }
    Ok(found)
}

/// Returns the machine's name with the characters that a node's name may have.
pub(crate) fn machine_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let short = name.split('.').next().unwrap_or_default();
    let clean: String = short
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .take(63)
        .collect();
    if clean.is_empty() {
        "node".into()
    } else {
        clean
    }
}
