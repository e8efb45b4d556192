//! The server around the model, over a connection in memory: `cargo bench --bench server [--
//! MODEL]`, where MODEL is a model folder; without it the default model is used.
//!
//! - How soon a change is applied while a burst of requests keeps the server and the model busy,
//!   compared with an idle server: the time to the answer of a command that is sent right after the
//!   change, since messages are handled in order.
//! - How soon a keystroke is answered while a long translation runs, compared with the same without
//!   one.
//! - What a completion in the middle of a document of 1 MB costs outside the model's forward passes.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use interline::engine::{Engine, EngineState};
use interline::model::{Model, default_directory};
use interline::runtime::{Runtime, RuntimeOptions};
use interline::server;
use interline::server::client::Client;
use interline::server::commands::WHY;
use interline::server::settings::{EngineOptions, Options};
use serde_json::{Value, json};

const BURSTS: usize = 40;

/// Requests of a burst.
const REQUESTS: usize = 50;

/// Keystrokes in the large document.
const KEYSTROKES: usize = 400;

/// Keystrokes in a row with or without a translation, and the number of such turns.
const TURN: usize = 60;
const TURNS: usize = 6;

const URI: &str = "file:///bench.py";

/// The file that is translated.
const OTHER: &str = "file:///other.py";

/// What a keystroke cost.
struct Keystroke {
    /// The time to the answer.
    answer: Duration,
    /// The part of it outside the model's forward passes.
    outside: Duration,
    /// The part of it spent waiting for the pass of another request.
    queued: Duration,
}

/// A document into which text is typed at one place.
struct Typist {
    client: Client,
    version: usize,
    line: usize,
    character: usize,
}

impl Typist {
    async fn open(&mut self, text: &str, line: usize) -> anyhow::Result<()> {
        (self.line, self.character) = (line, 0);
        self.version += 1;
        let document = json!({
            "uri": URI, "languageId": "python", "version": self.version, "text": text,
        });
        let params = json!({"textDocument": document});
        Ok(self.client.notify("textDocument/didOpen", params).await?)
    }

    fn position(&self) -> Value {
        json!({"line": self.line, "character": self.character})
    }

    /// The message for the change.
    fn type_text(&mut self, text: &str) -> Vec<u8> {
        let start = self.position();
        match text {
            "\n" => (self.line, self.character) = (self.line + 1, 0),
            _ => self.character += text.len(),
        }
        self.version += 1;
        Client::frame(&json!({
            "jsonrpc": "2.0", "method": "textDocument/didChange", "params": {
                "textDocument": {"uri": URI, "version": self.version},
                "contentChanges": [{"range": {"start": start, "end": start}, "text": text}],
            },
        }))
    }

    fn ask(&mut self) -> (i64, Vec<u8>) {
        let params = json!({
            "textDocument": {"uri": URI}, "position": self.position(),
            "context": {"triggerKind": 2},
        });
        let (id, message) = self.client.prepare("textDocument/inlineCompletion", params);
        (id, Client::frame(&message))
    }

    fn why(&mut self) -> (i64, Vec<u8>) {
        let params = json!({"command": WHY, "arguments": [1]});
        let (id, message) = self.client.prepare("workspace/executeCommand", params);
        (id, Client::frame(&message))
    }

    /// Starts to translate a long file, and returns the request's id.
    async fn translate(&mut self) -> anyhow::Result<i64> {
        let params = json!({
            "command": "interline.translate", "arguments": [{"uri": OTHER}, "rust"],
        });
        Ok(self.client.send("workspace/executeCommand", params).await?)
    }

    /// Changes the document and returns the time until the change was applied.
    async fn change(&mut self, text: &str) -> anyhow::Result<Duration> {
        let change = self.type_text(text);
        let (id, why) = self.why();
        let start = Instant::now();
        self.client.send_raw(&[change, why].concat()).await?;
        self.client.answer(id).await?;
        Ok(start.elapsed())
    }

    /// A burst of requests with a change in the middle. Returns the time until the change was
    /// applied.
    async fn burst(&mut self) -> anyhow::Result<Duration> {
        let mut ids = Vec::new();
        let mut ask = |typist: &mut Self| {
            let asked = (0..REQUESTS / 2).map(|_| typist.ask());
            let (new, messages): (Vec<_>, Vec<_>) = asked.unzip();
            ids.extend(new);
            messages.concat()
        };
        let before = ask(self);
        self.client.send_raw(&before).await?;
        let time = self.change("i").await?;
        let after = ask(self);
        self.client.send_raw(&after).await?;
        let mut shown = Vec::new();
        for id in ids {
            let answer = self.client.answer(id).await?;
            let items = answer["result"]["items"].as_array().map_or(0, Vec::len);
            shown.push(items > 0);
        }
        let last = shown.pop();
        ensure!(
            last == Some(true),
            "the last request of a burst has no items"
        );
        ensure!(
            !shown.contains(&true),
            "an earlier request of a burst has items"
        );
        Ok(time)
    }

    /// One keystroke; `None` if the model was not asked.
    async fn keystroke(&mut self, typed: &str) -> anyhow::Result<Option<Keystroke>> {
        let change = self.type_text(typed);
        let (id, ask) = self.ask();
        let start = Instant::now();
        self.client.send_raw(&[change, ask].concat()).await?;
        self.client.answer(id).await?;
        let elapsed = start.elapsed();
        let (id, why) = self.why();
        self.client.send_raw(&why).await?;
        let answer = self.client.answer(id).await?;
        let model = answer["result"][0]["modelMs"].as_f64();
        let model = model.context("a request leaves a record")?;
        let queued = answer["result"][0]["queuedMs"].as_f64().unwrap_or_default();
        Ok((model > 0.0).then_some(Keystroke {
            answer: elapsed,
            outside: elapsed.saturating_sub(Duration::from_secs_f64(model / 1e3)),
            queued: Duration::from_secs_f64(queued / 1e3),
        }))
    }
}

/// Writes three percentiles of the times, in milliseconds.
fn row(out: &mut impl Write, name: &str, mut times: Vec<Duration>) -> std::io::Result<()> {
    times.sort_unstable();
    let at = |share: f64| {
        let rank = (share * times.len() as f64).ceil() as usize;
        times[rank.saturating_sub(1)].as_secs_f64() * 1e3
    };
    let (p50, p95, p99) = (at(0.5), at(0.95), at(0.99));
    writeln!(out, "{name:<48}{p50:>9.3}{p95:>9.3}{p99:>9.3}")
}

// As the program runs it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let named = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    let directory = named.map(Into::into).or_else(default_directory);
    let directory = directory.context("the default model is not there")?;
    let engine = Engine::spawn(move |_| {
        let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {})?;
        Model::load(&directory, &mut runtime).map_err(anyhow::Error::from)
    });
    let mut state = engine.state();
    let loaded = |state: &EngineState| !matches!(state, EngineState::Loading(_));
    let state = state.wait_for(loaded).await?.clone();
    ensure!(matches!(state, EngineState::Ready(_)), "{state:?}");
    let engine = Arc::new(engine);

    let (near, far) = tokio::io::duplex(1 << 20);
    let (input, output) = tokio::io::split(far);
    let start = Arc::new(move |_: &EngineOptions| engine.clone());
    let server = tokio::spawn(server::serve(
        input,
        output,
        Options::default(),
        start,
        None,
    ));
    let mut client = Client::new(near);
    client
        .request("initialize", json!({"capabilities": {}}))
        .await?;
    client.notify("initialized", json!({})).await?;
    let mut typist = Typist {
        client,
        version: 0,
        line: 0,
        character: 0,
    };

    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    let text = include_str!("../examples/ledger.py");
    let (head, tail) = text.split_at(text.find("    def balances").context("a method")?);
    let line = head.lines().count();
    let line_of_head = line;
    for burst in 0..BURSTS {
        // A new line each time, or the earlier answer would be reused.
        let text = format!("{head}    x{burst} = [\n{tail}");
        typist.open(&text, line).await?;
        typist.character = format!("    x{burst} = [").len();
        idle.push(typist.change("i").await?);
        busy.push(typist.burst().await?);
    }

    let half = text.repeat(500_000 / text.len());
    let line = half.lines().count();
    typist.open(&format!("{half}\n{half}"), line).await?;
    let mut large = Vec::new();
    let typed = include_str!("../examples/inventory.py").chars();
    for key in typed.take(KEYSTROKES) {
        let times = typist.keystroke(key.encode_utf8(&mut [0; 4])).await?;
        large.extend(times.map(|key| key.outside));
    }
    ensure!(
        large.len() > KEYSTROKES / 10,
        "the model was asked only {} times",
        large.len()
    );

    let (mut alone, mut beside, mut queued) = (Vec::new(), Vec::new(), Vec::new());
    let document = json!({
        "uri": OTHER, "languageId": "python", "version": 1, "text": text,
    });
    let params = json!({"textDocument": document});
    typist.client.notify("textDocument/didOpen", params).await?;
    let keys: Vec<char> = include_str!("../examples/inventory.py").chars().collect();
    for (turn, keys) in keys.chunks(TURN).take(TURNS).enumerate() {
        // Both type the same at the same place, and the second finds more in the cache, so they
        // take turns at going first.
        let order = [turn % 2 == 1, turn % 2 == 0];
        for translates in order {
            let times = if translates { &mut beside } else { &mut alone };
            typist
                .open(&format!("{head}\n{tail}"), line_of_head)
                .await?;
            let translation = match translates {
                true => Some(typist.translate().await?),
                false => None,
            };
            for key in keys {
                let time = typist.keystroke(key.encode_utf8(&mut [0; 4])).await?;
                if let Some(key) = time {
                    times.push(key.answer);
                    if translates {
                        queued.push(key.queued);
                    }
                }
            }
            if let Some(id) = translation {
                let cancel = json!({"id": id});
                typist.client.notify("$/cancelRequest", cancel).await?;
                let answer = typist.client.answer(id).await?;
                ensure!(
                    answer["error"]["code"] == -32800,
                    "it ended too early: {answer}"
                );
            }
        }
    }

    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<48}{:>9}{:>9}{:>9}",
        "milliseconds", "p50", "p95", "p99"
    )?;
    row(&mut out, "a change is applied, server idle", idle)?;
    row(
        &mut out,
        "a change is applied, in a burst of requests",
        busy,
    )?;
    row(&mut out, "a completion in 1 MB, outside the model", large)?;
    row(&mut out, "a keystroke is answered", alone)?;
    row(
        &mut out,
        "a keystroke is answered, a translation runs",
        beside,
    )?;
    row(
        &mut out,
        "  of that waiting for a pass of the translation",
        queued,
    )?;
    drop(out);
    typist.client.request("shutdown", Value::Null).await?;
    typist.client.notify("exit", Value::Null).await?;
    server.await?;
    Runtime::release();
    Ok(())
}
