//! When a generation has written enough.

/// How much to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Up to the end of the line.
    Line,
    /// Up to the end of the first line that is not blank: the cursor is on a blank one.
    FreshLine,
    /// A block.
    Block {
        /// Columns of whitespace before the line that opens the block: a later line that is not
        /// indented deeper ends it, and a closing bracket there still belongs to it.
        indent: usize,
    },
    /// A text that the model ends by itself.
    Text,
    /// Code in a Markdown fence that was opened before it, up to the line that closes the fence.
    Fence,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    End,
    /// The line is complete.
    Line,
    /// The block is complete.
    Block,
    /// The fence is closed.
    Fence,
    /// It closed all that the rest of the line closes.
    Closed,
    /// It began to repeat what follows the cursor.
    Suffix,
    /// It repeated itself.
    Repetition,
    /// The limit of tokens was reached.
    Length,
    /// The time was up.
    Deadline,
}

/// Checks the text as it grows.
#[derive(Debug)]
pub struct StopCriteria {
    scope: Scope,
    /// The next two lines after the cursor's that are not blank, trimmed.
    following: Vec<String>,
    /// Where the line begins whose end has not been seen.
    line: usize,
    closing: Closing,
}

/// Counts how much a text has closed of what the rest of the line closes. It may miss an end, since
/// it knows no language: that costs tokens, and the text is cut later.
#[derive(Debug)]
struct Closing {
    /// What is closed, the innermost last.
    left: Vec<String>,
    /// Brackets like the innermost one that the text has opened itself.
    depth: usize,
    /// Where the text has not been read.
    at: usize,
}

impl Closing {
    fn new(closed: &[String]) -> Self {
        Self {
            left: closed.iter().rev().cloned().collect(),
            depth: 0,
            at: 0,
        }
    }

    /// Where the text closes the last of it.
    fn end(&mut self, text: &str) -> Option<usize> {
        while let Some(closer) = self.left.last() {
            let rest = text.get(self.at..).filter(|rest| !rest.is_empty())?;
            let char = rest.chars().next()?;
            let opener = match closer.as_str() {
                ")" => Some('('),
                "]" => Some('['),
                "}" => Some('{'),
                ">" => Some('<'),
                _ => None,
            };
            if rest.len() < closer.len() && closer.starts_with(rest) {
                // The next token may complete it.
                return None;
            }
            if char == '\\' {
                let escaped = rest.chars().nth(1)?;
                self.at += 1 + escaped.len_utf8();
            } else if opener == Some(char) {
                self.depth += 1;
                self.at += 1;
            } else if !rest.starts_with(closer.as_str())
                // An arrow closes nothing.
                || closer == ">" && text[..self.at].ends_with(['-', '='])
            {
                self.at += char.len_utf8();
            } else {
                self.at += closer.len();
                match self.depth.checked_sub(1) {
                    Some(depth) => self.depth = depth,
                    None => {
                        self.left.pop();
                        if self.left.is_empty() {
                            return Some(self.at);
                        }
                    }
                }
            }
        }
        None
    }
}

impl StopCriteria {
    /// For a text of `scope` that is written before `suffix`, whose first line closes `closed`, the
    /// innermost first.
    #[must_use]
    pub fn new(scope: Scope, suffix: &str, closed: &[String]) -> Self {
        let lines = suffix.lines().skip(1).map(str::trim);
        let following = lines.filter(|line| !line.is_empty()).take(2);
        Self {
            scope,
            following: following.map(str::to_owned).collect(),
            line: 0,
            closing: Closing::new(closed),
        }
    }

    /// Returns why to stop after `text` and how many bytes of it to keep, if it should stop. Each
    /// call is given the text of the previous call, or more.
    pub fn check(&mut self, text: &str) -> Option<(FinishReason, usize)> {
        if let Some(end) = self.closing.end(text) {
            return Some((FinishReason::Closed, end));
        }
        while let Some(end) = text[self.line..].find('\n') {
            let start = self.line;
            self.line += end + 1;
            let stop = self.check_line(text, start, start + end);
            if stop.is_some() {
                return stop;
            }
        }
        // A dedent shows at the first character of its line, so that the rest need not be written.
        let rest = &text[self.line..];
        let dedented = self.line > 0 && self.is_dedented(rest) && !closes(rest);
        if dedented {
            return Some((FinishReason::Block, self.line));
        }
        repetition(text, 2..=32, 4)
    }

    /// How many bytes of a text to keep that the model ended by itself: a fence may be closed
    /// without a line end after it.
    #[must_use]
    pub fn keep_at_end(&self, text: &str) -> usize {
        let line = text.rfind('\n').map_or(0, |end| end + 1);
        match self.scope {
            Scope::Fence if text[line..].trim_end() == "```" => line,
            _ => text.len(),
        }
    }

    /// Checks the line `start..end`, which is complete.
    fn check_line(&self, text: &str, start: usize, end: usize) -> Option<(FinishReason, usize)> {
        match self.scope {
            Scope::Line => return Some((FinishReason::Line, end)),
            Scope::FreshLine if !text[..end].trim().is_empty() => {
                return Some((FinishReason::Line, end));
            }
            Scope::Fence if text[start..end].trim_end() == "```" => {
                return Some((FinishReason::Fence, start));
            }
            _ => {}
        }
        // The first line continues the cursor's.
        if start == 0 {
            return None;
        }
        let line = &text[start..end];
        let repeats = self.following.iter().any(|known| known == line.trim());
        if repeats && line.contains(char::is_alphanumeric) {
            return Some((FinishReason::Suffix, start));
        }
        if self.is_dedented(line) {
            let keep = if closes(line) { end } else { start };
            return Some((FinishReason::Block, keep));
        }
        if line.trim().is_empty() && matches!(self.scope, Scope::Block { .. }) {
            let before = text[..start].lines().next_back();
            let two = before.is_some_and(|line| line.trim().is_empty());
            return two.then_some((FinishReason::Block, start));
        }
        // The same line, or the same two in turn, for the third time.
        let ends = text[..end].rmatch_indices('\n').take(2);
        repetition(&text[..=end], ends.map(|(before, _)| end - before), 3)
    }

    fn is_dedented(&self, line: &str) -> bool {
        match self.scope {
            Scope::Line | Scope::FreshLine | Scope::Text | Scope::Fence => false,
            Scope::Block { indent } => line
                .find(|char: char| !char.is_whitespace())
                .is_some_and(|column| column <= indent),
        }
    }
}

fn closes(line: &str) -> bool {
    line.trim_start().starts_with(['}', ')', ']'])
}

/// Stops a text whose end repeats the same bytes, and cuts it before the second round. Their number
/// is one of `periods`; they come at least `times` times, and often enough to be sure. Rulers
/// (`-----`) are allowed.
fn repetition(
    text: &str,
    mut periods: impl Iterator<Item = usize>,
    times: usize,
) -> Option<(FinishReason, usize)> {
    const MIN_BYTES: usize = 24;
    let keep = periods.find_map(|period| {
        let times = times.max(MIN_BYTES.div_ceil(period));
        let start = text.len().checked_sub(period * times)?;
        let rounds = &text.as_bytes()[start..];
        let same = rounds[period..] == rounds[..rounds.len() - period];
        let ruler = rounds.iter().all(|byte| *byte == rounds[0]);
        (same && !ruler).then(|| text.floor_char_boundary(start + period))
    })?;
    Some((FinishReason::Repetition, keep))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `generated` a character at a time; `expected` is why it is stopped, and what is kept.
    fn check(scope: Scope, suffix: &str, generated: &str, expected: Option<(FinishReason, &str)>) {
        let mut stop = StopCriteria::new(scope, suffix, &[]);
        let mut text = String::new();
        for char in generated.chars() {
            text.push(char);
            if let Some((reason, keep)) = stop.check(&text) {
                assert_eq!(Some((reason, &text[..keep])), expected, "in {text:?}");
                return;
            }
        }
        assert_eq!(None, expected);
    }

    const BLOCK: Scope = Scope::Block { indent: 4 };

    #[test]
    fn a_line_ends_at_its_end() {
        check(Scope::Line, "", "a + b", None);
        check(
            Scope::Line,
            "",
            "a + b\nc",
            Some((FinishReason::Line, "a + b")),
        );
        check(Scope::Line, "", "\nc", Some((FinishReason::Line, "")));
    }

    #[test]
    fn a_fresh_line_may_leave_empty_ones() {
        let line = Some((FinishReason::Line, "a"));
        check(Scope::FreshLine, "", "a\nb", line);
        let below = Some((FinishReason::Line, "\n\n    a"));
        check(Scope::FreshLine, "", "\n\n    a\nb", below);
        check(Scope::FreshLine, "", "\n\n    a", None);
    }

    #[test]
    fn a_block_ends_before_a_dedent() {
        let kept = "\n        return 1\n";
        let text = format!("{kept}    def g");
        check(BLOCK, "", &text, Some((FinishReason::Block, kept)));
        check(BLOCK, "", "\n        a\n\n        b\n", None);
    }

    #[test]
    fn a_block_ends_with_its_closing_bracket() {
        let kept = "\n        f();\n    })";
        check(
            BLOCK,
            "",
            &format!("{kept}\n"),
            Some((FinishReason::Block, kept)),
        );
    }

    #[test]
    fn a_block_ends_at_two_blank_lines() {
        let kept = "\n        f();\n\n";
        check(
            BLOCK,
            "",
            &format!("{kept}\n"),
            Some((FinishReason::Block, kept)),
        );
    }

    #[test]
    fn the_lines_that_follow_are_not_written_again() {
        let suffix = ")\n\n        total += 1\n";
        let kept = "\n        x = 1\n";
        let text = format!("{kept}        total += 1\n");
        check(BLOCK, suffix, &text, Some((FinishReason::Suffix, kept)));
        let second = ")\n\n        y = 2\n        total += 1\n";
        check(BLOCK, second, &text, Some((FinishReason::Suffix, kept)));
        let third = ")\n        y = 2\n        z = 3\n        total += 1\n";
        check(BLOCK, third, &text, None);
    }

    #[test]
    fn a_fence_ends_where_it_is_closed() {
        let kept = "a = '```'\n\n\nb\n";
        let stopped = Some((FinishReason::Fence, kept));
        check(Scope::Fence, "", &format!("{kept}```\n"), stopped);
        check(Scope::Fence, "", "```\n", Some((FinishReason::Fence, "")));
        check(Scope::Text, "", "a\n\n\n```\nb\n```\n", None);
        let ended = "a\n```";
        assert_eq!(
            StopCriteria::new(Scope::Fence, "", &[]).keep_at_end(ended),
            2
        );
        assert_eq!(
            StopCriteria::new(Scope::Text, "", &[]).keep_at_end(ended),
            5
        );
    }

    #[test]
    fn what_the_line_closes_ends_the_text_when_it_is_all_closed() {
        let check = |closed: &[&str], generated: &str, expected: Option<&str>| {
            let closed: Vec<String> = closed.iter().map(|&it| it.to_owned()).collect();
            let mut stop = StopCriteria::new(Scope::Line, "", &closed);
            let ends = (0..=generated.len()).filter(|end| generated.is_char_boundary(*end));
            let mut stops = ends.filter_map(|end| stop.check(&generated[..end]));
            let stopped = stops
                .next()
                .map(|(reason, keep)| (reason, &generated[..keep]));
            assert_eq!(stopped, expected.map(|kept| (FinishReason::Closed, kept)));
        };
        check(
            &["\"", ")"],
            "hello\", name); more()",
            Some("hello\", name)"),
        );
        check(&["\"", ")"], "(hello) ', name);", None);
        check(&["\"", ")"], "a\", f(b), \"c", None);
        check(&["\""], "a \\\" b\"; c", Some("a \\\" b\""));
        check(
            &["\"\"\""],
            "the \"sum\".\"\"\" # x",
            Some("the \"sum\".\"\"\""),
        );
        check(&[">"], "Fn(A) -> Vec<B>> + C", Some("Fn(A) -> Vec<B>>"));
        check(&[], "a)\"", None);
    }

    #[test]
    fn repetitions_end() {
        let once = Some((FinishReason::Repetition, "\n        f()\n"));
        check(BLOCK, "", &format!("\n{}", "        f()\n".repeat(3)), once);
        let once = Some((FinishReason::Repetition, "\n        a()\n        b()\n"));
        let turns = "        a()\n        b()\n".repeat(3);
        check(BLOCK, "", &format!("\n{turns}"), once);
        let once = Some((FinishReason::Repetition, "1, 2, "));
        check(Scope::Line, "", &"1, 2, ".repeat(4), once);
        let once = Some((FinishReason::Repetition, "é漢"));
        check(Scope::Line, "", &"é漢".repeat(9), once);
        check(Scope::Line, "", &"-".repeat(80), None);
    }
}
