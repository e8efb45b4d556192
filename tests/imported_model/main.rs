//! Tests of `interline::model::import` on files and folders that the tests write: what is served,
//! what is refused.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

mod devices;
mod gguf_file;
mod model_folder;
mod reference;
mod refused;
mod refused_folder;
mod served;
mod stored;
mod tokenized;
