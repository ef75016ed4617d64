//! Carrying out a plan: first the copies of conflicts, in their order; then what changes there; then what changes here.
//!
//! What is there is looked at once more before it is replaced, moved or taken away, since a person may have been faster. There is no
//! lock that could close the last moment; the target keeps what it replaces.

use std::collections::BTreeSet;

use disk::trails::Passed;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use shared::mirror::{Author, Mark, PAST_MAX, Step, VersionId, mark_for};
use shared::path::RelPath;
use shared::reconcile::{Conflict, Decision, Keep, Plan};
use shared::transfer::{Op, Outcome, Source};
use shared::tree::{Entry, Side, Sight};

use super::known::{Facts, Fetched, not_taken};
use super::{Done, Early, Mirror, Waits, passed};
use crate::store::{Place, Upload};
use crate::sum;
use crate::target::{At, Bytes, Item, Kind, Target, Writing, Wrong};
use crate::tree::{Content, Edit, Tree};

/// Files that are written at a time.
const WRITES_MAX: usize = 4;
/// Changes here that are made durable together.
const EDITS_MAX: usize = 200;
/// Bytes of them. What arrives for one group lies in the stage at one time.
const EDIT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A file that is about to be written.
struct Prepared {
    path: RelPath,
    parent: String,
    over: Option<Item>,
    mark: Mark,
    mtime_ns: i64,
    bytes: Box<dyn Bytes>,
    begun: Option<String>,
}

impl<T: Target, L: Tree> Mirror<T, L> {
    pub(super) async fn carry_out(
        &self,
        plan: Plan,
        own: Side,
        mut early: Early<L>,
        done: &mut Done,
    ) -> Result<(), Wrong> {
        self.state.borrow_mut().writings.clear();
        let Plan {
            ops,
            moved,
            agree,
            conflicts,
            ..
        } = plan;
        for (path, _) in &agree {
            let met = self.store.met(path)?;
            self.agree(path, met.map(|met| met.met.entry), done).await?;
        }
        let is_copy = |op: &Op| {
            conflicts
                .iter()
                .any(|conflict| op.path == conflict.copy || op.path.is_below(&conflict.copy))
        };
        let (first, rest): (Vec<_>, Vec<_>) = ops.into_iter().partition(|(_, op)| is_copy(op));
        let (mut here, there): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|(side, _)| *side == own);
        let (copies_here, copies_there): (Vec<_>, Vec<_>) =
            first.into_iter().partition(|(side, _)| *side == own);
        // A copy is made here first: from there its content can be had as long as nothing is replaced.
        let ops = |ops: Vec<(Side, Op)>| ops.into_iter().map(|(_, op)| op).collect::<Vec<_>>();
        self.change_here(ops(copies_here), &mut early, done).await?;
        let copies_there = ops(copies_there);
        self.leave(&copies_there, &moved)?;
        self.change_there(copies_there, done).await?;
        let mut there = ops(there);
        self.leave_uncopied(&conflicts, &mut here, &mut there)?;
        self.leave(&there, &moved)?;
        self.change_there(there, done).await?;
        // A move here is the changes of single paths that it is: what is moved is copied from where it stands.
        let mut single = Vec::new();
        for (_, op) in here.drain(..) {
            match (&op.from, moved.get(&op.path)) {
                (Source::Moved { from, .. }, Some(changes)) => {
                    for change in changes {
                        let is_file = matches!(change.make, Some(Entry::File { .. }));
                        // Those without content are also what goes from where it stood.
                        let source = match is_file {
                            true => change.path.rebase(&op.path, from).map(Source::Here),
                            false => Ok(Source::Nothing),
                        };
                        let source = source.unwrap_or(Source::Nothing);
                        single.push(Op {
                            from: source,
                            ..change.clone()
                        });
                    }
                }
                _ => single.push(op),
            }
        }
        self.change_here(single, &mut early, done).await
    }

    /// Takes out what would displace a version that lost a conflict, and whose copy does not stand at both yet.
    fn leave_uncopied(
        &self,
        conflicts: &[Conflict],
        here: &mut Vec<(Side, Op)>,
        there: &mut Vec<Op>,
    ) -> Result<(), Wrong> {
        for Conflict { path, copy, .. } in conflicts {
            let facts = self.facts(copy)?;
            if facts.known.here.entry().is_some() && facts.known.there.is_some() {
                continue;
            }
            let is_of_it = |op: &Op| op.path == *path || op.path.is_below(path);
            here.retain(|(_, op)| !is_of_it(op));
            there.retain(|op| !is_of_it(op));
            self.due_again(path.clone());
        }
        Ok(())
    }

    /// Takes it that both have the same at a path. What a person made there gets a mark, which knows what both had before.
    async fn agree(
        &self,
        path: &RelPath,
        before: Option<Entry>,
        done: &mut Done,
    ) -> Result<(), Wrong> {
        if !self.settle(path)? {
            self.due_again(path.clone());
            return Ok(());
        }
        let facts = self.facts(path)?;
        self.clear_left_over(&facts, done).await?;
        let (Some(there), Some(item)) = (&facts.known.there, &facts.at.item) else {
            return Ok(());
        };
        let is_new = there.is_by_hand() && self.is_mine_to_mark(&facts);
        let is_moved = !there.is_by_hand() && !self.is_in_place(item)?;
        if !is_new && !is_moved {
            return Ok(());
        }
        let mut mark = self.mark(&facts, &there.entry, path)?;
        mark.sum = match item.kind {
            Kind::File { sum, .. } => sum,
            _ => None,
        };
        let itself = VersionId::of(&there.entry);
        mark.past.retain(|version| *version != itself);
        // It may be another item in the place of the one that both had.
        let before = before.filter(|before| *before != there.entry);
        if there.mark.is_none() {
            mark.past.extend(before.as_ref().map(VersionId::of));
        }
        let (mut step, over) = (
            Step::by_hand(&item.id, there.entry.clone()),
            passed::before(there),
        );
        let passed = |step, over| {
            let path = path.clone();
            self.tree.passed(&[Passed { path, step, over }])
        };
        if is_new {
            passed(step.clone(), over.clone())?;
        }
        step.writing = mark.writing;
        passed(step, over)?;
        self.store.add_sent(path, mark.writing)?;
        match self.target.set_mark(item, &mark).await {
            Ok(marked) => {
                self.answered(path, &marked)?;
                done.changed += 1;
                if !self.settle(path)? {
                    self.due_again(path.clone());
                }
                Ok(())
            }
            // It is equal without a mark, too.
            Err(wrong) if wrong.is_local() => Ok(()),
            Err(wrong) => Err(wrong),
        }
    }

    /// Takes what the target answers a change with. A person may have moved the item while the call was on its way, and the change that
    /// is told of that later is none any more.
    fn answered(&self, path: &RelPath, item: &Item) -> Result<(), Wrong> {
        let before = self.store.item(&item.id)?;
        self.store.put(item, self.number()?)?;
        if self.store.place(item)? != Place::Path(path.clone()) {
            for known in before.iter().chain([item]) {
                self.due_at(known, true)?;
            }
            self.due_again(path.clone());
        }
        Ok(())
    }

    /// Says whether the sum of what is there is known, so that a mark would hold.
    fn is_mine_to_mark(&self, facts: &Facts) -> bool {
        facts.at.item.as_ref().is_some_and(|item| match item.kind {
            Kind::Folder => item.mark.is_none(),
            Kind::File { sum, .. } => sum.is_some(),
            Kind::Other(_) => false,
        })
    }

    /// Takes away what this node made under a name at the same time as the other one.
    async fn clear_left_over(&self, facts: &Facts, done: &mut Done) -> Result<(), Wrong> {
        for item in &facts.at.others {
            if self.is_left_over(item)? {
                match self.target.remove(item).await {
                    Ok(()) | Err(Wrong::Gone) => {
                        self.store.take_out(&item.id)?;
                        done.changed += 1;
                    }
                    Err(wrong) if wrong.is_local() => {}
                    Err(wrong) => return Err(wrong),
                }
            }
        }
        Ok(())
    }

    fn number(&self) -> Result<i64, Wrong> {
        let number = self.store.fact("listing")?;
        Ok(number.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    fn mark(&self, facts: &Facts, entry: &Entry, path: &RelPath) -> Result<Mark, Wrong> {
        let folder = match self.parent_of(path)? {
            Some(parent) => self.tag_of(&parent)?,
            None => 0,
        };
        let author = Author {
            pair: self.setup.pair,
            node: &self.setup.node,
            writing: self.writing_for(path),
            folder,
        };
        let mut mark = mark_for(&facts.known, entry, path.name(), author);
        // Where nothing stands, what stood there before still is its past.
        let trail = self.tree.trail(path)?.unwrap_or_default();
        let steps = trail.steps.iter().filter_map(|step| step.entry.as_ref());
        for version in steps.filter(|was| *was != entry).map(VersionId::of) {
            if !mark.past.contains(&version) {
                mark.past.push(version);
            }
        }
        mark.past.truncate(PAST_MAX);
        Ok(mark)
    }

    /// Changes the target.
    async fn change_there(&self, ops: Vec<Op>, done: &mut Done) -> Result<(), Wrong> {
        let is_new = |op: &&Op| op.expect.is_none() && op.make.is_some() && op.moves().is_none();
        self.target.expect_new(ops.iter().filter(is_new).count());
        let mut writes = FuturesUnordered::new();
        for op in ops {
            let is_write = match &op.make {
                Some(Entry::File { .. }) => !op.only_turns_bit() && op.moves().is_none(),
                Some(Entry::Symlink { .. }) => op.moves().is_none(),
                _ => false,
            };
            let is_dir = op.expect.is_none() && matches!(op.make, Some(Entry::Dir));
            // What replaces a folder, or goes, comes after all that was begun.
            let waits = !(is_write && !op.expect.as_ref().is_some_and(Entry::is_dir) || is_dir);
            while writes.len() >= if waits { 1 } else { WRITES_MAX } {
                if let Some((path, written)) = writes.next().await {
                    self.wrote(path, written, done)?;
                }
            }
            if !is_write {
                let path = op.path.clone();
                match self.change_one(op, done).await {
                    Ok(()) => {}
                    Err(wrong) => self.refused(&path, wrong)?,
                }
                continue;
            }
            let path = op.path.clone();
            writes.push(async move {
                let prepared = self.prepare(op).await;
                (path, self.write(prepared).await)
            });
        }
        while let Some((path, written)) = writes.next().await {
            self.wrote(path, written, done)?;
        }
        Ok(())
    }

    /// Takes what the target did not do. What is about the path alone waits; anything else ends the round.
    fn refused(&self, path: &RelPath, wrong: Wrong) -> Result<(), Wrong> {
        match wrong {
            Wrong::Gone | Wrong::Changed => {
                self.due_again(path.clone());
                Ok(())
            }
            Wrong::Full(_) => {
                self.state.borrow_mut().is_full = true;
                self.due_again(path.clone());
                Ok(())
            }
            Wrong::Refused(text) => {
                self.due_again(path.clone());
                let waits = Waits {
                    code: "held.mirror_refused",
                    text: format!(
                        "the mirror does not take \"{path}\": {text}; the file here is untouched"
                    ),
                    fix: "rename the file, or name it in .layerignore; it is tried again"
                        .to_owned(),
                };
                self.wait(path.as_str(), waits);
                Ok(())
            }
            Wrong::Disk(text) => {
                self.due_again(path.clone());
                let waits = Waits {
                    code: "held.mirror_unreadable",
                    text: format!("\"{path}\" could not be read for the mirror: {text}"),
                    fix: format!("layer-sync why \"{path}\""),
                };
                self.wait(path.as_str(), waits);
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Looks at an item once more before it is changed. Says what to go on with: nothing when somebody was faster.
    async fn still(&self, path: &RelPath, facts: &Facts) -> Result<Option<Item>, Wrong> {
        let Some(known) = &facts.at.item else {
            return Ok(None);
        };
        match self.target.look(&known.id).await? {
            Some(item) if item.version == known.version => Ok(Some(item)),
            Some(item) => {
                self.due_at(known, true)?;
                self.store.put(&item, self.number()?)?;
                self.due_at(&item, true)?;
                self.due_again(path.clone());
                Ok(None)
            }
            None => {
                self.heard_gone(&known.id)?;
                self.due_again(path.clone());
                Ok(None)
            }
        }
    }

    /// Returns the folder that a path lies in; `None` when it is not there.
    fn parent_of(&self, path: &RelPath) -> Result<Option<String>, Wrong> {
        match path.parent() {
            None => Ok(Some(self.store.root())),
            Some(parent) => Ok(self.store.at(&parent)?.folders.into_iter().next()),
        }
    }

    /// Carries out what writes no bytes.
    async fn change_one(&self, op: Op, done: &mut Done) -> Result<(), Wrong> {
        if let Some((from, _)) = op.moves() {
            return self.relocate(&op, from, done).await;
        }
        let path = &op.path;
        let facts = self.facts(path)?;
        if op.expect.is_some() {
            let Some(item) = self.still(path, &facts).await? else {
                return Ok(());
            };
            if op.only_turns_bit() {
                let Some(make) = &op.make else { return Ok(()) };
                let mut mark = self.mark(&facts, make, path)?;
                mark.sum = match item.kind {
                    Kind::File { sum, .. } => sum,
                    _ => None,
                };
                let marked = self.target.set_mark(&item, &mark).await?;
                self.answered(path, &marked)?;
            } else {
                self.remove(path, &item).await?;
            }
            done.changed += 1;
        }
        if op.make == Some(Entry::Dir) {
            let Some(parent) = self.parent_of(path)? else {
                self.due_again(path.clone());
                return Ok(());
            };
            let mark = self.mark(&facts, &Entry::Dir, path)?;
            let at = At {
                parent: &parent,
                name: path.name(),
            };
            let made = self.target.make_folder(at, &mark).await?;
            self.answered(path, &made)?;
            done.changed += 1;
        }
        if !self.settle(path)? {
            // Another one of the name, say.
            self.due_again(path.clone());
        }
        Ok(())
    }

    /// Takes an item away; a folder only when nothing is in it that the tree does not know.
    async fn remove(&self, path: &RelPath, item: &Item) -> Result<(), Wrong> {
        if item.kind == Kind::Folder {
            let children = self.target.children(&item.id).await?;
            if let Some(child) = children.first() {
                for child in &children {
                    self.store.put(child, self.number()?)?;
                    self.due_at(child, true)?;
                }
                return Err(Wrong::Refused(format!(
                    "\"{}\" is in the folder, and is not one of the tree's files",
                    child.name
                )));
            }
        }
        match self.target.remove(item).await {
            Ok(()) | Err(Wrong::Gone) => {}
            Err(wrong) => return Err(wrong),
        }
        self.store.take_out(&item.id)?;
        // What stands here by now was put there since.
        if !self.settle(path)? {
            self.store.clear_met(path)?;
            self.due_again(path.clone());
        }
        Ok(())
    }

    async fn relocate(&self, op: &Op, from: &RelPath, done: &mut Done) -> Result<(), Wrong> {
        let to = &op.path;
        let facts = self.facts(from)?;
        let Some(item) = self.still(from, &facts).await? else {
            self.due_again(to.clone());
            return Ok(());
        };
        let (Some(parent), Some(make)) = (self.parent_of(to)?, &op.make) else {
            self.due_again(from.clone());
            self.due_again(to.clone());
            return Ok(());
        };
        let below = self.store.below(from)?;
        let mut mark = self.mark(&self.facts(to)?, make, to)?;
        if let Some(moved) = &item.mark
            && moved.tag != 0
        {
            mark.tag = moved.tag;
        }
        mark.sum = match item.kind {
            Kind::File { sum, .. } => sum,
            _ => None,
        };
        mark.past = vec![VersionId::of(make)];
        let at = At {
            parent: &parent,
            name: to.name(),
        };
        let moved = match self.target.relocate(&item, at, &mark).await {
            Ok(moved) => moved,
            Err(wrong) => {
                self.due_again(from.clone());
                self.due_again(to.clone());
                return Err(wrong);
            }
        };
        self.answered(to, &moved)?;
        done.changed += 1;
        for path in below.iter().chain([from]) {
            if !self.settle(path)? {
                // What stands here by now was put there since.
                self.store.clear_met(path)?;
                self.due_again(path.clone());
            }
            if let Ok(moved) = path.rebase(from, to)
                && !self.settle(&moved)?
            {
                self.due_again(moved);
            }
        }
        Ok(())
    }

    /// Prepares the writing of a file; `None` when it is not what it was any more, here or there.
    async fn prepare(&self, op: Op) -> Result<Option<Prepared>, Wrong> {
        let path = op.path.clone();
        let Some(make) = op.make.clone() else {
            return Ok(None);
        };
        if self.state.borrow().is_full && !make.is_empty() {
            return Ok(None);
        }
        let facts = self.facts(&path)?;
        let mut over = None;
        if facts.at.item.is_some() {
            let Some(item) = self.still(&path, &facts).await? else {
                return Ok(None);
            };
            match item.kind {
                Kind::File { .. } => over = Some(item),
                Kind::Folder => self.remove(&path, &item).await?,
                Kind::Other(_) => return Ok(None),
            }
        }
        let Some(parent) = self.parent_of(&path)? else {
            return Ok(None);
        };
        let (bytes, mtime_ns): (Box<dyn Bytes>, i64) = match &make {
            Entry::Symlink { target } => {
                let bytes = sum::InMemory(target.as_bytes().to_vec());
                (Box::new(bytes), 0)
            }
            entry => {
                let sources = match &op.from {
                    Source::There(from) => vec![from.clone(), path.clone()],
                    _ => vec![path.clone()],
                };
                let mut found = None;
                for source in sources {
                    found = self.tree.original(&source, entry)?;
                    if found.is_some() {
                        break;
                    }
                }
                let Some((original, mtime_ns)) = found else {
                    return Ok(None);
                };
                (Box::new(original), mtime_ns)
            }
        };
        let mut mark = self.mark(&facts, &make, &path)?;
        mark.sum = Some(sum::of(&*bytes)?);
        let mut begun = None;
        match self.store.upload(&path)? {
            // It goes on as the writing that it was.
            Some(upload) if upload.entry == make => {
                mark.writing = upload.writing;
                begun = Some(upload.begun);
            }
            Some(_) => self.store.clear_upload(&path)?,
            None => {}
        }
        Ok(Some(Prepared {
            path,
            parent,
            over,
            mark,
            mtime_ns,
            bytes,
            begun,
        }))
    }

    /// Writes what is prepared. Says what stands there then, and how many bytes that were.
    async fn write(
        &self,
        prepared: Result<Option<Prepared>, Wrong>,
    ) -> Result<Option<(Item, u64)>, Wrong> {
        let Some(prepared) = prepared? else {
            return Ok(None);
        };
        let note = |begun: &str| {
            let upload = Upload {
                entry: prepared.mark.entry.clone(),
                writing: prepared.mark.writing,
                begun: begun.to_owned(),
            };
            if let Err(error) = self.store.set_upload(&prepared.path, &upload) {
                tracing::warn!(%error, "an upload that is cut short now begins anew");
            }
        };
        let writing = Writing {
            at: At {
                parent: &prepared.parent,
                name: prepared.path.name(),
            },
            over: prepared.over.as_ref(),
            mark: &prepared.mark,
            mtime_ns: prepared.mtime_ns,
            bytes: &*prepared.bytes,
            begun: prepared.begun.clone(),
            note: &note,
        };
        let item = self.target.write(writing).await?;
        if let Some(over) = &prepared.over
            && over.id != item.id
        {
            self.store.take_out(&over.id)?;
        }
        Ok(Some((item, prepared.bytes.len())))
    }

    fn wrote(
        &self,
        path: RelPath,
        written: Result<Option<(Item, u64)>, Wrong>,
        done: &mut Done,
    ) -> Result<(), Wrong> {
        match written {
            Ok(Some((item, bytes))) => {
                self.answered(&path, &item)?;
                self.store.clear_upload(&path)?;
                done.pushed += 1;
                done.bytes += bytes;
                let (files, all) = self.written.get();
                self.written.set((files + 1, all + bytes));
                if !self.settle(&path)? {
                    self.due_again(path);
                }
                Ok(())
            }
            Ok(None) => {
                self.due_again(path);
                Ok(())
            }
            Err(wrong) => self.refused(&path, wrong),
        }
    }

    /// Changes this machine's tree.
    async fn change_here(
        &self,
        ops: Vec<Op>,
        early: &mut Early<L>,
        done: &mut Done,
    ) -> Result<(), Wrong> {
        let mut group: Vec<Edit<L::Arrived>> = Vec::new();
        let mut bytes = 0;
        // What lies below a folder that did not come waits with it.
        let mut missing: BTreeSet<RelPath> = BTreeSet::new();
        for op in ops {
            if op.path.ancestors().any(|above| missing.contains(&above)) {
                self.due_again(op.path.clone());
                continue;
            }
            if group.len() >= EDITS_MAX || bytes >= EDIT_BYTES_MAX {
                let group = std::mem::take(&mut group);
                self.edit_and_mark(group, &mut missing, done).await?;
                bytes = 0;
            }
            let path = op.path.clone();
            match self.content_for(&op, early).await {
                Ok(Some((make, content))) => {
                    bytes += make.as_ref().map_or(0, Entry::len);
                    let step = self.taking(&path, make.as_ref())?;
                    group.push(Edit {
                        step,
                        path,
                        expect: op.expect,
                        make,
                        content,
                    });
                }
                Ok(None) | Err(Wrong::Gone | Wrong::Changed) => self.due_again(path),
                Err(wrong) if wrong.is_local() => {
                    self.wait(path.as_str(), not_taken(&path, &wrong));
                    self.due_again(path);
                }
                Err(wrong) => return Err(wrong),
            }
        }
        self.edit_and_mark(group, &mut missing, done).await
    }

    /// Changes this machine's tree. What a person made there has a mark from then on: who comes next knows what it was, whatever
    /// becomes of it meanwhile.
    async fn edit_and_mark(
        &self,
        group: Vec<Edit<L::Arrived>>,
        missing: &mut BTreeSet<RelPath>,
        done: &mut Done,
    ) -> Result<(), Wrong> {
        for (path, before) in self.edit(group, missing, done)? {
            self.agree(&path, before, done).await?;
        }
        Ok(())
    }

    /// Gets the content that an operation needs; `None` when it is not to be had now.
    async fn content_for(
        &self,
        op: &Op,
        early: &mut Early<L>,
    ) -> Result<Option<(Option<Entry>, Content<L::Arrived>)>, Wrong> {
        let make = op.make.clone();
        let source = match (&make, &op.from) {
            (Some(Entry::File { .. }), Source::There(source)) => source,
            (Some(Entry::File { .. }), Source::Merge { .. }) => &op.path,
            (Some(Entry::File { .. }), Source::Here(from)) => {
                return Ok(Some((make, Content::CopyOf(from.clone()))));
            }
            _ => return Ok(Some((make, Content::Nothing))),
        };
        let Some(wanted) = make.as_ref() else {
            return Ok(None);
        };
        let held = early
            .remove(source)
            .filter(|arrived| L::entry_of(arrived) == wanted);
        let arrived = match held {
            Some(arrived) => arrived,
            None => {
                let Some(item) = self.store.at(source)?.item else {
                    return Ok(None);
                };
                match self.fetch_as(&item, wanted).await? {
                    Some(arrived) => arrived,
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(match &op.from {
            Source::Merge { base, how } => {
                let (base, how) = (base.clone(), *how);
                let merged = Content::Merged { arrived, base, how };
                (make, merged)
            }
            _ => (make, Content::Arrived(arrived)),
        }))
    }

    /// Reads an item that should be this; `None` when it is not.
    async fn fetch_as(&self, item: &Item, wanted: &Entry) -> Result<Option<L::Arrived>, Wrong> {
        let plain = Item {
            mark: item.mark.clone().map(|mark| Mark {
                entry: wanted.clone(),
                ..mark
            }),
            ..item.clone()
        };
        match self.fetch(&plain, Some(wanted)).await? {
            Fetched::File(arrived) => {
                let found = L::entry_of(&arrived);
                if found == wanted {
                    return Ok(Some(arrived));
                }
                tracing::warn!(
                    item = item.name,
                    "a copy in the mirror is not what its mark says"
                );
                self.store.set_entry(&item.id, found)?;
                Ok(None)
            }
            Fetched::Link(_) => Ok(None),
        }
    }

    /// Carries out changes here; returns the paths at which both have the same now, and what stood there before.
    fn edit(
        &self,
        group: Vec<Edit<L::Arrived>>,
        missing: &mut BTreeSet<RelPath>,
        done: &mut Done,
    ) -> Result<Vec<(RelPath, Option<Entry>)>, Wrong> {
        let mut settled = Vec::new();
        if group.is_empty() {
            return Ok(settled);
        }
        let what: Vec<(RelPath, Option<Entry>, Option<Entry>)> = group
            .iter()
            .map(|edit| (edit.path.clone(), edit.expect.clone(), edit.make.clone()))
            .collect();
        let outcomes = self.tree.edit(group)?;
        for ((path, expect, make), outcome) in what.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Done | Outcome::Merged(_) => {
                    done.taken += 1;
                    match self.settle(&path)? {
                        true => settled.push((path, expect)),
                        false => self.due_again(path),
                    }
                    continue;
                }
                // It cannot be merged, so both versions stay.
                Outcome::Unmerged => {
                    let decision = Decision {
                        alpha: Sight::from(expect),
                        beta: Sight::from(make),
                        keep: Keep::Both,
                    };
                    let decisions = &mut self.state.borrow_mut().decisions;
                    decisions.decide(path.clone(), decision);
                }
                Outcome::Held(trouble) => {
                    let waits = Waits {
                        code: "held.mirror_not_taken",
                        text: trouble.text,
                        fix: "mend that; it is tried again".to_owned(),
                    };
                    self.wait(path.as_str(), waits);
                    missing.insert(path.clone());
                }
                Outcome::Stale | Outcome::Gone => drop(missing.insert(path.clone())),
            }
            self.due_again(path);
        }
        Ok(settled)
    }
}
