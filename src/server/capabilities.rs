//! The server's capabilities.

use serde_json::json;
use tower_lsp::ls_types::{
    CodeActionKind, CodeActionOptions, CodeActionProviderCapability, CompletionOptions,
    ExecuteCommandOptions, InitializeResult, Notebook, NotebookDocumentSyncOptions,
    NotebookSelector, OneOf, ServerCapabilities, ServerInfo, TextDocumentSyncCapability,
    TextDocumentSyncKind, WorkDoneProgressOptions, WorkspaceFoldersServerCapabilities,
    WorkspaceServerCapabilities,
};

use super::commands;
use crate::text::language::Language;
use crate::text::position::PositionEncoding;

/// The answer to `initialize`.
#[must_use]
pub fn initialize_result(encoding: PositionEncoding) -> InitializeResult {
    InitializeResult {
        capabilities: ServerCapabilities {
            position_encoding: Some(encoding.into()),
            text_document_sync: Some(TextDocumentSyncCapability::Kind(
                TextDocumentSyncKind::INCREMENTAL,
            )),
            notebook_document_sync: Some(OneOf::Left(NotebookDocumentSyncOptions {
                // All cells of all notebooks.
                notebook_selector: vec![NotebookSelector::ByNotebook {
                    notebook: Notebook::String("*".to_owned()),
                    cells: None,
                }],
                save: None,
            })),
            inline_completion_provider: Some(OneOf::Left(true)),
            completion_provider: Some(CompletionOptions {
                // Vim's ALE treats an empty object as no support.
                trigger_characters: Some(vec![".".to_owned()]),
                ..CompletionOptions::default()
            }),
            execute_command_provider: Some(ExecuteCommandOptions {
                commands: commands::names().map(str::to_owned).collect(),
                work_done_progress_options: WorkDoneProgressOptions {
                    work_done_progress: Some(true),
                },
            }),
            code_action_provider: Some(CodeActionProviderCapability::Options(CodeActionOptions {
                code_action_kinds: Some(vec![CodeActionKind::QUICKFIX, CodeActionKind::REFACTOR]),
                ..CodeActionOptions::default()
            })),
            workspace: Some(WorkspaceServerCapabilities {
                workspace_folders: Some(WorkspaceFoldersServerCapabilities {
                    supported: Some(true),
                    change_notifications: Some(OneOf::Left(true)),
                }),
                file_operations: None,
            }),
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
