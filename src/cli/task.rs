//! `interline translate`, `generate`, `explain`, `document`, `test`, `fix` and `solve`.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};

use super::delivery::{Delivery, Original};
use super::{ready_engine, say};
use crate::engine::cancel::Cancel;
use crate::server::settings::Options;
use crate::suggest::record::Silence;
use crate::tasks::desk::Desk;
use crate::tasks::fix::Problem;
use crate::tasks::{Progress, Source, Task};
use crate::text::language::Language;

/// What a task is about.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The file, or - for standard input
    file: PathBuf,
    /// The lines to work on, counted from 1, as 5 or 5-12 [default: all]
    #[arg(long, value_name = "LINES")]
    lines: Option<Lines>,
    /// The language the file is in [default: by its extension]
    #[arg(long, value_name = "LANGUAGE")]
    from: Option<Language>,
    #[command(flatten)]
    how: How,
}

/// The arguments common to all tasks.
#[derive(Debug, clap::Args)]
struct How {
    /// Print the prompt on standard error
    #[arg(long)]
    show_prompt: bool,
    #[command(flatten)]
    delivery: Delivery,
}

/// The arguments of `interline translate`.
#[derive(Debug, clap::Args)]
pub struct Translate {
    /// The language to translate to
    #[arg(long, value_name = "LANGUAGE")]
    to: Language,
    #[command(flatten)]
    place: Place,
}

/// The arguments of `interline generate`.
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// What to write
    #[arg(long, value_name = "TEXT", requires = "to", conflicts_with = "file")]
    prompt: Option<String>,
    /// The language to write in, with --prompt
    #[arg(long, value_name = "LANGUAGE", requires = "prompt")]
    to: Option<Language>,
    /// A file in which a comment or docstring says what to write
    #[arg(required_unless_present = "prompt", requires = "line")]
    file: Option<PathBuf>,
    /// The line on which the comment or docstring ends, counted from 1
    #[arg(long, value_name = "LINE", requires = "file")]
    line: Option<usize>,
    #[command(flatten)]
    how: How,
}

/// The arguments of `interline fix`.
#[derive(Debug, clap::Args)]
pub struct Fix {
    /// What is wrong, and on which line; may be given several times
    #[arg(long = "problem", value_name = "LINE:TEXT", required = true)]
    problems: Vec<LineProblem>,
    #[command(flatten)]
    place: Place,
}

/// The arguments of `interline solve`.
#[derive(Debug, clap::Args)]
pub struct Solve {
    /// The problem: Markdown with inputs and outputs, a Python function with doctests, or JSON; - for
    /// Markdown on standard input
    file: PathBuf,
    /// The language to solve it in: Python or JavaScript
    #[arg(long, value_name = "LANGUAGE", default_value = "python")]
    to: Language,
    /// How many programs to generate
    #[arg(long, value_name = "N", default_value_t = 20)]
    draws: usize,
    /// How many programs to print: one from each group that behaves the same, the largest group first
    #[arg(long, value_name = "K", default_value_t = 1)]
    best: usize,
    #[command(flatten)]
    how: How,
}

/// Lines counted from 0, including the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lines {
    first: usize,
    last: usize,
}

impl FromStr for Lines {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected a line or FIRST-LAST, counted from 1";
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| -> Option<usize> { text.parse::<usize>().ok()?.checked_sub(1) };
        let lines = number(first).zip(number(last)).ok_or(FORM)?;
        let (first, last) = lines;
        (first <= last).then_some(Self { first, last }).ok_or(FORM)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct LineProblem {
    /// Counted from 0.
    line: usize,
    message: String,
}

impl FromStr for LineProblem {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "expected LINE:TEXT, with the line counted from 1";
        let (line, message) = text.split_once(':').ok_or(FORM)?;
        let Lines { first, last } = line.parse().map_err(|_| FORM)?;
        (first == last)
            .then_some(Self {
                line: first,
                message: message.trim().to_owned(),
            })
            .ok_or(FORM)
    }
}

impl Place {
    fn read(&self) -> anyhow::Result<(Source, Original)> {
        let (source, original) = read(&self.file, self.from)?;
        let Some(Lines { first, last }) = self.lines else {
            return Ok((source, original));
        };
        let start = line_start(&source, first)?;
        let end = line_start(&source, last)?;
        let end = source.text[end..]
            .find('\n')
            .map_or(source.text.len(), |at| end + at + 1);
        let selection = start..end;
        Ok((
            Source {
                selection,
                ..source
            },
            original,
        ))
    }

    pub(super) async fn perform(&self, task: Task, options: Options) -> anyhow::Result<bool> {
        let (source, original) = self.read()?;
        perform(options, &self.how, task, &source, &original).await
    }
}

impl Translate {
    pub(super) async fn run(&self, options: Options) -> anyhow::Result<bool> {
        self.place.perform(Task::Translate(self.to), options).await
    }
}

impl Generate {
    pub(super) async fn run(&self, options: Options) -> anyhow::Result<bool> {
        if let (Some(prompt), Some(language)) = (&self.prompt, self.to) {
            let source = Source {
                file_name: String::new(),
                language,
                text: String::new(),
                selection: 0..0,
            };
            let task = Task::Write(prompt.clone());
            let nowhere = Original::default();
            return perform(options, &self.how, task, &source, &nowhere).await;
        }
        let place = self.file.as_ref().zip(self.line);
        let (file, line) = place.context("name a file and a line")?;
        let (source, original) = read(file, None)?;
        let line = line.checked_sub(1).context("lines count from 1")?;
        let start = line_start(&source, line)?;
        let source = Source {
            selection: start..start,
            ..source
        };
        perform(options, &self.how, Task::Generate, &source, &original).await
    }
}

impl Fix {
    pub(super) async fn run(&self, options: Options) -> anyhow::Result<bool> {
        let (source, original) = self.place.read()?;
        let problem = |LineProblem { line, message }: &LineProblem| {
            Ok(Problem {
                offset: line_start(&source, *line)?,
                message: message.clone(),
            })
        };
        let problems: anyhow::Result<_> = self.problems.iter().map(problem).collect();
        let task = Task::Fix(problems?);
        perform(options, &self.place.how, task, &source, &original).await
    }
}

impl Solve {
    /// Running this command is the consent to run programs, so there is no question.
    pub(super) async fn run(&self, options: Options) -> anyhow::Result<bool> {
        ensure!(self.draws > 0, "at least one program must be generated");
        ensure!(self.best > 0, "at least one program must be printed");
        let (mut source, original) = read(&self.file, Some(self.to))?;
        if self.file == Path::new("-") {
            source.file_name = "problem.md".to_owned();
        }
        let task = Task::Solve {
            draws: self.draws,
            best: self.best,
        };
        perform(options, &self.how, task, &source, &original).await
    }
}

/// Reads the file, which is `-` for standard input.
fn read(file: &Path, language: Option<Language>) -> anyhow::Result<(Source, Original)> {
    let stdin = file == Path::new("-");
    let mut bytes = Vec::new();
    match stdin {
        true => std::io::stdin().read_to_end(&mut bytes).map(|_| ()),
        false => std::fs::read(file).map(|read| bytes = read),
    }
    .with_context(|| format!("cannot read {}", file.display()))?;
    let text = String::from_utf8(bytes)
        .with_context(|| format!("{} is not UTF-8 text", file.display()))?;
    let language = language
        .or_else(|| Language::of_file(file))
        .with_context(|| {
            format!(
                "the language of {} is not known; name it with --from",
                file.display()
            )
        })?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let source = Source {
        file_name: match stdin {
            true => format!("input.{}", language.extension()),
            false => name.into_owned(),
        },
        language,
        text: text.replace("\r\n", "\n"),
        selection: 0..0,
    };
    // Standard input has no path and no neighbouring files.
    let file = (!stdin).then(|| file.to_path_buf());
    Ok((source, Original { file, text }))
}

/// The byte offset at which a line begins.
fn line_start(source: &Source, line: usize) -> anyhow::Result<usize> {
    let mut starts =
        std::iter::once(0).chain(source.text.match_indices('\n').map(|(at, _)| at + 1));
    let count = source.text.lines().count();
    ensure!(line < count, "{} has only {count} lines", source.file_name);
    starts.nth(line).context("there is no such line")
}

/// Performs a task and delivers the outcome. Returns whether it is complete.
async fn perform(
    options: Options,
    how: &How,
    task: Task,
    source: &Source,
    original: &Original,
) -> anyhow::Result<bool> {
    let exclusion = options.exclusion().map_err(anyhow::Error::msg)?;
    let file = original.file.as_deref();
    if let Some(pattern) = file.and_then(|file| exclusion.of(file)) {
        bail!(Silence::Excluded(pattern.to_owned()));
    }
    let examples = task.examples(source, file, Some(Path::new(".")), &exclusion)?;
    let (engine, _) = ready_engine(&options, say).await?;
    let terminal = std::io::stderr().is_terminal();
    // This thread has nothing else to do.
    let mut observer = |progress: Progress<'_>| {
        match progress {
            Progress::Done { message, .. } if terminal => say(message),
            // The text is printed at the end, and need not be shown twice.
            _ => {}
        }
    };
    let mut show = |prompt: &str| say(&format!("the prompt:\n{prompt}"));
    let mut desk = Desk {
        engine: &engine,
        cancel: &Cancel::default(),
        examples,
        observer: &mut observer,
        show_prompt: how.show_prompt.then_some(&mut show),
    };
    let outcome = task.perform(&mut desk, source)?;
    how.delivery.deliver(&task, original, &outcome)?;
    Ok(outcome.complete)
}
