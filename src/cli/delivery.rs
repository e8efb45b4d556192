//! How the outcome of a task reaches the user: printed, as a diff, into a file, or as JSON.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use similar::TextDiff;

use super::say;
use crate::server::outcome::answer;
use crate::tasks::{Outcome, Output, Task};

/// Lines around each change in a diff.
const CONTEXT: usize = 3;

/// Where the outcome goes. By default, a change of a file and a new test are printed as a unified
/// diff, which `git apply` takes, and any other text as it is.
#[derive(Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(super) struct Delivery {
    /// Change the file, or create a new one beside it, instead of printing a diff
    #[arg(long)]
    write: bool,
    /// Write the whole new text to a file; - for standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// The text that a task is about, as it is stored.
#[derive(Debug, Default)]
pub(super) struct Original {
    /// Its file; none for standard input, or if the task is not about a file.
    pub(super) file: Option<PathBuf>,
    /// The text, with its own line ends.
    pub(super) text: String,
}

impl Delivery {
    /// Delivers the outcome of `task`.
    ///
    /// # Errors
    ///
    /// When a file cannot be written: one that has changed meanwhile is left alone, and so is one
    /// that exists where a new one should be.
    pub(super) fn deliver(
        &self,
        task: &Task,
        original: &Original,
        outcome: &Outcome,
    ) -> anyhow::Result<()> {
        if self.json {
            return print(&format!("{}\n", json(original, outcome)));
        }
        for note in &outcome.notes {
            say(note);
        }
        let (file, before, after) = match &outcome.output {
            Output::Text {
                file_name, text, ..
            } => {
                let beside = original.file.as_deref().and_then(Path::parent);
                let file = beside.unwrap_or(Path::new("")).join(file_name);
                (file, None, text.clone())
            }
            Output::Edit(range, replacement) => {
                let file = original.file.clone().unwrap_or_else(|| "input".into());
                let after = applied(&original.text, range.clone(), replacement);
                (file, Some(original.text.as_str()), after)
            }
        };
        match &self.output {
            Some(output) if output != Path::new("-") => {
                return std::fs::write(output, after)
                    .with_context(|| format!("cannot write {}", output.display()));
            }
            Some(_) => return print(&after),
            None => {}
        }
        if self.write {
            ensure!(
                original.file.is_some(),
                "there is no file that --write could change; name one with --output"
            );
            return match before {
                Some(before) => replace(&file, before, &after),
                None => create(&file, &after),
            };
        }
        match (task, before) {
            (Task::Test, _) | (_, Some(_)) => print(&diff(&file, before, &after)),
            _ => print(&after),
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// The answer that an editor gets; for a change also its file, and its range in bytes of it.
fn json(original: &Original, outcome: &Outcome) -> serde_json::Value {
    let mut answer = answer(outcome);
    if let Output::Edit(range, replacement) = &outcome.output {
        let Range { start, end } = in_original(&original.text, range.clone());
        answer["file"] = json!(original.file);
        answer["edit"] = json!({
            "start": start, "end": end, "text": with_line_ends(replacement, &original.text),
        });
    }
    answer
}

/// The original with `range`, in bytes of the text with `\n` as its line ends, replaced.
fn applied(original: &str, range: Range<usize>, replacement: &str) -> String {
    let mut text = original.to_owned();
    let replacement = with_line_ends(replacement, original);
    text.replace_range(in_original(original, range), &replacement);
    text
}

/// A range of the text with `\n` as its line ends, as a range of the original.
fn in_original(original: &str, range: Range<usize>) -> Range<usize> {
    let returns: Vec<usize> = original.match_indices("\r\n").map(|(at, _)| at).collect();
    let offset = |offset: usize| {
        let before = returns.iter().enumerate();
        let before = before.take_while(|(index, at)| **at - index < offset);
        offset + before.count()
    };
    offset(range.start)..offset(range.end)
}

/// `text` with the line ends of the original's first line.
fn with_line_ends(text: &str, original: &str) -> String {
    match original.split_once('\n') {
        Some((line, _)) if line.ends_with('\r') => text.replace('\n', "\r\n"),
        _ => text.to_owned(),
    }
}

/// A unified diff; without a `before`, of a new file.
fn diff(file: &Path, before: Option<&str>, after: &str) -> String {
    // Both separators are right on Windows, but only this one in a diff.
    let path = file.to_string_lossy().replace('\\', "/");
    let path = path.strip_prefix("./").unwrap_or(&path);
    let (a, b) = match file.is_absolute() {
        true => (path.to_owned(), path.to_owned()),
        false => (format!("a/{path}"), format!("b/{path}")),
    };
    let a = before.map_or("/dev/null", |_| &a);
    TextDiff::from_lines(before.unwrap_or_default(), after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(a, &b)
        .to_string()
}

/// Replaces the file, unless it is no longer what the task saw.
fn replace(file: &Path, before: &str, after: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    // A link is followed, not replaced.
    let target = file.canonicalize().with_context(cannot)?;
    if std::fs::read(&target).with_context(cannot)? != before.as_bytes() {
        bail!(
            "{} has changed meanwhile, and was left alone; run the task again",
            file.display()
        );
    }
    let folder = target.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder).with_context(cannot)?;
    new.write_all(after.as_bytes()).with_context(cannot)?;
    let permissions = std::fs::metadata(&target)
        .with_context(cannot)?
        .permissions();
    new.as_file()
        .set_permissions(permissions)
        .with_context(cannot)?;
    new.persist(&target).with_context(cannot)?;
    say(&format!("changed {}", file.display()));
    Ok(())
}

fn create(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut new = std::fs::File::create_new(file).with_context(|| {
        format!(
            "cannot create {}; name another file with --output",
            file.display()
        )
    })?;
    new.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", file.display()))?;
    say(&format!("wrote {}", file.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn edit(range: Range<usize>, text: &str) -> Outcome {
        Outcome {
            output: Output::Edit(range, text.to_owned()),
            complete: true,
            notes: Vec::new(),
        }
    }

    fn test_file() -> Outcome {
        Outcome {
            output: Output::Text {
                language_id: "python",
                file_name: "test_a.py".to_owned(),
                text: "assert f()\n".to_owned(),
            },
            complete: true,
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_change_is_shown_as_a_diff() {
        let check = |file: &str, before: Option<&str>, after: &str, expected: Expect| {
            expected.assert_eq(&diff(Path::new(file), before, after));
        };
        check(
            "./src/a.py",
            Some("a\nb\nc\nd\ne\nf\n"),
            "a\nb\nc\nd\n# e\ne\nf\n",
            expect![[r#"
                --- a/src/a.py
                +++ b/src/a.py
                @@ -2,5 +2,6 @@
                 b
                 c
                 d
                +# e
                 e
                 f
            "#]],
        );
        check(
            "test_a.py",
            None,
            "assert f()\n",
            expect![[r#"
                --- /dev/null
                +++ b/test_a.py
                @@ -0,0 +1 @@
                +assert f()
            "#]],
        );
        check("a.py", Some("a\n"), "a\n", expect![""]);
    }

    proptest! {
        #[test]
        fn a_change_keeps_the_line_ends(
            lines in prop::collection::vec("[ab]{0,3}", 1..6),
            crlf in any::<bool>(),
            at in any::<prop::sample::Index>(),
            length in any::<prop::sample::Index>(),
            new in "[xy\n]{0,4}",
        ) {
            let text = lines.join("\n");
            let start = at.index(text.len() + 1);
            let end = start + length.index(text.len() - start + 1);
            let mut expected = text.clone();
            expected.replace_range(start..end, &new);
            let (original, expected) = match crlf && lines.len() > 1 {
                true => (text.replace('\n', "\r\n"), expected.replace('\n', "\r\n")),
                false => (text, expected),
            };
            prop_assert_eq!(applied(&original, start..end, &new), expected);
        }
    }

    #[test]
    fn mixed_line_ends_stay_where_they_are() {
        assert_eq!(applied("a\nb\r\nc\r\nd", 2..5, "x\n"), "a\nx\n\r\nd");
        assert_eq!(applied("a\r\nb\nc", 2..3, "x"), "a\r\nx\nc");
    }

    #[test]
    fn a_file_is_changed_unless_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.py");
        let delivery = Delivery {
            write: true,
            ..Delivery::default()
        };
        let original = Original {
            file: Some(file.clone()),
            text: "def f():\r\n    pass\r\n".to_owned(),
        };
        fs::write(&file, &original.text).unwrap();
        let comment = edit(9..9, "    \"\"\"Do.\"\"\"\n");
        let deliver = || delivery.deliver(&Task::Document, &original, &comment);
        deliver().unwrap();
        let changed = "def f():\r\n    \"\"\"Do.\"\"\"\r\n    pass\r\n";
        assert_eq!(fs::read_to_string(&file).unwrap(), changed);
        // It is not what the task saw any more.
        let error = deliver().unwrap_err().to_string();
        assert!(error.contains("has changed meanwhile"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), changed);
        // Nothing else was left in the folder.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_and_the_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.sh"), folder.path().join("b.sh"));
        fs::write(&file, "a\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o751)).unwrap();
        symlink(&file, &link).unwrap();
        replace(&link, "a\n", "b\n").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "b\n");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o751);
    }

    #[test]
    fn a_new_file_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let original = Original {
            file: Some(folder.path().join("a.py")),
            ..Original::default()
        };
        let delivery = Delivery {
            write: true,
            ..Delivery::default()
        };
        let deliver = || delivery.deliver(&Task::Test, &original, &test_file());
        deliver().unwrap();
        let file = folder.path().join("test_a.py");
        assert_eq!(fs::read_to_string(&file).unwrap(), "assert f()\n");
        fs::write(&file, "mine").unwrap();
        let error = deliver().unwrap_err().to_string();
        assert!(error.contains("name another file with --output"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let named = Delivery {
            output: Some(file.clone()),
            ..Delivery::default()
        };
        named.deliver(&Task::Test, &original, &test_file()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "assert f()\n");
    }

    #[test]
    fn standard_input_cannot_be_changed() {
        let delivery = Delivery {
            write: true,
            ..Delivery::default()
        };
        let nowhere = Original::default();
        let delivered = delivery.deliver(&Task::Document, &nowhere, &edit(0..0, "#\n"));
        let error = delivered.unwrap_err().to_string();
        assert!(error.contains("--output"), "{error}");
    }

    #[test]
    fn tools_get_the_change_as_json() {
        let original = Original {
            file: Some("a.py".into()),
            text: "a\r\nb\r\n".to_owned(),
        };
        let found = json(&original, &edit(2..3, "x\ny"));
        let expected = json!({
            "complete": true, "notes": [], "file": "a.py",
            "edit": { "start": 3, "end": 4, "text": "x\r\ny" },
        });
        assert_eq!(found, expected);
    }
}
