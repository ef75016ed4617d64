//! The person at the mirror: what somebody does to the files in Drive, in a browser.

use shared::path::RelPath;
use shared::tree::Entry;

use super::cloud::{Cloud, ROOT};
use super::judge::{THERE, near};
use super::text::text_of;
use crate::oracle::Oracle;
use crate::user;
use crate::volume::content;

/// What somebody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Uploads a file; over another one, whose mark stays.
    Upload(u8, u16),
    /// Uploads a second file of a name.
    Second(u8, u16),
    /// Moves to the trash, with all that is in it.
    Trash(u8),
    /// Moves or renames, with its mark.
    Move(u8, u8),
    MakeDir(u8),
}

/// Does it.
pub(crate) fn act(cloud: &mut Cloud, deed: Deed, oracle: &mut Oracle) {
    let mut hand = Hand { cloud, oracle };
    match deed {
        Deed::Upload(at, text) => hand.upload(at, text),
        Deed::Second(at, text) => {
            let path = hand.reach(at);
            if hand.is_file(&path) {
                hand.create(&path, Some(text));
            }
        }
        Deed::Trash(at) => hand.trash(at),
        Deed::Move(from, to) => hand.relocate(from, to),
        Deed::MakeDir(at) => {
            let path = hand.reach(at);
            if hand.ids(&path).is_empty() {
                hand.create(&path, None);
            }
        }
    }
    let there = hand.cloud.tree();
    let ids = |path: &RelPath| there.get(path).cloned().unwrap_or_default();
    let twins = hand.oracle.ledger.touching.iter();
    let twins: Vec<RelPath> = twins.filter(|path| ids(path).len() > 1).cloned().collect();
    hand.oracle.ledger.unsure.extend(twins);
    let find = |path: &RelPath| hand.cloud.entry(ids(path).first()?);
    hand.oracle.has_left(THERE, find);
}

/// Puts away what has the name of something else, when that is a folder and the other is none: the node tells of
/// it, and leaves it to a person.
pub(crate) fn tidy(cloud: &mut Cloud, oracle: &mut Oracle) {
    let mut hand = Hand { cloud, oracle };
    for (path, mut ids) in hand.cloud.tree() {
        let is_dir = |id: &String| hand.cloud.entry(id) == Some(Entry::Dir);
        if ids.iter().all(is_dir) || !ids.iter().any(is_dir) {
            continue;
        }
        ids.sort_by_key(|id| {
            let mark = hand.cloud.thing(id).and_then(|thing| thing.mark.as_ref());
            (mark.is_none(), id.clone())
        });
        for (at, _) in hand.all_at(&path) {
            hand.touches(&at);
            hand.oracle.ledger.unsure.insert(at);
        }
        for id in &ids[1..] {
            hand.give_up_all(&path, id);
            hand.cloud.trash(id);
        }
    }
    hand.oracle.ledger.touching.clear();
}

struct Hand<'a> {
    cloud: &'a mut Cloud,
    oracle: &'a mut Oracle,
}

impl Hand<'_> {
    fn ids(&self, path: &RelPath) -> Vec<String> {
        self.cloud.tree().remove(path).unwrap_or_default()
    }

    fn folder(&self, path: Option<&RelPath>) -> Option<String> {
        let Some(path) = path else {
            return Some(ROOT.to_owned());
        };
        let is_dir = |id: &String| self.cloud.entry(id) == Some(Entry::Dir);
        self.ids(path).into_iter().find(is_dir)
    }

    fn is_file(&self, path: &RelPath) -> bool {
        let ids = self.ids(path);
        let is_file = |id: &String| self.cloud.entry(id) != Some(Entry::Dir);
        !ids.is_empty() && ids.iter().all(is_file)
    }

    /// Returns the path, or what of it can be made: the first name whose folder is there.
    fn reach(&self, at: u8) -> RelPath {
        let mut path = user::path(at).clone();
        while let Some(parent) = path.parent() {
            if self.folder(Some(&parent)).is_some() {
                break;
            }
            path = parent;
        }
        path
    }

    /// Returns a path that is there, near the one that was asked for.
    fn existing(&self, at: u8) -> Option<RelPath> {
        let path = self.reach(at);
        let there = self.cloud.tree();
        if there.contains_key(&path) {
            return Some(path);
        }
        there
            .keys()
            .nth(usize::from(at) % there.len().max(1))
            .cloned()
    }

    fn touches(&mut self, path: &RelPath) {
        self.oracle.touched[THERE].insert(path.clone());
        self.oracle.ledger.touching.push(path.clone());
    }

    /// Notes that something else was or is at a path where something is put.
    fn puts_at(&mut self, path: &RelPath) {
        let was_touched = self.oracle.touched[THERE].iter().any(|at| near(at, path));
        if was_touched || !self.ids(path).is_empty() {
            self.oracle.ledger.anew.insert(path.clone());
        }
    }

    fn saves(&mut self, path: &RelPath, id: &str) {
        if let Some(content) = self.cloud.entry(id).as_ref().and_then(content) {
            self.oracle.owed[THERE].insert((path.clone(), content));
        }
    }

    fn gives_up(&mut self, path: &RelPath, id: &str) {
        if let Some(content) = self.cloud.entry(id).as_ref().and_then(content) {
            self.oracle.owed[THERE].remove(&(path.clone(), content));
        }
    }

    /// Gives up an item, and what lies in it.
    fn give_up_all(&mut self, path: &RelPath, id: &str) {
        self.gives_up(path, id);
        for child in self.cloud.children(id) {
            let name = self.cloud.thing(&child).map(|thing| thing.name.clone());
            if let Some(Ok(path)) = name.map(|name| path.join(&name)) {
                self.give_up_all(&path, &child);
            }
        }
    }

    fn create(&mut self, path: &RelPath, text: Option<u16>) {
        let Some(folder) = self.folder(path.parent().as_ref()) else {
            return;
        };
        self.puts_at(path);
        self.touches(path);
        let id = self.cloud.new_id();
        let bytes = text.map(|number| {
            let (content, len) = user::text(number);
            text_of(content, len)
        });
        self.cloud.make(&id, (&folder, path.name()), bytes, None);
        self.saves(path, &id);
    }

    fn upload(&mut self, at: u8, text: u16) {
        let path = self.reach(at);
        let ids = self.ids(&path);
        let Some(id) = ids.first() else {
            return self.create(&path, Some(text));
        };
        if !self.is_file(&path) {
            return;
        }
        if self.cloud.is_by_hand(id) && self.oracle.ledger.is_by_round(&path) {
            // Who has taken the one before has not marked it yet, so the next one to look does not know of it.
            self.oracle.ledger.anew.insert(path.clone());
        }
        self.touches(&path);
        self.gives_up(&path, id);
        let (content, len) = user::text(text);
        self.cloud.write(id, text_of(content, len), None);
        self.saves(&path, id);
    }

    /// Returns what lies at a path and below it.
    fn all_at(&self, top: &RelPath) -> Vec<(RelPath, String)> {
        let there = self.cloud.tree().into_iter();
        let within = there.filter(|(path, _)| path == top || path.is_below(top));
        within
            .flat_map(|(path, ids)| ids.into_iter().map(move |id| (path.clone(), id)))
            .collect()
    }

    fn trash(&mut self, at: u8) {
        let Some(top) = self.existing(at) else {
            return;
        };
        for (path, id) in self.all_at(&top) {
            self.touches(&path);
            self.gives_up(&path, &id);
        }
        for id in self.ids(&top) {
            self.cloud.trash(&id);
        }
    }

    fn relocate(&mut self, from: u8, to: u8) {
        let (Some(from), to) = (self.existing(from), self.reach(to)) else {
            return;
        };
        let is_taken = !self.ids(&to).is_empty();
        let Some(folder) = self.folder(to.parent().as_ref()) else {
            return;
        };
        if is_taken || from == to || to.is_below(&from) || from.is_below(&to) {
            return;
        }
        self.puts_at(&to);
        for (path, id) in self.all_at(&from) {
            let Ok(moved) = path.rebase(&from, &to) else {
                continue;
            };
            self.touches(&path);
            self.touches(&moved);
            self.gives_up(&path, &id);
            self.saves(&moved, &id);
        }
        for id in self.ids(&from) {
            self.cloud.relocate(&id, (&folder, to.name()));
        }
    }
}
