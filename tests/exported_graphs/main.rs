//! Tests on graphs of real architectures with small random weights, as exporters write them
//! (`tests/samples/graphs/export.py`).
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

mod described;
mod refused;
mod support;
mod writes;
