//! Runs a task's command, with the work on its own thread.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;
use tower_lsp::jsonrpc::{Error, Result};
use tower_lsp::ls_types::{
    CodeActionParams, CodeActionResponse, MessageActionItem, MessageType, Position, ProgressToken,
};

use super::Server;
use super::commands::{self, TaskArguments, TaskKind};
use super::outcome;
use super::progress::{Follows, failed, report};
use crate::engine::EngineState;
use crate::engine::cancel::Cancel;
use crate::tasks::Progress;
use crate::tasks::desk::{Desk, HEARD};
use crate::text::language::Language;

/// What the thread sends while it works.
enum Update {
    Text(String),
    /// A `WorkDoneProgressReport`.
    Report(Value),
}

impl Server {
    /// Performs the task, applies its edit, and returns the command's result.
    pub(super) async fn perform(
        &self,
        kind: TaskKind,
        arguments: TaskArguments,
        token: Option<ProgressToken>,
    ) -> Result<Option<Value>> {
        let session = self.session()?;
        let encoding = session.encoding;
        let start = Position::default();
        let snapshot = self
            .documents
            .snapshot(arguments.uri.as_str(), start, encoding);
        let snapshot = snapshot.ok_or_else(|| {
            Error::invalid_params(format!("{} is not open", arguments.uri.as_str()))
        })?;
        let settings = session.completer.settings();
        let readable = settings.readable(&snapshot);
        readable.map_err(|silence| failed(silence.to_string()))?;
        let source = outcome::source(&kind, &arguments, &snapshot, encoding).map_err(failed)?;
        let task = outcome::task(&kind, &arguments, &source, encoding);
        let cancel = Cancel::default();
        let place = self.running.begin(&cancel, Follows::Settings)?;
        if matches!(kind, TaskKind::Solve(_)) && !self.may_run().await? {
            return Ok(None);
        }
        // A document that is not a local file (`vscode-remote:`) has no local folder with examples.
        let file = snapshot
            .uri
            .starts_with("file:")
            .then(|| snapshot.path.to_path_buf());
        let workspace = file.as_deref().and_then(|file| session.workspace_of(file));

        let _guard = cancel.on_drop();
        let progress = self.begin_progress(token, task.name(), &place).await;
        let (sender, mut updates) = unbounded_channel();
        let engine = settings.engine.clone();
        let mut state = engine.state();
        let thread_source = source.clone();
        loop {
            tokio::select! {
                loaded = state.wait_for(|state| !matches!(state, EngineState::Loading(_))) => {
                    match loaded.as_deref() {
                        Ok(EngineState::Failed(problem)) => return Err(failed(problem.clone())),
                        Ok(_) => break,
                        Err(_) => return Err(failed("the engine has ended".to_owned())),
                    }
                }
                // Loading may take minutes if the runtime is downloaded.
                () = tokio::time::sleep(HEARD) => if cancel.is_cancelled() {
                    return Err(Error::request_cancelled());
                },
            }
        }
        let thread_cancel = cancel.clone();
        let work = tokio::task::spawn_blocking(move || {
            let examples = task.examples(
                &thread_source,
                file.as_deref(),
                workspace.as_deref(),
                &settings.exclusion,
            )?;
            let mut observer = |progress: Progress<'_>| {
                let update = match progress {
                    Progress::Text(text) => Update::Text(text.to_owned()),
                    Progress::Done { done, all, message } => {
                        let percentage = 100 * done / all.max(1);
                        Update::Report(
                            json!({ "kind": "report", "percentage": percentage, "message": message }),
                        )
                    }
                };
                // The handler may have been dropped.
                let _ = sender.send(update);
            };
            let mut desk = Desk {
                engine: &engine,
                cancel: &thread_cancel,
                examples,
                observer: &mut observer,
                show_prompt: None,
            };
            task.perform(&mut desk, &thread_source)
        });
        // This ends with the thread, which owns the sender.
        while let Some(update) = updates.recv().await {
            match update {
                Update::Text(text) => {
                    let token = arguments.partial_result_token.clone();
                    report(&self.client, token, text.into()).await;
                }
                Update::Report(value) => progress.report(value).await,
            }
        }
        let outcome = work.await;
        drop(progress);
        if cancel.is_cancelled() {
            return Err(Error::request_cancelled());
        }
        let outcome = outcome.map_err(|_| Error::internal_error())?;
        let outcome = outcome.map_err(|error| failed(error.to_string()))?;
        if let Some(edit) = outcome::edit(&outcome, &source, &snapshot, encoding) {
            // Law (no stale item).
            if self.documents.revision(&snapshot.uri) != Some(snapshot.revision) {
                return Err(failed(
                    "the document changed meanwhile, and nothing was done".to_owned(),
                ));
            }
            let applied = self.client.apply_edit(edit).await?;
            if !applied.applied {
                let why = applied.failure_reason.unwrap_or_default();
                return Err(failed(format!("the editor rejected the change: {why}")));
            }
        }
        Ok(Some(outcome::answer(&outcome)))
    }

    /// Asks the user whether generated programs may be run.
    async fn may_run(&self) -> Result<bool> {
        let run = MessageActionItem {
            title: "Run them".to_owned(),
            properties: HashMap::new(),
        };
        let question = "Interline: run programs that the model writes, in a sandbox without network, \
            home folder or files?";
        let answer = self
            .client
            .show_message_request(MessageType::INFO, question, Some(vec![run.clone()]))
            .await?;
        Ok(answer.is_some_and(|answer| answer.title == run.title))
    }

    /// The code actions for a selection or a diagnostic. Where the cursor merely passes, nothing is
    /// offered: a light bulb at every word would be in the way.
    pub(super) fn actions(&self, params: &CodeActionParams) -> Result<CodeActionResponse> {
        let session = self.session()?;
        // Editors ask wherever the cursor rests.
        let actions = commands::actions(params);
        if actions.is_empty() {
            return Ok(actions);
        }
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
            true => actions,
            false => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::engine::scripted::gated;
    use crate::server::client::Client as TestClient;
    use crate::server::commands::WHY;
    use crate::server::progress::MAX_TASKS;
    use crate::server::tests::{TestServer, URI};

    const FUNCTION: &str = "def area(width, height):$0\n    return width * height\n";

    impl TestServer {
        /// Requests a task for line `line`, and returns the request's id.
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

        /// Waits for a request from the server, answers it, and returns its parameters.
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

        /// The progress reported under a token so far.
        fn progress(&self, token: &str) -> Vec<Value> {
            let notifications = self.client.notifications.iter();
            let reported = notifications.filter(|message| {
                message["method"] == "$/progress" && message["params"]["token"] == token
            });
            reported
                .map(|message| message["params"]["value"].clone())
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
    async fn a_comment_becomes_an_edit_of_this_version() {
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
        let message = "the editor rejected the change: read only";
        assert_eq!(answer["error"]["message"], message);
        server.end().await;
    }

    #[tokio::test]
    async fn a_reopened_document_does_not_get_the_old_edit() {
        let (engine, gate) = gated(" the area.\nx").await;
        let mut server = TestServer::start_with(engine, json!({ "capabilities": {} })).await;
        server.open(FUNCTION).await;
        let id = server.task("interline.document", 0, Value::Null).await;
        gate.begun.recv().await.unwrap();
        // The version is the same.
        server.open("$0x = 1\n").await;
        server.command(WHY, json!([])).await;
        drop(gate);
        let answer = server.client.answer(id).await.unwrap();
        let message = "the document changed meanwhile, and nothing was done";
        assert_eq!(answer["error"]["message"], message);
        server.end().await;
    }

    #[tokio::test]
    async fn a_text_is_streamed_in_pieces_and_returned_whole() {
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
        let parts = server.progress("part");
        let parts: String = parts.iter().filter_map(Value::as_str).collect();
        assert!(
            "It multiplies.".starts_with(&parts) && parts.len() > 4,
            "{parts}"
        );
        let begin = &server.progress("work")[0];
        assert_eq!(begin["kind"], "begin");
        assert_eq!(begin["title"], "Interline: explain");
        server.end().await;
    }

    #[tokio::test]
    async fn the_user_can_cancel_a_task() {
        for cancel in ["window/workDoneProgress/cancel", "$/cancelRequest"] {
            let (engine, gate) = gated(&"a b ".repeat(100)).await;
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
    async fn an_error_names_the_problem() {
        let none = || Value::Null;
        let words = |word: &str| json!({ "words": [word] });
        check_error(FUNCTION, "interline.translate", words("cobol"), expect![[r#"interline.translate takes {uri, range} and a language: the language "cobol" is not known; known are Python, JavaScript, TypeScript, Rust, Go, Java, C, C++, C#, Ruby"#]]).await;
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
        check_error(
            FUNCTION,
            "interline.explain",
            json!({ "words": [1] }),
            expect![
                "interline.explain takes {uri, range}: invalid type: integer `1`, expected a string"
            ],
        )
        .await;
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

    /// With one task too many, the last is refused, and edits and cancels still work.
    #[tokio::test]
    async fn tasks_beyond_the_limit_are_refused() {
        let (engine, gate) = gated("It multiplies.").await;
        let mut server = TestServer::start_with(engine, json!({ "capabilities": {} })).await;
        server.open(FUNCTION).await;
        let mut ids = Vec::new();
        for _ in 0..=MAX_TASKS {
            ids.push(server.task("interline.explain", 0, Value::Null).await);
        }
        let refused = ids.pop().unwrap();
        let answer = server.client.answer(refused).await.unwrap();
        assert_eq!(
            answer["error"]["message"],
            "32 tasks are already in progress; let some end, or cancel them"
        );
        server.type_text("x").await;
        server.command(WHY, json!([])).await;
        drop(gate);
        for id in ids {
            let answer = server.client.answer(id).await.unwrap();
            assert_eq!(answer["result"]["text"], "It multiplies.\n", "{answer}");
        }
        server.end().await;
    }

    #[tokio::test]
    async fn examples_are_found_however_the_client_names_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let examples = folder.path().join(".interline/examples/explain");
        std::fs::create_dir_all(&examples).unwrap();
        std::fs::write(examples.join("a.input.py"), "1").unwrap();
        let root = uri(folder.path());
        let added = json!({ "event": { "added": [{ "uri": root, "name": "a" }], "removed": [] } });
        for initialize in [
            json!({ "capabilities": {}, "rootUri": root }),
            json!({ "capabilities": {}, "workspaceFolders": [{ "uri": root, "name": "a" }] }),
            json!({ "capabilities": {} }),
        ] {
            let later = initialize.as_object().unwrap().len() == 1;
            let (engine, gate) = gated("It multiplies.").await;
            drop(gate);
            let mut server = TestServer::start_with(engine, initialize).await;
            if later {
                let method = "workspace/didChangeWorkspaceFolders";
                server.notify(method, added.clone()).await;
            }
            let document = uri(&folder.path().join("b.py"));
            let text = json!({
                "uri": document, "languageId": "python", "version": 1, "text": "x = 1\n",
            });
            server
                .notify("textDocument/didOpen", json!({ "textDocument": text }))
                .await;
            let arguments = json!([{ "uri": document }]);
            let params = json!({ "command": "interline.explain", "arguments": arguments });
            let id = server.client.send("workspace/executeCommand", params).await;
            let answer = server.client.answer(id.unwrap()).await.unwrap();
            // Half an example is an error: the folder was read.
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("has no other half"), "{message}");
            server.end().await;
        }
    }

    fn uri(path: &std::path::Path) -> String {
        crate::server::client::file_uri(path).unwrap()
    }

    #[tokio::test]
    async fn nothing_runs_without_consent() {
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
