//! Tests on the model that comes with Interline, run by ONNX Runtime.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

mod auto_closed;
mod broken_folders;
mod broken_libraries;
mod key_value_cache;
mod privacy;
mod providers;
mod server;
mod support;
mod tasks;
