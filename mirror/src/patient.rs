//! Patience: a target that is asked again when it was busy or out of reach.
//!
//! Waits grow from try to try and have chance in them, so that two nodes that were refused together do not come back together
//! ("full jitter", as AWS and Google recommend for such services). After the last try the round ends, and the next one goes on.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use shared::mirror::Mark;

use crate::target::{About, At, Item, Page, Reading, Target, Writing, Wrong};

/// How patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The longest first wait.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// Tries of one request.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            // Beyond that the round ends, and the next one waits longer: whether the mirror is the road may be another matter then.
            most: Duration::from_secs(16),
            tries: 6,
        }
    }
}

/// A target that is asked again.
pub struct Patient<T> {
    target: T,
    patience: Patience,
    chance: Cell<u64>,
    /// How often something was asked again.
    again: Cell<u64>,
}

impl<T: Target> Patient<T> {
    /// Wraps a target. `seed` makes the waits differ from those of others.
    pub fn new(target: T, patience: Patience, seed: u64) -> Self {
        Self {
            target,
            patience,
            chance: Cell::new(seed | 1),
            again: Cell::new(0),
        }
    }

    /// Returns how often something was asked again.
    pub fn again(&self) -> u64 {
        self.again.get()
    }

    /// Returns how long to wait after a number of tries.
    fn wait(&self, tried: u32, least: Option<Duration>) -> Duration {
        // Xorshift64 (Marsaglia, 2003): the waits of two nodes need only differ.
        let mut x = self.chance.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.chance.set(x);
        let top = self.patience.first * 2u32.saturating_pow(tried);
        let top = top.min(self.patience.most);
        let share = (x % 1000) as f64 / 1000.0;
        top.mul_f64(share).max(least.unwrap_or_default())
    }

    async fn retry<R>(&self, mut ask: impl AsyncFnMut() -> Result<R, Wrong>) -> Result<R, Wrong> {
        let mut tried = 0;
        loop {
            let wrong = match ask().await {
                Err(wrong) if wrong.passes() && tried + 1 < self.patience.tries => wrong,
                asked => return asked,
            };
            let least = match &wrong {
                Wrong::Busy { after, .. } => *after,
                _ => None,
            };
            if least.is_some_and(|least| least > 2 * self.patience.most) {
                return Err(wrong);
            }
            tracing::debug!(%wrong, tried, "the mirror is asked again");
            self.again.set(self.again.get() + 1);
            tokio::time::sleep(self.wait(tried, least)).await;
            tried += 1;
        }
    }
}

impl<T: Target> Target for Patient<T> {
    type Reading = PatientReading<T::Reading>;

    async fn root(&self) -> Result<String, Wrong> {
        self.retry(async || self.target.root().await).await
    }

    async fn about(&self) -> Result<About, Wrong> {
        self.retry(async || self.target.about().await).await
    }

    async fn changes(&self, since: Option<&str>) -> Result<Page, Wrong> {
        self.retry(async || self.target.changes(since).await).await
    }

    async fn children(&self, folder: &str) -> Result<Vec<Item>, Wrong> {
        self.retry(async || self.target.children(folder).await)
            .await
    }

    async fn look(&self, id: &str) -> Result<Option<Item>, Wrong> {
        self.retry(async || self.target.look(id).await).await
    }

    /// What breaks off later ends the reading: whoever reads knows how much came, and asks for the rest.
    async fn read(&self, item: &Item, from: u64) -> Result<Self::Reading, Wrong> {
        let reading = self.retry(async || self.target.read(item, from).await);
        Ok(PatientReading(reading.await?))
    }

    async fn sum_now(&self, item: &Item) -> Result<Option<[u8; 32]>, Wrong> {
        self.retry(async || self.target.sum_now(item).await).await
    }

    async fn write(&self, writing: Writing<'_>) -> Result<Item, Wrong> {
        let begun: RefCell<Option<String>> = RefCell::new(writing.begun.clone());
        let note = |text: &str| {
            *begun.borrow_mut() = Some(text.to_owned());
            (writing.note)(text);
        };
        self.retry(async || {
            let begun = begun.borrow().clone();
            let again = Writing {
                at: writing.at,
                over: writing.over,
                mark: writing.mark,
                mtime_ns: writing.mtime_ns,
                bytes: writing.bytes,
                begun,
                note: &note,
            };
            self.target.write(again).await
        })
        .await
    }

    async fn make_folder(&self, at: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        self.retry(async || self.target.make_folder(at, mark).await)
            .await
    }

    async fn relocate(&self, item: &Item, to: At<'_>, mark: &Mark) -> Result<Item, Wrong> {
        self.retry(async || self.target.relocate(item, to, mark).await)
            .await
    }

    async fn set_mark(&self, item: &Item, mark: &Mark) -> Result<Item, Wrong> {
        self.retry(async || self.target.set_mark(item, mark).await)
            .await
    }

    async fn remove(&self, item: &Item) -> Result<(), Wrong> {
        self.retry(async || self.target.remove(item).await).await
    }

    async fn flush(&self) -> Result<(), Wrong> {
        self.retry(async || self.target.flush().await).await
    }

    fn expect_new(&self, count: usize) {
        self.target.expect_new(count);
    }
}

/// See [`Patient::read`].
pub struct PatientReading<R>(R);

impl<R: Reading> Reading for PatientReading<R> {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Wrong> {
        self.0.next().await
    }
}

/// Reads an item from an offset to its end, part by part, and goes on where it was cut short.
///
/// # Errors
/// The last one, when as many tries in a row brought nothing.
pub async fn read_all<T: Target>(
    target: &T,
    item: &Item,
    from: u64,
    tries: u32,
    mut take: impl FnMut(&[u8]) -> Result<(), Wrong>,
) -> Result<u64, Wrong> {
    let mut at = from;
    let mut failed = 0;
    loop {
        let mut reading = target.read(item, at).await?;
        loop {
            match reading.next().await {
                Ok(None) => return Ok(at),
                Ok(Some(part)) => {
                    take(&part)?;
                    at += part.len() as u64;
                    failed = 0;
                }
                Err(wrong) if wrong.passes() && failed + 1 < tries => {
                    failed += 1;
                    break;
                }
                Err(wrong) => return Err(wrong),
            }
        }
    }
}
