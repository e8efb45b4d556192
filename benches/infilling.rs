//! How many programs with a missing line work again with what Interline shows in its place: `cargo
//! bench --bench infilling -- PATH [ROWS [MODEL [TOKENS]]]`, where PATH is HumanEval-Infilling's
//! `HumanEval-SingleLineInfilling.jsonl`, MODEL a model folder (without it, the default model) and
//! TOKENS the longest prompt. Without TOKENS the prompt is as long as this machine reads in a second,
//! so that a busy machine gets a lower score.
//!
//! The cursor is on a blank line where the line was, and the answer is that of the completer with
//! all its rules; only its time limit is lifted. For comparison, the same is scored with nothing
//! after the cursor, and so are an empty text and `pass`.
//!
//! PATH may also be a file that `models/training/complete.py` has written: then its texts are
//! scored too. Its holes in held-out files have no tests. There a text is right if its first line
//! is the one that was there, apart from blanks around it. Each kind of hole is scored separately.

mod evaluation;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use evaluation::score;
use interline::server::settings::Options;
use interline::suggest::{Completer, Face};
use interline::tasks::solve::judge::Judge;
use interline::tasks::solve::problem::Problem;
use interline::text::context::Trigger;
use interline::text::document::Documents;
use interline::text::language::Language;
use interline::text::position::{PositionEncoding, position};
use ropey::Rope;

#[derive(serde::Deserialize)]
struct Row {
    prompt: String,
    suffix: String,
    canonical_solution: String,
    #[serde(flatten)]
    tests: Option<Tests>,
    #[serde(default = "single_line")]
    kind: String,
    #[serde(default = "solution")]
    file_name: String,
    /// Written by `complete.py`.
    written: Option<String>,
}

#[derive(serde::Deserialize)]
struct Tests {
    test: String,
    entry_point: String,
}

fn single_line() -> String {
    "single line".to_owned()
}

fn solution() -> String {
    "solution.py".to_owned()
}

impl Row {
    /// The text after the cursor, which is on a blank line where a whole one was.
    fn after_cursor(&self) -> String {
        let line_end = if self.tests.is_some() { "\n" } else { "" };
        format!("{line_end}{}", self.suffix)
    }

    /// Whether the program passes its tests with `text` in the hole, or the text begins with the
    /// line that was there.
    fn is_right(&self, judge: &Judge, text: &str) -> anyhow::Result<bool> {
        let Some(Tests { test, entry_point }) = &self.tests else {
            return Ok(first_line(text) == first_line(&self.canonical_solution));
        };
        let check = format!("check({entry_point})");
        let json = serde_json::json!({"statement": "", "tests": [check]});
        let problem = Problem::from_json(&json.to_string(), Language::Python)?;
        let program = format!("{}{text}{}\n{test}", self.prompt, self.after_cursor());
        Ok(judge.passes(&problem, &program, &|| false)?)
    }
}

/// The first line that is not blank, without the blanks around it.
fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default().trim_end()
}

/// Completes in documents, each of which is used once.
struct Typist {
    completer: Completer,
    documents: Arc<Documents>,
    opened: usize,
}

impl Typist {
    fn new(model: Option<String>, prompt_tokens: Option<usize>) -> anyhow::Result<Self> {
        let options = Options {
            model: model.map(Into::into),
            time_limit_ms: Some(60_000),
            ..Options::default()
        };
        let engine = Arc::new(evaluation::engine(options.model.clone())?);
        let documents = Arc::new(Documents::new());
        let mut settings = options.suggest(engine).map_err(anyhow::Error::msg)?;
        settings.prompt_tokens = prompt_tokens;
        Ok(Self {
            completer: Completer::new(Arc::clone(&documents), settings),
            documents,
            opened: 0,
        })
    }

    /// What is shown in the hole of `row`, with or without the text after its line.
    async fn complete(&mut self, row: &Row, with_suffix: bool) -> anyhow::Result<String> {
        self.opened += 1;
        let path = format!("/{}/{}", self.opened, row.file_name);
        let language = Language::of_file(Path::new(&path)).context("not a supported language")?;
        let uri = format!("file://{path}");
        let suffix = if with_suffix {
            row.after_cursor()
        } else {
            "\n".to_owned()
        };
        let text = format!("{}{suffix}", row.prompt);
        self.documents
            .open(&uri, path.into(), language.id().to_owned(), 0, &text);
        let encoding = PositionEncoding::Utf16;
        let cursor = position(&Rope::from_str(&text), row.prompt.len(), encoding);
        let snapshot = self
            .documents
            .snapshot(&uri, cursor, encoding)
            .context("the document is open")?;
        let shown = self
            .completer
            .complete(&snapshot, Trigger::Automatic, Face::Ghost)
            .await;
        self.documents.close(&uri);
        Ok(shown
            .map(|completions| completions.texts[0].clone())
            .unwrap_or_default())
    }
}

/// What may fill a hole, in the order of a row's texts.
const ARMS: [&str; 5] = [
    "nothing",
    "`pass`",
    "what is shown",
    "without a suffix",
    "written by the script",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let usage = "give the path of HumanEval-Infilling: cargo bench --bench infilling -- PATH [ROWS [MODEL [TOKENS]]]";
    let Some((rows, mut arguments)) = evaluation::rows::<Row>(usage)? else {
        return Ok(());
    };
    let tokens = arguments.get(1).map(|tokens| tokens.parse()).transpose()?;
    let model = arguments.drain(..).next();
    let judge = Judge::find(Language::Python)?;
    let mut typist = Typist::new(model, tokens)?;
    // For each kind and arm, how many texts are right, and of how many.
    let mut kinds: BTreeMap<&str, [(usize, usize); ARMS.len()]> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        let last = row.prompt.lines().next_back().unwrap_or_default();
        let indentation = &last[..last.len() - last.trim_start().len()];
        let texts = [
            Some(String::new()),
            Some(format!("{indentation}pass")),
            Some(typist.complete(row, true).await?),
            Some(typist.complete(row, false).await?),
            row.written.clone(),
        ];
        let arms = kinds.entry(&row.kind).or_default();
        for ((right, total), text) in arms.iter_mut().zip(texts) {
            if let Some(text) = text {
                *right += usize::from(row.is_right(&judge, &text)?);
                *total += 1;
            }
        }
        if number % 50 == 49 {
            writeln!(std::io::stderr(), "{}: {kinds:?}", number + 1)?;
        }
    }
    let mut out = std::io::stdout().lock();
    for (kind, arms) in kinds {
        writeln!(out, "{kind}")?;
        for (arm, (right, total)) in ARMS.into_iter().zip(arms) {
            // No script has written into the rows of the set itself.
            if total > 0 {
                writeln!(out, "  {arm:<22}{}", score(right, total))?;
            }
        }
    }
    Ok(())
}
