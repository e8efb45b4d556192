//! Messages in a stream of bytes: each has a header with its length in bytes, `Content-Length`.
//!
//! The reader allows for wrong lengths and for other bytes between the messages. It returns bytes
//! outside messages as junk, and looks for the next header. A pause in the stream shows that a message
//! has ended even if its length says otherwise.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message, in bytes. A greater length is an error of the other side: the reader would
/// wait forever if it believed it.
const MAX_LENGTH: usize = 1 << 30;

/// The longest header, in bytes.
const MAX_HEADER: usize = 8 << 10;

/// How much junk is returned at once, in bytes.
const MAX_JUNK: usize = 64 << 10;

/// The most memory reserved in advance for a message, in bytes.
const MAX_AHEAD: usize = 16 << 20;

/// The least room for a read, in bytes.
const MIN_READ: usize = 8 << 10;

/// Clients write a message all at once; after a pause this long, no more of it will arrive.
const PAUSE: Duration = Duration::from_millis(100);

const NAME: &[u8] = b"content-length";

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// The bytes that a header announced, or fewer if the stream ended, or paused after a whole JSON
    /// value or the next header.
    Message(Vec<u8>),
    /// Bytes that no header announced.
    Junk(Vec<u8>),
}

/// Why no more of a stream can be read.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// There is no telling where a message ends.
    #[error("the header \"{0}\" does not say how long the message is")]
    Length(String),
    /// A header does not end.
    #[error("a header has more than {MAX_HEADER} bytes")]
    Header,
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<FramingError> for io::Error {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::Io(error) => error,
            error => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// A message with its header.
#[must_use]
pub fn frame(body: &[u8]) -> Vec<u8> {
    let header = format!("Content-Length: {}\r\n\r\n", body.len());
    [header.as_bytes(), body].concat()
}

/// Writes a message with its header.
///
/// # Errors
///
/// When the stream fails.
pub async fn write<W: AsyncWrite + Unpin>(output: &mut W, body: &[u8]) -> io::Result<()> {
    // In one write: on standard output, each goes through another thread.
    output.write_all(&frame(body)).await?;
    output.flush().await
}

/// Whether `bytes` are the beginning of a header, or the whole of one.
#[must_use]
pub fn begins_header(bytes: &[u8]) -> bool {
    let names: [&[u8]; 2] = [NAME, b"content-type"];
    names.iter().any(|name| {
        let length = name.len().min(bytes.len());
        bytes[..length].eq_ignore_ascii_case(&name[..length])
    })
}

/// Where the next header is in a buffer.
#[derive(Debug, PartialEq, Eq)]
enum Header {
    /// From `start` up to `end`, where the message begins.
    Whole {
        start: usize,
        end: usize,
        length: usize,
    },
    /// From `start` on there may be a header that is not complete yet.
    Begun { start: usize },
}

/// Finds the next header.
fn find_header(buffer: &[u8]) -> Result<Header, FramingError> {
    for start in names(buffer) {
        if let Some(header) = read_header(buffer, start)? {
            return Ok(header);
        }
    }
    Ok(Header::Begun {
        start: buffer.len(),
    })
}

/// Where a header may begin: with its name, or at the end with the beginning of its name.
fn names(buffer: &[u8]) -> impl Iterator<Item = usize> {
    (0..buffer.len()).filter(|&at| {
        let length = NAME.len().min(buffer.len() - at);
        buffer[at..at + length].eq_ignore_ascii_case(&NAME[..length])
    })
}

/// Reads the header that begins at `start`, if one does.
fn read_header(buffer: &[u8], start: usize) -> Result<Option<Header>, FramingError> {
    let mut at = start;
    let mut length = None;
    loop {
        if at - start > MAX_HEADER {
            return Err(FramingError::Header);
        }
        // Some clients leave out the blank line.
        if length.is_some() && matches!(buffer.get(at), Some(b'{' | b'[')) {
            break;
        }
        let rest = &buffer[at..];
        let rest = &rest[..rest.len().min(MAX_HEADER + 1)];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return match rest.len() > MAX_HEADER {
                true if length.is_some() => Err(FramingError::Header),
                true => Ok(None),
                false => Ok(Some(Header::Begun { start })),
            };
        };
        let line = rest[..end].trim_ascii();
        at += end + 1;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        if name.trim_ascii().eq_ignore_ascii_case(NAME) {
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let digits = std::str::from_utf8(value)
                .ok()
                .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
            let number = digits.and_then(|value| value.parse().ok());
            length = number.filter(|length| *length <= MAX_LENGTH);
            if length.is_none() {
                // Text that mentions the header is not a header.
                if is_far_from_a_number(value) || colon.is_none() {
                    return Ok(None);
                }
                return Err(FramingError::Length(
                    String::from_utf8_lossy(line).into_owned(),
                ));
            }
        } else if length.is_none() {
            return Ok(None);
        }
    }
    Ok(length.map(|length| Header::Whole {
        start,
        end: at,
        length,
    }))
}

fn is_far_from_a_number(value: &[u8]) -> bool {
    value.len() > 40 || value.iter().any(|byte| b"\"\\{}<>".contains(byte))
}

/// The outcome of waiting for more bytes.
#[derive(PartialEq, Eq)]
enum More {
    Bytes,
    Pause,
    End,
}

/// Reads messages.
#[derive(Debug)]
pub struct FrameReader<R> {
    input: R,
    buffer: Vec<u8>,
    /// The length of the message whose header was read.
    announced: Option<usize>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Creates a reader at the beginning of a stream.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            announced: None,
        }
    }

    /// Returns the next message or junk, or `None` at the end of the stream. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// When the stream fails, or there is no telling where the next message ends. Then no more of the
    /// stream can be read.
    pub async fn next(&mut self) -> Result<Option<Frame>, FramingError> {
        loop {
            if let Some(length) = self.announced {
                let body = self.body(length).await?;
                self.announced = None;
                return Ok(Some(Frame::Message(body)));
            }
            let (start, header) = match find_header(&self.buffer)? {
                Header::Whole { start, end, length } => (start, Some((end, length))),
                Header::Begun { start } => (start, None),
            };
            let mut junk = is_junk(&self.buffer[..start]);
            if start > 0 && !junk && header.is_none() {
                self.buffer.drain(..start);
                continue;
            }
            if header.is_none() && start < MAX_JUNK {
                match self.more(junk).await? {
                    More::Bytes => junk = false,
                    More::Pause => {}
                    More::End => {
                        let rest = std::mem::take(&mut self.buffer);
                        return Ok(is_junk(&rest).then_some(Frame::Junk(rest)));
                    }
                }
            }
            if junk {
                return Ok(Some(Frame::Junk(self.take(start))));
            }
            if let Some((end, length)) = header {
                self.buffer.drain(..end);
                self.announced = Some(length);
            }
        }
    }

    /// Appends to a message whose length was too small what is between it and the next header. Returns
    /// whether there was anything.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub async fn append(&mut self, message: &mut Vec<u8>) -> Result<bool, FramingError> {
        loop {
            let (start, whole) = match find_header(&self.buffer)? {
                Header::Whole { start, .. } => (start, true),
                Header::Begun { start } => (start, false),
            };
            if start > 0 {
                message.extend(self.buffer.drain(..start));
                return Ok(true);
            }
            if whole || self.more(true).await? != More::Bytes {
                return Ok(false);
            }
        }
    }

    /// Puts back what followed a message whose length was too large.
    pub fn unread(&mut self, mut rest: Vec<u8>) {
        rest.append(&mut self.buffer);
        self.buffer = rest;
    }

    async fn body(&mut self, length: usize) -> Result<Vec<u8>, FramingError> {
        let mut paused = false;
        self.buffer
            .reserve(length.min(MAX_AHEAD).saturating_sub(self.buffer.len()));
        while self.buffer.len() < length {
            match self.more(!paused).await? {
                More::Bytes => paused = false,
                More::End => {
                    let end = self.next_header().unwrap_or(self.buffer.len());
                    return Ok(self.take(end));
                }
                More::Pause => {
                    paused = true;
                    if let Some(end) = whole_value(&self.buffer).or_else(|| self.next_header()) {
                        return Ok(self.take(end));
                    }
                }
            }
        }
        Ok(self.take(length))
    }

    /// Where the next sound header is in an incomplete message. No message contains one: its length was
    /// too large, and what came of it is not JSON.
    fn next_header(&self) -> Option<usize> {
        names(&self.buffer).find(|start| {
            let header = read_header(&self.buffer, *start);
            matches!(header, Ok(Some(Header::Whole { .. })))
        })
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Waits for more bytes, or if `impatient`, for a pause.
    async fn more(&mut self, impatient: bool) -> io::Result<More> {
        if self.buffer.capacity() - self.buffer.len() < MIN_READ {
            self.buffer.reserve(MAX_JUNK);
        }
        let read = self.input.read_buf(&mut self.buffer);
        let read = match impatient {
            true => match tokio::time::timeout(PAUSE, read).await {
                Ok(read) => read?,
                Err(_) => return Ok(More::Pause),
            },
            false => read.await?,
        };
        Ok(match read {
            0 => More::End,
            _ => More::Bytes,
        })
    }
}

/// Whether bytes between two messages are anything but blank lines and content types.
fn is_junk(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    !lines.all(|line| {
        let line = line.trim_ascii();
        line.is_empty() || line.to_ascii_lowercase().starts_with(b"content-type:")
    })
}

/// Returns where the JSON value at the beginning of `bytes` ends, if it is complete.
#[must_use]
pub fn whole_value(bytes: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter();
    let value: Option<Result<serde::de::IgnoredAny, _>> = values.next();
    value?.ok().map(|_| values.byte_offset())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(frames: &[Frame]) -> Vec<String> {
        let shown = frames.iter().map(|frame| match frame {
            Frame::Message(body) => String::from_utf8_lossy(body).into_owned(),
            Frame::Junk(junk) => format!("junk: {}", String::from_utf8_lossy(junk)),
        });
        shown.collect()
    }

    async fn read(input: &[u8]) -> Result<Vec<Frame>, FramingError> {
        let mut reader = FrameReader::new(input);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[tokio::test]
    async fn messages_are_found() {
        #[track_caller]
        fn check(frames: Result<Vec<Frame>, FramingError>, expected: &[&str]) {
            assert_eq!(shown(&frames.unwrap()), expected);
        }
        check(read(b"").await, &[]);
        check(read(b"Content-Length: 2\r\n\r\n{}").await, &["{}"]);
        check(read(b"content-length:2\n\n{}").await, &["{}"]);
        check(read(b"CONTENT-LENGTH : 2 \r\n\r\n{}").await, &["{}"]);
        let typed = b"Content-Type: x; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}";
        check(read(typed).await, &["{}"]);
        let typed = b"Content-Length: 2\r\nContent-Type: x; charset=utf-8\r\n\r\n{}";
        check(read(typed).await, &["{}"]);
        check(read(b"Content-Length: 2\r\n{}").await, &["{}"]);
        let twice = b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}";
        check(read(twice).await, &["{}"]);
        check(
            read(b"Content-Length: 0\r\n\r\nContent-Length: 2\r\n\r\n{}").await,
            &["", "{}"],
        );
        let blank = b"\r\n\r\nContent-Length: 2\r\n\r\n{}\r\n\r\nContent-Length: 2\r\n\r\n[]\n";
        check(read(blank).await, &["{}", "[]"]);

        let mark = "\u{feff}Content-Length: 2\r\n\r\n{}".as_bytes();
        check(read(mark).await, &["junk: \u{feff}", "{}"]);
        let glued = b"Content-Length: 2\r\n\r\n{}}}Content-Length: 2\r\n\r\n{}";
        check(read(glued).await, &["{}", "junk: }}", "{}"]);
        let lines = b"GET /\r\n\r\nno header\r\nContent-Length: 2\r\n\r\n{}";
        check(
            read(lines).await,
            &["junk: GET /\r\n\r\nno header\r\n", "{}"],
        );
        let spoken = br#""Content-Length: \r\n"}Content-Length: 2

{}"#;
        check(
            read(spoken).await,
            &[r#"junk: "Content-Length: \r\n"}"#, "{}"],
        );
        let near = b"Content-Content-Length: 2\r\n\r\n{}";
        check(read(near).await, &["junk: Content-", "{}"]);

        check(read(b"Content-Length: 9\r\n\r\n{}").await, &["{}"]);
        // The length is too large, and the message is not JSON.
        let broken = b"Content-Length: 999\r\n\r\n{\"a\"}}Content-Length: 2\r\n\r\n{}";
        check(read(broken).await, &["{\"a\"}}", "{}"]);
        let spoken =
            b"Content-Length: 999\r\n\r\n{Content-Length: 2*\r\n}Content-Length: 2\r\n\r\n{}";
        check(read(spoken).await, &["{Content-Length: 2*\r\n}", "{}"]);
        check(read(b"Content-Len").await, &["junk: Content-Len"]);
    }

    #[tokio::test]
    async fn an_invalid_length_is_an_error() {
        for header in [
            "Content-Length: -1",
            "Content-Length: abc",
            "Content-Length:",
            "Content-Length: ",
            "content-length: 99999999999",
            "Content-Length: 99999999999999999999999",
            "Content-Length: 0x10",
            "Content-Length: 5.0",
            "Content-Length: +5",
            "Content-Length: 5 5",
            "Content-Length: \u{661}",
        ] {
            for before in ["", "}", "Content-Length: 2\r\n\r\n{}"] {
                let input = format!("{before}{header}\r\n\r\n{{}}");
                let error = read(input.as_bytes()).await.unwrap_err().to_string();
                let named = format!(
                    "the header \"{}\" does not say how long the message is",
                    header.trim()
                );
                assert_eq!(error, named);
            }
        }
        let endless = format!("Content-Length: 5\r\n{}", "X: y\r\n".repeat(4_000));
        let error = read(endless.as_bytes()).await.unwrap_err();
        assert_eq!(error.to_string(), "a header has more than 8192 bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_ends_with_the_stream_or_a_pause() {
        let (mut near, far) = tokio::io::duplex(1 << 10);
        let mut reader = FrameReader::new(far);
        // The length is far too large, and the other side waits for the answer.
        near.write_all(b"Content-Length: 999\r\n\r\n{\"a\":1}")
            .await
            .unwrap();
        let message = reader.next().await.unwrap();
        assert_eq!(message, Some(Frame::Message(b"{\"a\":1}".to_vec())));
        // The same where it is not JSON, as soon as there is another one.
        let broken = b"Content-Length: 999\r\n\r\n{\"a\"}}";
        near.write_all(broken).await.unwrap();
        let wait = tokio::time::timeout(10 * PAUSE, reader.next()).await;
        assert!(wait.is_err());
        let next = b"Content-Length: 7\r\n\r\n{\"a\":3}";
        near.write_all(next).await.unwrap();
        for expected in ["{\"a\"}}", "{\"a\":3}"] {
            let message = reader.next().await.unwrap();
            assert_eq!(message, Some(Frame::Message(expected.into())));
        }
        // The next header is not part of it.
        near.write_all(b"Content-Length: 14\r\n\r\n{\"a\":2}Content")
            .await
            .unwrap();
        let message = reader.next().await.unwrap();
        assert_eq!(message, Some(Frame::Message(b"{\"a\":2}Content".to_vec())));
        reader.unread(b"Content".to_vec());
        near.write_all(b"-Length: 9\r\n\r\n").await.unwrap();
        // A slow writer has as much time as it needs.
        near.write_all(b"{\"a\"").await.unwrap();
        let wait = tokio::time::timeout(10 * PAUSE, reader.next()).await;
        assert!(wait.is_err());
        drop(near);
    }

    #[tokio::test(start_paused = true)]
    async fn junk_is_returned_even_if_nothing_follows() {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let mut reader = FrameReader::new(far);
        near.write_all(b"{\"id\":1}").await.unwrap();
        let junk = reader.next().await.unwrap();
        assert_eq!(junk, Some(Frame::Junk(b"{\"id\":1}".to_vec())));
        near.write_all(&[b'x'; 100_000]).await.unwrap();
        let mut length = 0;
        while length < 100_000 {
            let Some(Frame::Junk(junk)) = reader.next().await.unwrap() else {
                panic!("after {length}");
            };
            length += junk.len();
        }
        drop(near);
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_missing_end_of_a_message_is_appended() {
        let mut reader =
            FrameReader::new(&b"Content-Length: 3\r\n\r\n{\"a\":1}Content-Length: 2\r\n\r\n{}"[..]);
        let Some(Frame::Message(mut message)) = reader.next().await.unwrap() else {
            panic!("a message");
        };
        assert!(reader.append(&mut message).await.unwrap());
        assert_eq!(message, b"{\"a\":1}");
        assert!(!reader.append(&mut message).await.unwrap());
        let next = reader.next().await.unwrap();
        assert_eq!(next, Some(Frame::Message(b"{}".to_vec())));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// However the stream is cut into pieces, it yields the same messages.
        #[test]
        fn a_stream_may_arrive_in_any_pieces(
            bodies in prop::collection::vec("[a-zéC{}\" \n😀-]{0,40}", 1..6),
            cuts in prop::collection::vec(1..20_usize, 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body.as_bytes())).collect();
            let found = runtime.block_on(async {
                let (mut near, far) = tokio::io::duplex(1 << 16);
                let mut reader = FrameReader::new(far);
                let writes = async {
                    let mut rest = &stream[..];
                    for cut in cuts.iter().cycle() {
                        let (now, later) = rest.split_at((*cut).min(rest.len()));
                        near.write_all(now).await.unwrap();
                        tokio::task::yield_now().await;
                        rest = later;
                        if rest.is_empty() {
                            break;
                        }
                    }
                    drop(near);
                };
                let reads = async {
                    let mut frames = Vec::new();
                    while let Some(frame) = reader.next().await.unwrap() {
                        frames.push(frame);
                    }
                    frames
                };
                tokio::join!(writes, reads).1
            });
            prop_assert_eq!(shown(&found), bodies);
        }
    }
}
