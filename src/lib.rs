//! Interline, a language server that writes between your lines: local AI code completion, with no
//! cloud.
//!
//! The process that answers the editor owns the model's key/value cache, so a keystroke costs a
//! token or two and not a prompt. The rooms, from the top; each uses only the rooms below it, which
//! `tests/borders.rs` keeps:
//!
//! 1. **Program**: [`cli`] reads the arguments, starts an engine and runs one command.
//! 2. **Protocol**: [`server`] has the handlers; [`lsp`] is the edge where positions become offsets
//!    and texts become items.
//! 3. **Features**: [`config`] is what the user can set; [`completion`] is the journey from a
//!    snapshot to what is shown, on one page; [`task`] is what the model does on request.
//! 4. **Text**: [`document`] holds the open texts in ropes; [`context`] is what stands around a
//!    cursor, or why nothing is worth asking there; [`language`] and [`syntax`] are what a text is
//!    written in and made of.
//! 5. **Engine**: [`engine`] is the handle to the one thread that owns the model: prompt, decoder,
//!    sampler, stop criteria.
//! 6. **Model**: [`model`] is a folder with a decoder graph, a tokenizer and a prompt format.
//! 7. **Runtime**: [`runtime`] finds, fetches, verifies and loads ONNX Runtime.
//!
//! To follow a keystroke, start at `Server::inline_completion` in [`server`] and go on with
//! [`completion::Completer::complete`]. `ARCHITECTURE.md` has the whole map, the laws and what was
//! decided, with the reasons.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that fails shall say where")
)]

pub mod cli;

pub mod server;

pub mod suggest;
pub mod tasks;

pub mod sandbox;

pub mod text;

pub mod engine;

pub mod model;

pub mod runtime;

pub mod cache_folder;
pub mod download;
pub mod verified;
