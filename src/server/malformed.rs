//! Repairs messages that are not valid JSON, or reads what can be read of them.

use serde_json::Value;

/// Chars that stand for what a string cannot hold. The original message contains none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Before a char that stands for half a surrogate pair.
    half: char,
    /// In place of bytes that are not UTF-8.
    damage: char,
}

/// The char in place of text that is lost.
const REPLACEMENT: char = '\u{fffd}';

/// The private-use char that stands for the first surrogate, U+D800.
const FIRST_HALF: u32 = 0xe000;

/// What the marks in a string stood for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Halves of surrogate pairs that are now U+FFFD: byte offset and UTF-16 unit.
    pub halves: Vec<(usize, u16)>,
    /// Whether a part of the text is lost.
    pub is_damaged: bool,
}

impl Marks {
    /// Replaces the marks in a string by U+FFFD, and returns what they stood for.
    #[must_use]
    pub fn remove(self, text: &mut String) -> Marked {
        let mut marked = Marked::default();
        if !text.contains([self.half, self.damage]) {
            return marked;
        }
        let mut clean = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            if char == self.half {
                let unit = chars.next().map_or(0, u32::from);
                let unit = unit.wrapping_sub(FIRST_HALF).wrapping_add(0xd800);
                let unit = u16::try_from(unit).unwrap_or(0xd800);
                marked.halves.push((clean.len(), unit));
                clean.push(REPLACEMENT);
            } else if char == self.damage {
                marked.is_damaged = true;
                clean.push(REPLACEMENT);
            } else {
                clean.push(char);
            }
        }
        *text = clean;
        marked
    }
}

/// Repairs a message that is nearly JSON: its strings may contain halves of surrogate pairs, escaped
/// or as bytes, bytes that are not UTF-8, and control characters. `None` if no char is left to mark
/// them with.
#[must_use]
pub fn repair(body: &[u8]) -> Option<(Vec<u8>, Marks)> {
    let mut free = ('\u{fdd0}'..='\u{fdef}').filter(|mark| !has(body, *mark));
    let marks = Marks {
        half: free.next()?,
        damage: free.next()?,
    };
    let mut repaired = Vec::with_capacity(body.len() + 64);
    let push = |repaired: &mut Vec<u8>, char: char| {
        repaired.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    };
    let push_half = |repaired: &mut Vec<u8>, unit: u16| {
        push(repaired, marks.half);
        let stand_in = char::from_u32(FIRST_HALF + u32::from(unit) - 0xd800);
        push(repaired, stand_in.unwrap_or(REPLACEMENT));
    };
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        let rest = &body[at..];
        let mut used = 1;
        match byte {
            b'"' => {
                in_string = !in_string;
                repaired.push(byte);
            }
            b'\\' if in_string => match escaped_unit(rest) {
                Some(high @ 0xd800..=0xdbff) => match escaped_unit(&rest[6..]) {
                    Some(0xdc00..=0xdfff) => {
                        used = 12;
                        repaired.extend_from_slice(&rest[..used]);
                    }
                    _ => {
                        used = 6;
                        push_half(&mut repaired, high);
                    }
                },
                Some(low @ 0xdc00..=0xdfff) => {
                    used = 6;
                    push_half(&mut repaired, low);
                }
                _ => {
                    used = rest.len().min(2);
                    repaired.extend_from_slice(&rest[..used]);
                }
            },
            0..0x20 if in_string => repaired.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            0..0x80 => repaired.push(byte),
            0x80.. => match (encoded_unit(rest), first_char(rest)) {
                (Some(unit), _) => match rest.get(3..).and_then(encoded_unit) {
                    // Each half is encoded on its own, as in CESU-8.
                    Some(low @ 0xdc00..) if unit < 0xdc00 => {
                        used = 6;
                        let mut pair = char::decode_utf16([unit, low]);
                        push(&mut repaired, pair.next()?.ok()?);
                    }
                    _ => {
                        used = 3;
                        push_half(&mut repaired, unit);
                    }
                },
                (None, Some(char)) => {
                    used = char.len_utf8();
                    push(&mut repaired, char);
                }
                (None, None) => push(&mut repaired, marks.damage),
            },
        }
        at += used;
    }
    Some((repaired, marks))
}

/// Whether the message contains a char, as itself or escaped.
fn has(body: &[u8], char: char) -> bool {
    let escaped = format!("\\u{:04x}", u32::from(char));
    let mut bytes = [0; 4];
    let bytes = char.encode_utf8(&mut bytes).as_bytes();
    let holds = |part: &[u8]| {
        body.windows(part.len())
            .any(|window| window.eq_ignore_ascii_case(part))
    };
    holds(bytes) || holds(escaped.as_bytes())
}

/// The UTF-16 unit of an escape like `\ud83d` at the beginning.
fn escaped_unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.get(..6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

/// The half of a surrogate pair at the beginning that is encoded as if it were a char.
fn encoded_unit(bytes: &[u8]) -> Option<u16> {
    match *bytes {
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f))
        }
        _ => None,
    }
}

/// The char at the beginning, if there is one.
fn first_char(bytes: &[u8]) -> Option<char> {
    let start = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(start) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
    };
    valid.chars().next()
}

/// What a message is about, as far as it can be read.
#[derive(Debug, Default, PartialEq)]
pub struct Gist {
    /// The id of the request, or of the request it answers.
    pub id: Option<Value>,
    /// The method of a request or notification.
    pub method: Option<String>,
    /// The document it is about.
    pub uri: Option<String>,
    /// Whether it is an answer.
    pub is_answer: bool,
}

/// Reads what can be read of a message that is not JSON, for example because it is cut off.
#[must_use]
pub fn gist(body: &[u8]) -> Gist {
    let mut gist = Gist::default();
    // For each enclosing object, the key whose value is being read; `None` for an array.
    let mut around: Vec<Option<String>> = Vec::new();
    let mut is_key = true;
    let mut at = body
        .iter()
        .position(|byte| *byte == b'{')
        .unwrap_or(body.len());
    while let Some(&byte) = body.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' => {
                around.push(Some(String::new()));
                is_key = true;
            }
            b'[' => {
                around.push(None);
                is_key = false;
            }
            b'}' | b']' => {
                around.pop();
                if around.is_empty() {
                    break;
                }
                is_key = false;
            }
            b',' => is_key = matches!(around.last(), Some(Some(_))),
            b':' => is_key = false,
            b'"' => {
                while body.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if body[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                let Some(token) = body.get(start..at) else {
                    break;
                };
                let inner = &token[1..token.len() - 1];
                let text = serde_json::from_slice(token)
                    .unwrap_or_else(|_| String::from_utf8_lossy(inner).into_owned());
                match around.last_mut() {
                    Some(Some(key)) if is_key => *key = text,
                    _ => gist.note(&around, Value::String(text)),
                }
            }
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                while body.get(at).is_some_and(is_part) {
                    at += 1;
                }
                // A number at the very end may be cut off.
                let number = body
                    .get(at)
                    .map(|_| serde_json::from_slice(&body[start..at]));
                if let Some(Ok(number)) = number {
                    gist.note(&around, number);
                }
            }
            _ => {}
        }
        if let [Some(key)] = &around[..]
            && !is_key
            && (key == "result" || key == "error")
        {
            gist.is_answer = true;
        }
    }
    gist
}

impl Gist {
    fn note(&mut self, path: &[Option<String>], value: Value) {
        let path: Option<Vec<&str>> = path.iter().map(Option::as_deref).collect();
        let text = value.as_str().map(str::to_owned);
        match path.as_deref() {
            Some(["id"]) => self.id = Some(value),
            Some(["method"]) => self.method = text,
            Some(["params", "textDocument", "uri"]) => self.uri = text,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_repaired() {
        #[track_caller]
        fn check(body: &[u8], text: &str, halves: &[(usize, u16)], is_damaged: bool) {
            assert!(serde_json::from_slice::<String>(body).is_err());
            let (repaired, marks) = repair(body).unwrap();
            let mut repaired: String = serde_json::from_slice(&repaired).unwrap();
            let marked = marks.remove(&mut repaired);
            assert_eq!(repaired, text);
            assert_eq!(marked.halves, halves);
            assert_eq!(marked.is_damaged, is_damaged);
        }
        let escaped = |body: &str, text: &str, halves: &[(usize, u16)]| {
            check(body.as_bytes(), text, halves, false);
        };
        escaped(r#""\ud83d""#, "\u{fffd}", &[(0, 0xd83d)]);
        escaped(r#""aé\uDE00b""#, "aé\u{fffd}b", &[(3, 0xde00)]);
        escaped(
            r#""\ude00\ud83d\ude00\ud83d\n\\ud83d""#,
            "\u{fffd}😀\u{fffd}\n\\ud83d",
            &[(0, 0xde00), (7, 0xd83d)],
        );
        escaped(r#""\ud83d\u0041""#, "\u{fffd}A", &[(0, 0xd83d)]);
        escaped(
            r#""\ud800\udbff""#,
            "\u{fffd}\u{fffd}",
            &[(0, 0xd800), (3, 0xdbff)],
        );
        // Chars that the message contains do not become marks.
        escaped(
            "\"\u{fdd0}\\ufdd1\\uFDD2\\ud83d\"",
            "\u{fdd0}\u{fdd1}\u{fdd2}\u{fffd}",
            &[(9, 0xd83d)],
        );
        escaped("\"a\tb\nc\u{0}\"", "a\tb\nc\u{0}", &[]);
        check(b"\"\xed\xa0\xbd\"", "\u{fffd}", &[(0, 0xd83d)], false);
        check(b"\"\xed\xa0\xbd\xed\xb8\x80\"", "😀", &[], false);
        check(b"\"a\xffb\"", "a\u{fffd}b", &[], true);
        check(b"\"\xc3\"", "\u{fffd}", &[], true);
        check(
            b"\"\xf0\x9f\x98\xc3\xa9\"",
            "\u{fffd}\u{fffd}\u{fffd}é",
            &[],
            true,
        );
    }

    #[test]
    fn the_gist_of_a_broken_message_is_read() {
        #[track_caller]
        fn check(body: &str, id: Option<Value>, method: Option<&str>, uri: Option<&str>) {
            let read = gist(body.as_bytes());
            assert_eq!(read.id, id);
            assert_eq!(read.method.as_deref(), method);
            assert_eq!(read.uri.as_deref(), uri);
        }
        let one = || Some(Value::from(1));
        check("", None, None, None);
        check("{", None, None, None);
        check("[[[", None, None, None);
        check(r#"{"id":1,"method":"m","params":{"#, one(), Some("m"), None);
        check(r#"{"id":1"#, None, None, None);
        check(r#"{"id":1,"method":"m"#, one(), None, None);
        check(
            r#"junk{"id":"x","method":"m",}"#,
            Some("x".into()),
            Some("m"),
            None,
        );
        check(
            r#"{"method":"m","params":{"id":2,"textDocument":{"version":1,"uri":"file:///a"},"x":[{"id":3}],"#,
            None,
            Some("m"),
            Some("file:///a"),
        );
        check(r#"{"params":{"a":"\"id\":5"},"id":1, x"#, one(), None, None);
        check(r#"{"id":NaN,"method":"m"}"#, None, Some("m"), None);
        check(r#"{"a":["b","c"],"id":1}{"id":2}"#, one(), None, None);
        check(
            r#"{"id":1,"method":"a\ud83d"}"#,
            one(),
            Some("a\\ud83d"),
            None,
        );
        assert!(gist(br#"{"id":1,"result":{"#).is_answer);
        assert!(!gist(br#"{"id":1,"params":{"result":1}"#).is_answer);
    }
}
