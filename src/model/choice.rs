//! Which model folder the user means.

use std::path::{Path, PathBuf};

use super::catalogue::{Catalogue, DEFAULT};
use super::default_directory;
use super::store::name::{self, Name};
use super::store::{Store, StoreError};

/// The model folder that the user means by a name or a path, or the default. A name is that of a
/// model in the store or in the catalogue. Anything else is a path: what has a separator in it, or
/// a folder that exists.
///
/// A name comes first, so that a folder in an editor's workspace cannot take a model's place.
///
/// # Errors
///
/// See [`ChoiceError`].
pub fn folder(given: Option<&Path>) -> Result<PathBuf, ChoiceError> {
    let default = || default_directory().ok_or(ChoiceError::NoDefault);
    match given {
        None => default(),
        Some(given) if given == Path::new(DEFAULT) => default(),
        Some(given) => in_store(&Store::of_user()?, given),
    }
}

/// The folder of the model that has this name: the default, or a model in the store.
///
/// # Errors
///
/// See [`ChoiceError`].
pub fn named(store: &Store, name: &Name) -> Result<PathBuf, ChoiceError> {
    match name.as_str() {
        DEFAULT => folder(None),
        name => by_name(store, name),
    }
}

fn in_store(store: &Store, given: &Path) -> Result<PathBuf, ChoiceError> {
    let text = given.to_string_lossy();
    if text.contains(std::path::is_separator) {
        return Ok(given.to_path_buf());
    }
    match by_name(store, &text) {
        Err(ChoiceError::Unknown { .. }) if given.exists() => Ok(given.to_path_buf()),
        found => found,
    }
}

fn by_name(store: &Store, text: &str) -> Result<PathBuf, ChoiceError> {
    let name = text.parse::<Name>().ok();
    if let Some(folder) = name.as_ref().and_then(|name| store.get(name)) {
        return Ok(folder);
    }
    Err(match Catalogue::embedded().get(text) {
        Some(_) => ChoiceError::NotPulled(text.to_owned()),
        None => ChoiceError::Unknown {
            name: text.to_owned(),
            names: store.names(),
        },
    })
}

/// Why there is no model folder.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// There is none beside the program.
    #[error(
        "the model that comes with Interline is not where it was installed; name another one with \
         --model or in the setting `model`"
    )]
    NoDefault,
    /// It is in the catalogue but not here.
    #[error("the model {0} is not here yet; run `interline model pull {0}`")]
    NotPulled(String),
    /// There is no such model.
    #[error(
        "there is no model {name:?} here; there are {DEFAULT}{}; to get another one, run \
         `interline model pull NAME` with a NAME from `interline model list`, and to use a folder, \
         give its whole path",
        if names.is_empty() { String::new() } else { format!(", {}", name::list(names)) }
    )]
    Unknown {
        /// What the user named.
        name: String,
        /// What is in the store.
        names: Vec<Name>,
    },
    /// There is no store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// What this means when the store has a model `mine` and the current folder is the package's.
    fn check(given: &str, expected: Expect) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("mine")).unwrap();
        let store = Store::at(home.path().to_path_buf());
        let shown = match in_store(&store, Path::new(given)) {
            Ok(folder) => folder.display().to_string(),
            Err(error) => error.to_string(),
        };
        let shown = shown.replace(home.path().to_str().unwrap(), "STORE");
        expected.assert_eq(&shown.replace('\\', "/"));
    }

    #[test]
    fn a_name_is_in_the_store_and_a_path_has_a_separator() {
        check("mine", expect!["STORE/mine"]);
        check("./mine", expect!["./mine"]);
        check("/a/b", expect!["/a/b"]);
        check("src", expect!["src"]);
        check("..", expect![".."]);
        check(
            "qwen2.5-coder-0.5b",
            expect![
                "the model qwen2.5-coder-0.5b is not here yet; run `interline model pull qwen2.5-coder-0.5b`"
            ],
        );
        check(
            "other",
            expect![[
                r#"there is no model "other" here; there are smollm2-135m-fim, mine; to get another one, run `interline model pull NAME` with a NAME from `interline model list`, and to use a folder, give its whole path"#
            ]],
        );
    }

    #[test]
    fn the_default_has_a_name() {
        let default = default_directory().unwrap();
        assert_eq!(folder(None).unwrap(), default);
        assert_eq!(folder(Some(Path::new(DEFAULT))).unwrap(), default);
    }
}
