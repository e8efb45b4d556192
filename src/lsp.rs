//! The edge of the Language Server Protocol: what of it is not text, not features and not a handler.
pub mod position;
