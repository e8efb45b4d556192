//! A file or folder that is added to the store is a model with a name, and its files can be
//! verified.

use interline::model::Model;
use interline::model::import::VERSION;
use interline::model::store::Store;
use interline::model::store::origin::Origin;
use interline::model::sums;
use interline::runtime::{Runtime, RuntimeOptions};
use interline::verified::Record;

use crate::model_folder::{Dtype, ModelFolder};
use crate::served::random;

#[test]
fn a_file_that_is_added_has_a_name() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("small.gguf");
    std::fs::write(&source, random("qwen2", true).bytes().0).unwrap();
    let store = Store::at(home.path().join("models"));
    let mut said = Vec::new();
    let mut waiter = |line: &str| said.push(line.to_owned());
    let folder = store.add(&source, None, &mut waiter).unwrap();
    assert!(
        said.last().unwrap().starts_with("small is ready"),
        "{said:?}"
    );
    assert_eq!(store.get(&"small".parse().unwrap()), Some(folder.clone()));

    let origin = Origin::read(&folder).unwrap();
    assert_eq!(origin.importer, Some(VERSION));
    let checked = sums::check(&folder, &Record::in_folder(None)).unwrap();
    assert!(checked.is_some_and(|files| files > 3), "{checked:?}");
    let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
    Model::load(&folder, &mut runtime).unwrap();

    // Its name is taken, and nothing happens to it.
    let mut waiter = |_: &str| {};
    let error = store.add(&source, None, &mut waiter).unwrap_err();
    assert!(error.to_string().contains("small"), "{error}");
    assert_eq!(Origin::read(&folder), Some(origin));
}

/// The name in the store of a folder at this path.
fn check_folder(path: &str, expected: &str) {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join(path);
    ModelFolder::of(&mut random("llama", false), Dtype::F16).write(&source);
    let store = Store::at(home.path().join("models"));
    let folder = store.add(&source, None, &mut |_: &str| {}).unwrap();
    assert_eq!(store.get(&expected.parse().unwrap()), Some(folder.clone()));
    let origin = Origin::read(&folder).unwrap();
    assert_eq!((origin.importer, origin.sha256), (Some(VERSION), None));
    assert!(!folder.join("model.safetensors").exists());
    let checked = sums::check(&folder, &Record::in_folder(None)).unwrap();
    assert!(checked.is_some_and(|files| files > 3), "{checked:?}");

    // What the store has is a model folder, and is copied.
    let name = "copy".parse().unwrap();
    let copy = store.add(&folder, Some(name), &mut |_: &str| {}).unwrap();
    assert_eq!(Origin::read(&copy).unwrap().importer, None);
}

#[test]
fn a_folder_that_is_added_has_a_name() {
    check_folder("my-tune.v2", "my-tune.v2");
    check_folder("cache/models--me--My-Tune/snapshots/0123abc", "my-tune");
}
