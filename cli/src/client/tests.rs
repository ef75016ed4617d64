use std::fs;
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use shared::control::{Event, Happening};
use shared::utc::UtcMs;

use super::*;

const SOON: Duration = Duration::from_millis(50);
const WAIT: Duration = Duration::from_secs(10);

/// A home whose daemon takes one connection, reads one line, and does what it is told.
struct Fake {
    _temp: tempfile::TempDir,
    home: Home,
    thread: JoinHandle<String>,
}

impl Fake {
    fn new(speak: impl FnOnce(&mut UnixStream) + Send + 'static) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::new(temp.path().to_owned());
        let listener = UnixListener::bind(home.socket()).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = Vec::new();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
                line.push(byte[0]);
            }
            speak(&mut stream);
            String::from_utf8(line).unwrap()
        });
        Self {
            _temp: temp,
            home,
            thread,
        }
    }

    fn ask(self, wait: Duration) -> (Result<Response, ClientError>, String) {
        let answer = Client::ask(&self.home, &Request::Pause, wait);
        (answer, self.thread.join().unwrap())
    }
}

fn says(text: &'static str) -> impl FnOnce(&mut UnixStream) {
    move |stream| stream.write_all(text.as_bytes()).unwrap()
}

fn failure(error: ClientError) -> Failure {
    error.into_failure(&Home::new("/h".into()), "layer-sync")
}

#[test]
fn a_question_and_its_answer() {
    let (answer, asked) = Fake::new(says("{\"paused\":true}\n")).ask(WAIT);
    assert_eq!(answer.unwrap(), Response::Paused(true));
    assert_eq!(asked, "\"pause\"");
}

#[test]
fn an_answer_in_pieces() {
    let (answer, _) = Fake::new(|stream| {
        for piece in ["{\"pau", "sed\":", "true}\n"] {
            stream.write_all(piece.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
    })
    .ask(WAIT);
    assert_eq!(answer.unwrap(), Response::Paused(true));
}

#[test]
fn a_refusal() {
    let line = "{\"refused\":{\"exit\":5,\"text\":\"It is halted.\",\"fix\":\"confirm\"}}\n";
    let (answer, _) = Fake::new(says(line)).ask(WAIT);
    let told = failure(answer.unwrap_err());
    let expected = Failure {
        exit: exit::HALTED,
        text: "It is halted.".to_owned(),
        fix: "confirm".to_owned(),
    };
    assert_eq!(told, expected);
}

#[test]
fn many_answers_and_a_pause_between() {
    let fake = Fake::new(|stream| {
        for files in 0..3 {
            let what = Happening::Settled { files, bytes: 0 };
            let event = Response::Event(Event { at: UtcMs(0), what });
            let line = serde_json::to_string(&event).unwrap() + "\n{\"pau";
            stream.write_all(line.as_bytes()).unwrap();
            thread::sleep(SOON * 4);
            stream.write_all(b"sed\":true}\n").unwrap();
        }
    });
    let mut client = Client::connect(&fake.home).unwrap();
    client.send(&Request::Events).unwrap();
    for count in 0..3 {
        let event = client.next(WAIT).unwrap().unwrap();
        let is_next = |event: &Event| matches!(event.what, Happening::Settled { files, .. } if files == count);
        assert!(
            matches!(&event, Response::Event(event) if is_next(event)),
            "{event:?}"
        );
        // Half an answer is none, and is not lost.
        assert!(client.next(SOON).unwrap().is_none());
        assert_eq!(client.next(WAIT).unwrap(), Some(Response::Paused(true)));
    }
    assert!(matches!(
        client.next(WAIT),
        Err(ClientError::HungUp { midway: false })
    ));
    assert_eq!(fake.thread.join().unwrap(), "\"events\"");
}

#[test]
fn nobody_there() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::new(temp.path().to_owned());
    let check = || {
        let error = Client::ask(&home, &Request::Status, WAIT).unwrap_err();
        let told = error.into_failure(&home, "layer-sync --home h");
        assert_eq!(told.exit, exit::NOT_RUNNING);
        let text = format!("No daemon is running for {}.", home.dir().display());
        assert_eq!(told.text, text);
        told.fix
    };
    assert!(check().starts_with("make the node with `layer-sync --home h init pusher"));
    // A daemon that was killed leaves its socket.
    drop(UnixListener::bind(home.socket()).unwrap());
    assert!(home.socket().exists());
    let settings = "version = 1\nnode = { name = 'vm', root = '/r' }\nlink.peer = 'vm:1'\n";
    fs::write(home.settings_file(), settings).unwrap();
    assert_eq!(check(), "start it with `layer-sync --home h receiver`");
}

#[test]
fn a_broken_off_answer() {
    let check = |said: &'static str, text: &str| {
        let (answer, _) = Fake::new(says(said)).ask(WAIT);
        let told = failure(answer.unwrap_err());
        assert_eq!((told.exit, told.text.as_str()), (exit::ERROR, text));
        assert!(!told.fix.is_empty());
    };
    check("", "The daemon of /h hung up without an answer.");
    check(
        "{\"paused\":tr",
        "The daemon of /h hung up in the middle of its answer.",
    );
}

#[test]
fn an_answer_that_is_none() {
    for said in [
        "\n",
        "hello\n",
        "{\"sung\":true}\n",
        "{\"paused\":3}\n",
        "\u{1b}[2J\n",
    ] {
        let (answer, _) = Fake::new(says(said)).ask(WAIT);
        let told = failure(answer.unwrap_err());
        assert_eq!(told.exit, exit::ERROR);
        assert!(
            told.text
                .starts_with("The answer of the daemon of /h cannot be understood: ")
        );
        assert!(!told.text.contains('\u{1b}'));
    }
}

#[test]
fn an_answer_without_end() {
    let (answer, _) = Fake::new(|stream| {
        let piece = vec![b'x'; 1 << 20];
        // Ends when the client has had enough and hangs up.
        while stream.write_all(&piece).is_ok() {}
    })
    .ask(WAIT);
    let told = failure(answer.unwrap_err());
    assert_eq!(told.exit, exit::ERROR);
    assert_eq!(
        told.text,
        "The daemon of /h gave an answer above 16777216 bytes."
    );
}

#[test]
fn silence() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let fake = Fake::new(move |_| {
        let _ = held.recv();
    });
    let error = Client::ask(&fake.home, &Request::Status, SOON).unwrap_err();
    drop(hold);
    fake.thread.join().unwrap();
    let told = failure(error);
    assert_eq!(told.exit, exit::ERROR);
    assert_eq!(told.text, "The daemon of /h gave no answer in 50ms.");
}
