//! What trials have found, in `trials.json` in the user's cache folder.
//!
//! A file that is missing, damaged or cannot be written only costs time. An outcome is found again
//! when the model, a library or the provider is another one, and after a while, since nothing tells
//! of a new driver.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Trial;
use crate::model::manifest::Manifest;
use crate::runtime::provider::Provider;

/// How long it is known that a device works.
const WORKS_FOR: Duration = Duration::from_hours(30 * 24);

/// How long it is known that a device does not work: shorter, since the user may mend it.
const FAILS_FOR: Duration = Duration::from_hours(24);

/// No more of the file is read.
const MAX_BYTES: u64 = 1 << 20;

/// What a trial was made of: the provider, and files with their sizes and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn new(
        provider: Provider,
        model: &Path,
        library: &Path,
        plugin: Option<&Path>,
    ) -> Self {
        let graph = Manifest::read(model).map_or_else(
            |_| model.to_path_buf(),
            |manifest| model.join(manifest.graph),
        );
        let mut key = provider.to_string();
        for file in [Some(graph.as_path()), Some(library), plugin]
            .into_iter()
            .flatten()
        {
            let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
            let metadata = fs::metadata(&file).ok();
            let size = metadata.as_ref().map_or(0, fs::Metadata::len);
            let modified = metadata.and_then(|metadata| metadata.modified().ok());
            let modified = modified.map_or(0, since_1970);
            let _ = write!(key, "; {}, {size} bytes of {modified}", file.display());
        }
        Self(key)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// In seconds since 1970.
    found: u64,
    outcome: Result<Trial, String>,
}

impl Entry {
    fn is_known(&self, now: u64) -> bool {
        let known_for = match self.outcome {
            Ok(_) => WORKS_FOR,
            Err(_) => FAILS_FOR,
        };
        now.checked_sub(self.found)
            .is_some_and(|age| age < known_for.as_secs())
    }
}

/// The outcomes of trials.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    path: Option<PathBuf>,
}

impl Memory {
    /// The memory in a cache folder, which need not exist. Without a folder nothing is remembered.
    pub(super) fn in_folder(folder: Option<&Path>) -> Self {
        let path = folder.map(|folder| folder.join("trials.json"));
        Self { path }
    }

    /// The outcome of a trial that was made not too long ago.
    pub(super) fn get(&self, key: &Key) -> Option<Result<Trial, String>> {
        let now = since_1970(SystemTime::now());
        let entry = self.read().remove(&key.0)?;
        entry.is_known(now).then_some(entry.outcome)
    }

    /// Remembers the outcome of a trial, and forgets those that are too old.
    pub(super) fn add(&self, key: &Key, outcome: &Result<Trial, String>) {
        let now = since_1970(SystemTime::now());
        let mut entries = self.read();
        entries.retain(|_, entry| entry.is_known(now));
        let entry = Entry {
            found: now,
            outcome: outcome.clone(),
        };
        entries.insert(key.0.clone(), entry);
        if let Err(error) = self.write(&entries) {
            tracing::debug!(%error, "cannot write the outcomes of trials");
        }
    }

    /// Forgets all outcomes.
    pub(super) fn forget(&self) {
        // If there is no file, nothing is remembered.
        let _ = self.path.as_deref().map(fs::remove_file);
    }

    fn read(&self) -> BTreeMap<String, Entry> {
        let opened = self.path.as_deref().map(File::open);
        let Some(Ok(file)) = opened else {
            return BTreeMap::new();
        };
        let mut text = String::new();
        let read = file.take(MAX_BYTES).read_to_string(&mut text);
        let entries = read.ok().and_then(|_| serde_json::from_str(&text).ok());
        entries.unwrap_or_default()
    }

    fn write(&self, entries: &BTreeMap<String, Entry>) -> io::Result<()> {
        let folder = self.path.as_deref().and_then(Path::parent);
        let (Some(path), Some(folder)) = (&self.path, folder) else {
            return Ok(());
        };
        fs::create_dir_all(folder)?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(serde_json::to_string_pretty(entries)?.as_bytes())?;
        new.persist(path)?;
        Ok(())
    }
}

fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: Trial = Trial {
        difference: 0.02,
        cpu: 100.0,
        device: 50.0,
    };

    #[test]
    fn an_outcome_is_remembered_for_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::in_folder(Some(folder.path()));
        let (model, library) = (folder.path().join("model"), folder.path().join("library"));
        fs::write(&library, "one").unwrap();
        let key = || Key::new(Provider::Webgpu, &model, &library, None);
        let first = key();
        assert_eq!(memory.get(&first), None);
        memory.add(&first, &Ok(TRIAL));
        assert_eq!(memory.get(&first), Some(Ok(TRIAL)));
        assert_eq!(
            memory.get(&Key::new(Provider::Cuda, &model, &library, None)),
            None
        );
        fs::write(&library, "another").unwrap();
        assert_eq!(memory.get(&key()), None);
        let failed = Err("no device".to_owned());
        memory.add(&key(), &failed);
        assert_eq!(memory.get(&key()), Some(failed));
        assert_eq!(memory.get(&first), Some(Ok(TRIAL)));
        memory.forget();
        assert_eq!(memory.get(&first), None);
    }

    #[test]
    fn an_outcome_is_forgotten_in_time() {
        let day = 24 * 60 * 60;
        for (outcome, age, known) in [
            (Ok(TRIAL), 29 * day, true),
            (Ok(TRIAL), 31 * day, false),
            (Err("no device".to_owned()), day - 1, true),
            (Err("no device".to_owned()), day + 1, false),
        ] {
            let entry = Entry {
                found: 100 * day,
                outcome,
            };
            assert_eq!(entry.is_known(100 * day + age), known, "{entry:?}");
            // A clock that was set back.
            assert!(!entry.is_known(100 * day - 1));
        }
    }

    #[test]
    fn a_bad_file_only_costs_time() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::in_folder(Some(folder.path()));
        let key = Key::new(Provider::Webgpu, folder.path(), folder.path(), None);
        for bad in ["", "{", "[]", "null", r#"{"webgpu": {"found": -1}}"#] {
            fs::write(folder.path().join("trials.json"), bad).unwrap();
            assert_eq!(memory.get(&key), None, "{bad}");
            memory.add(&key, &Ok(TRIAL));
            assert_eq!(memory.get(&key), Some(Ok(TRIAL)), "{bad}");
        }
    }
}
