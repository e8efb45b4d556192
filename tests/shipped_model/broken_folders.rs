//! A model folder is input: whatever is wrong with it gives one clear error and no crash.

use std::fs;
use std::path::Path;

use interline::model::Model;
use interline::runtime::{Runtime, RuntimeOptions};
use tempfile::TempDir;

use crate::support;

/// A copy of the shipped folder, in which the large files are links.
fn copy() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(support::directory()).unwrap() {
        let from = entry.unwrap().path();
        let to = copy.path().join(from.file_name().unwrap());
        match fs::metadata(&from).unwrap().len() {
            // A hard link, because ONNX Runtime allows no symbolic link out of the model's folder.
            large if large > 10_000_000 => fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(|_| ()))
                .unwrap(),
            _ => drop(fs::copy(&from, &to).unwrap()),
        }
    }
    copy
}

/// Breaks a copy of the folder and checks that the error from loading it contains each of
/// `expected` and the folder's name.
fn check(breaks: impl FnOnce(&Path), expected: &[&str]) {
    let copy = copy();
    breaks(copy.path());
    let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
    let error = Model::load(copy.path(), &mut runtime)
        .unwrap_err()
        .to_string();
    for part in expected {
        assert!(error.contains(part), "{error:?} does not contain {part:?}");
    }
    assert!(
        error.contains(copy.path().to_str().unwrap()),
        "{error:?} does not name the folder"
    );
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    // A new file, because the old one may be a link to the shipped one.
    fs::remove_file(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_missing_file_is_named() {
    for file in ["model.onnx", "tokenizer.json"] {
        check(
            |folder| fs::remove_file(folder.join(file)).unwrap(),
            &[file],
        );
    }
    check(
        |folder| fs::remove_file(folder.join("model.onnx.data")).unwrap(),
        &["cannot use the graph", "model.onnx.data"],
    );
}

#[test]
fn without_a_manifest_the_other_files_tell() {
    let copy = copy();
    let named = support::model();
    fs::remove_file(copy.path().join("model.toml")).unwrap();
    let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
    let found = Model::load(copy.path(), &mut runtime).unwrap();
    assert_eq!(found.context_length, named.context_length);
    assert_eq!(found.fim.markers, named.fim.markers);
    assert_eq!(found.fim.file, named.fim.file);
    assert_eq!(found.fim.end.first(), named.fim.end.first());
    let end = |model: &Model| model.chat.as_ref().map(|chat| chat.end[0]);
    assert_eq!(end(&found), end(&named));
}

#[test]
fn a_truncated_file_is_named() {
    check(
        |folder| truncate(&folder.join("model.onnx")),
        &["cannot use the graph"],
    );
    check(
        |folder| truncate(&folder.join("model.onnx.data")),
        &["cannot use the graph", "copy the model folder again"],
    );
    check(
        |folder| truncate(&folder.join("tokenizer.json")),
        &[
            "tokenizer.json is not a tokenizer",
            "copy the model folder again",
        ],
    );
    check(
        |folder| truncate(&folder.join("config.json")),
        &["config.json"],
    );
}

#[test]
fn a_file_of_another_model_is_named() {
    let other = include_bytes!("support.rs");
    check(
        |folder| fs::write(folder.join("model.onnx"), other).unwrap(),
        &["cannot use the graph"],
    );
    check(
        |folder| {
            edit(
                &folder.join("config.json"),
                "\"head_dim\": 64",
                "\"head_dim\": \"many\"",
            )
        },
        &["config.json"],
    );
    check(
        |folder| {
            edit(
                &folder.join("config.json"),
                "\"head_dim\": 64",
                "\"head_dim\": 10000",
            )
        },
        &[
            "config.json",
            "the size of an attention head is 10000",
            "not between 1 and 1024",
        ],
    );
}

#[test]
fn a_manifest_that_is_wrong_is_named() {
    let manifest = |from: &'static str, to: &'static str| {
        move |folder: &Path| edit(&folder.join("model.toml"), from, to)
    };
    check(
        manifest("order = \"spm\"", "order = \"mps\""),
        &["model.toml is not a model manifest", "mps"],
    );
    check(
        manifest("\"model.onnx\"", "\"../model.onnx\""),
        &["which is not a file in its folder"],
    );
    check(
        manifest("\"model.onnx\"", "\"other.onnx\""),
        &["other.onnx", "is missing or not a plain file"],
    );
    check(
        manifest("\"<fim_middle>\"", "\"<fim_center>\""),
        &["<fim_center>", "not a special token"],
    );
}
