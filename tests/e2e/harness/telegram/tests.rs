//! The server as a bot meets it, over HTTP.

mod faults;
mod http;
mod people;
mod polls;
mod rules;
mod writes;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{SOON, wait_until};
use super::{BotApi, Effect};

/// Longer than any poll with the same offset is remembered.
const APART: Duration = Duration::from_secs(3);
const AGENT: &str = "layer-sync/0.1.0 (vm; epoch 42)";

/// One connection of a bot.
struct Client {
    stream: BufReader<TcpStream>,
    /// `/bot<token>/`
    prefix: String,
}

impl Client {
    fn new(api: &BotApi) -> Self {
        let stream = TcpStream::connect(api.url().strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self {
            stream: BufReader::new(stream),
            prefix: format!("/bot{}/", api.token()),
        }
    }

    fn call(&mut self, method: &str, body: &Value) -> (u16, Value) {
        self.begin(method, body);
        self.finish()
    }

    fn begin(&mut self, method: &str, body: &Value) {
        let path = format!("{}{method}", self.prefix);
        self.request("POST", &path, &body.to_string());
    }

    fn finish(&mut self) -> (u16, Value) {
        let (status, body) = self.answer().expect("an answer");
        (status, serde_json::from_str(&body).unwrap())
    }

    fn request(&mut self, verb: &str, path: &str, body: &str) {
        let head = format!(
            "{verb} {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: {AGENT}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = head + body;
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
    }

    /// Reads one answer; `None` when the connection has ended without one.
    fn answer(&mut self) -> Option<(u16, String)> {
        let mut status = None;
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            // A connection may also end hard.
            if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            let line = line.trim_end().to_lowercase();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = Some(line.split(' ').nth(1).unwrap().parse().unwrap());
            } else if let Some(length) = line.strip_prefix("content-length: ") {
                bytes = length.parse().unwrap();
            }
        }
        let mut body = vec![0; bytes];
        self.stream.read_exact(&mut body).unwrap();
        Some((status.unwrap(), String::from_utf8(body).unwrap()))
    }

    #[track_caller]
    fn does(&mut self, method: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, body);
        assert_eq!((status, &answer["ok"]), (200, &true.into()), "{answer}");
        answer["result"].clone()
    }

    #[track_caller]
    fn fails(&mut self, method: &str, body: &Value, code: u16, description: &str) {
        let (status, answer) = self.call(method, body);
        assert_eq!(status, code, "{answer}");
        let expected = json!({ "ok": false, "error_code": code, "description": description });
        assert_eq!(answer, expected);
    }

    /// Sends a text and returns the message.
    #[track_caller]
    fn sends(&mut self, chat: i64, text: &str) -> i64 {
        let message = self.does("sendMessage", &json!({ "chat_id": chat, "text": text }));
        message["message_id"].as_i64().unwrap()
    }
}

/// Asks for updates, late enough not to be a repetition.
#[track_caller]
fn updates(api: &BotApi, client: &mut Client, arguments: &Value) -> Vec<Value> {
    api.advance(APART);
    let found = client.does("getUpdates", arguments);
    found.as_array().unwrap().clone()
}

/// Begins a poll and waits until the server has it.
fn open_poll(api: &BotApi, arguments: &Value) -> Client {
    let before = api.effects().len();
    let mut client = Client::new(api);
    client.begin("getUpdates", arguments);
    wait_until("the poll is there", SOON, || api.effects().len() > before);
    client
}

#[track_caller]
fn last(api: &BotApi) -> Effect {
    api.effects().pop().unwrap()
}

fn ids(updates: &[Value]) -> Vec<i64> {
    let ids = updates.iter().map(|update| &update["update_id"]);
    ids.map(|id| id.as_i64().unwrap()).collect()
}
