//! Fetches a file into the store and imports it.

use std::fs;
use std::path::{Path, PathBuf};

use super::name::{Name, NameError};
use super::origin::Origin;
use super::{Store, StoreError, clear, failed, reporting};
use crate::download::hub::{Hub, HubError, HubFile, Lfs, Listed};
use crate::download::pinned::{self, FetchError, Pinned, Source};
use crate::download::{Python, Waiter};
use crate::model::catalogue::Catalogue;
use crate::model::import::{self, ImportError};

/// What to pull, and from where.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The name it gets in the store.
    pub name: Name,
    /// The file.
    pub file: Pinned,
    /// Places that have it, in the order in which they are tried.
    pub sources: Vec<Source<'a>>,
}

impl<'a> Wanted<'a> {
    /// What a user means by a name in the catalogue, or by `OWNER/REPO` or `OWNER/REPO:FILE`, for
    /// which the Hub is asked.
    ///
    /// # Errors
    ///
    /// See [`PullError`].
    pub fn named(text: &str, hub: &'a Hub) -> Result<Self, PullError> {
        let entry = Catalogue::embedded().get(text);
        if let Some(file) = entry.and_then(|entry| entry.file.as_ref()) {
            return Ok(Self {
                name: text.parse()?,
                file: file.pinned(text),
                sources: file.sources(hub),
            });
        }
        let repository = text.split_once(':').map_or(text, |(before, _)| before);
        let parts: Vec<&str> = repository.split('/').collect();
        match parts[..] {
            [owner, name] if !owner.is_empty() && !name.is_empty() => Self::on_hub(text, hub),
            _ => Err(PullError::Unknown(text.to_owned())),
        }
    }

    /// What `OWNER/REPO` or `OWNER/REPO:FILE` means on a Hub: a GGUF file, pinned to the commit and
    /// the hash that the Hub names now.
    ///
    /// # Errors
    ///
    /// See [`PullError`].
    fn on_hub(text: &str, hub: &'a Hub) -> Result<Self, PullError> {
        let (repository, path) = match text.split_once(':') {
            Some((repository, path)) => (repository, Some(path)),
            None => (text, None),
        };
        let listed = hub.list(repository)?;
        let (path, lfs) = choose(&listed.files, path).ok_or_else(|| {
            let files = listed.files.iter().filter(|file| is_gguf(file));
            PullError::Choose {
                repository: repository.to_owned(),
                files: files
                    .map(|file| file.path.escape_debug().to_string())
                    .collect(),
            }
        })?;
        let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str());
        let name = stem.and_then(Name::nearest);
        let name = name.ok_or_else(|| PullError::NoName {
            path: path.to_owned(),
        })?;
        let file = HubFile {
            repository: repository.to_owned(),
            revision: listed.commit.clone(),
            path: path.to_owned(),
        };
        Ok(Self {
            file: Pinned {
                name: name.to_string(),
                size: lfs.size,
                sha256: lfs.sha256.to_ascii_lowercase(),
            },
            name,
            sources: vec![Source::Hub(hub, file)],
        })
    }
}

/// Whether this is a GGUF file with a hash, which will be part of a file's name.
fn is_gguf(file: &Listed) -> bool {
    let extension = Path::new(&file.path).extension();
    let hash = file.lfs.as_ref().map(|lfs| hex::decode(&lfs.sha256));
    let has_hash = matches!(hash, Some(Ok(bytes)) if bytes.len() == 32);
    has_hash && extension.is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The file of this path, else the only GGUF file, else the only one in `q4_k_m`, the usual
/// compromise of size and quality.
fn choose<'a>(files: &'a [Listed], path: Option<&str>) -> Option<(&'a str, &'a Lfs)> {
    let ggufs: Vec<&Listed> = files.iter().filter(|file| is_gguf(file)).collect();
    let medium = |file: &&Listed| file.path.to_ascii_lowercase().contains("q4_k_m");
    let mut fitting: Vec<&Listed> = match path {
        Some(path) => ggufs.into_iter().filter(|file| file.path == path).collect(),
        None if ggufs.len() > 1 => ggufs.into_iter().filter(medium).collect(),
        None => ggufs,
    };
    let file = fitting.pop().filter(|_| fitting.is_empty())?;
    Some((&file.path, file.lfs.as_ref()?))
}

impl Store {
    /// Pulls a model, unless it is here, and returns its folder. One that another version of the
    /// importer made of the same file is replaced.
    ///
    /// # Errors
    ///
    /// See [`PullError`]. What has been fetched is kept, and the next pull continues it.
    pub fn pull(
        &self,
        wanted: &Wanted<'_>,
        pythons: &[Python],
        waiter: &mut dyn Waiter,
    ) -> Result<PathBuf, PullError> {
        let Wanted {
            name,
            file,
            sources,
        } = wanted;
        let at_work = self.enter(name, waiter)?;
        let origin = Origin {
            source: match sources.first() {
                Some(Source::Hub(_, from)) => {
                    format!("{}@{}:{}", from.repository, from.revision, from.path)
                }
                _ => file.name.clone(),
            },
            sha256: Some(file.sha256.clone()),
            importer: Some(import::VERSION),
        };
        if let Some(folder) = self.get(name) {
            let here = Origin::read(&folder);
            let same_file = |here: &Origin| here.sha256 == origin.sha256;
            match here.filter(same_file) {
                None => return Err(PullError::Taken(name.clone())),
                Some(here) if here.importer == origin.importer => {
                    // A pull that was killed at its very end may have left something.
                    at_work.leave()?;
                    waiter.say(&format!("{name} is here already"));
                    return Ok(folder);
                }
                Some(_) => {}
            }
        }
        // A file is kept under its hash, so that another one is not continued with it.
        let source = at_work.folder.join(format!("{}.gguf", file.sha256));
        keep_only(&at_work.folder, &file.sha256)?;
        // The imported form is about as large; with 8 bits somewhat larger.
        let spare = file.size.saturating_add(file.size / 4);
        pinned::fetch(file, sources, &source, spare, pythons, waiter)?;
        if !waiter.is_wanted() {
            return Err(FetchError::Unwanted.into());
        }
        waiter.part(&format!("importing {name}"));
        let imported = import::import(&source, &at_work.new_model()?, &mut reporting(waiter));
        if let Err(error) = imported {
            at_work.give_up()?;
            return Err(error.into());
        }
        let folder = at_work.finish(&origin)?;
        waiter.say(&format!("{name} is ready in {}", folder.display()));
        Ok(folder)
    }
}

/// Removes all but the files whose names begin with `start`.
fn keep_only(folder: &Path, start: &str) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(start) {
            continue;
        }
        if path.is_dir() {
            clear(&path)?;
        } else {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Why a model was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// It is neither in the catalogue nor in a repository.
    #[error("{0:?} is neither a name from `interline model list` nor OWNER/REPO[:FILE]")]
    Unknown(String),
    /// A name in the catalogue is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The Hub does not list the repository.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The repository has not exactly one file that fits.
    #[error(
        "{repository} has {}",
        if files.is_empty() {
            "no GGUF file, and only these are pulled; download the folder and use `interline model \
             add PATH`".to_owned()
        } else {
            format!(
                "these GGUF files: {}; name one, as in `interline model pull {repository}:{}`",
                files.join(", "),
                files[0]
            )
        }
    )]
    Choose {
        /// The repository.
        repository: String,
        /// Its GGUF files.
        files: Vec<String>,
    },
    /// There is another model of this name.
    #[error(
        "the store has another model {0}; remove it with `interline model remove {0}`, and pull again"
    )]
    Taken(Name),
    /// The file's name gives none.
    #[error(
        "{path} gives no name for the store; download it, and use `interline model add PATH --name NAME`"
    )]
    NoName {
        /// The file.
        path: String,
    },
    /// The file cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The store cannot be changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_chosen_if_only_one_fits() {
        let listed = |path: &str, large: bool| Listed {
            path: path.to_owned(),
            lfs: large.then(|| Lfs {
                size: 1,
                sha256: match path {
                    "liar.gguf" => "../../liar".to_owned(),
                    _ => "0".repeat(64),
                },
            }),
        };
        let check = |paths: &[&str], asked: Option<&str>, expected: Option<&str>| {
            let files: Vec<_> = paths
                .iter()
                .map(|path| listed(path, path != &"small.gguf"))
                .collect();
            let chosen = choose(&files, asked).map(|(path, _)| path);
            assert_eq!(chosen, expected, "{paths:?} {asked:?}");
        };
        check(&["README.md", "a.gguf"], None, Some("a.gguf"));
        check(&["README.md", "small.gguf"], None, None);
        check(&["liar.gguf"], None, None);
        check(&["liar.gguf"], Some("liar.gguf"), None);
        check(
            &["a-Q8_0.gguf", "a-Q4_K_M.gguf"],
            None,
            Some("a-Q4_K_M.gguf"),
        );
        check(&["a-q8_0.gguf", "a-q6_k.gguf"], None, None);
        check(&["a-q4_k_m.gguf", "b-q4_k_m.gguf"], None, None);
        check(&["a.gguf", "b.gguf"], Some("b.gguf"), Some("b.gguf"));
        check(&["a.gguf"], Some("b.gguf"), None);
        check(&["a.safetensors"], Some("a.safetensors"), None);
    }
}
