//! What the tests share.

pub mod bodies;
#[cfg(feature = "data")]
pub mod data_fleet;
#[cfg(feature = "data")]
pub mod data_storm;
pub mod depot;
#[cfg(feature = "admin")]
pub mod desk;
pub mod exchange;
pub mod fault_proxy;
pub mod fleet;
pub mod log;
pub mod neighbours;
pub mod ports;
#[cfg(unix)]
pub mod program;
#[cfg(feature = "record")]
pub mod purges;
pub mod redis;
#[cfg(feature = "admin")]
pub mod schema;
pub mod shared_log;
pub mod shelf;
pub mod sockets;
pub mod storm;
pub mod traces;
pub mod traffic;
