//! The order in which small batches are applied.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// A line of numbered places. Batches are staged side by side, and applied one after another.
///
/// When the link is lost, some places never come. After [`Lane::close`] a place waits only for those
/// before it that have come, so that nothing waits for ever.
#[derive(Debug, Clone)]
pub struct Lane(watch::Sender<Line>);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// The places that have come and are not done.
    present: BTreeSet<u64>,
    closed: bool,
}

impl Line {
    fn is_turn(&self, place: u64) -> bool {
        self.next >= place
            || self.closed && self.present.first().is_none_or(|first| *first >= place)
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self(watch::Sender::new(Line::default()))
    }
}

impl Lane {
    /// Enters the line. Without a place there is nothing to wait for.
    pub fn enter(&self, place: Option<u64>) -> Place {
        if let Some(place) = place {
            self.0.send_modify(|line| line.present.extend([place]));
        }
        Place {
            lane: self.clone(),
            place,
        }
    }

    /// Says that no further place comes.
    pub fn close(&self) {
        self.0.send_modify(|line| line.closed = true);
    }
}

/// A place in the line; the next place's turn comes when it is dropped.
#[derive(Debug)]
pub struct Place {
    lane: Lane,
    place: Option<u64>,
}

impl Place {
    /// Waits until every place before this one is done.
    pub async fn turn(&self) {
        if let Some(place) = self.place {
            // The sender lives as long as `self`, so the wait cannot fail.
            let _ = self
                .lane
                .0
                .subscribe()
                .wait_for(|line| line.is_turn(place))
                .await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.lane.0.send_modify(|line| {
                line.present.remove(&place);
                line.next = line.next.max(place.saturating_add(1));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    async fn go(place: Place, order: &Mutex<Vec<u64>>) {
        place.turn().await;
        order.lock().unwrap().extend(place.place);
    }

    #[tokio::test]
    async fn places_are_taken_in_order() {
        let lane = Lane::default();
        let order = Mutex::new(Vec::new());
        let enter = |place| go(lane.enter(Some(place)), &order);
        tokio::join!(enter(2), enter(0), go(lane.enter(None), &order), enter(1));
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn nothing_waits_for_a_place_that_never_comes() {
        let lane = Lane::default();
        let order = Mutex::new(Vec::new());
        let enter = |place| go(lane.enter(Some(place)), &order);
        // 0 and 2 were lost with the link.
        let close = async { lane.close() };
        tokio::join!(enter(u64::MAX), enter(3), enter(1), close);
        assert_eq!(*order.lock().unwrap(), [1, 3, u64::MAX]);
    }
}
