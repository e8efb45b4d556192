//! The edges of a task: its source from a document, and its outcome as an answer or an edit.

use ropey::Rope;
use serde_json::{Value, json};
use tower_lsp::ls_types::{
    DocumentChanges, OneOf, OptionalVersionedTextDocumentIdentifier, Range, TextDocumentEdit,
    TextEdit, WorkspaceEdit,
};

use super::commands::{TaskArguments, TaskKind};
use crate::tasks::fix::Problem;
use crate::tasks::{Outcome, Output, Source, Task};
use crate::text::document::Snapshot;
use crate::text::language::Language;
use crate::text::position::{self, PositionEncoding};

/// How many programs are generated to solve a problem.
const DRAWS: usize = 20;

/// The largest text that a task accepts, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// What a task is about: the snapshot with `\n` as its line ends, which moves no position.
///
/// # Errors
///
/// When no task knows its language, or it is too large.
pub fn source(
    kind: &TaskKind,
    arguments: &TaskArguments,
    snapshot: &Snapshot,
    encoding: PositionEncoding,
) -> Result<Source, String> {
    let of_document = Language::from_name(&snapshot.language_id);
    let language = match kind {
        // A problem may be stated in prose.
        TaskKind::Solve(named) => named.unwrap_or(of_document.unwrap_or(Language::Python)),
        _ => of_document.map_err(|error| error.to_string())?,
    };
    let length = snapshot.rope.len_bytes();
    if length > MAX_BYTES {
        return Err(format!(
            "the file has {length} bytes; a task accepts at most {MAX_BYTES}"
        ));
    }
    let range = arguments.range;
    let text = snapshot.rope.to_string().replace("\r\n", "\n");
    let rope = Rope::from_str(&text);
    let selection = range.map_or(0..0, |range| {
        let offset = |at| position::offset(&rope, at, encoding);
        let (start, end) = (offset(range.start), offset(range.end));
        start.min(end)..start.max(end)
    });
    Ok(Source {
        file_name: snapshot.shown_name(),
        language,
        text,
        selection,
    })
}

/// The task that a command asks for, about `source`.
#[must_use]
pub fn task(
    kind: &TaskKind,
    arguments: &TaskArguments,
    source: &Source,
    encoding: PositionEncoding,
) -> Task {
    match kind {
        TaskKind::Translate(language) => Task::Translate(*language),
        TaskKind::Generate(None) => Task::Generate,
        TaskKind::Generate(Some(words)) => Task::Write(words.clone()),
        TaskKind::Explain => Task::Explain,
        TaskKind::Document => Task::Document,
        TaskKind::Test => Task::Test,
        TaskKind::Fix => {
            let rope = Rope::from_str(&source.text);
            let problems = arguments.diagnostics.iter().map(|diagnostic| Problem {
                offset: position::offset(&rope, diagnostic.range.start, encoding),
                message: diagnostic.message.clone(),
            });
            Task::Fix(problems.collect())
        }
        TaskKind::Solve(_) => Task::Solve {
            draws: DRAWS,
            best: 1,
        },
    }
}

/// The command's result: the new text, if there is one, and what the user should know.
#[must_use]
pub fn answer(outcome: &Outcome) -> Value {
    let Outcome {
        output,
        complete,
        notes,
    } = outcome;
    match output {
        Output::Text {
            language_id,
            file_name,
            text,
        } => json!({
            "text": text,
            "languageId": language_id,
            "fileName": file_name,
            "complete": complete,
            "notes": notes,
        }),
        Output::Edit(..) => json!({ "complete": complete, "notes": notes }),
    }
}

/// The task's edit of the snapshot's document, if it has one. The client rejects it if the document
/// has changed since.
#[must_use]
pub fn edit(
    outcome: &Outcome,
    source: &Source,
    snapshot: &Snapshot,
    encoding: PositionEncoding,
) -> Option<WorkspaceEdit> {
    let Output::Edit(range, text) = &outcome.output else {
        return None;
    };
    let rope = Rope::from_str(&source.text);
    let position = |offset| position::position(&rope, offset, encoding);
    let crlf = snapshot.rope.lines().next().is_some_and(|line| {
        let length = line.len_bytes();
        line.byte_slice(length.saturating_sub(2)..) == "\r\n"
    });
    let new_text = match crlf {
        true => text.replace('\n', "\r\n"),
        false => text.clone(),
    };
    let edit = TextEdit {
        range: Range::new(position(range.start), position(range.end)),
        new_text,
    };
    Some(WorkspaceEdit {
        document_changes: Some(DocumentChanges::Edits(vec![TextDocumentEdit {
            text_document: OptionalVersionedTextDocumentIdentifier {
                uri: snapshot.uri.parse().ok()?,
                version: Some(snapshot.version),
            },
            edits: vec![OneOf::Left(edit)],
        }])),
        ..WorkspaceEdit::default()
    })
}
