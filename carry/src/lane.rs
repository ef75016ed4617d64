//! The order in which small batches are applied.

use tokio::sync::watch;

/// A line of numbered places. Batches are staged side by side, and applied one after another.
///
/// When the link is lost, some places never come. After [`Lane::close`] nobody waits for them: a place
/// whose turn has not come by then never gets it, since what it builds on may be missing.
#[derive(Debug, Clone)]
pub struct Lane(watch::Sender<Line>);

#[derive(Debug, Clone, Copy, Default)]
struct Line {
    next: u64,
    closed: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self(watch::Sender::new(Line::default()))
    }
}

impl Lane {
    /// Enters the line. Without a place there is nothing to wait for.
    pub fn enter(&self, place: Option<u64>) -> Place {
        Place {
            lane: self.clone(),
            place,
            is_turn: false,
        }
    }

    /// Says that no further place comes: the connection whose batches stand here is gone.
    pub fn close(&self) {
        self.0.send_modify(|line| line.closed = true);
    }
}

/// A place in the line; the next place's turn comes when it is dropped after its own.
#[derive(Debug)]
pub struct Place {
    lane: Lane,
    place: Option<u64>,
    is_turn: bool,
}

impl Place {
    /// Waits until every place before this one is done; false when one of them never comes.
    pub async fn turn(&mut self) -> bool {
        let Some(place) = self.place else {
            return true;
        };
        let mut line = self.lane.0.subscribe();
        let is_decided = |line: &Line| line.closed || line.next >= place;
        // The sender lives as long as `self`, so the wait cannot fail.
        self.is_turn = line
            .wait_for(is_decided)
            .await
            .is_ok_and(|line| line.next >= place);
        self.is_turn
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(place) = self.place.filter(|_| self.is_turn) {
            let after = place.saturating_add(1);
            self.lane
                .0
                .send_modify(|line| line.next = line.next.max(after));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    async fn go(mut place: Place, order: &Mutex<Vec<u64>>) {
        if place.turn().await {
            order.lock().unwrap().extend(place.place);
        }
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
    async fn nobody_waits_for_a_place_that_never_comes() {
        let lane = Lane::default();
        let order = Mutex::new(Vec::new());
        let enter = |place| go(lane.enter(Some(place)), &order);
        // 1 was lost with the link, and what comes after it may build on it.
        let close = async { lane.close() };
        tokio::join!(enter(0), enter(3), enter(2), close);
        assert_eq!(*order.lock().unwrap(), [0]);
        assert!(lane.enter(None).turn().await);
    }
}
