//! Text to token ids and back to bytes, for vocabularies of BPE: byte-level ones, and those of
//! SentencePiece that have a token for each byte.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::{NormalizerWrapper, Sequence};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;

use super::{fim_families, plain_file};

/// What `transformers` must know of a tokenizer, in a file beside it.
const CONFIGURATION: &str = "tokenizer_config.json";

/// The largest tokenizer that is read, in bytes. Those with a quarter of a million tokens have 33
/// MB.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A model's vocabulary.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where token `id` is in `bytes`: `ends[id]..ends[id + 1]`.
    ends: Vec<u32>,
    /// The special tokens' ids, ascending.
    special: Vec<u32>,
    /// The other tokens' ids, in the order of their bytes.
    sorted: Vec<u32>,
    /// See [`Tokenizer::beginning_of_text`].
    beginning_of_text: Option<u32>,
}

/// The part of `tokenizer_config.json` that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Configuration {
    add_bos_token: Option<bool>,
    bos_token: Option<Spelling>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Spelling {
    Text(String),
    Token { content: String },
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, and the `tokenizer_config.json` beside it if there is one.
    ///
    /// # Errors
    ///
    /// See [`TokenizerError`].
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let wrong = |problem: String| TokenizerError {
            path: path.to_path_buf(),
            what: "a tokenizer",
            problem,
        };
        let configuration = Configuration::beside(path)?;
        let json = plain_file::read(path, MAX_BYTES).map_err(|error| wrong(error.to_string()))?;
        // The library panics on some damaged files.
        let parsed = catch_unwind(|| Self::parse(&json, &configuration));
        let parsed =
            parsed.unwrap_or_else(|_| Err("the tokenizer library panics on it".to_owned()));
        parsed.map_err(wrong)
    }

    fn parse(json: &[u8], configuration: &Configuration) -> Result<Self, String> {
        let mut inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
        // Truncation and padding belong to training batches.
        inner
            .with_truncation(None)
            .map_err(|error| error.to_string())?;
        inner.with_padding(None);
        let has_pieces = matches!(inner.get_model(), ModelWrapper::BPE(bpe) if bpe.byte_fallback);
        if has_pieces {
            leave_out_the_first_space(&mut inner)?;
        }
        // A file that contains `<fim_middle>` is only text. The setting applies to special tokens
        // only, so all added tokens are made special first; with SentencePiece only markers, since
        // there a line break may be an added token. Some files have the markers of a hole only in
        // the vocabulary.
        let is_marker = |content: &str| fim_families::spellings().any(|marker| marker == content);
        let added = inner.get_added_tokens_decoder().into_iter();
        let added =
            added.filter(|(_, token)| !has_pieces || token.special || is_marker(&token.content));
        let added: Vec<_> = added.collect();
        let plain = added.iter().filter(|(_, token)| !token.special);
        let plain = plain.map(|(_, token)| token.content.clone());
        let markers = fim_families::spellings().filter_map(|marker| {
            let id = inner.token_to_id(marker)?;
            let is_added = added.iter().any(|(added, _)| *added == id);
            (!is_added).then(|| (id, marker.to_owned()))
        });
        let markers: Vec<_> = markers.collect();
        let plain = plain.chain(markers.iter().map(|(_, marker)| marker.clone()));
        let plain: Vec<_> = plain
            .map(|content| tokenizers::AddedToken::from(content, true))
            .collect();
        inner
            .add_special_tokens(plain)
            .map_err(|error| error.to_string())?;
        inner.set_encode_special_tokens(true);
        let added = added.iter().map(|(id, _)| *id);
        let mut special: Vec<u32> = added.chain(markers.iter().map(|(id, _)| *id)).collect();
        special.sort_unstable();
        special.dedup();

        let alphabet = byte_level_alphabet();
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for id in 0..inner.get_vocab_size(true) as u32 {
            let token = inner.id_to_token(id).unwrap_or_default();
            match special.binary_search(&id) {
                Ok(_) => (),
                Err(_) if has_pieces => bytes.extend(bytes_of_piece(&token)),
                Err(_) => {
                    for char in token.chars() {
                        let byte = alphabet.get(&char).ok_or_else(|| {
                            format!("its token {id} ({token:?}) is not byte-level, and of other vocabularies only SentencePiece's with tokens for bytes are supported")
                        })?;
                        bytes.push(*byte);
                    }
                }
            }
            ends.push(bytes.len() as u32);
        }
        let mut tokenizer = Self {
            inner,
            bytes,
            ends,
            special,
            sorted: Vec::new(),
            beginning_of_text: None,
        };
        let ids = 0..tokenizer.len() as u32;
        let mut sorted: Vec<u32> = ids.filter(|id| !tokenizer.bytes(*id).is_empty()).collect();
        sorted.sort_by_key(|id| tokenizer.bytes(*id));
        tokenizer.sorted = sorted;
        tokenizer.beginning_of_text = match configuration.add_bos_token {
            Some(true) => configuration.bos_token(&tokenizer),
            Some(false) => None,
            None => tokenizer.put_before_a_text(),
        };
        Ok(tokenizer)
    }

    /// The special token that the file's own post-processor puts before a text.
    fn put_before_a_text(&self) -> Option<u32> {
        let processed = self.inner.encode_fast("a", true).ok()?;
        // What is text is no special token, so that one at the beginning was put there.
        let first = processed.get_ids().first()?;
        self.special.contains(first).then_some(*first)
    }

    /// The token with which each prompt must begin, if the model was trained with one before all
    /// texts: `tokenizer_config.json` says so (`add_bos_token`), else the post-processor in
    /// `tokenizer.json` does. [`encode`](Self::encode) does not add it, since most of what it is
    /// given goes into the middle of a prompt.
    #[must_use]
    pub fn beginning_of_text(&self) -> Option<u32> {
        self.beginning_of_text
    }

    /// The ids of `text`, in which nothing counts as a special token.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            // The vocabulary has a token for each byte, so this is not reached. If it
            // were, a poorer prompt is better than a dead server.
            Err(error) => {
                tracing::error!(%error, "cannot tokenize a text");
                Vec::new()
            }
        }
    }

    /// The ids of `text`, in which special tokens count as such: for templates, never for the text
    /// of a file.
    #[must_use]
    pub fn encode_template(&self, text: &str) -> Vec<u32> {
        // Where each special token is found next, so that each is looked for once over the whole
        // text.
        let mut next: Vec<(usize, &u32, String)> = self
            .special
            .iter()
            .filter_map(|id| Some((0, id, self.inner.id_to_token(*id)?)))
            .filter(|(_, _, content)| !content.is_empty())
            .collect();
        let mut ids = Vec::new();
        let mut done = 0;
        loop {
            next.retain_mut(|(at, _, content)| {
                if *at >= done && text[*at..].starts_with(content.as_str()) {
                    return true;
                }
                let found = text[done..].find(content.as_str());
                *at = done + found.unwrap_or_default();
                found.is_some()
            });
            // Of two that begin at the same place, the longer one.
            let first = next
                .iter()
                .min_by_key(|(at, _, content)| (*at, std::cmp::Reverse(content.len())));
            let Some((at, id, content)) = first else {
                break;
            };
            ids.extend(self.encode(&text[done..*at]));
            ids.push(**id);
            done = at + content.len();
        }
        ids.extend(self.encode(&text[done..]));
        ids
    }

    /// The text of `ids`, with special tokens spelled out: for people to read.
    #[must_use]
    pub fn show(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for id in ids {
            match self.special.binary_search(id) {
                Ok(_) => bytes.extend(self.inner.id_to_token(*id).unwrap_or_default().bytes()),
                Err(_) => bytes.extend_from_slice(self.bytes(*id)),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of a token; none for a special token or an id outside the vocabulary.
    /// A token may hold part of a character.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match self.ends.get(id..id + 2) {
            Some([start, end]) => &self.bytes[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// The tokens with which a text that begins with `start` can begin: those that begin with
    /// `start`, and those that `start` begins with. `start` is not empty.
    pub fn beginning(&self, start: &[u8]) -> impl Iterator<Item = u32> + Clone {
        let from = |bytes: &[u8]| self.sorted.partition_point(|id| self.bytes(*id) < bytes);
        let longer = &self.sorted[from(start)..];
        let longer = &longer[..longer.partition_point(|id| self.bytes(*id).starts_with(start))];
        let shorter = (1..start.len()).filter_map(|len| {
            let token = self.sorted.get(from(&start[..len]))?;
            (self.bytes(*token) == &start[..len]).then_some(*token)
        });
        let shorter: Vec<u32> = shorter.collect();
        longer.iter().copied().chain(shorter)
    }

    /// The number of ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Whether there are no tokens at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The special tokens' ids, ascending.
    #[must_use]
    pub fn special(&self) -> &[u32] {
        &self.special
    }

    /// The id of the special token spelled `content`.
    #[must_use]
    pub fn special_id(&self, content: &str) -> Option<u32> {
        let id = self.inner.token_to_id(content)?;
        self.special.binary_search(&id).is_ok().then_some(id)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Configuration {
    /// The one beside the tokenizer `path`, or an empty one.
    fn beside(path: &Path) -> Result<Self, TokenizerError> {
        let path = path.with_file_name(CONFIGURATION);
        let wrong = |problem: String| TokenizerError {
            path: path.clone(),
            what: "the configuration of a tokenizer",
            problem,
        };
        if !path.exists() {
            return Ok(Self::default());
        }
        let json = plain_file::read(&path, MAX_BYTES).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))
    }

    fn bos_token(&self, tokenizer: &Tokenizer) -> Option<u32> {
        match self.bos_token.as_ref()? {
            Spelling::Text(text) | Spelling::Token { content: text } => tokenizer.special_id(text),
        }
    }
}

/// Why a tokenizer file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not {what}: {problem}; copy the model folder again")]
pub struct TokenizerError {
    path: PathBuf,
    /// What it should be.
    what: &'static str,
    /// What is wrong with it.
    pub(super) problem: String,
}

/// The characters that represent bytes in a byte-level vocabulary: printable Latin-1 characters
/// represent themselves, those from U+0100 on the other bytes, in order.
///
/// Source: `bytes_to_unicode` of GPT-2's `encoder.py`.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let itself = (0..=255).filter(|byte| printable(*byte));
    let others = (0..=255).filter(|byte| !printable(*byte));
    itself
        .map(|byte| (char::from(byte), byte))
        .chain(('\u{100}'..).zip(others))
        .collect()
}

/// The bytes of a piece of SentencePiece, in which a sign stands for a space.
fn bytes_of_piece(piece: &str) -> Vec<u8> {
    let digits = piece
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    match digits.map(|digits| u8::from_str_radix(digits, 16)) {
        Some(Ok(byte)) => vec![byte],
        _ => piece.replace('\u{2581}', " ").into_bytes(),
    }
}

/// Tokenizers of SentencePiece put a space before each text. Here most texts are the middle of one.
fn leave_out_the_first_space(inner: &mut tokenizers::Tokenizer) -> Result<(), String> {
    let puts_first = |step: &&NormalizerWrapper| matches!(step, NormalizerWrapper::Prepend(_));
    let steps = match inner.get_normalizer() {
        Some(NormalizerWrapper::Sequence(steps)) => steps.as_ref().iter().collect(),
        single => single.into_iter().collect::<Vec<_>>(),
    };
    if steps.iter().any(puts_first) {
        let steps = steps.into_iter().filter(|step| !puts_first(step));
        let steps = Sequence::new(steps.cloned().collect());
        let normalizer = Some(NormalizerWrapper::Sequence(steps));
        inner
            .with_normalizer(normalizer)
            .map_err(|error| error.to_string())?;
    }
    if let Some(PreTokenizerWrapper::Metaspace(metaspace)) = inner.get_pre_tokenizer() {
        let mut metaspace = metaspace.clone();
        metaspace.set_prepend_scheme(PrependScheme::Never);
        inner.with_pre_tokenizer(Some(metaspace));
    }
    Ok(())
}

/// Turns tokens into text as they come, and holds back the bytes of an incomplete character.
#[derive(Debug, Default)]
pub struct Detokenizer {
    text: String,
    rest: Vec<u8>,
}

impl Detokenizer {
    /// Appends a token's bytes, and moves the complete characters to the text.
    pub fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let mut done = 0;
        for chunk in self.rest.utf8_chunks() {
            self.text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            // What could still become a character waits; what cannot is replaced.
            if !invalid.is_empty() {
                let waits = done + invalid.len() == self.rest.len()
                    && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
                if waits {
                    break;
                }
                self.text.push(char::REPLACEMENT_CHARACTER);
                done += invalid.len();
            }
        }
        self.rest.drain(..done);
    }

    /// The complete characters so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::tests::tokenizer;

    fn decode(ids: &[u32]) -> String {
        let mut detokenizer = Detokenizer::default();
        for id in ids {
            detokenizer.push(tokenizer().bytes(*id));
        }
        detokenizer.text().to_owned()
    }

    /// A `tokenizer.json` whose vocabulary is the 256 bytes, and after them the special tokens
    /// `added`, with this post-processor.
    fn bytes_json(added: &[&str], post_processor: &str) -> String {
        let bytes = byte_level_alphabet();
        let vocabulary: serde_json::Map<String, Value> = bytes
            .iter()
            .map(|(char, byte)| (char.to_string(), json!(byte)))
            .collect();
        let added = added.iter().enumerate();
        let added: Vec<_> = added
            .map(|(index, content)| {
                json!({
                    "id": 256 + index, "content": content, "special": true, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false,
                })
            })
            .collect();
        let post_processor: Value = serde_json::from_str(post_processor).unwrap();
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        });
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": added,
            "pre_tokenizer": byte_level,
            "post_processor": post_processor,
            "decoder": byte_level,
            "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
        })
        .to_string()
    }

    /// The tokenizer of [`bytes_json`].
    pub(crate) fn byte_tokenizer(added: &[&str], post_processor: &str) -> Tokenizer {
        let json = bytes_json(added, post_processor);
        Tokenizer::parse(json.as_bytes(), &Configuration::default()).unwrap()
    }

    /// The post-processor with which publishers put a token, 256, before a text.
    pub(crate) const PUTS_BOS: &str = r#"{
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}
    }"#;

    #[test]
    fn the_token_that_begins_a_text_is_found() {
        let puts_end = PUTS_BOS.replace(
            r#"[{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]"#,
            r#"[{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}}]"#,
        );
        assert_ne!(puts_end, PUTS_BOS);
        for (post_processor, configuration, expected) in [
            ("null", None, None),
            ("null", Some("{}"), None),
            (PUTS_BOS, None, Some(256)),
            (PUTS_BOS, Some(r#"{"bos_token": "<t>"}"#), Some(256)),
            (
                PUTS_BOS,
                Some(r#"{"add_bos_token": false, "bos_token": "<s>"}"#),
                None,
            ),
            (&puts_end, None, None),
            (
                "null",
                Some(r#"{"add_bos_token": true, "bos_token": "<t>"}"#),
                Some(257),
            ),
            (
                "null",
                Some(
                    r#"{"add_bos_token": true, "bos_token": {"content": "<t>", "lstrip": false}}"#,
                ),
                Some(257),
            ),
            (
                "null",
                Some(r#"{"add_bos_token": true, "bos_token": null}"#),
                None,
            ),
            (
                "null",
                Some(r#"{"add_bos_token": true, "bos_token": "<u>"}"#),
                None,
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tokenizer.json");
            std::fs::write(&path, bytes_json(&["<s>", "<t>"], post_processor)).unwrap();
            if let Some(configuration) = configuration {
                std::fs::write(folder.path().join(CONFIGURATION), configuration).unwrap();
            }
            let tokenizer = Tokenizer::load(&path).unwrap();
            assert_eq!(tokenizer.beginning_of_text(), expected, "{configuration:?}");
            assert_eq!(tokenizer.encode("a"), [u32::from(b'a')]);
        }
    }

    #[test]
    fn a_wrong_configuration_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, bytes_json(&[], "null")).unwrap();
        std::fs::write(folder.path().join(CONFIGURATION), "{").unwrap();
        let error = Tokenizer::load(&path).unwrap_err().to_string();
        let expected = "/tokenizer_config.json is not the configuration of a tokenizer: EOF";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn special_tokens_in_a_template_are_tokens() {
        let id = |special| tokenizer().special_id(special).unwrap();
        let ids = tokenizer().encode_template("<|im_start|>user\nhi<|im_end|>");
        assert_eq!(ids.first(), Some(&id("<|im_start|>")));
        assert_eq!(ids.last(), Some(&id("<|im_end|>")));
        assert_eq!(decode(&ids), "user\nhi");
    }

    #[test]
    fn each_of_many_special_tokens_in_a_template_is_found() {
        let id = |special| tokenizer().special_id(special).unwrap();
        let (start, end) = (id("<|im_start|>"), id("<|im_end|>"));
        let a = tokenizer().encode("a");
        for count in [0, 1, 5000] {
            let ids = tokenizer().encode_template(&"<|im_end|>a<|im_start|>".repeat(count));
            let expected = [&[end], a.as_slice(), &[start]].concat().repeat(count);
            assert_eq!(ids, expected);
        }
    }

    #[test]
    fn special_tokens_in_a_text_are_text() {
        for special in ["<fim_middle>", "<|endoftext|>", "<filename>"] {
            let ids = tokenizer().encode(special);
            assert!(ids.len() > 1, "{special} became {ids:?}");
            assert!(!ids.iter().any(|id| tokenizer().special().contains(id)));
            assert_eq!(decode(&ids), special);
            let id = tokenizer().special_id(special).unwrap();
            assert_eq!(tokenizer().bytes(id), b"");
        }
        assert_eq!(tokenizer().special_id("def"), None);
        assert_eq!(tokenizer().bytes(u32::MAX - 1), b"");
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut detokenizer = Detokenizer::default();
        let mut seen = Vec::new();
        for byte in "a😀é".bytes() {
            detokenizer.push(&[byte]);
            seen.push(detokenizer.text().to_owned());
        }
        assert_eq!(seen, ["a", "a", "a", "a", "a😀", "a😀", "a😀é"]);
        detokenizer.push(&[0xF0, 0x9F, b'x', 0xFF, b'y']);
        assert_eq!(detokenizer.text(), "a😀é\u{FFFD}x\u{FFFD}y");
    }

    #[test]
    fn all_tokens_that_fit_a_beginning_are_found() {
        for start in ["r", " return", "\n    ", "\u{e9}", "\u{0}", "no such token"] {
            let start = start.as_bytes();
            let mut found: Vec<u32> = tokenizer().beginning(start).collect();
            found.sort_unstable();
            let fits = |id: &u32| {
                let bytes = tokenizer().bytes(*id);
                !bytes.is_empty() && (bytes.starts_with(start) || start.starts_with(bytes))
            };
            let all: Vec<u32> = (0..tokenizer().len() as u32).filter(fits).collect();
            assert_eq!(found, all, "{start:?}");
        }
    }

    #[test]
    fn an_unusable_file_is_named() {
        let error = Tokenizer::parse(b"{}", &Configuration::default()).unwrap_err();
        assert!(!error.is_empty());
        let error = Tokenizer::load(Path::new("no/tokenizer.json")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no/tokenizer.json is not a tokenizer: ")
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        std::fs::write(path, r#"{"version":"1.0","decoder":{"type":"\ud800"}}"#).unwrap();
        let error = Tokenizer::load(path).unwrap_err().to_string();
        let name = path.display();
        let expected = format!(
            "{name} is not a tokenizer: the tokenizer library panics on it; copy the model folder again"
        );
        assert_eq!(error, expected);
    }

    proptest! {
        #[test]
        fn text_survives_encoding_and_decoding(text in any::<String>()) {
            prop_assert_eq!(decode(&tokenizer().encode(&text)), text);
        }
    }
}
