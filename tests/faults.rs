//! What the fault suite is made of does what it says: real Redis servers that can be killed, stopped and started again, and a proxy that does to connections what
//! networks do. A fault that isn't one would make every test over it pass.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use support::fault_proxy::{Fault, FaultProxy};
use support::redis::{RedisServer, Reply, Setup, wait_until};

const SHORT: Duration = Duration::from_millis(150);

fn status(text: &str) -> Reply {
    Reply::Status(text.into())
}

fn bytes(text: &str) -> Reply {
    Reply::Bytes(Some(text.into()))
}

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone().expect("a second hold"), stream);
                drop(std::io::copy(&mut from, &mut to));
            });
        }
    });
    address
}

/// What comes back of `word` within `patience`.
fn said(stream: &mut TcpStream, word: &str, patience: Duration) -> String {
    drop(stream.write_all(word.as_bytes()));
    heard(stream, word.len(), patience)
}

fn heard(stream: &mut TcpStream, length: usize, patience: Duration) -> String {
    let end = Instant::now() + patience;
    let mut all = Vec::new();
    while all.len() < length {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).expect("not zero");
        let mut some = vec![0; length - all.len()];
        match stream.read(&mut some) {
            Ok(0) | Err(_) => break,
            Ok(read) => all.extend_from_slice(&some[..read]),
        }
    }
    String::from_utf8(all).expect("the tests send text")
}

fn long() -> Duration {
    Duration::from_secs(5)
}

#[test]
fn a_fault_holds_for_connections_that_there_are_and_ends() {
    // (fault, what comes of four bytes in a short time)
    let rows = [
        (Fault::Pass, "abcd"),
        (Fault::Blackhole, ""),
        (Fault::Partition, ""),
        (Fault::Latency(4 * SHORT), ""),
        (Fault::Trickle(4 * SHORT), "a"),
    ];
    for (fault, expected) in rows {
        let proxy = FaultProxy::before(echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(said(&mut stream, "first", long()), "first");
        proxy.set(fault);
        assert_eq!(said(&mut stream, "abcd", SHORT), expected, "{fault:?}");
        proxy.set(Fault::Pass);
        let rest = &"abcd"[expected.len()..];
        assert_eq!(heard(&mut stream, rest.len(), long()), rest, "what was held comes when {fault:?} is over");
    }
}

#[test]
fn latency_delays_every_answer_alike_and_does_not_add_up() {
    let proxy = FaultProxy::before(echo());
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    proxy.set(Fault::Latency(2 * SHORT));
    let begun = Instant::now();
    for word in ["a", "b", "c", "d"] {
        stream.write_all(word.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(heard(&mut stream, 4, long()), "abcd");
    let took = begun.elapsed();
    assert!(took >= 2 * SHORT && took < 6 * SHORT, "{took:?}");
}

#[test]
fn refused_and_cut_connections_break_and_partitions_hang() {
    let proxy = FaultProxy::before(echo());
    let ended = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(long())).unwrap();
        match stream.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    };
    let connected = || {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(said(&mut stream, "first", long()), "first");
        stream
    };
    let mut stream = connected();
    proxy.cut();
    assert!(ended(&mut stream), "cut");
    let mut stream = connected();
    proxy.set(Fault::Refuse);
    assert!(ended(&mut stream), "refused");
    let tried = TcpStream::connect(proxy.address()).map(drop).map_err(|error| error.kind());
    assert_eq!(tried, Err(ErrorKind::ConnectionRefused));
    proxy.set(Fault::Partition);
    let tried = TcpStream::connect_timeout(&proxy.address(), SHORT).map(drop).map_err(|error| error.kind());
    assert_eq!(tried, Err(ErrorKind::TimedOut));
    proxy.set(Fault::Pass);
    connected();
    assert!(proxy.accepted() >= 3);
}

#[test]
fn a_server_is_killed_stopped_and_started_again() {
    let Some(mut server) = Setup::default().durable().start() else { return };
    assert_eq!(server.command(&["SET", "name", "value"]), status("OK"));
    server.pause();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    assert_eq!(said(&mut stream, "PING\r\n", SHORT), "", "it stands still");
    server.resume();
    assert_eq!(heard(&mut stream, 7, long()), "+PONG\r\n");
    let first = server.info("run_id");
    server.kill();
    let tried = TcpStream::connect(server.address()).map(drop).map_err(|error| error.kind());
    assert_eq!(tried, Err(ErrorKind::ConnectionRefused));
    server.revive();
    assert_eq!(server.command(&["GET", "name"]), bytes("value"), "what is durable is there again");
    assert_ne!(server.info("run_id"), first);
}

#[test]
fn settings_users_and_replicas_are_as_wanted() {
    let setup = Setup::default().password("secret").set("maxmemory", "7mb").set("maxmemory-policy", "allkeys-lru");
    let Some(primary) = setup.user("shop", "on >other ~shop:* +get").start() else { return };
    assert!(primary.url().contains(":secret@"), "{}", primary.url());
    assert_eq!(primary.info("maxmemory"), (7 << 20).to_string());
    assert_eq!(primary.info("maxmemory_policy"), "allkeys-lru");
    let list = primary.command(&["ACL", "GETUSER", "shop"]);
    assert!(format!("{list:?}").len() > 50, "{list:?}");
    let Some(open) = RedisServer::start() else { return };
    assert_eq!(open.command(&["SET", "a", "1"]), status("OK"));
    let Some(replica) = Setup::default().replica_of(&open).start() else { return };
    replica.wait_until_synced();
    wait_until("the replica has it", || replica.command(&["GET", "a"]) == bytes("1"));
    assert!(matches!(replica.command(&["SET", "a", "2"]), Reply::Error(text) if text.starts_with("READONLY")));
    replica.promote();
    assert_eq!(replica.command(&["SET", "a", "2"]), status("OK"));
}

/// As the system does when a test is killed: its end of the pipe to the keeper is closed without a word.
#[test]
fn no_server_outlives_its_test() {
    let Some(mut dropped) = RedisServer::start() else { return };
    let Some(server) = RedisServer::start() else { return };
    let (address, id) = (server.address(), server.id());
    drop(server);
    let refused =
        |address| TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    assert!(refused(address));
    assert!(!Path::new(&format!("/proc/{id}")).exists());
    let (address, folder) = (dropped.address(), dropped.folder().to_owned());
    dropped.let_go();
    wait_until("the keeper ends it", || refused(address));
    wait_until("and removes its folder", || !folder.exists());
}
