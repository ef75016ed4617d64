//! What is known about one path: here, there, and what both had.

use shared::mirror::{AsOf, Known, Mark, Met, There, place_in};
use shared::path::RelPath;
use shared::tree::{BaseRow, Entry, Obstacle, Sight};

use super::{Early, Mirror, Waits};
use crate::patient::read_all;
use crate::store::{AtPath, MetItem};
use crate::target::{Item, Kind, Target, Wrong};
use crate::tree::{Receives, Tree};

/// Longest text that can be the target of a link, in bytes.
const LINK_BYTES_MAX: u64 = 4096;
/// The tag of a folder that a person has made.
const UNMARKED: u64 = u64::MAX;
/// How often in a row a download may bring nothing.
const READ_TRIES: u32 = 5;

/// What is known about a path.
pub(super) struct Facts {
    pub(super) known: Known,
    pub(super) at: AtPath,
    pub(super) met: Option<MetItem>,
    /// Whether what is there has no part in the mirror: a document without bytes, say.
    pub(super) is_foreign: bool,
    /// Whether it first has to be read to know what it is.
    pub(super) is_unread: bool,
}

impl Facts {
    /// What the target has, for the planning.
    pub(super) fn sight(&self) -> Sight {
        match &self.known.there {
            Some(there) => Sight::Is(there.entry.clone()),
            None if self.is_foreign || self.is_unread => Sight::Blocked(Obstacle::Special),
            None => Sight::Absent,
        }
    }
}

impl<T: Target, L: Tree> Mirror<T, L> {
    /// Collects what is known about a path.
    pub(super) fn facts(&self, path: &RelPath) -> Result<Facts, Wrong> {
        let here = self.tree.here(path)?;
        // A row that says that nothing is there is dropped soon; the batch in it is not forgotten here.
        let base = match (here.base, self.store.gone(path)?) {
            (None, Some(batch)) => Some(BaseRow { entry: None, batch }),
            (row, _) => row,
        };
        let met = self.store.met(path)?;
        let at = self.store.at(path)?;
        let had = self.had(path)?;
        let (mut is_foreign, mut is_unread) = (false, false);
        let there = match &at.item {
            None => None,
            Some(item) => {
                let there = self.there(item, met.as_ref())?;
                is_foreign = there.is_none() && matches!(item.kind, Kind::Other(_));
                is_unread = there.is_none() && !is_foreign;
                there
            }
        };
        let instead = match at.item {
            None => self.instead_of_folder(path)?,
            Some(_) => None,
        };
        Ok(Facts {
            known: Known {
                here: here.sight,
                base,
                met: met.as_ref().map(|met| met.met.clone()),
                there,
                instead,
                last_batch: self.tree.last_batch(),
                had: had.0,
                crossed: had.1,
            },
            at,
            met,
            is_foreign,
            is_unread,
        })
    }

    /// Says what an item is; `None` when that cannot be told without reading it.
    pub(super) fn there(&self, item: &Item, met: Option<&MetItem>) -> Result<Option<There>, Wrong> {
        let mark = item.mark.clone();
        let entry = match &item.kind {
            Kind::Other(_) => return Ok(None),
            Kind::Folder => Some(Entry::Dir),
            Kind::File { .. } => match &mark {
                Some(mark) if is_as_marked(item, met) => Some(mark.entry.clone()),
                _ => self.store.entry(&item.id)?,
            },
        };
        let Some(entry) = entry else { return Ok(None) };
        let (is_here, as_of) = self.stands(item)?;
        Ok(Some(There {
            entry,
            mark,
            is_here,
            as_of,
        }))
    }

    /// Says as of when one of the pair put something else in the place of a folder that a path would lie in.
    fn instead_of_folder(&self, path: &RelPath) -> Result<Option<AsOf>, Wrong> {
        let Some(item) = self.store.leaf_above(path)? else {
            return Ok(None);
        };
        let there = self.there(&item, None)?;
        let ours = there.filter(|there| there.is_here && !there.is_by_hand());
        Ok(ours.and_then(|there| there.as_of))
    }

    /// Returns the writings at a path that this tree has had since it was last without anything there, and whether it has a trail.
    fn had(&self, path: &RelPath) -> Result<(Vec<u64>, bool), Wrong> {
        let mut had = self.store.sent(path)?;
        let trail = self.tree.trail(path)?;
        let crossed = trail.is_some();
        if let Some(trail) = trail {
            let steps = trail.steps.iter().take_while(|step| step.entry.is_some());
            had.extend(steps.map(|step| step.writing));
        }
        Ok((had, crossed))
    }

    /// Says whether an item and all folders above it stand where their marks were written for, and as of when.
    fn stands(&self, item: &Item) -> Result<(bool, Option<AsOf>), Wrong> {
        let as_of = |mark: &Option<Mark>| {
            let ours = mark.as_ref().filter(|mark| mark.pair == self.setup.pair);
            ours.map(Mark::as_of)
        };
        let (mut is_here, mut found) = (true, as_of(&item.mark));
        let mut name = item.name.clone();
        let mut place = item.mark.as_ref().map(|mark| mark.place);
        let mut parent = item.parent.clone();
        while parent != self.store.root() {
            let Some(folder) = self.store.item(&parent)? else {
                return Ok((false, found));
            };
            let tag = folder.mark.as_ref().map_or(UNMARKED, |mark| mark.tag);
            is_here &= place.is_none_or(|place| place == place_in(tag, &name));
            if let (Some(own), Some(above)) = (found, as_of(&folder.mark)) {
                found = Some(own.within(above));
            }
            place = folder.mark.as_ref().map(|mark| mark.place);
            (name, parent) = (folder.name, folder.parent);
        }
        is_here &= place.is_none_or(|place| place == place_in(0, &name));
        Ok((is_here, found))
    }

    /// Says whether an item stands where its own mark was written for.
    pub(super) fn is_in_place(&self, item: &Item) -> Result<bool, Wrong> {
        let tag = self.tag_of(&item.parent)?;
        let mark = item.mark.as_ref();
        Ok(mark.is_none_or(|mark| mark.place == place_in(tag, &item.name)))
    }

    /// Returns the tag of a folder.
    pub(super) fn tag_of(&self, folder: &str) -> Result<u64, Wrong> {
        if folder == self.store.root() {
            return Ok(0);
        }
        let folder = self.store.item(folder)?;
        let mark = folder.and_then(|item| item.mark);
        Ok(mark.map_or(UNMARKED, |mark| mark.tag))
    }

    /// Reads what is at due paths and has no mark that says what it is.
    pub(super) async fn identify(
        &self,
        scope: &std::collections::BTreeSet<RelPath>,
        early: &mut Early<L>,
    ) -> Result<(), Wrong> {
        for path in scope {
            let facts = self.facts(path)?;
            let Some(item) = facts.at.item.as_ref().filter(|_| facts.is_unread) else {
                continue;
            };
            if self.tree.ignores(path, false) {
                continue;
            }
            match self.fetch(item, facts.known.here.entry()).await {
                Ok(Fetched::File(arrived)) => {
                    self.store.set_entry(&item.id, L::entry_of(&arrived))?;
                    early.insert(path.clone(), arrived);
                }
                Ok(Fetched::Link(entry)) => self.store.set_entry(&item.id, &entry)?,
                Err(Wrong::Gone | Wrong::Changed) => self.due_again(path.clone()),
                Err(wrong) if wrong.is_local() => {
                    self.due_again(path.clone());
                    self.wait(path.as_str(), not_taken(path, &wrong));
                }
                Err(wrong) => return Err(wrong),
            }
        }
        Ok(())
    }

    /// Reads an item into the stage. What stands here decides on the exec bit, where nothing else says it.
    pub(super) async fn fetch(
        &self,
        item: &Item,
        here: Option<&Entry>,
    ) -> Result<Fetched<L::Arrived>, Wrong> {
        let marked = item.mark.as_ref().map(|mark| &mark.entry);
        let is_link = matches!(marked, Some(Entry::Symlink { .. }));
        let exec = match (marked, here) {
            (Some(Entry::File { exec, .. }), _) | (_, Some(Entry::File { exec, .. })) => *exec,
            _ => false,
        };
        let Kind::File { len, sum } = item.kind else {
            return Err(Wrong::Gone);
        };
        let mut arriving = self.tree.arriving()?;
        let mut found = crate::sum::Sum::default();
        let mut text = Vec::new();
        let mut come = 0;
        let total = read_all(&self.target, item, 0, READ_TRIES, |part| {
            come += part.len() as u64;
            if come > len {
                return Err(Wrong::Changed);
            }
            found.add(part);
            if is_link && come <= LINK_BYTES_MAX {
                text.extend_from_slice(part);
            }
            Ok(arriving.write(part)?)
        })
        .await?;
        if total != len || sum.is_some_and(|sum| sum != found.finish()) {
            return Err(Wrong::Changed);
        }
        if is_link
            && total <= LINK_BYTES_MAX
            && let Ok(target) = String::from_utf8(text)
            && !target.contains('\0')
            && !target.trim_end().is_empty()
        {
            let target = target.trim_end().into();
            return Ok(Fetched::Link(Entry::Symlink { target }));
        }
        Ok(Fetched::File(arriving.finish(exec, item.mtime_ns)?))
    }

    /// Notes that both have the same at a path, if they do; says whether that is so.
    pub(super) fn settle(&self, path: &RelPath) -> Result<bool, Wrong> {
        let facts = self.facts(path)?;
        match (facts.known.here.entry(), &facts.known.there, &facts.at.item) {
            (Some(here), Some(there), Some(item)) if *here == there.entry => {
                let writing = match &there.mark {
                    Some(mark) if !there.is_by_hand() => mark.writing,
                    _ => 0,
                };
                let batch = facts.known.base.as_ref().map(|row| row.batch);
                let met = MetItem {
                    met: Met {
                        entry: here.clone(),
                        batch: batch.unwrap_or_default(),
                        writing,
                        going: false,
                    },
                    id: item.id.clone(),
                    version: item.version.clone(),
                };
                self.store.clear_sent(path)?;
                if facts.met.as_ref() != Some(&met) {
                    self.pass(path, &facts)?;
                    self.store.set_met(path, &met)?;
                }
                Ok(true)
            }
            (None, None, None) if facts.known.here == Sight::Absent => {
                self.store.clear_sent(path)?;
                if facts.met.is_some() {
                    self.pass(path, &facts)?;
                    self.store.clear_met(path)?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// What was read of an item.
pub(super) enum Fetched<A> {
    File(A),
    Link(Entry),
}

/// Says whether the bytes of an item are those that its mark was written for.
fn is_as_marked(item: &Item, met: Option<&MetItem>) -> bool {
    let (Some(mark), Kind::File { len, sum }) = (&item.mark, &item.kind) else {
        return false;
    };
    let marked = match &mark.entry {
        Entry::File { len, .. } => *len,
        Entry::Symlink { target } => target.len() as u64,
        Entry::Dir => return false,
    };
    let is_same = match (sum, mark.sum) {
        (Some(sum), Some(marked)) => *sum == marked,
        // A target that tells no sums: as long as it is the version that this machine has met.
        _ => met.is_some_and(|met| met.id == item.id && met.version == item.version),
    };
    *len == marked && is_same
}

/// Why something that is in the mirror did not come here.
pub(super) fn not_taken(path: &RelPath, wrong: &Wrong) -> Waits {
    Waits {
        code: "held.mirror_not_taken",
        text: format!(
            "\"{path}\" of the mirror was not taken: {wrong}; what stands here is untouched"
        ),
        fix: "free some space or mend the rights; it is tried again".to_owned(),
    }
}
