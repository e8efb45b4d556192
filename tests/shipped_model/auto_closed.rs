//! Places where an editor has closed what the user opened: whatever the shipped model writes there,
//! the line is not broken once it is accepted.

use std::sync::Arc;

use interline::engine::{Engine, EngineState};
use interline::server::settings::Options;
use interline::suggest::{Completer, Face};
use interline::text::context::Trigger;
use interline::text::document::Documents;
use interline::text::position::{Position, PositionEncoding};

use crate::support;

/// The language, and the text with the cursor at `$0`.
const PLACES: [(&str, &str); 16] = [
    (
        "javascript",
        "const user = load();\nconsole.log(\"Welcome, $0\")\n",
    ),
    ("javascript", "const total = 3;\nalert(`You owe ${$0}`);\n"),
    ("javascript", "const path = require('$0');\n"),
    ("python", "import os\nhome = os.environ.get(\"$0\")\n"),
    ("python", "name = \"x\"\nprint(f\"Dear {$0}\")\n"),
    (
        "python",
        "def area(w, h):\n    \"\"\"Return $0\"\"\"\n    return w * h\n",
    ),
    ("python", "prices = [1, 2]\nprint(sum($0))\n"),
    (
        "rust",
        "fn main() {\n    let n = 3;\n    println!(\"There are $0\");\n}\n",
    ),
    (
        "rust",
        "use std::collections::HashMap;\nfn count(words: &HashMap<$0>) {}\n",
    ),
    (
        "rust",
        "fn is_csv(line: &[u8]) -> bool {\n    line.starts_with(b\"$0\")\n}\n",
    ),
    (
        "go",
        "package main\n\nimport \"fmt\"\n\nfunc main() {\n\tfmt.Println(\"$0\")\n}\n",
    ),
    ("typescript", "const names: Array<$0> = [];\n"),
    (
        "json",
        "{\n  \"name\": \"tool\",\n  \"license\": \"$0\"\n}\n",
    ),
    (
        "html",
        "<form>\n  <input type=\"text\" name=\"$0\">\n</form>\n",
    ),
    ("markdown", "# Build\n\nRun `cargo $0` first.\n"),
    ("markdown", "# Notes\n\nThis is **$0** for now.\n"),
];

/// Whether the quotes and brackets of a line are balanced, by counting.
fn is_balanced(line: &str) -> bool {
    let mut open = Vec::new();
    let nested = line.chars().all(|char| match char {
        '(' | '[' | '{' => {
            open.push(char);
            true
        }
        ')' => open.pop() == Some('('),
        ']' => open.pop() == Some('['),
        '}' => open.pop() == Some('{'),
        _ => true,
    });
    let pairs = ["\"", "`", "**"]
        .iter()
        .all(|pair| line.matches(pair).count() % 2 == 0);
    let arrows = line.matches("->").count() + line.matches("=>").count();
    let angles = line.matches('<').count() + arrows == line.matches('>').count();
    nested && open.is_empty() && pairs && angles
}

#[tokio::test]
async fn an_accepted_text_does_not_break_the_line() {
    let engine = Arc::new(Engine::spawn(|_| Ok::<_, String>(support::model())));
    let mut state = engine.state();
    let ready = state.wait_for(|state| matches!(state, EngineState::Ready(_)));
    drop(ready.await.unwrap());
    let documents = Arc::new(Documents::new());
    let settings = Options::default().suggest(engine).unwrap();
    let completer = Completer::new(documents.clone(), settings);
    let mut shown = 0;
    let mut broken = Vec::new();
    for (number, (language, text)) in PLACES.into_iter().enumerate() {
        let (before, after) = text.split_once("$0").unwrap();
        let uri = format!("file:///{number}");
        let whole = format!("{before}{after}");
        documents.open(&uri, "/a".into(), language.to_owned(), 1, &whole);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let position = Position::new(
            before.matches('\n').count() as u32,
            (before.len() - line_start) as u32,
        );
        let snapshot = documents.snapshot(&uri, position, PositionEncoding::Utf8);
        for trigger in [Trigger::Automatic, Trigger::Invoked] {
            let snapshot = snapshot.as_ref().unwrap();
            let answer = completer.complete(snapshot, trigger, Face::Ghost).await;
            for text in answer.map(|it| it.texts).unwrap_or_default() {
                shown += 1;
                let rest = after.split('\n').next().unwrap_or_default();
                let line = format!("{}{text}{rest}", &before[line_start..]);
                if !is_balanced(&line) {
                    broken.push(line);
                }
            }
        }
    }
    assert_eq!(broken, [""; 0]);
    // Silence would be unbroken too.
    assert!(shown >= PLACES.len(), "only {shown} texts were shown");
}
