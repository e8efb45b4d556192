//! The layer between the client and tower-lsp.
//!
//! tower-lsp ends the connection at the first message it cannot parse (its reader gives up after an
//! error), and it would parse a body that is not UTF-8 forever. One bad message is no reason to leave
//! the user without completions, so each message is read here first: [`framing`] finds it in the
//! stream, [`malformed`](super::malformed) repairs its JSON, and [`tidy`](super::tidy) turns it into
//! what tower-lsp accepts. A skipped message is logged, and answered if it is a request.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{
    AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, SimplexStream, WriteHalf, simplex,
};
use tokio::sync::{Notify, mpsc};

use super::framing::{self, Frame, FrameReader, FramingError, begins_header, whole_value};
use super::malformed;
use super::tidy::{Names, Tidy, To};

/// The size of each pipe between here and tower-lsp, in bytes.
const PIPE: usize = 1 << 16;

/// How many answers may wait to be written. While there are more, no messages are read.
const ANSWERS: usize = 64;

/// The server's two ends of a connection.
#[derive(Debug)]
pub struct Ends {
    /// The client's messages.
    pub input: ReadHalf<SimplexStream>,
    /// The messages to the client.
    pub output: WriteHalf<SimplexStream>,
}

/// Connects a client to the server. The first future passes on the client's messages until its end
/// closes, the second one the server's until the server's end closes.
pub fn connect<I, O>(
    input: I,
    output: O,
) -> (
    Ends,
    impl Future<Output = Result<(), FramingError>>,
    impl Future<Output = io::Result<()>>,
)
where
    I: AsyncRead + Unpin,
    O: AsyncWrite,
{
    let (from_client, to_server) = simplex(PIPE);
    let (from_server, to_client) = simplex(PIPE);
    let (answer, answers) = mpsc::channel(ANSWERS);
    let names = Names::default();
    let handshake = Arc::<Handshake>::default();
    let incoming = Incoming {
        reader: FrameReader::new(input),
        to_server,
        answer,
        tidy: Tidy::new(names.clone()),
        handshake: handshake.clone(),
    };
    let ends = Ends {
        input: from_client,
        output: to_client,
    };
    let outgoing = outgoing(from_server, answers, output, names, handshake);
    (ends, incoming.pass(), outgoing)
}

/// Holds back messages between `initialize` and its answer. tower-lsp drops all but `exit` and answers
/// there.
#[derive(Debug, Default)]
struct Handshake {
    /// The id of an `initialize` that has no answer yet.
    id: Mutex<Option<Value>>,
    is_answered: Notify,
}

impl Handshake {
    fn id(&self) -> Option<Value> {
        self.id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, id: Option<Value>) {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    /// Looks at a message from the server: the answer to `initialize` ends the wait.
    fn see(&self, message: &Value, id: &Value) {
        if message.get("id") == Some(id) && message.get("method").is_none() {
            self.set(None);
            self.is_answered.notify_waiters();
        }
    }

    /// Waits until a message may pass.
    async fn wait(&self, message: &Value) {
        let may_pass = match message.get("method").and_then(Value::as_str) {
            None | Some("exit") => true,
            Some(_) => false,
        };
        if may_pass {
            return;
        }
        loop {
            let answered = self.is_answered.notified();
            if self.id().is_none() {
                break;
            }
            answered.await;
        }
        if message["method"] == "initialize" {
            self.set(message.get("id").cloned());
        }
    }
}

struct Incoming<I> {
    reader: FrameReader<I>,
    to_server: WriteHalf<SimplexStream>,
    answer: mpsc::Sender<Vec<u8>>,
    tidy: Tidy,
    handshake: Arc<Handshake>,
}

impl<I: AsyncRead + Unpin> Incoming<I> {
    async fn pass(mut self) -> Result<(), FramingError> {
        while let Some(frame) = self.reader.next().await? {
            let messages = match frame {
                Frame::Message(body) => self.read(body).await?,
                Frame::Junk(junk) => self.tidy.unreadable(&junk, "there is no header before it"),
            };
            for message in messages {
                match message {
                    To::Server(message) => {
                        self.handshake.wait(&message).await;
                        let body = serde_json::to_vec(&message).map_err(io::Error::from)?;
                        framing::write(&mut self.to_server, &body).await?;
                    }
                    To::Client(message) => {
                        let body = message.to_string().into_bytes();
                        // If this fails, the client is gone.
                        let _ = self.answer.send(body).await;
                    }
                }
            }
        }
        // Dropping one half of an in-process pipe does not close it for the other half.
        Ok(self.to_server.shutdown().await?)
    }

    /// Reads a message. If its length was wrong, finds its end.
    async fn read(&mut self, mut body: Vec<u8>) -> Result<Vec<To>, FramingError> {
        let mut read = serde_json::from_slice::<Value>(&body);
        while let Err(error) = &read {
            if !error.is_eof() || !self.reader.append(&mut body).await? {
                break;
            }
            // A message cannot end in anything else.
            if body.trim_ascii_end().ends_with(b"}") {
                read = serde_json::from_slice(&body);
            }
        }
        let error = match read {
            Ok(message) => return Ok(self.tidy.message(message, None)),
            Err(error) => error,
        };
        if let Some(end) = whole_value(&body) {
            let rest = body.split_off(end);
            if begins_header(rest.trim_ascii_start()) {
                tracing::debug!("the length of a message was too large");
            }
            self.reader.unread(rest);
            if let Ok(message) = serde_json::from_slice(&body) {
                return Ok(self.tidy.message(message, None));
            }
        }
        let repaired = malformed::repair(&body).and_then(|(repaired, marks)| {
            let message = serde_json::from_slice::<Value>(&repaired).ok()?;
            Some((message, marks))
        });
        Ok(match repaired {
            Some((message, marks)) => self.tidy.message(message, Some(marks)),
            None => self.tidy.unreadable(&body, &error.to_string()),
        })
    }
}

async fn outgoing<O: AsyncWrite>(
    from_server: ReadHalf<SimplexStream>,
    mut answers: mpsc::Receiver<Vec<u8>>,
    output: O,
    names: Names,
    handshake: Arc<Handshake>,
) -> io::Result<()> {
    let mut output = std::pin::pin!(output);
    let mut reader = FrameReader::new(from_server);
    loop {
        tokio::select! {
            frame = reader.next() => match frame.map_err(io::Error::from)? {
                Some(Frame::Message(mut body)) => {
                    let initializing = handshake.id();
                    if initializing.is_some() || !names.is_empty() {
                        let mut message: Value = serde_json::from_slice(&body)?;
                        names.restore(&mut message);
                        body = serde_json::to_vec(&message)?;
                        framing::write(&mut output, &body).await?;
                        if let Some(id) = initializing {
                            handshake.see(&message, &id);
                        }
                    } else {
                        framing::write(&mut output, &body).await?;
                    }
                }
                Some(Frame::Junk(_)) => return Err(io::ErrorKind::InvalidData.into()),
                None => break,
            },
            Some(answer) = answers.recv() => framing::write(&mut output, &answer).await?,
        }
    }
    while let Ok(answer) = answers.try_recv() {
        framing::write(&mut output, &answer).await?;
    }
    output.shutdown().await
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::server::framing::frame;

    /// The messages that the server and the client receive for the client's bytes.
    async fn pass(input: &[u8]) -> (Vec<Value>, Vec<Value>) {
        let mut output = Vec::new();
        let (mut ends, incoming, outgoing) = connect(input, &mut output);
        let server = async {
            let mut heard = Vec::new();
            ends.input.read_to_end(&mut heard).await.unwrap();
            ends.output.shutdown().await.unwrap();
            heard
        };
        let (passed, written, heard) = tokio::join!(incoming, outgoing, server);
        passed.unwrap();
        written.unwrap();
        (messages(&heard).await, messages(&output).await)
    }

    async fn messages(bytes: &[u8]) -> Vec<Value> {
        let mut reader = FrameReader::new(bytes);
        let mut messages = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            let Frame::Message(body) = frame else {
                panic!("{frame:?}");
            };
            messages.push(serde_json::from_slice(&body).unwrap());
        }
        messages
    }

    fn good() -> Value {
        json!({"jsonrpc": "2.0", "id": 7, "method": "textDocument/completion", "params": {}})
    }

    fn framed(message: &Value) -> Vec<u8> {
        frame(message.to_string().as_bytes())
    }

    #[tokio::test]
    async fn messages_are_passed_on() {
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": null});
        let input = [framed(&good()), framed(&answer)].concat();
        assert_eq!(pass(&input).await, (vec![good(), answer], vec![]));
    }

    /// The stream is broken at one message, and the next one arrives nevertheless.
    #[tokio::test(start_paused = true)]
    async fn a_broken_stream_is_repaired() {
        let message = good().to_string();
        let next = json!({"jsonrpc": "2.0", "id": 8, "method": "shutdown"});
        let with_length = |length: usize| format!("Content-Length: {length}\r\n\r\n{message}");
        // A client that counts chars instead of bytes.
        let long = json!({"jsonrpc": "2.0", "id": 7, "method": "x", "params": "é漢😀"}).to_string();
        let chars = long.chars().count();
        for (broken, expected) in [
            (with_length(message.len() - 3), &message),
            (with_length(message.len() + 3), &message),
            (with_length(message.len() + 40), &message),
            (with_length(message.len() + 5_000), &message),
            (with_length(1), &message),
            (with_length(0), &message),
            (format!("\u{feff}{}", with_length(message.len())), &message),
            (format!("junk{}", with_length(message.len())), &message),
            (
                format!("junk\r\n\r\n{}", with_length(message.len())),
                &message,
            ),
            (format!("{}}}", with_length(message.len())), &message),
            (format!("Content-Length: {chars}\r\n\r\n{long}"), &long),
            ("junk".to_owned(), &String::new()),
        ] {
            let input = [broken.as_bytes(), &framed(&next)].concat();
            let (heard, _) = pass(&input).await;
            let expected = serde_json::from_str(expected).ok();
            let expected: Vec<Value> = expected.into_iter().chain([next.clone()]).collect();
            assert_eq!(heard, expected, "{broken}");
        }
    }

    /// Neither side waits forever: not the server for the rest of a message, nor the client for the
    /// answer.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_the_answer_gets_it() {
        for wrong in [-3, 3, 400] {
            let (mut client, far) = tokio::io::duplex(1 << 12);
            let (mut ends, incoming, _) = connect(far, tokio::io::sink());
            let body = good().to_string();
            let length = body.len() as i64 + wrong;
            let bytes = format!("Content-Length: {length}\r\n\r\n{body}");
            client.write_all(bytes.as_bytes()).await.unwrap();
            let mut reader = FrameReader::new(&mut ends.input);
            let heard = tokio::select! {
                heard = reader.next() => heard.unwrap(),
                _ = incoming => panic!("the stream is open"),
            };
            let Some(Frame::Message(heard)) = heard else {
                panic!("{heard:?}");
            };
            assert_eq!(serde_json::from_slice::<Value>(&heard).unwrap(), good());
        }
    }

    #[tokio::test]
    async fn an_impossible_length_is_an_error() {
        for length in ["99999999999", "-1", "x", ""] {
            let input = format!("Content-Length: {length}\r\n\r\n{}", good());
            let (_ends, incoming, _) = connect(input.as_bytes(), tokio::io::sink());
            let error = incoming.await.unwrap_err().to_string();
            assert!(
                error.contains(format!("Content-Length: {length}").trim()),
                "{error}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_skipped_request_is_answered() {
        #[track_caller]
        fn check((heard, answers): (Vec<Value>, Vec<Value>), id: Value, why: &str) {
            assert_eq!(heard, [good()]);
            assert_eq!(answers.len(), 1, "{answers:?}");
            assert_eq!(answers[0]["id"], id);
            let message = answers[0]["error"]["message"].as_str().unwrap();
            assert!(message.contains(why), "{message}");
        }
        let after = |bad: &[u8]| [bad, &framed(&good())].concat();
        let framed = |bad: &str| after(&frame(bad.as_bytes()));
        let bad = framed(r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{,}}"#);
        check(pass(&bad).await, json!(1), "key must be a string");
        let bad = framed(r#"{"id":"x","method":"a","params":[NaN]}"#);
        check(pass(&bad).await, json!("x"), "expected value");
        let deep = format!(r#"{{"id":2,"method":"a","params":{}"#, "[".repeat(200));
        check(pass(&framed(&deep)).await, json!(2), "recursion limit");
        let bad = after(br#"{"id":3,"method":"a"}"#);
        check(pass(&bad).await, json!(3), "no header");
        let bad = framed(r#"{"id":4,"method":5}"#);
        check(pass(&bad).await, json!(4), "the method 5 is not a string");
        let bad = framed(r#"{"id":[1],"method":"a"}"#);
        check(pass(&bad).await, json!([1]), "neither a whole number");
        let bad = framed(r#"{"id":1.5,"method":"a"}"#);
        check(pass(&bad).await, json!(1.5), "neither a whole number");
        let bad = framed(r#"{"id":9}"#);
        check(pass(&bad).await, json!(9), "there is no method");

        // Without an id there is no answer, only a log message.
        for bad in [
            r#"{"oops": "#,
            "",
            "[]",
            "1",
            "null",
            "\"a\"",
            r#"{"method":"a","x":NaN}"#,
        ] {
            let heard = pass(&framed(bad)).await;
            assert_eq!(heard, (vec![good()], vec![]), "{bad}");
        }
        let heard = pass(&after(&frame(b"\xff\xfe"))).await;
        assert_eq!(heard, (vec![good()], vec![]));
        assert_eq!(
            pass(b"Content-Length: 100\r\n\r\n{").await,
            (vec![], vec![])
        );
    }

    #[tokio::test]
    async fn invalid_utf8_in_an_unused_member_does_not_matter() {
        let body = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"x\":\"\xff\xed\xa0\xbd\"}";
        let (heard, answers) = pass(&frame(body)).await;
        assert_eq!(heard[0]["method"], "a");
        assert!(answers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_initialize() {
        let (mut client, far) = tokio::io::duplex(1 << 12);
        let (input, output) = tokio::io::split(far);
        let (mut ends, incoming, outgoing) = connect(input, output);
        let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {"capabilities": {}}});
        let answer = json!({"jsonrpc": "2.0", "id": "s", "result": null});
        client.write_all(&framed(&initialize)).await.unwrap();
        client.write_all(&framed(&answer)).await.unwrap();
        client.write_all(&framed(&good())).await.unwrap();
        let server = async {
            let mut reader = FrameReader::new(&mut ends.input);
            let mut order = Vec::new();
            for _ in 0..2 {
                let Some(Frame::Message(body)) = reader.next().await.unwrap() else {
                    panic!("the stream is open");
                };
                order.push(serde_json::from_slice::<Value>(&body).unwrap());
            }
            assert_eq!(order, [initialize.clone(), answer]);
            let early = tokio::time::timeout(std::time::Duration::from_millis(20), reader.next());
            assert!(early.await.is_err());
            let done = framed(&json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
            ends.output.write_all(&done).await.unwrap();
            let Some(Frame::Message(body)) = reader.next().await.unwrap() else {
                panic!("the stream is open");
            };
            assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), good());
        };
        tokio::select! {
            () = server => {}
            _ = incoming => panic!("the stream is open"),
            _ = outgoing => panic!("the stream is open"),
        }
    }
}
