//! Opens everything that a node needs before it can run: home, settings, lock, identity, disk.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use config::{Home, Secrets, Settings};
use disk::looks::Looks;
use disk::quiet::Quiet;
use disk::watch::{Hint, Watcher};
use disk::{KeptLimits, Locked, Replica, ReplicaId, Report, Stored};
use link::Identity;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use shared::control::{NodeSide, exit};
use shared::ignore::Rules;
use tokio::sync::mpsc;

use crate::Failure;
use crate::partner::Partner;
use crate::small_file;

/// A node that is ready to run. While it lives, no other process can use its root.
pub(crate) struct Opened {
    pub(crate) home: Home,
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    pub(crate) partner: Option<Partner>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) stored: Stored,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    pub(crate) looks: Looks,
    pub(crate) watcher: Watcher,
    pub(crate) hints: mpsc::UnboundedReceiver<Hint>,
}

/// Which root a home belongs to.
#[derive(Serialize, Deserialize)]
struct RootNote {
    replica: String,
}

/// Takes a home for this process: while the lock lives, no other one can use it. The kernel releases it when
/// the process ends, however it ends.
///
/// # Errors
/// When it is no home of this side, or another process has it.
pub(crate) fn enter(home: &Home, side: NodeSide) -> Result<File, Failure> {
    home.check()?;
    let settings = Settings::read(home)?;
    if settings.link.side() != side {
        let other = settings.link.side().name();
        return Err(Failure::new(
            exit::DAEMON_USAGE,
            format!(
                "{} is the home of a {other}, not of a {}",
                home.dir().display(),
                side.name()
            ),
            format!("start it with `layer-sync {other}`"),
        ));
    }
    Secrets::read(home, std::env::vars_os())?;
    lock(home)
}

/// Opens the node of a home that was entered.
///
/// # Errors
/// The first thing that is wrong; nothing in the tree was changed.
pub(crate) fn open(home: &Home) -> Result<Opened, Failure> {
    let settings = Settings::read(home)?;
    let side = settings.link.side();
    let identity = Identity::load_or_create(&home.identity_dir())?;
    let state = home.state_dir();
    fs::create_dir_all(&state)
        .map_err(|error| Failure::other(&format!("{} cannot be made", state.display()), error))?;
    let partner = Partner::read(home)?;
    if side == NodeSide::Receiver && partner.is_none() {
        return Err(Failure::new(
            exit::DAEMON_USAGE,
            "this receiver was never paired with a pusher",
            "run `layer-sync pair` on the pusher, then `layer-sync join CODE --root DIR` here",
        ));
    }
    let (reporter, reports) = mpsc::unbounded_channel();
    let sink = Box::new(move |report| drop(reporter.send(report)));
    let expected = expected_replica(home)?;
    let limits = KeptLimits {
        age: settings.kept.age,
        bytes_min: settings.kept.bytes_min,
        tree_percent: settings.kept.tree_percent,
        age_min: settings.kept.age_min,
    };
    let locked = Locked::lock(&settings.node.root, expected)?;
    let (hinter, hints) = mpsc::unbounded_channel();
    let root = locked.root().to_owned();
    let (watcher, loaded) = std::thread::scope(|scope| {
        // What the rules ignore makes hints until they are known, and no more.
        let watch = || Watcher::start(&root, Rules::default(), move |hint| drop(hinter.send(hint)));
        let watcher = scope.spawn(watch);
        let name = &settings.node.name;
        let loaded = Replica::load(locked, &state, Rules::default(), name, limits, sink);
        (watcher.join(), loaded)
    });
    let (replica, stored) = loaded?;
    let watcher = watcher.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    if expected.is_none() {
        note_root(home, &replica)?;
    }
    // Rules that were agreed once have been parsed once.
    let rules = Rules::parse(&stored.notes.ignore).unwrap_or_default();
    replica.set_rules(rules.clone());
    watcher.set_rules(rules);
    let looks = Looks::new(
        Quiet::new(settings.sync.debounce),
        settings.sync.interval,
        Instant::now(),
    );
    Ok(Opened {
        home: home.clone(),
        settings,
        identity,
        partner,
        replica: Arc::new(replica),
        stored,
        reports,
        looks,
        watcher,
        hints,
    })
}

pub(crate) fn lock(home: &Home) -> Result<File, Failure> {
    let path = home.lock_file();
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| {
            Failure::new(
                exit::DAEMON_PERMISSION,
                format!("{} cannot be opened: {error}", path.display()),
                "",
            )
        })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(Failure::new(
            exit::DAEMON_USAGE,
            format!(
                "another layer-sync is running with the home {}",
                home.dir().display()
            ),
            "`layer-sync status` shows it",
        )),
    }
}

/// Notes that a home belongs to this root.
pub(crate) fn note_root(home: &Home, replica: &Replica) -> Result<(), Failure> {
    let note = RootNote {
        replica: replica.id().to_string(),
    };
    fs::create_dir_all(home.state_dir())
        .and_then(|()| small_file::write(&root_note(home), &note))
        .map_err(|error| Failure::other("the root's marker cannot be noted", error))
}

/// Returns the replica that the root must be: none at the first start.
pub(crate) fn expected_replica(home: &Home) -> Result<Option<ReplicaId>, Failure> {
    let file = root_note(home);
    let unreadable = |error: &dyn std::fmt::Display| {
        let text = format!(
            "{} does not say which root this home belongs to: {error}",
            file.display()
        );
        Failure::new(
            exit::DAEMON_CONFIG,
            text,
            "remove the file to unite the two trees anew; nothing is deleted by that",
        )
    };
    let note: Option<RootNote> = small_file::read(&file).map_err(|error| unreadable(&error))?;
    note.map(|note| note.replica.parse().map_err(|error| unreadable(&error)))
        .transpose()
}

/// Accepts the folder of a home as it is now: at its next start the node takes it for a new one, and the
/// two trees are united without a deletion. The home must not be in use.
///
/// # Errors
/// When a daemon runs, or the note of the folder cannot be removed.
pub fn accept_root(home: &Home) -> Result<(), Failure> {
    home.check()?;
    let _lock = lock(home)?;
    forget_root(home)
}

pub(crate) fn forget_root(home: &Home) -> Result<(), Failure> {
    match fs::remove_file(root_note(home)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::other(
            "the root's marker cannot be forgotten",
            error,
        )),
        _ => Ok(()),
    }
}

fn root_note(home: &Home) -> PathBuf {
    home.state_dir().join("root.json")
}
