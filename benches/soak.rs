//! A long session with the real server process and the default model: `cargo bench --bench soak [--
//! MINUTES]`, ten minutes if none are named. Only on Linux, which tells what a process holds.
//!
//! A script that is the same each time opens, edits and closes documents and a notebook, asks for
//! completions, runs and cancels tasks, and changes settings. It prints each half minute what the
//! server holds, and fails if
//!
//! - a request is not answered in time, or the server's text differs from the client's;
//! - in the last quarter of the time the server holds more memory, descriptors or threads than in the
//!   second quarter, beyond what is taken and given back all the time.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use interline::server::client::Client;
use interline::server::commands::{DOCUMENT_TEXT, WHY};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// The script's seed.
const SEED: u64 = 20;

/// How long a request may take. A translation of a whole file takes a minute on a slow machine, and
/// tasks wait for one another.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a line is printed.
const INTERVAL: Duration = Duration::from_secs(30);

/// The most tasks in progress. The others are refused, which is an answer too.
const TASKS: usize = 3;

/// The documents that are opened and closed: their names, languages and first texts.
const FILES: [(&str, &str, &str); 6] = [
    ("ledger.py", "python", include_str!("../examples/ledger.py")),
    (
        "inventory.py",
        "python",
        include_str!("../examples/inventory.py"),
    ),
    ("soak.rs", "rust", include_str!("soak.rs")),
    (
        "units.js",
        "javascript",
        "const a = \"😀é\";\nfunction f(a) {\n  return a;\n}\n",
    ),
    (".env", "plaintext", "TOKEN=1\n"),
    ("notes.md", "markdown", "# Notes\n\nSome text.\n"),
];

/// What is typed.
const TYPED: [&str; 12] = [
    "a",
    "x = ",
    "(",
    ")",
    "return ",
    "\n",
    "\n    ",
    "for ",
    "é",
    "😀",
    "# ",
    "def f(a):\n    ",
];

/// What the server holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Resident and proportional memory, in MiB.
    resident: f64,
    proportional: f64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn by(server: &Child) -> anyhow::Result<Self> {
        let folder = format!("/proc/{}", server.id());
        let memory = fs::read_to_string(format!("{folder}/smaps_rollup"));
        let memory = memory.context("the server has ended, or this is not Linux")?;
        let field = |name: &str| -> anyhow::Result<f64> {
            let line = memory.lines().find(|line| line.starts_with(name));
            let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(kilobytes.context("a number")?.parse::<f64>()? / 1024.0)
        };
        let count =
            |name: &str| Ok::<_, std::io::Error>(fs::read_dir(format!("{folder}/{name}"))?.count());
        Ok(Self {
            resident: field("Rss:")?,
            proportional: field("Pss:")?,
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }
}

/// A document as the client has it.
struct Document {
    uri: String,
    language: &'static str,
    version: usize,
    text: Vec<u16>,
}

impl Document {
    fn position(&self, offset: usize) -> Value {
        let before = &self.text[..offset];
        let is_end = |unit: &&u16| **unit == u16::from(b'\n');
        let line = before.iter().filter(is_end).count();
        let start = before.iter().rposition(|unit| *unit == u16::from(b'\n'));
        json!({"line": line, "character": offset - start.map_or(0, |end| end + 1)})
    }

    fn item(&self) -> Value {
        json!({
            "uri": self.uri, "languageId": self.language, "version": self.version,
            "text": String::from_utf16_lossy(&self.text),
        })
    }

    /// A place that is not inside a surrogate pair.
    fn place(&self, random: &mut SmallRng) -> usize {
        let offset = random.random_range(0..=self.text.len());
        let is_low = |unit: &u16| (0xdc00..0xe000).contains(unit);
        offset - usize::from(self.text.get(offset).is_some_and(is_low))
    }

    /// Changes the text, and returns the change and where it ends.
    fn edit(&mut self, random: &mut SmallRng) -> (Value, usize) {
        self.version += 1;
        let start = self.place(random);
        let longest = if self.text.len() > 20_000 { 2_000 } else { 8 };
        let mut end = (start + random.random_range(0..longest)).min(self.text.len());
        if self
            .text
            .get(end)
            .is_some_and(|unit| (0xdc00..0xe000).contains(unit))
        {
            end -= 1;
        }
        let end = end.max(start);
        let new = TYPED.choose(random).copied().unwrap_or_default();
        let range = json!({"start": self.position(start), "end": self.position(end)});
        self.text.splice(start..end, new.encode_utf16());
        let change = json!({"range": range, "text": new});
        (change, start + new.encode_utf16().count())
    }
}

/// A request that is waiting for its answer.
struct Waiting {
    what: String,
    since: Instant,
    /// The text that the answer must be.
    expected: Option<String>,
    is_task: bool,
}

struct Session {
    client: Client,
    random: SmallRng,
    open: Vec<Document>,
    cells: Vec<Document>,
    waiting: HashMap<i64, Waiting>,
    asked: usize,
    errors: usize,
}

impl Session {
    async fn ask(&mut self, method: &str, params: Value) -> anyhow::Result<i64> {
        let id = self.client.send(method, params).await?;
        self.asked += 1;
        let waiting = Waiting {
            what: method.to_owned(),
            since: Instant::now(),
            expected: None,
            is_task: false,
        };
        self.waiting.insert(id, waiting);
        Ok(id)
    }

    async fn command(&mut self, command: &str, arguments: Value) -> anyhow::Result<i64> {
        let params = json!({"command": command, "arguments": arguments});
        self.ask("workspace/executeCommand", params).await
    }

    /// Hears what the server says until this much time has passed.
    async fn hear(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let Ok(message) = tokio::time::timeout(left, self.client.receive()).await else {
                break;
            };
            let message = message.context("the server has ended")?;
            match (
                message.get("method").and_then(Value::as_str),
                message.get("id"),
            ) {
                (Some(method), Some(id)) => {
                    let result = match method {
                        "workspace/applyEdit" => json!({"applied": false}),
                        _ => Value::Null,
                    };
                    let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
                    self.client.send_raw(&Client::frame(&answer)).await?;
                }
                (Some(_), None) => {}
                (None, id) => {
                    let id = id.and_then(Value::as_i64).context("an answer has an id")?;
                    let waiting = self.waiting.remove(&id);
                    let waiting = waiting.with_context(|| format!("{id} was answered twice"))?;
                    self.errors += usize::from(message.get("error").is_some());
                    if let Some(expected) = waiting.expected {
                        ensure!(message["result"] == expected, "the server's text differs");
                    }
                }
            }
        }
        for waiting in self.waiting.values() {
            let since = waiting.since.elapsed();
            ensure!(since < PATIENCE, "{} is not answered", waiting.what);
        }
        Ok(())
    }

    /// Opens a document, or another one again.
    async fn open(&mut self) -> anyhow::Result<()> {
        let Some((name, language, text)) = FILES.choose(&mut self.random) else {
            return Ok(());
        };
        let uri = format!("file:///soak/{name}");
        self.open.retain(|document| document.uri != uri);
        let document = Document {
            uri,
            language,
            version: 1,
            text: text.encode_utf16().collect(),
        };
        let params = json!({"textDocument": document.item()});
        self.open.push(document);
        Ok(self.client.notify("textDocument/didOpen", params).await?)
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        if self.open.len() < 2 {
            return Ok(());
        }
        let document = self
            .open
            .swap_remove(self.random.random_range(0..self.open.len()));
        let params = json!({"textDocument": {"uri": document.uri}});
        Ok(self.client.notify("textDocument/didClose", params).await?)
    }

    /// Types a few keys at one place after the other, and asks at each.
    async fn type_keys(&mut self) -> anyhow::Result<()> {
        let Some(index) =
            (!self.open.is_empty()).then(|| self.random.random_range(0..self.open.len()))
        else {
            return Ok(());
        };
        for _ in 0..self.random.random_range(1..6) {
            let document = &mut self.open[index];
            let (change, end) = document.edit(&mut self.random);
            let params = json!({
                "textDocument": {"uri": document.uri, "version": document.version},
                "contentChanges": [change],
            });
            let place = json!({
                "textDocument": {"uri": document.uri}, "position": document.position(end),
                "context": {"triggerKind": self.random.random_range(1..=2)},
            });
            self.client.notify("textDocument/didChange", params).await?;
            let method = ["textDocument/inlineCompletion", "textDocument/completion"];
            let method = method[usize::from(self.random.random_bool(0.2))];
            let id = self.ask(method, place).await?;
            if self.random.random_bool(0.2) {
                let params = json!({"id": id});
                self.client.notify("$/cancelRequest", params).await?;
            }
            let pause = self.random.random_range(0..250);
            self.hear(Duration::from_millis(pause)).await?;
        }
        Ok(())
    }

    /// Compares the server's text with the client's.
    async fn compare(&mut self) -> anyhow::Result<()> {
        let Some(document) = self.open.choose(&mut self.random) else {
            return Ok(());
        };
        let text = String::from_utf16_lossy(&document.text);
        let id = self.command(DOCUMENT_TEXT, json!([document.uri])).await?;
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.expected = Some(text);
        }
        Ok(())
    }

    async fn task(&mut self) -> anyhow::Result<()> {
        let tasks = self.waiting.values().filter(|waiting| waiting.is_task);
        let Some(document) = self
            .open
            .choose(&mut self.random)
            .filter(|_| tasks.count() < TASKS)
        else {
            return Ok(());
        };
        let start = document.place(&mut self.random);
        let end = (start + 200).min(document.text.len());
        let range = json!({"start": document.position(start), "end": document.position(end)});
        let place = json!({"uri": document.uri, "range": range});
        let tasks = ["explain", "document", "test", "translate", "generate"];
        let task = tasks.choose(&mut self.random).copied().unwrap_or("explain");
        let arguments = match task {
            "translate" => json!([place, "go"]),
            _ => json!([place]),
        };
        let id = self
            .command(&format!("interline.{task}"), arguments)
            .await?;
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.is_task = true;
        }
        if self.random.random_bool(0.6) {
            self.hear(Duration::from_millis(300)).await?;
            let params = json!({"id": id});
            self.client.notify("$/cancelRequest", params).await?;
        }
        Ok(())
    }

    async fn configure(&mut self) -> anyhow::Result<()> {
        let settings = [
            json!({"maxNewTokens": 16}),
            json!({"maxNewTokens": 64, "disabledLanguages": ["markdown"]}),
            json!({"enabled": true, "disabledLanguages": []}),
            json!({"excludedFiles": ["*.min.js"]}),
            Value::Null,
        ];
        let settings = settings
            .choose(&mut self.random)
            .cloned()
            .unwrap_or_default();
        let params = json!({"settings": {"interline": settings}});
        let method = "workspace/didChangeConfiguration";
        Ok(self.client.notify(method, params).await?)
    }

    /// Opens the notebook, edits a cell and asks in it, adds a cell, or closes it.
    async fn notebook(&mut self) -> anyhow::Result<()> {
        const URI: &str = "file:///soak/notebook.ipynb";
        let notebook = json!({"uri": URI, "version": 1});
        let cell = |document: &Document| json!({"kind": 2, "document": document.uri});
        let new = |index: usize| Document {
            uri: format!("vscode-notebook-cell:/soak/notebook.ipynb#{index}"),
            language: "python",
            version: 1,
            text: "import os\n".encode_utf16().collect(),
        };
        if self.cells.is_empty() {
            self.cells.extend([0, 1].map(new));
            let cells: Vec<_> = self.cells.iter().map(cell).collect();
            let texts: Vec<_> = self.cells.iter().map(Document::item).collect();
            let params = json!({
                "notebookDocument": {
                    "uri": URI, "notebookType": "jupyter-notebook", "version": 1, "cells": cells,
                },
                "cellTextDocuments": texts,
            });
            self.client
                .notify("notebookDocument/didOpen", params)
                .await?;
        } else if self.cells.len() > 20 {
            let uris = self.cells.drain(..).map(|cell| json!({"uri": cell.uri}));
            let uris: Vec<_> = uris.collect();
            let params = json!({"notebookDocument": {"uri": URI}, "cellTextDocuments": uris});
            self.client
                .notify("notebookDocument/didClose", params)
                .await?;
        } else if self.random.random_bool(0.2) {
            let added = new(self.cells.len());
            let start = self.random.random_range(0..=self.cells.len());
            let change = json!({"structure": {
                "array": {"start": start, "deleteCount": 0, "cells": [cell(&added)]},
                "didOpen": [added.item()],
            }});
            self.cells.push(added);
            let params = json!({"notebookDocument": notebook, "change": {"cells": change}});
            self.client
                .notify("notebookDocument/didChange", params)
                .await?;
        } else {
            let index = self.random.random_range(0..self.cells.len());
            let document = &mut self.cells[index];
            let (change, end) = document.edit(&mut self.random);
            let text = json!({
                "document": {"uri": document.uri, "version": document.version}, "changes": [change],
            });
            let place = json!({
                "textDocument": {"uri": document.uri}, "position": document.position(end),
                "context": {"triggerKind": 2},
            });
            let params = json!({
                "notebookDocument": notebook, "change": {"cells": {"textContent": [text]}},
            });
            self.client
                .notify("notebookDocument/didChange", params)
                .await?;
            self.ask("textDocument/inlineCompletion", place).await?;
        }
        Ok(())
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        match self.random.random_range(0..100) {
            0..50 => self.type_keys().await?,
            50..60 => self.open().await?,
            60..66 => self.close().await?,
            66..76 => self.compare().await?,
            76..88 => self.notebook().await?,
            88..92 => self.configure().await?,
            92..96 => self.task().await?,
            _ => {
                self.command(WHY, json!([])).await?;
            }
        }
        self.hear(Duration::from_millis(30)).await
    }
}

/// Starts the server, with one end of a connection as its standard input and output.
fn start() -> anyhow::Result<(Child, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    let output = far.try_clone()?;
    let server = Command::new(env!("CARGO_BIN_EXE_interline"))
        .args(["--model", "smollm2-135m-fim"])
        .stdin(Stdio::from(OwnedFd::from(far)))
        .stdout(Stdio::from(OwnedFd::from(output)))
        .spawn()?;
    near.set_nonblocking(true)?;
    Ok((server, near))
}

/// The most of something in a part of the time.
fn most(part: &[Held], of: impl Fn(&Held) -> f64) -> f64 {
    part.iter().map(of).fold(0.0, f64::max)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let named = std::env::args()
        .skip(1)
        .find(|argument| argument != "--bench");
    let minutes: f64 = named.map_or(Ok(10.0), |named| named.parse())?;
    let time = Duration::from_secs_f64(60.0 * minutes);
    let (mut server, connection) = start()?;
    let mut connection = tokio::net::UnixStream::from_std(connection)?;
    let (near, mut far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut connection, &mut far).await });
    let mut session = Session {
        client: Client::new(near),
        random: SmallRng::seed_from_u64(SEED),
        open: Vec::new(),
        cells: Vec::new(),
        waiting: HashMap::new(),
        asked: 0,
        errors: 0,
    };
    let capabilities = json!({"window": {"workDoneProgress": true}});
    session
        .ask("initialize", json!({"capabilities": capabilities}))
        .await?;
    session.client.notify("initialized", json!({})).await?;

    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:>8}{:>10}{:>10}{:>8}{:>9}{:>9}{:>9}{:>12}",
        "minutes", "RSS MiB", "PSS MiB", "files", "threads", "asked", "errors", "unanswered"
    )?;
    let begun = Instant::now();
    let mut held = Vec::new();
    let mut printed = Duration::ZERO;
    while begun.elapsed() < time {
        session.step().await?;
        let elapsed = begun.elapsed();
        // At least 16 lines.
        if elapsed < printed + INTERVAL.min(time / 16) {
            continue;
        }
        printed = elapsed;
        let now = Held::by(&server)?;
        held.push(now);
        writeln!(
            out,
            "{:>8.1}{:>10.1}{:>10.1}{:>8}{:>9}{:>9}{:>9}{:>12}",
            elapsed.as_secs_f64() / 60.0,
            now.resident,
            now.proportional,
            now.descriptors,
            now.threads,
            session.asked,
            session.errors,
            session.waiting.len(),
        )?;
    }
    while !session.waiting.is_empty() {
        session.hear(Duration::from_millis(100)).await?;
    }
    session.ask("shutdown", Value::Null).await?;
    while !session.waiting.is_empty() {
        session.hear(Duration::from_millis(100)).await?;
    }
    session.client.notify("exit", Value::Null).await?;
    // The connection is served meanwhile.
    let status = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if let Some(status) = server.try_wait()? {
            break status;
        }
    };
    ensure!(status.success(), "the server did not end well: {status}");

    ensure!(held.len() >= 8, "too short a time to see growth");
    // The first quarter is left out, in which caches are filled.
    let (early, late) = held[held.len() / 4..].split_at(held.len() / 2 - held.len() / 4);
    let late = &late[late.len() / 2..];
    let (before, after) = (
        most(early, |held| held.proportional),
        most(late, |held| held.proportional),
    );
    ensure!(
        after < 1.15 * before + 32.0,
        "memory grows: {before:.0} to {after:.0} MiB"
    );
    for (what, of) in [
        (
            "descriptors",
            (|held| held.descriptors as f64) as fn(&Held) -> f64,
        ),
        ("threads", |held| held.threads as f64),
    ] {
        let (before, after) = (most(early, of), most(late, of));
        ensure!(after <= before + 16.0, "{what} grow: {before} to {after}");
    }
    Ok(())
}
