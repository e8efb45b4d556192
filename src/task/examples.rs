//! Examples for the model to learn from: pairs of files that the user keeps in the workspace.

use std::path::{Path, PathBuf};

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

/// The examples of a task: the files of `.interline/examples/<task>/` in the workspace, in pairs
/// `<name>.input.<extension>` and `<name>.output.<extension>`. The nearest come first: those that
/// share the most words with `code`.
///
/// # Errors
///
/// See [`ExamplesError`].
pub fn examples(workspace: &Path, task: &str, code: &str) -> Result<Vec<Example>, ExamplesError> {
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
    let read = |name: &str| {
        let path = folder.join(name);
        let length = std::fs::metadata(&path).map(|data| data.len());
        if length.map_err(|error| unreadable(&path, error))? > MOST {
            return Err(ExamplesError::TooLarge(path));
        }
        std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))
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
        let found = examples(workspace.path(), "explain", "def mean(values): pass");
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
        assert_eq!(examples(workspace.path(), "explain", "").unwrap(), []);
    }
}
