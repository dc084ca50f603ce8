//! larder
pub mod rfc9111;
