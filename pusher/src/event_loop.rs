//! The one loop of the pusher: it waits for an event, lets the state decide, and carries out what
//! comes back. Work runs elsewhere and ends as another event, so nothing here is locked.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use carry::{
    Ask, CLIENTS_MAX, Clients, Commits, Done, Ended, Gives, Jobs, Lane, LeaseLink, Measured, Order,
    Outbox, Room, Takes, Ticket,
};
use disk::looks::Looks;
use disk::watch::{Hint, Watcher};
use disk::{Replica, Report, Stored};
use link::{Connection, Incoming, Listener, Paired, PairingAttempt, Priority, Traffic};
use shared::control::{Event as Told, LeaseView, ProcessStatus, Refused, Request, Response, exit};
use shared::utc::UtcMs;
use shared::wire::{Frame, PairId};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::{Instrument, info, info_span, warn};

use crate::state::{Action, Client, Event, Pusher, Setup};

/// Longest wait between two ticks.
const TICK_MAX: Duration = Duration::from_secs(30);

/// Stores a new partner.
pub type KeepPartner = Arc<dyn Fn(&Paired) -> std::io::Result<()> + Send + Sync>;

/// What the loop works with. `node` makes it.
pub struct Parts {
    /// What does not change while it runs.
    pub setup: Setup,
    /// The disk, and what it had stored.
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
    /// Where the receiver dials in.
    pub listener: Listener,
    /// Stores a new partner durably and lets its key in, in place of the one before.
    pub keep_partner: KeepPartner,
    /// Who keeps the lease.
    pub lease: LeaseLink,
    /// Who is primary.
    pub role: watch::Receiver<LeaseView>,
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
    Connected(Connection),
    Pairing(PairingAttempt),
    Paired(Paired),
    /// The control stream of the connection with this number is open.
    Opened(u64, Outbox),
    /// From the connection with this number, with the room that it takes until it is handled.
    Frame(u64, Frame, Room),
    Ended(u64, String),
    Answered(Client, Response),
    Asked(Ask),
    Stop,
}

struct Linked {
    number: u64,
    connection: Connection,
    outbox: Option<Outbox>,
    takes: Takes,
    gives: Gives,
    /// The number by which the lease knows it.
    lease: Option<u64>,
    /// Requests of the receiver's clients that are not answered yet.
    asked: usize,
}

struct EventLoop {
    state: Pusher,
    jobs: Jobs,
    commits: Commits,
    watcher: Watcher,
    lane: Lane,
    linked: Option<Linked>,
    connections: u64,
    clients: Clients,
    lease: LeaseLink,
    node: String,
    pair: Option<PairId>,
    keep_partner: KeepPartner,
    inputs: mpsc::UnboundedSender<Input>,
    traffic: Traffic,
    /// Whether to end because the folder was accepted as it is.
    root_accepted: bool,
}

/// Runs the pusher until it is told to stop.
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
        listener,
        keep_partner,
        ..
    } = parts;
    let Parts {
        lease,
        mut role,
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
    let (node, pair) = (setup.node.clone(), setup.pair);
    let mut this = EventLoop {
        state: Pusher::new(setup, stored, looks, Instant::now(), utc_now()),
        jobs,
        commits,
        watcher,
        lane: Lane::default(),
        linked: None,
        connections: 0,
        clients: Clients::new(told),
        lease,
        node,
        pair,
        keep_partner,
        inputs,
        traffic: Traffic::default(),
        root_accepted: false,
    };
    let now = role.borrow_and_update().clone();
    this.apply(Event::Role(now));
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
                    Ok(()) = role.changed() => {
                        Input::Event(Event::Role(role.borrow_and_update().clone()))
                    }
                    Some(incoming) = listener.accept() => match incoming {
                        Incoming::Peer(connection) => Input::Connected(connection),
                        Incoming::Pairing(attempt) => Input::Pairing(attempt),
                    },
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
            Input::Connected(connection) => this.connected(connection),
            Input::Opened(number, outbox) => this.opened(number, outbox),
            Input::Frame(number, frame, _room) => {
                if this.is_current(number) && this.may_ask(&frame) {
                    this.apply(Event::Frame(frame));
                }
            }
            Input::Ended(number, reason) => this.ended(number, reason),
            Input::Pairing(attempt) => this.pair_with(attempt, &listener),
            Input::Paired(paired) => {
                info!(peer = %paired.peer_name, key = %paired.peer.short(), "paired");
                this.pair = Some(PairId(paired.pair_id));
                this.apply(Event::Paired(PairId(paired.pair_id), paired.peer_name));
            }
            Input::Answered(client, response) => this.answer(client, response),
            Input::Asked(ask) => this.asked(ask, &listener, &mut *process),
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
    drop(this);
    listener.close().await;
    Ok(ended)
}

/// Also when the loop is cut off in the middle of something: a connection that nobody ends would hold the port.
impl Drop for EventLoop {
    fn drop(&mut self) {
        self.jobs.stop();
        if let Some(linked) = self.linked.take() {
            linked.takes.hang_up();
            self.leave_lease(&linked);
            linked.connection.close("the pusher stops");
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
                if let Some(outbox) = self
                    .linked
                    .as_ref()
                    .and_then(|linked| linked.outbox.as_ref())
                {
                    outbox.send(&frame);
                }
            }
            Action::Push(batch, place) => self.push(batch, place),
            Action::Take(batch, place, resolved) => {
                let (takes, outbox) = match &self.linked {
                    Some(linked) => (linked.takes.clone(), linked.outbox.clone()),
                    None => (Takes::default(), None),
                };
                let span = info_span!("take", batch = batch.number.0, ops = batch.ops.len());
                let order = Order {
                    batch,
                    place,
                    resolved,
                };
                tokio::spawn(
                    takes
                        .take(self.jobs.clone(), order, None, outbox, &self.lane)
                        .instrument(span),
                );
            }
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
            Action::Commit {
                batch,
                rows,
                notes,
                first,
            } => self.commits.commit(batch, rows, notes, first),
            Action::KeepBase(path, entry) => self.jobs.keep_base(path, entry),
            Action::AcceptRoot => self.root_accepted = true,
            Action::SetRules(rules) => {
                self.watcher.set_rules(rules.clone());
                self.jobs.replica().set_rules(rules);
            }
            Action::ReadRules => self.jobs.read_rules(),
            Action::Answer(client, response) => self.answer(client, response),
            Action::Serve(client, request) => self.serve(client, request),
            Action::Tell(told) => self.clients.tell(told),
            Action::Unlink(reason) => {
                if let Some(linked) = &self.linked {
                    warn!(%reason, "link ends");
                    self.end_soon(linked.number, &linked.connection, reason);
                }
            }
        }
    }

    /// Ends a connection after its last frames had a moment to leave.
    fn end_soon(&self, number: u64, connection: &Connection, reason: String) {
        let (connection, inputs) = (connection.clone(), self.inputs.clone());
        tokio::spawn(async move {
            tokio::time::sleep(link::CLOSE_WAIT).await;
            connection.close(&reason);
            let _ = inputs.send(Input::Ended(number, reason));
        });
    }

    fn push(&self, batch: shared::transfer::Batch, place: Option<u64>) {
        let Some(linked) = &self.linked else { return };
        let (connection, replica) = (linked.connection.clone(), Arc::clone(self.jobs.replica()));
        let span = info_span!("push", batch = batch.number.0, ops = batch.ops.len());
        let send = async move {
            let priority = if place.is_some() {
                Priority::Small
            } else {
                Priority::Bulk
            };
            let mut stream = connection.open_stream(priority).await?;
            let items = crate::state::items(&batch);
            let batch = Frame::Batch(batch.into(), place).encode();
            stream.send_with_next(&batch).await?;
            carry::give(replica, items, stream).await
        };
        // A failure ends the connection, and with it every batch that was on its way.
        tokio::spawn(
            async move {
                drop(
                    send.await
                        .inspect_err(|error| warn!(%error, "batch not sent")),
                );
            }
            .instrument(span),
        );
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
        if linked.asked > CLIENTS_MAX
            && let Some(outbox) = &linked.outbox
        {
            outbox.end(carry::ASKS_TOO_MUCH.into());
        }
        linked.asked <= CLIENTS_MAX
    }

    /// Returns the right to give something to the partner, unless it asks for too much.
    fn ticket(&self) -> Option<(&Linked, Ticket)> {
        let linked = self.linked.as_ref()?;
        let ticket = linked.gives.ask();
        if let (None, Some(outbox)) = (&ticket, &linked.outbox) {
            outbox.end(carry::ASKS_TOO_MUCH.into());
        }
        Some((linked, ticket?))
    }

    /// Takes a new connection of the partner. It replaces the one before it, which the partner has
    /// given up even if that was not noticed here yet.
    fn connected(&mut self, connection: Connection) {
        if let Some(old) = self.linked.take() {
            old.takes.hang_up();
            self.leave_lease(&old);
            old.connection.close("the receiver has connected again");
            self.apply(Event::Unlinked("the receiver has connected again".into()));
        }
        self.connections += 1;
        let number = self.connections;
        self.linked = Some(Linked {
            number,
            connection: connection.clone(),
            outbox: None,
            takes: Takes::default(),
            gives: Gives::default(),
            lease: None,
            asked: 0,
        });
        let inputs = self.inputs.clone();
        let span = info_span!("link", number);
        let serve = async move {
            let reason = serve_control(number, &connection, &inputs).await;
            let _ = inputs.send(Input::Ended(number, reason));
        };
        tokio::spawn(serve.instrument(span));
    }

    fn opened(&mut self, number: u64, outbox: Outbox) {
        let Some(linked) = self
            .linked
            .as_mut()
            .filter(|linked| linked.number == number)
        else {
            return;
        };
        linked.outbox = Some(outbox.clone());
        let (connection, takes) = (linked.connection.clone(), linked.takes.clone());
        let lease = self.lease.linked(&connection);
        linked.lease = Some(lease);
        let lease = (self.lease.clone(), lease);
        tokio::spawn(carry::accept_streams(
            connection, takes, outbox, None, lease,
        ));
        info!(number, "the receiver is connected");
        self.apply(Event::Linked);
    }

    fn ended(&mut self, number: u64, reason: String) {
        if let Some(linked) = self.linked.take_if(|linked| linked.number == number) {
            info!(number, %reason, "the link is down");
            self.leave_lease(&linked);
            linked.takes.hang_up();
            let bytes = linked.connection.bytes();
            self.traffic.sent += bytes.sent;
            self.traffic.received += bytes.received;
            linked.connection.close(&reason);
            self.apply(Event::Unlinked(reason));
        }
    }

    fn leave_lease(&self, linked: &Linked) {
        if let Some(number) = linked.lease {
            self.lease.unlinked(number);
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

    // Pairing

    fn pair_with(&self, attempt: PairingAttempt, listener: &Listener) {
        // A pair keeps its identity when its receiver is paired again.
        let pair = match self.pair {
            Some(pair) => pair,
            None => match random() {
                Ok(id) => PairId(id),
                Err(error) => return warn!(%error, "no random numbers to pair with"),
            },
        };
        let (desk, node, inputs) = (listener.desk(), self.node.clone(), self.inputs.clone());
        let keep = Arc::clone(&self.keep_partner);
        tokio::spawn(async move {
            match attempt
                .answer(&desk, &node, pair.0, |paired| keep(paired))
                .await
            {
                Ok(paired) => drop(inputs.send(Input::Paired(paired))),
                Err(error) => warn!(%error, "pairing refused"),
            }
        });
    }

    // Clients

    fn asked(
        &mut self,
        ask: Ask,
        listener: &Listener,
        process: &mut (dyn FnMut(Traffic) -> ProcessStatus + Send),
    ) {
        if let Request::Pair(address) = &ask.request {
            let response = open_code(listener, address);
            tokio::spawn(async move { ask.answer.send(response).await });
            return;
        }
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

async fn serve_control(
    number: u64,
    connection: &Connection,
    inputs: &mpsc::UnboundedSender<Input>,
) -> String {
    let (sender, receiver) = match connection.accept_control().await {
        Ok(streams) => streams,
        Err(error) => return error.to_string(),
    };
    let arrived = {
        let inputs = inputs.clone();
        move |frame, room| drop(inputs.send(Input::Frame(number, frame, room)))
    };
    let (outbox, control) = carry::control(sender, receiver, arrived);
    let _ = inputs.send(Input::Opened(number, outbox));
    tokio::select! {
        reason = control => reason,
        reason = connection.closed() => reason,
    }
}

fn open_code(listener: &Listener, address: &str) -> Response {
    let code = random()
        .map_err(|error| error.to_string())
        .and_then(|chance| {
            listener
                .desk()
                .open(address, Instant::now(), chance)
                .map_err(|error| error.to_string())
        });
    match code {
        Ok(code) => Response::Code(code.to_string()),
        Err(text) => Response::Refused(Refused {
            exit: exit::ERROR,
            text,
            fix: String::new(),
        }),
    }
}

fn random() -> Result<[u8; 16], getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
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
