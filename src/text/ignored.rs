//! Files that a `.gitignore` or a `.interlineignore` excludes.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The name of the files that list what only Interline must not read. Their syntax is that of
/// `.gitignore`.
pub const INTERLINE_IGNORE: &str = ".interlineignore";

/// A file of rules that is larger than this, in bytes, is ignored.
const MAX_BYTES: u64 = 1024 * 1024;

/// Whether git ignores `file`, a real and absolute path: by the rules in its folder and in those
/// above it up to the repository's root, by the repository's `info/exclude` or by the user's rules.
#[must_use]
pub fn by_git(file: &Path) -> bool {
    let mut folders: Vec<&Path> = file.ancestors().skip(1).collect();
    let repository = folders
        .iter()
        .position(|folder| folder.join(".git").exists());
    if let Some(at) = repository {
        folders.truncate(at + 1);
    }
    let mut rules = vec![Gitignore::global().0];
    if let Some(root) = folders.last() {
        rules.push(read(root, &root.join(".git/info/exclude")));
    }
    ignored(file, &folders, ".gitignore", rules)
}

/// Whether a `.interlineignore` in the folder of `file`, a real and absolute path, or in one above
/// it excludes the file.
#[must_use]
pub fn by_interline(file: &Path) -> bool {
    let folders: Vec<&Path> = file.ancestors().skip(1).collect();
    ignored(file, &folders, INTERLINE_IGNORE, Vec::new())
}

/// Whether the rule files called `name` in `folders`, the deepest first, ignore `file` or a folder
/// that contains it: nothing in an ignored folder can be included again. All of them take
/// precedence over `rules`.
fn ignored(file: &Path, folders: &[&Path], name: &str, mut rules: Vec<Gitignore>) -> bool {
    // From the root down, so that the last rule that matches decides.
    for (at, folder) in folders.iter().enumerate().rev() {
        rules.push(read(folder, &folder.join(name)));
        let step = match at {
            0 => file,
            at => folders[at - 1],
        };
        let matches = rules.iter().rev().map(|rules| rules.matched(step, at > 0));
        let decides = matches.into_iter().find(|found| !found.is_none());
        if matches!(decides, Some(Match::Ignore(_))) {
            return true;
        }
    }
    false
}

/// The rules in `file`, which apply to `folder`.
fn read(folder: &Path, file: &Path) -> Gitignore {
    let plain = file.metadata();
    if !plain.is_ok_and(|plain| plain.is_file() && plain.len() <= MAX_BYTES) {
        return Gitignore::empty();
    }
    let mut rules = GitignoreBuilder::new(folder);
    // As in git, lines that are not valid rules are skipped.
    let _ = rules.add(file);
    rules.build().unwrap_or_else(|_| Gitignore::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a folder with these files and checks which of `paths` are ignored.
    fn check(files: &[(&str, &str)], ignored: fn(&Path) -> bool, paths: &[(&str, bool)]) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        for (path, expected) in paths {
            assert_eq!(
                ignored(&root.join(path)),
                *expected,
                "{path} with {files:?}"
            );
        }
    }

    const GIT: (&str, &str) = (".git/config", "");

    #[test]
    fn ignores_what_git_ignores() {
        check(
            &[GIT, (".gitignore", "*.ts\n!b.ts\n/c.py\nout/\n")],
            by_git,
            &[
                ("a.ts", true),
                ("b.ts", false),
                ("src/a.ts", true),
                ("c.py", true),
                ("src/c.py", false),
                ("out/a.py", true),
                ("src/out/deep/a.py", true),
                ("output/a.py", false),
                ("a.py", false),
            ],
        );
        check(
            &[
                GIT,
                (".gitignore", "*.ts\nout/\n"),
                ("src/.gitignore", "!a.ts\nb.py"),
                ("out/.gitignore", "!a.py"),
            ],
            by_git,
            &[
                ("src/a.ts", false),
                ("src/deep/a.ts", false),
                ("src/c.ts", true),
                ("src/b.py", true),
                ("b.py", false),
                ("out/a.py", true),
            ],
        );
        check(
            &[GIT, (".git/info/exclude", "a.py")],
            by_git,
            &[("a.py", true), ("src/a.py", true), ("b.py", false)],
        );
    }

    #[test]
    fn rules_above_a_repository_do_not_apply_in_it() {
        let files = [(".gitignore", "*.py"), ("inner/.git/config", "")];
        check(&files, by_git, &[("inner/a.py", false), ("a.py", true)]);
    }

    #[test]
    fn interline_rules_apply_in_every_folder_below() {
        check(
            &[
                (INTERLINE_IGNORE, "*.ts\nprivate/"),
                ("inner/.git/config", ""),
                ("inner/.interlineignore", "!a.ts"),
                (".gitignore", "*.rs"),
            ],
            by_interline,
            &[
                ("b.ts", true),
                ("inner/b.ts", true),
                ("inner/a.ts", false),
                ("private/a.py", true),
                ("a.rs", false),
            ],
        );
    }

    #[cfg(unix)]
    #[test]
    fn rules_that_are_not_a_regular_file_are_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join(".gitignore");
        let made = std::process::Command::new("mkfifo").arg(pipe).status();
        assert!(made.unwrap().success());
        assert!(!by_git(&folder.path().join("a.py")));
    }
}
