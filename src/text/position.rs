//! Converts an LSP [`Position`] to a byte offset, and a byte offset to a [`Position`].
//!
//! Inside the server a place in a text is always a byte offset; a `Position` exists only at the
//! edge, and these two functions are that edge. Both are total: whatever a client sends maps to
//! some place in the text, the nearest that the specification allows.
//!
//! Neither scans the text. Every step is a lookup in the rope's tree, O(log n) in its length, so a
//! line of a megabyte costs no more than a short one.

use ropey::Rope;
pub use tower_lsp::ls_types::Position;
use tower_lsp::ls_types::PositionEncodingKind;

/// The unit in which [`Position::character`] counts.
///
/// The variants are ordered from least to most preferred, so that the better of two encodings is
/// the greater. UTF-8 is what the rope stores. UTF-32 counts chars, which it indexes. UTF-16 is the
/// one every client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PositionEncoding {
    /// Code units of UTF-16: two for a char outside the Basic Multilingual Plane.
    #[default]
    Utf16,
    /// Chars.
    Utf32,
    /// Bytes.
    Utf8,
}

impl PositionEncoding {
    /// The best of the encodings offered in the client's `general.positionEncodings`.
    ///
    /// Unknown encodings are skipped. UTF-16 is used when the client offers nothing, or nothing
    /// known: "If the string value `utf-16` is missing from the client's capability
    /// `positionEncodings` servers can assume that the client supports UTF-16."
    #[must_use]
    pub fn negotiate(offered: Option<&[PositionEncodingKind]>) -> Self {
        offered
            .unwrap_or_default()
            .iter()
            .filter_map(Self::known)
            .max()
            .unwrap_or_default()
    }

    fn known(kind: &PositionEncodingKind) -> Option<Self> {
        [Self::Utf16, Self::Utf32, Self::Utf8]
            .into_iter()
            .find(|&encoding| PositionEncodingKind::from(encoding) == *kind)
    }
}

impl From<PositionEncoding> for PositionEncodingKind {
    fn from(encoding: PositionEncoding) -> Self {
        match encoding {
            PositionEncoding::Utf16 => Self::UTF16,
            PositionEncoding::Utf32 => Self::UTF32,
            PositionEncoding::Utf8 => Self::UTF8,
        }
    }
}

/// The byte offset of `position`, always on a char boundary and never inside a `\r\n`.
///
/// A line past the last one maps to the end of the text, and a character past the end of its line
/// to the end of that line, before its terminator. A character inside a surrogate pair or a UTF-8
/// sequence maps to the start of the char it falls into.
#[must_use]
pub fn offset(rope: &Rope, position: Position, encoding: PositionEncoding) -> usize {
    let line = to_usize(position.line);
    // "If a line number is greater than the number of lines in a document, it defaults back to the
    // number of lines in the document." Lines count from zero, so that is the line after the last,
    // which is just the end of the text.
    if line >= rope.len_lines() {
        return rope.len_bytes();
    }
    let (start, end) = line_chars(rope, line);
    let character = to_usize(position.character);
    // "If the character value is greater than the line length it defaults back to the line length."
    // The length leaves the terminator out: "Positions are line end character agnostic. So you can
    // not specify a position that denotes `\r|\n` or `\n|` where `|` represents the character
    // offset."
    match encoding {
        PositionEncoding::Utf8 => {
            let byte = rope.char_to_byte(start).saturating_add(character);
            // Through the char and back, because the byte may lie inside a sequence.
            rope.char_to_byte(rope.byte_to_char(byte.min(rope.char_to_byte(end))))
        }
        PositionEncoding::Utf16 => {
            let unit = rope.char_to_utf16_cu(start).saturating_add(character);
            // The low half of a surrogate pair belongs to the char that the high half began.
            rope.char_to_byte(rope.utf16_cu_to_char(unit.min(rope.char_to_utf16_cu(end))))
        }
        PositionEncoding::Utf32 => rope.char_to_byte(start.saturating_add(character).min(end)),
    }
}

/// The byte offset of the char whose surrogate pair a position in UTF-16 falls inside, if it does.
#[must_use]
pub fn inside_pair(rope: &Rope, position: Position) -> Option<usize> {
    let line = to_usize(position.line);
    if line >= rope.len_lines() {
        return None;
    }
    let (start, end) = line_chars(rope, line);
    let unit = rope
        .char_to_utf16_cu(start)
        .saturating_add(to_usize(position.character));
    if unit >= rope.char_to_utf16_cu(end) {
        return None;
    }
    let char = rope.utf16_cu_to_char(unit);
    (rope.char_to_utf16_cu(char) != unit).then(|| rope.char_to_byte(char))
}

/// The position of the byte at `offset`, the inverse of [`offset()`](self::offset).
///
/// No position is between `\r` and `\n`, so an offset there maps to the end of the line, before the
/// `\r`. An offset inside a char maps to the start of that char, and one past the text to its end.
#[must_use]
pub fn position(rope: &Rope, offset: usize, encoding: PositionEncoding) -> Position {
    let char = rope.byte_to_char(offset.min(rope.len_bytes()));
    let line = rope.char_to_line(char);
    let (start, end) = line_chars(rope, line);
    let char = char.min(end);
    let character = match encoding {
        PositionEncoding::Utf8 => rope.char_to_byte(char) - rope.char_to_byte(start),
        PositionEncoding::Utf16 => rope.char_to_utf16_cu(char) - rope.char_to_utf16_cu(start),
        PositionEncoding::Utf32 => char - start,
    };
    Position::new(to_u32(line), to_u32(character))
}

/// The chars of a line that exists, without its terminator, as the indices `(start, end)`.
fn line_chars(rope: &Rope, line: usize) -> (usize, usize) {
    let start = rope.line_to_char(line);
    if line + 1 == rope.len_lines() {
        return (start, rope.len_chars());
    }
    // Every line but the last ends in `\n`, `\r` or both: the rope breaks lines nowhere else, not
    // even at U+2028 and the like, because of ropey's features only `cr_lines` is on.
    let mut end = rope.line_to_char(line + 1) - 1;
    if end > start && rope.get_char(end) == Some('\n') && rope.get_char(end - 1) == Some('\r') {
        end -= 1;
    }
    (start, end)
}

/// Saturates on a target whose addresses are shorter than 32 bits.
fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Saturates past 4 GiB, further than any `Position` reaches.
fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The same conversions written the slow and obvious way, over a plain string, for tests to compare
/// the fast ones with. It shares no code with them.
#[cfg(test)]
pub(crate) mod naive {
    use proptest::prelude::*;
    use tower_lsp::ls_types::Position;

    use super::PositionEncoding;

    pub(crate) const ENCODINGS: [PositionEncoding; 3] = [
        PositionEncoding::Utf8,
        PositionEncoding::Utf16,
        PositionEncoding::Utf32,
    ];

    /// The pieces of generated texts: most break some rule that holds for ASCII.
    const PIECES: &[&str] = &[
        "a",
        "let x",
        " ",
        "\t",
        "\n",
        "\n",
        "\r\n",
        "\r\n",
        "\r",
        "\r",
        "é",
        "e\u{301}",
        "ß",
        "漢字",
        "か\u{3099}",
        "한",
        "😀",
        "👩‍👩‍👧‍👦",
        "🇩🇪",
        "👍🏽",
        "𐐀",
        "\u{2028}",
        "\u{2029}",
        "\u{85}",
        "\u{b}",
        "\u{c}",
        "\u{feff}",
        "\0",
        "\u{10ffff}",
    ];

    pub(crate) fn text(pieces: std::ops::Range<usize>) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(PIECES), pieces).prop_map(|it| it.concat())
    }

    /// Positions, most of which fall into a short text, and some anywhere.
    pub(crate) fn position() -> impl Strategy<Value = Position> {
        let number = |near: u32| {
            prop_oneof![
                20 => 0..near,
                1 => near..1_000,
                1 => u32::MAX - 1..=u32::MAX,
            ]
        };
        (number(6), number(12)).prop_map(|(line, character)| Position::new(line, character))
    }

    pub(crate) fn units(char: char, encoding: PositionEncoding) -> u64 {
        match encoding {
            PositionEncoding::Utf8 => char.len_utf8() as u64,
            PositionEncoding::Utf16 => char.len_utf16() as u64,
            PositionEncoding::Utf32 => 1,
        }
    }

    /// The lines of a text, each with the offset it starts at and without its terminator.
    pub(crate) fn lines(text: &str) -> Vec<(usize, &str)> {
        let mut lines = Vec::new();
        let mut start = 0;
        let mut chars = text.char_indices().peekable();
        while let Some((at, char)) = chars.next() {
            let mut next = at + char.len_utf8();
            match char {
                '\r' if chars.next_if(|&(_, char)| char == '\n').is_some() => next += 1,
                '\r' | '\n' => {}
                _ => continue,
            }
            lines.push((start, &text[start..at]));
            start = next;
        }
        lines.push((start, &text[start..]));
        lines
    }

    pub(crate) fn offset(text: &str, position: Position, encoding: PositionEncoding) -> usize {
        let lines = lines(text);
        let Some(&(start, line)) = lines.get(position.line as usize) else {
            return text.len();
        };
        let mut seen = 0;
        for (at, char) in line.char_indices() {
            seen += units(char, encoding);
            if seen > u64::from(position.character) {
                return start + at;
            }
        }
        start + line.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::naive::ENCODINGS;
    use super::*;

    fn rope(text: &str) -> Rope {
        Rope::from_str(text)
    }

    #[test]
    fn negotiates_the_best_encoding_offered() {
        fn check(offered: Option<&[&'static str]>, expected: PositionEncoding) {
            let offered: Option<Vec<_>> =
                offered.map(|it| it.iter().map(|&kind| kind.into()).collect());
            let actual = PositionEncoding::negotiate(offered.as_deref());
            assert_eq!(actual, expected, "{offered:?}");
        }

        check(None, PositionEncoding::Utf16);
        check(Some(&[]), PositionEncoding::Utf16);
        check(Some(&["utf-16"]), PositionEncoding::Utf16);
        check(Some(&["utf-7", "UTF-8", ""]), PositionEncoding::Utf16);
        check(Some(&["utf-32"]), PositionEncoding::Utf32);
        check(Some(&["utf-16", "utf-32"]), PositionEncoding::Utf32);
        check(Some(&["utf-16", "utf-8", "utf-32"]), PositionEncoding::Utf8);
        check(Some(&["utf-8", "utf-7"]), PositionEncoding::Utf8);
    }

    #[test]
    fn finds_the_offset_of_a_position() {
        #[track_caller]
        fn check(
            text: &str,
            encoding: PositionEncoding,
            line: u32,
            character: u32,
            expected: usize,
        ) {
            let position = Position::new(line, character);
            assert_eq!(offset(&rope(text), position, encoding), expected);
            assert_eq!(
                naive::offset(text, position, encoding),
                expected,
                "the reference"
            );
        }
        use PositionEncoding::{Utf8, Utf16, Utf32};

        for encoding in ENCODINGS {
            // An empty text has one empty line.
            check("", encoding, 0, 0, 0);
            check("", encoding, 0, 9, 0);
            check("", encoding, 9, 9, 0);
            check("", encoding, u32::MAX, u32::MAX, 0);

            // Past the end of a line, whatever ends it.
            check("ab\ncd", encoding, 0, 2, 2);
            check("ab\ncd", encoding, 0, 3, 2);
            check("ab\ncd", encoding, 1, 0, 3);
            check("ab\ncd", encoding, 1, u32::MAX, 5);
            check("ab\r\ncd", encoding, 0, 3, 2);
            check("ab\r\ncd", encoding, 0, 4, 2);
            check("ab\r\ncd", encoding, 1, 1, 5);
            check("ab\rcd", encoding, 0, 3, 2);
            check("ab\rcd", encoding, 1, 1, 4);

            // Past the last line, with and without a terminator at its end.
            check("ab", encoding, 1, 0, 2);
            check("ab\n", encoding, 1, 0, 3);
            check("ab\n", encoding, 2, 0, 3);
            check("ab\r\n", encoding, 7, 7, 4);

            // Terminators in a row.
            check("\n\r\r\n\n", encoding, 0, 1, 0);
            check("\n\r\r\n\n", encoding, 1, 1, 1);
            check("\n\r\r\n\n", encoding, 2, 1, 2);
            check("\n\r\r\n\n", encoding, 3, 1, 4);
            check("\n\r\r\n\n", encoding, 4, 1, 5);
        }

        // These end no line in LSP.
        check("a\u{2028}b", Utf16, 0, 2, 4);
        check("a\u{2028}b", Utf16, 1, 0, 5);
        check("a\u{85}b", Utf32, 0, 2, 3);
        check("a\u{b}\u{c}b", Utf8, 0, 3, 3);

        // The specification's example, with the 𐐀 cut in two.
        check("a𐐀b", Utf16, 0, 1, 1);
        check("a𐐀b", Utf16, 0, 2, 1);
        check("a𐐀b", Utf16, 0, 3, 5);
        check("a𐐀b", Utf32, 0, 2, 5);
        check("a𐐀b", Utf8, 0, 4, 1);
        check("a𐐀b", Utf8, 0, 5, 5);

        check("漢字", Utf16, 0, 1, 3);
        check("漢字", Utf8, 0, 2, 0);
        check("漢字", Utf8, 0, 5, 3);
        check("x\n漢字\n", Utf8, 1, 7, 8);

        // Chars, not what a reader perceives as one.
        check("e\u{301}x", Utf16, 0, 1, 1);
        check("e\u{301}x", Utf16, 0, 2, 3);
        check("👩‍👧", Utf16, 0, 1, 0);
        check("👩‍👧", Utf16, 0, 2, 4);
        check("👩‍👧", Utf16, 0, 3, 7);
        check("👩‍👧", Utf16, 0, 4, 7);
        check("👩‍👧", Utf32, 0, 2, 7);
        check("👩‍👧\r\n", Utf16, 0, 6, 11);
        check("\t😀", Utf16, 0, 3, 5);
    }

    #[test]
    fn finds_the_position_of_an_offset() {
        #[track_caller]
        fn check(text: &str, encoding: PositionEncoding, offset: usize, line: u32, character: u32) {
            let expected = Position::new(line, character);
            assert_eq!(position(&rope(text), offset, encoding), expected);
        }
        use PositionEncoding::{Utf8, Utf16, Utf32};

        for encoding in ENCODINGS {
            check("", encoding, 0, 0, 0);
            check("", encoding, usize::MAX, 0, 0);
            check("a\n", encoding, 1, 0, 1);
            check("a\n", encoding, 2, 1, 0);
            check("a\n", encoding, 3, 1, 0);
            check("a\rb", encoding, 2, 1, 0);
            // Before the `\r`, between the two, and after the `\n`.
            check("a\r\nb", encoding, 1, 0, 1);
            check("a\r\nb", encoding, 2, 0, 1);
            check("a\r\nb", encoding, 3, 1, 0);
            // Inside the char.
            check("é", encoding, 1, 0, 0);
        }
        check("a\n😀b", Utf8, 6, 1, 4);
        check("a\n😀b", Utf16, 6, 1, 2);
        check("a\n😀b", Utf32, 6, 1, 1);
    }

    /// Every char boundary survives the conversion to a position and back, except the one inside a
    /// `\r\n`, which comes back as the offset of the `\r`.
    fn check_round_trip(text: &str) {
        let rope = rope(text);
        for encoding in ENCODINGS {
            for at in (0..=text.len()).filter(|&at| text.is_char_boundary(at)) {
                let inside = text[..at].ends_with('\r') && text[at..].starts_with('\n');
                let expected = if inside { at - 1 } else { at };
                let position = position(&rope, at, encoding);
                let back = offset(&rope, position, encoding);
                assert_eq!(back, expected, "{at} is {position:?} in {encoding:?}");
            }
        }
    }

    #[test]
    fn round_trips_where_the_rope_has_many_leaves() {
        // Pieces whose lengths share no factor with the size of a leaf, so that its edges fall
        // everywhere.
        check_round_trip(&"x\r\n".repeat(700));
        check_round_trip(&"\r\n\n\r".repeat(500));
        check_round_trip(&"a😀é\r漢\r\n".repeat(200));
        check_round_trip(&"👩‍👧漢e\u{301}".repeat(150));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn round_trips(text in naive::text(0..24)) {
            check_round_trip(&text);
        }

        #[test]
        fn agrees_with_the_reference(text in naive::text(0..24), position in naive::position()) {
            for encoding in ENCODINGS {
                prop_assert_eq!(
                    offset(&rope(&text), position, encoding),
                    naive::offset(&text, position, encoding)
                );
            }
        }
    }
}
