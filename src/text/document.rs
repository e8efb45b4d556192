//! The open documents, as the client sees them.
//!
//! # Order
//!
//! The document notifications (`didOpen`, `didChange`, `didClose`) are a stream: each change
//! applies to the text that the one before it left. Their handlers must therefore call
//! [`Documents`] in the order of arrival, before their first await. After an await, two handlers
//! may run in either order, and a text whose edits were applied in the wrong order stays wrong,
//! with nothing to show it.
//!
//! Everything else reads a [`Snapshot`], which later changes do not affect.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ropey::Rope;

use crate::text::notebook::{self, CellsChange, Notebooks, Other, Others};
use crate::text::position::{self, Position, PositionEncoding};

/// The open documents by their URI, and the notebooks that some are cells of.
///
/// Every method holds the lock for a change or a few clones and none is async, so the lock is never
/// held across an await and no method waits long for another.
#[derive(Debug, Default)]
pub struct Documents {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    documents: HashMap<Arc<str>, Document>,
    notebooks: Notebooks,
}

impl Documents {
    /// Makes a set without open documents.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a document. If it is open already, the new text replaces the old, because the client
    /// shows what it sent last. `path` is the path that the document has or would have; it is empty
    /// if the URI gives none.
    pub fn open(&self, uri: &str, path: PathBuf, language_id: String, version: i32, text: &str) {
        let document = Document::new(uri, path, language_id, version, text);
        self.lock().documents.insert(document.uri.clone(), document);
    }

    /// Changes the cells of a notebook, whose path is `path`. Their texts are documents.
    pub fn change_cells(&self, notebook: &str, path: &Path, change: CellsChange) {
        self.lock().notebooks.change(notebook, path, change);
    }

    /// Applies the changes in the given order, each to the text that the one before it left.
    ///
    /// A change is always applied, because a text that misses an edit stays out of step with the
    /// client's:
    ///
    /// - A position outside the text is clamped as [`position::offset`] does.
    /// - A range whose end comes before its start is reversed.
    /// - A position inside a surrogate pair splits the pair, as in the client's text. Each half
    ///   appears as U+FFFD until the other half joins it.
    /// - A version lower than the last is accepted: the stream is ordered, and the number only
    ///   describes it.
    ///
    /// Reversed ranges and lower versions are logged, because they mean that the client is wrong
    /// about something.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NotOpen`] if there is no text to change.
    pub fn change(
        &self,
        uri: &str,
        version: i32,
        changes: Vec<Change>,
        encoding: PositionEncoding,
    ) -> Result<(), ChangeError> {
        self.lock()
            .documents
            .get_mut(uri)
            .ok_or_else(|| ChangeError::NotOpen(uri.to_owned()))?
            .change(version, changes, encoding);
        Ok(())
    }

    /// Marks a document as out of step with the client's text, because one of its changes was lost.
    /// It is in step again once the client sends the whole text. Returns the document's path, or
    /// `None` if it is not open.
    pub fn lose_step(&self, uri: &str) -> Option<Arc<Path>> {
        let mut open = self.lock();
        let document = open.documents.get_mut(uri)?;
        document.out_of_step = true;
        document.revision = next_revision();
        Some(document.path.clone())
    }

    /// The URIs of the open documents.
    #[must_use]
    pub fn uris(&self) -> Vec<Arc<str>> {
        self.lock().documents.keys().cloned().collect()
    }

    /// Removes a document and returns whether it was open. Its snapshots stay valid.
    pub fn close(&self, uri: &str) -> bool {
        self.lock().documents.remove(uri).is_some()
    }

    /// The document as it is now, with the offset of `position` in it, or `None` if it is not open.
    #[must_use]
    pub fn snapshot(
        &self,
        uri: &str,
        position: Position,
        encoding: PositionEncoding,
    ) -> Option<Snapshot> {
        // Only clones, each of which is O(1), are made under the lock.
        let (document, notebook) = {
            let open = self.lock();
            let document = open.documents.get(uri)?;
            (document.clone(), open.around(document))
        };
        let Document {
            uri,
            path,
            rope,
            version,
            revision,
            language_id,
            out_of_step,
            ..
        } = document;
        let (path, others) = match notebook {
            Some((path, others)) => (path, Some(others)),
            None => (path, None),
        };
        Some(Snapshot {
            uri,
            path,
            version,
            revision,
            language_id,
            out_of_step,
            offset: position::offset(&rope, position, encoding),
            rope,
            others,
        })
    }

    /// The revision of a document, or `None` if it is not open. It equals [`Snapshot::revision`] as
    /// long as the client has not touched the document since the snapshot was taken.
    #[must_use]
    pub fn revision(&self, uri: &str) -> Option<u64> {
        self.lock()
            .documents
            .get(uri)
            .map(|document| document.revision)
    }

    /// The whole text of a document, or `None` if it is not open. Nothing is copied.
    #[must_use]
    pub fn text(&self, uri: &str) -> Option<Rope> {
        self.lock()
            .documents
            .get(uri)
            .map(|document| document.rope.clone())
    }

    /// A panic elsewhere under the lock must not make every document inaccessible, so poisoning is
    /// ignored: at worst, one text is out of step until it is opened again.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The path of the notebook that a document is a cell of, and the notebook's other cells.
    fn around(&self, document: &Document) -> Option<(Arc<Path>, Others)> {
        let uri = &*document.uri;
        // Each cell with whether it is code.
        let (path, cells) = if let Some((path, cells)) = self.notebooks.of_cell(uri) {
            let cells = cells.iter();
            let cells = cells
                .filter_map(|cell| Some((self.documents.get(cell.uri.as_str())?, cell.is_code)));
            (path, cells.collect())
        } else {
            let notebook = notebook::common_uri(uri)?;
            let all = self.documents.values();
            let cells = all.filter(|cell| notebook::common_uri(&cell.uri) == Some(notebook));
            let mut cells: Vec<_> = cells.map(|cell| (cell, cell.is_code())).collect();
            cells.sort_by_key(|(cell, _)| cell.opened);
            (document.path.clone(), cells)
        };
        let at = cells.iter().position(|(cell, _)| *cell.uri == *uri)?;
        let others = |cells: &[(&Document, bool)]| {
            let in_step = cells.iter().filter(|(cell, _)| !cell.out_of_step);
            let others = in_step.map(|(cell, is_code)| Other {
                rope: cell.rope.clone(),
                language_id: cell.language_id.clone(),
                is_code: *is_code,
            });
            others.collect()
        };
        let others = Others {
            is_code: cells[at].1,
            before: others(&cells[..at]),
            after: others(&cells[at + 1..]),
        };
        Some((path, others))
    }
}

/// One edit of a text.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is replaced; without a range, the whole text.
    pub range: Option<Range<Position>>,
    /// The new text.
    pub text: String,
    /// Halves of surrogate pairs, which appear as U+FFFD in the text: their byte offsets,
    /// ascending, and the UTF-16 units.
    pub halves: Vec<(usize, u16)>,
}

/// An open document: its text at its latest version.
#[derive(Debug, Clone)]
struct Document {
    uri: Arc<str>,
    path: Arc<Path>,
    rope: Rope,
    version: i32,
    revision: u64,
    language_id: Arc<str>,
    /// The revision at which it was opened.
    opened: u64,
    /// Halves of surrogate pairs, as in [`Change::halves`]. Nearly always there are none.
    halves: Vec<(usize, u16)>,
    /// Whether a change was lost.
    out_of_step: bool,
    /// Whether a reversed range has been logged: a client that sends one sends many.
    warned: bool,
}

/// A number that no earlier state of any document in this process had.
fn next_revision() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

impl Document {
    fn new(uri: &str, path: PathBuf, language_id: String, version: i32, text: &str) -> Self {
        let revision = next_revision();
        Self {
            uri: uri.into(),
            path: path.into(),
            rope: Rope::from_str(text),
            version,
            revision,
            language_id: language_id.into(),
            opened: revision,
            halves: Vec::new(),
            out_of_step: false,
            warned: false,
        }
    }

    /// Whether a cell is code, by its language.
    fn is_code(&self) -> bool {
        *self.language_id != *"markdown"
    }

    fn change(&mut self, version: i32, changes: Vec<Change>, encoding: PositionEncoding) {
        if version < self.version {
            tracing::warn!(
                uri = &*self.uri,
                from = self.version,
                to = version,
                "the version of a document went backwards"
            );
        }
        self.version = version;
        self.revision = next_revision();
        for change in changes {
            self.apply(change, encoding);
        }
    }

    fn apply(&mut self, change: Change, encoding: PositionEncoding) {
        let Some(range) = change.range else {
            self.rope = Rope::from_str(&change.text);
            self.halves = change.halves;
            self.join_halves();
            self.out_of_step = false;
            return;
        };
        if encoding == PositionEncoding::Utf16 {
            self.cut_pair(range.start);
            self.cut_pair(range.end);
        }
        let mut start = position::offset(&self.rope, range.start, encoding);
        let mut end = position::offset(&self.rope, range.end, encoding);
        if start > end {
            std::mem::swap(&mut start, &mut end);
            if !self.warned {
                self.warned = true;
                tracing::warn!(
                    uri = &*self.uri,
                    ?range,
                    "the range of a change ends before it starts"
                );
            }
        }
        self.replace(start..end, &change.text, &change.halves);
        self.join_halves();
    }

    /// Replaces bytes of the text, on char boundaries.
    fn replace(&mut self, range: Range<usize>, text: &str, halves: &[(usize, u16)]) {
        // The rope panics on an index past its end, and `position::offset` returns none.
        let start = self.rope.byte_to_char(range.start);
        let end = self.rope.byte_to_char(range.end);
        self.rope.remove(start..end);
        self.rope.insert(start, text);
        if self.halves.is_empty() && halves.is_empty() {
            return;
        }
        let before = self.halves.iter().filter(|(at, _)| *at < range.start);
        let new = halves.iter().map(|&(at, unit)| (range.start + at, unit));
        let after = self.halves.iter().filter(|(at, _)| *at >= range.end);
        let after = after.map(|&(at, unit)| (at - range.end + range.start + text.len(), unit));
        self.halves = before.copied().chain(new).chain(after).collect();
    }

    /// Splits the surrogate pair that a position falls inside, if there is one.
    fn cut_pair(&mut self, position: Position) {
        let Some(at) = position::inside_pair(&self.rope, position) else {
            return;
        };
        let char = self.rope.char(self.rope.byte_to_char(at));
        let mut units = [0; 2];
        char.encode_utf16(&mut units);
        let halves = [(0, units[0]), (HALF.len(), units[1])];
        self.replace(at..at + char.len_utf8(), &HALF.repeat(2), &halves);
    }

    /// Joins halves that have become adjacent into chars.
    fn join_halves(&mut self) {
        let mut index = 1;
        while index < self.halves.len() {
            let [(high_at, high), (low_at, low)] = [self.halves[index - 1], self.halves[index]];
            let mut decoded = char::decode_utf16([high, low]);
            match decoded.next() {
                Some(Ok(char)) if high_at + HALF.len() == low_at => {
                    let pair = high_at..low_at + HALF.len();
                    self.replace(pair, char.encode_utf8(&mut [0; 4]), &[]);
                }
                _ => index += 1,
            }
        }
    }
}

/// Represents half of a surrogate pair in the text. Like the half, it is one UTF-16 unit, so that
/// positions stay valid.
const HALF: &str = "\u{fffd}";

/// A document at one moment, and a place in it. Later changes to the document do not affect it.
///
/// A clone is cheap: the text is shared, not copied.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The document this is a snapshot of.
    pub uri: Arc<str>,
    /// The path that the document has or would have; empty if its URI gives none. A cell has that of
    /// its notebook.
    pub path: Arc<Path>,
    /// The document's version, as the client counts.
    pub version: i32,
    /// Identifies the document's state. No two states of any document share a revision. A client's
    /// versions do not guarantee that: a document that is opened again may start counting anew.
    pub revision: u64,
    /// The language the client opened the document as.
    pub language_id: Arc<str>,
    /// Whether a change was lost, so that the text differs from the client's.
    pub out_of_step: bool,
    /// The text.
    pub rope: Rope,
    /// The other cells, if the document is a cell of a notebook.
    pub others: Option<Others>,
    /// The requested place, a byte offset into `rope`: at most its length, on a char boundary and
    /// not inside a `\r\n`.
    pub offset: usize,
}

impl Snapshot {
    /// The document's base name.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name(&self.path)
    }

    /// The snapshot with the bytes from `start` to the offset replaced by `text`, and the offset
    /// after it.
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

/// The base name of a document's path; empty if it has none.
#[must_use]
pub fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Why a change was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The client changed a document it had not opened, or had closed.
    #[error("cannot change {0}, which is not open")]
    NotOpen(String),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::position::naive::{self, ENCODINGS};

    const A: &str = "file:///a.rs";

    fn open_as(documents: &Documents, uri: &str, language_id: &str, version: i32, text: &str) {
        let path = uri.trim_start_matches("file://").into();
        documents.open(uri, path, language_id.to_owned(), version, text);
    }

    fn open(text: &str) -> Documents {
        let documents = Documents::new();
        open_as(&documents, A, "rust", 1, text);
        documents
    }

    fn snapshot(documents: &Documents, uri: &str) -> Snapshot {
        let start = Position::new(0, 0);
        documents
            .snapshot(uri, start, PositionEncoding::Utf16)
            .unwrap()
    }

    fn text(documents: &Documents, uri: &str) -> String {
        snapshot(documents, uri).rope.to_string()
    }

    fn event(range: Option<Range<Position>>, text: &str) -> Change {
        Change {
            range,
            text: text.to_owned(),
            halves: Vec::new(),
        }
    }

    /// `edits![(0, 4; 0, 8) => "new", "the whole text"]`: line and character of the start, then of
    /// the end.
    macro_rules! edits {
        ($($(($l1:expr, $c1:expr; $l2:expr, $c2:expr) =>)? $text:literal),* $(,)?) => {
            vec![$(event(
                None$(.or(Some(Position::new($l1, $c1)..Position::new($l2, $c2))))?,
                $text,
            )),*]
        };
    }

    /// Applies edits to one document, a notification at a time, and checks its text after each.
    macro_rules! story {
        ($encoding:ident, $text:expr, $([$($edits:tt)*] => $expected:expr),* $(,)?) => {{
            let documents = open($text);
            let mut version = 1;
            $(
                version += 1;
                let edits = edits![$($edits)*];
                documents.change(A, version, edits, PositionEncoding::$encoding).unwrap();
                assert_eq!(text(&documents, A), $expected);
                assert_eq!(snapshot(&documents, A).version, version);
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
            // From inside one emoji to inside the other: what is left of them is one emoji in the
            // end.
            [(0, 2; 0, 5) => "x"] => "❤\u{fffd}x\u{fffd}漢",
            [(0, 2; 0, 3) => ""] => "❤👧漢",
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
    fn halves_of_pairs_that_meet_are_joined() {
        let documents = open("x = \"😀\"");
        let check = |from: u32, to: u32, units: &[u16], expected: &str| {
            let mut change = event(Some(Position::new(0, from)..Position::new(0, to)), "");
            for unit in char::decode_utf16(units.iter().copied()) {
                match unit {
                    Ok(char) => change.text.push(char),
                    Err(half) => {
                        let at = change.text.len();
                        change.halves.push((at, half.unpaired_surrogate()));
                        change.text.push('\u{fffd}');
                    }
                }
            }
            documents
                .change(A, 2, vec![change], PositionEncoding::Utf16)
                .unwrap();
            assert_eq!(text(&documents, A), expected);
        };
        // 😀 is D83D DE00; an editor that compares units changes only the second one.
        check(6, 7, &[0xde01], "x = \"😁\"");
        check(5, 6, &[], "x = \"\u{fffd}\"");
        check(5, 5, &[0xd83d], "x = \"😁\"");
        check(6, 7, &[], "x = \"\u{fffd}\"");
        check(0, 0, &[0xe9, 0xde01], "é\u{fffd}x = \"\u{fffd}\"");
        check(8, 8, &[0xde00, 0xd83d], "é\u{fffd}x = \"😀\u{fffd}\"");
        check(2, 7, &[], "é\u{fffd}😀\u{fffd}\"");
        // In the wrong order, or two of a kind, they stay halves.
        check(2, 4, &[], "é\u{fffd}\u{fffd}\"");
        check(1, 1, &[0xd83d], "é😁\u{fffd}\"");
        check(1, 1, &[0xd83d, 0xd83d], "é\u{fffd}\u{fffd}😁\u{fffd}\"");
    }

    #[test]
    fn a_lost_change_marks_the_document_until_the_whole_text_comes() {
        let documents = open("a");
        let before = documents.revision(A);
        assert_eq!(documents.lose_step(A).as_deref(), Some(Path::new("/a.rs")));
        assert_eq!(documents.lose_step("file:///b.rs"), None);
        assert_ne!(documents.revision(A), before);
        let check = |edits: Vec<Change>, expected: bool| {
            documents
                .change(A, 2, edits, PositionEncoding::Utf16)
                .unwrap();
            assert_eq!(snapshot(&documents, A).out_of_step, expected);
        };
        check(edits![(0, 0; 0, 0) => "b"], true);
        check(edits![], true);
        check(edits!["c", (0, 0; 0, 0) => "b"], false);
        documents.lose_step(A);
        open_as(&documents, A, "rust", 3, "a");
        assert!(!snapshot(&documents, A).out_of_step);
    }

    #[test]
    fn joins_and_splits_line_ends() {
        story!(Utf16, "a\r\nb",
            // No position is between the two, so this goes before both.
            [(0, 2; 0, 2) => "x"] => "ax\r\nb",
            // A lone `\r` before a `\r\n`, then the whole pair is removed.
            [(0, 2; 0, 2) => "\r"] => "ax\r\r\nb",
            [(1, 0; 2, 0) => ""] => "ax\rb",
            // The `\n` that makes a pair with the `\r`.
            [(1, 0; 1, 0) => "\n"] => "ax\r\nb",
            [(1, 1; 1, 1) => "!"] => "ax\r\nb!",
            // A `\r` inserted before a `\n`.
            ["a\nb"] => "a\nb",
            [(0, 1; 0, 1) => "\r"] => "a\r\nb",
            [(1, 0; 1, 0) => "c"] => "a\r\ncb",
            // The text between a `\r` and a `\n` is removed, and they become one line end.
            ["1\r2\n3"] => "1\r2\n3",
            [(1, 0; 1, 1) => ""] => "1\r\n3",
            [(1, 0; 1, 1) => "4"] => "1\r\n4",
        );
        // Many times, so that some fall on the edges of the rope's leaves.
        let documents = open(&"\r".repeat(5_000));
        for line in (0..5_000).rev() {
            // After each `\r`, from the last to the first.
            let edit = edits![(line + 1, 0; line + 1, 0) => "\n"];
            documents
                .change(A, 2, edit, PositionEncoding::Utf16)
                .unwrap();
        }
        assert_eq!(text(&documents, A), "\r\n".repeat(5_000));
        let end = documents.snapshot(A, Position::new(5_000, 0), PositionEncoding::Utf16);
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
        let documents = open("a");
        for (version, expected) in [(7, "ba"), (3, "bba"), (3, "bbba"), (i32::MIN, "bbbba")] {
            let edit = edits![(0, 0; 0, 0) => "b"];
            documents
                .change(A, version, edit, PositionEncoding::Utf8)
                .unwrap();
            assert_eq!(text(&documents, A), expected);
            assert_eq!(snapshot(&documents, A).version, version);
        }
    }

    #[test]
    fn knows_only_open_documents() {
        let documents = open("a");
        let b = "file:///b.rs";
        let start = Position::new(0, 0);
        let error = documents.change(b, 2, edits!["x"], PositionEncoding::Utf8);
        let error = error.unwrap_err();
        assert_eq!(error, ChangeError::NotOpen(b.to_owned()));
        assert_eq!(
            error.to_string(),
            "cannot change file:///b.rs, which is not open"
        );
        assert_eq!(documents.revision(b), None);
        assert!(
            documents
                .snapshot(b, start, PositionEncoding::Utf8)
                .is_none()
        );
        assert!(!documents.close(b));

        open_as(&documents, b, "toml", 5, "b");
        assert_eq!(snapshot(&documents, b).version, 5);
        assert_eq!(text(&documents, A), "a");

        assert!(documents.close(A));
        assert!(!documents.close(A));
        assert_eq!(documents.revision(A), None);
        assert_eq!(text(&documents, b), "b");

        // Opened twice, and reopened after closing.
        open_as(&documents, b, "toml", 1, "c");
        open_as(&documents, A, "rust", 9, "d");
        assert_eq!(text(&documents, b), "c");
        assert_eq!(snapshot(&documents, b).version, 1);
        assert_eq!(text(&documents, A), "d");
    }

    #[test]
    fn no_two_states_share_a_revision() {
        let documents = open("a");
        let mut seen = vec![documents.revision(A)];
        documents
            .change(A, 1, edits!["b"], PositionEncoding::Utf16)
            .unwrap();
        seen.push(documents.revision(A));
        open_as(&documents, A, "rust", 1, "a");
        seen.push(documents.revision(A));
        documents.close(A);
        open_as(&documents, A, "rust", 1, "a");
        seen.push(documents.revision(A));
        // Nor across two sets of documents.
        seen.push(open("a").revision(A));
        let different: std::collections::HashSet<_> = seen.iter().flatten().collect();
        assert_eq!(different.len(), seen.len(), "{seen:?}");
    }

    #[test]
    fn a_snapshot_outlives_its_document() {
        let documents = open("x😀y");
        let snapshot = documents
            .snapshot(A, Position::new(0, 3), PositionEncoding::Utf16)
            .unwrap();
        documents
            .change(A, 2, edits!["gone"], PositionEncoding::Utf16)
            .unwrap();
        documents.close(A);

        assert_eq!(&*snapshot.uri, A);
        assert_eq!(snapshot.file_name(), "a.rs");
        assert_eq!(snapshot.version, 1);
        assert_eq!(&*snapshot.language_id, "rust");
        assert_eq!(snapshot.rope, "x😀y");
        assert_eq!(snapshot.offset, 5);
    }

    #[test]
    fn survives_a_poisoned_lock() {
        let documents = open("a");
        std::thread::scope(|scope| {
            let panicked = scope
                .spawn(|| {
                    let _guard = documents.lock();
                    panic!("on purpose, under the lock");
                })
                .join();
            assert!(panicked.is_err());
        });
        assert!(documents.open.is_poisoned());
        documents
            .change(A, 2, edits!["b"], PositionEncoding::Utf16)
            .unwrap();
        assert_eq!(text(&documents, A), "b");
    }

    #[test]
    fn edits_a_large_text_and_a_long_line() {
        fn check(text: String, position: Position, at: usize) {
            for encoding in ENCODINGS {
                let documents = open(&text);
                let edit = vec![event(Some(position..position), "!")];
                documents.change(A, 2, edit, encoding).unwrap();
                let snapshot = documents.snapshot(A, position, encoding).unwrap();
                assert_eq!(snapshot.offset, at);
                assert_eq!(snapshot.rope.len_bytes(), text.len() + 1);
                assert!(snapshot.rope.byte_slice(..at) == text[..at]);
                assert!(snapshot.rope.byte_slice(at..=at) == "!");
                assert!(snapshot.rope.byte_slice(at + 1..) == text[at..]);
            }
        }

        // 22 MiB in lines of 22 bytes.
        let text = "let x = 1; // 漢字\r\n".repeat(1 << 20);
        assert_eq!(text.len(), 22 << 20);
        check(text, Position::new(700_000, 3), 22 * 700_000 + 3);
        // 1 MiB in one line.
        check("x".repeat(1 << 20), Position::new(0, 700_000), 700_000);
    }

    /// A change as the client would send it.
    fn change() -> impl Strategy<Value = Change> {
        let range = (naive::position(), naive::position());
        let range = range.prop_map(|(start, end)| start..end);
        (prop::option::weighted(0.95, range), naive::text(0..6))
            .prop_map(|(range, text)| event(range, &text))
            .prop_flat_map(|change| {
                let half = (
                    0xd83c..0xd83f_u16,
                    0xdc00..0xdfff_u16,
                    any::<(bool, bool)>(),
                );
                prop::option::weighted(0.3, half).prop_map(move |half| {
                    let mut change = change.clone();
                    if let Some((high, low, (is_high, first))) = half {
                        let at = if first { 0 } else { change.text.len() };
                        change.halves.push((at, if is_high { high } else { low }));
                        change.text.insert(at, '\u{fffd}');
                    }
                    change
                })
            })
    }

    /// The text of a change in UTF-16 units, with halves of pairs as they are.
    fn units(change: &Change) -> Vec<u16> {
        let mut units = Vec::new();
        for (at, char) in change.text.char_indices() {
            let half = change.halves.iter().find(|(half_at, _)| *half_at == at);
            match half {
                Some((_, unit)) => units.push(*unit),
                None => units.extend_from_slice(char.encode_utf16(&mut [0; 2])),
            }
        }
        units
    }

    /// The offset of a position in UTF-16 units, as an editor written in JavaScript finds it.
    fn unit_offset(units: &[u16], position: Position) -> usize {
        const CR: u16 = b'\r' as u16;
        const LF: u16 = b'\n' as u16;
        let mut start = 0;
        for _ in 0..position.line {
            let ends = |unit: &u16| [CR, LF].contains(unit);
            let Some(end) = units[start..].iter().position(ends) else {
                return units.len();
            };
            start += end + 1;
            if units[start - 1] == CR && units.get(start) == Some(&LF) {
                start += 1;
            }
        }
        let line = units[start..]
            .iter()
            .take_while(|unit| ![CR, LF].contains(unit));
        start + line.count().min(position.character as usize)
    }

    /// Applies the change as such an editor does.
    fn apply_in_units(text: &mut Vec<u16>, change: &Change) {
        match &change.range {
            None => *text = units(change),
            Some(range) => {
                let start = unit_offset(text, range.start);
                let end = unit_offset(text, range.end);
                text.splice(start.min(end)..start.max(end), units(change));
            }
        }
    }

    fn apply_naively(text: &mut String, change: &Change, encoding: PositionEncoding) {
        match &change.range {
            None => text.clone_from(&change.text),
            Some(range) => {
                let start = naive::offset(text, range.start, encoding);
                let end = naive::offset(text, range.end, encoding);
                text.replace_range(start.min(end)..start.max(end), &change.text);
            }
        }
    }

    fn check_against_reference(start: &str, changes: &[Change], encoding: PositionEncoding) {
        let documents = open(start);
        let mut expected = start.to_owned();
        let mut expected_units: Vec<u16> = start.encode_utf16().collect();
        for change in changes {
            let mut change = change.clone();
            if encoding == PositionEncoding::Utf16 {
                apply_in_units(&mut expected_units, &change);
                expected = String::from_utf16_lossy(&expected_units);
            } else {
                change.halves.clear();
                apply_naively(&mut expected, &change, encoding);
            }
            documents.change(A, 1, vec![change], encoding).unwrap();
            assert_eq!(text(&documents, A), expected);
        }
        // Checks where each line of the edited rope starts and ends. The tests of the conversion
        // cover what is between.
        let rope = snapshot(&documents, A).rope;
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
                        start..end
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
