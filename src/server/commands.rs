//! The commands: one table from a name to a command with typed arguments.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower_lsp::ls_types::{
    CodeAction, CodeActionKind, CodeActionOrCommand, CodeActionParams, CodeActionResponse,
    CodeActionTriggerKind, Command as LspCommand, Diagnostic, ProgressToken, Range, Uri,
};

use crate::model::store::name::{Name, NameError};
use crate::text::language::Language;

/// The command that an item carries, which the client runs when the user has accepted it: `[id]`.
pub const ACCEPT: &str = "interline.accept";

/// The command that returns the latest records, newest first: all that are kept, or `[count]`.
pub const WHY: &str = "interline.why";

/// The command that returns the server's text of an open document, or `null` if it is not open:
/// `[uri]`. It must equal the editor's text.
pub const DOCUMENT_TEXT: &str = "interline.documentText";

/// The command that returns the models that can be pulled and those that are here.
pub const MODELS: &str = "interline.models";

/// The command that pulls a model: `[NAME]` or `[OWNER/REPO[:FILE]]`.
pub const PULL_MODEL: &str = "interline.pullModel";

/// The command that takes a model into use, here and in the store: `[NAME]`.
pub const USE_MODEL: &str = "interline.useModel";

/// A command with its arguments.
#[derive(Clone, Debug)]
pub enum Command {
    /// See [`ACCEPT`].
    Accept(u64),
    /// See [`WHY`].
    Why(Option<usize>),
    /// See [`DOCUMENT_TEXT`].
    DocumentText(Uri),
    /// See [`MODELS`].
    Models,
    /// See [`PULL_MODEL`].
    PullModel(String),
    /// See [`USE_MODEL`].
    UseModel(Name),
    /// A task.
    Task(TaskKind, TaskArguments),
}

/// Which task, with what was read from the words that follow [`TaskArguments`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// Translate to this language.
    Translate(Language),
    /// Write what these words describe, or what the comment at the cursor describes.
    Generate(Option<String>),
    /// Explain what the code does.
    Explain,
    /// Write the comment of the function or type at the cursor.
    Document,
    /// Write a test for it.
    Test,
    /// Fix what the diagnostics say.
    Fix,
    /// Solve the problem, in this language or in the document's.
    Solve(Option<Language>),
}

/// The first argument of a task's command.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskArguments {
    /// The document, which must be open.
    pub uri: Uri,
    /// The part to work on; without one, all of it.
    pub range: Option<Range>,
    /// For `fix`: what is wrong.
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
    /// The token for streaming the text while it is written, as `$/progress`.
    pub partial_result_token: Option<ProgressToken>,
}

/// Reads the arguments of a command.
type Read = fn(Arguments) -> Result<Command, String>;

/// All commands, with a description of their arguments.
const COMMANDS: [(&str, &str, Read); 13] = [
    (ACCEPT, "the id of a completion", |mut arguments| {
        Ok(Command::Accept(arguments.next()?))
    }),
    (WHY, "a number of records, or nothing", |mut arguments| {
        Ok(Command::Why(arguments.next()?))
    }),
    (DOCUMENT_TEXT, "a document's URI", |mut arguments| {
        Ok(Command::DocumentText(arguments.next()?))
    }),
    (MODELS, "nothing", |_| Ok(Command::Models)),
    (
        PULL_MODEL,
        "the name of a model, or OWNER/REPO[:FILE]",
        |mut arguments| Ok(Command::PullModel(arguments.next()?)),
    ),
    (USE_MODEL, "the name of a model", |mut arguments| {
        let name: String = arguments.next()?;
        Ok(Command::UseModel(
            name.parse().map_err(|error: NameError| error.to_string())?,
        ))
    }),
    (
        "interline.translate",
        "{uri, range} and a language",
        |arguments| arguments.task(|words| Ok(TaskKind::Translate(language(words)?))),
    ),
    (
        "interline.generate",
        "{uri, range} and words",
        |arguments| {
            arguments.task(|words| {
                let described = (!words.is_empty()).then(|| words.to_owned());
                Ok(TaskKind::Generate(described))
            })
        },
    ),
    ("interline.explain", "{uri, range}", |arguments| {
        arguments.task(|_| Ok(TaskKind::Explain))
    }),
    ("interline.document", "{uri, range}", |arguments| {
        arguments.task(|_| Ok(TaskKind::Document))
    }),
    ("interline.test", "{uri, range}", |arguments| {
        arguments.task(|_| Ok(TaskKind::Test))
    }),
    ("interline.fix", "{uri, range, diagnostics}", |arguments| {
        arguments.task(|_| Ok(TaskKind::Fix))
    }),
    (
        "interline.solve",
        "{uri, range} and a language, or nothing",
        |arguments| {
            arguments.task(|words| {
                let named = !words.is_empty();
                Ok(TaskKind::Solve(named.then(|| language(words)).transpose()?))
            })
        },
    ),
];

/// The names of all commands.
pub fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(name, ..)| *name)
}

impl Command {
    /// Reads a command.
    ///
    /// # Errors
    ///
    /// When there is no such command, or the arguments do not fit; the text says which.
    pub fn read(name: &str, arguments: Vec<Value>) -> Result<Self, String> {
        let found = COMMANDS.iter().find(|(known, ..)| *known == name);
        let (name, takes, read) = found.ok_or_else(|| format!("unknown command {name:?}"))?;
        read(Arguments {
            rest: arguments.into_iter(),
        })
        .map_err(|problem| format!("{name} takes {takes}: {problem}"))
    }
}

/// What is left of a command's arguments.
struct Arguments {
    rest: std::vec::IntoIter<Value>,
}

impl Arguments {
    fn next<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let next = self.rest.next().unwrap_or_default();
        serde_json::from_value(next).map_err(|error| error.to_string())
    }

    /// A task; `kind` reads the words after the first argument.
    fn task(mut self, kind: impl Fn(&str) -> Result<TaskKind, String>) -> Result<Command, String> {
        let arguments = self.next()?;
        let words: Result<Vec<String>, _> = self.rest.map(serde_json::from_value).collect();
        let words = words.map_err(|error| error.to_string())?.join(" ");
        Ok(Command::Task(kind(words.trim())?, arguments))
    }
}

fn language(word: &str) -> Result<Language, String> {
    Language::from_name(word).map_err(|error| error.to_string())
}

/// The code actions for the selection and the diagnostics in it.
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
            command: Some(LspCommand {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, arguments: Value, expected: Result<&str, &str>) {
        let Value::Array(arguments) = arguments else {
            panic!("{arguments}");
        };
        let read = Command::read(name, arguments).map(|command| match command {
            Command::Accept(id) => format!("accept {id}"),
            Command::Why(count) => format!("why {count:?}"),
            Command::DocumentText(uri) => format!("text of {}", uri.as_str()),
            Command::Models => "models".to_owned(),
            Command::PullModel(what) => format!("pull {what}"),
            Command::UseModel(name) => format!("use {name}"),
            Command::Task(kind, arguments) => {
                format!("{kind:?} in {}", arguments.uri.as_str())
            }
        });
        assert_eq!(read.as_deref().map_err(String::as_str), expected, "{name}");
    }

    #[test]
    fn a_command_is_read_from_its_name_and_arguments() {
        let at = json!({"uri": "file:///a.py"});
        check(ACCEPT, json!([7]), Ok("accept 7"));
        check(WHY, json!([]), Ok("why None"));
        check(WHY, json!([2]), Ok("why Some(2)"));
        check(
            DOCUMENT_TEXT,
            json!(["file:///a.py"]),
            Ok("text of file:///a.py"),
        );
        check(MODELS, json!([]), Ok("models"));
        check(PULL_MODEL, json!(["a/b:c.gguf"]), Ok("pull a/b:c.gguf"));
        check(USE_MODEL, json!(["mine"]), Ok("use mine"));
        check(
            "interline.explain",
            json!([at]),
            Ok("Explain in file:///a.py"),
        );
        check(
            "interline.translate",
            json!([at, "c", "#"]),
            Err(
                "interline.translate takes {uri, range} and a language: the language \"c #\" is not known; known are Python, JavaScript, TypeScript, Rust, Go, Java, C, C++, C#, Ruby",
            ),
        );
        check(
            "interline.translate",
            json!([at, "rs"]),
            Ok("Translate(Rust) in file:///a.py"),
        );
        check(
            "interline.generate",
            json!([at]),
            Ok("Generate(None) in file:///a.py"),
        );
        check(
            "interline.generate",
            json!([at, "a", "stack"]),
            Ok("Generate(Some(\"a stack\")) in file:///a.py"),
        );
        check(
            "interline.solve",
            json!([at, ""]),
            Ok("Solve(None) in file:///a.py"),
        );
        check(
            "interline.solve",
            json!([at, "js"]),
            Ok("Solve(Some(JavaScript)) in file:///a.py"),
        );
    }

    #[test]
    fn an_error_names_the_problem() {
        check(
            "interline.nothing",
            json!([]),
            Err("unknown command \"interline.nothing\""),
        );
        check(
            USE_MODEL,
            json!(["../a"]),
            Err(
                "interline.useModel takes the name of a model: \"../a\" is not a name for a model; use up to 100 lower-case letters, digits, dots, hyphens and underscores, beginning with a letter or digit",
            ),
        );
        check(
            ACCEPT,
            json!(["x"]),
            Err(
                "interline.accept takes the id of a completion: invalid type: string \"x\", expected u64",
            ),
        );
        check(
            "interline.explain",
            json!([]),
            Err(
                "interline.explain takes {uri, range}: invalid type: null, expected struct TaskArguments",
            ),
        );
        check(
            "interline.explain",
            json!([{"uri": "file:///a.py"}, 1]),
            Err(
                "interline.explain takes {uri, range}: invalid type: integer `1`, expected a string",
            ),
        );
    }
}
