//! `interline doctor`: checks whether everything is there and works, how fast it is, and if something
//! is wrong, what to do.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::{in_use, ready_completer, with_causes};
use crate::cache_folder::cache_folder;
use crate::engine::{CACHED_TOKENS, Ready};
use crate::model::manifest::Manifest;
use crate::model::needs::{self, MEGABYTE, Needs};
use crate::model::{choice, sums};
use crate::server::settings::Options;
use crate::suggest::{Completer, Face};
use crate::text::context::Trigger;
use crate::text::document::Documents;
use crate::text::position::{Position, PositionEncoding};
use crate::verified::Record;

/// The model completes this if it can complete anything.
const SMOKE_TEST: &str = "def add(a, b):\n    \"\"\"Return the sum of a and b.\"\"\"\n    return ";

/// Returns whether all is well. The report is the engine's own, and the engine is started as the
/// server starts it, so it shows what the server would use.
pub(super) async fn run(options: Options) -> anyhow::Result<bool> {
    // The engine's start will say why it cannot be told.
    let in_use = in_use(&options).unwrap_or_default();
    let why = match (&options.model, &in_use) {
        (Some(_), _) => "named by --model",
        (None, Some(_)) => "chosen with `interline model use`",
        (None, None) => "the default, as no other is chosen",
    };
    let directory = choice::folder(options.engine(in_use.as_ref()).model.as_deref());
    let directory = directory.map_err(anyhow::Error::from);
    let mut healthy = match directory {
        Ok(directory) => {
            let checked = match files(&directory) {
                Ok(text) => Ok(format!("{text}; {why}")),
                Err(error) => Err(error.context(why)),
            };
            let healthy = report("model", checked);
            report("memory", memory(&directory)) && healthy
        }
        Err(error) => report("model", Err(error)),
    };

    let documents = Arc::new(Documents::new());
    let unusable = |problem: &str| {
        healthy &= report("in use", Err(anyhow::Error::msg(problem.to_owned())));
    };
    let (completer, ready) = match ready_completer(&options, documents.clone(), unusable).await {
        Ok(both) => both,
        Err(error) => return Ok(report("engine", Err(error))),
    };
    let Ready {
        runs_on,
        prompt_format,
        prompt_tokens,
        chunk_tokens,
        lanes,
        line_time,
        prefill_speed,
        decode_speed,
        ..
    } = ready;
    healthy &= report("runtime", Ok(runs_on));
    healthy &= report("prompt", Ok(prompt_format));
    healthy &= report(
        "speed",
        Ok(format!(
            "reads {prefill_speed:.0} and writes {decode_speed:.0} tokens a second; prompts of up to \
             {prompt_tokens} tokens in passes of {chunk_tokens}, {lanes} texts at once, {} ms for a \
             completion",
            line_time.as_millis()
        )),
    );
    healthy &= report("completion", completion(&completer, &documents).await);
    Ok(healthy)
}

fn report(what: &str, result: anyhow::Result<String>) -> bool {
    let mut out = std::io::stdout().lock();
    let (mark, text) = match &result {
        Ok(text) => ("ok  ", text.clone()),
        Err(error) => ("FAIL", with_causes(error)),
    };
    // If standard output is closed, there is no one to tell.
    let _ = writeln!(out, "{mark} {what:<10} {text}");
    result.is_ok()
}

/// Checks the model's files against its `SHA256SUMS`, if it has one.
fn files(directory: &Path) -> anyhow::Result<String> {
    let manifest = Manifest::read(directory)?;
    let checked = match sums::check(directory, &Record::in_folder(cache_folder().as_deref()))? {
        Some(_) => "files verified",
        None => "no SHA256SUMS to verify with",
    };
    let license = manifest.license.as_deref().unwrap_or("licence unknown");
    Ok(format!(
        "{} ({license}) from {}, {checked}",
        manifest.name,
        directory.display()
    ))
}

/// The memory that the model needs, and what there is.
fn memory(directory: &Path) -> anyhow::Result<String> {
    let needs = Needs::estimate(directory, CACHED_TOKENS)?;
    Ok(match needs::available() {
        Some(available) => format!("{needs}; {} MB available", available / MEGABYTE),
        None => needs.to_string(),
    })
}

async fn completion(completer: &Completer, documents: &Documents) -> anyhow::Result<String> {
    let uri = "untitled:smoke.py";
    documents.open(uri, "smoke.py".into(), "python".to_owned(), 0, SMOKE_TEST);
    let end = Position::new(u32::MAX, 0);
    let snapshot = documents.snapshot(uri, end, PositionEncoding::Utf16);
    let snapshot = snapshot.context("the document is not open")?;
    let completions = completer
        .complete(&snapshot, Trigger::Automatic, Face::Ghost)
        .await?;
    let text = completions.texts.first().map_or("", String::as_str);
    Ok(format!("`return {text}`"))
}
