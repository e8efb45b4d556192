//! What an editor has closed already: the quotes and brackets that are open at the cursor and that
//! the rest of its line closes.
//!
//! `console.log("hello $0")` is complete as it stands. A text that closes the string once more
//! leaves a broken line, so a text is kept as far as the line with it is as balanced as it was
//! without.

mod lexer;
mod rules;

use ropey::Rope;

use lexer::{End, Lexer};
use rules::Rules;

/// How far back the text is read, in bytes, for strings and brackets that began on earlier lines.
const BEFORE_BYTES: usize = 32 << 10;

/// How much of the cursor's line is looked at on each side of it, in bytes. A line is longer only
/// where it is not handwritten.
const LINE_BYTES: usize = 512;

/// The state at a cursor: what is open there, and what the rest of the line closes of it.
#[derive(Clone, Debug)]
pub struct Closers {
    /// Has read what is before `line`.
    start: Lexer,
    /// The cursor's line before the cursor, or its end.
    line: String,
    /// The cursor's line after the cursor, or its beginning.
    rest: String,
    /// What is left behind by the line as it is.
    unchanged: End,
    /// Whether all that is open is known.
    is_known: bool,
    closed: Vec<String>,
}

impl Closers {
    /// The state at `offset`, a byte offset into `rope` on a character boundary. `language_id` is
    /// the editor's identifier of the language.
    #[must_use]
    pub fn at(rope: &Rope, offset: usize, language_id: &str) -> Self {
        let boundary = |offset: usize| rope.char_to_byte(rope.byte_to_char(offset));
        let start = boundary(offset.saturating_sub(BEFORE_BYTES));
        let end = boundary((offset + LINE_BYTES).min(rope.len_bytes()));
        let before = rope.byte_slice(start..offset).to_string();
        let after = rope.byte_slice(offset..end).to_string();
        Self::between(&before, start == 0, &after, language_id)
    }

    /// The state between two texts. `is_whole` says whether `before` is everything before the
    /// cursor.
    #[must_use]
    pub fn between(before: &str, is_whole: bool, after: &str, language_id: &str) -> Self {
        let lines = |char| matches!(char, '\n' | '\r');
        let line_start = before.rfind(lines).map_or(0, |end| end + 1);
        let near = before.floor_char_boundary(before.len().saturating_sub(LINE_BYTES));
        let mut start = Lexer::new(Rules::of(language_id));
        let line_start = start.read(before, 0, line_start.max(near));
        let line = before.get(line_start..).unwrap_or_default().to_owned();
        let rest = after.split(lines).next().unwrap_or_default();
        let rest = rest[..rest.floor_char_boundary(LINE_BYTES)].to_owned();
        // What stands on both sides of the cursor may belong together, as the quotes of `'$0'`, or
        // not, as the marks of `_$0_`: so it is read both ways.
        let whole = [line.as_str(), &rest].concat();
        let readings = [&whole, &line].map(|until| {
            let mut lexer = start.go_on(line.len());
            let at = lexer.read(until, 0, line.len());
            let is_known = is_whole && lexer.mismatches == 0;
            let (closed, end) = closed(lexer, &whole, at);
            (end, closed, is_known)
        });
        let [together, apart] = readings;
        let (unchanged, closed, is_known) = match apart.0.errors() < together.0.errors() {
            true => apart,
            false => together,
        };
        Self {
            start,
            line,
            rest,
            unchanged,
            is_known,
            closed,
        }
    }

    /// What the rest of the line closes of what is open at the cursor, the innermost first:
    /// `"` and `)` in `print("$0")`.
    #[must_use]
    pub fn closed(&self) -> &[String] {
        &self.closed
    }

    /// How much of `text` to keep at the cursor, in bytes: the longest beginning that closes nothing
    /// that is not open, and with which the line, if it goes on, is as balanced as it was without.
    #[must_use]
    pub fn keep(&self, text: &str) -> usize {
        let ends = text.char_indices().rev();
        let ends = ends.filter(|(_, char)| !char.is_alphanumeric() && !char.is_whitespace());
        let ends = ends.map(|(at, char)| (at, Some(char)));
        std::iter::once((text.len(), None))
            .chain(ends)
            .map(|(end, next)| self.without_blanks(text, self.before_closer(text, end), next))
            .find(|keep| self.allows(&text[..*keep]))
            .unwrap_or_default()
    }

    /// Whether the line is as balanced with `text` at the cursor as it is without.
    #[must_use]
    pub fn allows(&self, text: &str) -> bool {
        let end = self.with(text);
        match self.rest.trim().is_empty() {
            true => !self.is_known || end.mismatches <= self.unchanged.mismatches,
            false => end.is_as_good_as(&self.unchanged),
        }
    }

    /// Where the closing quotes begin that `end` is inside of: `*/` is not cut in the middle.
    fn before_closer(&self, text: &str, end: usize) -> usize {
        let (before, after) = text.split_at(end);
        let split = self.closed.iter().find_map(|closer| {
            let mut lengths = 1..closer.len();
            lengths.find(|length| {
                let parts = closer.split_at_checked(*length);
                parts
                    .is_some_and(|(start, rest)| before.ends_with(start) && after.starts_with(rest))
            })
        });
        end - split.unwrap_or_default()
    }

    /// `text[..end]` without blanks at its end. A closing bracket on a line of its own stays there.
    fn without_blanks(&self, text: &str, end: usize, next: Option<char>) -> usize {
        let kept = text[..end].trim_end();
        let backslashes = kept.len() - kept.trim_end_matches('\\').len();
        let goes_on = next.is_some() || !self.rest.is_empty();
        if goes_on && backslashes % 2 == 1 {
            // It would escape what follows.
            return kept[..kept.len() - 1].trim_end().len();
        }
        let blanks = &text[kept.len()..end];
        let is_bracket = |char| matches!(char, ')' | ']' | '}');
        let own_line = next.is_some_and(is_bracket) && blanks.contains('\n');
        match own_line && !kept.is_empty() && self.rest.trim_start().chars().next() == next {
            true => end,
            false => kept.len(),
        }
    }

    fn with(&self, text: &str) -> End {
        let line = [&self.line, text, &self.rest].concat();
        let mut lexer = self.start.go_on(self.line.len() + text.len());
        lexer.read(&line, 0, line.len());
        lexer.end()
    }
}

/// What the line closes from `at` on, the innermost first, and how it ends.
fn closed(mut lexer: Lexer, line: &str, mut at: usize) -> (Vec<String>, End) {
    let mut open = lexer.clone();
    let mut closed = Vec::new();
    while at < line.len() {
        at = lexer.read(line, at, at + 1);
        if lexer.depth() < open.depth() {
            closed.extend(open.closers(lexer.depth()));
            open = lexer.clone();
        }
    }
    (closed, lexer.end())
}

#[cfg(test)]
mod tests;
