//! Ports for servers that go away and come back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what systems give to outgoing connections (32768 on Linux): while the server is down nobody else gets its port, and nobody who connects to it connects to
/// themselves.
const FIRST: u16 = 18_000;
const MANY: u16 = 12_000;

/// A port of this machine that nobody listens on just now.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Several test programs run at a time: each begins elsewhere.
    let begin = std::process::id().wrapping_mul(37);
    for _ in 0..MANY {
        let step = u32::from(NEXT.fetch_add(7, Ordering::Relaxed));
        let port = FIRST + (begin.wrapping_add(step) % u32::from(MANY)) as u16;
        if TcpListener::bind(local(port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {FIRST} and {}", FIRST + MANY);
}

/// The address of a port of this machine.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
