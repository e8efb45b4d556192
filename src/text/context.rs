//! The text around the cursor, and whether it is worth asking the model.

use std::borrow::Cow;

use ropey::Rope;

use crate::engine::stop::Scope;

/// The most text before the cursor that is looked at, in bytes: more than any prompt holds.
const PREFIX_BYTES: usize = 8192;

/// The most text after the cursor that is looked at, in bytes.
const SUFFIX_BYTES: usize = 4096;

/// Of blank lines in a row, the model sees this many: thousands of them would hide what comes before.
const BLANK_LINES: usize = 8;

/// At most this many dropped bytes are made up for by more text before the cursor.
const MOST_DROPPED: usize = 64 << 10;

/// The window's left edge is a multiple of this, so that it stays put while the user types.
const WINDOW_STEP: usize = 1024;

/// With more characters than this after the cursor, an automatic completion would push real code
/// aside.
const MAX_LINE_SUFFIX: usize = 8;

/// What triggered the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Typing.
    Automatic,
    /// The user, who invoked it.
    Invoked,
}

/// The text around the cursor. Line ends are `\n`, whatever they are in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The file's base name.
    pub file_name: String,
    /// The text before the cursor, or its end.
    pub prefix: String,
    /// Where `prefix` begins in the document, in bytes.
    pub prefix_start: usize,
    /// Where the document has a byte that `prefix` lacks, a `\r` or one of many blank lines: offsets
    /// into `prefix`, ascending, one for each byte. They turn an offset into `prefix` into one into
    /// the document.
    pub dropped: Vec<usize>,
    /// The text after the cursor, or its beginning.
    pub suffix: String,
    /// How much to write.
    pub scope: Scope,
}

/// Why the model is not worth asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NothingToAsk {
    /// A word continues after the cursor.
    #[error("the cursor is inside a word")]
    InsideWord,
    /// There is much text after the cursor, and the request was not invoked.
    #[error("there is text after the cursor")]
    TextAfterCursor,
    /// The file is not text.
    #[error("the file is binary")]
    Binary,
    /// There is only whitespace around the cursor.
    #[error("there is no text around the cursor")]
    Blank,
}

impl Context {
    /// The context at `offset`, a byte offset into `rope` on a character boundary. Only the window
    /// around it is read, however long the document or the line is.
    ///
    /// # Errors
    ///
    /// See [`NothingToAsk`].
    pub fn at(
        rope: &Rope,
        offset: usize,
        file_name: &str,
        language_id: &str,
        trigger: Trigger,
    ) -> Result<Self, NothingToAsk> {
        let (start, prefix, dropped) = prefix(rope, offset);
        let end = (offset + SUFFIX_BYTES).min(rope.len_bytes());
        let end = char_boundary(rope, end);
        let (suffix, _) = plain(&Cow::from(rope.byte_slice(offset..end)));
        let mut context = Self {
            file_name: file_name.to_owned(),
            prefix,
            prefix_start: start,
            dropped,
            suffix,
            scope: Scope::Line,
        };
        context.worth_asking(trigger)?;
        context.scope = context.scope(language_id, trigger);
        Ok(context)
    }

    /// The cursor's line before the cursor.
    #[must_use]
    pub fn line_prefix(&self) -> &str {
        let start = self.prefix.rfind('\n').map_or(0, |end| end + 1);
        &self.prefix[start..]
    }

    /// The cursor's line after the cursor, without the line end.
    #[must_use]
    pub fn line_suffix(&self) -> &str {
        self.suffix.split('\n').next().unwrap_or_default()
    }

    fn worth_asking(&self, trigger: Trigger) -> Result<(), NothingToAsk> {
        if [&self.prefix, &self.suffix]
            .iter()
            .any(|text| text.contains('\0'))
        {
            return Err(NothingToAsk::Binary);
        }
        let rest = self.line_suffix();
        if rest.starts_with(|char: char| char.is_alphanumeric() || char == '_') {
            return Err(NothingToAsk::InsideWord);
        }
        let much = rest.trim().chars().nth(MAX_LINE_SUFFIX).is_some();
        if much && trigger == Trigger::Automatic {
            return Err(NothingToAsk::TextAfterCursor);
        }
        if self.prefix.trim().is_empty() && self.suffix.trim().is_empty() {
            return Err(NothingToAsk::Blank);
        }
        Ok(())
    }

    fn scope(&self, language_id: &str, trigger: Trigger) -> Scope {
        // Editors add the closing bracket when one is opened: `{$0}`.
        if !only_closes(self.line_suffix()) {
            return Scope::Line;
        }
        let line = self.line_prefix();
        let opener = match line.trim().is_empty() {
            true => self
                .prefix
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty()),
            false => Some(line),
        };
        if let Some(opener) = opener.filter(|line| opens_block(line, language_id)) {
            return Scope::Block {
                indent: indentation(opener),
            };
        }
        match trigger {
            // Invoked in column 0, it writes up to the next code in column 0.
            Trigger::Invoked => Scope::Block {
                indent: indentation(line).saturating_sub(1),
            },
            // A blank line may come first, because nothing on the cursor's line would be left
            // trailing.
            Trigger::Automatic if line.is_empty() && self.line_suffix().is_empty() => {
                Scope::FreshLine
            }
            Trigger::Automatic => Scope::Line,
        }
    }
}

/// The window before `offset`: where it begins, its text, and the places where a byte was dropped.
/// It reaches further back where many blank lines were dropped.
fn prefix(rope: &Rope, offset: usize) -> (usize, String, Vec<usize>) {
    let mut lost = 0;
    loop {
        let start = offset.saturating_sub(PREFIX_BYTES + lost);
        let start = char_boundary(rope, start.next_multiple_of(WINDOW_STEP));
        let (text, dropped) = plain(&Cow::from(rope.byte_slice(start..offset)));
        let more = dropped.len().min(MOST_DROPPED);
        if more < lost + WINDOW_STEP {
            return (start, text, dropped);
        }
        lost = more;
    }
}

fn opens_block(line: &str, language_id: &str) -> bool {
    let line = line.trim();
    if line.ends_with(['{', '(', '[']) || line.ends_with("=>") {
        return true;
    }
    match language_id {
        // A comment may end with a colon too.
        "python" | "gdscript" | "nim" => line.ends_with(':') && !line.starts_with('#'),
        "lua" | "ruby" | "shellscript" | "elixir" | "julia" => {
            let last = line.rsplit(|char: char| !char.is_alphanumeric()).next();
            matches!(last, Some("then" | "do" | "else" | "begin"))
        }
        _ => false,
    }
}

/// Whitespace characters at the beginning of a line.
fn indentation(line: &str) -> usize {
    line.chars().take_while(|char| char.is_whitespace()).count()
}

/// The text with `\n` for line ends and without the later ones of many blank lines, and the places
/// where a byte was dropped.
fn plain(text: &str) -> (String, Vec<usize>) {
    let mut plain = String::with_capacity(text.len());
    let mut dropped = Vec::new();
    let mut blank = 0;
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        let (line, after) = rest.split_at(end);
        let line_end = 1 + usize::from(after.starts_with("\r\n"));
        rest = &after[line_end..];
        blank = match line.trim().is_empty() {
            true => blank + 1,
            false => 0,
        };
        let lost = if blank > BLANK_LINES {
            end + line_end
        } else {
            plain.push_str(line);
            line_end - 1
        };
        dropped.extend(std::iter::repeat_n(plain.len(), lost));
        if blank <= BLANK_LINES {
            plain.push('\n');
        }
    }
    plain.push_str(rest);
    (plain, dropped)
}

/// The boundary of a character at or before `offset`.
fn char_boundary(rope: &Rope, offset: usize) -> usize {
    rope.char_to_byte(rope.byte_to_char(offset.min(rope.len_bytes())))
}

/// Whether the text only closes what is open: brackets, the punctuation after them, and whitespace.
#[must_use]
pub fn only_closes(text: &str) -> bool {
    text.chars()
        .all(|char| char.is_whitespace() || ")]};,".contains(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, language: &str, trigger: Trigger) -> Result<Context, NothingToAsk> {
        let offset = text.find("$0").unwrap();
        let rope = Rope::from_str(&text.replacen("$0", "", 1));
        Context::at(&rope, offset, "a", language, trigger)
    }

    fn check(text: &str, language: &str, expected: Result<Scope, NothingToAsk>) {
        let context = at(text, language, Trigger::Automatic);
        assert_eq!(context.map(|context| context.scope), expected, "{text:?}");
    }

    const fn block(indent: usize) -> Result<Scope, NothingToAsk> {
        Ok(Scope::Block { indent })
    }

    #[test]
    fn nothing_is_asked_inside_a_word() {
        check("let na$0me = 1;", "rust", Err(NothingToAsk::InsideWord));
        check("let é$0é", "rust", Err(NothingToAsk::InsideWord));
        check("let na$0", "rust", Ok(Scope::Line));
    }

    #[test]
    fn text_after_the_cursor_waits_for_an_explicit_request() {
        let text = "f($0, second, third)";
        check(text, "rust", Err(NothingToAsk::TextAfterCursor));
        assert!(at(text, "rust", Trigger::Invoked).is_ok());
        check("f($0, two);", "rust", Ok(Scope::Line));
    }

    #[test]
    fn binary_and_blank_texts_are_not_worth_asking() {
        check("a\0b$0", "", Err(NothingToAsk::Binary));
        check(" \n$0\n", "", Err(NothingToAsk::Blank));
        check("$0", "", Err(NothingToAsk::Blank));
    }

    #[test]
    fn a_block_is_written_where_one_opens() {
        check("    fn f() {$0", "rust", block(4));
        check("    fn f() {$0}", "rust", block(4));
        check("fn f() {\n    $0\n}", "rust", block(0));
        check("\tcall(\n\n\t\t$0", "go", block(1));
        check("xs.map(x => {$0})", "typescript", block(0));
        check("if x then$0", "lua", block(0));
        check("fn f() { a$0", "rust", Ok(Scope::Line));
    }

    #[test]
    fn an_empty_line_may_stay_empty() {
        check("fn f() {}\n$0", "rust", Ok(Scope::FreshLine));
        check("fn f() {}\n$0\nfn g() {}\n", "rust", Ok(Scope::FreshLine));
        check("a();\n    $0\n", "rust", Ok(Scope::Line));
        check("(\na\n$0)", "rust", Ok(Scope::Line));
    }

    #[test]
    fn a_colon_opens_a_block_in_some_languages() {
        check("  def f():$0", "python", block(2));
        check("  def f():\n    $0", "python", block(2));
        check("# note:$0", "python", Ok(Scope::Line));
        check("case 1:$0", "c", Ok(Scope::Line));
    }

    #[test]
    fn an_explicit_request_may_write_a_block_anywhere() {
        let scope = |text| at(text, "rust", Trigger::Invoked).map(|context| context.scope);
        assert_eq!(scope("    let a = 1;$0"), block(3));
        assert_eq!(scope("let a = $0"), block(0));
        assert_eq!(scope("f($0, 1)"), Ok(Scope::Line));
    }

    #[test]
    fn line_ends_are_line_feeds() {
        let context = at("a\r\nb\rc$0d\r\n", "", Trigger::Automatic);
        assert_eq!(context, Err(NothingToAsk::InsideWord));
        let context = at("a\r\nb\rc$0\r\nd\r\n", "", Trigger::Automatic).unwrap();
        assert_eq!(
            (context.prefix.as_str(), context.suffix.as_str()),
            ("a\nb\nc", "\nd\n")
        );
        assert_eq!((context.line_prefix(), context.line_suffix()), ("c", ""));
        assert_eq!(context.dropped, [1]);
    }

    #[test]
    fn the_window_stays_put_while_typing() {
        let line = "let value = 1;\n".repeat(4000);
        let rope = Rope::from_str(&line);
        let mut starts = Vec::new();
        for offset in 30_000..32_048 {
            if let Ok(context) = Context::at(&rope, offset, "a", "rust", Trigger::Invoked) {
                assert_eq!(context.prefix_start + context.prefix.len(), offset);
                assert!(context.prefix.len() <= PREFIX_BYTES);
                assert!(context.suffix.len() <= SUFFIX_BYTES);
                starts.push(context.prefix_start);
            }
        }
        starts.dedup();
        assert_eq!(starts.len(), 3, "{starts:?}");
    }

    #[test]
    fn many_blank_lines_do_not_hide_what_is_before_them() {
        for (blank, length) in [("\n", 1), ("    \n", 5), ("\r\n", 2)] {
            let head = "def total(prices):\n";
            let text = format!("{head}{}    ret", blank.repeat(10_000));
            let rope = Rope::from_str(&text);
            let context = Context::at(&rope, text.len(), "a", "python", Trigger::Automatic);
            let context = context.unwrap();
            assert!(context.prefix.starts_with(head), "{:?}", context.prefix);
            assert!(context.prefix.ends_with("\n    ret"));
            assert!(context.prefix.len() < 100);
            let length = 10_000 * length + head.len() + "    ret".len();
            assert_eq!(context.prefix.len() + context.dropped.len(), length);
        }
        let context = at("a\n\n\n\n$0", "", Trigger::Automatic).unwrap();
        assert_eq!(
            (&*context.prefix, context.dropped),
            ("a\n\n\n\n", Vec::new())
        );
    }

    #[test]
    fn a_window_begins_between_characters() {
        let rope = Rope::from_str(&"漢".repeat(10_000));
        for offset in (0..=rope.len_bytes()).step_by(3) {
            let asked = Context::at(&rope, offset, "a", "", Trigger::Invoked);
            assert!(asked.is_ok() == (offset == rope.len_bytes()));
        }
    }
}
