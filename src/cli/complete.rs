//! `interline complete FILE:LINE:COL`: prints what an editor would show there.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{ready_completer, say};
use crate::server::settings::Options;
use crate::suggest::Face;
use crate::text::context::Trigger;
use crate::text::document::Documents;
use crate::text::language::id_of_file;
use crate::text::position::{Position, PositionEncoding};

/// The arguments of `interline complete`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The cursor: lines and columns count from 1, columns in characters
    #[arg(value_name = "FILE:LINE:COL")]
    place: Place,
    /// Print JSON, including what it cost
    #[arg(long)]
    json: bool,
    /// Print the line with the completion inserted
    #[arg(long, conflicts_with = "json")]
    show: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    file: PathBuf,
    line: u32,
    column: u32,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected FILE:LINE:COL, with numbers from 1";
        // From the right, because a file name may contain colons.
        let mut parts = text.rsplitn(3, ':');
        let mut number = || {
            let number: u32 = parts.next()?.parse().ok()?;
            number.checked_sub(1)
        };
        let column = number().ok_or(FORM)?;
        let line = number().ok_or(FORM)?;
        let file = parts.next().filter(|file| !file.is_empty()).ok_or(FORM)?;
        Ok(Self {
            file: file.into(),
            line,
            column,
        })
    }
}

/// Returns whether there is something to show.
pub(super) async fn run(arguments: &Arguments, options: Options) -> anyhow::Result<bool> {
    let Place { file, line, column } = &arguments.place;
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let text = String::from_utf8(bytes)
        .with_context(|| format!("{} is not UTF-8 text", file.display()))?;
    let documents = Arc::new(Documents::new());
    let path = std::path::absolute(file)?;
    let uri = path.to_string_lossy().into_owned();
    documents.open(&uri, path, id_of_file(file).to_owned(), 0, &text);
    let position = Position::new(*line, *column);
    let snapshot = documents
        .snapshot(&uri, position, PositionEncoding::Utf32)
        .context("the document is not open")?;
    let lines = snapshot.rope.len_lines();
    ensure!(
        (*line as usize) < lines,
        "{} has only {lines} lines",
        file.display()
    );

    let (completer, _) = ready_completer(&options, documents, say).await?;
    let answer = completer
        .complete(&snapshot, Trigger::Automatic, Face::Ghost)
        .await;
    let texts = answer
        .as_ref()
        .map(|completions| completions.texts.as_slice());
    let mut out = std::io::stdout().lock();
    match texts {
        _ if arguments.json => {
            let record = completer.records().swap_remove(0);
            let json = json!({ "texts": texts.unwrap_or_default(), "record": record });
            writeln!(out, "{}", serde_json::to_string_pretty(&json)?)?;
        }
        Ok([text, ..]) if arguments.show => {
            let line_start = snapshot
                .rope
                .line_to_byte(snapshot.rope.byte_to_line(snapshot.offset));
            let before = snapshot.rope.byte_slice(line_start..snapshot.offset);
            let after = snapshot.rope.byte_slice(snapshot.offset..);
            let after = after
                .lines()
                .next()
                .map(|line| line.to_string())
                .unwrap_or_default();
            let (dim, normal) = match std::io::stdout().is_terminal() {
                true => ("\u{1b}[2m", "\u{1b}[0m"),
                false => ("", ""),
            };
            writeln!(out, "{before}{dim}{text}{normal}{}", after.trim_end())?;
        }
        Ok(texts) => writeln!(out, "{}", texts.first().map_or("", String::as_str))?,
        Err(silence) => writeln!(std::io::stderr(), "nothing to show: {silence}")?,
    }
    Ok(texts.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_a_line_and_a_column() {
        let place = |file: &str, line, column| Place {
            file: file.into(),
            line,
            column,
        };
        assert_eq!("a.py:1:2".parse(), Ok(place("a.py", 0, 1)));
        assert_eq!("c:/a.py:10:1".parse(), Ok(place("c:/a.py", 9, 0)));
        for wrong in [
            "a.py", "a.py:1", "a.py:0:1", "a.py:1:0", ":1:1", "a.py:x:1", "",
        ] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
