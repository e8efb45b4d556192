//! Edits of a document in the three encodings, against a plain model of the text.
#![no_main]

use arbitrary::Arbitrary;
use interline::text::document::{Change, Documents};
use interline::text::position::{self, Position, PositionEncoding};
use libfuzzer_sys::fuzz_target;

const URI: &str = "file:///a.rs";

/// What a text is made of: most of these break some rule that holds for ASCII.
const PIECES: [&str; 24] = [
    "a",
    "let x",
    " ",
    "\n",
    "\r\n",
    "\r",
    "é",
    "e\u{301}",
    "漢字",
    "한",
    "😀",
    "👩‍👧",
    "🇩🇪",
    "𐐀",
    "\u{2028}",
    "\u{85}",
    "\u{b}",
    "\u{c}",
    "\u{feff}",
    "\0",
    "\u{10ffff}",
    "\u{fffd}",
    "0123456789012345678901234567890123456789",
    "\r\r\n\n",
];

#[derive(Arbitrary, Debug)]
enum Piece {
    Of(u8),
    Char(char),
    /// Half of a surrogate pair, in UTF-16 only.
    Half(u16),
}

#[derive(Arbitrary, Debug)]
struct Text {
    pieces: Vec<Piece>,
    /// Texts of many leaves in the rope.
    repeated: u8,
}

#[derive(Arbitrary, Debug)]
struct Edit {
    range: Option<[(u16, u16); 2]>,
    text: Text,
    /// Whether it comes with the one before it, in one notification.
    joined: bool,
}

#[derive(Arbitrary, Debug)]
struct Input {
    encoding: u8,
    start: Text,
    edits: Vec<Edit>,
}

/// A text in the units in which the client counts: bytes, UTF-16 units or chars.
#[derive(Clone, PartialEq)]
struct Plain {
    units: Vec<u32>,
    encoding: PositionEncoding,
}

impl Plain {
    fn new(text: &str, halves: &[(usize, u16)], encoding: PositionEncoding) -> Self {
        let units = match encoding {
            PositionEncoding::Utf8 => text.bytes().map(u32::from).collect(),
            PositionEncoding::Utf32 => text.chars().map(u32::from).collect(),
            PositionEncoding::Utf16 => {
                let mut units = Vec::new();
                for (at, char) in text.char_indices() {
                    match halves.iter().find(|(half, _)| *half == at) {
                        Some((_, unit)) => units.push(u32::from(*unit)),
                        None => {
                            let mut buffer = [0; 2];
                            let encoded = char.encode_utf16(&mut buffer);
                            units.extend(encoded.iter().map(|unit| u32::from(*unit)));
                        }
                    }
                }
                units
            }
        };
        Self { units, encoding }
    }

    fn text(&self) -> String {
        let units = self.units.iter();
        match self.encoding {
            PositionEncoding::Utf8 => {
                String::from_utf8(units.map(|unit| *unit as u8).collect()).expect("whole chars")
            }
            PositionEncoding::Utf32 => units
                .map(|unit| char::from_u32(*unit).expect("a char"))
                .collect(),
            PositionEncoding::Utf16 => {
                String::from_utf16_lossy(&units.map(|unit| *unit as u16).collect::<Vec<_>>())
            }
        }
    }

    /// Where each line begins, and where it ends without its terminator.
    fn lines(&self) -> Vec<(usize, usize)> {
        let (cr, lf) = (u32::from(b'\r'), u32::from(b'\n'));
        let mut lines = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < self.units.len() {
            let unit = self.units[at];
            if unit == cr || unit == lf {
                lines.push((start, at));
                at += usize::from(unit == cr && self.units.get(at + 1) == Some(&lf));
                start = at + 1;
            }
            at += 1;
        }
        lines.push((start, at));
        lines
    }

    fn offset(&self, position: Position) -> usize {
        let lines = self.lines();
        let Some((start, end)) = lines.get(position.line as usize) else {
            return self.units.len();
        };
        let mut at = (start + position.character as usize).min(*end);
        // Inside the bytes of a char.
        while self.encoding == PositionEncoding::Utf8
            && self.units.get(at).is_some_and(|unit| unit & 0xc0 == 0x80)
        {
            at -= 1;
        }
        at
    }

    fn apply(&mut self, range: Option<[Position; 2]>, new: Self) {
        match range {
            None => *self = new,
            Some([start, end]) => {
                let (start, end) = (self.offset(start), self.offset(end));
                self.units.splice(start.min(end)..start.max(end), new.units);
            }
        }
    }
}

impl Text {
    /// The text as a change has it.
    fn change(&self, encoding: PositionEncoding) -> Change {
        let mut change = Change::default();
        let mut push = |piece: &Piece| match piece {
            Piece::Of(index) => change.text += PIECES[usize::from(*index) % PIECES.len()],
            Piece::Char(char) => change.text.push(*char),
            Piece::Half(unit) if encoding == PositionEncoding::Utf16 => {
                change
                    .halves
                    .push((change.text.len(), 0xd800 | unit & 0x7ff));
                change.text.push('\u{fffd}');
            }
            Piece::Half(_) => {}
        };
        let pieces = &self.pieces[..self.pieces.len().min(64)];
        // Mostly once.
        let times = 1 + usize::from(self.repeated.saturating_sub(192));
        for _ in 0..times {
            pieces.iter().for_each(&mut push);
        }
        change
    }
}

fn check(documents: &Documents, plain: &Plain) {
    let rope = documents.text(URI).expect("it is open");
    assert_eq!(rope.to_string(), plain.text());
    // A half counts as one unit in both, but the plain text has one unit where the rope has a char.
    let (mut line, lines) = (0, plain.lines());
    for (start, end) in &lines {
        let at = Position::new(line, (end - start) as u32);
        let offset = position::offset(&rope, at, plain.encoding);
        assert_eq!(position::position(&rope, offset, plain.encoding), at);
        let before = Plain {
            units: plain.units[..*end].to_vec(),
            encoding: plain.encoding,
        };
        // Halves that the cut leaves apart are as long as in the whole.
        assert_eq!(offset, before.text().len());
        line += 1;
        if lines.len() > 200 && line > 20 {
            break;
        }
    }
}

fuzz_target!(|input: Input| {
    let encoding = [
        PositionEncoding::Utf8,
        PositionEncoding::Utf16,
        PositionEncoding::Utf32,
    ][usize::from(input.encoding) % 3];
    let documents = Documents::new();
    documents.open(URI, "/a.rs".into(), "rust".to_owned(), 0, "");
    let start = input.start.change(encoding);
    let mut plain = Plain::new(&start.text, &start.halves, encoding);
    documents
        .change(URI, 1, vec![start], encoding)
        .expect("it is open");
    check(&documents, &plain);
    let mut waiting = Vec::new();
    for (index, edit) in input.edits.iter().take(32).enumerate() {
        let mut change = edit.text.change(encoding);
        let at = |(line, character): (u16, u16)| Position::new(line.into(), character.into());
        let range = edit.range.map(|range| range.map(at));
        change.range = range.map(|[start, end]| start..end);
        plain.apply(range, Plain::new(&change.text, &change.halves, encoding));
        if plain.units.len() > 1 << 16 {
            return;
        }
        waiting.push(change);
        if !edit.joined {
            let changes = std::mem::take(&mut waiting);
            documents
                .change(URI, index as i32, changes, encoding)
                .expect("it is open");
            check(&documents, &plain);
        }
    }
});
