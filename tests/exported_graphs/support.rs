//! What these tests share: exported models, in folders as publishers have them.

use std::fs;
use std::path::{Path, PathBuf};

use interline::model::Model;
use interline::runtime::{Runtime, RuntimeOptions};
use tempfile::TempDir;

pub(crate) fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/graphs")
}

/// The names of the exported models.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(samples()).unwrap();
    let folders = entries.map(|entry| entry.unwrap());
    let folders = folders.filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = folders
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A copy of an exported model, as a publisher would have it in a folder.
pub(crate) fn folder(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&samples().join(name), folder.path());
    for shared in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(samples().join(shared), folder.path().join(shared)).unwrap();
    }
    folder
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => {
                fs::copy(&path, &target).unwrap();
            }
        }
    }
}

pub(crate) fn load(folder: &Path) -> Result<Model, String> {
    let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
    Model::load(folder, &mut runtime).map_err(|error| error.to_string())
}
