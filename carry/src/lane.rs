//! The order in which small batches are applied.

use tokio::sync::watch;

/// A line of numbered places. Batches are staged side by side, and applied one after another.
#[derive(Debug, Clone)]
pub struct Lane(watch::Sender<Line>);

#[derive(Debug, Clone, Copy)]
struct Line {
    next: u64,
    closed: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self(watch::Sender::new(Line {
            next: 0,
            closed: false,
        }))
    }
}

impl Lane {
    /// Waits until every place before this one is done. Without a place there is nothing to wait for.
    /// `None` when the lane was closed before: whoever waits then may wait for a batch that never came.
    pub async fn turn(&self, place: Option<u64>) -> Option<Turn<'_>> {
        if let Some(place) = place {
            let mut line = self.0.subscribe();
            let is_decided = |line: &Line| line.closed || line.next >= place;
            // The sender lives as long as `self`, so the wait cannot fail.
            let line = line.wait_for(is_decided).await.ok()?;
            if line.next < place {
                return None;
            }
        }
        Some(Turn { lane: self, place })
    }

    /// Ends all waiting: the connection whose batches stand here is gone.
    pub fn close(&self) {
        self.0.send_modify(|line| line.closed = true);
    }
}

/// The right to apply; the next place's turn comes when it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    lane: &'a Lane,
    place: Option<u64>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.lane
                .0
                .send_modify(|line| line.next = line.next.max(place + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_taken_in_order() {
        let lane = Lane::default();
        let order = std::sync::Mutex::new(Vec::new());
        let go = |place| {
            let (lane, order) = (&lane, &order);
            async move {
                let _turn = lane.turn(Some(place)).await.unwrap();
                order.lock().unwrap().push(place);
            }
        };
        tokio::join!(go(2), go(0), async { drop(lane.turn(None).await) }, go(1));
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_closed_lane_lets_nobody_wait_for_a_batch_that_never_came() {
        let lane = Lane::default();
        let first = lane.turn(Some(0)).await;
        let (missing, _) = tokio::join!(lane.turn(Some(2)), async { lane.close() });
        assert!(missing.is_none());
        drop(first);
        assert!(lane.turn(Some(1)).await.is_some(), "all before it are done");
        assert!(lane.turn(None).await.is_some());
    }
}
