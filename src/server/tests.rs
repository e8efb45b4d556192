//! The laws of the server, over a connection in memory and with a scripted model.
//!
//! `start` begins a session, `open` opens a document with the cursor at `$0`, `ask` requests ghost text
//! there, and `end` shuts down as the protocol asks and fails on an unexpected answer.

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::commands::{DOCUMENT_TEXT, WHY};
use super::*;
use crate::engine::scripted::{Scripted, gated, ready, scripted};
use crate::model::Model;
use crate::server::client::Client as TestClient;

pub(super) const URI: &str = "file:///project/a.py";

pub(super) struct TestServer {
    pub(super) client: TestClient,
    server: JoinHandle<bool>,
    cursor: Value,
    version: i32,
}

impl TestServer {
    pub(super) async fn start_with(engine: Engine, initialize: Value) -> Self {
        let engine = Arc::new(engine);
        Self::start_by(Arc::new(move |_| engine.clone()), None, initialize).await
    }

    pub(super) async fn start_by(
        start: StartEngine,
        store: Option<Store>,
        initialize: Value,
    ) -> Self {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(far);
        let server = tokio::spawn(serve(input, output, Options::default(), start, store));
        let mut client = TestClient::new(near);
        client.request("initialize", initialize).await.unwrap();
        client.notify("initialized", json!({})).await.unwrap();
        Self {
            client,
            server,
            cursor: Value::Null,
            version: 1,
        }
    }

    /// A server whose model is ready and writes `text`.
    pub(super) async fn start(text: &str) -> Self {
        let (model, scripted) = scripted(text);
        Self::start_ready(model, &scripted).await
    }

    pub(super) async fn start_ready(model: Model, scripted: &Scripted) -> Self {
        let engine = ready(model, scripted).await;
        Self::start_with(engine, json!({"capabilities": {}})).await
    }

    async fn open_as(&mut self, uri: &str, text: &str) {
        let before = &text[..text.find("$0").unwrap()];
        let line = before.matches('\n').count();
        let character = before.rsplit('\n').next().unwrap().encode_utf16().count();
        self.cursor = json!({"line": line, "character": character});
        let document = json!({
            "uri": uri, "languageId": "python", "version": self.version,
            "text": text.replacen("$0", "", 1),
        });
        self.notify("textDocument/didOpen", json!({"textDocument": document}))
            .await;
    }

    pub(super) async fn open(&mut self, text: &str) {
        self.open_as(URI, text).await;
    }

    /// Types at the cursor, which moves on.
    pub(super) async fn type_text(&mut self, text: &str) {
        self.version += 1;
        let range = json!({"start": self.cursor, "end": self.cursor});
        let params = json!({
            "textDocument": {"uri": URI, "version": self.version},
            "contentChanges": [{"range": range, "text": text}],
        });
        let character = self.cursor["character"].as_u64().unwrap();
        self.cursor["character"] = json!(character + text.encode_utf16().count() as u64);
        self.notify("textDocument/didChange", params).await;
    }

    fn params(&self, uri: &str) -> Value {
        json!({
            "textDocument": {"uri": uri}, "position": self.cursor, "context": {"triggerKind": 2},
        })
    }

    pub(super) async fn send(&mut self) -> i64 {
        let params = self.params(URI);
        self.client
            .send("textDocument/inlineCompletion", params)
            .await
            .unwrap()
    }

    async fn ask_in(&mut self, uri: &str) -> Value {
        let params = self.params(uri);
        self.client
            .request("textDocument/inlineCompletion", params)
            .await
            .unwrap()
    }

    pub(super) async fn ask(&mut self) -> Value {
        self.ask_in(URI).await
    }

    pub(super) async fn notify(&mut self, method: &str, params: Value) {
        self.client.notify(method, params).await.unwrap();
    }

    pub(super) async fn command(&mut self, command: &str, arguments: Value) -> Value {
        let params = json!({"command": command, "arguments": arguments});
        self.client
            .request("workspace/executeCommand", params)
            .await
            .unwrap()
    }

    /// Why the last request ended as it did.
    pub(super) async fn why(&mut self) -> String {
        let records = self.command(WHY, json!([1])).await;
        let message = records[0]["message"].as_str().unwrap().to_owned();
        // The part in brackets holds measurements.
        message.split(" (").next().unwrap().to_owned()
    }

    /// Waits for a notification and removes it from those received.
    pub(super) async fn notification(
        &mut self,
        method: &str,
        has: impl Fn(&Value) -> bool,
    ) -> Value {
        loop {
            let wanted = |message: &Value| message["method"] == method && has(&message["params"]);
            if let Some(index) = self.client.notifications.iter().position(wanted) {
                return self.client.notifications.remove(index)["params"].take();
            }
            let message = self.client.receive().await.unwrap();
            assert!(message["method"].is_string(), "unexpected answer {message}");
            self.client.notifications.push(message);
        }
    }

    pub(super) async fn end(mut self) {
        assert_eq!(
            self.client.request("shutdown", Value::Null).await.unwrap(),
            Value::Null
        );
        self.notify("exit", Value::Null).await;
        assert!(self.server.await.unwrap(), "it was shut down");
        while let Ok(message) = self.client.receive().await {
            assert!(message["method"].is_string(), "unexpected answer {message}");
        }
    }
}

pub(super) fn texts(answer: &Value) -> Vec<&str> {
    let items = answer["items"].as_array().unwrap().iter();
    items
        .map(|item| item["insertText"].as_str().unwrap())
        .collect()
}

fn is_empty(answer: &Value) -> bool {
    *answer == json!({"items": []})
}

#[tokio::test]
async fn it_announces_its_capabilities() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(far);
    let start: StartEngine = Arc::new(|_| Arc::new(Engine::spawn(|_| Err::<Model, _>("no model"))));
    tokio::spawn(serve(input, output, Options::default(), start, None));
    let mut client = TestClient::new(near);
    let capabilities = json!({"general": {"positionEncodings": ["utf-16", "utf-8"]}});
    let result = client
        .request("initialize", json!({"capabilities": capabilities}))
        .await;
    let expected: Expect = expect![[r#"
        {
          "codeActionProvider": {
            "codeActionKinds": [
              "quickfix",
              "refactor"
            ]
          },
          "completionProvider": {
            "triggerCharacters": [
              "."
            ]
          },
          "executeCommandProvider": {
            "commands": [
              "interline.accept",
              "interline.why",
              "interline.documentText",
              "interline.models",
              "interline.pullModel",
              "interline.useModel",
              "interline.translate",
              "interline.generate",
              "interline.explain",
              "interline.document",
              "interline.test",
              "interline.fix",
              "interline.solve"
            ],
            "workDoneProgress": true
          },
          "experimental": {
            "languages": [
              "python",
              "javascript",
              "typescript",
              "rust",
              "go",
              "java",
              "c",
              "cpp",
              "csharp",
              "ruby"
            ]
          },
          "inlineCompletionProvider": true,
          "notebookDocumentSync": {
            "notebookSelector": [
              {
                "notebook": "*"
              }
            ]
          },
          "positionEncoding": "utf-8",
          "textDocumentSync": 2,
          "workspace": {
            "workspaceFolders": {
              "changeNotifications": true,
              "supported": true
            }
          }
        }"#]];
    expected.assert_eq(&format!("{:#}", result.unwrap()["capabilities"]));
}

#[tokio::test]
async fn it_returns_its_text_of_an_open_document() {
    let mut server = TestServer::start("").await;
    server.open("a = 1\r\n$0").await;
    server.type_text("é").await;
    let text = server.command(DOCUMENT_TEXT, json!([URI])).await;
    assert_eq!(text, json!("a = 1\r\né"));
    let text = server
        .command(DOCUMENT_TEXT, json!(["untitled:Untitled-1"]))
        .await;
    assert_eq!(text, Value::Null);
    server.end().await;
}

#[tokio::test]
async fn ghost_text_is_what_the_model_writes() {
    let mut server = TestServer::start("b = 2\nc = 3").await;
    server.open("a = 1\n$0\n").await;
    let answer = server.ask().await;
    expect![[r#"
        {
          "items": [
            {
              "command": {
                "arguments": [
                  1
                ],
                "command": "interline.accept",
                "title": "Interline: accepted"
              },
              "insertText": "b = 2",
              "range": {
                "end": {
                  "character": 0,
                  "line": 1
                },
                "start": {
                  "character": 0,
                  "line": 1
                }
              }
            }
          ]
        }"#]]
    .assert_eq(&format!("{answer:#}"));
    server.end().await;
}

#[tokio::test]
async fn the_completion_menu_has_it_too() {
    let mut server = TestServer::start("b = 2").await;
    server.open("a = 1\n$0\n").await;
    let params = server.params(URI);
    let answer = server
        .client
        .request("textDocument/completion", params)
        .await
        .unwrap();
    assert_eq!(answer["isIncomplete"], true);
    assert_eq!(answer["items"][0]["preselect"], true);
    assert_eq!(answer["items"][0]["textEdit"]["newText"], "b = 2");
    server.end().await;
}

/// A menu that opens with our item selected would hide the ghost text.
#[tokio::test]
async fn the_menu_has_no_items_beside_ghost_text_unless_it_should() {
    let (model, scripted) = scripted("b = 2");
    let engine = ready(model, &scripted).await;
    let initialize = json!({"capabilities": {}, "clientInfo": {"name": "Neovim"}});
    let mut server = TestServer::start_with(engine, initialize).await;
    server.open("a = 1\n$0\n").await;
    let params = server.params(URI);
    let menu = async |server: &mut TestServer| {
        let answer = server
            .client
            .request("textDocument/completion", params.clone());
        let answer = answer.await.unwrap();
        answer["items"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(menu(&mut server).await, 1);
    server.ask().await;
    assert_eq!(menu(&mut server).await, 0);
    let settings = json!({"settings": {"interline": {"completionMenu": true}}});
    server
        .notify("workspace/didChangeConfiguration", settings)
        .await;
    assert_eq!(menu(&mut server).await, 1);
    server.end().await;
}

#[tokio::test]
async fn ghost_text_and_the_menu_at_one_place_share_an_answer() {
    for order in [["Completion", "completion"], ["completion", "Completion"]] {
        let (engine, gate) = gated("b = 2").await;
        let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
        server.open("a = 1\n$0\n").await;
        let mut ids = Vec::new();
        for method in order {
            let method = method.replace('C', "inlineC");
            let method = format!("textDocument/{method}");
            let params = server.params(URI);
            ids.push(server.client.send(&method, params).await.unwrap());
        }
        // Once a request sent after them is answered, both have arrived.
        server.command(WHY, json!([])).await;
        drop(gate);
        for id in ids {
            let answer = server.client.answer(id).await.unwrap();
            let items = answer["result"]["items"].as_array();
            assert_eq!(items.map(Vec::len), Some(1), "{order:?}: {answer}");
        }
        server.end().await;
    }
}

/// A cancelled request must not take the one that waits for it along.
#[tokio::test]
async fn the_menu_outlives_a_cancelled_request_for_ghost_text() {
    let (engine, gate) = gated("b = 2").await;
    let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
    server.open("a = 1\n$0\n").await;
    let ghost = server.send().await;
    let params = server.params(URI);
    let menu = server.client.send("textDocument/completion", params).await;
    gate.begun.recv().await.unwrap();
    server.notify("$/cancelRequest", json!({"id": ghost})).await;
    server.client.answer(ghost).await.unwrap();
    drop(gate);
    let answer = server.client.answer(menu.unwrap()).await.unwrap();
    assert_eq!(answer["result"]["items"][0]["label"], "b = 2");
    server.end().await;
}

#[tokio::test]
async fn it_continues_the_item_selected_in_the_menu() {
    let mut server = TestServer::start("b = 2").await;
    server.open("a = 1\nx$0").await;
    let mut params = server.params(URI);
    let line_start = json!({"line": 1, "character": 0});
    let range = json!({"start": line_start, "end": server.cursor});
    params["context"]["selectedCompletionInfo"] = json!({"range": range, "text": "xyz = 1\n"});
    let answer = server
        .client
        .request("textDocument/inlineCompletion", params)
        .await
        .unwrap();
    assert_eq!(texts(&answer), ["xyz = 1\nb = 2"]);
    assert_eq!(answer["items"][0]["range"], range);
    server.end().await;
}

#[tokio::test]
async fn typing_through_needs_no_model() {
    let mut server = TestServer::start("b = 2").await;
    server.open("a = 1\n$0\n").await;
    server.ask().await;
    server.type_text("b").await;
    assert_eq!(texts(&server.ask().await), ["b = 2"]);
    assert_eq!(server.why().await, "#2 in a.py: 1 shown, typed through");
    server.end().await;
}

/// Law (exactly one answer).
#[tokio::test]
async fn only_the_last_request_of_a_burst_has_items() {
    let (engine, gate) = gated("b = 2").await;
    let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
    server.open("a = 1\n$0\n").await;
    let mut bytes = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..50 {
        let params = server.params(URI);
        let (id, message) = server
            .client
            .prepare("textDocument/inlineCompletion", params);
        bytes.extend(TestClient::frame(&message));
        ids.push(id);
    }
    server.client.send_raw(&bytes).await.unwrap();
    // The model is held. Once a request sent after them is answered, all of them have arrived.
    server.command(WHY, json!([])).await;
    drop(gate);
    let last = ids.pop().unwrap();
    for id in ids {
        assert_eq!(
            server.client.answer(id).await.unwrap()["result"],
            Value::Null
        );
    }
    let answer = server.client.answer(last).await.unwrap();
    assert_eq!(texts(&answer["result"]), ["b = 2"]);
    server.end().await;
}

/// Law (cancel reaches the model). A cancelled request is answered too.
#[tokio::test]
async fn a_cancelled_request_stops_the_model() {
    let (engine, gate) = gated(&"b = 2 ".repeat(20)).await;
    let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
    server.open("a = 1\n$0\n").await;
    let id = server.send().await;
    gate.begun.recv().await.unwrap();
    server.notify("$/cancelRequest", json!({"id": id})).await;
    let answer = server.client.answer(id).await.unwrap();
    assert_eq!(answer["error"]["code"], -32800);
    assert_eq!(
        server.why().await,
        "#1 in a.py: nothing shown, because the client cancelled the request"
    );
    drop(gate.go_on);
    // The pass that was running is the last one of that request.
    assert_eq!(texts(&server.ask().await).len(), 1);
    let before = std::iter::from_fn(|| gate.begun.try_recv()).count();
    assert!(
        before < 60,
        "the cancelled request went on: {before} passes"
    );
    server.end().await;
}

/// Checks that a request is answered with `null` when `change` happens meanwhile.
async fn check_stale(change: impl AsyncFnOnce(&mut TestServer)) {
    let (engine, gate) = gated("b = 2").await;
    let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
    server.open("a = 1\n$0\n").await;
    let id = server.send().await;
    change(&mut server).await;
    server.command(WHY, json!([])).await;
    drop(gate);
    assert_eq!(
        server.client.answer(id).await.unwrap()["result"],
        Value::Null
    );
    assert_eq!(
        server.why().await,
        "#1 in a.py: nothing shown, because the document changed meanwhile"
    );
    server.end().await;
}

/// Law (no stale item).
#[tokio::test]
async fn an_answer_for_an_older_text_is_null() {
    check_stale(async |server| server.type_text("x").await).await;
}

/// Law (no stale item), when the client restarts its version numbers or does not count.
#[tokio::test]
async fn a_reused_version_does_not_bring_back_the_old_answer() {
    check_stale(async |server| {
        server.version = 1;
        server.open("c = 3\n$0\n").await;
    })
    .await;
}

/// Law (order): a request sees the edits sent before it.
#[tokio::test]
async fn requests_see_the_edits_before_them() {
    let mut server = TestServer::start("b = 2").await;
    server.open("$0a = 1\n").await;
    // A position after the end of the text means the end, and the item's range says so.
    let end = json!({"line": 1_000_000, "character": 0});
    for lines in 2..12 {
        let range = json!({"start": server.cursor, "end": server.cursor});
        let change = json!({
            "jsonrpc": "2.0", "method": "textDocument/didChange", "params": {
                "textDocument": {"uri": URI, "version": lines},
                "contentChanges": [{"range": range, "text": format!("line = {lines}\n")}],
            },
        });
        let mut params = server.params(URI);
        params["position"] = end.clone();
        let (id, request) = server
            .client
            .prepare("textDocument/inlineCompletion", params);
        let bytes = [TestClient::frame(&change), TestClient::frame(&request)].concat();
        server.client.send_raw(&bytes).await.unwrap();
        let answer = server.client.answer(id).await.unwrap();
        assert_eq!(answer["result"]["items"][0]["range"]["end"]["line"], lines);
    }
    server.end().await;
}

#[tokio::test]
async fn until_the_model_is_ready_the_answer_is_null() {
    let (load, wait) = std::sync::mpsc::channel::<()>();
    let engine = Engine::spawn(move |waiter| {
        waiter.say("loading the model");
        let _ = wait.recv();
        Ok::<_, String>(scripted("b = 2").0)
    });
    let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
    let loading = server
        .notification("didChangeStatus", |status| status["busy"] == true)
        .await;
    assert_eq!(loading["kind"], "Normal");
    server.open("a = 1\n$0\n").await;
    assert_eq!(server.ask().await, Value::Null);
    drop(load);
    let ready = server
        .notification("didChangeStatus", |status| status["busy"] == false)
        .await;
    assert_eq!(
        ready,
        json!({"busy": false, "kind": "Normal", "message": "scripted is ready"})
    );
    assert_eq!(texts(&server.ask().await), ["b = 2"]);
    server.end().await;
}

#[tokio::test]
async fn without_a_model_the_user_is_told_why() {
    let engine = Engine::spawn(|_| Err::<Model, _>("model.onnx is missing"));
    let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
    let status = server
        .notification("didChangeStatus", |status| status["kind"] == "Error")
        .await;
    assert_eq!(status["message"], "model.onnx is missing");
    let shown = server.notification("window/showMessage", |_| true).await;
    assert_eq!(
        shown["message"],
        "Interline cannot complete: model.onnx is missing"
    );
    server.open("a = 1\n$0\n").await;
    assert!(is_empty(&server.ask().await));
    server.end().await;
}

#[tokio::test]
async fn a_panic_in_the_model_costs_one_answer() {
    let (model, scripted) = scripted("b = 2");
    // Not one of the ids with which the model is warmed up.
    scripted.panic_at("a.py");
    let mut server = TestServer::start_ready(model, &scripted).await;
    server.open("a = 1\n$0\n").await;
    assert!(is_empty(&server.ask().await));
    assert!(server.why().await.contains("the engine panicked"));
    assert_eq!(texts(&server.ask().await), ["b = 2"]);
    server.end().await;
}

/// Law (every silence has a reason).
#[tokio::test]
async fn a_dropped_text_is_recorded_with_the_rule() {
    let mut server = TestServer::start("b = 2").await;
    server.open("a = 1\n$0\nb = 2\n").await;
    assert!(is_empty(&server.ask().await));
    assert_eq!(
        server.why().await,
        "#1 in a.py: nothing shown, because what the model wrote was dropped: it repeats what \
         follows the cursor"
    );
    server.open("na$0me\n").await;
    assert!(is_empty(&server.ask().await));
    assert_eq!(
        server.why().await,
        "#2 in a.py: nothing shown, because the cursor is inside a word"
    );
    server.end().await;
}

#[tokio::test]
async fn secrets_are_not_read() {
    let mut server = TestServer::start("b = 2").await;
    let secret = "file:///project/.env";
    server.open_as(secret, "a = 1\n$0\n").await;
    assert!(is_empty(&server.ask_in(secret).await));
    let status = server
        .notification("didChangeStatus", |status| status["kind"] == "Inactive")
        .await;
    assert_eq!(
        status["message"],
        "files that match .env* are not shown to the model"
    );
    server.client.notifications.clear();
    server.open("a = 1\n$0\n").await;
    assert_eq!(texts(&server.ask().await), ["b = 2"]);
    server
        .notification("didChangeStatus", |status| status["kind"] == "Normal")
        .await;
    server.end().await;
}

#[tokio::test]
async fn the_status_is_that_of_the_focused_file() {
    let mut server = TestServer::start("b = 2").await;
    let secret = "file:///project/.env";
    server.open_as(secret, "a = 1\n$0\n").await;
    server.open("a = 1\n$0\n").await;
    let focus = json!({"textDocument": {"uri": secret}});
    server.notify("textDocument/didFocus", focus.clone()).await;
    let kind = |kind: &'static str| move |status: &Value| status["kind"] == kind;
    let status = server
        .notification("didChangeStatus", kind("Inactive"))
        .await;
    assert_eq!(
        status["message"],
        "files that match .env* are not shown to the model"
    );
    for other in [json!({"textDocument": {"uri": URI}}), json!({})] {
        server.notify("textDocument/didFocus", focus.clone()).await;
        server.client.notifications.clear();
        server.notify("textDocument/didFocus", other).await;
        server.notification("didChangeStatus", kind("Normal")).await;
    }
    server.end().await;
}

#[tokio::test]
async fn settings_change_while_it_runs() {
    let mut server = TestServer::start("b = 2").await;
    server.open("a = 1\n$0\n").await;
    let configure = |settings: Value| json!({"settings": {"interline": settings}});
    let change = "workspace/didChangeConfiguration";
    server
        .notify(change, configure(json!({"disabledLanguages": ["python"]})))
        .await;
    assert!(is_empty(&server.ask().await));
    assert!(
        server
            .why()
            .await
            .ends_with("completion is switched off for this language")
    );
    for (unknown, warned) in [("enabledd", true), ("enabledd", false), ("other", true)] {
        server
            .notify(change, configure(json!({unknown: true})))
            .await;
        if warned {
            let shown = server.notification("window/showMessage", |_| true).await;
            let message = format!("Interline ignores the unknown setting `{unknown}`");
            assert_eq!(shown["message"], message);
        }
    }
    server
        .notify(change, configure(json!({"enabled": "perhaps"})))
        .await;
    let shown = server.notification("window/showMessage", |_| true).await;
    let message = shown["message"].as_str().unwrap();
    assert!(
        message.starts_with("Interline keeps its previous settings: in the setting `enabled`"),
        "{message}"
    );
    // What is not mentioned stays.
    server.notify(change, configure(Value::Null)).await;
    assert!(is_empty(&server.ask().await));
    server
        .notify(change, configure(json!({"disabledLanguages": []})))
        .await;
    assert_eq!(texts(&server.ask().await), ["b = 2"]);
    server.end().await;
}

/// An answer was made under the settings at the time of its request.
#[tokio::test]
async fn an_answer_under_older_settings_is_not_shown() {
    let (engine, gate) = gated("b = 2").await;
    let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
    server.open("a = 1\n$0\n").await;
    let id = server.send().await;
    gate.begun.recv().await.unwrap();
    let settings = json!({"settings": {"interline": {"excludedFiles": ["a.py"]}}});
    server
        .notify("workspace/didChangeConfiguration", settings)
        .await;
    server.command(WHY, json!([])).await;
    drop(gate);
    let answer = server.client.answer(id).await.unwrap();
    assert_eq!(answer["result"], Value::Null);
    assert_eq!(
        server.why().await,
        "#1 in a.py: nothing shown, because the settings or the model changed meanwhile"
    );
    assert!(is_empty(&server.ask().await));
    server.end().await;
}

#[tokio::test]
async fn invalid_initial_settings_are_refused() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(far);
    let start: StartEngine = Arc::new(|_| unreachable!("the settings are refused first"));
    tokio::spawn(serve(input, output, Options::default(), start, None));
    let mut client = TestClient::new(near);
    let params = json!({"capabilities": {}, "initializationOptions": {"provider": "tpu"}});
    let id = client.send("initialize", params).await.unwrap();
    let answer = client.answer(id).await.unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("unknown variant `tpu`, expected one of"),
        "{message}"
    );
}

#[tokio::test]
async fn what_the_user_accepts_is_recorded() {
    let mut server = TestServer::start("b = 2").await;
    server.open("a = 1\n$0\n").await;
    let item = server.ask().await["items"][0].take();
    server
        .notify("textDocument/didShowCompletion", json!({"item": item}))
        .await;
    let part = json!({"item": item, "acceptedLength": 3});
    server
        .notify("textDocument/didPartiallyAcceptCompletion", part)
        .await;
    let records = server.command(WHY, json!([])).await;
    let message = records[0]["message"].as_str().unwrap();
    assert!(message.ends_with(", 3 UTF-16 units taken"), "{message}");
    let accept = &item["command"];
    let name = accept["command"].as_str().unwrap();
    assert_eq!(
        server.command(name, accept["arguments"].clone()).await,
        Value::Null
    );
    let records = server.command(WHY, json!([])).await;
    assert!(records[0]["message"].as_str().unwrap().ends_with(", taken"));
    server.end().await;
}

#[tokio::test]
async fn bad_input_leaves_the_server_alive() {
    let mut server = TestServer::start("b = 2").await;
    server.open("a = 1\n$0\n").await;
    let cursor = server.cursor.clone();

    let garbage = b"Content-Length: 9\r\n\r\n{\"oops\": ";
    server.client.send_raw(garbage).await.unwrap();

    let id = server
        .client
        .send("no/such/method", json!({}))
        .await
        .unwrap();
    assert_eq!(
        server.client.answer(id).await.unwrap()["error"]["code"],
        -32601
    );
    let id = server
        .client
        .send("textDocument/inlineCompletion", json!({"position": 3}))
        .await
        .unwrap();
    assert_eq!(
        server.client.answer(id).await.unwrap()["error"]["code"],
        -32602
    );

    let closed = json!({
        "textDocument": {"uri": "file:///closed.py", "version": 1},
        "contentChanges": [{"text": "x"}],
    });
    server.notify("textDocument/didChange", closed).await;
    assert!(is_empty(&server.ask_in("file:///closed.py").await));
    let why = server.why().await;
    assert!(why.contains(" in closed.py: nothing shown, because the document is not open"));

    server.cursor = json!({"line": 4_000_000_000_u32, "character": 4_000_000_000_u32});
    assert_eq!(texts(&server.ask().await), ["b = 2"]);

    server.cursor = cursor;
    server.version = -7;
    server.type_text("x").await;
    assert!(!server.ask().await.is_null());
    server.end().await;
}

#[tokio::test]
async fn a_document_may_be_large_or_one_line_or_binary() {
    let mut server = TestServer::start("b = 2").await;
    server
        .open(&format!("{}$0\n", "value = 1\n".repeat(2 << 20)))
        .await;
    assert_eq!(texts(&server.ask().await), ["b = 2"]);
    server
        .open(&format!("x = [{}\n$0", "1, ".repeat(1 << 19)))
        .await;
    assert_eq!(texts(&server.ask().await), ["b = 2"]);
    server.open("\u{0}\u{1}ELF\n$0").await;
    assert!(is_empty(&server.ask().await));
    assert!(server.why().await.ends_with("the file is binary"));
    server.end().await;
}

#[tokio::test]
async fn an_exit_without_shutdown_is_reported() {
    let mut server = TestServer::start("b = 2").await;
    server.notify("exit", Value::Null).await;
    assert!(!server.server.await.unwrap());
}

#[tokio::test]
async fn the_end_of_the_input_ends_the_server() {
    let TestServer { client, server, .. } = TestServer::start("").await;
    drop(client);
    assert!(!server.await.unwrap());
}

/// The URIs are those that real clients send.
#[tokio::test]
async fn a_document_is_completed_whatever_its_uri_looks_like() {
    let mut server = TestServer::start("b = 2").await;
    for uri in [
        "file:///tmp/app/[slug]/page.py",
        "file:///tmp/a b/x.py",
        "file:///tmp/été/x.py",
        "file:///tmp/{id}.py",
        "file:///tmp/100%.py",
        "file:///tmp/a|b.py",
        "file:///tmp/c#/x.py",
        "/tmp/plain/path.py",
        "C:\\plain\\path.py",
        "",
    ] {
        server.open_as(uri, "a = 1\n$0\n").await;
        assert_eq!(texts(&server.ask_in(uri).await), ["b = 2"], "{uri}");
        let text = server.command(DOCUMENT_TEXT, json!([uri])).await;
        assert_eq!(text, "a = 1\n\n", "{uri}");
        let change = json!({
            "textDocument": { "uri": uri, "version": 2 },
            "contentChanges": [{ "text": "c = 3\n" }],
        });
        server.notify("textDocument/didChange", change).await;
        let text = server.command(DOCUMENT_TEXT, json!([uri])).await;
        assert_eq!(text, "c = 3\n", "{uri}");
        let document = json!({ "textDocument": { "uri": uri } });
        server.notify("textDocument/didClose", document).await;
        let text = server.command(DOCUMENT_TEXT, json!([uri])).await;
        assert_eq!(text, Value::Null, "{uri}");
    }
    // A path is excluded however its URI is written.
    server.open_as("file:///tmp/c#/.env", "a = 1\n$0\n").await;
    assert!(is_empty(&server.ask_in("file:///tmp/c#/.env").await));
    assert!(
        server
            .why()
            .await
            .contains("in .env: nothing shown, because files that match")
    );
    server.end().await;
}

/// An editor written in JavaScript counts in UTF-16 units, and cuts texts between them.
#[tokio::test]
async fn half_a_surrogate_pair_waits_for_the_other_half() {
    let mut server = TestServer::start("b = 2").await;
    server.open("x = \"😀\"$0").await;
    let check = async |server: &mut TestServer, from: u32, to: u32, text: &str, expected: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","method":"textDocument/didChange","params":{{
                "textDocument":{{"uri":"{URI}","version":2}},"contentChanges":[{{"range":{{
                "start":{{"line":0,"character":{from}}},"end":{{"line":0,"character":{to}}}}},
                "text":"{text}"}}]}}}}"#
        );
        let bytes = framing::frame(body.as_bytes());
        server.client.send_raw(&bytes).await.unwrap();
        let text = server.command(DOCUMENT_TEXT, json!([URI])).await;
        assert_eq!(text, expected);
    };
    check(&mut server, 6, 7, r"\ude01", "x = \"😁\"").await;
    check(&mut server, 5, 7, r"\ud83d", "x = \"\u{fffd}\"").await;
    check(&mut server, 7, 7, "!", "x = \"\u{fffd}\"!").await;
    check(&mut server, 6, 6, r"\ude00\ud83d", "x = \"😀\u{fffd}\"!").await;
    check(&mut server, 8, 8, r"\ude02", "x = \"😀😂\"!").await;
    server.cursor = json!({ "line": 0, "character": 11 });
    assert_eq!(texts(&server.ask().await).len(), 1);

    // Half a pair in a document that is opened, its other half in a change.
    let open = format!(
        r#"{{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{{"textDocument":{{
            "uri":"{URI}","version":1,"languageId":"python","text":"é\ud83d\n"}}}}}}"#
    );
    let bytes = framing::frame(open.as_bytes());
    server.client.send_raw(&bytes).await.unwrap();
    check(&mut server, 2, 2, r"\ude01", "é😁\n").await;
    server.end().await;
}

#[tokio::test]
async fn a_request_with_half_a_surrogate_pair_is_answered() {
    let mut server = TestServer::start("b = 2").await;
    server.open("a = 1\n$0\n").await;
    for (id, member) in [
        (101, r#""context":{"triggerKind":2,"x":"\ud83d"}"#),
        (102, r#""context":{"triggerKind":2},"\udc00":1"#),
        (
            103,
            r#""context":{"triggerKind":2,"selectedCompletionInfo":{"text":"\ud83d",
            "range":{"start":{"line":1,"character":0},"end":{"line":1,"character":0}}}}"#,
        ),
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"textDocument/inlineCompletion","params":{{
                "textDocument":{{"uri":"{URI}"}},"position":{{"line":1,"character":0}},{member}}}}}"#
        );
        let bytes = framing::frame(body.as_bytes());
        server.client.send_raw(&bytes).await.unwrap();
        let answer = server.client.answer(id).await.unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_document_out_of_step_is_not_completed_until_its_text_arrives() {
    let mut server = TestServer::start("b = 2").await;
    let whole = json!([{ "text": "a = 1\n" }]);
    let params = |changes: &Value| json!({ "textDocument": { "uri": URI, "version": 2 }, "contentChanges": changes });
    for reopen in [true, false] {
        server.open("a = 1\n$0").await;
        let lost = params(&json!([{ "text": 5 }]));
        server.notify("textDocument/didChange", lost).await;
        let warning = server.notification("window/showMessage", |_| true).await;
        let why = "the server's text of this document is out of step; close and open it again";
        assert_eq!(warning["message"], format!("Interline, in a.py: {why}"));
        server.type_text("c").await;
        assert!(is_empty(&server.ask().await));
        let shown = server.why().await;
        assert!(
            shown.ends_with(&format!("nothing shown, because {why}")),
            "{shown}"
        );
        if reopen {
            server.open("a = 1\n$0").await;
        } else {
            server
                .notify("textDocument/didChange", params(&whole))
                .await;
            server.cursor = json!({ "line": 1, "character": 0 });
        }
        assert_eq!(texts(&server.ask().await), ["b = 2"]);
    }
    // A text with lost bytes differs from the client's.
    let body =
        json!({ "jsonrpc": "2.0", "method": "textDocument/didChange", "params": params(&whole) });
    let body = body.to_string().replace("a = 1", "a = ?").into_bytes();
    let body: Vec<u8> = body
        .iter()
        .map(|byte| if *byte == b'?' { 0xff } else { *byte })
        .collect();
    server
        .client
        .send_raw(&framing::frame(&body))
        .await
        .unwrap();
    assert!(is_empty(&server.ask().await));
    server.end().await;
}

#[tokio::test]
async fn shutdown_accepts_any_parameters() {
    for params in [json!({}), json!([]), json!(5)] {
        let mut server = TestServer::start("").await;
        let id = server
            .client
            .send("shutdown", params.clone())
            .await
            .unwrap();
        let answer = server.client.answer(id).await.unwrap();
        assert_eq!(answer.get("result"), Some(&Value::Null), "{answer}");
        server.notify("exit", params).await;
        assert!(server.server.await.unwrap());
    }
}

/// The process then ends with an error, even after `shutdown`.
#[tokio::test]
async fn a_stream_that_cannot_be_read_ends_the_server() {
    for length in ["-1", "abc", "", "99999999999"] {
        let mut server = TestServer::start("").await;
        server
            .client
            .request("shutdown", Value::Null)
            .await
            .unwrap();
        let header = format!("Content-Length: {length}\r\n\r\n");
        server.client.send_raw(header.as_bytes()).await.unwrap();
        assert!(!server.server.await.unwrap(), "{length:?}");
    }
}

/// A request may take a minute, and its answer has no reader any more.
#[tokio::test]
async fn the_end_of_the_input_ends_a_running_request() {
    let (engine, gate) = gated("It multiplies.").await;
    let mut server = TestServer::start_with(engine, json!({"capabilities": {}})).await;
    server.open("a = 1\n$0\n").await;
    server.send().await;
    gate.begun.recv().await.unwrap();
    drop(server.client);
    assert!(!server.server.await.unwrap());
    drop(gate);
}

#[tokio::test]
async fn the_server_starts_and_ends_with_its_editor() {
    // No such process can be seen from here.
    let initialize =
        json!({ "capabilities": {}, "processId": 4_190_000, "rootUri": "/tmp/my app" });
    let engine = Engine::spawn(move |_| Ok::<_, String>(scripted("b = 2").0));
    let mut server = TestServer::start_with(engine, initialize).await;
    server.open("a = 1\n$0\n").await;
    server.ask().await;
    server.end().await;
}
