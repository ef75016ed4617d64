//! Clients of this machine that wait for an answer.

use std::collections::BTreeMap;

use shared::control::{Event as Told, ProcessStatus, Refused, Request, Response, exit, to_json};
use shared::wire::ANSWER_BYTES_MAX;
use tokio::sync::{broadcast, mpsc};

/// A request of a client, with the place for its answer.
#[derive(Debug)]
pub struct Ask {
    /// The request.
    pub request: Request,
    /// Takes the answer; for events, every one of them.
    pub answer: mpsc::Sender<Response>,
}

/// What a status needs to know of the process, measured when it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// The process.
    pub process: ProcessStatus,
    /// Round-trip time, while linked.
    pub rtt_ms: Option<u64>,
}

/// The clients that wait.
#[derive(Debug)]
pub struct Clients {
    waiting: BTreeMap<u64, (mpsc::Sender<Response>, Option<Measured>)>,
    last: u64,
    told: broadcast::Sender<Told>,
}

impl Clients {
    /// Starts without clients; `told` is where events come from.
    pub fn new(told: broadcast::Sender<Told>) -> Self {
        Self {
            waiting: BTreeMap::new(),
            last: 0,
            told,
        }
    }

    /// Tells those who listen.
    pub fn tell(&self, told: Told) {
        // Nobody may be listening.
        let _ = self.told.send(told);
    }

    /// Takes a request and returns it with the client's number, unless it is served here.
    pub fn ask(&mut self, ask: Ask, measure: impl FnOnce() -> Measured) -> Option<(u64, Request)> {
        if ask.request == Request::Events {
            tokio::spawn(stream_events(self.told.subscribe(), ask.answer));
            return None;
        }
        let measured = (ask.request == Request::Status).then(measure);
        self.last += 1;
        self.waiting.insert(self.last, (ask.answer, measured));
        Some((self.last, ask.request))
    }

    /// Answers a client. The state machines know nothing of the process, so its part of a status is
    /// filled in on the way.
    pub fn answer(&mut self, client: u64, mut response: Response) {
        let Some((answer, measured)) = self.waiting.remove(&client) else {
            return;
        };
        if let (Response::Status(status), Some(measured)) = (&mut response, measured) {
            status.process = measured.process;
            status.peer.rtt_ms = measured.rtt_ms;
        }
        tokio::spawn(async move { answer.send(response).await });
    }
}

/// Writes an answer for a client of the other machine.
pub fn answer_text(response: &Response) -> String {
    let text = to_json(response);
    if text.len() <= ANSWER_BYTES_MAX {
        return text;
    }
    to_json(&Response::Refused(Refused {
        exit: exit::ERROR,
        text: "the answer is too long to travel to the other machine".into(),
        fix: "ask on the machine that gave it".into(),
    }))
}

async fn stream_events(mut events: broadcast::Receiver<Told>, answer: mpsc::Sender<Response>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                if answer.send(Response::Event(event)).await.is_err() {
                    return;
                }
            }
            // A client that reads too slowly misses the oldest.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
