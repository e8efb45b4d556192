//! A person types, over a connection in memory, and the shipped model answers.

use std::sync::Arc;

use interline::engine::Engine;
use interline::model::Model;
use interline::model::store::Store;
use interline::runtime::{Runtime, RuntimeOptions};
use interline::server::client::Client;
use interline::server::settings::{EngineOptions, Options};
use interline::server::{self, StartEngine};
use serde_json::{Value, json};

use crate::support;

const URI: &str = "file:///project/shapes.py";

const SHAPES: &str = "class Rectangle:
    def __init__(self, width, height):
        self.width = width
        self.height = height

    def area(self):
        return self.width * self.height


class Square(Rectangle):
    def __init__(self, side):
        super().__init__(side, side)


def main():
    square = Square(3)
";

/// A client whose server is ready, with an open document.
async fn start(text: &str) -> Client {
    let engine = Arc::new(Engine::spawn(|_| Ok::<_, String>(support::model())));
    start_by(
        Arc::new(move |_: &EngineOptions| engine.clone()),
        None,
        text,
    )
    .await
}

async fn start_by(start: StartEngine, store: Option<Store>, text: &str) -> Client {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(far);
    tokio::spawn(server::serve(
        input,
        output,
        Options::default(),
        start,
        store,
    ));
    let mut client = Client::new(near);
    client
        .request("initialize", json!({"capabilities": {}}))
        .await
        .unwrap();
    client.notify("initialized", json!({})).await.unwrap();
    let document = json!({"uri": URI, "languageId": "python", "version": 1, "text": text});
    client
        .notify("textDocument/didOpen", json!({"textDocument": document}))
        .await
        .unwrap();
    loop {
        let ready = |message: &Value| {
            message["method"] == "didChangeStatus" && message["params"]["busy"] == false
        };
        if client.notifications.iter().any(ready) {
            return client;
        }
        let message = client.receive().await.unwrap();
        client.notifications.push(message);
    }
}

fn position(line: usize, character: usize) -> Value {
    json!({"line": line, "character": character})
}

async fn change(client: &mut Client, version: usize, range: (Value, Value), text: &str) {
    let range = json!({"start": range.0, "end": range.1});
    let params = json!({
        "textDocument": {"uri": URI, "version": version},
        "contentChanges": [{"range": range, "text": text}],
    });
    client
        .notify("textDocument/didChange", params)
        .await
        .unwrap();
}

async fn ask(client: &mut Client, position: &Value, trigger: u8) -> Value {
    let params = json!({
        "textDocument": {"uri": URI}, "position": position, "context": {"triggerKind": trigger},
    });
    client
        .request("textDocument/inlineCompletion", params)
        .await
        .unwrap()
}

async fn last_record(client: &mut Client) -> Value {
    let why = json!({"command": "interline.why", "arguments": [1]});
    client
        .request("workspace/executeCommand", why)
        .await
        .unwrap()[0]
        .take()
}

#[tokio::test]
async fn a_typed_line_is_completed_and_costs_a_few_tokens() {
    let mut client = start(SHAPES).await;
    let line = SHAPES.lines().count();
    let typed = "    print(squa";
    let mut computed = Vec::new();
    let mut shown = String::new();
    for (at, key) in typed.chars().enumerate() {
        let from = position(line, at);
        change(&mut client, at + 2, (from.clone(), from), &key.to_string()).await;
        let answer = ask(&mut client, &position(line, at + 1), 2).await;
        if let Some(text) = answer["items"][0]["insertText"].as_str() {
            shown = text.to_owned();
        }
        computed.push(last_record(&mut client).await["computed"].as_u64().unwrap());
    }
    assert!(shown.starts_with("    print(square"), "{shown:?}");
    // All but the first keystroke find the prompt in the cache.
    assert!(computed[0] > 50, "{computed:?}");
    assert!(
        computed[1..].iter().all(|tokens| *tokens <= 8),
        "{computed:?}"
    );
}

#[tokio::test]
async fn an_explicit_request_has_candidates() {
    let text = format!("{SHAPES}    print(square.");
    let mut client = start(&text).await;
    let end = position(text.lines().count() - 1, "    print(square.".len());
    let answer = ask(&mut client, &end, 1).await;
    let items = answer["items"].as_array().unwrap();
    let texts: Vec<&str> = items
        .iter()
        .map(|item| item["insertText"].as_str().unwrap())
        .collect();
    assert!(
        !texts.is_empty() && texts[0].starts_with("    print(square."),
        "{texts:?}"
    );
    let mut different = texts.clone();
    different.dedup();
    assert_eq!(texts, different);
    // A second request gets the same candidates.
    assert_eq!(
        ask(&mut client, &end, 1).await["items"][0]["insertText"],
        texts[0]
    );
}

/// Law (special tokens never leak), and text that looks like them.
#[tokio::test]
async fn markers_in_a_document_are_text() {
    let text = "PREFIX = \"<fim_prefix>\"\nMIDDLE = \"<fim_middle>\"\nEND = \"<|endoftext|>\"\nSUFFIX = \"<fim_";
    let mut client = start(text).await;
    let answer = ask(&mut client, &position(3, 15), 2).await;
    let record = last_record(&mut client).await;
    // Whatever the model makes of it, the document went to the model as text, marker for marker.
    assert!(record["computed"].as_u64().unwrap() > 30, "{record}");
    if let Some(text) = answer["items"][0]["insertText"].as_str() {
        assert!(text.starts_with("SUFFIX = \"<fim_"), "{text:?}");
    }
}

/// Two models are in memory at once for a while, and the runtime is shared.
#[cfg(unix)]
#[tokio::test]
async fn a_running_server_switches_to_another_model() {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(support::directory(), home.path().join("copy")).unwrap();
    let folder = home.path().to_path_buf();
    let begin = move |options: &EngineOptions| {
        let folder = match &options.model {
            Some(name) => folder.join(name),
            None => support::directory(),
        };
        Arc::new(Engine::spawn(move |waiter| {
            let mut runtime = Runtime::load(&RuntimeOptions::default(), waiter).unwrap();
            Model::load(&folder, &mut runtime)
        }))
    };
    let store = Store::at(home.path().to_path_buf());
    let text = format!("{SHAPES}    print(squa");
    let mut client = start_by(Arc::new(begin), Some(store), &text).await;
    let end = position(SHAPES.lines().count(), "    print(squa".len());
    let before = ask(&mut client, &end, 2).await;
    assert!(before["items"][0]["insertText"].is_string(), "{before}");
    let params = json!({"command": "interline.useModel", "arguments": ["copy"]});
    let used = client.request("workspace/executeCommand", params).await;
    assert_eq!(used.unwrap(), json!({"name": "copy"}));
    let after = ask(&mut client, &end, 2).await;
    let text = |answer: &Value| answer["items"][0]["insertText"].clone();
    assert_eq!(text(&after), text(&before));
    // Nothing of the old model's cache is left.
    let computed = last_record(&mut client).await["computed"].as_u64().unwrap();
    assert!(computed > 50, "{computed}");
}
