//! Solves a problem by drawing many programs and running them: those that pass the examples are
//! grouped by what they do on further inputs, and the largest groups win.
//!
//! After AlphaCode, arXiv 2203.07814, section 4.

pub mod judge;
pub mod problem;
pub mod variations;

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::{Desk, NothingWritten, Outcome, Output, Progress, Source};
use crate::engine::EngineError;
use crate::engine::request::{Draws, Input};
use crate::engine::stop::Scope;
use crate::text::syntax::Parsed;
use judge::{Judge, JudgeError};
use problem::{Problem, ProblemError};
use variations::variations;

/// The longest program, in tokens.
const BUDGET: usize = 160;

/// Temperatures of the draws after the likeliest, in percent: low ones keep to what is likely, high
/// ones find what is not.
const TEMPERATURES: &[u32] = &[60, 80, 100, 40];

/// Further inputs on which survivors are compared.
const VARIATIONS: usize = 8;

/// Programs that did the same on all further inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The program that was drawn first.
    pub program: String,
    /// How many different programs did the same.
    pub size: usize,
    /// What they did.
    behaviour: Vec<String>,
}

/// What was drawn and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Programs that were drawn.
    pub drawn: usize,
    /// Of these, those that differ from all before them.
    pub distinct: usize,
    /// Of these, those that parse.
    pub parsed: usize,
    /// Of these, those that pass the examples.
    pub passed: usize,
    /// Those that passed, the largest group first.
    pub clusters: Vec<Cluster>,
    /// The first program that parses, in case none passes.
    pub first: Option<String>,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            drawn,
            distinct,
            parsed,
            passed,
            clusters,
            ..
        } = self;
        write!(
            f,
            "{drawn} drawn, {distinct} distinct, {parsed} parsed, {passed} passed"
        )?;
        if !clusters.is_empty() {
            let sizes: Vec<_> = clusters
                .iter()
                .map(|cluster| cluster.size.to_string())
                .collect();
            write!(f, ", {} clusters of {}", clusters.len(), sizes.join(", "))?;
        }
        Ok(())
    }
}

/// Solves the problem that `source` states by drawing `draws` programs. Returns the evidence, and
/// at most `best` programs: one of each cluster, the largest first.
///
/// # Errors
///
/// See [`SolveError`]. Without a sandbox nothing is drawn.
pub fn solve(
    desk: &mut Desk<'_>,
    source: &Source,
    draws: usize,
    best: usize,
) -> Result<Outcome, SolveError> {
    let language = source.language;
    let problem = Problem::read(Path::new(&source.file_name), &source.text, language)?;
    let judge = Judge::find(language)?;
    let evidence = evidence(desk, &problem, &judge, draws)?;
    let mut notes = vec![evidence.to_string()];
    let complete = !evidence.clusters.is_empty();
    if !complete {
        notes.push("no program passes the examples; this is the first one that parses".to_owned());
    }
    let text = match evidence.clusters.len().min(best) {
        0 => evidence.first.ok_or(NothingWritten)?,
        1 => evidence.clusters[0].program.clone(),
        shown => {
            let comment = language.line_comment();
            let clusters = evidence.clusters[..shown].iter().enumerate();
            let headed = clusters.map(|(at, Cluster { program, size, .. })| {
                let number = at + 1;
                format!(
                    "{comment} {number} of {shown}: {size} drawn programs do the same.\n{program}"
                )
            });
            headed.collect::<Vec<_>>().join("\n\n")
        }
    };
    Ok(Outcome {
        output: Output::Text {
            language_id: language.id(),
            file_name: format!("solution.{}", language.extension()),
            text,
        },
        complete,
        notes,
    })
}

/// Draws the programs and tries them. Programs are judged while others are still being drawn.
///
/// # Errors
///
/// See [`SolveError`].
fn evidence(
    desk: &mut Desk<'_>,
    problem: &Problem,
    judge: &Judge,
    draws: usize,
) -> Result<Evidence, SolveError> {
    let cancel = desk.cancel.clone();
    let mut trial = Trial::new(problem, judge);
    draw(desk, problem, draws, |observer, _, program| {
        trial.add(program, &|| cancel.is_cancelled())?;
        let done = trial.evidence.drawn;
        let message = &trial.evidence.to_string();
        observer(Progress::Done {
            done,
            all: draws,
            message,
        });
        Ok(())
    })?;
    Ok(trial.evidence())
}

/// Draws programs, and passes each to `done` when it is finished, with the observer and the number
/// of its draw.
///
/// # Errors
///
/// See [`SolveError`].
pub fn draw(
    desk: &mut Desk<'_>,
    problem: &Problem,
    draws: usize,
    mut done: impl FnMut(&mut dyn FnMut(Progress<'_>), usize, String) -> Result<(), SolveError>,
) -> Result<(), SolveError> {
    // The prompt is the beginning of the program, which the model continues like a file: of the
    // forms of prompt that were tried, this one solves the most with the default model
    // (docs/decisions/004-leading-a-small-model.md).
    let input = Input::Continue {
        file_name: format!("solution.{}", problem.language.extension()),
        text: problem.stub.clone(),
    };
    let scope = match problem.function {
        Some(_) => Scope::Block { indent: 0 },
        None => Scope::Text,
    };
    let draws = Draws {
        count: draws,
        temperatures: TEMPERATURES,
    };
    desk.draw(input, scope, BUDGET, draws, |observer, draw, written| {
        done(observer, draw, problem.program(&written.text))
    })
}

/// Programs on trial.
#[derive(Debug)]
pub struct Trial<'a> {
    problem: &'a Problem,
    judge: &'a Judge,
    inputs: Vec<String>,
    seen: HashSet<String>,
    evidence: Evidence,
}

impl<'a> Trial<'a> {
    /// A trial of programs for `problem`.
    #[must_use]
    pub fn new(problem: &'a Problem, judge: &'a Judge) -> Self {
        Self {
            problem,
            judge,
            inputs: variations(problem, VARIATIONS),
            seen: HashSet::new(),
            evidence: Evidence::default(),
        }
    }

    /// Tries a program.
    ///
    /// # Errors
    ///
    /// If the sandbox cannot be set up.
    pub fn add(&mut self, program: String, cancelled: &impl Fn() -> bool) -> io::Result<()> {
        let Self {
            problem,
            judge,
            inputs,
            seen,
            evidence,
        } = self;
        evidence.drawn += 1;
        if !seen.insert(program.clone()) {
            return Ok(());
        }
        evidence.distinct += 1;
        let parsed = Parsed::new(&program, problem.language);
        if parsed.gave_up().is_some() || !parsed.errors().is_empty() {
            return Ok(());
        }
        evidence.parsed += 1;
        evidence.first.get_or_insert_with(|| program.clone());
        if !judge.passes(problem, &program, cancelled)? {
            return Ok(());
        }
        evidence.passed += 1;
        let behaviour = judge.behaviour(problem, &program, inputs, cancelled)?;
        let clusters = &mut evidence.clusters;
        match clusters
            .iter_mut()
            .find(|cluster| cluster.behaviour == behaviour)
        {
            Some(cluster) => cluster.size += 1,
            None => clusters.push(Cluster {
                program,
                size: 1,
                behaviour,
            }),
        }
        Ok(())
    }

    /// The evidence, with the largest cluster first.
    #[must_use]
    pub fn evidence(mut self) -> Evidence {
        // A stable sort: among equals, the one that was drawn first comes first.
        self.evidence
            .clusters
            .sort_by_key(|cluster| std::cmp::Reverse(cluster.size));
        self.evidence
    }
}

/// Why a problem is not solved.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// The source states no problem.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// Programs cannot be judged.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// Programs cannot be run.
    #[error("cannot run the programs: {0}")]
    Run(#[from] io::Error),
    /// The answer is empty.
    #[error(transparent)]
    Nothing(#[from] NothingWritten),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
