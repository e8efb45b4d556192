//! What these tests share: the shipped model.

use std::path::{Path, PathBuf};

use interline::model::Model;
use interline::runtime::{Runtime, RuntimeOptions};

/// The shipped model's folder.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2-135m-fim")
}

/// The shipped model, loaded as the program loads it.
pub(crate) fn model() -> Model {
    let mut progress = |line: &str| eprintln!("{line}");
    let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut progress).unwrap();
    Model::load(&directory(), &mut runtime).unwrap()
}
