//! `bot`: who may speak with it, and a word through it.

use std::io::{self, Read};

use shared::control::{BotAct, Person, Request, Response, exit};
use shared::words::plain;

use super::{Caller, print, print_json};
use crate::args::{Bot, Shown};
use crate::client::ANSWER_WAIT_MAX;
use crate::failure::Failure;
use crate::human::table;

/// Longest text that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// Does what was typed.
pub(super) fn bot(caller: &Caller, wish: Bot) -> Result<u8, Failure> {
    match wish {
        Bot::Pair(shown) => pair(caller, shown),
        Bot::Allow { user: None, shown } => people(caller, shown),
        Bot::Allow {
            user: Some(user),
            shown,
        } => decided(caller, BotAct::Allow(user), shown),
        Bot::Deny { user } => decided(caller, BotAct::Deny(user), Shown { json: false }),
        Bot::Send { text } => decided(caller, BotAct::Send(read(text)?), Shown { json: false }),
    }
}

/// Prints the code, alone on stdout.
fn pair(caller: &Caller, shown: Shown) -> Result<u8, Failure> {
    let Response::Code(code) = ask(caller, BotAct::Pair)? else {
        return Err(caller.unexpected());
    };
    if shown.json {
        print_json(&serde_json::json!({ "code": code }))?;
    } else {
        print(&format!("{code}\n"))?;
        eprintln!(
            "This code is good once, for 10 minutes and five tries.\nNext: send this to the bot in Telegram: /pair {code}"
        );
    }
    Ok(exit::DONE)
}

fn people(caller: &Caller, shown: Shown) -> Result<u8, Failure> {
    let Response::People(people) = ask(caller, BotAct::People)? else {
        return Err(caller.unexpected());
    };
    if shown.json {
        print_json(&people)?;
    } else if people.is_empty() {
        print("nobody may speak with the bot yet\n")?;
    } else {
        let rows: Vec<[String; 3]> = people.iter().map(row).collect();
        print(&table([">USER", "NAME", "MAY"], &rows))?;
    }
    Ok(exit::DONE)
}

fn row(person: &Person) -> [String; 3] {
    let may = if person.owner {
        "ask and change"
    } else {
        "ask"
    };
    [person.user.to_string(), plain(&person.name), may.to_owned()]
}

fn decided(caller: &Caller, act: BotAct, shown: Shown) -> Result<u8, Failure> {
    match ask(caller, act)? {
        Response::Decided(text) if shown.json => print_json(&serde_json::json!({ "text": text }))?,
        Response::Decided(text) => print(&format!("{text}\n"))?,
        _ => return Err(caller.unexpected()),
    }
    Ok(exit::DONE)
}

fn ask(caller: &Caller, act: BotAct) -> Result<Response, Failure> {
    caller.ask(&Request::Bot(act), ANSWER_WAIT_MAX)
}

fn read(text: String) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text);
    }
    let mut text = String::new();
    io::stdin().take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
