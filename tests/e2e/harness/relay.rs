//! A UDP relay between two nodes that can cut, delay, lose and reorder.
//!
//! A client sees one address for good; behind it each client has a socket of its own, as behind a
//! router, and the target may move. What is on its way while the relay is cut is lost. Chance comes
//! from a fixed seed. Never here: what the datagrams say.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Most clients at a time; one more takes the place of the one that was silent longest.
const CLIENTS_MAX: usize = 64;
/// How much later a datagram is that others overtake.
const OVERTAKEN: Duration = Duration::from_millis(20);
/// How often a thread that waits for datagrams looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
const DATAGRAM_BYTES_MAX: usize = 1 << 16;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A running relay; it ends when this is dropped.
pub(crate) struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a datagram meets on its way, in both directions. The default is straight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    pub(crate) delay: Duration,
    /// Most that is added to the delay; what is added differs, so datagrams overtake one another.
    pub(crate) jitter: Duration,
    pub(crate) loss_percent: u8,
    pub(crate) reorder_percent: u8,
}

impl Relay {
    /// Starts a relay to `target` on a port of its own.
    #[track_caller]
    pub(crate) fn start(target: SocketAddr) -> Self {
        let front = listening();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                target,
                way: Way::default(),
                is_cut: false,
                chance: SEED,
                clients: HashMap::new(),
                on_the_way: BTreeMap::new(),
                count: 0,
                is_over: false,
            }),
            changed: Condvar::new(),
        });
        let addr = front.local_addr().unwrap();
        let front = Arc::new(front);
        let threads = vec![
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || receive(&front, &shared)
            }),
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || deliver(&shared)
            }),
        ];
        Self {
            addr,
            shared,
            threads,
        }
    }

    /// Returns where clients send to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets nothing through, either way.
    pub(crate) fn cut(&self) {
        let mut state = self.shared.lock();
        state.is_cut = true;
        state.on_the_way.clear();
    }

    pub(crate) fn mend(&self) {
        self.shared.lock().is_cut = false;
    }

    /// Changes what the next datagrams meet.
    pub(crate) fn set(&self, way: Way) {
        self.shared.lock().way = way;
    }

    /// Sends what comes from now on elsewhere.
    pub(crate) fn target(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        // The threads of the clients end when their sockets are gone.
        state.clients.clear();
        state.on_the_way.clear();
        drop(state);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    target: SocketAddr,
    way: Way,
    is_cut: bool,
    chance: u64,
    clients: HashMap<SocketAddr, Client>,
    /// By the time of delivery, and those of the same time by number.
    on_the_way: BTreeMap<(Instant, u64), Parcel>,
    count: u64,
    is_over: bool,
}

struct Client {
    /// Talks to the target for this client.
    socket: Arc<UdpSocket>,
    heard: Instant,
}

struct Parcel {
    from: Arc<UdpSocket>,
    to: SocketAddr,
    datagram: Vec<u8>,
}

impl Parcel {
    fn send(&self) {
        // A datagram that cannot be sent is a lost one.
        drop(self.from.send_to(&self.datagram, self.to));
    }
}

impl State {
    /// Sends a datagram on its way, unless it is lost. Returns whether it has to wait.
    fn dispatch(&mut self, from: Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) -> bool {
        let way = self.way;
        if self.is_cut || self.happens(way.loss_percent) {
            return false;
        }
        let mut late = way.delay + way.jitter.mul_f64(self.part());
        if self.happens(way.reorder_percent) {
            late += OVERTAKEN;
        }
        let parcel = Parcel {
            from,
            to,
            datagram: datagram.to_vec(),
        };
        if late.is_zero() {
            parcel.send();
            return false;
        }
        self.count += 1;
        let due = Instant::now() + late;
        self.on_the_way.insert((due, self.count), parcel);
        true
    }

    /// Returns the socket of a client, and whether it is new.
    fn socket(&mut self, client: SocketAddr) -> (Arc<UdpSocket>, bool) {
        let heard = Instant::now();
        if let Some(known) = self.clients.get_mut(&client) {
            known.heard = heard;
            return (Arc::clone(&known.socket), false);
        }
        if self.clients.len() == CLIENTS_MAX {
            let silent = self.clients.iter().min_by_key(|(_, client)| client.heard);
            let silent = silent.map(|(addr, _)| *addr);
            self.clients.retain(|addr, _| Some(*addr) != silent);
        }
        let socket = Arc::new(listening());
        let new = Client {
            socket: Arc::clone(&socket),
            heard,
        };
        self.clients.insert(client, new);
        (socket, true)
    }

    fn happens(&mut self, percent: u8) -> bool {
        self.part() * 100.0 < percent.into()
    }

    /// Returns a number from 0 up to 1 (xorshift, Marsaglia, 2003).
    fn part(&mut self) -> f64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Takes what clients send, until the relay ends.
fn receive(front: &Arc<UdpSocket>, shared: &Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = front.recv_from(&mut buffer);
        let mut state = shared.lock();
        if state.is_over {
            return;
        }
        let Ok((bytes, client)) = received else {
            continue;
        };
        let (socket, is_new) = state.socket(client);
        if is_new {
            let back = Back {
                socket: Arc::downgrade(&socket),
                front: Arc::downgrade(front),
                client,
            };
            let shared = Arc::clone(shared);
            thread::spawn(move || back.receive(&shared));
        }
        let target = state.target;
        if state.dispatch(socket, target, &buffer[..bytes]) {
            shared.changed.notify_all();
        }
    }
}

/// The way back to one client.
struct Back {
    /// Gone when the client is forgotten.
    socket: Weak<UdpSocket>,
    /// Gone when the relay is.
    front: Weak<UdpSocket>,
    client: SocketAddr,
}

impl Back {
    fn receive(&self, shared: &Shared) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        while let Some(socket) = self.socket.upgrade() {
            let Ok((bytes, _)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let mut state = shared.lock();
            // The front is looked up under the lock: the relay does not end meanwhile.
            let Some(front) = self.front.upgrade().filter(|_| !state.is_over) else {
                return;
            };
            if state.dispatch(front, self.client, &buffer[..bytes]) {
                shared.changed.notify_all();
            }
        }
    }
}

/// Delivers what had to wait, until the relay ends.
fn deliver(shared: &Shared) {
    let mut state = shared.lock();
    while !state.is_over {
        let now = Instant::now();
        let wait = match state.on_the_way.first_entry() {
            Some(first) if first.key().0 <= now => {
                first.remove().send();
                continue;
            }
            Some(first) => first.key().0 - now,
            None => LOOK,
        };
        let woken = shared.changed.wait_timeout(state, wait);
        state = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn listening() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    socket
}
