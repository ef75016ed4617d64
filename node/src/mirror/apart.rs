//! A mirror without a daemon: a folder is mirrored in one command, and a tree is restored on a machine that knows nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use config::settings::{MirrorSettings, MirrorTarget};
use config::{Home, Settings};
use disk::{KeptLimits, Look, Places, Replica, RulesFile};
use mirror::folder::{Folder, PRIVATE};
use mirror::patient::{Patience, Patient};
use mirror::restore::{Restored, restore};
use mirror::round::{Done, Mirror, Purpose, Setup};
use mirror::store::Store;
use mirror::target::Wrong;
use shared::control::{NodeSide, exit};
use shared::hash::ContentHash;
use shared::ignore::Rules;
use shared::reconcile::{ConflictRules, Mode};
use shared::safety::Limits;

use super::place::{self, Place, Stored};
use super::utc_now;
use crate::setup::usable_root;
use crate::{Failure, logs, open};

/// Rounds that one push may take.
const ROUNDS_MAX: usize = 10;

/// What a push did.
#[derive(Debug, Clone, Default)]
pub struct Pushed {
    /// Files in the tree.
    pub files: u64,
    /// What was done.
    pub done: Done,
    /// What was left, a sentence each with what helps.
    pub waits: Vec<(String, String)>,
}

/// Mirrors a folder into another one, once. `home` remembers it, so that the next time only changes are written. `progress` is
/// told how many files and bytes were written.
///
/// # Errors
/// Why it could not be done.
pub fn push_apart(
    home: &Home,
    source: &Path,
    into: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Pushed, Failure> {
    logs::start("warn");
    let source = usable_root(source)?;
    fs::create_dir_all(into)
        .map_err(|error| Failure::other(&format!("{} cannot be made", into.display()), error))?;
    let into = usable_root(into)?;
    if source.starts_with(&into) || into.starts_with(&source) {
        let text = format!(
            "one of {} and {} lies inside the other; nothing was changed",
            source.display(),
            into.display()
        );
        return Err(Failure::new(
            exit::USAGE,
            text,
            "name two folders beside each other",
        ));
    }
    if source.join(PRIVATE).exists() {
        let text = format!(
            "{} is a mirror itself; nothing was changed",
            source.display()
        );
        return Err(Failure::new(
            exit::USAGE,
            text,
            "`layer-sync mirror restore DIR --from` makes a tree of it",
        ));
    }
    home.create()?;
    let pair = format!("{}\0{}", source.display(), into.display());
    let short = ContentHash::of_bytes(pair.as_bytes()).short();
    let own = Home::new(home.dir().join("mirrors").join(short));
    own.create()?;
    let lock = open::lock(&own)?;
    let expected = open::expected_replica(&own)?;
    refuse_foreign(&source, expected.map(|id| id.to_string()).as_deref())?;
    let places = Places {
        root: source.clone(),
        state: own.state_dir(),
    };
    let limits = KeptLimits {
        age: std::time::Duration::from_secs(30 * 86_400),
        bytes_min: 1 << 30,
        tree_percent: 10,
        age_min: std::time::Duration::from_secs(86_400),
    };
    let (replica, stored) = Replica::open(
        &places,
        expected,
        Rules::default(),
        "source",
        limits,
        Box::new(|_| {}),
    )?;
    if expected.is_none() {
        open::note_root(&own, &replica)?;
    }
    // Nobody has to agree on the rules: what the file says is so.
    if let Ok(Some(RulesFile { text: Ok(text), .. })) = replica.read_rules() {
        replica.set_rules(Rules::parse(&text).unwrap_or_default());
    }
    let replica = Arc::new(replica);
    let look = replica.look(&Look::All, &AtomicBool::new(false));
    look.map_err(|error| Failure::other("the folder cannot be looked at", error))?;
    replica.follow(Box::new(|| {}));
    let target = MirrorTarget::Folder(into.clone());
    let owner = format!("apart {}", super::hex(&stored.index.0));
    let store = place::store(&own, &target, &owner)?;
    let expected = store.fact("root").ok().flatten();
    let seed = place::seed()?;
    let folder = Patient::new(
        Folder::new(into, "source", expected),
        Patience::default(),
        seed,
    );
    let setup = Setup {
        node: "source".to_owned(),
        side: NodeSide::Pusher,
        pair: 0,
        // One command makes a copy: what somebody changed in it does not come back by itself.
        mode: Mode::OneWayReplica,
        conflicts: ConflictRules::default(),
        limits: Limits::default(),
    };
    let files = replica.file_count();
    let mirror = Mirror::new(folder, replica, store, setup, seed);
    let ended = runtime()?.block_on(async {
        let purpose = Purpose {
            is_road: true,
            is_primary: true,
        };
        let mut all = Done::default();
        for _ in 0..ROUNDS_MAX {
            let work = mirror.round(purpose, utc_now(), Instant::now());
            let mut work = std::pin::pin!(work);
            let done = loop {
                tokio::select! {
                    done = &mut work => break done?,
                    () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
                }
                let (files, bytes) = mirror.progress();
                progress(files, bytes);
            };
            all.pushed += done.pushed;
            all.bytes += done.bytes;
            all.changed += done.changed;
            all.left = done.left;
            if done.left == 0 || done.pushed + done.changed == 0 {
                break;
            }
        }
        Ok::<_, Wrong>(all)
    });
    let done = ended.map_err(|wrong| {
        let text = format!("the mirror is not up to date: {wrong}");
        Failure::new(
            exit::ERROR,
            text,
            "run the same command again; it goes on from there",
        )
    })?;
    if let Some((_, alarm)) = mirror.alarm() {
        let text = format!(
            "{} files would be deleted or rewritten in the mirror, more than a mistake should; nothing was changed",
            alarm.deletes + alarm.rewrites
        );
        return Err(Failure::new(
            exit::HALTED,
            text,
            "if that is right, name a new folder for the mirror",
        ));
    }
    let waits = mirror.waits();
    let waits = waits.into_iter().map(|(_, waits)| (waits.text, waits.fix));
    let pushed = Pushed {
        files,
        done,
        waits: waits.collect(),
    };
    drop(lock);
    Ok(pushed)
}

/// A folder that a node keeps equal has a mirror in that node's settings.
fn refuse_foreign(source: &Path, ours: Option<&str>) -> Result<(), Failure> {
    let marker = disk::examine::marker(source)
        .map_err(|error| Failure::other("the folder cannot be looked at", error))?;
    match marker {
        Some(marker) if Some(&*marker.replica) != ours => Err(Failure::new(
            exit::USAGE,
            format!(
                "{} is kept equal by a node of layer-sync, or was; nothing was changed",
                source.display()
            ),
            "set `target` in [mirror] of that node; if there is none any more, remove `.layer-sync` in the folder",
        )),
        _ => Ok(()),
    }
}

/// Restores a tree from its mirror into a folder. `from` says where the mirror is; `None` takes that of the home's settings.
/// `progress` is told how far it has come.
///
/// # Errors
/// Why it could not be done. What was restored stays.
pub fn restore_apart(
    home: &Home,
    from: Option<MirrorTarget>,
    into: &Path,
    progress: impl FnMut(&Restored),
) -> Result<Restored, Failure> {
    logs::start("warn");
    let set = Settings::read(home).ok().map(|settings| settings.mirror);
    let settings = set.unwrap_or_default();
    let target = from.or_else(|| settings.target.clone()).ok_or_else(|| {
        Failure::new(
            exit::USAGE,
            "nobody says where the mirror is",
            "name it: `--from DIR`, `--from drive` or `--from drive:NAME`",
        )
    })?;
    if let MirrorTarget::Folder(folder) = &target
        && !folder.join(PRIVATE).is_dir()
    {
        return Err(Failure::new(
            exit::ERROR,
            format!("{} holds no mirror", folder.display()),
            "name the folder that was mirrored to; is the disk mounted?",
        ));
    }
    if let MirrorTarget::Folder(folder) = &target {
        let inside = std::path::absolute(into).is_ok_and(|into| into.starts_with(folder));
        if inside {
            let text = format!("{} lies inside of the mirror", into.display());
            return Err(Failure::new(exit::USAGE, text, "name a folder beside it"));
        }
    }
    fs::create_dir_all(into)
        .map_err(|error| Failure::other(&format!("{} cannot be made", into.display()), error))?;
    let settings = match Stored::read(home) {
        Ok(stored) => MirrorSettings {
            api: stored.api,
            ..settings
        },
        Err(_) => settings,
    };
    let restored = runtime()?.block_on(async {
        let place = Place {
            settings: &settings,
            home,
            node: "restore",
            makes: false,
        };
        let target = place.open(&target, &Store::in_memory("restore")?).await?;
        let target = Patient::new(target, Patience::default(), 1);
        restore(&target, into, progress).await
    });
    restored.map_err(|wrong| {
        let fix = match &wrong {
            Wrong::NoConsent(_) => "layer-sync mirror auth",
            _ => "run the same command again; it goes on from there",
        };
        Failure::new(exit::ERROR, format!("not all was restored: {wrong}"), fix)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other("the runtime cannot be started", error))
}
