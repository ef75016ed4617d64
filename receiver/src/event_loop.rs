//! The one loop of the receiver: it waits for an event, lets the state decide, and carries out what
//! comes back. Work runs elsewhere and ends as another event, so nothing here is locked. Dialling,
//! too, is work: the pusher is dialled again for as long as it is not reached.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use carry::{
    Ask, CLIENTS_MAX, Clients, Commits, Done, Ended, Gives, Jobs, Lane, LeaseLink, Measured, Order,
    Outbox, Room, Takes, Ticket,
};
use disk::Durable;
use disk::looks::Looks;
use disk::watch::{Hint, Watcher};
use disk::{Replica, Report, Stored};
use link::{Backoff, Connection, Dialer, Fingerprint, Receiver as Stream, Traffic};
use shared::control::{Event as Told, LeaseView, ProcessStatus, Request, Response};
use shared::transfer::{Item, SentBatch};
use shared::tree::Gen;
use shared::utc::UtcMs;
use shared::wire::Frame;
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{Instrument, info, info_span, warn};

use crate::state::{Action, Client, Event, Receiver, Setup};

/// Longest wait between two ticks.
const TICK_MAX: Duration = Duration::from_secs(30);

/// What the loop works with. `node` makes it.
pub struct Parts {
    /// What does not change while it runs.
    pub setup: Setup,
    /// The disk.
    pub replica: Arc<Replica>,
    /// What was stored.
    pub stored: Stored,
    /// What the disk reports.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// When to look.
    pub looks: Looks,
    /// The watcher; it lives as long as the loop.
    pub watcher: Watcher,
    /// What the watcher says.
    pub hints: mpsc::UnboundedReceiver<Hint>,
    /// Dials the pusher.
    pub dialer: Dialer,
    /// Where the pusher is, `host:port`.
    pub address: String,
    /// The key that the pusher must have.
    pub key: Fingerprint,
    /// Who keeps the lease.
    pub lease: LeaseLink,
    /// Who is primary.
    pub role: watch::Receiver<LeaseView>,
    /// Counts how often this machine has slept.
    pub wakes: watch::Receiver<u64>,
    /// Requests of clients.
    pub asks: mpsc::Receiver<Ask>,
    /// Those who listen to events.
    pub told: broadcast::Sender<Told>,
    /// Measures the process; gets the bytes on the wire so far.
    pub process: Box<dyn FnMut(Traffic) -> ProcessStatus + Send>,
    /// Says when to stop.
    pub stop: watch::Receiver<bool>,
}

/// Everything that the loop waits for.
enum Input {
    Event(Event),
    Connected(Connection, Stream, link::Sender),
    NotConnected(String),
    Redial,
    Woken,
    /// From the connection with this number, with the room that it takes until it is handled.
    Frame(u64, Frame, Room),
    Batch(u64, SentBatch, Option<u64>, Stream),
    Ended(u64, String),
    Answered(Client, Response),
    Asked(Ask),
    Stop,
}

struct Linked {
    number: u64,
    connection: Connection,
    outbox: Outbox,
    takes: Takes,
    lane: Lane,
    gives: Gives,
    /// The number by which the lease knows it.
    lease: u64,
    /// Requests of the pusher's clients that are not answered yet.
    asked: usize,
}

struct EventLoop {
    state: Receiver,
    jobs: Jobs,
    commits: Commits,
    watcher: Watcher,
    dialer: Arc<Dialer>,
    address: String,
    key: Fingerprint,
    dialling: bool,
    backoff: Backoff,
    linked: Option<Linked>,
    connections: u64,
    clients: Clients,
    lease: LeaseLink,
    inputs: mpsc::UnboundedSender<Input>,
    traffic: Traffic,
    /// Whether to end because the folder was accepted as it is.
    root_accepted: bool,
}

/// Runs the receiver until it is told to stop.
///
/// # Errors
/// When the thread for commits cannot be started.
pub async fn run(parts: Parts) -> std::io::Result<Ended> {
    let Parts {
        setup,
        replica,
        stored,
        mut reports,
        looks,
        watcher,
        mut hints,
        dialer,
        address,
        key,
        ..
    } = parts;
    let Parts {
        lease,
        mut role,
        mut wakes,
        mut asks,
        told,
        mut process,
        mut stop,
        ..
    } = parts;
    let (inputs, mut queue) = mpsc::unbounded_channel();
    let done = {
        let inputs = inputs.clone();
        move |done: Done| drop(inputs.send(Input::Event(done.into())))
    };
    let jobs = Jobs::new(Arc::clone(&replica), done.clone());
    let commits = Commits::start(replica, done)?;
    let mut this = EventLoop {
        state: Receiver::new(setup, stored, looks, Instant::now(), utc_now()),
        jobs,
        commits,
        watcher,
        dialer: Arc::new(dialer),
        address,
        key,
        dialling: false,
        backoff: Backoff::default(),
        linked: None,
        connections: 0,
        clients: Clients::new(told),
        lease,
        inputs,
        traffic: Traffic::default(),
        root_accepted: false,
    };
    let now = role.borrow_and_update().clone();
    this.apply(Event::Role(now));
    this.dial();
    loop {
        let until_tick = this.state.next_tick().map_or(TICK_MAX, |at| {
            at.saturating_duration_since(Instant::now()).min(TICK_MAX)
        });
        // Reports of the disk come before its other answers, since those may refer to them.
        let input = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Input::Stop,
            Some(report) = reports.recv() => Input::Event(Done::from(report).into()),
            input = async {
                // Nobody is first here: a partner that floods us does not keep a person waiting.
                tokio::select! {
                    Some(input) = queue.recv() => input,
                    Some(hint) = hints.recv() => Input::Event(Event::Hint(hint)),
                    Some(ask) = asks.recv() => Input::Asked(ask),
                    Ok(()) = wakes.changed() => Input::Woken,
                    Ok(()) = role.changed() => {
                        Input::Event(Event::Role(role.borrow_and_update().clone()))
                    }
                    () = tokio::time::sleep(until_tick) => Input::Event(Event::Tick),
                }
            } => input,
        };
        // In their order: the last thing that is heard of a save is that its writer has closed the file.
        let input = match input {
            Input::Event(hint @ Event::Hint(_)) => {
                this.apply(hint);
                None
            }
            input => Some(input),
        };
        // Whether more is moving has to be known before anything is planned or told.
        while let Ok(hint) = hints.try_recv() {
            this.apply(Event::Hint(hint));
        }
        let Some(input) = input else { continue };
        match input {
            Input::Event(event) => this.apply(event),
            Input::Connected(connection, receiver, sender) => {
                this.connected(connection, receiver, sender);
            }
            Input::NotConnected(reason) => this.not_connected(reason),
            Input::Redial => {
                this.dialling = false;
                this.dial();
            }
            Input::Woken => this.woken(),
            Input::Frame(number, frame, _room) => {
                if this.is_current(number) && this.may_ask(&frame) {
                    this.apply(Event::Frame(frame));
                }
            }
            Input::Batch(number, batch, place, stream) => {
                if this.is_current(number) {
                    this.take(batch, place, stream);
                }
            }
            Input::Ended(number, reason) => this.ended(number, reason),
            Input::Answered(client, response) => this.answer(client, response),
            Input::Asked(ask) => this.asked(ask, &mut *process),
            Input::Stop => break,
        }
        if this.root_accepted {
            break;
        }
    }
    let ended = if this.root_accepted {
        Ended::RootAccepted
    } else {
        Ended::Stopped
    };
    let dialer = Arc::clone(&this.dialer);
    drop(this);
    dialer.close().await;
    Ok(ended)
}

/// Also when the loop is cut off in the middle of something: a connection that nobody ends would stay until the
/// other side has given it up.
impl Drop for EventLoop {
    fn drop(&mut self) {
        self.jobs.stop();
        if let Some(linked) = self.linked.take() {
            linked.takes.hang_up();
            self.lease.unlinked(linked.lease);
            linked.connection.close("the receiver stops");
        }
    }
}

impl EventLoop {
    fn apply(&mut self, event: Event) {
        for action in self.state.apply(event, Instant::now(), utc_now()) {
            self.start(action);
        }
    }

    fn start(&mut self, action: Action) {
        match action {
            Action::Look(look) => self.jobs.look(look),
            Action::Send(frame) => {
                if let Some(linked) = &self.linked {
                    linked.outbox.send(&frame);
                }
            }
            Action::Give(batch, items) => self.give(batch, items),
            Action::GiveChunks(need) => {
                if let Some((linked, ticket)) = self.ticket() {
                    tokio::spawn(carry::give_chunks(
                        Arc::clone(self.jobs.replica()),
                        linked.connection.clone(),
                        need,
                        ticket,
                    ));
                }
            }
            Action::Commit { batch, rows, notes } => {
                self.commits.commit(batch, rows, notes, Durable::Rows);
            }
            Action::AcceptRoot => self.root_accepted = true,
            Action::SetRules(rules) => {
                self.watcher.set_rules(rules.clone());
                self.jobs.replica().set_rules(rules);
            }
            Action::ReadRules => self.jobs.read_rules(),
            Action::Answer(client, response) => self.answer(client, response),
            Action::Serve(client, request) => self.serve(client, request),
            Action::Tell(told) => self.clients.tell(told),
            Action::Unlink(reason) => self.end_soon(reason),
        }
    }

    /// Ends the connection after its last frames had a moment to leave.
    fn end_soon(&self, reason: String) {
        let Some(linked) = &self.linked else { return };
        warn!(%reason, "link ends");
        let (number, connection, inputs) = (
            linked.number,
            linked.connection.clone(),
            self.inputs.clone(),
        );
        tokio::spawn(async move {
            tokio::time::sleep(link::CLOSE_WAIT).await;
            connection.close(&reason);
            let _ = inputs.send(Input::Ended(number, reason));
        });
    }

    fn give(&self, batch: Gen, items: Vec<Item>) {
        let Some((linked, ticket)) = self.ticket() else {
            return;
        };
        let (connection, replica) = (linked.connection.clone(), Arc::clone(self.jobs.replica()));
        let span = info_span!("give", batch = batch.0, files = items.len());
        // A failure ends the connection, and with it every batch that was on its way.
        tokio::spawn(
            async move {
                drop(
                    carry::give_fetched(replica, connection, batch, items, ticket)
                        .await
                        .inspect_err(|error| warn!(%error, "content not sent")),
                );
            }
            .instrument(span),
        );
    }

    fn take(&mut self, batch: SentBatch, place: Option<u64>, stream: Stream) {
        let batch = self.jobs.replica().resolve(batch);
        if let Some(reason) = self.state.refuses(&batch) {
            return self.apply(Event::Violation(reason));
        }
        let Some(linked) = &self.linked else { return };
        let span = info_span!("take", batch = batch.number.0, ops = batch.ops.len());
        let order = Order {
            batch: batch.clone(),
            place,
            resolved: self.state.resolved(),
        };
        let outbox = Some(linked.outbox.clone());
        let take = linked
            .takes
            .take(self.jobs.clone(), order, Some(stream), outbox, &linked.lane);
        self.apply(Event::Batch(batch));
        tokio::spawn(take.instrument(span));
    }

    // The link

    fn is_current(&self, number: u64) -> bool {
        self.linked
            .as_ref()
            .is_some_and(|linked| linked.number == number)
    }

    /// Lets a frame pass, unless it is one request too many.
    fn may_ask(&mut self, frame: &Frame) -> bool {
        let Some(linked) = &mut self.linked else {
            return false;
        };
        if !matches!(frame, Frame::Ask(..)) {
            return true;
        }
        linked.asked += 1;
        if linked.asked > CLIENTS_MAX {
            linked.outbox.end(carry::ASKS_TOO_MUCH.into());
        }
        linked.asked <= CLIENTS_MAX
    }

    /// Returns the right to give something to the partner, unless it asks for too much.
    fn ticket(&self) -> Option<(&Linked, Ticket)> {
        let linked = self.linked.as_ref()?;
        let ticket = linked.gives.ask();
        if ticket.is_none() {
            linked.outbox.end(carry::ASKS_TOO_MUCH.into());
        }
        Some((linked, ticket?))
    }

    fn dial(&mut self) {
        if self.dialling || self.linked.is_some() {
            return;
        }
        self.dialling = true;
        if !self.state.wants_link() {
            return self.redial_later();
        }
        let (dialer, address, key, inputs) = (
            Arc::clone(&self.dialer),
            self.address.clone(),
            self.key,
            self.inputs.clone(),
        );
        tokio::spawn(async move {
            let dialled = async {
                let connection = dialer.dial(&address, key).await?;
                let (sender, receiver) = connection.open_control().await?;
                Ok::<_, link::LinkError>((connection, receiver, sender))
            };
            let input = match dialled.await {
                Ok((connection, receiver, sender)) => {
                    Input::Connected(connection, receiver, sender)
                }
                Err(error) => Input::NotConnected(error.to_string()),
            };
            let _ = inputs.send(input);
        });
    }

    fn redial_later(&mut self) {
        self.dialling = true;
        let mut chance = [0; 4];
        // Without chance both sides merely lose the jitter.
        let _ = getrandom::fill(&mut chance);
        let wait = self.backoff.next(u32::from_le_bytes(chance));
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = inputs.send(Input::Redial);
        });
    }

    fn connected(&mut self, connection: Connection, receiver: Stream, sender: link::Sender) {
        self.dialling = false;
        self.backoff.reset();
        self.connections += 1;
        let number = self.connections;
        let span = info_span!("link", number);
        let arrived = {
            let inputs = self.inputs.clone();
            move |frame, room| drop(inputs.send(Input::Frame(number, frame, room)))
        };
        let (outbox, control) = carry::control(sender, receiver, arrived);
        let takes = Takes::default();
        let begun: Arc<carry::Begun> = {
            let inputs = self.inputs.clone();
            Arc::new(move |batch, place, stream| {
                drop(inputs.send(Input::Batch(number, batch, place, stream)));
            })
        };
        let lease = self.lease.linked(&connection);
        tokio::spawn(carry::accept_streams(
            connection.clone(),
            takes.clone(),
            outbox.clone(),
            Some(begun),
            (self.lease.clone(), lease),
        ));
        let (inputs, closing) = (self.inputs.clone(), connection.clone());
        let serve = async move {
            let reason = tokio::select! {
                reason = control => reason,
                reason = closing.closed() => reason,
            };
            let _ = inputs.send(Input::Ended(number, reason));
        };
        tokio::spawn(serve.instrument(span));
        info!(number, address = %self.address, "connected to the pusher");
        self.linked = Some(Linked {
            number,
            connection,
            outbox,
            takes,
            lane: Lane::default(),
            gives: Gives::default(),
            lease,
            asked: 0,
        });
        self.apply(Event::Linked);
    }

    fn not_connected(&mut self, reason: String) {
        info!(%reason, "the pusher was not reached");
        self.apply(Event::Unlinked(reason));
        self.redial_later();
    }

    fn ended(&mut self, number: u64, reason: String) {
        let Some(linked) = self.linked.take_if(|linked| linked.number == number) else {
            return;
        };
        info!(number, %reason, "the link is down");
        self.lease.unlinked(linked.lease);
        linked.takes.hang_up();
        linked.lane.close();
        let bytes = linked.connection.bytes();
        self.traffic.sent += bytes.sent;
        self.traffic.received += bytes.received;
        linked.connection.close(&reason);
        self.apply(Event::Unlinked(reason));
        self.redial_later();
    }

    /// The connection from before the sleep may be dead, and nobody would notice for half a minute; the network
    /// may be another one. So it is dialled anew, at once.
    fn woken(&mut self) {
        self.backoff.reset();
        if let Some(number) = self.linked.as_ref().map(|linked| linked.number) {
            self.ended(number, "this machine has slept".into());
        }
    }

    fn traffic(&self) -> Traffic {
        let now = self
            .linked
            .as_ref()
            .map(|linked| linked.connection.bytes())
            .unwrap_or_default();
        Traffic {
            sent: self.traffic.sent + now.sent,
            received: self.traffic.received + now.received,
        }
    }

    // Clients

    fn asked(&mut self, ask: Ask, process: &mut (dyn FnMut(Traffic) -> ProcessStatus + Send)) {
        let traffic = self.traffic();
        let rtt_ms = self
            .linked
            .as_ref()
            .map(|linked| linked.connection.rtt().as_millis() as u64);
        let measure = || Measured {
            process: process(traffic),
            rtt_ms,
        };
        if let Some((id, request)) = self.clients.ask(ask, measure) {
            self.apply(Event::Asked(Client::Local(id), request));
        }
    }

    fn serve(&self, client: Client, request: Request) {
        let (jobs, inputs) = (self.jobs.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let response = jobs.serve(request).await;
            let _ = inputs.send(Input::Answered(client, response));
        });
    }

    fn answer(&mut self, client: Client, response: Response) {
        match client {
            Client::Local(id) => self.clients.answer(id, response),
            Client::Remote(id) => {
                if let Some(linked) = &mut self.linked {
                    linked.asked = linked.asked.saturating_sub(1);
                }
                let text = carry::answer_text(&response);
                self.start(Action::Send(Frame::Answer(id, text)));
            }
        }
    }
}

fn utc_now() -> UtcMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UtcMs(since.as_millis() as u64)
}

impl From<Done> for Event {
    fn from(done: Done) -> Self {
        match done {
            Done::Observed(rows) => Self::Observed(rows),
            Done::Passed(rows) => Self::Passed(rows),
            Done::Moved(path) => Self::Hint(Hint::Path(path)),
            Done::Racy(paths) => Self::Racy(paths),
            Done::Applied(batch, outcomes) => Self::Applied(batch, outcomes),
            Done::Looked { sweep, result } => Self::Looked { sweep, result },
            Done::Committed(batch) => Self::Committed(batch),
            Done::DiskFailed(text) => Self::DiskFailed(text),
            Done::RulesRead(file) => Self::RulesRead(file),
        }
    }
}
