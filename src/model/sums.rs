//! `SHA256SUMS`: the hashes of a model folder's files, in the format of the tool `sha256sum`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::plain_file::{self, PlainFileError};
use crate::verified::{self, Record, Verdict};

/// The name of the list in a model folder.
pub const FILE_NAME: &str = "SHA256SUMS";

/// The largest list that is read, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// Checks the files of a folder against its list. Returns how many there are, or `None` if there is
/// no list. Files that `record` knows are not read again.
///
/// # Errors
///
/// See [`SumsError`].
pub fn check(folder: &Path, record: &Record) -> Result<Option<usize>, SumsError> {
    let path = folder.join(FILE_NAME);
    let text = match plain_file::read_text(&path, MAX_BYTES) {
        Ok(text) => text,
        Err(PlainFileError::System(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(problem) => return Err(SumsError::Read { path, problem }),
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut count = 0;
    for line in lines {
        let pair = line.split_once(char::is_whitespace);
        // The mark of binary mode, and a path as `find` prints it.
        let pair = pair.map(|(sum, name)| (sum, name.trim_start_matches([' ', '*'])));
        let pair = pair.map(|(sum, name)| (sum, Path::new(name.trim_start_matches("./"))));
        let Some((sum, name)) = pair.filter(|(_, name)| is_plain(name)) else {
            return Err(SumsError::Line { path });
        };
        let file = folder.join(name);
        match record.check(&file, sum) {
            Ok(Verdict::Verified) => count += 1,
            Ok(Verdict::Wrong { actual }) => return Err(SumsError::Wrong { file, actual }),
            Err(problem) => return Err(SumsError::File { file, problem }),
        }
    }
    Ok(Some(count))
}

/// Whether a name stays within its folder.
fn is_plain(name: &Path) -> bool {
    let mut components = name.components();
    let first = components.next();
    let plain = |component| matches!(component, Component::Normal(_));
    first.is_some_and(plain) && components.all(plain)
}

/// Writes the list of a folder that has none.
///
/// # Errors
///
/// When a file cannot be read or the list cannot be written.
pub fn write(folder: &Path) -> io::Result<()> {
    let mut text = String::new();
    for name in plain_file::list(folder)? {
        let sum = verified::sha256(&folder.join(&name))?;
        let name = name.to_string_lossy().replace('\\', "/");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{sum}  {name}");
    }
    fs::write(folder.join(FILE_NAME), text)
}

/// Why a folder is not as its list says.
#[derive(Debug, thiserror::Error)]
pub enum SumsError {
    /// The list cannot be read.
    #[error("cannot read {path}: {problem}; copy the model folder again")]
    Read {
        /// The list.
        path: PathBuf,
        /// Why.
        problem: PlainFileError,
    },
    /// The list is not one.
    #[error("{path} is not a list of hashes and names; copy the model folder again")]
    Line {
        /// The list.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {file}: {problem}; copy the model folder again")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        problem: io::Error,
    },
    /// A file has changed.
    #[error(
        "{file} does not match {FILE_NAME} (its SHA-256 is {actual}); copy the model folder again"
    )]
    Wrong {
        /// The file.
        file: PathBuf,
        /// Its hash.
        actual: String,
    },
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Checks a folder with a file `a` and this list.
    fn check_list(list: &str, expected: Expect) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "a library\n").unwrap();
        fs::write(folder.path().join(FILE_NAME), list).unwrap();
        let shown = match check(folder.path(), &Record::in_folder(None)) {
            Ok(count) => format!("{count:?}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown.replace(folder.path().to_str().unwrap(), ""));
    }

    #[test]
    fn a_list_is_checked() {
        const SUM: &str = "7648f2a9cab0a0bd20bee710f2bbdb30c3990031c0c745986097645b6fabfccd";
        check_list("", expect!["Some(0)"]);
        check_list(&format!("{SUM}  a\n"), expect!["Some(1)"]);
        check_list(&format!("{SUM} *./a\n\n"), expect!["Some(1)"]);
        check_list(
            &format!("{}  a\n", &SUM.replace('7', "8")),
            expect![
                "/a does not match SHA256SUMS (its SHA-256 is 7648f2a9cab0a0bd20bee710f2bbdb30c3990031c0c745986097645b6fabfccd); copy the model folder again"
            ],
        );
        check_list(
            &format!("{SUM}  b\n"),
            expect![
                "cannot read /b: No such file or directory (os error 2); copy the model folder again"
            ],
        );
        for list in ["a", "sum ../a", "sum /etc/passwd", "sum "] {
            check_list(
                list,
                expect![
                    "/SHA256SUMS is not a list of hashes and names; copy the model folder again"
                ],
            );
        }
    }

    #[test]
    fn what_is_written_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let checked = || check(folder.path(), &Record::in_folder(None));
        assert!(checked().unwrap().is_none());
        for name in ["a", "b c"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        write(folder.path()).unwrap();
        assert_eq!(checked().unwrap(), Some(2));
        fs::write(folder.path().join("b c"), "changed").unwrap();
        assert!(matches!(checked(), Err(SumsError::Wrong { .. })));
    }
}
