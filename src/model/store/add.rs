//! Adds a model of the user to the store: a folder of our form, or one to import.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::name::{Name, NameError};
use super::origin::Origin;
use super::{Store, StoreError, failed, reporting};
use crate::download::Waiter;
use crate::download::pinned::{self, FetchError};
use crate::model::LoadError;
use crate::model::describe::Description;
use crate::model::findings::findings;
use crate::model::import::{self, ImportError};
use crate::model::onnx;
use crate::model::sums::{self, SumsError};
use crate::verified::{self, Record};

impl Store {
    /// Copies a model folder, or imports a GGUF file or a folder in the layout of Hugging Face, under a
    /// name that is by default that of the folder or file. Returns the new folder.
    ///
    /// # Errors
    ///
    /// See [`AddError`].
    pub fn add(
        &self,
        source: &Path,
        name: Option<Name>,
        waiter: &mut dyn Waiter,
    ) -> Result<PathBuf, AddError> {
        let is_folder = match fs::metadata(source) {
            Ok(metadata) if metadata.is_dir() => true,
            Ok(metadata) if metadata.is_file() => false,
            _ => return Err(AddError::NotThere(source.to_path_buf())),
        };
        let name = match name {
            Some(name) => name,
            None => usual_name(source)?,
        };
        let at_work = self.enter(&name, waiter)?;
        if self.get(&name).is_some() {
            return Err(AddError::Taken(name));
        }
        let model = at_work.new_model()?;
        let made = match is_folder && !import::is_source(source) {
            true => copy_checked(source, &model, waiter),
            false => import_from(source, &model, waiter),
        };
        let folder = match made {
            Ok(origin) => at_work.finish(&origin)?,
            Err(error) => {
                at_work.give_up()?;
                return Err(error);
            }
        };
        waiter.say(&format!("{name} is ready in {}", folder.display()));
        Ok(folder)
    }
}

fn copy_checked(source: &Path, model: &Path, waiter: &mut dyn Waiter) -> Result<Origin, AddError> {
    findings(source)?;
    let files = files(source)?;
    let sizes = files.iter().map(|file| fs::metadata(source.join(file)));
    let total = sizes.flatten().map(|metadata| metadata.len()).sum();
    pinned::check_room(model, total)?;
    copy(source, model, &files, total, waiter)?;
    // A folder that came with its hashes is known to be whole. They may include the record of where
    // it came from, which is written anew, and so are they.
    sums::check(model, &Record::in_folder(None))?;
    let hashes = model.join(sums::FILE_NAME);
    if hashes.exists() {
        fs::remove_file(&hashes).map_err(failed("remove", &hashes))?;
    }
    Ok(Origin {
        source: source.display().to_string(),
        sha256: None,
        importer: None,
    })
}

fn import_from(source: &Path, model: &Path, waiter: &mut dyn Waiter) -> Result<Origin, AddError> {
    // Of a folder, each file may change by itself.
    let sha256 = match source.is_file() {
        true => Some(verified::sha256(source).map_err(failed("read", source))?),
        false => None,
    };
    waiter.say(&format!("importing {}", source.display()));
    import::import(source, model, &mut reporting(waiter))?;
    Ok(Origin {
        source: source.display().to_string(),
        sha256,
        importer: Some(import::VERSION),
    })
}

/// The name that a folder or file has by itself.
fn usual_name(source: &Path) -> Result<Name, AddError> {
    // So that `.` has a name.
    let whole = fs::canonicalize(source).unwrap_or_else(|_| source.to_path_buf());
    let text = import::name_of(&whole);
    match Name::nearest(&text) {
        Some(name) => Ok(name),
        None => Ok(text.parse()?),
    }
}

/// The files of a model folder, relative to it: its graph with the weights of that, and what is no
/// other form of the weights. A folder that came with its hashes is copied whole.
fn files(source: &Path) -> Result<BTreeSet<PathBuf>, AddError> {
    let Description {
        manifest, sizes, ..
    } = Description::read(source).map_err(LoadError::from)?;
    let outline = onnx::outline(&source.join(&manifest.graph), &sizes).map_err(LoadError::from)?;
    let beside = manifest.graph.parent().unwrap_or(Path::new(""));
    let weights = outline.weights.iter().map(|file| beside.join(file));
    let mut files: BTreeSet<PathBuf> = weights.collect();
    let named = [manifest.graph, manifest.tokenizer];
    files.extend(named.into_iter().chain(manifest.chat_template));
    let whole = source.join(sums::FILE_NAME).is_file();
    for entry in fs::read_dir(source).map_err(failed("read", source))? {
        let name = PathBuf::from(entry.map_err(failed("read", source))?.file_name());
        if source.join(&name).is_file() && (whole || !holds_weights(&name)) {
            files.insert(name);
        }
    }
    Ok(files)
}

/// Whether a file is a form of a model's weights, by its name.
fn holds_weights(name: &Path) -> bool {
    const ENDS: [&str; 8] = [
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".gguf",
        ".h5",
        ".msgpack",
        ".tflite",
    ];
    let name = name.to_string_lossy().to_ascii_lowercase();
    // Also `model.onnx_data_1` and `model.onnx.data`.
    name.contains(".onnx") || ENDS.iter().any(|end| name.ends_with(end))
}

/// Copies files of a folder, and what links among them lead to, as in a Hub's cache.
fn copy(
    source: &Path,
    target: &Path,
    files: &BTreeSet<PathBuf>,
    total: u64,
    waiter: &mut dyn Waiter,
) -> Result<(), StoreError> {
    let mut done = 0;
    for file in files {
        let (from, to) = (source.join(file), target.join(file));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        done += fs::copy(&from, &to).map_err(failed("copy", &from))?;
        waiter.progress(done, total);
    }
    Ok(())
}

/// Why nothing was added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It is neither a folder nor a file.
    #[error("{0} is neither a model folder nor a file; name one of these")]
    NotThere(PathBuf),
    /// The folder's name is not one for a model.
    #[error("{0}; give it one with --name")]
    Name(#[from] NameError),
    /// There is a model of this name.
    #[error(
        "the store has a model {0}; remove it with `interline model remove {0}`, or give this one another name with --name"
    )]
    Taken(Name),
    /// The folder is not a model folder.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The folder does not match its hashes.
    #[error(transparent)]
    Sums(#[from] SumsError),
    /// The disk is full.
    #[error(transparent)]
    Room(#[from] FetchError),
    /// The file cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The store cannot be changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
