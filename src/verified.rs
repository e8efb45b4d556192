//! Which files have been verified against their SHA-256, so that a large file is hashed once and
//! not at each start.
//!
//! The record, `verified.json` in the user's cache folder, names each file by its canonical path,
//! with its size, its modification time and its hash, or another fact that was verified. A file is
//! hashed again when its size or time has changed. A record that is missing, damaged or cannot be
//! written only costs time.
//!
//! What is trusted: the record detects damage, not forgery. Anyone who may write to the user's
//! cache, or set the times of a file, can put any file there, and the record does not prevent it.
//! So that no one else need be trusted, a record is ignored, on Unix, unless it belongs to the user
//! and nobody else may write to it. It is never proof that a file is wrong: that is always found
//! from the file itself.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Whether a file is the one it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is: the file was hashed now, or earlier and recorded.
    Verified,
    /// It is not: the file was hashed now.
    Wrong {
        /// Its SHA-256 in lower-case hexadecimal.
        actual: String,
    },
}

/// The SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
///
/// When the file cannot be read.
pub fn sha256(path: &Path) -> io::Result<String> {
    hash(&mut File::open(path)?)
}

/// A record of verified files.
#[derive(Clone, Debug)]
pub struct Record {
    path: Option<PathBuf>,
}

impl Record {
    /// The record in a cache folder, which need not exist. Without a folder, each check reads the
    /// whole file.
    #[must_use]
    pub fn in_folder(folder: Option<&Path>) -> Self {
        let path = folder.map(|folder| folder.join("verified.json"));
        Self { path }
    }

    /// Checks a file against its SHA-256 in hexadecimal.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is not a regular file.
    pub fn check(&self, path: &Path, sha256: &str) -> io::Result<Verdict> {
        let path = fs::canonicalize(path)?;
        // Checked before opening, since opening a pipe waits for its writer.
        if !fs::metadata(&path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut file = File::open(&path)?;
        let fact = sha256.to_ascii_lowercase();
        let before = file.metadata()?;
        if self.has(&path, &before, &fact) {
            return Ok(Verdict::Verified);
        }

        let actual = hash(&mut file)?;
        if !actual.eq_ignore_ascii_case(sha256) {
            return Ok(Verdict::Wrong { actual });
        }
        self.add(&path, &before, &fact);
        Ok(Verdict::Verified)
    }

    /// Finds out whether something is true of the content of a file, unless that is recorded. It is
    /// recorded under `fact`, a short text that is not a SHA-256. Only facts that hold are
    /// recorded.
    ///
    /// # Errors
    ///
    /// When there is no such file, and the error of `find_out`, which it returns if the fact does
    /// not hold.
    pub fn holds<E: From<io::Error>>(
        &self,
        path: &Path,
        fact: &str,
        find_out: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let path = fs::canonicalize(path)?;
        let before = fs::metadata(&path)?;
        if !self.has(&path, &before, fact) {
            find_out()?;
            self.add(&path, &before, fact);
        }
        Ok(())
    }

    fn has(&self, path: &Path, metadata: &Metadata, fact: &str) -> bool {
        let (Some(name), Some(entry)) = (path.to_str(), Entry::of(metadata, fact)) else {
            return false;
        };
        self.read().get(name) == Some(&entry)
    }

    fn read(&self) -> BTreeMap<String, Entry> {
        let opened = self.path.as_deref().map(File::open);
        let Some(Ok(file)) = opened else {
            return BTreeMap::new();
        };
        if !file
            .metadata()
            .is_ok_and(|metadata| is_only_ours(&metadata))
        {
            return BTreeMap::new();
        }
        let mut text = String::new();
        let read = file.take(RECORD_BYTES).read_to_string(&mut text);
        let files = read.ok().and_then(|_| serde_json::from_str(&text).ok());
        files.unwrap_or_default()
    }

    /// Adds a fact about a file that had the metadata `before`, unless it has changed in the
    /// meantime. If two processes add at the same time, one may overwrite the other, whose file is
    /// then hashed again.
    fn add(&self, file: &Path, before: &Metadata, fact: &str) {
        let (Some(name), Some(entry)) = (file.to_str(), Entry::of(before, fact)) else {
            return;
        };
        let after = fs::metadata(file).ok();
        if after.and_then(|after| Entry::of(&after, fact)).as_ref() != Some(&entry) {
            return;
        }
        let Some((path, folder)) = self
            .path
            .as_deref()
            .and_then(|path| Some((path, path.parent()?)))
        else {
            return;
        };
        let mut files = self.read();
        files.retain(|name, _| Path::new(name).exists());
        files.insert(name.to_owned(), entry);
        let write = || -> io::Result<()> {
            fs::create_dir_all(folder)?;
            // Only its owner may read or write it.
            let mut new = tempfile::NamedTempFile::new_in(folder)?;
            let text = serde_json::to_string_pretty(&files)?;
            new.write_all(text.as_bytes())?;
            new.persist(path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, path = %path.display(), "cannot write the record of verified files");
        }
    }
}

/// No more of a record is read. This is enough for some thousand files.
const RECORD_BYTES: u64 = 1 << 20;

/// A file that was changed more recently may change again without a new time: some file systems
/// keep times to two seconds only.
const SETTLED: Duration = Duration::from_secs(3);

/// What is recorded of a verified file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// In bytes.
    size: u64,
    /// The modification time in nanoseconds since 1970.
    modified: u64,
    /// What was verified: its SHA-256 in lower-case hexadecimal, or another fact.
    fact: String,
}

impl Entry {
    /// `None` for a file whose content may change without a change of size or time.
    fn of(metadata: &Metadata, fact: &str) -> Option<Self> {
        let modified = metadata.modified().ok()?;
        let age = SystemTime::now().duration_since(modified).ok()?;
        let modified = modified.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        let modified = u64::try_from(modified).ok()?;
        (age >= SETTLED).then(|| Self {
            size: metadata.len(),
            modified,
            fact: fact.to_owned(),
        })
    }
}

#[cfg(unix)]
fn is_only_ours(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    metadata.is_file() && ours && metadata.mode() & 0o022 == 0
}

/// The user's own cache folder is closed to others by default.
#[cfg(not(unix))]
fn is_only_ours(metadata: &Metadata) -> bool {
    metadata.is_file()
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex::encode(hasher.finalize())),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const CONTENT: &str = "a library\n";
    const SHA256: &str = "7648f2a9cab0a0bd20bee710f2bbdb30c3990031c0c745986097645b6fabfccd";
    /// Of `b library\n`.
    const OTHER: &str = "53816bb184ed39fa85904b966f75e9ef37bcc0bd7afc13bc3a6f08e3848ace01";

    /// A verified file with a record of it.
    struct Home {
        folder: TempDir,
        record: Record,
    }

    impl Home {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let record = Record::in_folder(Some(&folder.path().join("cache")));
            let home = Self { folder, record };
            home.write(CONTENT, Duration::from_hours(1));
            assert_eq!(home.check(SHA256), Verdict::Verified);
            home
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("library")
        }

        fn write(&self, content: &str, age: Duration) {
            fs::write(self.file(), content).unwrap();
            self.touch(age);
        }

        fn touch(&self, age: Duration) {
            let file = File::options().write(true).open(self.file()).unwrap();
            // The same time for each call with the same age.
            let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            let now = if age < SETTLED {
                SystemTime::now()
            } else {
                now
            };
            file.set_modified(now - age).unwrap();
        }

        fn check(&self, sha256: &str) -> Verdict {
            self.record.check(&self.file(), sha256).unwrap()
        }

        /// Whether the file is accepted without being read: its content is changed while its size
        /// and time stay the same.
        fn is_known(&self) -> bool {
            let modified = fs::metadata(self.file()).unwrap().modified().unwrap();
            fs::write(self.file(), "b library\n").unwrap();
            let file = File::options().write(true).open(self.file()).unwrap();
            file.set_modified(modified).unwrap();
            self.check(SHA256) == Verdict::Verified
        }

        fn record(&self) -> PathBuf {
            self.record.path.clone().unwrap()
        }
    }

    fn wrong(actual: &str) -> Verdict {
        let actual = actual.to_owned();
        Verdict::Wrong { actual }
    }

    #[test]
    fn a_verified_file_is_not_read_again() {
        assert!(Home::new().is_known());
    }

    #[test]
    fn another_fact_is_verified_once() {
        let home = Home::new();
        let find_out = |fact: &str, answer: io::Result<()>| {
            let mut asked = false;
            let held = home.record.holds(&home.file(), fact, || {
                asked = true;
                answer
            });
            (asked, held.is_ok())
        };
        let no = || Err(io::Error::other("no"));
        assert_eq!(find_out("loads", no()), (true, false));
        assert_eq!(find_out("loads", Ok(())), (true, true));
        assert_eq!(find_out("loads", no()), (false, true));
        assert_eq!(find_out("sings", no()), (true, false));
        home.write("b library\n", Duration::from_hours(2));
        assert_eq!(find_out("loads", no()), (true, false));
    }

    #[test]
    fn a_changed_file_is_read_again() {
        for (content, hours, verified) in [
            ("b library\n", 2, false),
            (CONTENT, 2, true),
            ("a library\nand more", 1, false),
            ("", 1, false),
        ] {
            let home = Home::new();
            home.write(content, Duration::from_hours(hours));
            let verdict = home.check(SHA256);
            assert_eq!(verdict == Verdict::Verified, verified, "{content:?}");
        }
    }

    #[test]
    fn a_file_that_may_still_change_is_not_recorded() {
        let home = Home::new();
        fs::remove_file(home.record()).unwrap();
        home.write(CONTENT, Duration::ZERO);
        assert_eq!(home.check(SHA256), Verdict::Verified);
        assert!(!home.record().exists());
    }

    #[test]
    fn a_record_is_for_one_hash_in_either_case() {
        let home = Home::new();
        assert_eq!(home.check(OTHER), wrong(SHA256));
        assert_eq!(home.check(&OTHER.to_uppercase()), wrong(SHA256));
        assert_eq!(home.check(&SHA256.to_uppercase()), Verdict::Verified);
        assert!(home.is_known());
    }

    #[test]
    fn a_bad_record_only_costs_time() {
        let good = fs::read_to_string(Home::new().record()).unwrap();
        for bad in ["", "{", "[]", "null", "\0", &good[1..], "{\"/\": {}}"] {
            let home = Home::new();
            fs::write(home.record(), bad).unwrap();
            assert!(!home.is_known(), "{bad:?}");
            home.write(CONTENT, Duration::from_hours(1));
            assert_eq!(home.check(SHA256), Verdict::Verified, "{bad:?}");
            assert!(home.is_known(), "not mended: {bad:?}");
        }
    }

    #[test]
    fn without_a_place_for_the_record_files_are_read() {
        let home = Home::new();
        fs::remove_dir_all(home.record().parent().unwrap()).unwrap();
        fs::write(home.record().parent().unwrap(), "in the way").unwrap();
        assert_eq!(home.check(SHA256), Verdict::Verified);
        assert!(!home.is_known());
        let none = Record::in_folder(None);
        assert_eq!(none.check(&home.file(), OTHER).unwrap(), Verdict::Verified);
        assert_eq!(none.check(&home.file(), SHA256).unwrap(), wrong(OTHER));
    }

    #[test]
    #[cfg(unix)]
    fn a_record_that_others_may_write_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        for (mode, known) in [(0o600, true), (0o644, true), (0o664, false), (0o602, false)] {
            let home = Home::new();
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(home.record(), mode).unwrap();
            assert_eq!(home.is_known(), known);
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_link_is_checked_as_its_file() {
        let home = Home::new();
        let link = home.folder.path().join("link");
        std::os::unix::fs::symlink(home.file(), &link).unwrap();
        home.write("b library\n", Duration::from_hours(1));
        assert_eq!(home.record.check(&link, SHA256).unwrap(), Verdict::Verified);
        home.write("b library\n", Duration::from_hours(2));
        assert_eq!(home.record.check(&link, SHA256).unwrap(), wrong(OTHER));
    }

    #[test]
    fn files_that_no_longer_exist_are_removed() {
        let home = Home::new();
        let other = home.folder.path().join("other");
        fs::rename(home.file(), &other).unwrap();
        assert_eq!(
            home.record.check(&other, SHA256).unwrap(),
            Verdict::Verified
        );
        let files = home.record.read();
        let names: Vec<_> = files.keys().map(PathBuf::from).collect();
        assert_eq!(names, [fs::canonicalize(other).unwrap()]);
    }

    #[test]
    fn what_is_not_a_file_is_an_error() {
        let home = Home::new();
        let missing = home.folder.path().join("missing");
        let error = home.record.check(&missing, SHA256).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = home.record.check(home.folder.path(), SHA256).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }

    #[test]
    #[cfg(unix)]
    fn a_pipe_is_not_waited_for() {
        let home = Home::new();
        let pipe = home.folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let error = home.record.check(&pipe, SHA256).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }
}
