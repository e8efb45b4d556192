//! Interline, a language server that writes between your lines: local AI code completion, with no
//! cloud.
//!
//! The process that answers the editor owns the model's key/value cache, so a keystroke costs a
//! token or two and not a prompt. The rooms, from the top; each uses only the rooms below it, which
//! `tests/borders.rs` enforces:
//!
//! 1. **Program**: [`cli`] reads the arguments, starts an engine and runs one command.
//! 2. **Protocol**: [`server`] has the handlers. It is the edge where positions become offsets,
//!    commands become arguments, texts become items and settings become plain values.
//! 3. **Features**: [`suggest`] is the journey from a snapshot to what is shown, on one page;
//!    [`tasks`] is what the model does on request.
//! 4. **Text**: [`text`] holds the open documents in ropes. It knows what is around a cursor, the
//!    language and syntax of a text, and what is never shown to the model.
//! 5. **Engine**: [`engine`] is the handle to the one thread that owns the model: one queue, one kind
//!    of run, one loop that writes. Text goes in and comes out.
//! 6. **Model**: [`model`] is a folder with a decoder graph, a tokenizer and prompt formats.
//! 7. **Sandbox**: [`sandbox`] runs a program where it can do no harm.
//! 8. **Foundation**: [`runtime`] finds and loads ONNX Runtime; [`download`] is the one way anything
//!    is downloaded, [`verified`] remembers which files have the right hash, and [`cache_folder`] is
//!    where downloads and this record are kept.
//!
//! To follow a keystroke, start at `Server::inline_completion` in [`server`] and continue with
//! [`suggest::Completer::complete`] and [`engine::Engine::submit`]. `ARCHITECTURE.md` has the whole
//! map, this journey file by file, and the laws; `docs/decisions/` has what was tried, with figures.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failing test says where"))]

pub mod cli;

pub mod server;

pub mod suggest;
pub mod tasks;

pub mod text;

pub mod engine;

pub mod model;

pub mod sandbox;

pub mod cache_folder;
pub mod download;
pub mod runtime;
pub mod verified;
