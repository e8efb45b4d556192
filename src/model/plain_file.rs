//! Reads a file of a model folder, which is untrusted: never a pipe or a device, and no more than a
//! limit.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The bytes of the plain file `path`, which are at most `limit`.
///
/// # Errors
///
/// See [`PlainFileError`]. What is not a plain file is not opened, because a pipe may never end.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, PlainFileError> {
    if !path.metadata()?.is_file() {
        return Err(PlainFileError::NotPlain);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(PlainFileError::TooLarge(limit)),
        false => Ok(bytes),
    }
}

/// The text of the plain file `path`, which has at most `limit` bytes.
///
/// # Errors
///
/// See [`PlainFileError`].
pub fn read_text(path: &Path, limit: u64) -> Result<String, PlainFileError> {
    String::from_utf8(read(path, limit)?).map_err(|_| PlainFileError::NotText)
}

/// The plain files of a folder and of the folders in it, relative to it and sorted.
///
/// # Errors
///
/// When the folder cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = PathBuf::from(entry?.file_name());
        let path = folder.join(&name);
        if path.is_file() {
            files.push(name);
        } else if path.is_dir() {
            let inner = std::fs::read_dir(&path)?.flatten();
            let inner = inner.filter(|entry| entry.path().is_file());
            files.extend(inner.map(|entry| name.join(entry.file_name())));
        }
    }
    files.sort();
    Ok(files)
}

/// Why a file is not read. The caller puts the file's name before this.
#[derive(Debug, thiserror::Error)]
pub enum PlainFileError {
    /// The system refuses.
    #[error(transparent)]
    System(#[from] io::Error),
    /// It is a folder, a pipe or a device.
    #[error("it is not a plain file")]
    NotPlain,
    /// It is larger than any file of its kind, in bytes.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// It is not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &Path, expected: Result<&str, &str>) {
        let read = read_text(path, 4).map_err(|error| error.to_string());
        assert_eq!(read.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn only_plain_files_of_a_sensible_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        for (bytes, expected) in [
            (&b"abcd"[..], Ok("abcd")),
            (b"abcde", Err("it is larger than 4 bytes")),
            (b"\xff", Err("it is not UTF-8 text")),
        ] {
            std::fs::write(&file, bytes).unwrap();
            check(&file, expected);
        }
        check(folder.path(), Err("it is not a plain file"));
        assert!(read(&folder.path().join("none"), 4).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_or_a_device_is_not_opened() {
        use std::os::unix::net::UnixListener;

        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for path in [&pipe, &socket, Path::new("/dev/zero")] {
            check(path, Err("it is not a plain file"));
        }
    }
}
