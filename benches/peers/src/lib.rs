//! What the servers, the runner and the measurements in process share: one handler, its contents, and every cache set up around it.

pub mod content;
pub mod handler;
pub mod in_process;
pub mod setup;
pub mod subjects;
