//! Watch: hints that something moved.
//!
//! A hint is worth a look and proves nothing; that no hint comes proves nothing either. Whatever goes
//! wrong here makes more looks, and a sentence for the status, never an end: sweeps alone are enough.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use notify::event::{AccessKind, AccessMode};
use notify::{
    Config, ErrorKind, Event, EventKind, EventKindMask, RecommendedWatcher, RecursiveMode,
};
use shared::ignore::{PRIVATE_DIR, Rules, is_litter};
use shared::path::RelPath;

use crate::volume;

/// What a watcher says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Something moved at this path: wait until it rests.
    Path(RelPath),
    /// Whoever wrote this file has closed it: look at once.
    Closed(RelPath),
    /// Hints were lost, for this reason: look at the whole tree.
    Sweep(&'static str),
    /// From now on hints are missing: look at the whole tree regularly. One sentence for a person.
    Degraded(String),
}

/// Watches a tree until it is dropped.
pub struct Watcher {
    rules: Arc<RwLock<Rules>>,
    /// `None` for one that hears nothing.
    _ears: Option<RecommendedWatcher>,
}

impl Watcher {
    /// Watches everything below `root`, and hands hints over on a thread of its own. `hints` must only
    /// push: while it runs, the system's queue fills.
    ///
    /// It never fails: a system that cannot watch is [`Hint::Degraded`].
    pub fn start(root: &Path, rules: Rules, hints: impl Fn(Hint) + Send + Sync + 'static) -> Self {
        let rules = Arc::new(RwLock::new(rules));
        // Events carry the path with its links resolved on some systems.
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        let hints = Arc::new(hints);
        let hearing = Hearing {
            root: root.clone(),
            rules: rules.clone(),
            hints: hints.clone(),
        };
        let config = Config::default()
            .with_follow_symlinks(false)
            .with_event_kinds(EventKindMask::CORE | EventKindMask::ACCESS_CLOSE);
        let started =
            <RecommendedWatcher as notify::Watcher>::new(move |event| hearing.take(event), config)
                .and_then(|mut ears| {
                    notify::Watcher::watch(&mut ears, &root, RecursiveMode::Recursive)?;
                    if volume::WATCHES_EACH_DIRECTORY {
                        // Whatever is staged would make events that nobody wants.
                        let _ = notify::Watcher::unwatch(&mut ears, &root.join(PRIVATE_DIR));
                    }
                    Ok(ears)
                });
        let ears = started
            .inspect_err(|error| hints(Hint::Degraded(sentence(error))))
            .ok();
        Self { rules, _ears: ears }
    }

    /// Returns a watcher that never says anything.
    pub fn deaf() -> Self {
        Self {
            rules: Arc::default(),
            _ears: None,
        }
    }

    /// Replaces the rules: what they ignore makes no hints.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }
}

/// What the thread of the watcher needs.
struct Hearing<F> {
    root: PathBuf,
    rules: Arc<RwLock<Rules>>,
    hints: Arc<F>,
}

impl<F: Fn(Hint)> Hearing<F> {
    fn take(&self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => {
                (self.hints)(Hint::Sweep("the system lost file events"));
            }
            Ok(event) => {
                let closed = event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
                if closed || !event.kind.is_access() {
                    event.paths.iter().for_each(|path| self.path(path, closed));
                }
            }
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                (self.hints)(Hint::Degraded(sentence(&error)));
            }
            Err(error) => {
                tracing::warn!(%error, "an error of the file watcher");
                (self.hints)(Hint::Sweep("the file watcher reported an error"));
            }
        }
    }

    fn path(&self, path: &Path, closed: bool) {
        let Ok(relative) = path.strip_prefix(&self.root) else {
            return;
        };
        if relative.as_os_str().is_empty() {
            // The root itself: whatever moved in it has an event of its own.
            return;
        }
        let Some(hint) = nearest(relative) else {
            (self.hints)(Hint::Sweep("a name at the top of the tree is not UTF-8"));
            return;
        };
        let whole = hint.as_str().len() == relative.as_os_str().len();
        let ours = |name: &str| name == PRIVATE_DIR || is_litter(name);
        if hint.components().any(ours) || self.is_ignored(&hint) {
            return;
        }
        (self.hints)(if closed && whole {
            Hint::Closed(hint)
        } else {
            Hint::Path(hint)
        });
    }

    fn is_ignored(&self, path: &RelPath) -> bool {
        self.rules
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .ignores_within(path, false)
    }
}

/// Returns the path, or the nearest directory above it whose path can be told.
fn nearest(relative: &Path) -> Option<RelPath> {
    use std::os::unix::ffi::OsStrExt;
    relative
        .ancestors()
        .find_map(|above| RelPath::parse_bytes(above.as_os_str().as_bytes()).ok())
}

fn sentence(error: &notify::Error) -> String {
    match error.kind {
        ErrorKind::MaxFilesWatch => {
            "the system has too few file watches for this tree, so changes \
            are found by looking at it regularly; raise fs.inotify.max_user_watches"
                .to_owned()
        }
        _ => format!(
            "the system cannot watch this tree ({error}), so changes are found by looking at it \
             regularly"
        ),
    }
}

#[cfg(test)]
mod tests;
