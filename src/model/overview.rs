//! What models there are: those of the catalogue, and those that the user has.

use super::catalogue::{Catalogue, Entry};
use super::default_directory;
use super::manifest::Manifest;
use super::store::name::{Name, NameError};
use super::store::origin::Origin;
use super::store::{self, Store};

/// A model that can be used or pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: Name,
    /// What it is, in a line.
    pub about: String,
    /// The licence of its weights.
    pub license: String,
    /// The bytes it takes here, or those to download.
    pub size: u64,
    /// The memory for weights and cache, in bytes, if it is known.
    pub memory: Option<u64>,
    /// What it scores, and in which bench.
    pub score: Option<String>,
    /// Whether it is the one to get.
    pub recommended: bool,
    /// Whether it is here.
    pub whereabouts: Whereabouts,
}

/// Whether a model is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is in the store, or comes with Interline.
    Here,
    /// It can be pulled; so many bytes of it have come already.
    ToPull(u64),
    /// It should have come with Interline.
    Lost,
}

/// All models: those of the catalogue, and then those that the user has added.
///
/// # Errors
///
/// When a name in the catalogue is not one.
pub fn overview(store: &Store) -> Result<Vec<Known>, NameError> {
    let entries = &Catalogue::embedded().models;
    let of_catalogue = entries.iter().map(|entry| in_catalogue(store, entry));
    let mut known = of_catalogue.collect::<Result<Vec<_>, _>>()?;
    for name in store.names() {
        if known.iter().all(|other| other.name != name) {
            known.push(own(store, name));
        }
    }
    Ok(known)
}

fn in_catalogue(store: &Store, entry: &Entry) -> Result<Known, NameError> {
    let name: Name = entry.name.parse()?;
    let folder = match entry.file {
        Some(_) => store.get(&name),
        None => default_directory(),
    };
    let (size, whereabouts) = match (folder, &entry.file) {
        (Some(folder), _) => (store::size(&folder), Whereabouts::Here),
        (None, Some(file)) => (file.size(), Whereabouts::ToPull(store.unfinished(&name))),
        (None, None) => (0, Whereabouts::Lost),
    };
    Ok(Known {
        name,
        about: entry.about.clone(),
        license: entry.license.clone(),
        size,
        memory: Some(entry.memory_mb.saturating_mul(1_000_000)),
        score: entry.scores.first().map(ToString::to_string),
        recommended: entry.recommended,
        whereabouts,
    })
}

/// A model that the user has pulled from a Hub or added.
fn own(store: &Store, name: Name) -> Known {
    let folder = store.path().join(name.as_str());
    let manifest = Manifest::read(&folder).ok();
    let license = manifest.and_then(|manifest| manifest.license);
    let origin = Origin::read(&folder);
    Known {
        name,
        about: origin.map_or_else(String::new, |origin| format!("from {}", origin.source)),
        license: license.unwrap_or_else(|| "unknown".to_owned()),
        size: store::size(&folder),
        memory: None,
        score: None,
        recommended: false,
        whereabouts: Whereabouts::Here,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_catalogue_comes_first_and_then_what_the_user_has() {
        let home = tempfile::tempdir().unwrap();
        for (name, content) in [("mine", "12345"), ("qwen2.5-coder-0.5b", "123")] {
            std::fs::create_dir(home.path().join(name)).unwrap();
            std::fs::write(home.path().join(name).join("model.onnx"), content).unwrap();
        }
        let work = home.path().join(".work/qwen2.5-coder-1.5b");
        std::fs::create_dir_all(&work).unwrap();
        std::fs::write(work.join("part"), "12").unwrap();
        let known = overview(&Store::at(home.path().to_path_buf())).unwrap();
        assert!(known[0].size > 100_000_000, "{:?}", known[0]);
        let shown: Vec<String> = known
            .iter()
            .skip(1)
            .map(|known| {
                let Known {
                    name,
                    license,
                    size,
                    recommended,
                    whereabouts,
                    ..
                } = known;
                format!("{name} {license} {size} {recommended} {whereabouts:?}\n")
            })
            .collect();
        expect![[r#"
            qwen2.5-coder-0.5b Apache-2.0 3 true Here
            qwen2.5-coder-1.5b Apache-2.0 1117320768 false ToPull(2)
            mine unknown 5 false Here
        "#]]
        .assert_eq(&shown.concat());
    }
}
