//! Trees: what a side has, what both agreed on.
//!
//! [`Trees`] holds three trees in little memory: the base in full, and for each side only where it
//! is apart from the base. A settled path is one row; an edit touches one row.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::hash::{ContentHash, SetHash};
use crate::limit;
use crate::mirror::Trail;
use crate::path::{RelPath, below};

/// Longest target of a link, in bytes: what Linux can store. macOS stores less.
pub const LINK_BYTES_MAX: usize = 4096;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Entry {
    /// A regular file. Equal when content and exec bit are; the modification time is carried beside
    /// it and never compared.
    File {
        /// Hash of the content.
        content: ContentHash,
        /// Length in bytes.
        len: u64,
        /// Whether its owner may execute it.
        exec: bool,
    },
    /// A directory.
    Dir,
    /// A symbolic link. Its target is text; it is never followed.
    Symlink {
        /// The target as it is stored; at most [`LINK_BYTES_MAX`], without NUL.
        #[serde(deserialize_with = "link_target")]
        target: Box<str>,
    },
}

fn link_target<'de, D: Deserializer<'de>>(from: D) -> Result<Box<str>, D::Error> {
    let target = limit::text::<_, LINK_BYTES_MAX>(from)?;
    if target.contains('\0') {
        return Err(de::Error::custom("the target of a link has a NUL byte"));
    }
    Ok(target.into())
}

impl Entry {
    /// Says whether this is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self, Self::Dir)
    }

    /// Returns the length in bytes; directories and links count as 0.
    pub fn len(&self) -> u64 {
        if let Self::File { len, .. } = self {
            *len
        } else {
            0
        }
    }

    /// Says whether it holds no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says whether both are of one kind.
    pub fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Returns a hash of the entry itself, for names and for identifying a conflict copy.
    pub fn identity(&self) -> ContentHash {
        match self {
            Self::File { content, .. } => *content,
            Self::Symlink { target } => ContentHash::of_bytes(target.as_bytes()),
            Self::Dir => ContentHash::of_bytes(b""),
        }
    }
}

/// Why something at a path is not an [`Entry`] that can be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Obstacle {
    /// It could not be read or listed.
    Unreadable,
    /// The ignore rules leave it alone.
    Ignored,
    /// A FIFO, socket or device: never opened.
    Special,
    /// Its name or its link target is not UTF-8.
    NotUtf8,
    /// Its path breaks a limit of [`RelPath`].
    BadName,
    /// A directory that is the root of another tree.
    OtherRoot,
    /// A file that was still being written each time it was read.
    Unstable,
    /// A database in use that could not be read in a committed state.
    Database,
    /// A file whose content is not what it was, although nothing wrote to it.
    Rotten,
}

impl Obstacle {
    /// Returns what a person is told.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unreadable => "it cannot be read",
            Self::Ignored => "it is ignored by .layerignore or a built-in rule",
            Self::Special => "it is a FIFO, socket or device",
            Self::NotUtf8 => "its name or link target is not UTF-8",
            Self::BadName => "its path is longer than the 4,096 bytes that can be synced",
            Self::OtherRoot => "it is the root of another layer-sync tree",
            Self::Unstable => "it is being written all the time",
            Self::Rotten => {
                "its content changed although nothing wrote to it, so the disk may be failing"
            }
            Self::Database => {
                "it is a database that cannot be read in a committed state: its program locks it, or \
                 ended in the middle of a change"
            }
        }
    }
}

/// What a side saw at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sight {
    /// Nothing is there, and the directory was listed completely.
    Absent,
    /// This is there.
    Is(Entry),
    /// Something is there that cannot be synced; what lies below it is unknown.
    Blocked(Obstacle),
}

impl Sight {
    /// Returns the entry, if one is there.
    pub fn entry(&self) -> Option<&Entry> {
        if let Self::Is(entry) = self {
            Some(entry)
        } else {
            None
        }
    }
}

impl From<Option<Entry>> for Sight {
    fn from(entry: Option<Entry>) -> Self {
        entry.map_or(Self::Absent, Self::Is)
    }
}

/// One of the two trees that are kept equal. α is the pusher's, β the receiver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The pusher's tree.
    Alpha,
    /// The receiver's tree.
    Beta,
}

impl Side {
    /// Returns the other side.
    pub fn other(self) -> Self {
        match self {
            Self::Alpha => Self::Beta,
            Self::Beta => Self::Alpha,
        }
    }
}

/// The number of a batch; grows with every batch of a pair and is never used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "u64")]
pub struct Gen(pub u64);

/// Most paths of a tree that the other machine may tell of. Each costs about 300 bytes of memory here,
/// so there is a limit; a larger tree is refused with a sentence.
pub const PATHS_MAX: usize = 1_000_000;
/// How far a receiver's batch numbers may be ahead of the pusher's. After a restored index it is ahead
/// by what was agreed since; without a limit, one wrong number would use up all of them.
pub const GEN_LEAD_MAX: u64 = 1 << 48;
/// How far a pusher's batch numbers may grow in one connection. It is so much less than
/// [`GEN_LEAD_MAX`] that no faulty pusher takes a receiver out of the reach of a good one.
pub const GEN_GROWTH_MAX: u64 = 1 << 32;

/// No pair ever comes this far; whoever sends a higher number is broken.
const GEN_MAX: u64 = u64::MAX / 2;

impl TryFrom<u64> for Gen {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        if number > GEN_MAX {
            Err("a batch number that no pair ever reaches")
        } else {
            Ok(Self(number))
        }
    }
}

impl Gen {
    /// Says whether `other` is ahead by more than `lead`.
    pub fn is_behind(self, other: Self, lead: u64) -> bool {
        other.0.saturating_sub(self.0) > lead
    }

    /// Returns the next number.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A row of the base: what both sides durably agreed on for a path, and in which batch.
///
/// A row without an entry is a *tombstone*: both agreed that nothing is there. It is kept until both
/// sides are known to have stored that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRow {
    /// What was agreed; `None` for nothing.
    pub entry: Option<Entry>,
    /// The batch that agreed on it.
    pub batch: Gen,
}

/// The base.
pub type Base = BTreeMap<RelPath, BaseRow>;

/// One side's tree, as its differences from the base.
#[derive(Debug, Clone, Default)]
pub struct View {
    apart: BTreeMap<RelPath, Sight>,
    hash: SetHash,
    files: u64,
    bytes: u64,
    /// What it came through by the mirror since the base was agreed on.
    trails: BTreeMap<RelPath, Trail>,
}

impl View {
    /// Returns the paths at which this side is apart from the base, in order.
    pub fn apart(&self) -> &BTreeMap<RelPath, Sight> {
        &self.apart
    }

    /// Returns the set hash of all entries of this side.
    pub fn hash(&self) -> SetHash {
        self.hash
    }

    /// Returns the number of files of this side.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Returns the bytes in the files of this side.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the trails of this side.
    pub fn trails(&self) -> &BTreeMap<RelPath, Trail> {
        &self.trails
    }

    fn count(&mut self, path: &RelPath, before: Option<&Entry>, after: Option<&Entry>) {
        if let Some(entry) = before {
            self.hash.remove(path, entry);
            self.files -= u64::from(matches!(entry, Entry::File { .. }));
            // Lengths come from the other machine, too. Wrapping is undone by wrapping back.
            self.bytes = self.bytes.wrapping_sub(entry.len());
        }
        if let Some(entry) = after {
            self.hash.add(path, entry);
            self.files += u64::from(matches!(entry, Entry::File { .. }));
            self.bytes = self.bytes.wrapping_add(entry.len());
        }
    }
}

/// The base with the views of one or both sides on it.
#[derive(Debug, Clone, Default)]
pub struct Trees {
    base: Base,
    /// The rows of the base that are tombstones, by batch.
    tombstones: BTreeSet<(Gen, RelPath)>,
    alpha: View,
    beta: View,
    /// How many paths at which something stands have this folded key, by its hash. Empty until
    /// [`Trees::mind_twins`].
    folded: BTreeMap<u64, u32>,
    minds_twins: bool,
    /// How many rows were agreed on since the base was packed.
    unpacked: usize,
}

/// So many rows make it worth to pack the base.
const PACK_MIN: usize = 50_000;

impl Trees {
    /// Starts from a stored base; both sides look like it until they are observed.
    pub fn new(base: Base) -> Self {
        let mut view = View::default();
        let mut tombstones = BTreeSet::new();
        for (path, row) in &base {
            view.count(path, None, row.entry.as_ref());
            if row.entry.is_none() {
                tombstones.insert((row.batch, path.clone()));
            }
        }
        Self {
            base,
            tombstones,
            alpha: view.clone(),
            beta: view,
            folded: BTreeMap::new(),
            minds_twins: false,
            unpacked: 0,
        }
    }

    /// Starts from a stored base and what one side saw last, in order; the other side looks like the base.
    pub fn resume(base: Base, side: Side, seen: Vec<(RelPath, Entry)>) -> Self {
        debug_assert!(seen.is_sorted_by(|(a, _), (b, _)| a < b), "it is in order");
        // Nearly all is as it was agreed on, so the two are walked side by side.
        let mut differences = Vec::new();
        let mut agreed = base.iter().peekable();
        for (path, entry) in seen {
            while let Some((gone, _)) = agreed.next_if(|(other, _)| **other < path) {
                differences.push((gone.clone(), Sight::Absent));
            }
            let same = agreed.next_if(|(other, _)| **other == path);
            if same.is_none_or(|(_, row)| row.entry.as_ref() != Some(&entry)) {
                differences.push((path, Sight::Is(entry)));
            }
        }
        differences.extend(agreed.map(|(gone, _)| (gone.clone(), Sight::Absent)));
        let mut trees = Self::new(base);
        for (path, sight) in differences {
            trees.observe(side, path, sight);
        }
        trees
    }

    /// Begins to mind which names a volume that folds case or normalization would not tell apart.
    pub fn mind_twins(&mut self) {
        if self.minds_twins {
            return;
        }
        self.minds_twins = true;
        let mut standing: BTreeSet<&RelPath> = BTreeSet::new();
        standing.extend(
            self.base
                .iter()
                .filter(|(_, row)| row.entry.is_some())
                .map(|(path, _)| path),
        );
        for view in [&self.alpha, &self.beta] {
            let there = view
                .apart
                .iter()
                .filter(|(_, sight)| **sight != Sight::Absent);
            standing.extend(there.map(|(path, _)| path));
        }
        for path in standing {
            *self.folded.entry(folded_hash(path)).or_default() += 1;
        }
    }

    /// Returns a path beside `path` that differs from it only in case or normalization and that stands
    /// on `side`.
    pub fn twin(&self, side: Side, path: &RelPath) -> Option<RelPath> {
        if self
            .folded
            .get(&folded_hash(path))
            .is_none_or(|count| *count < 2)
        {
            return None;
        }
        let (key, parent) = (path.folded_key(), path.parent());
        let is_twin = |other: &&RelPath| {
            *other != path
                && other.parent() == parent
                && other.folded_key() == key
                && self.sight(side, other) != Sight::Absent
        };
        let inside = parent.as_ref();
        let beside = |other: &&RelPath| inside.is_none_or(|parent| other.is_below(parent));
        let from = |map: &'_ BTreeMap<RelPath, Sight>| -> Option<RelPath> {
            let range = match inside {
                Some(parent) => map.range::<RelPath, _>(parent..),
                None => map.range::<RelPath, _>(..),
            };
            let mut paths = range
                .map(|(path, _)| path)
                .filter(|path| Some(*path) != inside);
            paths.by_ref().take_while(beside).find(is_twin).cloned()
        };
        let in_base = || {
            let range = match inside {
                Some(parent) => self.base.range::<RelPath, _>(parent..),
                None => self.base.range::<RelPath, _>(..),
            };
            let mut paths = range
                .map(|(path, _)| path)
                .filter(|path| Some(*path) != inside);
            paths.by_ref().take_while(beside).find(is_twin).cloned()
        };
        in_base().or_else(|| from(&self.view(side).apart))
    }

    fn stands(&self, path: &RelPath) -> bool {
        let there = |view: &View| {
            view.apart
                .get(path)
                .is_some_and(|sight| *sight != Sight::Absent)
        };
        self.agreed(path).is_some() || there(&self.alpha) || there(&self.beta)
    }

    /// Counts a path that did, or did not, stand somewhere before.
    fn count_folded(&mut self, path: &RelPath, stood: bool) {
        let stands = self.stands(path);
        if stood == stands {
            return;
        }
        let hash = folded_hash(path);
        let count = self.folded.entry(hash).or_default();
        *count = if stands {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
        if *count == 0 {
            self.folded.remove(&hash);
        }
    }

    /// Returns the base.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Returns what both agreed on at `path`.
    pub fn agreed(&self, path: &RelPath) -> Option<&Entry> {
        self.base.get(path).and_then(|row| row.entry.as_ref())
    }

    /// Returns what both come from at `path`: what they agreed on, or what they had in common later, by the mirror.
    pub fn ancestor(&self, path: &RelPath) -> Option<&Entry> {
        let trails = [&self.alpha.trails, &self.beta.trails].map(|trails| trails.get(path));
        match trails {
            [Some(alpha), Some(beta)] => match alpha.met(beta) {
                Some(step) => step.entry.as_ref(),
                None => self.agreed(path),
            },
            _ => self.agreed(path),
        }
    }

    /// Says whether a side came through anything at `path` by the mirror since it was agreed on.
    pub fn has_trail(&self, path: &RelPath) -> bool {
        let sides = [&self.alpha, &self.beta];
        sides.iter().any(|view| view.trails.contains_key(path))
    }

    /// Takes the trail of a side at `path`, unless something was agreed on since it began.
    pub fn came_through(&mut self, side: Side, path: RelPath, trail: Trail) {
        let agreed = self.base.get(&path).map(|row| row.batch);
        if agreed.is_none_or(|batch| batch <= trail.batch) {
            self.view_mut(side).trails.insert(path, trail);
        }
    }

    /// Returns a side's view.
    pub fn view(&self, side: Side) -> &View {
        match side {
            Side::Alpha => &self.alpha,
            Side::Beta => &self.beta,
        }
    }

    fn view_mut(&mut self, side: Side) -> &mut View {
        match side {
            Side::Alpha => &mut self.alpha,
            Side::Beta => &mut self.beta,
        }
    }

    /// Returns what a side saw at `path`.
    pub fn sight(&self, side: Side, path: &RelPath) -> Sight {
        match self.view(side).apart.get(path) {
            Some(sight) => sight.clone(),
            None => self.agreed(path).cloned().into(),
        }
    }

    /// Returns all entries of a side below `top`, in order.
    pub fn entries_below(&self, side: Side, top: &RelPath) -> Vec<(RelPath, Entry)> {
        let mut found: BTreeMap<&RelPath, &Entry> = below(&self.base, top)
            .filter_map(|(path, row)| Some((path, row.entry.as_ref()?)))
            .collect();
        for (path, sight) in below(&self.view(side).apart, top) {
            match sight.entry() {
                Some(entry) => found.insert(path, entry),
                None => found.remove(path),
            };
        }
        found
            .into_iter()
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect()
    }

    /// Returns the entry of a side at `top`, if something stands there, and all below it, in order.
    pub fn entries_from(&self, side: Side, top: &RelPath) -> Vec<(RelPath, Entry)> {
        let mut entries = self.entries_below(side, top);
        if let Some(entry) = self.sight(side, top).entry() {
            entries.insert(0, (top.clone(), entry.clone()));
        }
        entries
    }

    /// Takes what a side saw at `path`.
    pub fn observe(&mut self, side: Side, path: RelPath, sight: Sight) {
        let before = self.sight(side, &path);
        if before == sight {
            // At a start that is every path, and a hash of it costs more than all the rest.
            return;
        }
        let minded = self.minds_twins.then(|| (path.clone(), self.stands(&path)));
        let agreed = self.agreed(&path).cloned();
        let view = self.view_mut(side);
        view.count(&path, before.entry(), sight.entry());
        if sight == Sight::from(agreed) {
            view.apart.remove(&path);
        } else {
            view.apart.insert(path, sight);
        }
        if let Some((path, stood)) = minded {
            self.count_folded(&path, stood);
        }
    }

    /// Moves the base at `path`. What the sides saw stays as it is.
    pub fn agree(&mut self, path: RelPath, row: BaseRow) {
        let minded = self.minds_twins.then(|| (path.clone(), self.stands(&path)));
        let agreed = Sight::from(row.entry.clone());
        for side in [Side::Alpha, Side::Beta] {
            let sight = self.sight(side, &path);
            let apart = &mut self.view_mut(side).apart;
            if sight == agreed {
                apart.remove(&path);
            } else {
                apart.insert(path.clone(), sight);
            }
            let trails = &mut self.view_mut(side).trails;
            if trails
                .get(&path)
                .is_some_and(|trail| trail.batch < row.batch)
            {
                trails.remove(&path);
            }
        }
        if let Some(before) = self.base.get(&path).filter(|before| before.entry.is_none()) {
            self.tombstones.remove(&(before.batch, path.clone()));
        }
        if row.entry.is_none() {
            self.tombstones.insert((row.batch, path.clone()));
        }
        self.base.insert(path, row);
        self.unpacked += 1;
        if let Some((path, stood)) = minded {
            self.count_folded(&path, stood);
        }
    }

    /// Packs the base, if that is worth it: rows that come one by one leave it two thirds full, and scattered among
    /// what was needed only until they had come. Call it when the trees have become equal.
    pub fn pack(&mut self) {
        if self.unpacked >= PACK_MIN {
            self.unpacked = 0;
            self.base = std::mem::take(&mut self.base).into_iter().collect();
        }
    }

    /// Forgets the tombstones of batches up to `resolved`: both sides have stored them.
    pub fn forget_tombstones(&mut self, resolved: Gen) {
        while self
            .tombstones
            .first()
            .is_some_and(|(batch, _)| *batch <= resolved)
        {
            let Some((batch, path)) = self.tombstones.pop_first() else {
                return;
            };
            if self
                .base
                .get(&path)
                .is_some_and(|row| row.entry.is_none() && row.batch == batch)
            {
                self.base.remove(&path);
            }
        }
    }

    /// Makes a side look like the base again, as if nothing had been observed.
    pub fn forget_side(&mut self, side: Side) {
        let mut view = View::default();
        for (path, row) in &self.base {
            view.count(path, None, row.entry.as_ref());
        }
        *self.view_mut(side) = view;
        self.recount_folded();
    }

    fn recount_folded(&mut self) {
        if std::mem::take(&mut self.minds_twins) {
            self.folded.clear();
            self.mind_twins();
        }
    }

    /// Forgets the base. What the sides saw stays as it is.
    pub fn forget_base(&mut self) {
        let base = std::mem::take(&mut self.base);
        self.tombstones.clear();
        for view in [&mut self.alpha, &mut self.beta] {
            for (path, row) in &base {
                if let Some(entry) = &row.entry {
                    view.apart
                        .entry(path.clone())
                        .or_insert_with(|| Sight::Is(entry.clone()));
                }
            }
            view.apart.retain(|_, sight| *sight != Sight::Absent);
            view.trails.clear();
        }
        self.recount_folded();
    }
}

fn folded_hash(path: &RelPath) -> u64 {
    let hash = ContentHash::of_bytes(path.folded_key().as_bytes());
    let first: [u8; 8] = std::array::from_fn(|index| hash.as_bytes()[index]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests;
