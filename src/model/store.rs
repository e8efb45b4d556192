//! The store: a folder with the models that the user has pulled or added.
//!
//! ```text
//! models/
//!   NAME/          a model folder, with the record of where it came from
//!   .in-use        the name of the model that the user has chosen
//!   .work/NAME/    what an unfinished pull has so far; the next one continues it
//!   .locks/NAME    locked by the process that changes NAME or .work/NAME
//! ```
//!
//! A model is made in `.work` and appears under its name by one rename, so that half a model is
//! never seen, whenever the process ends.

pub mod add;
mod in_use;
pub mod name;
pub mod origin;
pub mod pull;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::import::Progress;
use super::{plain_file, sums};
use crate::download::Waiter;
use name::Name;
use origin::Origin;

/// A store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The user's store: the folder that `INTERLINE_MODELS_DIR` names, else `models` in the user's
    /// data folder for this program (`~/.local/share/interline/models` on Linux). It need not
    /// exist.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoHome`].
    pub fn of_user() -> Result<Self, StoreError> {
        let named = std::env::var_os("INTERLINE_MODELS_DIR").filter(|value| !value.is_empty());
        let usual = || {
            directories::ProjectDirs::from("", "", "interline")
                .map(|directories| directories.data_dir().join("models"))
        };
        let folder = named.map(PathBuf::from).or_else(usual);
        let folder = folder.and_then(|folder| std::path::absolute(folder).ok());
        folder.map(Self::at).ok_or(StoreError::NoHome)
    }

    /// The store in this folder, which need not exist.
    #[must_use]
    pub const fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// The names of the models in it, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        let names = folders.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut names: Vec<Name> = names.collect();
        names.sort();
        names
    }

    /// The folder of a model that is here.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<PathBuf> {
        let folder = self.folder.join(name.as_str());
        folder.is_dir().then_some(folder)
    }

    /// The bytes that an unfinished pull of a model has so far.
    #[must_use]
    pub fn unfinished(&self, name: &Name) -> u64 {
        size(&self.work(name))
    }

    /// Removes a model, or what an unfinished pull of it has so far.
    ///
    /// # Errors
    ///
    /// When there is neither, when the model is in use, and when the files cannot be removed.
    pub fn remove(&self, name: &Name, waiter: &mut dyn Waiter) -> Result<(), StoreError> {
        let (folder, work) = (self.folder.join(name.as_str()), self.work(name));
        if !folder.is_dir() && !work.is_dir() {
            return Err(self.missing(name));
        }
        if folder.is_dir() && self.in_use().is_ok_and(|used| used.as_ref() == Some(name)) {
            return Err(StoreError::Used(name.clone()));
        }
        let at_work = self.enter(name, waiter)?;
        if folder.is_dir() {
            let removed = at_work.folder.join("removed");
            clear(&removed)?;
            fs::rename(&folder, removed).map_err(failed("remove", &folder))?;
        }
        at_work.leave()
    }

    /// The error for a model that is not in the store.
    #[must_use]
    pub fn missing(&self, name: &Name) -> StoreError {
        StoreError::Missing {
            name: name.clone(),
            names: self.names(),
        }
    }

    fn work(&self, name: &Name) -> PathBuf {
        self.folder.join(".work").join(name.as_str())
    }

    /// Waits until no other process changes the model, and keeps others away until the result is
    /// dropped.
    fn enter(&self, name: &Name, waiter: &mut dyn Waiter) -> Result<AtWork, StoreError> {
        let locks = self.folder.join(".locks");
        fs::create_dir_all(&locks).map_err(failed("create", &locks))?;
        let path = locks.join(name.as_str());
        // It is never removed: two processes would lock two files of the same name.
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("write", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiter.say(&format!(
                    "waiting for another interline that changes {name}"
                ));
                lock.lock().map_err(failed("lock", &path))?;
            }
            // Some network file systems have no locks; one process at a time needs none.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        let folder = self.work(name);
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        Ok(AtWork {
            folder,
            target: self.folder.join(name.as_str()),
            _lock: lock,
        })
    }
}

/// The right to change a model, and the folder to work in.
struct AtWork {
    folder: PathBuf,
    /// Where the model goes.
    target: PathBuf,
    _lock: File,
}

impl AtWork {
    /// An empty folder to make the model in.
    fn new_model(&self) -> Result<PathBuf, StoreError> {
        let model = self.folder.join("model");
        clear(&model)?;
        fs::create_dir(&model).map_err(failed("create", &model))?;
        Ok(model)
    }

    /// Puts the model that was made in [`new_model`](Self::new_model) in its place, and replaces one
    /// that is there. Returns its folder.
    fn finish(self, origin: &Origin) -> Result<PathBuf, StoreError> {
        let model = self.folder.join("model");
        origin.write(&model).map_err(failed("write to", &model))?;
        sums::write(&model).map_err(failed("write to", &model))?;
        let target = self.target.clone();
        if target.is_dir() {
            let old = self.folder.join("removed");
            clear(&old)?;
            fs::rename(&target, old).map_err(failed("replace", &target))?;
        }
        fs::rename(&model, &target).map_err(failed("create", &target))?;
        self.leave()?;
        Ok(target)
    }

    /// Removes the model that could not be made, but not what was downloaded for it.
    fn give_up(self) -> Result<(), StoreError> {
        clear(&self.folder.join("model"))?;
        // Unless it is empty, it stays.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    /// Removes all that is left of the work.
    fn leave(self) -> Result<(), StoreError> {
        clear(&self.folder)
    }
}

/// Removes a folder if it is there.
fn clear(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_path_buf();
    move |problem| StoreError::Write {
        action,
        path,
        problem,
    }
}

/// The bytes of all files in a folder and in the folders in it.
#[must_use]
pub fn size(folder: &Path) -> u64 {
    let files = plain_file::list(folder).into_iter().flatten();
    let metadata = files.map(|file| fs::metadata(folder.join(file)));
    metadata.flatten().map(|metadata| metadata.len()).sum()
}

/// Tells a waiter how far an import is.
fn reporting(waiter: &mut dyn Waiter) -> impl FnMut(Progress) {
    move |progress: Progress| waiter.progress(progress.done, progress.total)
}

/// Why the store does not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no place for it.
    #[error("this user has no data folder; set INTERLINE_MODELS_DIR to a folder for models")]
    NoHome,
    /// It has no such model.
    #[error(
        "there is no model {name} in the store; it has {}",
        if names.is_empty() { "none".to_owned() } else { name::list(names) }
    )]
    Missing {
        /// The model.
        name: Name,
        /// The models it has.
        names: Vec<Name>,
    },
    /// The model that is to be removed is in use.
    #[error("{0} is in use; choose another model with `interline model use`, and then remove it")]
    Used(Name),
    /// It does not tell which model is in use.
    #[error(
        "cannot tell from {path} which model is in use: {problem}; run `interline model use NAME`"
    )]
    InUse {
        /// The file with the user's choice.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or folder of it cannot be changed.
    #[error(
        "cannot {action} {path}: {problem}; make it writable, or set INTERLINE_MODELS_DIR to \
         another folder"
    )]
    Write {
        /// What failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
}

#[cfg(test)]
mod tests;
