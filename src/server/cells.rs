//! Takes the messages about a notebook apart: into those about the documents that hold the texts of its
//! cells, which are documents like all others, and those about which cells it has.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower_lsp::ls_types::Uri;

use crate::text::notebook::{Cell, CellsChange};

/// The method of the message, among ourselves, that a notebook's cells change.
pub const CELLS_CHANGED: &str = "interline/didChangeCells";

/// The parameters of [`CELLS_CHANGED`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DidChangeCellsParams {
    /// The notebook.
    pub uri: Uri,
    /// How its cells change.
    change: SentChange,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum SentChange {
    Open(Vec<SentCell>),
    /// A `NotebookCellArrayChange`.
    #[serde(rename_all = "camelCase")]
    Splice {
        start: usize,
        delete_count: usize,
        cells: Option<Vec<SentCell>>,
    },
    Kinds(Vec<SentCell>),
    Close(()),
}

/// A `NotebookCell`.
#[derive(Debug, Deserialize)]
struct SentCell {
    document: String,
    kind: u32,
}

impl From<SentCell> for Cell {
    fn from(cell: SentCell) -> Self {
        Self {
            uri: cell.document,
            // A `NotebookCellKind`.
            is_code: cell.kind == 2,
        }
    }
}

impl From<DidChangeCellsParams> for CellsChange {
    fn from(params: DidChangeCellsParams) -> Self {
        let all = |cells: Vec<SentCell>| cells.into_iter().map(Cell::from).collect();
        match params.change {
            SentChange::Open(cells) => Self::Open(all(cells)),
            SentChange::Splice {
                start,
                delete_count,
                cells,
            } => Self::Splice {
                start,
                removed: delete_count,
                added: all(cells.unwrap_or_default()),
            },
            SentChange::Kinds(cells) => Self::Kinds(all(cells)),
            SentChange::Close(()) => Self::Close,
        }
    }
}

/// Whether a message is about a notebook, so that it has to be taken [apart].
#[must_use]
pub fn is_about_notebook(method: &str) -> bool {
    matches!(
        method,
        "notebookDocument/didOpen" | "notebookDocument/didChange" | "notebookDocument/didClose"
    )
}

/// The messages that a message about a notebook consists of, in the order in which they apply. What of
/// it cannot be read is left out; if that is about which cells there are, the notebook counts as closed.
#[must_use]
pub fn apart(method: &str, params: &mut Value) -> Vec<Map<String, Value>> {
    let uri = take(params, "/notebookDocument/uri");
    let changed = |change: Value| {
        let change = match SentChange::deserialize(&change) {
            Ok(_) => change,
            Err(why) => {
                tracing::warn!("the cells of a notebook cannot be read: {why}");
                json!({ "close": null })
            }
        };
        message(CELLS_CHANGED, json!({ "uri": uri, "change": change }))
    };
    let opened = |document| message("textDocument/didOpen", json!({ "textDocument": document }));
    let closed = |document| message("textDocument/didClose", json!({ "textDocument": document }));
    let mut apart = Vec::new();
    match method {
        "notebookDocument/didOpen" => {
            apart.extend(list(params, "/cellTextDocuments").map(opened));
            let cells = take(params, "/notebookDocument/cells");
            apart.push(changed(json!({ "open": cells })));
        }
        "notebookDocument/didChange" => {
            apart.extend(list(params, "/change/cells/structure/didOpen").map(opened));
            let closing = list(params, "/change/cells/structure/didClose");
            if params
                .pointer("/change/cells/structure")
                .is_some_and(|it| !it.is_null())
            {
                let splice = take(params, "/change/cells/structure/array");
                apart.push(changed(json!({ "splice": splice })));
            }
            apart.extend(closing.map(closed));
            let kinds = take(params, "/change/cells/data");
            if !kinds.is_null() {
                apart.push(changed(json!({ "kinds": kinds })));
            }
            apart.extend(list(params, "/change/cells/textContent").map(|mut text| {
                let document = take(&mut text, "/document");
                let changes = take(&mut text, "/changes");
                let params = json!({ "textDocument": document, "contentChanges": changes });
                message("textDocument/didChange", params)
            }));
        }
        _ => {
            apart.push(changed(json!({ "close": null })));
            apart.extend(list(params, "/cellTextDocuments").map(closed));
        }
    }
    apart
}

fn message(method: &str, params: Value) -> Map<String, Value> {
    let members = [("method", method.into()), ("params", params)];
    members
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

/// Takes what a JSON pointer leads to; null if it leads to nothing.
fn take(value: &mut Value, pointer: &str) -> Value {
    value
        .pointer_mut(pointer)
        .map(Value::take)
        .unwrap_or_default()
}

/// Takes the elements of the list that a JSON pointer leads to. Anything else than a list counts as an
/// element, so that it is found to be wrong.
fn list(value: &mut Value, pointer: &str) -> std::vec::IntoIter<Value> {
    let list = match take(value, pointer) {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other => vec![other],
    };
    list.into_iter()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::tests::TestServer;
    use super::*;
    use crate::engine::scripted::{Scripted, scripted};

    const NOTEBOOK: &str = "file:///project/report.ipynb";

    /// The URI of a cell, as VS Code writes it.
    fn uri(name: &str) -> String {
        format!("vscode-notebook-cell:/project/report.ipynb#{name}")
    }

    fn cell(name: &str, kind: u32) -> Value {
        json!({ "kind": kind, "document": uri(name), "metadata": { "tags": [] } })
    }

    fn document(name: &str, language_id: &str, text: &str) -> Value {
        json!({ "uri": uri(name), "languageId": language_id, "version": 1, "text": text })
    }

    /// A server with a notebook of three cells whose model writes `x()`.
    async fn start() -> (TestServer, Scripted) {
        let (model, scripted) = scripted(" x()");
        let mut server = TestServer::start_ready(model, &scripted).await;
        let notebook = json!({
            "uri": NOTEBOOK, "notebookType": "jupyter-notebook", "version": 1,
            "metadata": { "custom": {} },
            "cells": [cell("a", 2), cell("b", 1), cell("c", 2)],
        });
        let texts = [
            document("a", "python", "import os"),
            document("b", "markdown", "The *end*:"),
            document("c", "python", "y = "),
        ];
        let params = json!({ "notebookDocument": notebook, "cellTextDocuments": texts });
        server.notify("notebookDocument/didOpen", params).await;
        (server, scripted)
    }

    async fn change(server: &mut TestServer, cells: Value) {
        let params = json!({
            "notebookDocument": { "uri": NOTEBOOK, "version": 2 }, "change": { "cells": cells },
        });
        server.notify("notebookDocument/didChange", params).await;
    }

    /// Asks at the end of a cell with one line.
    async fn ask(server: &mut TestServer, name: &str, character: usize) -> Value {
        let position = json!({ "line": 0, "character": character });
        let params = json!({
            "textDocument": { "uri": uri(name) }, "position": position,
            "context": { "triggerKind": 2 },
        });
        let method = "textDocument/inlineCompletion";
        server.client.request(method, params).await.unwrap()
    }

    /// The model's prompt of the latest request that came to it.
    fn prompt(scripted: &Scripted, expected: Expect) {
        let shown = scripted.read();
        let end = shown.find("<fim_middle>").unwrap();
        expected.assert_eq(&shown[..end]);
    }

    #[tokio::test]
    async fn a_cell_is_completed_in_its_notebook() {
        let (mut server, scripted) = start().await;
        let answer = ask(&mut server, "c", 4).await;
        prompt(
            &scripted,
            expect![[r#"
            <filename>report.py
            <fim_suffix><fim_prefix>import os

            # The *end*:

            y ="#]],
        );
        let item = &answer["items"][0];
        let range =
            json!({ "start": { "line": 0, "character": 0 }, "end": { "line": 0, "character": 4 } });
        assert_eq!(item["range"], range);
        assert_eq!(item["insertText"], "y = x()");
        ask(&mut server, "a", 9).await;
        prompt(
            &scripted,
            expect![[r#"
            <filename>report.py
            <fim_suffix>

            # The *end*:

            y = <fim_prefix>import"#]],
        );
        // Prose is completed without code.
        ask(&mut server, "b", 10).await;
        prompt(
            &scripted,
            expect![[r#"
            <filename>report
            <fim_suffix><fim_prefix>The *end"#]],
        );
        server.end().await;
    }

    #[tokio::test]
    async fn the_cells_follow_the_notebook() {
        let (mut server, scripted) = start().await;
        // A cell is added at the end, another one deleted, and one edited.
        let added = json!({
            "array": { "start": 1, "deleteCount": 2, "cells": [cell("c", 2), cell("d", 2)] },
            "didOpen": [document("d", "python", "z = ")],
            "didClose": [{ "uri": uri("b") }],
        });
        let at = |character| json!({ "line": 0, "character": character });
        let edit = json!({
            "document": { "uri": uri("a"), "version": 2 },
            "changes": [{ "range": { "start": at(7), "end": at(9) }, "text": "re\n" }],
        });
        change(
            &mut server,
            json!({ "structure": added, "textContent": [edit] }),
        )
        .await;
        ask(&mut server, "d", 4).await;
        prompt(
            &scripted,
            expect![[r#"
            <filename>report.py
            <fim_suffix><fim_prefix>import re

            y = 

            z ="#]],
        );

        // A run of a cell changes nothing else.
        let mut run = cell("a", 2);
        run["executionSummary"] = json!({ "executionOrder": 1, "success": true });
        change(&mut server, json!({ "data": [run] })).await;
        // It is moved to the end, and becomes prose.
        let removed = json!({ "array": { "start": 0, "deleteCount": 1 } });
        change(&mut server, json!({ "structure": removed })).await;
        let back = json!({ "array": { "start": 2, "deleteCount": 0, "cells": [cell("a", 2)] } });
        change(&mut server, json!({ "structure": back })).await;
        change(&mut server, json!({ "data": [cell("a", 1)] })).await;
        ask(&mut server, "d", 4).await;
        prompt(
            &scripted,
            expect![[r#"
            <filename>report.py
            <fim_suffix>

            # import re<fim_prefix>y = 

            z ="#]],
        );

        // Half of a surrogate pair, as editors in JavaScript send it, and its other half.
        for (half, version) in [("\\ud83d", 3), ("\\ude00", 4)] {
            let edit = json!({
                "document": { "uri": uri("c"), "version": version },
                "changes": [{ "range": { "start": at(version - 3), "end": at(version - 3) }, "text": "HALF" }],
            });
            let params = json!({
                "notebookDocument": { "uri": NOTEBOOK, "version": version },
                "change": { "cells": { "textContent": [edit] } },
            });
            let message = json!({
                "jsonrpc": "2.0", "method": "notebookDocument/didChange", "params": params,
            });
            let body = message.to_string().replace("HALF", half);
            let bytes = crate::server::framing::frame(body.as_bytes());
            server.client.send_raw(&bytes).await.unwrap();
        }
        let text = server
            .command("interline.documentText", json!([uri("c")]))
            .await;
        assert_eq!(text, "😀y = ");

        let closed = [uri("a"), uri("c"), uri("d")].map(|uri| json!({ "uri": uri }));
        let params =
            json!({ "notebookDocument": { "uri": NOTEBOOK }, "cellTextDocuments": closed });
        server.notify("notebookDocument/didClose", params).await;
        let text = server
            .command("interline.documentText", json!([uri("c")]))
            .await;
        assert_eq!(text, Value::Null);
        server.end().await;
    }

    #[tokio::test]
    async fn the_name_of_the_notebook_excludes_its_cells() {
        let (mut server, _) = start().await;
        for (pattern, is_excluded) in [("other.ipynb", false), ("report.ipynb", true)] {
            let settings = json!({ "settings": { "interline": { "excludedFiles": [pattern] } } });
            server
                .notify("workspace/didChangeConfiguration", settings)
                .await;
            let items = ask(&mut server, "c", 4).await["items"].take();
            assert_eq!(items == json!([]), is_excluded, "{pattern}");
        }
        // The same from a client that does not synchronize notebooks.
        let single = json!({ "textDocument": document("d", "python", "y = ") });
        server.notify("textDocument/didOpen", single).await;
        assert_eq!(ask(&mut server, "d", 4).await, json!({ "items": [] }));
        server.end().await;
    }

    /// The messages that one about a notebook becomes: their methods, and of ours the change.
    fn check(method: &str, mut params: Value, expected: &[&str]) {
        let apart = apart(method, &mut params).into_iter();
        let shown = apart.map(|message| match message["method"].as_str() {
            Some(CELLS_CHANGED) => message["params"]["change"].to_string(),
            method => method.unwrap_or_default().to_owned(),
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{method}");
    }

    #[test]
    fn what_cannot_be_read_is_not_lost_in_silence() {
        let open = "notebookDocument/didOpen";
        let changed = "notebookDocument/didChange";
        let close = r#"{"close":null}"#;
        for params in [
            Value::Null,
            json!([]),
            json!("a"),
            json!({ "notebookDocument": 1 }),
        ] {
            check(open, params.clone(), &[close]);
            check(changed, params.clone(), &[]);
            check("notebookDocument/didClose", params, &[close]);
        }
        let of_cells = |cells: Value| json!({ "change": { "cells": cells } });
        check(changed, of_cells(json!({ "structure": {} })), &[close]);
        check(
            changed,
            of_cells(json!({ "structure": { "array": { "start": -1 } } })),
            &[close],
        );
        check(changed, of_cells(json!({ "data": [1] })), &[close]);
        check(
            changed,
            of_cells(json!({ "textContent": 1 })),
            &["textDocument/didChange"],
        );
        check(
            changed,
            of_cells(json!({ "textContent": [1] })),
            &["textDocument/didChange"],
        );
        check(changed, json!({ "change": { "metadata": {} } }), &[]);
    }
}
