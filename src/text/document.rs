//! The open documents, as the client sees them.
//!
//! # Order
//!
//! The document notifications (`didOpen`, `didChange`, `didClose`) are a stream: each change is
//! written against the text the one before it left. Their handlers must therefore call [`Documents`]
//! in the order of arrival, before their first await. After an await two handlers may run in either
//! order, and a text that has taken its edits in another order than the client's is wrong from then
//! on, without a sign of it.
//!
//! Everything else reads a [`Snapshot`], which no later change touches.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ropey::Rope;
use tower_lsp::ls_types::{Position, TextDocumentContentChangeEvent, Uri};

use crate::text::position::{self, PositionEncoding};

/// The open documents by their URI.
///
/// Every method takes the lock for a single statement and none is async, so the lock is never held
/// across an await and one method never waits for another for long.
#[derive(Debug, Default)]
pub struct Documents {
    documents: Mutex<HashMap<Uri, Document>>,
}

impl Documents {
    /// No document is open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a document, or takes the new text for one that is open already: what the client says
    /// last is what it shows.
    pub fn open(&self, uri: Uri, language_id: String, version: i32, text: &str) {
        let document = Document::new(language_id, version, text);
        self.lock().insert(uri, document);
    }

    /// Applies the changes in the order given, each to the text that the one before it left.
    ///
    /// The change is applied whatever it says, because a text that skips an edit is out of step with
    /// the client's for good:
    ///
    /// - A position outside the text is clamped as [`position::offset`] does.
    /// - A range whose end comes before its start is taken the other way round.
    /// - A version lower than the last is taken all the same: the stream is ordered, the number only
    ///   describes it.
    ///
    /// The last two are logged, for they mean that the client is wrong about something.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NotOpen`] if there is no text to change.
    pub fn change(
        &self,
        uri: &Uri,
        version: i32,
        changes: Vec<TextDocumentContentChangeEvent>,
        encoding: PositionEncoding,
    ) -> Result<(), ChangeError> {
        self.lock()
            .get_mut(uri)
            .ok_or_else(|| ChangeError::NotOpen(uri.clone()))?
            .change(uri, version, changes, encoding);
        Ok(())
    }

    /// Forgets a document and says whether it was open. Snapshots of it live on.
    pub fn close(&self, uri: &Uri) -> bool {
        self.lock().remove(uri).is_some()
    }

    /// The document as it is now, with the offset of `position` in it, or nothing if it is not open.
    #[must_use]
    pub fn snapshot(
        &self,
        uri: &Uri,
        position: Position,
        encoding: PositionEncoding,
    ) -> Option<Snapshot> {
        // Only the clone, which is O(1), is made under the lock.
        let Document {
            rope,
            version,
            language_id,
            ..
        } = self.lock().get(uri).cloned()?;
        Some(Snapshot {
            uri: uri.clone(),
            version,
            language_id,
            offset: position::offset(&rope, position, encoding),
            rope,
        })
    }

    /// The version of a document, or nothing if it is not open.
    #[must_use]
    pub fn version(&self, uri: &Uri) -> Option<i32> {
        self.lock().get(uri).map(|document| document.version)
    }

    /// The whole text of a document, or nothing if it is not open. Costs no copy.
    #[must_use]
    pub fn text(&self, uri: &Uri) -> Option<Rope> {
        self.lock().get(uri).map(|document| document.rope.clone())
    }

    /// A panic elsewhere under the lock must not take every document with it, so a poisoned lock is
    /// as good as any: at worst one text is out of step until it is opened again.
    fn lock(&self) -> MutexGuard<'_, HashMap<Uri, Document>> {
        self.documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open document: its text at its latest version.
#[derive(Debug, Clone)]
pub struct Document {
    rope: Rope,
    version: i32,
    language_id: Arc<str>,
    /// Whether an inverted range has been logged: a client that sends one sends many.
    warned: bool,
}

impl Document {
    fn new(language_id: String, version: i32, text: &str) -> Self {
        Self {
            rope: Rope::from_str(text),
            version,
            language_id: language_id.into(),
            warned: false,
        }
    }

    fn change(
        &mut self,
        uri: &Uri,
        version: i32,
        changes: Vec<TextDocumentContentChangeEvent>,
        encoding: PositionEncoding,
    ) {
        if version < self.version {
            tracing::warn!(
                uri = uri.as_str(),
                from = self.version,
                to = version,
                "the version of a document went backwards"
            );
        }
        self.version = version;
        for change in changes {
            self.apply(uri, &change, encoding);
        }
    }

    /// `range_length` goes unread: it is deprecated, and says nothing that the range does not.
    fn apply(
        &mut self,
        uri: &Uri,
        change: &TextDocumentContentChangeEvent,
        encoding: PositionEncoding,
    ) {
        let Some(range) = change.range else {
            self.rope = Rope::from_str(&change.text);
            return;
        };
        let mut start = position::offset(&self.rope, range.start, encoding);
        let mut end = position::offset(&self.rope, range.end, encoding);
        if start > end {
            std::mem::swap(&mut start, &mut end);
            if !self.warned {
                self.warned = true;
                tracing::warn!(
                    uri = uri.as_str(),
                    ?range,
                    "the range of a change ends before it starts"
                );
            }
        }
        // The rope panics on an index past its end, and `position::offset` gives none.
        let start = self.rope.byte_to_char(start);
        let end = self.rope.byte_to_char(end);
        self.rope.remove(start..end);
        self.rope.insert(start, &change.text);
    }
}

/// A document at one moment and a place in it, untouched by what happens to the document later.
///
/// A clone costs little: the text is shared, not copied.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The document this is a snapshot of.
    pub uri: Uri,
    /// The version the document had.
    pub version: i32,
    /// The language the client opened the document as.
    pub language_id: Arc<str>,
    /// The text.
    pub rope: Rope,
    /// The place asked for, a byte offset into `rope`: at most its length, on a char boundary and
    /// not inside a `\r\n`.
    pub offset: usize,
}

impl Snapshot {
    /// The path the document has or would have, as far as its URI tells.
    #[must_use]
    pub fn path(&self) -> Cow<'_, Path> {
        self.uri.to_file_path().unwrap_or_default()
    }

    /// The snapshot with `text` in place of the bytes from `start` to the offset, and the offset
    /// behind it.
    #[must_use]
    pub fn with(mut self, start: usize, text: &str) -> Self {
        let start = start.min(self.offset);
        let chars = self.rope.byte_to_char(start)..self.rope.byte_to_char(self.offset);
        self.rope.remove(chars.clone());
        self.rope.insert(chars.start, text);
        self.offset = start + text.len();
        self
    }
}

/// The base name that a document's URI gives it.
#[must_use]
pub fn file_name(uri: &Uri) -> String {
    let path = uri.to_file_path().unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Why a change was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The client changed a document it had not opened, or had closed.
    #[error("cannot change {}, which is not open", .0.as_str())]
    NotOpen(Uri),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tower_lsp::ls_types::Range;

    use super::*;
    use crate::text::position::naive::{self, ENCODINGS};

    fn uri(name: &str) -> Uri {
        format!("file:///{name}").parse().unwrap()
    }

    fn open(text: &str) -> (Documents, Uri) {
        let documents = Documents::new();
        let uri = uri("a.rs");
        documents.open(uri.clone(), "rust".to_owned(), 1, text);
        (documents, uri)
    }

    fn snapshot(documents: &Documents, uri: &Uri) -> Snapshot {
        let start = Position::new(0, 0);
        documents
            .snapshot(uri, start, PositionEncoding::Utf16)
            .unwrap()
    }

    fn text(documents: &Documents, uri: &Uri) -> String {
        snapshot(documents, uri).rope.to_string()
    }

    fn event(range: Option<Range>, text: &str) -> TextDocumentContentChangeEvent {
        TextDocumentContentChangeEvent {
            range,
            range_length: None,
            text: text.to_owned(),
        }
    }

    /// `edits![(0, 4; 0, 8) => "new", "the whole text"]`: line and character of the start, then of
    /// the end.
    macro_rules! edits {
        ($($(($l1:expr, $c1:expr; $l2:expr, $c2:expr) =>)? $text:literal),* $(,)?) => {
            vec![$(event(
                None$(.or(Some(Range::new(Position::new($l1, $c1), Position::new($l2, $c2)))))?,
                $text,
            )),*]
        };
    }

    /// Applies edits to one document, a notification at a time, and says what it holds after each.
    macro_rules! story {
        ($encoding:ident, $text:expr, $([$($edits:tt)*] => $expected:expr),* $(,)?) => {{
            let (documents, uri) = open($text);
            let mut version = 1;
            $(
                version += 1;
                let edits = edits![$($edits)*];
                documents.change(&uri, version, edits, PositionEncoding::$encoding).unwrap();
                assert_eq!(text(&documents, &uri), $expected);
                assert_eq!(documents.version(&uri), Some(version));
            )*
        }};
    }

    #[test]
    fn grows_with_its_edits() {
        story!(Utf16, "",
            [] => "",
            ["the"] => "the",
            [(0, 3; 0, 3) => " quick"] => "the quick",
            [(0, 0; 0, 4) => "", (0, 5; 0, 5) => " foxes"] => "quick foxes",
            [(0, 11; 0, 11) => "\ndream"] => "quick foxes\ndream",
            [(1, 0; 1, 0) => "have "] => "quick foxes\nhave dream",
            [
                (0, 0; 0, 0) => "the ",
                (1, 4; 1, 4) => " quiet",
                (1, 16; 1, 16) => "s\n",
            ] => "the quick foxes\nhave quiet dreams\n",
            [(2, 0; 2, 0) => "\n", (3, 0; 3, 0) => "\n\n"]
                => "the quick foxes\nhave quiet dreams\n\n\n\n",
            [(0, 0; 5, 0) => ""] => "",
            ["a", (0, 1; 0, 1) => "b", "c", (0, 1; 0, 1) => "d"] => "cd",
        );
    }

    #[test]
    fn edits_between_and_inside_chars() {
        story!(Utf16, "❤️😀漢",
            [(0, 2; 0, 4) => ""] => "❤️漢",
            [(0, 1; 0, 2) => ""] => "❤漢",
            [(0, 1; 0, 1) => "👩‍👧"] => "❤👩‍👧漢",
            // From inside one emoji to inside the other: the first goes, the second stays.
            [(0, 2; 0, 5) => "x"] => "❤x👧漢",
        );
        story!(Utf8, "é漢😀",
            [(0, 1; 0, 4) => ""] => "漢😀",
            [(0, 3; 0, 7) => "é"] => "漢é",
        );
        story!(Utf32, "é漢😀",
            [(0, 1; 0, 2) => ""] => "é😀",
            [(0, 2; 0, 2) => "!"] => "é😀!",
        );
    }

    #[test]
    fn joins_and_splits_line_ends() {
        story!(Utf16, "a\r\nb",
            // The place between the two cannot be named, so this lands before both.
            [(0, 2; 0, 2) => "x"] => "ax\r\nb",
            // A lone `\r` before a `\r\n`, then the whole pair gone.
            [(0, 2; 0, 2) => "\r"] => "ax\r\r\nb",
            [(1, 0; 2, 0) => ""] => "ax\rb",
            // The `\n` that makes a pair of the `\r`.
            [(1, 0; 1, 0) => "\n"] => "ax\r\nb",
            [(1, 1; 1, 1) => "!"] => "ax\r\nb!",
            // The other half, put before a `\n`.
            ["a\nb"] => "a\nb",
            [(0, 1; 0, 1) => "\r"] => "a\r\nb",
            [(1, 0; 1, 0) => "c"] => "a\r\ncb",
            // The text between a `\r` and a `\n` goes, and they become one.
            ["1\r2\n3"] => "1\r2\n3",
            [(1, 0; 1, 1) => ""] => "1\r\n3",
            [(1, 0; 1, 1) => "4"] => "1\r\n4",
        );
        // Over and over at the edges of the rope's leaves.
        let (documents, uri) = open(&"\r".repeat(5_000));
        for line in (0..5_000).rev() {
            // Behind each `\r`, from the last to the first.
            let edit = edits![(line + 1, 0; line + 1, 0) => "\n"];
            documents
                .change(&uri, 2, edit, PositionEncoding::Utf16)
                .unwrap();
        }
        assert_eq!(text(&documents, &uri), "\r\n".repeat(5_000));
        let end = documents.snapshot(&uri, Position::new(5_000, 0), PositionEncoding::Utf16);
        assert_eq!(end.unwrap().offset, 10_000);
    }

    #[test]
    fn clamps_and_swaps_what_is_out_of_range() {
        story!(Utf16, "ab\ncd",
            [(0, 9; 0, 9) => "!"] => "ab!\ncd",
            [(9, 9; 9, 9) => "?"] => "ab!\ncd?",
            [(0, u32::MAX; u32::MAX, u32::MAX) => ""] => "ab!",
            [(0, 2; 0, 1) => "-"] => "a-!",
            [(9, 0; 0, 0) => "\n"] => "\n",
            [(1, 7; 0, 0) => "end"] => "end",
        );
    }

    #[test]
    fn applies_an_edit_whose_version_goes_backwards() {
        let (documents, uri) = open("a");
        for (version, expected) in [(7, "ba"), (3, "bba"), (3, "bbba"), (i32::MIN, "bbbba")] {
            let edit = edits![(0, 0; 0, 0) => "b"];
            documents
                .change(&uri, version, edit, PositionEncoding::Utf8)
                .unwrap();
            assert_eq!(text(&documents, &uri), expected);
            assert_eq!(documents.version(&uri), Some(version));
        }
    }

    #[test]
    fn knows_only_open_documents() {
        let (documents, a) = open("a");
        let b = uri("b.rs");
        let start = Position::new(0, 0);
        let error = documents.change(&b, 2, edits!["x"], PositionEncoding::Utf8);
        let error = error.unwrap_err();
        assert_eq!(error, ChangeError::NotOpen(b.clone()));
        assert_eq!(
            error.to_string(),
            "cannot change file:///b.rs, which is not open"
        );
        assert_eq!(documents.version(&b), None);
        assert!(
            documents
                .snapshot(&b, start, PositionEncoding::Utf8)
                .is_none()
        );
        assert!(!documents.close(&b));

        documents.open(b.clone(), "toml".to_owned(), 5, "b");
        assert_eq!(documents.version(&b), Some(5));
        assert_eq!(text(&documents, &a), "a");

        assert!(documents.close(&a));
        assert!(!documents.close(&a));
        assert_eq!(documents.version(&a), None);
        assert_eq!(text(&documents, &b), "b");

        // Opened twice, and opened again once closed.
        documents.open(b.clone(), "toml".to_owned(), 1, "c");
        documents.open(a.clone(), "rust".to_owned(), 9, "d");
        assert_eq!(text(&documents, &b), "c");
        assert_eq!(documents.version(&b), Some(1));
        assert_eq!(text(&documents, &a), "d");
    }

    #[test]
    fn a_snapshot_outlives_what_it_was_taken_of() {
        let (documents, uri) = open("x😀y");
        let snapshot = documents
            .snapshot(&uri, Position::new(0, 3), PositionEncoding::Utf16)
            .unwrap();
        documents
            .change(&uri, 2, edits!["gone"], PositionEncoding::Utf16)
            .unwrap();
        documents.close(&uri);

        assert_eq!(snapshot.uri, uri);
        assert_eq!(snapshot.version, 1);
        assert_eq!(&*snapshot.language_id, "rust");
        assert_eq!(snapshot.rope, "x😀y");
        assert_eq!(snapshot.offset, 5);
    }

    #[test]
    fn survives_a_poisoned_lock() {
        let (documents, uri) = open("a");
        std::thread::scope(|scope| {
            let panicked = scope
                .spawn(|| {
                    let _guard = documents.lock();
                    panic!("on purpose, under the lock");
                })
                .join();
            assert!(panicked.is_err());
        });
        assert!(documents.documents.is_poisoned());
        documents
            .change(&uri, 2, edits!["b"], PositionEncoding::Utf16)
            .unwrap();
        assert_eq!(text(&documents, &uri), "b");
    }

    #[test]
    fn edits_a_large_text_and_a_long_line() {
        fn check(text: String, position: Position, at: usize) {
            for encoding in ENCODINGS {
                let (documents, uri) = open(&text);
                let edit = vec![event(Some(Range::new(position, position)), "!")];
                documents.change(&uri, 2, edit, encoding).unwrap();
                let snapshot = documents.snapshot(&uri, position, encoding).unwrap();
                assert_eq!(snapshot.offset, at);
                assert_eq!(snapshot.rope.len_bytes(), text.len() + 1);
                assert!(snapshot.rope.byte_slice(..at) == text[..at]);
                assert!(snapshot.rope.byte_slice(at..=at) == "!");
                assert!(snapshot.rope.byte_slice(at + 1..) == text[at..]);
            }
        }

        // 20 MB in lines of twenty bytes.
        let text = "let x = 1; // 漢字\r\n".repeat(1 << 20);
        assert_eq!(text.len(), 22 << 20);
        check(text, Position::new(700_000, 3), 22 * 700_000 + 3);
        // 1 MB in one line.
        check("x".repeat(1 << 20), Position::new(0, 700_000), 700_000);
    }

    /// A change of one document, as the client would send it.
    fn change() -> impl Strategy<Value = TextDocumentContentChangeEvent> {
        let range = (naive::position(), naive::position());
        let range = range.prop_map(|(start, end)| Range::new(start, end));
        (prop::option::weighted(0.95, range), naive::text(0..6))
            .prop_map(|(range, text)| event(range, &text))
    }

    fn apply_naively(
        text: &mut String,
        change: &TextDocumentContentChangeEvent,
        encoding: PositionEncoding,
    ) {
        match change.range {
            None => text.clone_from(&change.text),
            Some(range) => {
                let start = naive::offset(text, range.start, encoding);
                let end = naive::offset(text, range.end, encoding);
                text.replace_range(start.min(end)..start.max(end), &change.text);
            }
        }
    }

    fn check_against_reference(
        start: &str,
        changes: &[TextDocumentContentChangeEvent],
        encoding: PositionEncoding,
    ) {
        let (documents, uri) = open(start);
        let mut expected = start.to_owned();
        for change in changes {
            apply_naively(&mut expected, change, encoding);
            documents
                .change(&uri, 1, vec![change.clone()], encoding)
                .unwrap();
            assert_eq!(text(&documents, &uri), expected);
        }
        // The edited rope knows where each line starts and ends; what lies between the two is for
        // the tests of the conversion itself.
        let rope = snapshot(&documents, &uri).rope;
        for (line, (start, content)) in naive::lines(&expected).into_iter().enumerate() {
            let units: u64 = content.chars().map(|it| naive::units(it, encoding)).sum();
            for (character, offset) in [(0, start), (units, start + content.len())] {
                let position = Position::new(line as u32, character as u32);
                assert_eq!(position::offset(&rope, position, encoding), offset);
                assert_eq!(position::position(&rope, offset, encoding), position);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn agrees_with_the_reference(
            start in naive::text(0..16),
            changes in prop::collection::vec(change(), 1..5),
        ) {
            for encoding in ENCODINGS {
                check_against_reference(&start, &changes, encoding);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        /// The same, where the rope has several leaves and the edits fall on their edges.
        #[test]
        fn agrees_with_the_reference_in_a_long_text(
            start in naive::text(1..6),
            changes in prop::collection::vec((0..900u32, 0..40u32, change()), 1..6),
        ) {
            let start = start.repeat(200);
            let changes: Vec<_> = changes
                .into_iter()
                .map(|(line, lines, mut change)| {
                    change.range = change.range.map(|Range { mut start, mut end }| {
                        start.line = start.line.saturating_add(line);
                        end.line = end.line.saturating_add(line + lines);
                        Range::new(start, end)
                    });
                    change
                })
                .collect();
            for encoding in ENCODINGS {
                check_against_reference(&start, &changes, encoding);
            }
        }
    }
}
