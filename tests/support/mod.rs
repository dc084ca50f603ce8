//! What the tests share.

pub mod bodies;
pub mod exchange;
pub mod sockets;
