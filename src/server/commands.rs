//! Tasks in the protocol: commands with arguments, progress, and what comes of them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_lsp::ls_types::notification::Notification;
use tower_lsp::ls_types::{
    CodeAction, CodeActionKind, CodeActionOrCommand, CodeActionParams, CodeActionResponse,
    CodeActionTriggerKind, Command, Diagnostic, DocumentChanges, OneOf,
    OptionalVersionedTextDocumentIdentifier, ProgressToken, Range, TextDocumentEdit, TextEdit, Uri,
    WorkspaceEdit,
};

use crate::tasks::fix::Problem;
use crate::tasks::{Outcome, Output, Source, Task};
use crate::text::document::Snapshot;
use crate::text::language::Language;
use crate::text::position::{self, PositionEncoding};
use ropey::Rope;

/// The commands that are tasks; each takes [`TaskArguments`], and words behind them: `translate` and
/// `solve` the language, `generate` what to write.
pub const COMMANDS: [&str; 7] = [
    "interline.translate",
    "interline.generate",
    "interline.explain",
    "interline.document",
    "interline.test",
    "interline.fix",
    SOLVE,
];

/// The one that runs programs, for which the user is asked.
pub const SOLVE: &str = "interline.solve";

/// Programs that are drawn to solve a problem.
const DRAWS: usize = 20;

/// The one argument of a task's command.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskArguments {
    /// The document, which must be open.
    pub uri: Uri,
    /// The part that is meant; without one, all of it.
    pub range: Option<Range>,
    /// For `fix`: what is wrong.
    #[serde(default)]
    diagnostics: Vec<Diagnostic>,
    /// Where to send the answer's text while it is written, as `$/progress`.
    pub partial_result_token: Option<ProgressToken>,
    /// The words behind.
    #[serde(skip)]
    words: String,
}

/// `$/progress`, whatever goes on.
#[derive(Debug)]
pub enum Progress {}

impl Notification for Progress {
    type Params = ProgressParams;
    const METHOD: &'static str = "$/progress";
}

/// See [`Progress`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProgressParams {
    /// What it is about.
    pub token: ProgressToken,
    /// A `WorkDoneProgress`, or a part of a text.
    pub value: Value,
}

impl TaskArguments {
    /// Reads a command's arguments.
    ///
    /// # Errors
    ///
    /// When they are not what the command takes.
    pub fn read(command: &str, arguments: Vec<Value>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let first = arguments.next().unwrap_or_default();
        let read: Result<Self, _> = serde_json::from_value(first);
        let words: Result<Vec<String>, _> = arguments.map(serde_json::from_value).collect();
        match (read, words) {
            (Ok(read), Ok(words)) => Ok(Self {
                words: words.join(" "),
                ..read
            }),
            (Err(error), _) | (_, Err(error)) => {
                Err(format!("{command} takes {{uri, range}} and words: {error}"))
            }
        }
    }

    /// The language that is named, for commands that take one.
    fn language(&self) -> Result<Language, String> {
        Language::from_name(&self.words).map_err(|error| error.to_string())
    }

    /// The language of the text a task is about: the document's, or where a problem is stated in
    /// prose, the one to solve it in.
    fn source_language(&self, command: &str, language_id: &str) -> Result<Language, String> {
        match (command, self.words.as_str()) {
            (SOLVE, "") => Ok(Language::from_name(language_id).unwrap_or(Language::Python)),
            (SOLVE, _) => self.language(),
            _ => Language::from_name(language_id).map_err(|error| error.to_string()),
        }
    }

    /// The task that `command` is, about `source`, which is the document `snapshot`.
    ///
    /// # Errors
    ///
    /// When something is missing or unknown; the text names it.
    pub fn task(
        &self,
        command: &str,
        source: &Source,
        encoding: PositionEncoding,
    ) -> Result<Task, String> {
        Ok(match command.trim_start_matches("interline.") {
            "translate" => Task::Translate(self.language()?),
            "generate" => match self.words.as_str() {
                "" => Task::Generate,
                words => Task::Write(words.to_owned()),
            },
            "solve" => Task::Solve {
                draws: DRAWS,
                best: 1,
            },
            "explain" => Task::Explain,
            "document" => Task::Document,
            "test" => Task::Test,
            "fix" => {
                let rope = Rope::from_str(&source.text);
                let problem = |diagnostic: &Diagnostic| Problem {
                    offset: position::offset(&rope, diagnostic.range.start, encoding),
                    message: diagnostic.message.clone(),
                };
                Task::Fix(self.diagnostics.iter().map(problem).collect())
            }
            other => return Err(format!("{other} is no task")),
        })
    }
}

/// What can be done with the selection, or with the diagnostics in it.
#[must_use]
pub fn actions(params: &CodeActionParams) -> CodeActionResponse {
    let CodeActionParams {
        text_document,
        range,
        context,
        ..
    } = params;
    let action = |title: &str, command: &str, kind: CodeActionKind| {
        let arguments = json!({
            "uri": text_document.uri,
            "range": range,
            "diagnostics": context.diagnostics,
        });
        CodeActionOrCommand::CodeAction(CodeAction {
            title: format!("Interline: {title}"),
            kind: Some(kind),
            command: Some(Command {
                title: title.to_owned(),
                command: command.to_owned(),
                arguments: Some(vec![arguments]),
            }),
            ..CodeAction::default()
        })
    };
    let mut actions = Vec::new();
    if !context.diagnostics.is_empty() {
        actions.push(action(
            "fix this",
            "interline.fix",
            CodeActionKind::QUICKFIX,
        ));
    }
    let invoked = context.trigger_kind == Some(CodeActionTriggerKind::INVOKED);
    if invoked || range.start != range.end {
        for (title, command) in [
            ("explain", "interline.explain"),
            ("document", "interline.document"),
            ("write a test", "interline.test"),
        ] {
            actions.push(action(title, command, CodeActionKind::REFACTOR));
        }
    }
    let only = context.only.as_deref().unwrap_or_default();
    let wanted = |action: &CodeActionOrCommand| match action {
        CodeActionOrCommand::CodeAction(CodeAction {
            kind: Some(kind), ..
        }) => {
            let kind = kind.as_str();
            only.iter().any(|only| {
                let rest = kind.strip_prefix(only.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        }
        _ => false,
    };
    actions.retain(|action| only.is_empty() || wanted(action));
    actions
}

/// Texts above this, in bytes, are too large for any task.
const MOST: usize = 1 << 20;

/// What the task `command` is about: the snapshot with line ends `\n`, which moves no position.
///
/// # Errors
///
/// When its language is not one that tasks know, or it is too large.
pub fn source(
    command: &str,
    arguments: &TaskArguments,
    snapshot: &Snapshot,
    encoding: PositionEncoding,
) -> Result<Source, String> {
    let language = arguments.source_language(command, &snapshot.language_id)?;
    let length = snapshot.rope.len_bytes();
    if length > MOST {
        return Err(format!(
            "the file has {length} bytes; a task takes {MOST} at most"
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
        file_name: snapshot.file_name(),
        language,
        text,
        selection,
    })
}

/// What the command answers: the new text, if there is one, and what the user should know.
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

/// The change of the snapshot's document that the task wants, if it wants one. The client refuses it
/// if the document has moved on.
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
