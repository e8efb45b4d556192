//! The stream: any bytes in; every well-formed request answered exactly once, or a clean end.
//!
//! The input is raw bytes, or if it begins with `{` or `[`, messages, one a line, which get the right
//! headers. After it the target sends requests of its own, which a server that goes on must answer.
//! The model is one that cannot be loaded, so nothing waits for it. Time stands still but where the
//! target lets it pass, so that no input takes long.
#![no_main]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use interline::engine::{Engine, EngineState};
use interline::server::client::Client;
use interline::server::framing;
use interline::server::settings::Options;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

/// How long the server may take for what it must do: in real time, and in turns, since on a busy machine
/// it may have no turn in this time.
const PATIENCE: Duration = Duration::from_secs(10);
const TURNS: usize = 2000;

/// Requests of the target's own after the input. What is left of a broken message may swallow one.
const PROBES: usize = 3;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(2);
    builder.build().expect("a runtime")
});

static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
    let engine = Engine::spawn(|_| Err("there is no model"));
    let mut state = engine.state();
    while !matches!(*state.borrow_and_update(), EngineState::Failed(_)) {
        std::thread::yield_now();
    }
    Arc::new(engine)
});

/// A wait for the server.
struct Wait {
    begun: Instant,
    turns: usize,
}

impl Wait {
    fn begin() -> Self {
        Self {
            begun: Instant::now(),
            turns: 0,
        }
    }

    /// Counts a turn. Returns whether the server has had its time.
    fn is_over(&mut self) -> bool {
        self.turns += 1;
        self.turns > TURNS && self.begun.elapsed() > PATIENCE
    }
}

/// The client's end of a connection.
struct Connection {
    input: ReadHalf<DuplexStream>,
    output: WriteHalf<DuplexStream>,
    received: Vec<u8>,
    /// How many of the server's messages were looked at for requests.
    seen: usize,
    closed: bool,
}

impl Connection {
    /// Reads what has arrived, and lets the server work.
    async fn turn(&mut self) {
        for _ in 0..8 {
            tokio::select! {
                biased;
                read = self.input.read_buf(&mut self.received), if !self.closed => {
                    self.closed = read.unwrap_or(0) == 0;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    }

    /// Lets time pass for the server.
    async fn pause(&mut self) {
        for _ in 0..3 {
            self.turn().await;
            tokio::time::advance(Duration::from_millis(101)).await;
            self.turn().await;
        }
    }

    /// Sends bytes, while reading what arrives.
    async fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(1 << 12) {
            // Fails when the server has ended.
            let _ = self.output.write_all(piece).await;
            self.turn().await;
        }
    }

    /// The server's messages so far. What it sends must be sound.
    fn messages(&self) -> Vec<Value> {
        let mut rest = &self.received[..];
        let mut messages = Vec::new();
        while let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            let header = std::str::from_utf8(&rest[..end]).expect("a header is text");
            let length = header
                .strip_prefix("Content-Length: ")
                .expect("the only header");
            let length: usize = length.parse().expect("a length");
            let Some(body) = rest[end + 4..].get(..length) else {
                break;
            };
            messages.push(serde_json::from_slice(body).expect("a message is JSON"));
            rest = &rest[end + 4 + length..];
        }
        messages
    }

    /// Answers the server's requests.
    async fn answer(&mut self) {
        let messages = self.messages();
        for message in &messages[self.seen..] {
            if let (Some(id), Some(_)) = (message.get("id"), message.get("method")) {
                let answer = json!({"jsonrpc": "2.0", "id": id, "result": null});
                self.send(&Client::frame(&answer)).await;
            }
        }
        self.seen = messages.len();
    }

    /// How often each id was answered.
    fn answers(&self) -> HashMap<String, usize> {
        let mut answers = HashMap::new();
        for message in self.messages() {
            if message.get("method").is_none() {
                *answers.entry(message["id"].to_string()).or_default() += 1;
            }
        }
        answers
    }
}

/// How often each id is used by requests in lines of JSON and by all messages there, and whether all
/// lines are JSON objects.
fn ids(lines: &[&[u8]]) -> (HashMap<String, usize>, HashMap<String, usize>, bool) {
    let (mut requests, mut messages) = (HashMap::new(), HashMap::new());
    let mut sound = true;
    for line in lines {
        let Ok(Value::Object(message)) = serde_json::from_slice::<Value>(line) else {
            sound = false;
            continue;
        };
        let is_request = message.get("method").is_some_and(Value::is_string);
        let id = message.get("id");
        if let Some(id) = id.filter(|id| id.is_i64() || id.is_string()) {
            *messages.entry(id.to_string()).or_default() += 1;
            if is_request {
                *requests.entry(id.to_string()).or_default() += 1;
            }
        }
    }
    (requests, messages, sound)
}

async fn run(data: &[u8]) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(far);
    let start = Arc::new(|_: &_| ENGINE.clone());
    let serve = interline::server::serve(input, output, Options::default(), start, None);
    let mut serve = Box::pin(serve);
    let (input, output) = tokio::io::split(near);
    let mut client = Connection {
        input,
        output,
        received: Vec::new(),
        seen: 0,
        closed: false,
    };

    let framed = matches!(data.first(), Some(b'{' | b'['));
    let lines: Vec<_> = match framed {
        true => data
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .collect(),
        false => Vec::new(),
    };
    let bytes = match framed {
        true => lines.iter().flat_map(|line| framing::frame(line)).collect(),
        false => data.to_vec(),
    };
    let (expected, messages, sound) = ids(&lines);

    let script = async {
        client.send(&bytes).await;
        client.pause().await;
        let mut wait = Wait::begin();
        let is_answered = |client: &Connection| {
            let answers = client.answers();
            expected
                .iter()
                .all(|(id, count)| answers.get(id).is_some_and(|seen| seen >= count))
        };
        while !is_answered(&client) {
            client.answer().await;
            client.turn().await;
            assert!(
                !wait.is_over(),
                "unanswered: {expected:?}, answered: {:?}",
                client.answers()
            );
        }
        // Whatever came before, the server hears the next messages.
        for probe in 0..PROBES {
            let id = format!("probe {probe}");
            let message = json!({"jsonrpc": "2.0", "id": id, "method": "interline/probe"});
            client.send(&Client::frame(&message)).await;
            client.pause().await;
        }
        let heard =
            |client: &Connection| client.answers().keys().any(|id| id.starts_with("\"probe "));
        let mut wait = Wait::begin();
        while !heard(&client) {
            client.turn().await;
            assert!(!wait.is_over(), "the server is deaf");
        }
        client
    };
    let mut script = Box::pin(script);
    let client = tokio::select! {
        biased;
        // After `exit`, the end of the client's process, or a stream that makes no sense.
        _ = &mut serve => return,
        client = &mut script => client,
    };
    drop(script);
    for (id, seen) in client.answers() {
        let is_probe = id.starts_with("\"probe ");
        // What is neither a request nor an answer is answered by an error.
        let sent = messages.get(&id).copied().unwrap_or_default();
        assert!(
            !framed || !sound || is_probe || seen <= sent.max(1),
            "{id} was answered {seen} times"
        );
    }
    // Once the client is gone, the server ends, with time passing as it likes.
    drop(client);
    let ended = tokio::time::timeout(Duration::from_secs(60), serve).await;
    assert!(ended.is_ok(), "the server goes on without a client");
}

fuzz_target!(|data: &[u8]| RUNTIME.block_on(run(data)));
