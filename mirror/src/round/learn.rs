//! Hearing what changed at the target, and comparing all that both have.

use std::collections::{HashMap, HashSet};

use shared::path::RelPath;
use shared::tree::Sight;

use super::{Mirror, Waits};
use crate::store::{MetItem, Place};
use crate::target::{Change, Item, Kind, Target, Wrong};
use crate::tree::Tree;

/// The fact that says where the target's changes go on.
pub(crate) const CURSOR: &str = "cursor";
/// The fact that numbers the listings.
const LISTING: &str = "listing";
/// Folders that one round looks into because they are new. Of more, all is listed.
const FOLDERS_MAX: usize = 10_000;

impl<T: Target, L: Tree> Mirror<T, L> {
    /// Hears what changed at the target since the last time. What it is about is due afterwards.
    pub(crate) async fn learn(&self) -> Result<(), Wrong> {
        let root = self.target.root().await?;
        self.store.set_root(&root)?;
        loop {
            let cursor = self.store.fact(CURSOR)?;
            let page = match self.target.changes(cursor.as_deref()).await {
                Err(Wrong::CursorLost) if cursor.is_some() => {
                    self.store.clear_fact(CURSOR)?;
                    continue;
                }
                page => page?,
            };
            let mut listing = self.listing()?;
            if page.listing && cursor.is_none() {
                listing += 1;
            }
            let mut new_folders = Vec::new();
            self.store.together(|store| {
                for change in &page.changes {
                    match change {
                        Change::Is(item) => {
                            self.heard(item, listing, page.listing, &mut new_folders)?;
                        }
                        Change::Gone(id) => self.heard_gone(id)?,
                    }
                }
                store.set_fact(LISTING, &listing.to_string())?;
                store.set_fact(CURSOR, &page.cursor)
            })?;
            if page.listing && !page.more {
                for id in self.store.not_in_listing(listing)? {
                    self.heard_gone(&id)?;
                }
                self.drop_strays()?;
            } else if !page.listing {
                self.look_into(new_folders, listing).await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    fn listing(&self) -> Result<i64, Wrong> {
        let number = self.store.fact(LISTING)?;
        Ok(number.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Takes what an item is now.
    fn heard(
        &self,
        item: &Item,
        listing: i64,
        is_listing: bool,
        new_folders: &mut Vec<String>,
    ) -> Result<(), rusqlite::Error> {
        let store = &self.store;
        if item.id == store.root() {
            return Ok(());
        }
        let before = store.item(&item.id)?;
        if before.as_ref() == Some(item) {
            return store.put(item, listing).map(drop);
        }
        let is_moved = before
            .as_ref()
            .is_some_and(|before| (&before.parent, &before.name) != (&item.parent, &item.name));
        if let Some(before) = &before {
            self.due_at(before, is_moved)?;
        }
        // In a listing a folder may come after what lies in it.
        if !is_listing && store.place(item)? == Place::Elsewhere {
            return store.take_out(&item.id);
        }
        store.put(item, listing)?;
        self.due_at(item, is_moved || before.is_none())?;
        if item.kind == Kind::Folder && before.is_none() {
            new_folders.push(item.id.clone());
        }
        Ok(())
    }

    /// Takes it that an item is not there any more.
    pub(super) fn heard_gone(&self, id: &str) -> Result<(), rusqlite::Error> {
        if let Some(before) = self.store.item(id)? {
            self.due_at(&before, true)?;
            self.store.take_out(id)?;
        }
        Ok(())
    }

    /// Has the path of an item planned, and all below it if that is affected.
    pub(super) fn due_at(&self, item: &Item, with_below: bool) -> Result<(), rusqlite::Error> {
        match self.store.place(item)? {
            Place::Path(path) => {
                if with_below && item.kind == Kind::Folder {
                    let below = self.store.below(&path)?;
                    self.state.borrow_mut().due.extend(below);
                }
                self.state.borrow_mut().due.insert(path);
            }
            Place::NoPath(name) => self.cannot_be(&name),
            Place::Elsewhere => {}
        }
        Ok(())
    }

    fn cannot_be(&self, name: &str) {
        let shown = name.replace(|c: char| c.is_control(), "?");
        let text = format!(
            "\"{shown}\" has a name in the mirror that no file of the tree can have; it stays there and is not taken"
        );
        let waits = Waits {
            code: "held.mirror_name",
            text,
            fix: "rename it in the mirror: without `/`, not `.` or `..`, at most 255 bytes"
                .to_owned(),
        };
        self.wait(&shown, waits);
    }

    /// Forgets what a listing named that does not lie below the root.
    fn drop_strays(&self) -> Result<(), Wrong> {
        for id in self.store.ids()? {
            if let Some(item) = self.store.item(&id)? {
                match self.store.place(&item)? {
                    Place::Elsewhere => self.store.take_out(&id)?,
                    _ => self.due_at(&item, false)?,
                }
            }
        }
        Ok(())
    }

    /// Lists folders that came as a whole: a person moved them in, or brought them back. The changes name only the topmost.
    async fn look_into(&self, folders: Vec<String>, listing: i64) -> Result<(), Wrong> {
        let mut left = folders;
        let mut count = 0;
        while let Some(folder) = left.pop() {
            count += 1;
            if count > FOLDERS_MAX {
                self.store.clear_fact(CURSOR)?;
                return Ok(());
            }
            // What this node made itself it has filled itself.
            for item in self.target.children(&folder).await? {
                self.heard(&item, listing, false, &mut left)?;
            }
        }
        Ok(())
    }

    /// Compares all that both have with what was known to be equal. What is not as it was is due.
    pub(super) fn compare(&self) -> Result<(), Wrong> {
        let mut met: HashMap<RelPath, MetItem> = HashMap::new();
        self.store.each_met(&mut |path, item| {
            met.insert(path, item);
        })?;
        let mut due = Vec::new();
        // Paths at which this machine has what both had.
        let mut as_met: HashSet<RelPath> = HashSet::new();
        self.tree.each_here(&mut |path, here| {
            let known = met.get(&path);
            let is_as_met = match (&here.sight, known) {
                (Sight::Is(entry), Some(known)) => {
                    let batch = here.base.as_ref().map(|row| row.batch);
                    known.met.entry == *entry && batch.is_none_or(|batch| batch == known.met.batch)
                }
                _ => false,
            };
            match is_as_met {
                true => drop(as_met.insert(path)),
                false if here.sight == Sight::Absent && known.is_none() => {}
                false => due.push(path),
            }
        })?;
        for id in self.store.ids()? {
            let Some(item) = self.store.item(&id)? else {
                continue;
            };
            match self.store.place(&item)? {
                Place::Path(path) => {
                    let is_known = met
                        .get(&path)
                        .is_some_and(|known| known.id == id && known.version == item.version);
                    if !(is_known && as_met.remove(&path)) {
                        due.push(path);
                    }
                }
                Place::NoPath(name) => self.cannot_be(&name),
                Place::Elsewhere => {}
            }
        }
        // What this machine has as before, and the target has not; and what neither has any more.
        due.extend(as_met);
        let is_gone = |path: &RelPath| -> Result<bool, Wrong> {
            Ok(self.tree.here(path)?.sight == Sight::Absent)
        };
        for path in met.into_keys() {
            if is_gone(&path)? {
                due.push(path);
            }
        }
        self.state.borrow_mut().due.extend(due);
        Ok(())
    }
}
