//! Where a model in the store came from: `origin.toml` in its folder.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::plain_file;

/// The name of the record in a model folder.
const FILE_NAME: &str = "origin.toml";

/// The largest record that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Where a model came from.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The file or folder, as the user knows it.
    pub source: String,
    /// The SHA-256 of the file that was imported.
    pub sha256: Option<String>,
    /// The version of the importer ([`VERSION`](crate::model::import::VERSION)), if it was imported.
    pub importer: Option<u32>,
}

impl Origin {
    /// The record of a model folder, if it has one that can be read.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        let text = plain_file::read_text(&folder.join(FILE_NAME), MAX_BYTES).ok()?;
        toml::from_str(&text).ok()
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        std::fs::write(folder.join(FILE_NAME), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Origin::read(folder.path()), None);
        let imported = Origin {
            source: "a \"quoted\" name".to_owned(),
            sha256: Some("00".to_owned()),
            importer: Some(1),
        };
        let copied = Origin {
            sha256: None,
            importer: None,
            ..imported.clone()
        };
        for origin in [imported, copied] {
            origin.write(folder.path()).unwrap();
            assert_eq!(Origin::read(folder.path()), Some(origin));
        }
        std::fs::write(folder.path().join(FILE_NAME), "source = 1").unwrap();
        assert_eq!(Origin::read(folder.path()), None);
    }
}
