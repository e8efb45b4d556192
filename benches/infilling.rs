//! How many programs with a line missing run again with what Interline shows in its place:
//! `cargo bench --bench infilling -- PATH [ROWS [MODEL]]`, where PATH is HumanEval-Infilling's
//! `HumanEval-SingleLineInfilling.jsonl`, and MODEL a folder if not the default model's.
//!
//! The cursor stands on a blank line where the line was, and the answer is that of the completer with
//! all its rules; only its time limit is lifted. Beside it stands the same with nothing behind the
//! cursor, and what nothing and `pass` come to.

mod evaluation;

use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use evaluation::score;
use interline::completion::exclusion::Exclusion;
use interline::completion::{Completer, Settings};
use interline::config::{Config, Options};
use interline::context::Trigger;
use interline::document::Documents;
use interline::language::Language;
use interline::lsp::position::PositionEncoding;
use interline::task::solve::judge::Judge;
use interline::task::solve::problem::Problem;
use tower_lsp::ls_types::{Position, Uri};

#[derive(serde::Deserialize)]
struct Row {
    prompt: String,
    suffix: String,
    test: String,
    entry_point: String,
}

impl Row {
    /// Whether the program passes its tests with `line` in the hole.
    fn passes(&self, judge: &Judge, line: &str) -> anyhow::Result<bool> {
        let check = format!("check({})", self.entry_point);
        let json = serde_json::json!({"statement": "", "tests": [check]});
        let problem = Problem::from_json(&json.to_string(), Language::Python)?;
        let program = format!("{}{line}\n{}\n{}", self.prompt, self.suffix, self.test);
        Ok(judge.passes(&problem, &program, &|| false)?)
    }
}

/// Completes in documents that are each seen once.
struct Typist {
    completer: Completer,
    documents: Arc<Documents>,
    opened: usize,
}

impl Typist {
    fn new(model: Option<String>) -> anyhow::Result<Self> {
        let config = Config::from(Options {
            model: model.map(Into::into),
            time_limit_ms: Some(60_000),
            ..Options::default()
        });
        let (engine, _) = evaluation::engine(config.model.clone())?;
        let documents = Arc::new(Documents::new());
        let settings = Settings {
            config: Arc::new(config),
            exclusion: Arc::new(Exclusion::new(&[]).map_err(anyhow::Error::msg)?),
            engine: Arc::new(engine),
        };
        Ok(Self {
            completer: Completer::new(Arc::clone(&documents), settings),
            documents,
            opened: 0,
        })
    }

    /// What is shown between `before`, which ends with a line end, and `after`.
    async fn complete(&mut self, before: &str, after: &str) -> anyhow::Result<String> {
        self.opened += 1;
        let uri = format!("file:///{}/solution.py", self.opened).parse::<Uri>()?;
        let text = format!("{before}\n{after}");
        self.documents
            .open(uri.clone(), "python".to_owned(), 0, &text);
        let position = Position::new(before.matches('\n').count().try_into()?, 0);
        let snapshot = self
            .documents
            .snapshot(&uri, position, PositionEncoding::Utf16)
            .context("the document is open")?;
        let shown = self.completer.complete(&snapshot, Trigger::Automatic).await;
        self.documents.close(&uri);
        Ok(shown
            .map(|completions| completions.texts[0].clone())
            .unwrap_or_default())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let usage = "give the path of HumanEval-Infilling: cargo bench --bench infilling -- PATH [ROWS [MODEL]]";
    let Some((rows, model)) = evaluation::rows::<Row>(usage)? else {
        return Ok(());
    };
    let judge = Judge::find(Language::Python)?;
    let mut typist = Typist::new(model)?;
    let arms = ["nothing", "`pass`", "what is shown", "with nothing behind"];
    let mut passed = [0; 4];
    let mut total = 0;
    for row in &rows {
        let with = typist.complete(&row.prompt, &row.suffix).await?;
        let without = typist.complete(&row.prompt, "").await?;
        let last = row.prompt.lines().next_back().unwrap_or_default();
        let indentation = &last[..last.len() - last.trim_start().len()];
        let lines = [String::new(), format!("{indentation}pass"), with, without];
        total += 1;
        for (passed, line) in passed.iter_mut().zip(lines) {
            *passed += usize::from(row.passes(&judge, &line)?);
        }
        if total % 50 == 0 {
            writeln!(std::io::stderr(), "{total}: {passed:?}")?;
        }
    }
    let mut out = std::io::stdout().lock();
    for (arm, passed) in arms.into_iter().zip(passed) {
        writeln!(out, "{arm:<22}{}", score(passed, total))?;
    }
    Ok(())
}
