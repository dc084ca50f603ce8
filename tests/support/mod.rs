//! What the tests share.

pub mod bodies;
pub mod exchange;
pub mod log;
pub mod neighbours;
pub mod schema;
pub mod sockets;
