//! The bot as its owner meets it, and as strangers do.

use crate::harness::Talk;

#[test]
fn it_says_how_the_pair_is_in_the_words_of_the_command() {
    let talk = Talk::begin();
    let said = talk.ask("/status").text;
    println!("{said}");
    assert!(said.contains("PRIMARY"), "{said}");
}
