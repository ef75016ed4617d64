//! Verify: the hash of every file, here and there.

use std::collections::BTreeMap;

use shared::control::{MirrorVerified, PROBLEMS_MAX};
use shared::path::RelPath;
use shared::tree::Entry;

use crate::patient::read_all;
use crate::round::{CURSOR, Mirror};
use crate::store::Place;
use crate::sum::{self, Sum};
use crate::target::{Item, Kind, Target, Wrong};
use crate::tree::Tree;

/// How often in a row a download may bring nothing.
const READ_TRIES: u32 = 5;

impl<T: Target, L: Tree> Mirror<T, L> {
    /// Reads every file here, and compares it with the sum that the target tells, or with what it gives when it tells none.
    ///
    /// # Errors
    /// Why it could not be done.
    pub async fn verify(&self) -> Result<MirrorVerified, Wrong> {
        self.note_moved()?;
        // All of it anew, and not what was heard some time ago.
        self.store.clear_fact(CURSOR)?;
        self.learn().await?;
        let mut there: BTreeMap<RelPath, Item> = BTreeMap::new();
        for id in self.store.ids()? {
            if let Some(item) = self.store.item(&id)?
                && let Place::Path(path) = self.store.place(&item)?
                && let Some(counts) = self.store.at(&path)?.item
            {
                there.insert(path, counts);
            }
        }
        let mut here: BTreeMap<RelPath, Entry> = BTreeMap::new();
        self.tree.each_here(&mut |path, seen| {
            if let Some(entry) = seen.sight.entry() {
                here.insert(path, entry.clone());
            }
        })?;
        let mut found = MirrorVerified::default();
        for (path, entry) in &here {
            if self.tree.ignores(path, entry.is_dir()) {
                continue;
            }
            match there.remove(path) {
                None => differs(&mut found, format!("\"{path}\" is not in the mirror")),
                Some(item) => match self.compare_one(path, entry, &item).await? {
                    None => {
                        if !entry.is_dir() {
                            found.equal += 1;
                            found.bytes += entry.len();
                        }
                    }
                    Some(text) => differs(&mut found, text),
                },
            }
        }
        for (path, item) in there {
            if !self.tree.ignores(&path, item.kind == Kind::Folder) {
                differs(&mut found, format!("\"{path}\" is in the mirror alone"));
            }
        }
        Ok(found)
    }

    /// Says how a path differs; `None` when it does not.
    async fn compare_one(
        &self,
        path: &RelPath,
        entry: &Entry,
        item: &Item,
    ) -> Result<Option<String>, Wrong> {
        let other_kind = || Ok(Some(format!("\"{path}\" is something else in the mirror")));
        let ours = match (entry, &item.kind) {
            (Entry::Dir, Kind::Folder) => return Ok(None),
            (Entry::File { .. }, Kind::File { .. }) => {
                let Some((original, _)) = self.tree.original(path, entry)? else {
                    return Ok(Some(format!("\"{path}\" is being changed here")));
                };
                sum::of(&original)?
            }
            (Entry::Symlink { target }, Kind::File { .. }) => sum::of_slice(target.as_bytes()),
            _ => return other_kind(),
        };
        let theirs = match self.target.sum_now(item).await? {
            Some(sum) => sum,
            None => {
                let mut sum = Sum::default();
                read_all(&self.target, item, 0, READ_TRIES, |part| {
                    sum.add(part);
                    Ok(())
                })
                .await?;
                sum.finish()
            }
        };
        if ours != theirs {
            return Ok(Some(format!("\"{path}\" has other bytes in the mirror")));
        }
        let said = item.mark.as_ref().map(|mark| &mark.entry);
        let is_exec = |entry: &Entry| matches!(entry, Entry::File { exec: true, .. });
        match said {
            Some(said) if said.same_kind(entry) && is_exec(said) == is_exec(entry) => Ok(None),
            Some(_) => Ok(Some(format!(
                "\"{path}\" has another kind, or another exec bit, in the mirror"
            ))),
            None => Ok(None),
        }
    }
}

fn differs(found: &mut MirrorVerified, text: String) {
    found.differences += 1;
    if found.different.len() < PROBLEMS_MAX {
        found.different.push(text);
    }
}
