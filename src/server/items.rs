//! Turns texts at the cursor into the items that editors show, and reads the events about them.

use serde::Deserialize;
use serde_json::json;
use tower_lsp::ls_types::{
    Command, CompletionItem, CompletionItemKind, CompletionList, CompletionTextEdit,
    InlineCompletionItem, InlineCompletionList, InsertTextMode, Range, TextEdit,
};

use super::commands::ACCEPT;
use crate::suggest::Completions;
use crate::text::document::Snapshot;
use crate::text::position::{self, PositionEncoding};

/// How much of the cursor's line an item repeats, in bytes. It repeats text only so that typing,
/// deleting and filtering go on from there, and a line may be as long as a file.
const REPEATED: usize = 256;

/// The longest label and filter text, in bytes.
const SHOWN: usize = 256;

/// How a client treats an item without a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRange {
    /// It inserts at the cursor. So does Neovim, which draws an item *with* a range over the text
    /// after the cursor, even if the range is empty.
    Inserts,
    /// It may replace what is after the cursor, as VS Code does: the rest of the line.
    Replaces,
}

impl NoRange {
    /// By the name that a client gives in `initialize`.
    #[must_use]
    pub fn of_client(name: Option<&str>) -> Self {
        match name {
            Some("Neovim") => Self::Inserts,
            _ => Self::Replaces,
        }
    }
}

/// Ghost text. `snapshot` is what the model saw. It differs from the document in `replaced`, the range
/// that the item selected in the editor's menu replaces, if there is one.
#[must_use]
pub fn inline_items(
    completions: &Completions,
    snapshot: &Snapshot,
    replaced: Option<Range>,
    encoding: PositionEncoding,
    no_range: NoRange,
) -> InlineCompletionList {
    let line = Line::at(snapshot);
    let cursor = position::position(&snapshot.rope, snapshot.offset, encoding);
    let (start, range) = match replaced {
        Some(range) => {
            let start = position::offset(&snapshot.rope, range.start, encoding);
            (start.min(snapshot.offset), Some(range))
        }
        // VS Code keeps ghost text in place while the user types if its range contains the typed text.
        // But it shows no item whose range contains a character of two UTF-16 units.
        None if line.suffix_is_blank => {
            let start = line.after_last(|char| char.len_utf16() > 1);
            let range = Range::new(position::position(&snapshot.rope, start, encoding), cursor);
            (start, Some(range))
        }
        None if no_range == NoRange::Inserts => (snapshot.offset, None),
        None => (snapshot.offset, Some(Range::new(cursor, cursor))),
    };
    let typed = snapshot.rope.byte_slice(start..snapshot.offset).to_string();
    let items = completions.texts.iter().map(|text| InlineCompletionItem {
        insert_text: format!("{typed}{text}"),
        filter_text: None,
        range,
        command: Some(accept(completions.id)),
        insert_text_format: None,
    });
    InlineCompletionList {
        items: items.collect(),
    }
}

/// Menu items, for editors without ghost text: the word before the cursor and what follows it.
#[must_use]
pub fn menu_items(
    completions: &Completions,
    snapshot: &Snapshot,
    encoding: PositionEncoding,
) -> CompletionList {
    let line = Line::at(snapshot);
    let start = line.after_last(|char| !(char.is_alphanumeric() || char == '_'));
    let range = Range::new(
        position::position(&snapshot.rope, start, encoding),
        position::position(&snapshot.rope, snapshot.offset, encoding),
    );
    let word = &line.prefix[start - line.start..];
    let items = completions.texts.iter().enumerate().map(|(index, text)| {
        let new_text = format!("{word}{text}");
        let first = new_text.trim_start().lines().next().unwrap_or_default();
        // What is typed is compared with how it begins.
        let first = first[..first.floor_char_boundary(SHOWN)].to_owned();
        CompletionItem {
            label: first.clone(),
            kind: Some(CompletionItemKind::TEXT),
            detail: Some("Interline".to_owned()),
            // Before the items of all other servers, and in this order.
            sort_text: Some(format!("\u{1}{index}")),
            filter_text: Some(first),
            // The lines are indented as they should be.
            insert_text_mode: new_text.contains('\n').then_some(InsertTextMode::AS_IS),
            preselect: Some(index == 0),
            text_edit: Some(CompletionTextEdit::Edit(TextEdit { range, new_text })),
            command: Some(accept(completions.id)),
            ..CompletionItem::default()
        }
    });
    CompletionList {
        // What fits changes with every character, and asking again costs little.
        is_incomplete: true,
        items: items.collect(),
    }
}

fn accept(id: u64) -> Command {
    Command {
        title: "Interline: accepted".to_owned(),
        command: ACCEPT.to_owned(),
        arguments: Some(vec![json!(id)]),
    }
}

/// The cursor's line, near the cursor.
struct Line {
    /// The byte offset at which `prefix` begins.
    start: usize,
    /// Its text before the cursor, or the end of it.
    prefix: String,
    /// Whether there is only whitespace after the cursor.
    suffix_is_blank: bool,
}

impl Line {
    fn at(snapshot: &Snapshot) -> Self {
        let rope = &snapshot.rope;
        let line = rope.byte_to_line(snapshot.offset);
        let near = rope.byte_to_char(snapshot.offset.saturating_sub(REPEATED));
        let start = rope.line_to_byte(line).max(rope.char_to_byte(near));
        let rest = rope.byte_slice(snapshot.offset..rope.line_to_byte(line + 1));
        Self {
            start,
            prefix: rope.byte_slice(start..snapshot.offset).to_string(),
            suffix_is_blank: rest.chars().all(char::is_whitespace),
        }
    }

    /// The offset after the last character before the cursor for which `is_such` holds, or where
    /// `prefix` begins.
    fn after_last(&self, is_such: impl Fn(char) -> bool) -> usize {
        let at = self.prefix.rfind(is_such);
        self.start + at.map_or(0, |at| self.prefix.ceil_char_boundary(at + 1))
    }
}

/// `textDocument/didShowCompletion`: the user sees the item.
#[derive(Clone, Debug, Deserialize)]
pub struct DidShowCompletionParams {
    /// The item.
    pub item: InlineCompletionItem,
}

/// `textDocument/didPartiallyAcceptCompletion`: the user accepted the beginning of the item.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DidPartiallyAcceptCompletionParams {
    /// The item.
    pub item: InlineCompletionItem,
    /// UTF-16 units from the beginning of the item's text.
    pub accepted_length: usize,
}

/// The request that an item came from, if it is one of ours.
#[must_use]
pub fn request_id(item: &InlineCompletionItem) -> Option<u64> {
    let command = item
        .command
        .as_ref()
        .filter(|command| command.command == ACCEPT)?;
    command.arguments.as_ref()?.first()?.as_u64()
}

#[cfg(test)]
mod tests {
    use tower_lsp::ls_types::Position;

    use super::*;
    use crate::text::document::Documents;

    fn snapshot(text: &str) -> Snapshot {
        let documents = Documents::new();
        let offset = text.find("$0").unwrap();
        documents.open(
            "file:///a.py",
            "/a.py".into(),
            "python".to_owned(),
            1,
            &text.replacen("$0", "", 1),
        );
        let start = Position::new(0, 0);
        let snapshot = documents
            .snapshot("file:///a.py", start, PositionEncoding::Utf16)
            .unwrap();
        Snapshot { offset, ..snapshot }
    }

    fn completions(texts: &[&str]) -> Completions {
        Completions {
            id: 7,
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    /// The range as `line:character-line:character`, and the text.
    fn inline(text: &str, completion: &str) -> (String, String) {
        let list = inline_items(
            &completions(&[completion]),
            &snapshot(text),
            None,
            PositionEncoding::Utf16,
            NoRange::Replaces,
        );
        let item = &list.items[0];
        assert_eq!(request_id(item), Some(7));
        (show(item.range.unwrap()), item.insert_text.clone())
    }

    fn show(Range { start, end }: Range) -> String {
        format!(
            "{}:{}-{}:{}",
            start.line, start.character, end.line, end.character
        )
    }

    fn pair(range: &str, text: &str) -> (String, String) {
        (range.to_owned(), text.to_owned())
    }

    #[test]
    fn ghost_text_at_the_end_of_a_line_replaces_the_line() {
        assert_eq!(inline("a\n  éb$0\nc", " = 1"), pair("1:0-1:4", "  éb = 1"));
        assert_eq!(inline("a\n  😀b$0\nc", " = 1"), pair("1:4-1:5", "b = 1"));
        assert_eq!(inline("a$0", "b"), pair("0:0-0:1", "ab"));
    }

    #[test]
    fn an_item_repeats_only_the_end_of_a_long_line() {
        let line = "é = x + ".repeat(1_000_000);
        let (range, text) = inline(&format!("{line}y$0"), "z");
        assert!(text.len() < 300 && text.ends_with(" = x + yz"), "{text}");
        assert_eq!(range.split_once("-0:").unwrap().1, "8000001");
        let word = "é".repeat(1_000_000);
        let list = menu_items(
            &completions(&["(\n    a,\n)", "é"]),
            &snapshot(&format!("{word}$0")),
            PositionEncoding::Utf16,
        );
        assert!(json!(list).to_string().len() < 4000);
        let long = "é".repeat(1000);
        let item = &menu_items(
            &completions(&[&long]),
            &snapshot("x = y$0"),
            PositionEncoding::Utf16,
        )
        .items[0];
        assert!(item.label.len() < 300 && item.filter_text.as_ref() == Some(&item.label));
        let Some(CompletionTextEdit::Edit(edit)) = &item.text_edit else {
            panic!("{item:?}");
        };
        assert_eq!(edit.new_text, format!("y{long}"));
    }

    #[test]
    fn ghost_text_before_other_text_replaces_nothing() {
        assert_eq!(inline("f($0)\n", "x"), pair("0:2-0:2", "x"));
    }

    #[test]
    fn neovim_gets_no_range_that_it_would_draw_over_other_text() {
        let range = |text: &str, client: &str| {
            let list = inline_items(
                &completions(&["x"]),
                &snapshot(text),
                None,
                PositionEncoding::Utf16,
                NoRange::of_client(Some(client)),
            );
            list.items[0].range.map(show)
        };
        assert_eq!(range("f($0)\n", "Neovim"), None);
        assert_eq!(range("f($0\n", "Neovim").as_deref(), Some("0:0-0:2"));
        assert_eq!(
            range("f($0)\n", "Visual Studio Code").as_deref(),
            Some("0:2-0:2")
        );
    }

    #[test]
    fn ghost_text_continues_the_selected_menu_item() {
        let replaced = Range::new(Position::new(0, 4), Position::new(0, 6));
        let list = inline_items(
            &completions(&["(x)"]),
            &snapshot("a = print$0"),
            Some(replaced),
            PositionEncoding::Utf16,
            NoRange::Replaces,
        );
        let item = &list.items[0];
        assert_eq!(item.insert_text, "print(x)");
        assert_eq!(item.range, Some(replaced));
    }

    #[test]
    fn a_menu_item_replaces_the_word_before_the_cursor() {
        let list = menu_items(
            &completions(&["(a)\nb", "(c)"]),
            &snapshot("é = prin$0"),
            PositionEncoding::Utf8,
        );
        let labels: Vec<&str> = list.items.iter().map(|item| item.label.as_str()).collect();
        assert_eq!(labels, ["prin(a)", "prin(c)"]);
        assert_eq!(list.items[0].preselect, Some(true));
        let modes: Vec<_> = list
            .items
            .iter()
            .map(|item| item.insert_text_mode)
            .collect();
        assert_eq!(modes, [Some(InsertTextMode::AS_IS), None]);
        let Some(CompletionTextEdit::Edit(edit)) = &list.items[0].text_edit else {
            panic!("{list:?}");
        };
        assert_eq!(
            (show(edit.range).as_str(), edit.new_text.as_str()),
            ("0:5-0:9", "prin(a)\nb")
        );
    }
}
