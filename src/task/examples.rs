//! Examples for the model to learn from: pairs of files that the user keeps in the workspace.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::completion::exclusion::Exclusion;

/// A question's code and the answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What was given.
    pub input: String,
    /// What was made of it.
    pub output: String,
}

/// Larger files are no examples, in bytes.
const MOST: u64 = 16 * 1024;

/// More files than this are not looked at.
const MOST_FILES: usize = 64;

/// The examples of a task: the files of `.interline/examples/<task>/` in the workspace, in pairs
/// `<name>.input.<extension>` and `<name>.output.<extension>`. The nearest come first: those that
/// share the most words with `code`.
///
/// The workspace is a stranger's: a link out of it, what is no plain file, and what is excluded is not
/// read.
///
/// # Errors
///
/// See [`ExamplesError`].
pub fn examples(
    workspace: &Path,
    exclusion: &Exclusion,
    task: &str,
    code: &str,
) -> Result<Vec<Example>, ExamplesError> {
    let folder = workspace.join(".interline/examples").join(task);
    let unreadable = |path: &Path, source| ExamplesError::Read {
        path: path.to_path_buf(),
        source,
    };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(&folder, error))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    names.truncate(MOST_FILES);
    let inside = workspace.canonicalize();
    let inside = inside.map_err(|error| unreadable(workspace, error))?;
    let read = |name: &str| {
        let path = folder.join(name);
        let real = path
            .canonicalize()
            .map_err(|error| unreadable(&path, error))?;
        if !real.starts_with(&inside) || !real.is_file() || exclusion.of(&real).is_some() {
            return Err(ExamplesError::NotPlain(path));
        }
        let mut text = String::new();
        let file = std::fs::File::open(&real).map_err(|error| unreadable(&path, error))?;
        let read = file.take(MOST + 1).read_to_string(&mut text);
        match read.map_err(|error| unreadable(&path, error))? as u64 {
            ..=MOST => Ok(text),
            _ => Err(ExamplesError::TooLarge(path)),
        }
    };
    let mut found = Vec::new();
    for name in &names {
        let (Some((pair, _)), other) = (name.split_once(".input."), ".output.") else {
            if let Some((pair, _)) = name.split_once(".output.") {
                half(&names, pair, ".input.", &folder, name)?;
            }
            continue;
        };
        let output = half(&names, pair, other, &folder, name)?;
        found.push(Example {
            input: read(name)?,
            output: read(output)?,
        });
    }
    found.sort_by_cached_key(|example| std::cmp::Reverse(similarity(&example.input, code)));
    Ok(found)
}

/// The other half of a pair.
fn half<'a>(
    names: &'a [String],
    pair: &str,
    infix: &str,
    folder: &Path,
    name: &str,
) -> Result<&'a str, ExamplesError> {
    let start = format!("{pair}{infix}");
    let found = names.iter().find(|name| name.starts_with(&start));
    found
        .map(String::as_str)
        .ok_or_else(|| ExamplesError::Half {
            path: folder.join(name),
            missing: format!("{start}*"),
        })
}

/// The share of words two texts have in common, in thousandths (Jaccard's index).
fn similarity(a: &str, b: &str) -> usize {
    let words = |text: &str| -> std::collections::HashSet<String> {
        let words = text.split(|char: char| !char.is_alphanumeric());
        words
            .filter(|word| word.len() > 1)
            .map(str::to_lowercase)
            .collect()
    };
    let (a, b) = (words(a), words(b));
    1000 * a.intersection(&b).count() / a.union(&b).count().max(1)
}

/// Why the examples cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExamplesError {
    /// A file or the folder cannot be read.
    #[error("cannot read the example {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file has no counterpart.
    #[error("the example {path} has no other half, {missing}")]
    Half {
        /// The file.
        path: PathBuf,
        /// What its counterpart would be called.
        missing: String,
    },
    /// It is no file of the workspace that may be read.
    #[error(
        "the example {0} is no plain file of the workspace, or one that is never shown to the model"
    )]
    NotPlain(PathBuf),
    /// A file is larger than any prompt.
    #[error("the example {0} is larger than {MOST} bytes")]
    TooLarge(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: Result<&[(&str, &str)], &str>) {
        let workspace = tempfile::tempdir().unwrap();
        let folder = workspace.path().join(".interline/examples/explain");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let exclusion = Exclusion::new(&[]).unwrap();
        let found = examples(
            workspace.path(),
            &exclusion,
            "explain",
            "def mean(values): pass",
        );
        let found = found.map_err(|error| {
            let folder = format!("{}/", folder.display());
            error.to_string().replace(&folder, "")
        });
        let found = found.map(|found| {
            let pairs = found
                .into_iter()
                .map(|example| (example.input, example.output));
            pairs.collect::<Vec<_>>()
        });
        let expected = expected.map(|pairs| {
            let pairs = pairs.iter().map(|(a, b)| (a.to_string(), b.to_string()));
            pairs.collect::<Vec<_>>()
        });
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn the_nearest_comes_first() {
        check(
            &[
                ("a.input.py", "class Stack: pass"),
                ("a.output.md", "A stack."),
                ("b.input.py", "def median(values): pass"),
                ("b.output.md", "The median."),
                ("README.md", "not an example"),
            ],
            Ok(&[
                ("def median(values): pass", "The median."),
                ("class Stack: pass", "A stack."),
            ]),
        );
        check(&[], Ok(&[]));
    }

    #[test]
    fn a_missing_half_is_named() {
        check(
            &[("a.input.py", "1")],
            Err("the example a.input.py has no other half, a.output.*"),
        );
        check(
            &[("a.output.py", "1")],
            Err("the example a.output.py has no other half, a.input.*"),
        );
    }

    #[test]
    fn there_may_be_none() {
        let workspace = tempfile::tempdir().unwrap();
        let exclusion = Exclusion::new(&[]).unwrap();
        assert_eq!(
            examples(workspace.path(), &exclusion, "explain", "").unwrap(),
            []
        );
    }

    #[test]
    fn a_large_one_is_named() {
        let large = "a".repeat(MOST as usize + 1);
        check(
            &[("a.input.py", large.as_str()), ("a.output.py", "1")],
            Err("the example a.input.py is larger than 16384 bytes"),
        );
    }

    #[cfg(unix)]
    #[test]
    fn nothing_leads_out_of_the_workspace() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        for target in [outside.path(), Path::new("/dev/zero")] {
            let workspace = tempfile::tempdir().unwrap();
            let folder = workspace.path().join(".interline/examples/explain");
            std::fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink(target, folder.join("a.input.py")).unwrap();
            std::fs::write(folder.join("a.output.py"), "").unwrap();
            let exclusion = Exclusion::new(&[]).unwrap();
            let error = examples(workspace.path(), &exclusion, "explain", "").unwrap_err();
            assert!(
                error.to_string().contains("no plain file of the workspace"),
                "{error}"
            );
        }
    }
}
