//! The edge of the Language Server Protocol: what of it is no handler.

pub mod capabilities;
pub mod client;
pub mod client_process;
pub mod inline_completion;
pub mod messages;
pub mod position;
pub mod status;
pub mod task;
