//! The user's cache folder for this program: everything in it can be fetched or computed again.

use std::path::PathBuf;

/// The folder that `INTERLINE_CACHE_DIR` names, else the one that is usual on this system
/// (`~/.cache/interline` on Linux). It is absolute and need not exist. `None` for a user without a
/// home.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let named = std::env::var_os("INTERLINE_CACHE_DIR").filter(|value| !value.is_empty());
    let folder = named.map(PathBuf::from).or_else(|| {
        directories::ProjectDirs::from("", "", "interline")
            .map(|directories| directories.cache_dir().to_path_buf())
    })?;
    std::path::absolute(folder).ok()
}
