//! What the tests share.

pub mod bodies;
#[cfg(feature = "admin")]
pub mod desk;
pub mod exchange;
pub mod log;
pub mod neighbours;
#[cfg(feature = "admin")]
pub mod schema;
pub mod sockets;
pub mod traces;
pub mod traffic;
