//! A simulated Drive: items with ids of their own, a log of what changed, a trash, and the bytes that
//! were replaced. Two items of one folder may have the same name; there are no locks and no conditions.

use std::collections::{BTreeMap, BTreeSet};

use mirror::sum;
use mirror::target::{Change, Item, Kind, Page, Wrong};
use shared::hash::ContentHash;
use shared::mirror::Mark;
use shared::path::RelPath;

use super::text::content_of;
use crate::chance::Chance;
use crate::defect::Defect;

/// The id of the folder that is the mirror.
pub(super) const ROOT: &str = "root";
/// Items on one page.
const PAGE_ITEMS: usize = 4;
/// Deepest folder that anybody follows.
const DEPTH_MAX: usize = 40;

/// An item.
#[derive(Debug, Clone)]
pub(super) struct Thing {
    pub(super) parent: String,
    pub(super) name: String,
    /// `None` for a folder.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) mark: Option<Mark>,
    pub(super) is_trashed: bool,
    version: u64,
    sum: Option<[u8; 32]>,
}

impl Thing {
    pub(super) fn sum(&self) -> Option<[u8; 32]> {
        self.sum
    }
}

/// Something that a round did, for the oracle.
#[derive(Debug)]
pub(super) enum Did {
    /// It changed the tree of its node.
    Edited {
        path: RelPath,
        makes: bool,
        /// Whether the mirror had something there.
        was_there: bool,
    },
    /// It did something with an item that somebody had changed since it was looked at.
    Raced(Vec<RelPath>),
    /// It took this away here.
    Removed { path: RelPath, has_twin: bool },
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Cloud {
    things: BTreeMap<String, Thing>,
    log: Vec<String>,
    /// Contents that were replaced.
    replaced: BTreeSet<ContentHash>,
    versions: u64,
    made: u64,
    defect: Option<Defect>,
    pub(super) chance: Chance,
    pub(super) fails_one_in: usize,
    /// How often changes were asked for, and anything else.
    pub(super) calls: [u64; 2],
    pub(super) did: Vec<Did>,
}

/// What becomes of a call.
pub(super) enum Fate {
    Answered,
    Refused(Wrong),
    /// It is done, and nobody hears of it.
    Unheard(Wrong),
}

impl Cloud {
    pub(super) fn new(defect: Option<Defect>) -> Self {
        Self {
            things: BTreeMap::new(),
            log: Vec::new(),
            replaced: BTreeSet::new(),
            versions: 0,
            made: 0,
            defect,
            chance: Chance::new(0),
            fails_one_in: 0,
            calls: [0; 2],
            did: Vec::new(),
        }
    }

    pub(super) fn fate(&mut self) -> Fate {
        if self.fails_one_in == 0 || !self.chance.one_in(self.fails_one_in) {
            return Fate::Answered;
        }
        let cut_off = || Wrong::Unreachable("it is cut off".to_owned());
        match self.chance.below(5) {
            0 => Fate::Refused(Wrong::Busy {
                text: "too many".to_owned(),
                after: None,
            }),
            1 | 2 => Fate::Refused(cut_off()),
            _ => Fate::Unheard(cut_off()),
        }
    }

    /// How much was ever changed.
    pub(super) fn changed(&self) -> usize {
        self.log.len()
    }

    // What is there

    pub(super) fn thing(&self, id: &str) -> Option<&Thing> {
        self.things.get(id)
    }

    /// Says whether an item is in no trash, with no folder above it.
    fn is_live(&self, id: &str) -> bool {
        let mut at = id.to_owned();
        for _ in 0..DEPTH_MAX {
            match self.things.get(&at) {
                _ if at == ROOT => return true,
                Some(thing) if !thing.is_trashed => at.clone_from(&thing.parent),
                _ => return false,
            }
        }
        false
    }

    /// Returns an item, also one in the trash.
    pub(super) fn item(&self, id: &str) -> Option<Item> {
        let thing = self.things.get(id)?;
        Some(Item {
            id: id.to_owned(),
            parent: thing.parent.clone(),
            name: thing.name.clone(),
            kind: match &thing.bytes {
                None => Kind::Folder,
                Some(bytes) => Kind::File {
                    len: bytes.len() as u64,
                    sum: thing.sum,
                },
            },
            mark: thing.mark.clone(),
            version: thing.version.to_string(),
            mtime_ns: 1,
        })
    }

    pub(super) fn live_item(&self, id: &str) -> Option<Item> {
        self.item(id).filter(|_| self.is_live(id))
    }

    pub(super) fn children(&self, folder: &str) -> Vec<String> {
        let lies = |(_, thing): &(&String, &Thing)| thing.parent == folder && !thing.is_trashed;
        let inside = self.things.iter().filter(lies);
        inside.map(|(id, _)| id.clone()).collect()
    }

    /// Returns what lies where. Folders of one name count as one.
    pub(super) fn tree(&self) -> BTreeMap<RelPath, Vec<String>> {
        let mut found: BTreeMap<RelPath, Vec<String>> = BTreeMap::new();
        let mut left: Vec<(Option<RelPath>, String)> = vec![(None, ROOT.to_owned())];
        while let Some((above, folder)) = left.pop() {
            for id in self.children(&folder) {
                let thing = &self.things[&id];
                let path = match &above {
                    Some(above) => above.join(&thing.name),
                    None => RelPath::parse(&thing.name),
                };
                let Ok(path) = path else { continue };
                if thing.bytes.is_none() {
                    left.push((Some(path.clone()), id.clone()));
                }
                found.entry(path).or_default().push(id);
            }
        }
        found
    }

    /// Returns where an item lies.
    pub(super) fn path_of(&self, id: &str) -> Option<RelPath> {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT && names.len() < DEPTH_MAX {
            let thing = self.things.get(at)?;
            names.push(thing.name.as_str());
            at = &thing.parent;
        }
        names.reverse();
        RelPath::parse(&names.join("/")).ok()
    }

    /// Says whether another item of its folder has the name of this one.
    pub(super) fn has_twin(&self, id: &str) -> bool {
        let Some(thing) = self.things.get(id) else {
            return false;
        };
        let beside = self.children(&thing.parent);
        let is_twin = |other: &String| other != id && self.things[other].name == thing.name;
        beside.iter().any(is_twin)
    }

    /// Returns every content that a person can get back: what lies here or in the trash, or was replaced.
    pub(crate) fn contents(&self) -> BTreeSet<ContentHash> {
        let bytes = self.things.values().filter_map(|it| it.bytes.as_ref());
        let lying = bytes.map(|bytes| content_of(bytes).0);
        lying.chain(self.replaced.iter().copied()).collect()
    }

    /// Returns the paths of which there are several items.
    pub(crate) fn twins(&self) -> Vec<RelPath> {
        let there = self.tree().into_iter();
        let twins = there.filter(|(_, ids)| ids.len() > 1);
        twins.map(|(path, _)| path).collect()
    }

    // Changes

    /// Returns an id that nothing has. Ids come in no order.
    pub(super) fn new_id(&mut self) -> String {
        self.made += 1;
        let number = Chance::new(self.made).next();
        format!("{number:016x}")
    }

    fn changes(&mut self, id: &str) {
        self.versions += 1;
        if let Some(thing) = self.things.get_mut(id) {
            thing.version = self.versions;
        }
        self.log.push(id.to_owned());
    }

    pub(super) fn make(
        &mut self,
        id: &str,
        (parent, name): (&str, &str),
        bytes: Option<Vec<u8>>,
        mark: Option<Mark>,
    ) {
        let thing = Thing {
            parent: parent.to_owned(),
            name: name.to_owned(),
            sum: bytes.as_ref().map(|bytes| sum::of_slice(bytes)),
            bytes,
            mark,
            is_trashed: false,
            version: 0,
        };
        self.things.insert(id.to_owned(), thing);
        self.changes(id);
    }

    /// Replaces the bytes of an item; without a mark the old one stays.
    pub(super) fn write(&mut self, id: &str, bytes: Vec<u8>, mark: Option<Mark>) {
        if let Some(thing) = self.things.get_mut(id) {
            thing.sum = Some(sum::of_slice(&bytes));
            if let Some(old) = thing.bytes.replace(bytes) {
                self.replaced.insert(content_of(&old).0);
            }
            thing.mark = mark.or(thing.mark.take());
        }
        self.changes(id);
    }

    pub(super) fn relocate(&mut self, id: &str, (parent, name): (&str, &str)) {
        if let Some(thing) = self.things.get_mut(id) {
            parent.clone_into(&mut thing.parent);
            name.clone_into(&mut thing.name);
        }
        self.changes(id);
    }

    pub(super) fn set_mark(&mut self, id: &str, mark: Mark) {
        if let Some(thing) = self.things.get_mut(id) {
            thing.mark = Some(mark);
        }
        self.changes(id);
    }

    pub(super) fn trash(&mut self, id: &str) {
        if let Some(thing) = self.things.get_mut(id) {
            thing.is_trashed = true;
        }
        self.changes(id);
    }

    /// Says whether somebody has changed an item since it was looked at, and notes where that was. There is
    /// no lock that could help. What an earlier try of the same writing has done is no change.
    pub(super) fn races(&mut self, known: &Item, mark: Option<&Mark>) -> bool {
        let Some(thing) = self.things.get(&known.id) else {
            return false;
        };
        let writing = |mark: &Mark| mark.writing;
        let is_own = mark.is_some() && thing.mark.as_ref().map(writing) == mark.map(writing);
        let is_raced = !is_own && thing.version.to_string() != known.version;
        if is_raced {
            let above = self.path_of(&known.parent);
            let was = match known.parent.as_str() {
                ROOT => RelPath::parse(&known.name).ok(),
                _ => above.and_then(|above| above.join(&known.name).ok()),
            };
            self.did.push(Did::Raced(was.into_iter().collect()));
            self.raced_at(&known.id);
        }
        is_raced
    }

    pub(super) fn raced_at(&mut self, id: &str) {
        let now = self.path_of(id);
        self.did.push(Did::Raced(now.into_iter().collect()));
    }

    /// Takes an item away on behalf of a round.
    pub(super) fn remove(&mut self, id: &str) {
        if let Some(path) = self.path_of(id).filter(|_| self.is_live(id)) {
            let has_twin = self.has_twin(id);
            self.did.push(Did::Removed { path, has_twin });
        }
        self.trash(id);
        if self.defect == Some(Defect::RemovedForGood) {
            self.things.remove(id);
        }
    }

    // Telling

    /// Returns a page of what changed.
    pub(super) fn page(&self, since: Option<&str>) -> Result<Page, Wrong> {
        let number = |text: &str| text.parse::<usize>().map_err(|_| Wrong::CursorLost);
        let words: Vec<&str> = since.unwrap_or_default().split(' ').collect();
        match words[..] {
            ["from", at] => Ok(self.changes_from(number(at)?)),
            ["list", start, after] => Ok(self.listing(number(start)?, after)),
            _ => Ok(self.listing(self.log.len(), "")),
        }
    }

    fn listing(&self, start: usize, after: &str) -> Page {
        let after = after.to_owned();
        let rest = self.things.range::<String, _>((
            std::ops::Bound::Excluded(&after),
            std::ops::Bound::Unbounded,
        ));
        let live = rest.map(|(id, _)| id).filter(|id| self.is_live(id));
        let ids: Vec<&String> = live.take(PAGE_ITEMS + 1).collect();
        let more = ids.len() > PAGE_ITEMS;
        let ids = &ids[..ids.len().min(PAGE_ITEMS)];
        let items = ids.iter().filter_map(|id| self.live_item(id));
        Page {
            changes: items.map(Change::Is).collect(),
            cursor: match ids.last() {
                // What changes while it is listed is heard afterwards.
                Some(last) if more => format!("list {start} {last}"),
                _ => format!("from {start}"),
            },
            more,
            listing: true,
        }
    }

    fn changes_from(&self, start: usize) -> Page {
        let mut changes = Vec::new();
        let mut at = start;
        while at < self.log.len() && changes.len() < PAGE_ITEMS {
            let id = &self.log[at];
            at += 1;
            // An item is told once, as it is now.
            if !self.log[at..].contains(id) {
                changes.push(match self.live_item(id) {
                    Some(item) => Change::Is(item),
                    None => Change::Gone(id.clone()),
                });
            }
        }
        Page {
            changes,
            cursor: format!("from {at}"),
            more: at < self.log.len(),
            listing: false,
        }
    }
}
