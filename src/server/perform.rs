//! A task's command: the work on a thread of its own, its progress, and the end that the user or the
//! client puts to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;
use tower_lsp::jsonrpc::{Error, ErrorCode, Result};
use tower_lsp::ls_types::{
    CodeActionParams, CodeActionResponse, ExecuteCommandParams, MessageActionItem, MessageType,
    Position, ProgressToken, WorkDoneProgressCancelParams,
};

use tower_lsp::Client;

use super::Server;
use crate::engine::cancel::Cancel;
use crate::engine::{EngineState, Ready};
use crate::server::commands::{self, ProgressParams, SOLVE, TaskArguments};
use crate::suggest::record::Silence;
use crate::tasks::{Desk, HEARD, Progress, TaskError};
use crate::text::language::Language;

/// The tasks at work whose progress the client is told.
#[derive(Debug, Default)]
pub(super) struct Running {
    count: AtomicU64,
    tasks: Mutex<Vec<(ProgressToken, Cancel)>>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Vec<(ProgressToken, Cancel)>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells how a task goes, and at last that it has ended, also when its handler is dropped.
struct Told {
    client: Client,
    running: Arc<Running>,
    token: Option<ProgressToken>,
}

impl Told {
    async fn report(&self, value: Value) {
        report(&self.client, self.token.clone(), value).await;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else {
            return;
        };
        self.running.lock().retain(|(other, _)| *other != token);
        let client = self.client.clone();
        tokio::spawn(async move { report(&client, Some(token), json!({ "kind": "end" })).await });
    }
}

/// Sends `value` to whoever listens at `token`, if anybody does.
async fn report(client: &Client, token: Option<ProgressToken>, value: Value) {
    if let Some(token) = token {
        let params = ProgressParams { token, value };
        client.send_notification::<commands::Progress>(params).await;
    }
}

/// What the thread tells while it is at work.
enum News {
    Text(String),
    /// A `WorkDoneProgressReport`.
    Report(Value),
}

impl Server {
    /// Performs the task, applies its edit, and answers with what the user should know.
    pub(super) async fn perform(&self, params: ExecuteCommandParams) -> Result<Option<Value>> {
        let session = self.session()?;
        let command = params.command;
        let arguments =
            TaskArguments::read(&command, params.arguments).map_err(Error::invalid_params)?;
        let encoding = session.encoding;
        let start = Position::default();
        let snapshot = self
            .documents
            .snapshot(arguments.uri.as_str(), start, encoding);
        let snapshot = snapshot.ok_or_else(|| {
            Error::invalid_params(format!("{} is not open", arguments.uri.as_str()))
        })?;
        let settings = session.completer.settings();
        let path = snapshot.path.to_path_buf();
        if let Some(pattern) = settings.exclusion.of(&path) {
            return Err(failed(format!(
                "files that match {pattern} are not shown to the model"
            )));
        }
        if snapshot.out_of_step {
            return Err(failed(Silence::OutOfStep.to_string()));
        }
        let source = commands::source(&command, &arguments, &snapshot, encoding).map_err(failed)?;
        let task = arguments
            .task(&command, &source, encoding)
            .map_err(failed)?;
        if command == SOLVE && !self.may_run().await? {
            return Ok(None);
        }
        let workspace = session.workspace_of(&path);

        let cancel = Cancel::default();
        let guard = cancel.on_drop();
        let token = params.work_done_progress_params.work_done_token;
        let progress = self.tell(token, task.name(), &cancel).await;
        let (news, mut told) = unbounded_channel();
        let engine = settings.engine.clone();
        let mut state = engine.state();
        let (thread_task, thread_source) = (task.clone(), source.clone());
        let ready = loop {
            tokio::select! {
                ready = state.wait_for(|state| !matches!(state, EngineState::Loading(_))) => {
                    break ready.map(|state| state.clone());
                }
                // Loading may take minutes, where the runtime is fetched.
                () = tokio::time::sleep(HEARD) => if cancel.is_cancelled() {
                    return Err(Error::request_cancelled());
                },
            }
        };
        let ready: Ready = match ready {
            Ok(EngineState::Ready(ready)) => ready,
            Ok(EngineState::Failed(problem)) => return Err(failed(problem)),
            Ok(EngineState::Loading(_)) | Err(_) => {
                return Err(failed("the engine is gone".to_owned()));
            }
        };
        let work = tokio::task::spawn_blocking(move || {
            let examples = thread_task.examples(
                &thread_source,
                Some(&path),
                workspace.as_deref(),
                &settings.exclusion,
            )?;
            let mut observer = |progress: Progress<'_>| {
                let told = match progress {
                    Progress::Text(text) => News::Text(text.to_owned()),
                    Progress::Done { done, all, message } => {
                        let percentage = 100 * done / all.max(1);
                        News::Report(
                            json!({ "kind": "report", "percentage": percentage, "message": message }),
                        )
                    }
                };
                // Whoever asked may be gone.
                let _ = news.send(told);
            };
            let mut desk = Desk {
                engine: &engine,
                ready: &ready,
                cancel: &cancel,
                examples,
                observer: &mut observer,
                show_prompt: None,
            };
            thread_task.perform(&mut desk, &thread_source)
        });
        // It ends with the thread, which has the other end.
        while let Some(news) = told.recv().await {
            match news {
                News::Text(text) => {
                    let token = arguments.partial_result_token.clone();
                    report(&self.client, token, text.into()).await;
                }
                News::Report(value) => progress.report(value).await,
            }
        }
        let outcome = work.await;
        guard.disarm();
        drop(progress);
        let outcome = outcome.map_err(|_| Error::internal_error())?;
        let outcome = outcome.map_err(|error| match error {
            TaskError::Cancelled => Error::request_cancelled(),
            error => failed(error.to_string()),
        })?;
        if let Some(edit) = commands::edit(&outcome, &source, &snapshot, encoding) {
            // Law (no stale item).
            if self.documents.revision(&snapshot.uri) != Some(snapshot.revision) {
                return Err(failed(
                    "the document has changed meanwhile, and nothing was done".to_owned(),
                ));
            }
            let applied = self.client.apply_edit(edit).await?;
            if !applied.applied {
                let why = applied.failure_reason.unwrap_or_default();
                return Err(failed(format!(
                    "the editor does not take the change: {why}"
                )));
            }
        }
        Ok(Some(commands::answer(&outcome)))
    }

    /// Asks the user whether generated programs may be run.
    async fn may_run(&self) -> Result<bool> {
        let run = MessageActionItem {
            title: "Run them".to_owned(),
            properties: HashMap::new(),
        };
        let question = "Interline: run programs that the model writes, in a sandbox without network, \
            home and files?";
        let answer = self
            .client
            .show_message_request(MessageType::INFO, question, Some(vec![run.clone()]))
            .await?;
        Ok(answer.is_some_and(|answer| answer.title == run.title))
    }

    /// Begins to tell how it goes, where the client asked for it or can be asked.
    async fn tell(&self, token: Option<ProgressToken>, title: &str, cancel: &Cancel) -> Told {
        let mut told = Told {
            client: self.client.clone(),
            running: self.running.clone(),
            token,
        };
        if told.token.is_none()
            && self
                .session()
                .is_ok_and(|session| session.work_done_progress)
        {
            let count = self.running.count.fetch_add(1, Ordering::Relaxed);
            let token = ProgressToken::String(format!("interline/{count}"));
            let created = self.client.create_work_done_progress(token.clone()).await;
            told.token = created.is_ok().then_some(token);
        }
        if let Some(token) = told.token.clone() {
            self.running.lock().push((token, cancel.clone()));
        }
        let title = format!("Interline: {title}");
        let begin =
            json!({ "kind": "begin", "title": title, "cancellable": true, "percentage": 0 });
        told.report(begin).await;
        told
    }

    /// `window/workDoneProgress/cancel`: the user ends a task.
    pub(super) async fn cancel_progress(&self, params: WorkDoneProgressCancelParams) {
        for (token, cancel) in &*self.running.lock() {
            if *token == params.token {
                cancel.cancel();
            }
        }
    }

    /// What can be done with a selection or a diagnostic. Where the cursor only passes, nothing is
    /// offered: a light bulb at each word is in the way.
    pub(super) fn actions(&self, params: &CodeActionParams) -> Result<CodeActionResponse> {
        let session = self.session()?;
        let uri = &params.text_document.uri;
        let snapshot = self
            .documents
            .snapshot(uri.as_str(), Position::default(), session.encoding);
        let known = snapshot.is_some_and(|snapshot| {
            let permitted = session
                .completer
                .settings()
                .exclusion
                .of(&snapshot.path)
                .is_none();
            permitted && Language::from_name(&snapshot.language_id).is_ok()
        });
        Ok(match known {
            true => commands::actions(params),
            false => Vec::new(),
        })
    }
}

/// `RequestFailed`: the request was right, and what it asks for cannot be done.
fn failed(problem: String) -> Error {
    Error {
        code: ErrorCode::ServerError(-32803),
        message: problem.into(),
        data: None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::engine::tests::gated;
    use crate::server::capabilities::WHY;
    use crate::server::client::Client as TestClient;
    use crate::server::tests::{TestServer, URI};

    const FUNCTION: &str = "def area(width, height):$0\n    return width * height\n";

    impl TestServer {
        /// Asks for a task about line `line`, and answers the request's id.
        async fn task(&mut self, command: &str, line: u32, more: Value) -> i64 {
            let place = json!({ "line": line, "character": 0 });
            let mut arguments = vec![json!({
                "uri": URI, "range": { "start": place, "end": place }, "partialResultToken": "part",
            })];
            arguments.extend(more["words"].as_array().cloned().unwrap_or_default());
            if let Some(diagnostics) = more.get("diagnostics") {
                arguments[0]["diagnostics"] = diagnostics.clone();
            }
            let params = json!({
                "command": command, "arguments": arguments, "workDoneToken": "work",
            });
            self.client
                .send("workspace/executeCommand", params)
                .await
                .unwrap()
        }

        /// Waits for a request of the server and answers it.
        async fn reply(&mut self, method: &str, result: Value) -> Value {
            let request = loop {
                let message = self.client.receive().await.unwrap();
                if message["method"] == method {
                    break message;
                }
                assert!(
                    message["method"].is_string(),
                    "{message} came before {method}"
                );
                self.client.notifications.push(message);
            };
            let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": result });
            self.client
                .send_raw(&TestClient::frame(&answer))
                .await
                .unwrap();
            request["params"].clone()
        }

        /// What was told under a token until now.
        fn told(&self, token: &str) -> Vec<Value> {
            let notifications = self.client.notifications.iter();
            let told = notifications.filter(|message| {
                message["method"] == "$/progress" && message["params"]["token"] == token
            });
            told.map(|message| message["params"]["value"].clone())
                .collect()
        }
    }

    async fn check_error(text: &str, command: &str, more: Value, expected: Expect) {
        let mut server = TestServer::start("").await;
        server.open(text).await;
        let id = server.task(command, 0, more).await;
        let answer = server.client.answer(id).await.unwrap();
        expected.assert_eq(answer["error"]["message"].as_str().unwrap());
        server.end().await;
    }

    #[tokio::test]
    async fn a_comment_is_an_edit_of_this_version() {
        let mut server = TestServer::start(" the area.\nx").await;
        server.open(&FUNCTION.replace('\n', "\r\n")).await;
        let id = server.task("interline.document", 1, Value::Null).await;
        let applied = json!({ "applied": true });
        let edit = server.reply("workspace/applyEdit", applied).await;
        let change = &edit["edit"]["documentChanges"][0];
        assert_eq!(change["textDocument"], json!({ "uri": URI, "version": 1 }));
        let place = json!({ "line": 1, "character": 0 });
        let comment = "    \"\"\"Return the area.\"\"\"\r\n";
        let range = json!({ "start": place, "end": place });
        assert_eq!(
            change["edits"],
            json!([{ "range": range, "newText": comment }])
        );
        let answer = server.client.answer(id).await.unwrap();
        assert_eq!(answer["result"], json!({ "complete": true, "notes": [] }));
        let end = |params: &Value| params["value"]["kind"] == "end";
        server.notification("$/progress", end).await;
        server.end().await;
    }

    #[tokio::test]
    async fn an_edit_names_the_document_as_the_client_does() {
        let mut server = TestServer::start(" the area.\nx").await;
        let uri = "file:///project/[id] {x}.py";
        let document = json!({
            "uri": uri, "languageId": "python", "version": null,
            "text": FUNCTION.replace("$0", ""),
        });
        let open = json!({ "textDocument": document });
        server.notify("textDocument/didOpen", open).await;
        let place = json!({ "line": 1, "character": 0 });
        let argument = json!({ "uri": uri, "range": { "start": place, "end": place } });
        let params = json!({ "command": "interline.document", "arguments": [argument] });
        let sent = server.client.send("workspace/executeCommand", params);
        let id = sent.await.unwrap();
        let edit = server
            .reply("workspace/applyEdit", json!({ "applied": true }))
            .await;
        let named = &edit["edit"]["documentChanges"][0]["textDocument"];
        assert_eq!(*named, json!({ "uri": uri, "version": null }));
        assert_eq!(
            server.client.answer(id).await.unwrap()["result"]["complete"],
            true
        );
        server.end().await;
    }

    #[tokio::test]
    async fn an_edit_that_the_editor_refuses_is_an_error() {
        let mut server = TestServer::start(" the area.").await;
        server.open(FUNCTION).await;
        let id = server.task("interline.document", 0, Value::Null).await;
        let refused = json!({ "applied": false, "failureReason": "read only" });
        server.reply("workspace/applyEdit", refused).await;
        let answer = server.client.answer(id).await.unwrap();
        let message = "the editor does not take the change: read only";
        assert_eq!(answer["error"]["message"], message);
        server.end().await;
    }

    #[tokio::test]
    async fn a_document_opened_again_does_not_get_the_old_edit() {
        let (engine, mut gate) = gated(" the area.\nx").await;
        let mut server = TestServer::start_with(engine, json!({ "capabilities": {} })).await;
        server.open(FUNCTION).await;
        let id = server.task("interline.document", 0, Value::Null).await;
        gate.begun.recv().await.unwrap();
        // The version is the same.
        server.open("$0x = 1\n").await;
        server.command(WHY, json!([])).await;
        drop(gate);
        let answer = server.client.answer(id).await.unwrap();
        let message = "the document has changed meanwhile, and nothing was done";
        assert_eq!(answer["error"]["message"], message);
        server.end().await;
    }

    #[tokio::test]
    async fn a_text_is_told_in_parts_and_answered_whole() {
        let mut server = TestServer::start("It multiplies.").await;
        server.open(FUNCTION).await;
        let id = server.task("interline.explain", 0, Value::Null).await;
        let answer = server.client.answer(id).await.unwrap();
        expect![[r##"
            {
              "complete": true,
              "fileName": "a.py.md",
              "languageId": "markdown",
              "notes": [],
              "text": "It multiplies.\n"
            }"##]]
        .assert_eq(&serde_json::to_string_pretty(&answer["result"]).unwrap());
        let parts = server.told("part");
        let parts: String = parts.iter().filter_map(Value::as_str).collect();
        assert!(
            "It multiplies.".starts_with(&parts) && parts.len() > 4,
            "{parts}"
        );
        let begin = &server.told("work")[0];
        assert_eq!(begin["kind"], "begin");
        assert_eq!(begin["title"], "Interline: explain");
        server.end().await;
    }

    #[tokio::test]
    async fn the_user_can_end_a_task() {
        for cancel in ["window/workDoneProgress/cancel", "$/cancelRequest"] {
            let (engine, mut gate) = gated(&"a b ".repeat(100)).await;
            let mut server = TestServer::start_with(engine, json!({ "capabilities": {} })).await;
            server.open(FUNCTION).await;
            let id = server.task("interline.explain", 0, Value::Null).await;
            let begin = |params: &Value| params["value"]["kind"] == "begin";
            server.notification("$/progress", begin).await;
            gate.begun.recv().await.unwrap();
            let params = match cancel {
                "$/cancelRequest" => json!({ "id": id }),
                _ => json!({ "token": "work" }),
            };
            server.notify(cancel, params).await;
            let answer = server.client.answer(id).await.unwrap();
            drop(gate);
            assert_eq!(answer["error"]["code"], -32800, "{answer}");
            let end = |params: &Value| params["value"]["kind"] == "end";
            server.notification("$/progress", end).await;
            server.end().await;
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        let none = || Value::Null;
        let words = |word: &str| json!({ "words": [word] });
        check_error(FUNCTION, "interline.translate", words("cobol"), expect![[r#"the language "cobol" is not known; known are Python, JavaScript, TypeScript, Rust, Go, Java, C, C++, C#, Ruby"#]]).await;
        check_error(
            "$0",
            "interline.explain",
            none(),
            expect!["there is no code here; select some, or put the cursor into it"],
        )
        .await;
        check_error(
            "x = 1$0",
            "interline.document",
            none(),
            expect!["no function or type begins or goes on at line 1"],
        )
        .await;
        check_error(
            FUNCTION,
            "interline.fix",
            none(),
            expect!["nothing is known to be wrong here; there are no diagnostics in the selection"],
        )
        .await;
        check_error(FUNCTION, "interline.explain", json!({ "words": [1] }), expect!["interline.explain takes {uri, range} and words: invalid type: integer `1`, expected a string"]).await;
        check_error(
            "def f():$0\n    \"\"\"Do.\"\"\"\n",
            "interline.document",
            none(),
            expect!["f is documented already"],
        )
        .await;
        let long = format!("$0{}", "value = value + 1\n".repeat(1000));
        check_error(&long, "interline.explain", none(), expect!["the text is too long for the model: 7024 tokens with its prompt, and 1648 fit beside the answer; select less"]).await;
    }

    #[tokio::test]
    async fn nothing_is_run_without_a_yes() {
        let mut server = TestServer::start("").await;
        server.open(FUNCTION).await;
        let id = server.task("interline.solve", 0, Value::Null).await;
        let asked = server.reply("window/showMessageRequest", Value::Null).await;
        assert!(
            asked["message"].as_str().unwrap().contains("in a sandbox"),
            "{asked}"
        );
        let answer = server.client.answer(id).await.unwrap();
        assert_eq!(answer["result"], Value::Null);
        server.end().await;
    }
}
