//! Tests of `interline::model::import` on files that the tests write: what is served, what is
//! refused.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

mod devices;
mod gguf_file;
mod reference;
mod refused;
mod served;
mod stored;
mod tokenized;
