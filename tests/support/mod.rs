//! What the integration tests share: the shipped model.

use std::path::Path;

use interline::model::Model;
use interline::model::onnx::OnnxLm;
use interline::runtime::{Runtime, RuntimeOptions};

/// The shipped model, loaded as the program loads it.
pub fn model() -> Model<OnnxLm> {
    let mut runtime =
        Runtime::load(&RuntimeOptions::default(), &mut |line| eprintln!("{line}")).unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2-135m-fim");
    Model::load(&directory, &mut runtime).unwrap()
}
