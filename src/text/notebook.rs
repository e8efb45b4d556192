//! Notebooks: the cells of one are one text to the model, in their order.
//!
//! The client's documents are the cells, and a request is about one of them. The cells in the same
//! language are shown as they are, and all others as comments, because a notebook's prose says what
//! its code is about. A cell whose own language has no line comments is shown without the others.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ropey::Rope;

use super::document::{self, Snapshot};
use super::language;

/// The scheme of cells in VS Code. Their URIs are the notebook's with a fragment.
const CELL_SCHEME: &str = "vscode-notebook-cell:";

/// The most that is shown of a cell that becomes a comment, in bytes: prose may hold whole images.
const MAX_COMMENT_BYTES: usize = 2048;

/// The magics that run the rest of their cell in the notebook's own language. The others mean another
/// one: `%%bash`, `%%html`, `%%sql`.
const OWN_MAGICS: [&str; 5] = ["%%capture", "%%prun", "%%python", "%%time", "%%timeit"];

/// A cell of a notebook, as the notebook describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The URI of the document that holds its text.
    pub uri: String,
    /// Whether it is code. If not, it is prose, in whichever language.
    pub is_code: bool,
}

/// How the cells of a notebook change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CellsChange {
    /// The notebook was opened, with these cells.
    Open(Vec<Cell>),
    /// Cells were replaced.
    Splice {
        /// The first of them.
        start: usize,
        /// How many were removed.
        removed: usize,
        /// Those that took their place.
        added: Vec<Cell>,
    },
    /// These cells may be of another kind now.
    Kinds(Vec<Cell>),
    /// The notebook was closed, or its order is not known any more.
    Close,
}

/// The open notebooks by their URI.
#[derive(Debug, Default)]
pub(super) struct Notebooks {
    open: HashMap<String, Notebook>,
}

#[derive(Debug)]
struct Notebook {
    path: Arc<Path>,
    cells: Vec<Cell>,
}

impl Notebooks {
    /// Changes a notebook's cells. After a change that does not fit, the notebook's order is not known:
    /// it is forgotten, and its cells are single documents until it is opened again.
    pub(super) fn change(&mut self, uri: &str, path: &Path, change: CellsChange) {
        match change {
            CellsChange::Open(cells) => {
                let path = path.into();
                self.open.insert(uri.to_owned(), Notebook { path, cells });
            }
            CellsChange::Splice {
                start,
                removed,
                added,
            } => {
                let Some(notebook) = self.open.get_mut(uri) else {
                    return;
                };
                let end = start.saturating_add(removed);
                if end > notebook.cells.len() {
                    tracing::warn!(
                        "a change to the cells of {uri} is about cells that it does not have; its \
                         cells are single documents until it is opened again"
                    );
                    self.open.remove(uri);
                    return;
                }
                notebook.cells.splice(start..end, added);
            }
            CellsChange::Kinds(changed) => {
                let Some(notebook) = self.open.get_mut(uri) else {
                    return;
                };
                let changed = changed.iter().map(|cell| (&cell.uri, cell.is_code));
                let kinds: HashMap<_, _> = changed.collect();
                for cell in &mut notebook.cells {
                    if let Some(is_code) = kinds.get(&cell.uri) {
                        cell.is_code = *is_code;
                    }
                }
            }
            CellsChange::Close => {
                self.open.remove(uri);
            }
        }
    }

    /// The path of the notebook that a document is a cell of, and all of its cells in order.
    pub(super) fn of_cell(&self, uri: &str) -> Option<(Arc<Path>, &[Cell])> {
        let notebook = self
            .open
            .values()
            .find(|notebook| notebook.cells.iter().any(|cell| cell.uri == uri))?;
        Some((notebook.path.clone(), &notebook.cells))
    }
}

/// What the URIs of the cells of a notebook begin with, if a client that does not synchronize
/// notebooks opened a cell.
pub(super) fn common_uri(cell: &str) -> Option<&str> {
    let (notebook, _) = cell.split_once('#')?;
    notebook.starts_with(CELL_SCHEME).then_some(notebook)
}

/// What a notebook holds besides one of its cells.
#[derive(Clone, Debug)]
pub struct Others {
    /// Whether the cell itself is code.
    pub is_code: bool,
    /// The cells before it.
    pub before: Vec<Other>,
    /// The cells after it.
    pub after: Vec<Other>,
}

/// Another cell of a notebook.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its text.
    pub rope: Rope,
    /// The language the client opened it as.
    pub language_id: Arc<str>,
    /// Whether it is code.
    pub is_code: bool,
}

/// A text with a place in it, as the model sees it.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The text: the document's, or that of the whole notebook.
    pub rope: Cow<'a, Rope>,
    /// The place, in bytes.
    pub offset: usize,
    /// The base name of the file.
    pub file_name: String,
}

impl Snapshot {
    /// What the model sees: the document, or if it is a cell, its notebook.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        let alone = Shown {
            rope: Cow::Borrowed(&self.rope),
            offset: self.offset,
            file_name: self.shown_name(),
        };
        let Some(others) = &self.others else {
            return alone;
        };
        let is_alone = !others.is_code || is_foreign(&self.rope);
        let comment = language::line_comment(&self.language_id);
        if is_alone || comment.is_empty() {
            return alone;
        }
        let mut rope = Rope::new();
        for cell in &others.before {
            let shown = cell.shown(&self.language_id, comment);
            if shown.len_bytes() > 0 {
                rope.append(shown);
                rope.append(Rope::from_str(gap(&rope)));
            }
        }
        let offset = rope.len_bytes() + self.offset;
        rope.append(self.rope.clone());
        for cell in &others.after {
            let shown = cell.shown(&self.language_id, comment);
            if shown.len_bytes() > 0 {
                rope.append(Rope::from_str(gap(&rope)));
                rope.append(shown);
            }
        }
        Shown {
            rope: Cow::Owned(rope),
            offset,
            file_name: alone.file_name,
        }
    }

    /// The base name that the model sees. A cell has that of a file in its language, for its text is
    /// not what is in the notebook's own file.
    #[must_use]
    pub fn shown_name(&self) -> String {
        match self.others {
            Some(_) => {
                let extension = language::usual_extension(&self.language_id).unwrap_or_default();
                document::file_name(&self.path.with_extension(extension))
            }
            None => self.file_name(),
        }
    }
}

impl Other {
    /// The cell beside one in the language `language_id`, whose line comments begin with `comment`.
    fn shown(&self, language_id: &str, comment: &str) -> Rope {
        if self.is_code && *self.language_id == *language_id && !is_foreign(&self.rope) {
            return self.rope.clone();
        }
        let end = self.rope.len_bytes().min(MAX_COMMENT_BYTES);
        let end = self.rope.byte_to_char(end);
        let text = self.rope.slice(..end).to_string();
        let lines = text.lines().map(|line| format!("{comment} {line}"));
        let lines: Vec<_> = lines.map(|line| line.trim_end().to_owned()).collect();
        Rope::from(lines.join("\n"))
    }
}

/// What separates the next cell from the text before it: a blank line.
fn gap(before: &Rope) -> &'static str {
    let ends_line = before.chars_at(before.len_chars()).prev() == Some('\n');
    if ends_line { "\n" } else { "\n\n" }
}

/// Whether a magic on the first line of a code cell says that the rest is in another language.
fn is_foreign(code: &Rope) -> bool {
    let mut lines = code.lines();
    let first = lines.find(|line| line.chars().any(|char| !char.is_whitespace()));
    let Some(first) = first else { return false };
    let start: String = first.chars().take(32).collect();
    let magic = start.split_whitespace().next().unwrap_or_default();
    magic.starts_with("%%") && !OWN_MAGICS.contains(&magic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::document::Documents;
    use crate::text::position::{Position, PositionEncoding};

    const NOTEBOOK: &str = "file:///p/report.ipynb";

    /// A cell of a test: its name, its language (`markdown` is prose) and its text.
    type Written = (&'static str, &'static str, &'static str);

    fn cell((name, language_id, _): Written) -> Cell {
        Cell {
            uri: name.to_owned(),
            is_code: language_id != "markdown",
        }
    }

    fn open_texts(documents: &Documents, cells: &[Written]) {
        for (name, language_id, text) in cells {
            documents.open(name, "/p/c".into(), (*language_id).to_owned(), 1, text);
        }
    }

    fn change(documents: &Documents, change: CellsChange) {
        documents.change_cells(NOTEBOOK, Path::new("/p/report.ipynb"), change);
    }

    fn open(cells: &[Written]) -> Documents {
        let documents = Documents::new();
        open_texts(&documents, cells);
        let cells = cells.iter().copied().map(cell).collect();
        change(&documents, CellsChange::Open(cells));
        documents
    }

    /// What is shown with the cursor at this character of the cell's first line: the file's name, and
    /// the text with `$0`.
    #[track_caller]
    fn check(documents: &Documents, cell: &str, character: u32, expected: (&str, &str)) {
        let at = Position::new(0, character);
        let snapshot = documents.snapshot(cell, at, PositionEncoding::Utf16);
        let snapshot = snapshot.unwrap();
        let shown = snapshot.shown();
        let mut text = shown.rope.to_string();
        text.insert_str(shown.offset, "$0");
        assert_eq!((shown.file_name.as_str(), text.as_str()), expected);
    }

    const A: Written = ("a", "python", "import os\n");
    const B: Written = ("b", "markdown", "# Files\n\nAll *of* them:");
    const C: Written = ("c", "python", "os.");
    const D: Written = ("d", "python", "print(1)");

    #[test]
    fn the_cells_are_one_text() {
        let documents = open(&[A, B, C, D]);
        let whole = "import os\n\n# # Files\n#\n# All *of* them:\n\nos.$0\n\nprint(1)";
        check(&documents, "c", 3, ("report.py", whole));
        let first = "$0import os\n\n# # Files\n#\n# All *of* them:\n\nos.\n\nprint(1)";
        check(&documents, "a", 0, ("report.py", first));
    }

    #[test]
    fn prose_and_other_languages_are_shown_as_comments_or_alone() {
        let sql = ("s", "sql", "SELECT 1;\nSELECT 2;");
        let bash = ("e", "python", "\n%%bash -s\nls");
        let timed = ("t", "python", "%%time\nf()");
        let documents = open(&[sql, bash, timed, B, C]);
        let whole = "# SELECT 1;\n# SELECT 2;\n\n#\n# %%bash -s\n# ls\n\n%%time\nf()\n\n\
                     # # Files\n#\n# All *of* them:\n\nos.$0";
        check(&documents, "c", 3, ("report.py", whole));
        check(&documents, "s", 6, ("report", "SELECT$0 1;\nSELECT 2;"));
        check(&documents, "e", 0, ("report.py", "$0\n%%bash -s\nls"));
        check(
            &documents,
            "b",
            7,
            ("report", "# Files$0\n\nAll *of* them:"),
        );
        let image = "é".repeat(MAX_COMMENT_BYTES);
        let documents = open(&[C]);
        documents.open("i", "".into(), "markdown".to_owned(), 1, &image);
        let prose = Cell {
            uri: "i".to_owned(),
            is_code: false,
        };
        let added = CellsChange::Splice {
            start: 0,
            removed: 0,
            added: vec![prose],
        };
        change(&documents, added);
        let whole = format!("# {}\n\nos.$0", "é".repeat(MAX_COMMENT_BYTES / 2));
        check(&documents, "c", 3, ("report.py", &whole));
    }

    #[test]
    fn cells_move_come_go_and_change_their_kind() {
        let documents = open(&[A, C]);
        open_texts(&documents, &[D]);
        let splice = |start, removed, added: &[Written]| CellsChange::Splice {
            start,
            removed,
            added: added.iter().copied().map(cell).collect(),
        };
        change(&documents, splice(2, 0, &[D]));
        check(
            &documents,
            "c",
            3,
            ("report.py", "import os\n\nos.$0\n\nprint(1)"),
        );
        // The last one is moved to the front.
        change(&documents, splice(0, 3, &[D, A, C]));
        check(
            &documents,
            "c",
            3,
            ("report.py", "print(1)\n\nimport os\n\nos.$0"),
        );
        change(&documents, splice(0, 1, &[]));
        check(&documents, "c", 3, ("report.py", "import os\n\nos.$0"));
        let mut prose = cell(A);
        prose.is_code = false;
        change(&documents, CellsChange::Kinds(vec![prose]));
        check(&documents, "c", 3, ("report.py", "# import os\n\nos.$0"));
        change(&documents, CellsChange::Kinds(vec![cell(A), cell(B)]));
        check(&documents, "c", 3, ("report.py", "import os\n\nos.$0"));
        // Its text is not there, or wrong.
        documents.lose_step("a");
        check(&documents, "c", 3, ("report.py", "os.$0"));
        documents.close("a");
        check(&documents, "c", 3, ("report.py", "os.$0"));
        change(&documents, CellsChange::Close);
        check(&documents, "c", 3, ("c", "os.$0"));
    }

    #[test]
    fn a_change_that_does_not_fit_makes_the_cells_single_documents() {
        for (start, removed) in [(3, 0), (1, 2), (usize::MAX, usize::MAX)] {
            let documents = open(&[A, C]);
            let added = Vec::new();
            let splice = CellsChange::Splice {
                start,
                removed,
                added,
            };
            change(&documents, splice.clone());
            check(&documents, "c", 3, ("c", "os.$0"));
            change(&documents, splice);
        }
    }

    #[test]
    fn cells_of_a_client_without_notebooks_are_in_the_order_of_their_opening() {
        let documents = Documents::new();
        let path = "/p/report.ipynb";
        for (uri, language_id, text) in [
            (
                "vscode-notebook-cell:/p/report.ipynb#b",
                "python",
                "import os",
            ),
            ("vscode-notebook-cell:/p/other.ipynb#b", "python", "no"),
            ("file:///p/report.ipynb", "python", "no"),
            ("vscode-notebook-cell:/p/report.ipynb#c", "markdown", "Why"),
            ("vscode-notebook-cell:/p/report.ipynb#a", "python", "os."),
        ] {
            documents.open(uri, path.into(), language_id.to_owned(), 1, text);
        }
        let cell = "vscode-notebook-cell:/p/report.ipynb#a";
        let expected = ("report.py", "import os\n\n# Why\n\nos.$0");
        check(&documents, cell, 3, expected);
        documents.close("vscode-notebook-cell:/p/report.ipynb#b");
        check(&documents, cell, 3, ("report.py", "# Why\n\nos.$0"));
    }
}
