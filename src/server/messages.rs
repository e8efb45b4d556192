//! Lets only well-formed messages through.
//!
//! tower-lsp ends the connection at the first message it cannot parse (its reader gives up after an
//! error), and a body that is not UTF-8 it would parse for ever. One bad message is no reason to leave
//! the user without completions, so what is malformed is logged here and skipped.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tower_lsp::jsonrpc::{Request, Response};

/// The longest message, in bytes. A length beyond it is an error of the client's, and to believe it
/// would be to wait for ever.
const MAX_LENGTH: u64 = 1 << 30;

/// Copies messages until the input ends, and ends the output then.
///
/// # Errors
///
/// When either end fails, or the input is not in the protocol's format at all.
pub async fn pass<I, O>(input: I, mut output: O) -> io::Result<()>
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
{
    let mut input = BufReader::new(input);
    while let Some(length) = content_length(&mut input).await? {
        let mut body = Vec::new();
        (&mut input).take(length).read_to_end(&mut body).await?;
        match check(&body) {
            Ok(()) => {
                let header = format!("Content-Length: {}\r\n\r\n", body.len());
                output
                    .write_all(&[header.as_bytes(), &body].concat())
                    .await?;
                output.flush().await?;
            }
            Err(error) => tracing::warn!("skipped a malformed message: {error}"),
        }
    }
    // The half of a pipe within the process says nothing of its end when it is dropped.
    output.shutdown().await
}

/// Reads the header of the next message; nothing at the end of the input.
async fn content_length<I>(input: &mut BufReader<I>) -> io::Result<Option<u64>>
where
    I: AsyncRead + Unpin,
{
    let mut length = None;
    loop {
        let mut line = Vec::new();
        // No header is as long as this.
        let read = (&mut *input)
            .take(4096)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        match (line.trim_end().split_once(':'), length) {
            (Some((name, value)), _) if name.eq_ignore_ascii_case("content-length") => {
                let value = value.trim().parse().ok();
                let too_long =
                    || io::Error::new(io::ErrorKind::InvalidData, line.trim().to_owned());
                length = Some(
                    value
                        .filter(|length| *length <= MAX_LENGTH)
                        .ok_or_else(too_long)?,
                );
            }
            (None, Some(length)) if line.trim().is_empty() => return Ok(Some(length)),
            // Another header, or what is left of a message whose length was wrong.
            _ => {}
        }
    }
}

fn check(body: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Request>(body).map(drop).or_else(
        |error| match serde_json::from_slice::<Response>(body) {
            Ok(_) => Ok(()),
            Err(_) => Err(error),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &str) -> String {
        format!("Content-Length: {}\r\n\r\n{body}", body.len())
    }

    async fn check(input: &[u8], expected: &str) {
        let mut output = Vec::new();
        pass(input, &mut output).await.unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }

    const GOOD: &str = r#"{"jsonrpc":"2.0","method":"initialized","params":{}}"#;

    #[tokio::test]
    async fn messages_pass() {
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":null}"#;
        let both = frame(GOOD) + &frame(answer);
        check(both.as_bytes(), &both).await;
        let typed = format!(
            "Content-Type: x; charset=utf-8\r\ncontent-length:{}\r\n\r\n{GOOD}",
            GOOD.len()
        );
        check(typed.as_bytes(), &frame(GOOD)).await;
    }

    #[tokio::test]
    async fn what_is_malformed_is_skipped() {
        for bad in [
            r#"{"oops": "#,
            "",
            "[]",
            r#"{"jsonrpc":"1.0","method":"a"}"#,
        ] {
            check((frame(bad) + &frame(GOOD)).as_bytes(), &frame(GOOD)).await;
        }
        let no_utf8 = [b"Content-Length: 2\r\n\r\n\xFF\xFE", frame(GOOD).as_bytes()].concat();
        check(&no_utf8, &frame(GOOD)).await;
        let junk = format!("no header\r\n\r\n{}", frame(GOOD));
        check(junk.as_bytes(), &frame(GOOD)).await;
        check(b"Content-Length: 100\r\n\r\n{", "").await;
    }

    #[tokio::test]
    async fn a_length_that_cannot_be_is_an_error() {
        for length in ["99999999999999", "-1", "x"] {
            let input = format!("Content-Length: {length}\r\n\r\n");
            let error = pass(input.as_bytes(), Vec::new()).await.unwrap_err();
            assert_eq!(error.to_string(), format!("Content-Length: {length}"));
        }
    }
}
