//! The relay between two sockets.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::super::{SOON, wait_until};
use super::{CLIENTS_MAX, Relay, Way};

/// A datagram that says that nothing comes before it any more.
const END: u32 = u32::MAX;
/// Long enough for what is not lost, on this machine, to arrive.
const QUIET: Duration = Duration::from_millis(300);

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn addr(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

fn send(from: &UdpSocket, to: SocketAddr, number: u32) {
    from.send_to(&number.to_le_bytes(), to).unwrap();
}

#[track_caller]
fn receive(at: &UdpSocket) -> (u32, SocketAddr) {
    let mut buffer = [0; 4];
    let (bytes, from) = at.recv_from(&mut buffer).unwrap();
    assert_eq!(bytes, 4);
    (u32::from_le_bytes(buffer), from)
}

/// Returns all that arrives until the end.
fn receive_all(at: &UdpSocket) -> Vec<u32> {
    std::iter::repeat_with(|| receive(at).0)
        .take_while(|number| *number != END)
        .collect()
}

#[track_caller]
fn is_quiet(at: &UdpSocket) {
    at.set_read_timeout(Some(QUIET)).unwrap();
    let error = at.recv_from(&mut [0; 4]).unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    at.set_read_timeout(Some(SOON)).unwrap();
}

#[test]
fn both_ways_are_straight() {
    let (client, target) = (socket(), socket());
    let relay = Relay::start(addr(&target));
    for number in 0..100 {
        send(&client, relay.addr(), number);
        let (heard, from) = receive(&target);
        send(&target, from, heard + 1);
        assert_eq!(receive(&client), (number + 1, relay.addr()));
    }
}

#[test]
fn each_client_has_an_answer_of_its_own() {
    let (first, second, target) = (socket(), socket(), socket());
    let relay = Relay::start(addr(&target));
    send(&first, relay.addr(), 1);
    let (_, to_first) = receive(&target);
    send(&second, relay.addr(), 2);
    let (_, to_second) = receive(&target);
    assert_ne!(to_first, to_second);
    send(&target, to_second, 20);
    send(&target, to_first, 10);
    assert_eq!([receive(&first).0, receive(&second).0], [10, 20]);
}

#[test]
fn nothing_passes_a_cut() {
    let (client, target) = (socket(), socket());
    let relay = Relay::start(addr(&target));
    send(&client, relay.addr(), 1);
    let (_, back) = receive(&target);
    relay.set(Way {
        delay: SOON,
        ..Way::default()
    });
    // What is on its way is lost too.
    send(&client, relay.addr(), 2);
    let on_the_way = || relay.shared.lock().on_the_way.len();
    wait_until("it is on its way", SOON, || on_the_way() == 1);
    relay.cut();
    assert_eq!(on_the_way(), 0);
    relay.set(Way::default());
    send(&client, relay.addr(), 3);
    send(&target, back, 4);
    is_quiet(&target);
    is_quiet(&client);
    relay.mend();
    send(&client, relay.addr(), 5);
    assert_eq!(receive(&target), (5, back));
    send(&target, back, 6);
    assert_eq!(receive(&client).0, 6);
}

#[test]
fn a_delay_keeps_the_order() {
    let (client, target) = (socket(), socket());
    let relay = Relay::start(addr(&target));
    let delay = Duration::from_millis(200);
    relay.set(Way {
        delay,
        ..Way::default()
    });
    let begun = Instant::now();
    for number in (0..50).chain([END]) {
        send(&client, relay.addr(), number);
    }
    let (first, _) = receive(&target);
    assert!(begun.elapsed() >= delay);
    assert_eq!(first, 0);
    assert_eq!(receive_all(&target), Vec::from_iter(1..50));
}

#[test]
fn jitter_adds_to_the_delay() {
    let (client, target) = (socket(), socket());
    let relay = Relay::start(addr(&target));
    relay.set(Way {
        jitter: Duration::from_millis(100),
        ..Way::default()
    });
    for number in 0..50 {
        send(&client, relay.addr(), number);
    }
    let mut found: Vec<u32> = (0..50).map(|_| receive(&target).0).collect();
    assert!(!found.is_sorted(), "{found:?}");
    found.sort_unstable();
    assert_eq!(found, Vec::from_iter(0..50));
}

#[test]
fn some_are_lost() {
    let (client, target) = (socket(), socket());
    let relay = Relay::start(addr(&target));
    let lose = |loss_percent| {
        relay.set(Way {
            loss_percent,
            ..Way::default()
        });
    };
    lose(100);
    send(&client, relay.addr(), 1);
    is_quiet(&target);
    lose(50);
    // Not all of the ends are lost.
    for number in (0..100).chain([END; 50]) {
        send(&client, relay.addr(), number);
    }
    let found = receive_all(&target);
    assert!((30..70).contains(&found.len()), "{found:?}");
    assert!(found.is_sorted());
}

#[test]
fn some_are_overtaken() {
    let (client, target) = (socket(), socket());
    let relay = Relay::start(addr(&target));
    relay.set(Way {
        reorder_percent: 30,
        ..Way::default()
    });
    for number in 0..50 {
        send(&client, relay.addr(), number);
    }
    let mut found: Vec<u32> = (0..50).map(|_| receive(&target).0).collect();
    assert!(!found.is_sorted(), "{found:?}");
    found.sort_unstable();
    assert_eq!(found, Vec::from_iter(0..50));
}

#[test]
fn the_target_may_move() {
    let (client, first, second) = (socket(), socket(), socket());
    let relay = Relay::start(addr(&first));
    send(&client, relay.addr(), 1);
    assert_eq!(receive(&first).0, 1);
    relay.target(addr(&second));
    send(&client, relay.addr(), 2);
    let (number, back) = receive(&second);
    assert_eq!(number, 2);
    send(&second, back, 3);
    assert_eq!(receive(&client).0, 3);
}

#[test]
fn clients_come_and_go() {
    let target = socket();
    let relay = Relay::start(addr(&target));
    let clients: Vec<UdpSocket> = (0..=CLIENTS_MAX).map(|_| socket()).collect();
    let mut backs = Vec::new();
    for client in &clients {
        send(client, relay.addr(), 1);
        backs.push(receive(&target).1);
    }
    assert_eq!(relay.shared.lock().clients.len(), CLIENTS_MAX);
    // The first was silent longest; it has a new socket when it comes back.
    send(&clients[0], relay.addr(), 2);
    assert_ne!(receive(&target).1, backs[0]);
    send(&clients[CLIENTS_MAX], relay.addr(), 2);
    assert_eq!(receive(&target).1, backs[CLIENTS_MAX]);
}

#[test]
fn it_is_gone_when_it_is_dropped() {
    let (client, target) = (socket(), socket());
    let relay = Relay::start(addr(&target));
    let addr = relay.addr();
    send(&client, addr, 1);
    receive(&target);
    drop(relay);
    drop(UdpSocket::bind(addr).unwrap());
}
