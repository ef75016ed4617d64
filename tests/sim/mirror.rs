//! The third place: a simulated Drive, a person who opens it there, and the real rounds of both nodes.
//!
//! `cloud` is what Drive holds, `reach` is how a node asks it, `tree` is how a round sees a simulated
//! disk and `edit` how it changes that, `rounds` says when a round runs, `person` is the hand at the
//! mirror. What has to hold of all three is in `judge`.

mod cloud;
mod edit;
mod judge;
mod person;
mod reach;
mod rounds;
mod text;
mod trails;
mod tree;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use mirror::store::Store;
use shared::tree::Side;

use crate::defect::Defect;
use crate::world::SIDES;

pub(crate) use cloud::Cloud;
pub(crate) use judge::{Ledger, THERE};
pub(crate) use person::{Deed, act, tidy};
pub(crate) use rounds::{Rounds, Turn};

/// Who is primary.
pub(crate) const PRIMARY: Side = Side::Alpha;

/// Stores are told apart in the whole process; their names are of no matter to a history.
static STORES: AtomicU64 = AtomicU64::new(0);

/// What there is of the mirror besides the nodes' rounds.
pub(crate) struct Third {
    pub(crate) cloud: Rc<RefCell<Cloud>>,
    /// One call in how many fails; 0 for none.
    pub(crate) fails_one_in: usize,
    /// Whether the direct road is open.
    pub(crate) is_open: bool,
    defect: Option<Defect>,
    stores: [String; 2],
    /// Keep the stores while no process has them open, and tell what is in them.
    anchors: [Store; 2],
}

impl Third {
    /// Makes an empty mirror.
    pub(crate) fn new(fails_one_in: usize, defect: Option<Defect>) -> Self {
        let number = STORES.fetch_add(1, Ordering::Relaxed);
        let stores = SIDES.map(|side| format!("file:/sim-{number}-{side:?}?vfs=memdb"));
        let anchors = [open(&stores[0]), open(&stores[1])];
        Self {
            cloud: Rc::new(RefCell::new(Cloud::new(defect))),
            fails_one_in,
            is_open: true,
            defect,
            stores,
            anchors,
        }
    }
}

fn open(name: &str) -> Store {
    Store::open(Path::new(name), "pair 7").expect("a store in memory opens")
}

/// The name of a node, as marks have it.
pub(crate) fn name_of(side: Side) -> &'static str {
    match side {
        Side::Alpha => "vm",
        Side::Beta => "mac",
    }
}
