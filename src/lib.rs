//! Interline, a language server that writes between your lines: local AI code completion, with no
//! cloud.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that fails shall say where")
)]

pub mod cli;
pub mod config;

pub mod lsp;
pub mod server;

pub mod completion;

pub mod context;
pub mod document;

pub mod engine;

pub mod model;

pub mod runtime;
