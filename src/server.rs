//! The language server: thin handlers.
//!
//! tower-lsp starts handlers in order of arrival, polls them all in one task and interleaves them at
//! their awaits. Hence law "order":
//!
//! - A document notification applies before its first await, so that the next message finds it
//!   applied.
//! - A request takes its snapshot before its first await, so that it sees the text it was asked about.
//! - Nothing computes in a handler: the model runs on its own thread, and a handler waits for it.
//! - Many handlers may run at once, because `$/cancelRequest` and `didChange` need room too.

pub mod capabilities;
pub mod cells;
pub mod client;
pub mod client_process;
pub mod commands;
pub mod framing;
pub mod items;
pub mod malformed;
pub mod messages;
mod model_commands;
pub mod outcome;
mod perform;
mod progress;
pub mod settings;
pub mod status;
mod switch;
#[cfg(test)]
mod tests;
pub mod tidy;
pub mod uri;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tower_lsp::jsonrpc::{Error, Result};
use tower_lsp::ls_types::{
    CodeActionParams, CodeActionResponse, CompletionParams, CompletionResponse,
    DidChangeConfigurationParams, DidChangeTextDocumentParams, DidChangeWorkspaceFoldersParams,
    DidCloseTextDocumentParams, DidOpenTextDocumentParams, DidSaveTextDocumentParams,
    ExecuteCommandParams, InitializeParams, InitializeResult, InitializedParams,
    InlineCompletionList, InlineCompletionParams, InlineCompletionTriggerKind, MessageType,
    Position, TextDocumentPositionParams, Uri, WorkspaceFolder,
};
use tower_lsp::{Client, LanguageServer, LspService};

use crate::engine::Engine;
use crate::model::store::Store;
use crate::model::store::name::Name;
use crate::server::capabilities::initialize_result;
use crate::server::cells::{CELLS_CHANGED, DidChangeCellsParams};
use crate::server::commands::Command;
use crate::server::items::{
    DidPartiallyAcceptCompletionParams, DidShowCompletionParams, NoRange, inline_items, menu_items,
    request_id,
};
use crate::server::model_commands::Pulling;
use crate::server::progress::Running;
use crate::server::settings::{Addressee, EngineOptions, Options, Sent};
use crate::server::status::DidFocusParams;
use crate::server::switch::{By, Chosen, Switch};
use crate::server::tidy::{HALVED_CHANGE, HalvedChangeParams, OUT_OF_STEP, OutOfStepParams};
use crate::suggest::record::{Acceptance, Silence};
use crate::suggest::{Completer, Completions, Face};
use crate::text::context::Trigger;
use crate::text::document::{self, Change, Documents, Snapshot};
use crate::text::position::{self, PositionEncoding};

/// Handlers that may run at once. A client that types fast and never cancels has some tens of requests
/// open.
const CONCURRENCY: usize = 256;

/// After the client has closed its end, requests are answered within this time or not at all.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Starts the engine that the settings ask for.
pub type StartEngine = Arc<dyn Fn(&EngineOptions) -> Arc<Engine> + Send + Sync>;

/// Serves one client until it sends `exit`, closes its end, or its process ends. Returns whether it
/// sent `shutdown` before that and its messages could be read to the end. Without a store, the models
/// are those that the settings name.
pub async fn serve<I, O>(
    input: I,
    output: O,
    options: Options,
    start_engine: StartEngine,
    store: Option<Store>,
) -> bool
where
    I: AsyncRead + Unpin,
    O: AsyncWrite,
{
    let end = Arc::new(End::default());
    let (service, socket) = LspService::build(|client| Server {
        client,
        options,
        configured: Arc::default(),
        warnings: Mutex::default(),
        start_engine,
        store,
        end: end.clone(),
        documents: Arc::default(),
        session: OnceLock::new(),
        running: Arc::default(),
        pulling: Arc::default(),
    })
    .custom_method("textDocument/inlineCompletion", Server::inline_completion)
    .custom_method("textDocument/didFocus", Server::did_focus)
    .custom_method("window/workDoneProgress/cancel", Server::cancel_progress)
    .custom_method("textDocument/didShowCompletion", Server::did_show)
    .custom_method(
        "textDocument/didPartiallyAcceptCompletion",
        Server::did_partially_accept,
    )
    .custom_method(HALVED_CHANGE, Server::halved_change)
    .custom_method(OUT_OF_STEP, Server::out_of_step)
    .custom_method(CELLS_CHANGED, Server::cells_changed)
    .finish();
    let (ends, incoming, outgoing) = messages::connect(input, output);
    let server = tower_lsp::Server::new(ends.input, ends.output, socket);
    let server = server.concurrency_level(CONCURRENCY).serve(service);
    // When the server has ended, its last messages still have to be passed on.
    let serving = async {
        server.await;
        std::future::pending::<()>().await;
    };
    let ending = async {
        match incoming.await {
            Ok(()) => tokio::time::sleep(LAST_ANSWERS).await,
            Err(error) => {
                tracing::error!("no more of the client's messages can be read: {error}");
                end.broken.store(true, Ordering::Relaxed);
            }
        }
    };
    tokio::select! {
        written = outgoing => if let Err(error) = written {
            tracing::error!("cannot write to the client any more: {error}");
        },
        () = serving => {}
        () = ending => {}
        () = end.client_gone.notified() => tracing::info!("the client's process has ended"),
    }
    end.shut_down.load(Ordering::Relaxed) && !end.broken.load(Ordering::Relaxed)
}

/// How the connection ends.
#[derive(Debug, Default)]
struct End {
    shut_down: AtomicBool,
    /// Whether the client's messages could not be read to their end.
    broken: AtomicBool,
    client_gone: Notify,
}

struct Server {
    client: Client,
    /// The settings from the command line; the client's take precedence.
    options: Options,
    configured: Arc<Mutex<Configured>>,
    /// What the user is still to be warned of.
    warnings: Mutex<Vec<String>>,
    start_engine: StartEngine,
    store: Option<Store>,
    end: Arc<End>,
    documents: Arc<Documents>,
    session: OnceLock<Session>,
    running: Arc<Running>,
    pulling: Arc<Pulling>,
}

/// The settings in force.
#[derive(Clone, Default)]
struct Configured {
    sent: Sent,
    options: Options,
    /// The model that the user has chosen in the store.
    in_use: Option<Name>,
}

impl Configured {
    fn engine(&self) -> EngineOptions {
        self.options.engine(self.in_use.as_ref())
    }
}

/// What `initialize` decides.
struct Session {
    encoding: PositionEncoding,
    no_range: NoRange,
    /// Whether the client can be asked to show progress.
    work_done_progress: bool,
    /// Whether the client hides ghost text while its menu is open with an item selected.
    menu_hides_ghost: bool,
    /// Whether the client has asked for ghost text.
    has_ghost_text: AtomicBool,
    workspaces: Mutex<Vec<PathBuf>>,
    completer: Arc<Completer>,
    switch: Arc<Switch>,
}

impl Session {
    /// The innermost of the client's workspace folders that contains the file.
    fn workspace_of(&self, file: &Path) -> Option<PathBuf> {
        let workspaces = self
            .workspaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let around = workspaces.iter().filter(|folder| file.starts_with(folder));
        around
            .max_by_key(|folder| folder.as_os_str().len())
            .cloned()
    }
}

impl Server {
    /// The session. tower-lsp passes on no request before `initialize`.
    fn session(&self) -> Result<&Session> {
        self.session.get().ok_or_else(Error::internal_error)
    }

    /// The settings after a client's message, and warnings of unknown names in it. They take effect
    /// once they are [kept](Self::keep).
    fn configured(
        &self,
        message: Value,
        addressee: Addressee,
    ) -> std::result::Result<(Configured, Vec<String>), String> {
        let Configured {
            mut sent, in_use, ..
        } = self.lock_configured().clone();
        let unknown = sent.take(message, addressee);
        let options = sent.options()?.or(self.options.clone());
        // Report an invalid glob now.
        options.exclusion()?;
        let configured = Configured {
            sent,
            options,
            in_use,
        };
        let unknown = unknown.into_iter();
        let warnings =
            unknown.map(|name| format!("Interline ignores the unknown setting `{name}`"));
        Ok((configured, warnings.collect()))
    }

    fn keep(&self, configured: Configured) {
        *self.lock_configured() = configured;
    }

    fn lock_configured(&self) -> MutexGuard<'_, Configured> {
        self.configured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_warnings(&self) -> MutexGuard<'_, Vec<String>> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn warn(&self, warnings: Vec<String>) {
        for warning in warnings {
            self.client
                .show_message(MessageType::WARNING, warning)
                .await;
        }
    }

    /// The document and the position that a request is about, if the client has opened it.
    fn snapshot(&self, session: &Session, place: &TextDocumentPositionParams) -> Option<Snapshot> {
        let uri = &place.text_document.uri;
        let snapshot = self
            .documents
            .snapshot(uri.as_str(), place.position, session.encoding);
        if snapshot.is_none() {
            let path = uri::path(uri);
            session.completer.not_open(document::file_name(&path));
        }
        snapshot
    }

    /// `None` leaves what is shown in place; an empty list hides it.
    async fn complete(
        &self,
        session: &Session,
        snapshot: &Snapshot,
        trigger: Trigger,
        face: Face,
    ) -> Option<Completions> {
        let answer = session.completer.complete(snapshot, trigger, face).await;
        if !answer.as_ref().is_err_and(Silence::is_undecided) {
            session.switch.file_status(answer.as_ref().err()).await;
        }
        match answer {
            Ok(completions) => Some(completions),
            Err(silence) if silence.is_undecided() => None,
            Err(_) => Some(Completions::default()),
        }
    }

    async fn inline_completion(
        &self,
        params: InlineCompletionParams,
    ) -> Result<Option<InlineCompletionList>> {
        let session = self.session()?;
        session.has_ghost_text.store(true, Ordering::Relaxed);
        let encoding = session.encoding;
        let place = params.text_document_position;
        let Some(mut snapshot) = self.snapshot(session, &place) else {
            return Ok(Some(InlineCompletionList { items: Vec::new() }));
        };
        let selected = params.context.selected_completion_info;
        if let Some(selected) = &selected {
            let start = position::offset(&snapshot.rope, selected.range.start, encoding);
            snapshot = snapshot.with(start, &selected.text);
        }
        let trigger = match params.context.trigger_kind {
            InlineCompletionTriggerKind::INVOKED => Trigger::Invoked,
            _ => Trigger::Automatic,
        };
        let completions = self
            .complete(session, &snapshot, trigger, Face::Ghost)
            .await;
        let replaced = selected.map(|selected| selected.range);
        Ok(completions.map(|completions| {
            inline_items(
                &completions,
                &snapshot,
                replaced,
                encoding,
                session.no_range,
            )
        }))
    }

    /// Applies changes to a document.
    fn change(&self, uri: &Uri, version: i32, changes: Vec<Change>) {
        let Ok(session) = self.session() else { return };
        let changed = self
            .documents
            .change(uri.as_str(), version, changes, session.encoding);
        if let Err(error) = changed {
            tracing::warn!("{error}");
        }
    }

    /// `textDocument/didChange` with halves of surrogate pairs in it.
    async fn halved_change(&self, params: HalvedChangeParams) {
        let changes = params.content_changes.into_iter().map(|change| Change {
            range: change.range.map(|range| range.start..range.end),
            text: change.text,
            halves: change.halves,
        });
        let document = params.text_document;
        self.change(&document.uri, document.version, changes.collect());
    }

    /// A notebook was opened, closed, or its cells changed.
    async fn cells_changed(&self, params: DidChangeCellsParams) {
        let uri = params.uri.clone();
        self.documents
            .change_cells(uri.as_str(), &uri::path(&uri), params.into());
    }

    /// A change to a document was lost: nothing is shown in it until its whole text arrives.
    async fn out_of_step(&self, params: OutOfStepParams) {
        let uris = match params.uri {
            Some(uri) => vec![uri.into()],
            None => self.documents.uris(),
        };
        // Mark all of them before the first await: law "order".
        let paths: Vec<_> = uris
            .iter()
            .filter_map(|uri| self.documents.lose_step(uri))
            .collect();
        for path in paths {
            let name = document::file_name(&path);
            let problem = format!("Interline, in {name}: {}", Silence::OutOfStep);
            self.client
                .show_message(MessageType::WARNING, problem)
                .await;
        }
    }

    async fn did_focus(&self, params: DidFocusParams) {
        let Ok(session) = self.session() else { return };
        let snapshot = params.text_document.and_then(|document| {
            let start = Position::default();
            self.documents
                .snapshot(document.uri.as_str(), start, session.encoding)
        });
        let silence =
            snapshot.and_then(|snapshot| session.completer.settings().permit(&snapshot).err());
        session.switch.file_status(silence.as_ref()).await;
    }

    async fn did_show(&self, params: DidShowCompletionParams) {
        self.accept(request_id(&params.item), Acceptance::Shown);
    }

    async fn did_partially_accept(&self, params: DidPartiallyAcceptCompletionParams) {
        let part = Acceptance::Part(params.accepted_length);
        self.accept(request_id(&params.item), part);
    }

    fn accept(&self, id: Option<u64>, acceptance: Acceptance) {
        if let (Some(id), Ok(session)) = (id, self.session()) {
            session.completer.accept(id, acceptance);
        }
    }
}

impl LanguageServer for Server {
    async fn initialize(&self, params: InitializeParams) -> Result<InitializeResult> {
        let window = params.capabilities.window;
        let work_done_progress = window.and_then(|window| window.work_done_progress);
        #[allow(deprecated, reason = "some clients send nothing newer")]
        let workspaces = match (params.workspace_folders, params.root_uri) {
            (Some(folders), _) => folder_paths(&folders),
            (None, root) => root.iter().map(uri::path).collect(),
        };
        let general = params.capabilities.general;
        let encodings = general.and_then(|general| general.position_encodings);
        let encoding = PositionEncoding::negotiate(encodings.as_deref());

        let client = params.client_info.as_ref();
        let client = client.map(|client| client.name.as_str());
        let no_range = NoRange::of_client(client);
        let menu_hides_ghost = client == Some("Neovim");

        let message = params.initialization_options.unwrap_or_default();
        let (mut configured, mut warnings) = self
            .configured(message, Addressee::Us)
            .map_err(Error::invalid_params)?;
        let chosen = self.store.as_ref().map(Chosen::in_store);
        match chosen.as_ref().map(|chosen| &chosen.name) {
            Some(Ok(name)) => configured.in_use.clone_from(name),
            Some(Err(problem)) => warnings.push(format!("Interline {problem}")),
            None => {}
        }
        let by = match configured.options.model {
            Some(_) => By::Settings,
            None => By::Choice,
        };
        let engine_options = configured.engine();
        let engine = (self.start_engine)(&engine_options);
        let settings = configured.options.suggest(engine);
        let settings = settings.map_err(Error::invalid_params)?;
        self.keep(configured);
        let completer = Arc::new(Completer::new(self.documents.clone(), settings));
        let switch = Switch::begin(
            self.client.clone(),
            self.start_engine.clone(),
            self.running.clone(),
            completer.clone(),
            engine_options,
            by,
        );
        if let (Some(store), Some(chosen)) = (&self.store, chosen) {
            switch.watch(store.clone(), chosen, self.configured.clone());
        }
        if self
            .session
            .set(Session {
                encoding,
                no_range,
                work_done_progress: work_done_progress.unwrap_or_default(),
                menu_hides_ghost,
                has_ghost_text: AtomicBool::default(),
                workspaces: Mutex::new(workspaces),
                completer,
                switch,
            })
            .is_err()
        {
            return Err(Error::invalid_request());
        }
        if let Some(id) = params.process_id {
            let end = self.end.clone();
            tokio::spawn(async move {
                client_process::gone(id).await;
                end.client_gone.notify_one();
            });
        }
        *self.lock_warnings() = warnings;
        Ok(initialize_result(encoding))
    }

    /// Before this the client accepts no messages.
    async fn initialized(&self, _: InitializedParams) {
        let warnings = std::mem::take(&mut *self.lock_warnings());
        self.warn(warnings).await;
    }

    async fn shutdown(&self) -> Result<()> {
        self.end.shut_down.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn did_open(&self, params: DidOpenTextDocumentParams) {
        let document = params.text_document;
        let (uri, language) = (document.uri, document.language_id);
        let path = uri::path(&uri);
        self.documents.open(
            uri.as_str(),
            path,
            language,
            document.version,
            &document.text,
        );
    }

    async fn did_change(&self, params: DidChangeTextDocumentParams) {
        let document = params.text_document;
        // `range_length` is ignored: it is deprecated, and adds nothing to the range.
        let changes = params.content_changes.into_iter().map(|change| Change {
            range: change.range.map(|range| range.start..range.end),
            text: change.text,
            ..Change::default()
        });
        self.change(&document.uri, document.version, changes.collect());
    }

    async fn did_save(&self, _: DidSaveTextDocumentParams) {}

    async fn did_close(&self, params: DidCloseTextDocumentParams) {
        let uri = params.text_document.uri;
        self.documents.close(uri.as_str());
        if let Ok(session) = self.session() {
            session.completer.close(uri.as_str());
        }
    }

    async fn did_change_configuration(&self, params: DidChangeConfigurationParams) {
        let Ok(session) = self.session() else { return };
        let applied = self
            .configured(params.settings, Addressee::AnyServer)
            .and_then(|(configured, warnings)| {
                let before = self.lock_configured().clone();
                let (old, new) = (&before.options, &configured.options);
                if old.without_engine() != new.without_engine() {
                    let settings = new.suggest(session.switch.engine())?;
                    if old.excluded_files != new.excluded_files {
                        self.running.settings_changed();
                    }
                    session.completer.configure(settings);
                }
                if before.engine() != configured.engine() {
                    session.switch.to(configured.engine(), By::Settings);
                }
                self.keep(configured);
                Ok(warnings)
            });
        match applied {
            Ok(warnings) => self.warn(warnings).await,
            Err(problem) => {
                let problem = format!("Interline keeps its previous settings: {problem}");
                self.client
                    .show_message(MessageType::WARNING, problem)
                    .await;
            }
        }
    }

    async fn did_change_workspace_folders(&self, params: DidChangeWorkspaceFoldersParams) {
        let Ok(session) = self.session() else { return };
        let mut workspaces = session
            .workspaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let removed = folder_paths(&params.event.removed);
        workspaces.retain(|folder| !removed.contains(folder));
        workspaces.extend(folder_paths(&params.event.added));
    }

    async fn completion(&self, params: CompletionParams) -> Result<Option<CompletionResponse>> {
        let session = self.session()?;
        let wanted = self.lock_configured().options.completion_menu;
        let hides = session.menu_hides_ghost && session.has_ghost_text.load(Ordering::Relaxed);
        if !wanted.unwrap_or(!hides) {
            return Ok(Some(CompletionResponse::Array(Vec::new())));
        }
        let Some(snapshot) = self.snapshot(session, &params.text_document_position) else {
            return Ok(Some(CompletionResponse::Array(Vec::new())));
        };
        // Most editors send `Invoked` even for a menu that opens by itself.
        let completions = self
            .complete(session, &snapshot, Trigger::Automatic, Face::Menu)
            .await;
        Ok(completions.map(|completions| {
            CompletionResponse::List(menu_items(&completions, &snapshot, session.encoding))
        }))
    }

    async fn execute_command(&self, params: ExecuteCommandParams) -> Result<Option<Value>> {
        let command = Command::read(&params.command, params.arguments);
        match command.map_err(Error::invalid_params)? {
            Command::Accept(id) => {
                self.accept(Some(id), Acceptance::Whole);
                Ok(None)
            }
            Command::Why(count) => {
                let mut records = self.session()?.completer.records();
                records.truncate(count.unwrap_or(usize::MAX));
                Ok(serde_json::to_value(records).ok())
            }
            Command::DocumentText(uri) => {
                let text = self.documents.text(uri.as_str());
                Ok(text.map(|text| text.to_string().into()))
            }
            Command::Models => self.models().await,
            Command::PullModel(what) => {
                let token = params.work_done_progress_params.work_done_token;
                self.pull_model(what, token).await
            }
            Command::UseModel(name) => self.use_model(&name).await,
            Command::Task(kind, arguments) => {
                let token = params.work_done_progress_params.work_done_token;
                self.perform(kind, arguments, token).await
            }
        }
    }

    async fn code_action(&self, params: CodeActionParams) -> Result<Option<CodeActionResponse>> {
        self.actions(&params).map(Some)
    }
}

fn folder_paths(folders: &[WorkspaceFolder]) -> Vec<PathBuf> {
    folders
        .iter()
        .map(|folder| uri::path(&folder.uri))
        .collect()
}
