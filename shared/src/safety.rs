//! The guard: a plan that would displace much of a tree waits for a person.
//!
//! Everything that a plan displaces can be brought back from the kept store, so everyday work is never
//! stopped. Beyond the limits something else has happened: a folder was emptied, a backup was restored
//! over it, a program encrypted it. Then the plan is halted as a whole, with the counts, until somebody
//! confirms or undoes that very batch.
//!
//! Counted are distinct files that a tree loses or gets replaced because of the *other* side: in the
//! plan at hand, and together with what passed in the last [`WINDOW`]. What was missed while unlinked
//! comes as one plan. Not counted: a file whose content turns up elsewhere (a rename), and the loser of
//! a conflict, of which a copy stays in the tree; and [journals](crate::journal).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::hash::ContentHash;
use crate::journal;
use crate::path::RelPath;
use crate::reconcile::Plan;
use crate::transfer::{Op, Source};
use crate::tree::{Entry, Side, Trees};

/// How long a displaced file counts.
pub const WINDOW: Duration = Duration::from_secs(600);
/// A tree with fewer files may be emptied without a question.
const EMPTIED_FILES_MIN: u64 = 2;

/// From where on a plan is halted. Both of a pair have to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Deleted files, in percent of the files of the tree that would lose them. With 100 nothing is too
    /// much, not even an emptied tree.
    pub delete_percent: u8,
    /// Deleted files.
    pub delete_min: u64,
    /// Rewritten files, in percent.
    pub rewrite_percent: u8,
    /// Rewritten files.
    pub rewrite_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            delete_percent: 30,
            delete_min: 50,
            rewrite_percent: 50,
            rewrite_min: 200,
        }
    }
}

/// What made the guard halt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The other side has no file left at all.
    Emptied,
    /// Too many deletions.
    Deletes,
    /// Too many rewrites.
    Rewrites,
}

/// A plan that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Why.
    pub cause: Cause,
    /// The side whose tree would change.
    pub side: Side,
    /// Files of that tree that the plan deletes.
    pub deletes: u64,
    /// Files of that tree that the plan rewrites.
    pub rewrites: u64,
    /// Files that already went the same way in the last [`WINDOW`].
    pub before: u64,
    /// Files in that tree; for deletions with those that went in the last [`WINDOW`].
    pub files: u64,
    /// What would be displaced.
    displaced: BTreeMap<(Side, RelPath), Displaced>,
}

/// What stands at a path, and what would.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Displaced {
    old: Entry,
    new: Option<Entry>,
}

impl Alarm {
    /// Returns the name of the batch: eight hexadecimal digits of a hash over all that it would displace.
    pub fn batch(&self) -> String {
        let mut text = String::new();
        for ((side, path), displaced) in &self.displaced {
            let identity = |entry: &Entry| entry.identity().to_string();
            let new = displaced.new.as_ref().map(identity).unwrap_or_default();
            // No path has a NUL in it.
            text += &format!("{side:?}\0{path}\0{}\0{new}\0", identity(&displaced.old));
        }
        ContentHash::of_bytes(text.as_bytes()).short()
    }

    /// Returns the paths that would be displaced, with the side that would lose its version.
    pub fn paths(&self) -> impl Iterator<Item = (Side, &RelPath)> {
        self.displaced.keys().map(|(side, path)| (*side, path))
    }
}

/// Watches what plans displace.
#[derive(Debug, Default)]
pub struct Guard {
    limits: Limits,
    recent: [Recent; 2],
    confirmed: BTreeMap<(Side, RelPath), Displaced>,
}

/// What passed lately on one side.
#[derive(Debug, Default)]
struct Recent {
    /// In the order of time; what a later event undid is no longer in the maps.
    order: VecDeque<(Instant, RelPath)>,
    deleted: Deleted,
    rewritten: BTreeMap<RelPath, Instant>,
    /// Where contents appeared.
    made: Made,
}

impl Guard {
    /// Starts with nothing counted.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Returns how many files a plan displaces that nobody has confirmed.
    pub fn toll(&self, plan: &Plan) -> u64 {
        self.displaced(plan).len() as u64
    }

    /// Says whether a plan may be carried out.
    ///
    /// # Errors
    /// The [`Alarm`] of the first side for which it displaces too much.
    pub fn judge(&mut self, trees: &Trees, plan: &Plan, now: Instant) -> Result<(), Alarm> {
        let files = [Side::Alpha, Side::Beta].map(|side| trees.view(side).files());
        self.judge_of(files, plan, now)
    }

    /// As [`Guard::judge`], with the number of files of the pusher's and of the receiver's tree.
    ///
    /// # Errors
    /// As there.
    pub fn judge_of(&mut self, files: [u64; 2], plan: &Plan, now: Instant) -> Result<(), Alarm> {
        let displaced = self.displaced(plan);
        for side in [Side::Alpha, Side::Beta] {
            self.recent[side as usize].forget(now);
            if let Some(alarm) = self.alarm(files, plan, &displaced, side, now) {
                return Err(Alarm { displaced, ..alarm });
            }
        }
        Ok(())
    }

    /// Takes a plan that is being carried out.
    pub fn passed(&mut self, plan: &Plan, now: Instant) {
        let conflicts = conflict_paths(plan);
        for (side, op) in plan.ops.iter().filter(|(_, op)| !journal::has(&op.path)) {
            let key = (*side, op.path.clone());
            let confirmed = self.confirmed.remove(&key);
            if conflicts.contains(&op.path) || confirmed == displaced_by(op) && confirmed.is_some()
            {
                continue;
            }
            self.recent[*side as usize].take(op, now);
        }
    }

    /// Takes it that an operation of a plan was not carried out. A file that still is there is none of those
    /// that went, and counting it twice would let more pass.
    pub fn not_done(&mut self, side: Side, op: &Op) {
        if op.make.is_none() {
            self.recent[side as usize].deleted.remove(&op.path);
        }
    }

    /// Lets the batch of an alarm pass. What went before it no longer counts.
    pub fn confirm(&mut self, alarm: &Alarm) {
        self.confirmed.extend(alarm.displaced.clone());
        self.recent = Default::default();
    }

    fn displaced(&self, plan: &Plan) -> BTreeMap<(Side, RelPath), Displaced> {
        let conflicts = conflict_paths(plan);
        let ops = plan.ops.iter().filter_map(|(side, op)| {
            let displaced = displaced_by(op)?;
            let key = (*side, op.path.clone());
            // A journal grows while a person decides; that is no other batch, and nothing of a person's.
            let counts = self.confirmed.get(&key) != Some(&displaced)
                && !conflicts.contains(&op.path)
                && !journal::has(&op.path);
            counts.then_some((key, displaced))
        });
        ops.collect()
    }

    fn alarm(
        &self,
        counts: [u64; 2],
        plan: &Plan,
        displaced: &BTreeMap<(Side, RelPath), Displaced>,
        side: Side,
        now: Instant,
    ) -> Option<Alarm> {
        let recent = &self.recent[side as usize];
        let here: Vec<(&RelPath, &Displaced)> = displaced
            .iter()
            .filter(|((of, _), _)| *of == side)
            .map(|((_, path), displaced)| (path, displaced))
            .collect();
        // Only what has a content that goes can count for it: a plan of one note must not cost what the
        // last ten minutes did.
        let gone = here.iter().filter(|(_, displaced)| displaced.new.is_none());
        let gone: BTreeSet<ContentHash> = gone.filter_map(|(_, was)| content(&was.old)).collect();
        let mut made = recent.made.only(&gone);
        for (_, op) in plan.ops.iter().filter(|(of, _)| *of == side) {
            if let (None, Some(content)) = (&op.expect, op.make.as_ref().and_then(content))
                && gone.contains(&content)
            {
                made.insert(content, op.path.clone(), now);
            }
        }
        let (mut deletes, mut rewrites) = (0, 0);
        for (path, displaced) in here {
            match displaced.new {
                None if !made.has_moved(path, &displaced.old) => deletes += 1,
                None => {}
                Some(_) => rewrites += 1,
            }
        }
        let (deleted, rewritten) = (recent.deleted.len() as u64, recent.rewritten.len() as u64);
        let files = counts[side as usize];
        let exceeds = |count: u64, before: u64, files: u64, min: u64, percent: u8| {
            let all = count + before;
            count > 0 && all >= min && all * 100 > files * u64::from(percent)
        };
        let emptied = self.limits.delete_percent < 100
            && counts[side.other() as usize] == 0
            && files >= EMPTIED_FILES_MIN
            && deletes > 0;
        let limits = self.limits;
        // What went lately was there to be deleted, and is not there to be rewritten.
        let once = files + deleted;
        let (cause, before, files) = if emptied {
            (Cause::Emptied, deleted, once)
        } else if exceeds(
            deletes,
            deleted,
            once,
            limits.delete_min,
            limits.delete_percent,
        ) {
            (Cause::Deletes, deleted, once)
        } else if exceeds(
            rewrites,
            rewritten,
            files,
            limits.rewrite_min,
            limits.rewrite_percent,
        ) {
            (Cause::Rewrites, rewritten, files)
        } else {
            return None;
        };
        Some(Alarm {
            cause,
            side,
            deletes,
            rewrites,
            before,
            files,
            displaced: BTreeMap::new(),
        })
    }
}

impl Recent {
    fn take(&mut self, op: &Op, now: Instant) {
        match (&op.expect, &op.make) {
            (Some(old), None) => {
                let Some(lost) = content(old) else { return };
                // It counts once, and is not there to be one of the files that were rewritten.
                self.rewritten.remove(&op.path);
                if self.made.has_moved(&op.path, old) {
                    return;
                }
                self.deleted.insert(op.path.clone(), now, lost);
                self.order.push_back((now, op.path.clone()));
            }
            (None, Some(new)) => {
                self.deleted.remove(&op.path);
                let Some(content) = content(new) else { return };
                match self.deleted.any_of(content) {
                    Some(path) => self.deleted.remove(&path),
                    None => self.made.insert(content, op.path.clone(), now),
                }
            }
            _ => {
                let is_news = displaced_by(op).is_some()
                    && self.rewritten.insert(op.path.clone(), now).is_none();
                if is_news {
                    self.order.push_back((now, op.path.clone()));
                }
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |at: Instant| now.saturating_duration_since(at) > WINDOW;
        while let Some((_, path)) = self.order.pop_front_if(|(at, _)| is_old(*at)) {
            if self.deleted.at(&path).is_some_and(is_old) {
                self.deleted.remove(&path);
            }
            match self.rewritten.get(&path) {
                Some(at) if is_old(*at) => drop(self.rewritten.remove(&path)),
                // Rewritten again since: it counts from then on.
                Some(at) => self.order.push_back((*at, path)),
                None => {}
            }
        }
        self.made.forget(now);
    }
}

/// What was deleted lately.
#[derive(Debug, Default)]
struct Deleted {
    paths: BTreeMap<RelPath, (Instant, ContentHash)>,
    contents: BTreeSet<(ContentHash, Option<RelPath>)>,
}

impl Deleted {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn at(&self, path: &RelPath) -> Option<Instant> {
        self.paths.get(path).map(|(at, _)| *at)
    }

    fn insert(&mut self, path: RelPath, at: Instant, content: ContentHash) {
        self.remove(&path);
        self.contents.insert((content, Some(path.clone())));
        self.paths.insert(path, (at, content));
    }

    fn remove(&mut self, path: &RelPath) {
        if let Some((_, content)) = self.paths.remove(path) {
            self.contents.remove(&(content, Some(path.clone())));
        }
    }

    /// Returns the first path that had this content.
    fn any_of(&self, content: ContentHash) -> Option<RelPath> {
        let (of, path) = self.contents.range((content, None)..).next()?;
        path.clone().filter(|_| *of == content)
    }
}

/// Where contents appeared lately, and when: flat, since after a first sync it is the whole tree.
#[derive(Debug, Default)]
struct Made {
    places: BTreeMap<(ContentHash, Option<RelPath>), Instant>,
    /// When it was looked through for what is old.
    forgot: Option<Instant>,
}

impl Made {
    fn insert(&mut self, content: ContentHash, path: RelPath, now: Instant) {
        self.places.entry((content, Some(path))).or_insert(now);
    }

    /// Returns the part about some contents.
    fn only(&self, contents: &BTreeSet<ContentHash>) -> Self {
        let of = |content: &ContentHash| {
            let content = *content;
            self.places
                .range((content, None)..)
                .take_while(move |((of, _), _)| *of == content)
                .map(|(place, at)| (place.clone(), *at))
        };
        Self {
            places: contents.iter().flat_map(of).collect(),
            forgot: None,
        }
    }

    /// Says whether what goes from a path has appeared at another one, which then counts for it.
    fn has_moved(&mut self, path: &RelPath, old: &Entry) -> bool {
        let Some(content) = content(old) else {
            return false;
        };
        // What was made here and goes from here again is no move.
        self.places.remove(&(content, Some(path.clone())));
        let place = self.places.range((content, None)..).next();
        let place = place.map(|(place, _)| place.clone());
        match place.filter(|(of, _)| *of == content) {
            Some(place) => self.places.remove(&place).is_some(),
            None => false,
        }
    }

    fn forget(&mut self, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.forgot.is_none_or(|at| since(at) > WINDOW / 10) {
            self.forgot = Some(now);
            self.places.retain(|_, at| since(*at) <= WINDOW);
        }
    }
}

/// Returns what an operation displaces: a file or a link that goes, or gives way to something else.
fn displaced_by(op: &Op) -> Option<Displaced> {
    let is_merge = matches!(op.from, Source::Merge { .. });
    let old = op
        .expect
        .as_ref()
        .filter(|old| !old.is_dir() && !is_merge)?;
    let same_content = op
        .make
        .as_ref()
        .is_some_and(|new| new.same_kind(old) && new.identity() == old.identity());
    (!same_content).then(|| Displaced {
        old: old.clone(),
        new: op.make.clone(),
    })
}

fn conflict_paths(plan: &Plan) -> BTreeSet<&RelPath> {
    plan.conflicts
        .iter()
        .map(|conflict| &conflict.path)
        .collect()
}

fn content(entry: &Entry) -> Option<ContentHash> {
    match entry {
        Entry::File { content, .. } => Some(*content),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
