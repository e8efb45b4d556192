//! A small client, for `interline replay` and the tests: it sends, and waits for answers.

use std::io;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tower_lsp::ls_types::Uri;

use super::framing::{self, Frame, FrameReader};

/// The `file:` URI of an absolute path.
#[must_use]
pub fn file_uri(path: &Path) -> Option<String> {
    Uri::from_file_path(path).map(|uri| uri.as_str().to_owned())
}

/// The client's end of a connection in memory.
#[derive(Debug)]
pub struct Client {
    input: FrameReader<ReadHalf<DuplexStream>>,
    output: WriteHalf<DuplexStream>,
    last_id: i64,
    /// The notifications and requests that the server sent, in order.
    pub notifications: Vec<Value>,
    /// Answers that arrived while waiting for another one.
    early: Vec<Value>,
}

impl Client {
    /// Creates a client at one end of a connection.
    #[must_use]
    pub fn new(stream: DuplexStream) -> Self {
        let (input, output) = tokio::io::split(stream);
        Self {
            input: FrameReader::new(input),
            output,
            last_id: 0,
            notifications: Vec::new(),
            early: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes).await?;
        self.output.flush().await
    }

    /// A message with its header.
    #[must_use]
    pub fn frame(message: &Value) -> Vec<u8> {
        framing::frame(message.to_string().as_bytes())
    }

    /// Sends a notification.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn notify(&mut self, method: &str, params: Value) -> io::Result<()> {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.send_raw(&Self::frame(&message)).await
    }

    /// Makes a request without sending it. Returns its id and the message.
    pub fn prepare(&mut self, method: &str, params: Value) -> (i64, Value) {
        self.last_id += 1;
        let id = self.last_id;
        (
            id,
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}),
        )
    }

    /// Sends a request and returns its id.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn send(&mut self, method: &str, params: Value) -> io::Result<i64> {
        let (id, message) = self.prepare(method, params);
        self.send_raw(&Self::frame(&message)).await?;
        Ok(id)
    }

    /// Waits for the answer to a request: a message with `result` or `error`.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn answer(&mut self, id: i64) -> io::Result<Value> {
        if let Some(index) = self.early.iter().position(|answer| answer["id"] == id) {
            return Ok(self.early.swap_remove(index));
        }
        loop {
            let message = self.receive().await?;
            match message.get("method") {
                Some(_) => self.notifications.push(message),
                None if message["id"] == id => return Ok(message),
                None => self.early.push(message),
            }
        }
    }

    /// Sends a request and waits for its result, which is null if the answer is an error.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn request(&mut self, method: &str, params: Value) -> io::Result<Value> {
        let id = self.send(method, params).await?;
        Ok(self.answer(id).await?["result"].take())
    }

    /// Waits for the server's next message.
    ///
    /// # Errors
    ///
    /// When the server is gone, or sends something that is not a message.
    pub async fn receive(&mut self) -> io::Result<Value> {
        match self.input.next().await? {
            Some(Frame::Message(body)) => Ok(serde_json::from_slice(&body)?),
            Some(Frame::Junk(_)) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
