//! How a node asks the mirror: the calls of `mirror::drive`, each of which may fail before it is done, or
//! be done and not be heard of. Before each call anybody else may do something.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use mirror::target::{About, At, Bytes, Item, Page, Reading, Target, Writing, Wrong};
use shared::mirror::Mark;

use super::cloud::{Cloud, Fate, ROOT};
use crate::defect::Defect;

/// Bytes that come at a time.
const PART: usize = 16;
/// How often one call is made, as `mirror::patient` does.
const TRIES: usize = 3;
/// One call for changes in so many finds that the cursor is forgotten, in a history in which calls fail.
const LOST_ONE_IN: usize = 60;

/// See the module's text.
pub(crate) struct Reach {
    cloud: Rc<RefCell<Cloud>>,
    defect: Option<Defect>,
    /// Ids that were asked for, by the writings that they are for.
    taken: RefCell<BTreeMap<u64, String>>,
}

/// Bytes on their way.
pub(crate) struct Download {
    cloud: Rc<RefCell<Cloud>>,
    rest: Vec<u8>,
}

/// Lets anybody else do something.
async fn pause() {
    let mut is_over = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Reach {
    pub(super) fn new(cloud: Rc<RefCell<Cloud>>, defect: Option<Defect>) -> Self {
        Self {
            cloud,
            defect,
            taken: RefCell::default(),
        }
    }

    async fn ask<R>(&self, work: impl Fn(&mut Cloud) -> Result<R, Wrong>) -> Result<R, Wrong> {
        for tried in 1.. {
            pause().await;
            let cloud = &mut *self.cloud.borrow_mut();
            cloud.calls[1] += 1;
            let wrong = match cloud.fate() {
                Fate::Answered => return work(cloud),
                Fate::Refused(wrong) => wrong,
                Fate::Unheard(wrong) => {
                    drop(work(cloud));
                    wrong
                }
            };
            if tried == TRIES || cloud.chance.one_in(2) {
                return Err(wrong);
            }
        }
        Err(Wrong::Gone)
    }

    /// Looks whether an item lies where it is known to lie.
    fn is_known(&self, cloud: &Cloud, known: &Item) -> Result<(), Wrong> {
        cloud.item(&known.id).map(|_| ()).ok_or(Wrong::Gone)
    }

    fn marked(&self, mark: &Mark) -> Mark {
        let mut mark = mark.clone();
        match self.defect {
            Some(Defect::MarksWithoutPast) => mark.past.clear(),
            Some(Defect::MarksWithoutEdits) => mark.edit = false,
            _ => {}
        }
        mark
    }

    /// Returns the id for a writing: the same one, however often it is tried.
    fn id_for(&self, writing: u64, cloud: &mut Cloud) -> String {
        let mut taken = self.taken.borrow_mut();
        taken
            .entry(writing)
            .or_insert_with(|| cloud.new_id())
            .clone()
    }

    /// Makes something new, unless an earlier try has made it.
    fn make(
        &self,
        cloud: &mut Cloud,
        at: At<'_>,
        bytes: Option<Vec<u8>>,
        mark: &Mark,
    ) -> Result<Item, Wrong> {
        let id = self.id_for(mark.writing, cloud);
        if cloud.thing(&id).is_some() {
            let made = cloud.live_item(&id).ok_or(Wrong::Changed)?;
            let is_it = |found: &Mark| found.writing == mark.writing;
            return match made.mark.as_ref().is_some_and(is_it) {
                true => Ok(made),
                false => Err(Wrong::Changed),
            };
        }
        if at.parent != ROOT && cloud.thing(at.parent).is_none() {
            return Err(Wrong::Gone);
        }
        cloud.make(&id, (at.parent, at.name), bytes, Some(self.marked(mark)));
        cloud.item(&id).ok_or(Wrong::Gone)
    }
}

fn all_of(bytes: &dyn Bytes) -> Result<Vec<u8>, Wrong> {
    let mut all = vec![0; usize::try_from(bytes.len()).unwrap_or(0)];
    let read = bytes.read_at(0, &mut all)?;
    if read < all.len() || !bytes.rests()? {
        return Err(Wrong::Changed);
    }
    Ok(all)
}

impl Target for Reach {
    type Reading = Download;

    async fn root(&self) -> Result<String, Wrong> {
        Ok(ROOT.to_owned())
    }

    async fn about(&self) -> Result<About, Wrong> {
        Ok(About::default())
    }

    async fn changes(&self, since: Option<&str>) -> Result<Page, Wrong> {
        self.ask(|cloud| {
            cloud.calls[0] += 1;
            cloud.calls[1] -= 1;
            if since.is_some() && cloud.fails_one_in > 0 && cloud.chance.one_in(LOST_ONE_IN) {
                return Err(Wrong::CursorLost);
            }
            cloud.page(since)
        })
        .await
    }

    async fn children(&self, folder: &str) -> Result<Vec<Item>, Wrong> {
        self.ask(|cloud| {
            let inside = cloud.children(folder);
            Ok(inside.iter().filter_map(|id| cloud.item(id)).collect())
        })
        .await
    }

    async fn look(&self, id: &str) -> Result<Option<Item>, Wrong> {
        self.ask(|cloud| Ok(cloud.live_item(id))).await
    }

    async fn read(&self, item: &Item, from: u64) -> Result<Download, Wrong> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        self.ask(|cloud| {
            let thing = cloud.thing(&item.id).ok_or(Wrong::Gone)?;
            let bytes = thing.bytes.as_ref().ok_or(Wrong::Gone)?;
            Ok(Download {
                cloud: Rc::clone(&self.cloud),
                rest: bytes.get(from..).unwrap_or_default().to_vec(),
            })
        })
        .await
    }

    async fn sum_now(&self, _: &Item) -> Result<Option<[u8; 32]>, Wrong> {
        Ok(None)
    }

    async fn write(&self, writing: Writing<'_>) -> Result<Item, Wrong> {
        self.ask(|cloud| {
            let bytes = all_of(writing.bytes)?;
            let Some(over) = writing.over else {
                return self.make(cloud, writing.at, Some(bytes), writing.mark);
            };
            self.is_known(cloud, over)?;
            cloud.races(over, Some(writing.mark));
            cloud.write(&over.id, bytes, Some(self.marked(writing.mark)));
            cloud.item(&over.id).ok_or(Wrong::Gone)
        })
        .await
    }

    async fn make_folder(&self, at: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        self.ask(|cloud| self.make(cloud, at, None, mark)).await
    }

    async fn relocate(&self, item: &Item, to: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        self.ask(|cloud| {
            let is_moved = cloud.item(&item.id);
            let is_moved =
                is_moved.is_some_and(|now| now.name == to.name && now.parent == to.parent);
            if !is_moved {
                self.is_known(cloud, item)?;
            }
            let is_raced = cloud.races(item, Some(mark));
            cloud.relocate(&item.id, (to.parent, to.name));
            cloud.set_mark(&item.id, self.marked(mark));
            if is_raced {
                cloud.raced_at(&item.id);
            }
            cloud.item(&item.id).ok_or(Wrong::Gone)
        })
        .await
    }

    async fn set_mark(&self, item: &Item, mark: &Mark) -> Result<Item, Wrong> {
        self.ask(|cloud| {
            self.is_known(cloud, item)?;
            cloud.races(item, Some(mark));
            cloud.set_mark(&item.id, self.marked(mark));
            cloud.item(&item.id).ok_or(Wrong::Gone)
        })
        .await
    }

    async fn remove(&self, item: &Item) -> Result<(), Wrong> {
        self.ask(|cloud| {
            cloud.thing(&item.id).ok_or(Wrong::Gone)?;
            cloud.races(item, None);
            cloud.remove(&item.id);
            Ok(())
        })
        .await
    }
}

impl Reading for Download {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Wrong> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        match self.cloud.borrow_mut().fate() {
            Fate::Answered => {}
            Fate::Refused(wrong) | Fate::Unheard(wrong) => return Err(wrong),
        }
        let left = self.rest.split_off(self.rest.len().min(PART));
        Ok(Some(std::mem::replace(&mut self.rest, left)))
    }
}
