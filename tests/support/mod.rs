//! What the tests share.

pub mod bodies;
pub mod sockets;
