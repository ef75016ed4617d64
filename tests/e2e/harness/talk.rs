//! A pair with a bot, the server that it talks to, and its owner.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::{BotApi, Node, Pair, SOON, Said, wait, wait_until};

/// The number of the owner.
pub(crate) const OWNER: i64 = 4711;

/// A pair that runs, with a bot whose owner is paired.
pub(crate) struct Talk {
    // The daemons end before the server does.
    pub(crate) pair: Pair,
    pub(crate) api: BotApi,
}

impl Talk {
    /// Makes a pair, gives it a bot, pairs the owner.
    #[track_caller]
    pub(crate) fn begin() -> Self {
        Self::with(Pair::joined())
    }

    /// The same with a pair that is joined, and whose receiver does not run yet.
    #[track_caller]
    pub(crate) fn with(mut pair: Pair) -> Self {
        let api = BotApi::start();
        for node in pair.nodes() {
            give_bot(node, &api.url(), &api.token());
        }
        pair.pusher.stop();
        pair.pusher.start();
        pair.receiver.start();
        pair.meet();
        let this = Self { pair, api };
        this.pair_owner();
        this
    }

    #[track_caller]
    fn pair_owner(&self) {
        let code = self.pair.receiver.ask(["bot", "pair"]).exits(0).stdout;
        // The code was made on the standby, and has to get to the primary first.
        self.pair.flush();
        let asked = self.api.says(OWNER, &format!("/pair {}", code.trim()));
        let said = self.answer(asked);
        assert!(said.text.contains("You are the owner now"), "{said:?}");
    }

    /// Writes as the owner, and returns the answer.
    #[track_caller]
    pub(crate) fn ask(&self, text: &str) -> Said {
        let asked = self.api.says(OWNER, text);
        self.answer(asked)
    }

    /// Returns the last answer to a message of the owner, once there is one.
    #[track_caller]
    pub(crate) fn answer(&self, asked: i64) -> Said {
        wait("the bot answers", SOON, || {
            let chat = self.api.chat(OWNER);
            chat.into_iter().rfind(|said| said.reply_to == Some(asked))
        })
    }

    /// Waits until the bot has said something, without being asked, that has all these words in it.
    #[track_caller]
    pub(crate) fn hears(&self, words: &[&str]) -> Said {
        wait(&format!("the owner hears {words:?}"), SOON, || {
            let chat = self.api.chat(OWNER);
            chat.into_iter()
                .rfind(|said| words.iter().all(|word| said.text.contains(word)))
        })
    }

    /// Waits until a node's bot is at work.
    #[track_caller]
    pub(crate) fn is_at_work(&self, node: &Node) {
        wait_until("the bot is at work", SOON, || {
            node.status()["bot"]["state"] == "polling"
        });
    }
}

/// Gives a node its bot, as a person with an editor does.
pub(crate) fn give_bot(node: &Node, api: &str, token: &str) {
    node.set(
        "api = \"https://api.telegram.org\"",
        &format!("api = \"{api}\""),
    );
    set_token(node, token);
}

/// Writes the token of a node.
pub(crate) fn set_token(node: &Node, token: &str) {
    let file = node.home.join(".env");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .unwrap();
    writeln!(file, "TELEGRAM_BOT_TOKEN={token}").unwrap();
}
