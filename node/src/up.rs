//! Both sides on this machine, over loopback: two nodes with homes of their own, paired without a
//! code, because whoever starts them holds both keys.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::settings::{
    KeptSettings, Link, MirrorSettings, MirrorTarget, NodeSettings, SyncSettings,
};
use config::{Home, Settings};
use link::Identity;
use shared::control::{NodeSide, exit};
use shared::lease::Prefer;
use shared::reconcile::Mode;
use shared::wire::PairId;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::daemon::{Daemon, Duty, runtime};
use crate::partner::Partner;
use crate::setup::usable_root;
use crate::{Failure, logs};

/// Both sides, running.
pub struct Up {
    runtime: Runtime,
    pusher: Home,
    receiver: Home,
    daemons: Vec<Daemon>,
    stop: watch::Sender<bool>,
}

impl Up {
    /// Starts both sides. The two nodes of a pair of folders live below `home`, so that another run
    /// goes on where the last one ended. `mirror` is a folder that holds a third copy, if there is to be one.
    ///
    /// # Errors
    /// Why one of the sides cannot start.
    pub fn start(
        home: &Home,
        source: &Path,
        replica: &Path,
        mode: Mode,
        mirror: Option<&Path>,
    ) -> Result<Self, Failure> {
        logs::start("warn");
        let source = usable_root(source)?;
        refuse_nested(&source, &resolved(replica)?)?;
        if !replica.exists() {
            fs::create_dir_all(replica).map_err(|error| {
                Failure::other(&format!("{} cannot be made", replica.display()), error)
            })?;
        }
        let replica = usable_root(replica)?;
        let mirror = mirror.map(|folder| third(folder, [&source, &replica]));
        let mirror = mirror.transpose()?;
        let base = pair_home(home, &source, &replica);
        let (pusher, receiver) = (
            Home::new(base.join("pusher")),
            Home::new(base.join("receiver")),
        );
        home.create()?;
        pusher.create()?;
        receiver.create()?;
        let runtime = runtime()?;
        let (stop, stopped) = watch::channel(false);
        let daemons = runtime.block_on(async {
            let listen = free_address()?;
            introduce(&pusher, &receiver)?;
            write_settings(
                &pusher,
                "source",
                &source,
                mode,
                &Link::Listen {
                    listen,
                    advertise: None,
                },
                mirror,
            )?;
            let peer = listen
                .to_string()
                .parse()
                .map_err(|error| Failure::other("the loopback address", error))?;
            let link = Link::Dial { peer };
            write_settings(&receiver, "replica", &replica, mode, &link, None)?;
            let first = Daemon::open(&pusher, NodeSide::Pusher, Duty::Sync, stopped.clone())?;
            let second = Daemon::open(&receiver, NodeSide::Receiver, Duty::Sync, stopped)?;
            Ok::<_, Failure>(vec![first, second])
        })?;
        Ok(Self {
            runtime,
            pusher,
            receiver,
            daemons,
            stop,
        })
    }

    /// Returns the home of the source's side.
    pub fn pusher(&self) -> &Home {
        &self.pusher
    }

    /// Returns the home of the replica's side.
    pub fn receiver(&self) -> &Home {
        &self.receiver
    }

    /// Stops both sides.
    ///
    /// # Errors
    /// Why one of them had stopped before.
    pub fn stop(mut self) -> Result<(), Failure> {
        let _ = self.stop.send(true);
        let daemons = std::mem::take(&mut self.daemons);
        let ended = self.runtime.block_on(async {
            let mut ended = Ok(());
            for mut daemon in daemons {
                ended = ended.and(daemon.wait().await);
            }
            ended
        });
        self.runtime.shutdown_timeout(Duration::from_millis(200));
        ended
    }
}

fn refuse_nested(source: &Path, replica: &Path) -> Result<(), Failure> {
    let (shown_source, shown_replica) = (source.display(), replica.display());
    if source == replica {
        return Err(Failure::new(
            exit::USAGE,
            format!("{shown_source} is both source and replica"),
            "name two folders",
        ));
    }
    if source.starts_with(replica) || replica.starts_with(source) {
        let text = format!(
            "one of {shown_source} and {shown_replica} lies inside the other; nothing was changed"
        );
        return Err(Failure::new(
            exit::USAGE,
            text,
            "name two folders beside each other",
        ));
    }
    Ok(())
}

/// Makes the folder of the third copy, which must not lie within the others, nor they in it.
fn third(folder: &Path, others: [&Path; 2]) -> Result<PathBuf, Failure> {
    let at = resolved(folder)?;
    for other in others {
        refuse_nested(other, &at)?;
    }
    fs::create_dir_all(&at)
        .map_err(|error| Failure::other(&format!("{} cannot be made", at.display()), error))?;
    usable_root(&at)
}

/// Returns where a folder is or would be made: what exists of its path without links, and the rest as
/// typed.
fn resolved(folder: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(folder)
        .map_err(|error| Failure::other(&format!("{} is no path", folder.display()), error))?;
    let there = absolute
        .ancestors()
        .find_map(|above| Some((above.canonicalize().ok()?, above)));
    Ok(match there {
        Some((real, above)) => real.join(absolute.strip_prefix(above).unwrap_or(Path::new(""))),
        None => absolute,
    })
}

/// Returns where the two nodes of a pair of folders live.
fn pair_home(home: &Home, source: &Path, replica: &Path) -> PathBuf {
    let pair = format!("{}\0{}", source.display(), replica.display());
    home.dir()
        .join("up")
        .join(shared::hash::ContentHash::of_bytes(pair.as_bytes()).short())
}

/// Pins each node's key at the other one.
fn introduce(pusher: &Home, receiver: &Home) -> Result<(), Failure> {
    let keys = [pusher, receiver].map(|home| {
        Identity::load_or_create(&home.identity_dir()).map(|identity| identity.fingerprint())
    });
    let [pusher_key, receiver_key] = keys;
    let (pusher_key, receiver_key) = (pusher_key?, receiver_key?);
    let pair = PairId(std::array::from_fn(|index| pusher_key.as_bytes()[index]));
    let partners = [
        (pusher, receiver_key, "replica"),
        (receiver, pusher_key, "source"),
    ];
    for (home, key, name) in partners {
        fs::create_dir_all(home.state_dir())
            .map_err(|error| Failure::other("the state folder cannot be made", error))?;
        let partner = Partner {
            pair,
            key,
            name: name.into(),
        };
        partner
            .write(home)
            .map_err(|error| Failure::other("the pairing cannot be stored", error))?;
    }
    Ok(())
}

/// The port changes from run to run, so these settings are written anew each time.
fn write_settings(
    home: &Home,
    name: &str,
    root: &Path,
    mode: Mode,
    link: &Link,
    mirror: Option<PathBuf>,
) -> Result<(), Failure> {
    let settings = Settings {
        node: NodeSettings {
            name: name.into(),
            root: root.to_owned(),
        },
        sync: SyncSettings {
            mode,
            ..SyncSettings::default()
        },
        link: link.clone(),
        rate_limit: None,
        prefer: Prefer::default(),
        kept: KeptSettings::default(),
        mirror: MirrorSettings {
            target: mirror.map(MirrorTarget::Folder),
            ..MirrorSettings::default()
        },
        bot_api: config::settings::BOT_API_DEFAULT.to_owned(),
        dashboard: Some(config::settings::DASHBOARD_DEFAULT),
    };
    match fs::remove_file(home.settings_file()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::other("the settings cannot be written", error))
        }
        _ => Ok(settings.write_new(home)?),
    }
}

/// Finds a free UDP port on loopback.
fn free_address() -> Result<SocketAddr, Failure> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .map_err(|error| Failure::other("no port on loopback can be bound", error))
}
