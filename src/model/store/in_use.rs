//! The model that the user has chosen: its name in the file `.in-use`, or no such file for the model
//! that comes with Interline.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use super::name::Name;
use super::{Store, StoreError, failed};
use crate::model::catalogue::DEFAULT;
use crate::model::plain_file::{self, PlainFileError};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 1024;

impl Store {
    /// The name of the model in use. `None` is the model that comes with Interline. The model may be
    /// gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`].
    pub fn in_use(&self) -> Result<Option<Name>, StoreError> {
        let path = self.choice();
        let unreadable = |problem: String| StoreError::InUse {
            path: path.clone(),
            problem,
        };
        match plain_file::read_text(&path, MAX_BYTES) {
            Err(PlainFileError::System(error)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(unreadable(error.to_string())),
            Ok(text) => match text.trim_end().parse() {
                Ok(name) => Ok(Some(name)),
                Err(error) => Err(unreadable(format!("{error}"))),
            },
        }
    }

    /// When the user last chose a model, if it is known. With [`in_use`](Self::in_use) it tells
    /// whether the user has chosen again.
    #[must_use]
    pub fn chosen_at(&self) -> Option<SystemTime> {
        fs::metadata(self.choice())
            .and_then(|it| it.modified())
            .ok()
    }

    /// Takes a model into use. The name of the default is the same as none.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn take_into_use(&self, name: &Name) -> Result<(), StoreError> {
        let path = self.choice();
        if name.as_str() == DEFAULT {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("remove", &path)(error))
                }
                _ => Ok(()),
            };
        }
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut new = tempfile::NamedTempFile::new_in(&self.folder)?;
            writeln!(new, "{name}")?;
            new.as_file().sync_all()?;
            new.persist(&path)?;
            Ok(())
        };
        write().map_err(failed("write", &path))
    }

    fn choice(&self) -> PathBuf {
        self.folder.join(".in-use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path().join("models"));
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert_eq!(store.in_use().unwrap(), None);
        assert_eq!(store.chosen_at(), None);
        store.take_into_use(&name(DEFAULT)).unwrap();
        for chosen in ["a", "b"] {
            store.take_into_use(&name(chosen)).unwrap();
            assert_eq!(store.in_use().unwrap(), Some(name(chosen)));
            assert!(store.chosen_at().is_some());
        }
        assert_eq!(store.names(), []);
        store.take_into_use(&name(DEFAULT)).unwrap();
        assert_eq!(store.in_use().unwrap(), None);
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_names_no_model_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path().to_path_buf());
        for (content, expected) in [
            (&b""[..], "\"\" is not a name for a model"),
            (b"../a\n", "\"../a\" is not a name for a model"),
            (b"\xff", "it is not UTF-8 text"),
            (&[b'a'; 2000], "it is larger than 1024 bytes"),
        ] {
            fs::write(store.choice(), content).unwrap();
            let error = store.in_use().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("interline model use"), "{error}");
        }
    }
}
