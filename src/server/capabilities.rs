//! What the server says of itself.

use serde_json::json;
use tower_lsp::ls_types::{
    CodeActionKind, CodeActionOptions, CodeActionProviderCapability, CompletionOptions,
    ExecuteCommandOptions, InitializeResult, OneOf, ServerCapabilities, ServerInfo,
    TextDocumentSyncCapability, TextDocumentSyncKind, WorkDoneProgressOptions,
};

use super::commands::COMMANDS;
use crate::text::language::Language;
use crate::text::position::PositionEncoding;

/// The command an item carries, which the client runs when the user has taken it: `[id]`.
pub const ACCEPT: &str = "interline.accept";

/// The command that answers with the latest records, the latest first: all that are kept, or `[count]`.
pub const WHY: &str = "interline.why";

/// The command that answers with the server's text of an open document, `null` if it is not open:
/// `[uri]`. What an editor shows must equal it.
pub const DOCUMENT_TEXT: &str = "interline.documentText";

/// The answer to `initialize`.
#[must_use]
pub fn initialize_result(encoding: PositionEncoding) -> InitializeResult {
    InitializeResult {
        capabilities: ServerCapabilities {
            position_encoding: Some(encoding.into()),
            text_document_sync: Some(TextDocumentSyncCapability::Kind(
                TextDocumentSyncKind::INCREMENTAL,
            )),
            inline_completion_provider: Some(OneOf::Left(true)),
            completion_provider: Some(CompletionOptions {
                // Vim's ALE takes an empty object for none.
                trigger_characters: Some(vec![".".to_owned()]),
                ..CompletionOptions::default()
            }),
            execute_command_provider: Some(ExecuteCommandOptions {
                commands: [ACCEPT, WHY, DOCUMENT_TEXT]
                    .into_iter()
                    .chain(COMMANDS)
                    .map(str::to_owned)
                    .collect(),
                work_done_progress_options: WorkDoneProgressOptions {
                    work_done_progress: Some(true),
                },
            }),
            code_action_provider: Some(CodeActionProviderCapability::Options(CodeActionOptions {
                code_action_kinds: Some(vec![CodeActionKind::QUICKFIX, CodeActionKind::REFACTOR]),
                ..CodeActionOptions::default()
            })),
            // What `translate` can translate to, for editors to offer.
            experimental: Some(json!({ "languages": Language::ALL.map(Language::id) })),
            ..ServerCapabilities::default()
        },
        server_info: Some(ServerInfo {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }),
        offset_encoding: None,
    }
}
