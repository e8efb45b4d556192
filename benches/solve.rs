//! How many problems are solved by one program and by the best of many: `cargo bench --bench solve
//! -- PATH [PROBLEMS]`, where PATH is MBPP in the form of CodeT's
//! `mbpp_sanitized_for_code_generation.jsonl`.
//!
//! A program is judged by all of a problem's tests; to choose one among many, only the first test
//! is given. Each score is printed with its interval.

mod evaluation;

use std::io::Write;
use std::time::Instant;

use evaluation::score;
use interline::engine::cancel::Cancel;
use interline::tasks::desk::Desk;
use interline::tasks::solve::judge::Judge;
use interline::tasks::solve::problem::Problem;
use interline::tasks::solve::{self, Trial};
use interline::text::language::Language;

/// The numbers of draws from which the best program is chosen.
const DRAWS: [usize; 2] = [20, 50];

#[derive(serde::Deserialize)]
struct Row {
    prompt: String,
    test: String,
}

impl Row {
    /// The problem with its first `checks` tests.
    fn problem(&self, checks: usize) -> anyhow::Result<Problem> {
        let asserts = self.test.lines().map(str::trim);
        let asserts = asserts.filter(|line| line.starts_with("assert"));
        let json = serde_json::json!({
            "statement": self.prompt,
            "stub": self.prompt,
            "tests": asserts.take(checks).collect::<Vec<_>>(),
        });
        Ok(Problem::from_json(&json.to_string(), Language::Python)?)
    }
}

fn main() -> anyhow::Result<()> {
    let usage = "give the path of MBPP: cargo bench --bench solve -- PATH [PROBLEMS]";
    let Some((rows, _)) = evaluation::rows::<Row>(usage)? else {
        return Ok(());
    };
    let engine = evaluation::engine(None)?;
    let judge = Judge::find(Language::Python)?;
    let (mut total, mut floor, mut greedy) = (0, 0, 0);
    let mut solved = DRAWS.map(|_| 0);
    let start = Instant::now();
    for row in &rows {
        let (all, first) = (row.problem(usize::MAX)?, row.problem(1)?);
        let mut observer = |_: interline::tasks::Progress<'_>| {};
        let mut desk = Desk {
            engine: &engine,
            cancel: &Cancel::default(),
            examples: Vec::new(),
            observer: &mut observer,
            show_prompt: None,
        };
        let mut programs = Vec::new();
        solve::draw(&mut desk, &first, DRAWS[1], |_, draw, program| {
            programs.push((draw, program));
            Ok(())
        })?;
        programs.sort_unstable();
        let right = |program: &str| judge.passes(&all, program, &|| false);
        total += 1;
        floor += usize::from(right(&first.program("\n    pass"))?);
        greedy += usize::from(right(&programs[0].1)?);
        for (draws, solved) in DRAWS.iter().zip(&mut solved) {
            let mut trial = Trial::new(&first, &judge);
            for (_, program) in &programs[..*draws] {
                trial.add(program.clone(), &|| false)?;
            }
            let best = trial.evidence().clusters.into_iter().next();
            *solved += usize::from(match best {
                Some(best) => right(&best.program)?,
                None => false,
            });
        }
        writeln!(
            std::io::stderr(),
            "{total}: {floor} {greedy} {solved:?}, {:?}",
            start.elapsed()
        )?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<28}{}", "a body of `pass`", score(floor, total))?;
    writeln!(
        out,
        "{:<28}{}",
        "the likeliest program",
        score(greedy, total)
    )?;
    for (draws, solved) in DRAWS.iter().zip(solved) {
        writeln!(
            out,
            "{:<28}{}",
            format!("the best of {draws}"),
            score(solved, total)
        )?;
    }
    drop(out);
    drop(engine);
    Ok(())
}
