//! Interline, a language server that writes between your lines: local code completion, with no cloud.
//!
//! This far the crate holds the text room: [`document`] keeps the editor's buffers, and
//! [`lsp::position`] converts their positions at the protocol's edge.
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

pub mod lsp;

pub mod document;
