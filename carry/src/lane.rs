//! The order in which small batches are applied.

use tokio::sync::watch;

/// A line of numbered places. Batches are staged side by side, and applied one after another.
#[derive(Debug, Clone)]
pub struct Lane(watch::Sender<u64>);

impl Default for Lane {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Lane {
    /// Waits until every place before this one is done. Without a place there is nothing to wait for.
    pub async fn turn(&self, place: Option<u64>) -> Turn<'_> {
        if let Some(place) = place {
            // The sender lives as long as `self`, so the wait cannot fail.
            let _ = self.0.subscribe().wait_for(|next| *next >= place).await;
        }
        Turn { lane: self, place }
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
                .send_modify(|next| *next = (*next).max(place + 1));
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
                let _turn = lane.turn(Some(place)).await;
                order.lock().unwrap().push(place);
            }
        };
        tokio::join!(go(2), go(0), async { drop(lane.turn(None).await) }, go(1));
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    }
}
