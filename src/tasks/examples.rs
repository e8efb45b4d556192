//! Examples for the model to learn from: pairs of files that the user keeps in the workspace, and
//! code that already exists in two languages.

use std::cmp::Reverse;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::text::exclusion::Exclusion;
use crate::text::ignored;
use crate::text::language::Language;
use crate::text::syntax::Parsed;

/// A question's code and the answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The code.
    pub input: String,
    /// The answer.
    pub output: String,
}

/// The largest example file, in bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// The most files that are considered.
const MAX_FILES: usize = 64;

/// The examples of a task: the files of `.interline/examples/<task>/` in the workspace, in pairs
/// `<name>.input.<extension>` and `<name>.output.<extension>`.
///
/// The workspace is not trusted: links that lead out of it, anything but regular files, and files
/// that are excluded, also by a `.interlineignore`, are not read. Files that git ignores are read,
/// because they were put there on purpose.
///
/// # Errors
///
/// See [`ExamplesError`].
pub fn examples(
    workspace: &Path,
    exclusion: &Exclusion,
    task: &str,
) -> Result<Vec<Example>, ExamplesError> {
    let folder = workspace.join(".interline/examples").join(task);
    let names = match file_names(&folder) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&folder, error)),
    };
    let inside = workspace.canonicalize();
    let inside = inside.map_err(|error| unreadable(workspace, error))?;
    let read = |name: &str| read(&folder.join(name), &inside, exclusion);
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
    Ok(found)
}

/// Functions and types that already exist in both languages, in files of the same name but for the
/// extension, in the folder of `file`, which is not one of them. They belong together if their
/// names are the same but for `_` and capitals.
///
/// These files were not declared to be examples, so what cannot be read is skipped. What
/// [`examples`] does not read is not read here either, nor what git ignores, nor anything outside
/// the folder.
#[must_use]
pub fn neighbours(
    file: &Path,
    from: Language,
    to: Language,
    exclusion: &Exclusion,
) -> Vec<Example> {
    // The parent of a bare name would be empty.
    let file = std::path::absolute(file).unwrap_or_default();
    let Some(Ok(folder)) = file.parent().map(Path::canonicalize) else {
        return Vec::new();
    };
    let names = file_names(&folder).unwrap_or_default();
    let all = |language| {
        let is = move |name: &&String| Language::of_file(Path::new(name)) == Some(language);
        names.iter().filter(is)
    };
    let stem = |name: &str| Path::new(name).file_stem().map(ToOwned::to_owned);
    let defined = |name: &str, language| -> Option<Vec<(String, String)>> {
        let path = folder.join(name);
        // Either the name or what it leads to may be ignored.
        let real = path.canonicalize().ok()?;
        if ignored::by_git(&path) || (real != path && ignored::by_git(&real)) {
            return None;
        }
        let text = read(&path, &folder, exclusion).ok()?;
        let items = Parsed::new(&text, language).items().into_iter();
        let named = items.filter(|item| item.signature.is_some());
        let known =
            named.filter_map(|item| Some((plain(&item.name?), text[item.range].to_owned())));
        Some(known.collect())
    };
    let mut found = Vec::new();
    for input in all(from).filter(|name| file.file_name() != Some(name.as_ref())) {
        let same = |name: &&String| stem(name) == stem(input);
        let outputs = all(to).filter(same).filter_map(|name| defined(name, to));
        let outputs: Vec<_> = outputs.flatten().collect();
        if outputs.is_empty() {
            continue;
        }
        for (name, input) in defined(input, from).unwrap_or_default() {
            if let Some((_, output)) = outputs.iter().find(|(other, _)| *other == name) {
                let output = output.clone();
                found.push(Example { input, output });
            }
        }
    }
    found
}

/// Sorts examples: first come those that share the most words with `code`.
pub fn sort(examples: &mut [Example], code: &str) {
    examples.sort_by_cached_key(|example| Reverse(similarity(&example.input, code)));
}

/// The names of the files in a folder, in order, [`MAX_FILES`] at most.
fn file_names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    names.truncate(MAX_FILES);
    Ok(names)
}

/// Reads a regular file in the folder `inside`, which is a real path.
fn read(path: &Path, inside: &Path, exclusion: &Exclusion) -> Result<String, ExamplesError> {
    let real = path
        .canonicalize()
        .map_err(|error| unreadable(path, error))?;
    let hidden = exclusion.of(path).is_some()
        || ignored::by_interline(path)
        || (real != path && ignored::by_interline(&real));
    if hidden || !real.starts_with(inside) || !real.is_file() {
        return Err(ExamplesError::NotPlain(path.to_path_buf()));
    }
    let mut text = String::new();
    let file = std::fs::File::open(&real).map_err(|error| unreadable(path, error))?;
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    match read.map_err(|error| unreadable(path, error))? as u64 {
        ..=MAX_BYTES => Ok(text),
        _ => Err(ExamplesError::TooLarge(path.to_path_buf())),
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> ExamplesError {
    ExamplesError::Read {
        path: path.to_path_buf(),
        source,
    }
}

/// A name without what differs between languages' conventions.
fn plain(name: &str) -> String {
    name.replace('_', "").to_lowercase()
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
        /// Its path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file has no counterpart.
    #[error("the example {path} has no other half, {missing}")]
    Half {
        /// The file.
        path: PathBuf,
        /// The name that its counterpart would have.
        missing: String,
    },
    /// It is not a file of the workspace that may be read.
    #[error(
        "the example {0} is not a regular file of the workspace, or is never shown to the model"
    )]
    NotPlain(PathBuf),
    /// A file is larger than any prompt.
    #[error("the example {0} is larger than {MAX_BYTES} bytes")]
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
        let found = examples(workspace.path(), &exclusion, "explain");
        let found = found.map(|mut found| {
            sort(&mut found, "def mean(values): pass");
            found
        });
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
    fn a_workspace_may_have_no_examples() {
        let workspace = tempfile::tempdir().unwrap();
        let exclusion = Exclusion::new(&[]).unwrap();
        let found = examples(workspace.path(), &exclusion, "explain").unwrap();
        assert_eq!(found, []);
    }

    #[test]
    fn a_large_file_is_named() {
        let large = "a".repeat(MAX_BYTES as usize + 1);
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
            let error = examples(workspace.path(), &exclusion, "explain").unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("not a regular file of the workspace"),
                "{error}"
            );
        }
    }

    fn check_neighbours(files: &[(&str, &str)], expected: &[(&str, &str)]) {
        check_in(tempfile::tempdir().unwrap().path(), files, expected);
    }

    fn check_in(folder: &Path, files: &[(&str, &str)], expected: &[(&str, &str)]) {
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let exclusion = Exclusion::new(&["hidden*".to_owned()]).unwrap();
        let file = folder.join("mine.py");
        let found = neighbours(&file, Language::Python, Language::TypeScript, &exclusion);
        let found: Vec<_> = found
            .iter()
            .map(|example| (example.input.as_str(), example.output.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    const PYTHON: &str = "import os\n\n\ndef load_all(a):\n    pass\n\n\ndef other():\n    pass\n";
    const TYPESCRIPT: &str = "function loadAll(a) {}\n";

    #[test]
    fn what_exists_in_both_languages_is_an_example() {
        check_neighbours(
            &[
                ("load.py", PYTHON),
                ("load.ts", TYPESCRIPT),
                ("alone.py", PYTHON),
            ],
            &[("def load_all(a):\n    pass\n\n\n", TYPESCRIPT)],
        );
    }

    #[test]
    fn what_the_model_may_not_see_is_no_neighbour() {
        // The file itself, and one that is excluded.
        for stem in ["mine", "hidden"] {
            let [python, typescript] = ["py", "ts"].map(|extension| format!("{stem}.{extension}"));
            check_neighbours(&[(&python, PYTHON), (&typescript, TYPESCRIPT)], &[]);
        }
        // A file that is not text, as the input or as the output.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("load.ts"), [0xff]).unwrap();
        std::fs::write(folder.path().join("load.py"), PYTHON).unwrap();
        let exclusion = Exclusion::new(&[]).unwrap();
        for (from, to) in [
            (Language::Python, Language::TypeScript),
            (Language::TypeScript, Language::Python),
        ] {
            let file = folder.path().join("mine");
            assert_eq!(neighbours(&file, from, to, &exclusion), []);
        }
    }

    #[test]
    fn what_is_ignored_is_no_neighbour() {
        let neighbours = [("load.py", PYTHON), ("load.ts", TYPESCRIPT)];
        for (name, rules, found) in [
            (".gitignore", "load.ts", false),
            (".gitignore", "load.py", false),
            (".gitignore", "*.ts\n", false),
            (".gitignore", "*.ts\n!load.ts\n", true),
            (".gitignore", "other.ts", true),
            (".interlineignore", "load.ts", false),
            (".interlineignore", "*.py", false),
        ] {
            let files = [&neighbours[..], &[(name, rules)]].concat();
            let expected = [("def load_all(a):\n    pass\n\n\n", TYPESCRIPT)];
            check_neighbours(&files, &expected[..usize::from(found)]);
        }
    }

    #[test]
    fn what_is_in_an_ignored_folder_is_no_neighbour() {
        for name in [".gitignore", ".interlineignore"] {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join("out/deep");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(root.path().join(name), "out/\n").unwrap();
            std::fs::write(folder.join("load.py"), PYTHON).unwrap();
            std::fs::write(folder.join("load.ts"), TYPESCRIPT).unwrap();
            let exclusion = Exclusion::new(&[]).unwrap();
            let file = folder.join("mine.py");
            let found = neighbours(&file, Language::Python, Language::TypeScript, &exclusion);
            assert_eq!(found, [], "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_neighbour_is_judged_by_what_it_leads_to() {
        for (target, rules) in [
            ("private.ts", "private.ts"),
            (".env.ts", ""),
            ("hidden.ts", ""),
            ("deep/load.ts", "deep/"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let real = folder.path().join(target);
            std::fs::create_dir_all(real.parent().unwrap()).unwrap();
            std::fs::write(&real, TYPESCRIPT).unwrap();
            std::os::unix::fs::symlink(target, folder.path().join("load.ts")).unwrap();
            check_in(
                folder.path(),
                &[("load.py", PYTHON), (".gitignore", rules)],
                &[],
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_example_is_judged_by_what_it_leads_to() {
        for (target, ignore) in [
            (".env", ""),
            ("secret.md", "secret.md"),
            ("a.md", "*.output.md"),
        ] {
            let workspace = tempfile::tempdir().unwrap();
            let folder = workspace.path().join(".interline/examples/explain");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(workspace.path().join(".interlineignore"), ignore).unwrap();
            std::fs::write(workspace.path().join(target), "TOKEN=1").unwrap();
            std::fs::write(folder.join("a.input.py"), "1").unwrap();
            let link = Path::new("../../..").join(target);
            std::os::unix::fs::symlink(link, folder.join("a.output.md")).unwrap();
            let exclusion = Exclusion::new(&[]).unwrap();
            let error = examples(workspace.path(), &exclusion, "explain").unwrap_err();
            assert!(
                error.to_string().contains("never shown to the model"),
                "{target}: {error}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn no_neighbour_leads_out_of_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("load.py", PYTHON), ("load.ts", TYPESCRIPT)] {
            let target = outside.path().join(name);
            std::fs::write(&target, text).unwrap();
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        }
        let exclusion = Exclusion::new(&[]).unwrap();
        let file = folder.path().join("mine.py");
        let found = neighbours(&file, Language::Python, Language::TypeScript, &exclusion);
        assert_eq!(found, []);
    }
}
