//! `didChangeStatus`: whether the server can answer, in the form that other completion servers use.

use serde::{Deserialize, Serialize};
use tower_lsp::ls_types::TextDocumentIdentifier;
use tower_lsp::ls_types::notification::Notification;

use crate::engine::EngineState;
use crate::suggest::record::Silence;

/// The notification.
#[derive(Debug)]
pub enum DidChangeStatus {}

impl Notification for DidChangeStatus {
    type Params = Status;
    const METHOD: &'static str = "didChangeStatus";
}

/// `textDocument/didFocus`: the user looks at a document, and the status becomes that document's.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DidFocusParams {
    /// The document; `None` when the user looks at something else.
    pub text_document: Option<TextDocumentIdentifier>,
}

/// What the user should know about the server.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Whether it is working on something that the user waits for.
    pub busy: bool,
    /// One sentence.
    pub message: String,
    /// How bad it is.
    pub kind: Kind,
}

/// How bad a status is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// All is well.
    Normal,
    /// There will be no completions until something is done.
    Error,
    /// There are completions, but something should be done.
    Warning,
    /// There are intentionally no completions in this file.
    Inactive,
}

impl From<&EngineState> for Status {
    fn from(state: &EngineState) -> Self {
        let (busy, kind, message) = match state {
            EngineState::Loading(what) => (true, Kind::Normal, what.clone()),
            EngineState::Ready(ready) => {
                let (kind, warning) = match &ready.warning {
                    None => (Kind::Normal, String::new()),
                    Some(warning) => (Kind::Warning, format!(", but {warning}")),
                };
                let sees = match ready.fills_holes {
                    true => "",
                    false => "; it sees only what is before the cursor",
                };
                let model = &ready.model;
                (false, kind, format!("{model} is ready{warning}{sees}"))
            }
            EngineState::Failed(problem) => (false, Kind::Error, problem.clone()),
        };
        Self {
            busy,
            message,
            kind,
        }
    }
}

impl Status {
    /// The status of a file in which nothing is ever shown, if `silence` says that it is one.
    #[must_use]
    pub fn inactive(silence: &Silence) -> Option<Self> {
        match silence {
            Silence::Disabled(_) | Silence::Excluded(_) => Some(Self {
                busy: false,
                message: silence.to_string(),
                kind: Kind::Inactive,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Ready;

    #[test]
    fn what_a_model_cannot_do_is_said() {
        let status = |warning: Option<&str>, fills_holes: bool| {
            let ready = Ready {
                model: "small".to_owned(),
                fills_holes,
                runs_on: String::new(),
                warning: warning.map(str::to_owned),
                prompt_format: String::new(),
                prompt_tokens: 0,
                chunk_tokens: 0,
                lanes: 0,
                line_time: Duration::ZERO,
                prefill_speed: 0.0,
                decode_speed: 0.0,
            };
            let status = Status::from(&EngineState::Ready(ready));
            (status.kind, status.message)
        };
        let plain = "small is ready".to_owned();
        assert_eq!(status(None, true), (Kind::Normal, plain.clone()));
        let sees = format!("{plain}; it sees only what is before the cursor");
        assert_eq!(status(None, false), (Kind::Normal, sees));
        let warning = "webgpu is not used: it finds no device";
        let message = format!("small is ready, but {warning}");
        assert_eq!(status(Some(warning), true), (Kind::Warning, message));
    }
}
