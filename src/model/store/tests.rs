use std::path::Path;

use expect_test::{Expect, expect};
use tempfile::TempDir;

use super::add::AddError;
use super::*;
use crate::verified::Record;

/// A store, and a model folder.
struct Home {
    folder: TempDir,
    store: Store,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("Mine");
        fs::create_dir(&model).unwrap();
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/graphs");
        let files = [
            "tokenizer.json",
            "llama/config.json",
            "llama/onnx/model.onnx",
        ];
        for file in files.map(|file| samples.join(file)) {
            fs::copy(&file, model.join(file.file_name().unwrap())).unwrap();
        }
        let store = Store::at(folder.path().join("models"));
        Self { folder, store }
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("Mine")
    }

    fn add(&self, path: &Path, name: Option<&str>) -> Result<PathBuf, AddError> {
        let name = name.map(|name| name.parse().unwrap());
        self.store.add(path, name, &mut |_: &str| {})
    }

    /// The models, and what is left of unfinished work.
    fn state(&self) -> (Vec<String>, usize) {
        let names = self.store.names().iter().map(Name::to_string).collect();
        let work = fs::read_dir(self.store.path().join(".work"));
        (names, work.into_iter().flatten().count())
    }

    fn check_error(&self, error: impl ToString, expected: Expect) {
        let home = self.folder.path().to_str().unwrap();
        expected.assert_eq(&error.to_string().replace(home, "HOME"));
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[test]
fn a_folder_is_added_verified_and_removed() {
    let home = Home::new();
    assert_eq!(home.state(), (vec![], 0));
    let folder = home.add(&home.model(), None).unwrap();
    assert_eq!(folder, home.store.get(&name("mine")).unwrap());
    assert_eq!(home.state(), (vec!["mine".to_owned()], 0));
    let origin = Origin::read(&folder).unwrap();
    assert_eq!((origin.sha256, origin.importer), (None, None));

    let verify = || sums::check(&folder, &Record::in_folder(None));
    // The record is one of the four.
    assert_eq!(verify().unwrap(), Some(4));
    // A model of the store may be added by another name, with another record.
    let again = home.add(&folder, Some("again")).unwrap();
    let verified = sums::check(&again, &Record::in_folder(None));
    assert_eq!(verified.unwrap(), Some(4));
    home.store
        .remove(&name("again"), &mut |_: &str| {})
        .unwrap();
    fs::write(folder.join("model.onnx"), "A graph").unwrap();
    assert!(verify().is_err());

    home.check_error(
        home.add(&home.model(), None).unwrap_err(),
        expect!["the store has a model mine; remove it with `interline model remove mine`, or give this one another name with --name"],
    );
    home.add(&home.model(), Some("other")).unwrap();
    home.store.remove(&name("mine"), &mut |_: &str| {}).unwrap();
    assert_eq!(home.state(), (vec!["other".to_owned()], 0));
    home.check_error(
        home.store
            .remove(&name("mine"), &mut |_: &str| {})
            .unwrap_err(),
        expect!["there is no model mine in the store; it has other"],
    );
}

#[test]
fn what_is_not_a_model_is_not_added() {
    let home = Home::new();
    home.check_error(
        home.add(&home.folder.path().join("none"), None)
            .unwrap_err(),
        expect!["HOME/none is neither a model folder nor a file; name one of these"],
    );
    let odd = home.folder.path().join("…");
    fs::create_dir(&odd).unwrap();
    home.check_error(
        home.add(&odd, None).unwrap_err(),
        expect![[r#""…" is not a name for a model; use up to 100 lower-case letters, digits, dots, hyphens and underscores, beginning with a letter or digit; give it one with --name"#]],
    );
    assert!(home.add(&odd, Some("odd")).is_err());
    fs::write(
        home.model().join(sums::FILE_NAME),
        format!("{}  model.onnx\n", "0".repeat(64)),
    )
    .unwrap();
    let error = home.add(&home.model(), None).unwrap_err();
    assert!(matches!(error, AddError::Sums(_)), "{error}");
    let text = home.folder.path().join("a.gguf");
    fs::write(&text, "not a model").unwrap();
    let error = home.add(&text, None).unwrap_err();
    assert!(matches!(error, AddError::Import(_)), "{error}");
    assert_eq!(home.state().0, Vec::<String>::new());
}

#[test]
fn only_folders_with_names_are_models() {
    let home = Home::new();
    for folder in ["good", ".hidden", "Upper", "a b"] {
        fs::create_dir_all(home.store.path().join(folder)).unwrap();
    }
    fs::write(home.store.path().join("file"), "").unwrap();
    assert_eq!(home.state().0, ["good"]);
}

#[test]
fn a_new_model_replaces_an_old_one_in_one_step() {
    let home = Home::new();
    let origin = Origin {
        source: "a test".to_owned(),
        sha256: None,
        importer: None,
    };
    for content in ["old", "new"] {
        let at_work = home.store.enter(&name("a"), &mut |_: &str| {}).unwrap();
        let model = at_work.new_model().unwrap();
        fs::write(model.join("weights"), content).unwrap();
        let folder = at_work.finish(&origin).unwrap();
        assert_eq!(fs::read_to_string(folder.join("weights")).unwrap(), content);
        assert!(folder.join(sums::FILE_NAME).is_file());
    }
    assert_eq!(home.state(), (vec!["a".to_owned()], 0));
}
