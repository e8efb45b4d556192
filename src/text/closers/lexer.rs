//! Reads a text for what is open at its end.

use super::rules::{Angle, Escape, Quote, REGEX, Raw, Rules, Tick};

/// Something that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Open {
    /// A bracket in code.
    Bracket(char),
    /// Type arguments. They need not be, where `<` may also compare: `true` if they surely are.
    Generics(bool),
    /// A tag.
    Tag,
    /// A string.
    String {
        close: String,
        quote: Quote,
        /// Whether what is in it is counted: not in a regular expression.
        plain: bool,
    },
    /// A comment; without an end of its own it ends with the line.
    Comment(Option<&'static str>),
    /// A bracket or a mark in prose, as it was opened. There, nothing surely closes it.
    Mark(&'static str),
}

/// Pairs of brackets in prose.
const PAIRS: [(&str, char); 4] = [("(", ')'), ("[", ']'), ("{", '}'), ("<", '>')];

/// How many things may be open at once.
const DEEPEST: usize = 256;

/// The state of reading a text.
#[derive(Clone, Debug)]
pub(super) struct Lexer {
    rules: Rules,
    open: Vec<Open>,
    /// Brackets in code that close nothing, and those left open where an outer one closes.
    pub(super) mismatches: usize,
    /// What is left open at the end of a line, a string or a comment that it should end in, or has
    /// no counterpart in prose.
    strays: usize,
    /// From this offset on, a `>` that closes nothing is a stray; before, it compares.
    rest: usize,
    /// Where the last string or mark was closed.
    closed_at: Option<usize>,
}

/// What a text leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) mismatches: usize,
    strays: usize,
    open: Vec<Open>,
}

impl End {
    /// How much of the line has no counterpart.
    pub(super) fn errors(&self) -> usize {
        self.mismatches + self.strays
    }

    /// Whether this end of a line is no worse than `other`.
    pub(super) fn is_as_good_as(&self, other: &Self) -> bool {
        self.errors() <= other.errors() && self.open == other.open
    }
}

impl Lexer {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            open: Vec::new(),
            mismatches: 0,
            strays: 0,
            rest: usize::MAX,
            closed_at: None,
        }
    }

    /// Goes on with another text, whose offsets begin at 0, and in which the rest of the line begins
    /// at `rest`.
    pub(super) fn go_on(&self, rest: usize) -> Self {
        Self {
            rest,
            closed_at: None,
            ..self.clone()
        }
    }

    /// Reads `text` from `at` on, up to the first border between two tokens that is not before `to`,
    /// and returns it.
    pub(super) fn read(&mut self, text: &str, mut at: usize, to: usize) -> usize {
        // Most bytes neither open nor close anything.
        let is_word = !self.rules.line_comment.starts_with(char::is_alphabetic);
        let is_plain = |byte: &u8| match byte {
            b' ' | b'\t' | b'.' | b',' => true,
            _ => is_word && (byte.is_ascii_alphanumeric() || !byte.is_ascii()),
        };
        while at < to {
            let plain = text.as_bytes()[at..to].iter().take_while(|it| is_plain(it));
            at = text.ceil_char_boundary(at + plain.count());
            if at < to {
                at = self.step(text, at);
            }
        }
        at
    }

    /// Ends the line, and with it the text.
    pub(super) fn end(mut self) -> End {
        self.end_line();
        End {
            mismatches: self.mismatches,
            strays: self.strays,
            open: self.open,
        }
    }

    /// Opens something, unless more is open than anyone would type.
    fn push(&mut self, open: Open) {
        match self.open.len() < DEEPEST {
            true => self.open.push(open),
            false => self.mismatches += 1,
        }
    }

    /// How many things are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// What closes the things that are open from `depth` on, the innermost first. A comment that
    /// the line ends has nothing that closes it.
    pub(super) fn closers(&self, depth: usize) -> impl Iterator<Item = String> {
        let open = self.open.iter().skip(depth).rev();
        open.filter_map(|open| match open {
            Open::Bracket(closer) => Some(closer.to_string()),
            Open::Generics(_) | Open::Tag => Some(">".to_owned()),
            Open::String { close, .. } => Some(close.clone()),
            Open::Comment(close) => close.map(str::to_owned),
            Open::Mark(mark) => {
                let pair = PAIRS.iter().find(|(opener, _)| opener == mark);
                Some(pair.map_or((*mark).to_owned(), |(_, closer)| closer.to_string()))
            }
        })
    }

    /// The string or comment around the place, or the code: where what is open in it begins.
    fn frame(&self) -> (Option<&Open>, usize) {
        let frame = self
            .open
            .iter()
            .rposition(|open| !matches!(open, Open::Mark(_)));
        match frame {
            Some(at) => (Some(&self.open[at]), at + 1),
            None => (None, 0),
        }
    }

    fn step(&mut self, text: &str, at: usize) -> usize {
        let rest = &text[at..];
        let Some(char) = rest.chars().next() else {
            return text.len();
        };
        let next = at + char.len_utf8();
        if matches!(char, '\n' | '\r') {
            self.end_line();
            return next;
        }
        match self.frame().0 {
            Some(Open::String { .. }) => self.step_in_string(text, at),
            Some(Open::Comment(close)) => match close {
                Some(close) if rest.starts_with(close) => {
                    let length = close.len();
                    self.close_frame();
                    at + length
                }
                _ => self.step_in_prose(text, at),
            },
            None if self.rules.prose => match self.begins_tag(rest) {
                true => {
                    self.push(Open::Tag);
                    next
                }
                false => match self.rules.block_comment {
                    Some((open, close)) if rest.starts_with(open) => {
                        self.push(Open::Comment(Some(close)));
                        at + open.len()
                    }
                    _ if char == '\\' && self.rules.angle != Angle::Tags => {
                        next + rest[1..].chars().next().map_or(0, char::len_utf8)
                    }
                    _ => self.step_in_prose(text, at),
                },
            },
            _ => self.step_in_code(text, at, char),
        }
    }

    fn begins_tag(&self, rest: &str) -> bool {
        self.rules.angle == Angle::Tags
            && !rest.starts_with("<!--")
            && rest.strip_prefix('<').is_some_and(|rest| {
                rest.starts_with(|char: char| char.is_alphabetic() || "/!?>".contains(char))
            })
    }

    fn step_in_code(&mut self, text: &str, at: usize, char: char) -> usize {
        let (before, rest) = text.split_at(at);
        let next = at + char.len_utf8();
        let in_tag = self.frame().0 == Some(&Open::Tag);
        let rules = self.rules;
        if self.ends_string_around(rest) {
            self.mismatches += 1;
            // Up to the string, which the quote then ends.
            let string = |open: &Open| matches!(open, Open::String { .. });
            let depth = self.open.iter().rposition(string).map_or(0, |at| at + 1);
            self.open.truncate(depth);
            return at;
        }
        if let Some((open, close)) = rules.block_comment
            && rest.starts_with(open)
            && !in_tag
        {
            self.push(Open::Comment(Some(close)));
            return at + open.len();
        }
        if let Some((_, close)) = rules.block_comment
            && rest.starts_with(close)
            && at >= self.rest
        {
            // The rest of the line ends a comment that has ended.
            self.strays += 1;
            return at + close.len();
        }
        if !in_tag && self.begins_line_comment(before, rest) {
            self.push(Open::Comment(None));
            return at + rules.line_comment.len();
        }
        if let Some(next) = self.open_string(before, rest) {
            return next;
        }
        match char {
            '\'' if rules.tick == Tick::Character => return self.read_tick(text, at),
            '/' if rules.regex && expects_value(before) => {
                self.push(Open::String {
                    close: REGEX.close.to_owned(),
                    quote: REGEX,
                    plain: false,
                });
            }
            '(' => self.push(Open::Bracket(')')),
            '[' => self.push(Open::Bracket(']')),
            '{' => self.push(Open::Bracket('}')),
            ')' | ']' | '}' => self.close_bracket(char),
            '<' if rules.angle == Angle::Generics => {
                if let Some(sure) = begins_generics(before, &rest[1..]) {
                    self.push(Open::Generics(sure));
                }
            }
            '>' if in_tag => self.close_frame(),
            '>' if rules.angle == Angle::Generics
                && !(before.ends_with(['-', '=']) && at != self.rest)
                && !rest.starts_with(">=") =>
            {
                match self.open.last() {
                    Some(Open::Generics(_)) => {
                        self.open.pop();
                    }
                    _ if at >= self.rest => self.strays += 1,
                    _ => {}
                }
            }
            ';' | '&' | '|' if matches!(self.open.last(), Some(Open::Generics(false))) => {
                self.open.pop();
            }
            _ => {}
        }
        next
    }

    /// Whether `rest` begins with the quote of the string around a hole, in which the language does
    /// not allow that quote.
    fn ends_string_around(&self, rest: &str) -> bool {
        let strings = self.open.iter().rev().find_map(|open| match open {
            Open::String { close, .. } => Some(close),
            _ => None,
        });
        self.rules.holes_end && strings.is_some_and(|close| rest.starts_with(close.as_str()))
    }

    fn begins_line_comment(&self, before: &str, rest: &str) -> bool {
        let mark = self.rules.line_comment;
        if mark.is_empty() || !rest.starts_with(mark) {
            return false;
        }
        match mark {
            // Elsewhere it is part of a name, a count or a colour.
            "#" | "REM" => before.is_empty() || before.ends_with(char::is_whitespace),
            _ => true,
        }
    }

    /// Opens the string that `rest` begins with, and returns where its text begins.
    fn open_string(&mut self, before: &str, rest: &str) -> Option<usize> {
        let rules = self.rules;
        let quote = rules
            .quotes
            .iter()
            .find(|quote| rest.starts_with(quote.open))?;
        let mut quote = *quote;
        let letters = before.len()
            - before
                .trim_end_matches(|char: char| char.is_alphanumeric() || "_$@".contains(char))
                .len();
        let letters = &before[before.len() - letters..];
        // An apostrophe in a word is no quote.
        if quote.open.starts_with('\'')
            && letters.ends_with(|char: char| char.is_alphanumeric() || char == '_')
            && !(letters.len() <= 2 && letters.chars().all(|char| rules.prefixes.contains(char)))
        {
            // Nor is it right in code, except between the digits of C++.
            let is_digit = |char: char| char.is_ascii_hexdigit();
            let separates = rules.raw == Raw::Parentheses
                && letters.ends_with(is_digit)
                && rest[1..].starts_with(is_digit);
            self.strays += usize::from(!separates);
            return Some(before.len() + 1);
        }
        self.note_opening(before.len());
        if !quote.hole_prefix.is_empty()
            && !letters.contains(|char| quote.hole_prefix.contains(char))
        {
            quote.holes = &[];
        }
        let mut start = before.len() + quote.open.len();
        let mut close = quote.close.to_owned();
        match rules.raw {
            Raw::Hashes => {
                let name = before.trim_end_matches('#');
                if name.ends_with('r') && matches!(last_word(name), "r" | "br" | "cr") {
                    close.push_str(&before[name.len()..]);
                    quote.escape = Escape::None;
                }
            }
            Raw::Parentheses if letters.ends_with('R') && quote.open == "\"" => {
                let name = rest[1..].split('(').next().unwrap_or_default();
                if name.len() <= 16 && !name.contains(char::is_whitespace) {
                    close = format!("){name}\"");
                    quote.escape = Escape::None;
                    quote.multiline = true;
                    start = (start + name.len() + 1).min(before.len() + rest.len());
                }
            }
            _ => {}
        }
        // C#'s verbatim strings.
        if letters.contains('@') && quote.open == "\"" {
            quote.escape = Escape::Doubled;
        }
        self.push(Open::String {
            close,
            quote,
            plain: true,
        });
        Some(start)
    }

    /// A character in quotes, or a name such as Rust's lifetimes.
    fn read_tick(&mut self, text: &str, at: usize) -> usize {
        let rest = &text[at + 1..];
        let mut chars = rest.chars();
        let (first, second) = (chars.next(), chars.next());
        match (first, second) {
            // As an editor has closed it.
            (Some('\''), _) => at + 2,
            (Some('\\'), _) => {
                let end = rest.char_indices().skip(2).take(12);
                let mut end = end.filter(|(_, char)| *char == '\'');
                match end.next() {
                    Some((end, _)) => at + 1 + end + 1,
                    None => {
                        self.strays += 1;
                        at + 1
                    }
                }
            }
            (Some(first), Some('\'')) => at + 1 + first.len_utf8() + 1,
            (Some(first), _) if first.is_alphabetic() || first == '_' => at + 1,
            _ if text[..at].ends_with(|char: char| char.is_alphanumeric() || char == '\'')
                && self.rules.raw == Raw::None =>
            {
                at + 1
            }
            _ => {
                self.strays += 1;
                at + 1
            }
        }
    }

    fn step_in_string(&mut self, text: &str, at: usize) -> usize {
        let rest = &text[at..];
        let (
            Some(Open::String {
                close,
                quote,
                plain,
            }),
            _,
        ) = self.frame()
        else {
            return text.len();
        };
        let mut chars = rest.chars();
        let (first, second) = (chars.next(), chars.next());
        let width = first.map_or(0, char::len_utf8);
        let both = at + width + second.map_or(0, char::len_utf8);
        for (open, hole_close) in quote.holes {
            if rest.starts_with(open) {
                // `{{` is a brace.
                if *open == "{" && second == Some('{') {
                    return both;
                }
                let (open, hole_close) = (open.len(), *hole_close);
                self.push(Open::Bracket(hole_close));
                return at + open;
            }
        }
        match quote.escape {
            Escape::With(escape) if first == Some(escape) => {
                return both;
            }
            Escape::Doubled if rest.starts_with(close.as_str()) => {
                let length = close.len();
                if rest[length..].starts_with(close.as_str()) {
                    return at + 2 * length;
                }
            }
            _ => {}
        }
        if rest.starts_with(close.as_str()) {
            let length = close.len();
            self.close_frame();
            self.closed_at = Some(at + length);
            return at + length;
        }
        if !plain {
            // A slash in a class does not end the expression.
            let class = rest.split(['\n', '\r']).next().unwrap_or_default();
            return match (first, class.find(']')) {
                (Some('['), Some(end)) => at + end,
                _ => at + width,
            };
        }
        self.step_in_prose(text, at)
    }

    fn step_in_prose(&mut self, text: &str, at: usize) -> usize {
        let (before, rest) = text.split_at(at);
        let last = before.chars().next_back();
        let Some(char) = rest.chars().next() else {
            return text.len();
        };
        let next = at + char.len_utf8();
        let (_, base) = self.frame();
        let find = |open: &[Open], mark: &'static str| {
            let found = open[base..].iter().rposition(|it| *it == Open::Mark(mark));
            found.map(|found| base + found)
        };
        let is_word = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
        for (opener, closer) in PAIRS {
            if rest.starts_with(opener) {
                let tag = |char: char| char.is_alphanumeric() || "/!>".contains(char);
                if char != '<' || rest[1..].starts_with(tag) {
                    self.push(Open::Mark(opener));
                }
                return next;
            }
            if char == closer {
                // The brackets around it must be closed first.
                let bracket = |open: &Open| match open {
                    Open::Mark(mark) => PAIRS[..3].iter().any(|(opener, _)| opener == mark),
                    _ => false,
                };
                let innermost = self.open[base..].iter().rposition(bracket);
                let found = match closer {
                    '>' => find(&self.open, opener),
                    _ => innermost
                        .map(|at| base + at)
                        .filter(|at| self.open[*at] == Open::Mark(opener)),
                };
                match found {
                    Some(found) => {
                        self.open.remove(found);
                    }
                    None if char != '>' || at >= self.rest => self.strays += 1,
                    None => {}
                }
                return next;
            }
        }
        let marks = match self.frame().0 {
            None => self.rules.marks,
            Some(_) => &["\"", "'", "`"],
        };
        let Some(mark) = marks.iter().find(|mark| rest.starts_with(**mark)) else {
            return next;
        };
        let after = rest[mark.len()..].chars().next();
        let end = at + mark.len();
        if let Some(found) = find(&self.open, mark) {
            let inside_word = matches!(*mark, "'" | "_") && is_word(after) && is_word(last);
            if !inside_word {
                self.open.remove(found);
                self.closed_at = Some(end);
            }
            return end;
        }
        let opens = match *mark {
            "'" | "_" | "__" => !is_word(last),
            // A bullet, or a product.
            "*" => after.is_none_or(|char| !char.is_whitespace()),
            // A price.
            "$" => after.is_none_or(|char| !char.is_whitespace() && !char.is_ascii_digit()),
            _ => true,
        };
        let is_blank = |char: Option<char>| char.is_none_or(char::is_whitespace);
        if opens {
            self.note_opening(at);
            self.push(Open::Mark(mark));
        } else if !is_blank(last) && !is_word(after) && *mark != "'" {
            // It closes what is not open.
            self.strays += 1;
        }
        end
    }

    /// A string that begins where another has just ended is none that anybody meant.
    fn note_opening(&mut self, at: usize) {
        self.strays += usize::from(self.closed_at == Some(at));
    }

    /// Closes the string, the comment or the tag around the place.
    fn close_frame(&mut self) {
        let (_, base) = self.frame();
        self.strays += self.open.len() - base;
        self.open.truncate(base - 1);
    }

    fn close_bracket(&mut self, closer: char) {
        let frame = |open: &Open| matches!(open, Open::String { .. } | Open::Comment(_));
        let base = self.open.iter().rposition(frame).map_or(0, |at| at + 1);
        let found = self.open[base..]
            .iter()
            .rposition(|open| *open == Open::Bracket(closer));
        let Some(found) = found else {
            self.mismatches += 1;
            return;
        };
        for left in &self.open[base + found + 1..] {
            match left {
                Open::Generics(sure) => self.strays += usize::from(*sure),
                _ => self.mismatches += 1,
            }
        }
        self.open.truncate(base + found);
    }

    fn end_line(&mut self) {
        let marks = |open: &Open| matches!(open, Open::Mark(_));
        while self.open.last().is_some_and(marks) {
            self.open.pop();
            self.strays += 1;
        }
        if matches!(self.open.last(), Some(Open::Comment(None))) {
            self.open.pop();
        }
        let unfinished = self
            .open
            .iter()
            .position(|open| matches!(open, Open::String { quote, .. } if !quote.multiline));
        if let Some(unfinished) = unfinished {
            self.open.truncate(unfinished);
            self.strays += 1;
        }
        while let Some(Open::Generics(sure)) = self.open.last() {
            self.strays += usize::from(*sure);
            self.open.pop();
        }
    }
}

fn last_word(text: &str) -> &str {
    let start = text.trim_end_matches(|char: char| char.is_alphanumeric() || char == '_');
    &text[start.len()..]
}

/// Whether a value is expected after `before`, so that a `/` does not divide.
fn expects_value(before: &str) -> bool {
    let line = before
        .rsplit(['\n', '\r'])
        .next()
        .unwrap_or_default()
        .trim_end();
    line.is_empty()
        || line.ends_with(|char| "(,=:[!&|?{};+~".contains(char))
        || matches!(last_word(line), "return" | "typeof" | "case" | "in" | "of")
}

/// Whether a `<` between these begins type arguments, and if so, whether it surely does.
fn begins_generics(before: &str, after: &str) -> Option<bool> {
    if after.starts_with(|char: char| char.is_whitespace() || "=<-".contains(char)) {
        return None;
    }
    let word = last_word(before);
    let directive = last_word(before.trim_end());
    if before.ends_with("::") || matches!(directive, "template" | "include" | "import") {
        return Some(true);
    }
    let first = word.chars().next()?;
    (!first.is_ascii_digit()).then(|| first.is_uppercase())
}
