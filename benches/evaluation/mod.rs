//! What the benches that score the model have in common.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use interline::engine::{Engine, EngineState};
use interline::model::{Model, default_directory};
use interline::runtime::{Runtime, RuntimeOptions};
use serde::de::DeserializeOwned;

/// The rows of the set (JSON lines) that the first argument names, and the arguments from the third
/// on. The second argument limits the number of rows; they are spread over the set, because it is sorted.
/// If no set is named, prints `usage` and returns `None`.
pub(crate) fn rows<Row: DeserializeOwned>(
    usage: &str,
) -> anyhow::Result<Option<(Vec<Row>, Vec<String>)>> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let Some(path) = arguments.next() else {
        writeln!(std::io::stdout(), "{usage}")?;
        return Ok(None);
    };
    let most: usize = arguments
        .next()
        .map_or(Ok(usize::MAX), |count| count.parse())?;
    let rows = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let rows: Result<Vec<Row>, _> = rows.lines().map(serde_json::from_str).collect();
    let rows = rows?;
    let step = (rows.len() / most.clamp(1, rows.len().max(1))).max(1);
    let rows = rows.into_iter().step_by(step).take(most).collect();
    Ok(Some((rows, arguments.collect())))
}

/// An engine with the model of a folder, or the default model, once it can answer.
pub(crate) fn engine(model: Option<PathBuf>) -> anyhow::Result<Engine> {
    let engine = Engine::spawn(move |_| {
        let directory = model.or_else(default_directory);
        let directory = directory.context("the default model is not there")?;
        let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {})?;
        Model::load(&directory, &mut runtime).map_err(anyhow::Error::from)
    });
    loop {
        let state = engine.state().borrow().clone();
        match state {
            EngineState::Ready(_) => return Ok(engine),
            EngineState::Failed(problem) => bail!(problem),
            EngineState::Loading(_) => std::thread::yield_now(),
        }
    }
}

/// `solved` of `total` in percent, with the 95 % interval (Wilson's).
pub(crate) fn score(solved: usize, total: usize) -> String {
    let (n, p, z) = (total as f64, solved as f64 / total as f64, 1.96);
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let (low, high) = (100.0 * (middle - half), 100.0 * (middle + half));
    format!(
        "{:5.1} % ({low:.1} to {high:.1}), {solved} of {total}",
        100.0 * p
    )
}
