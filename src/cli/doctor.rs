//! `interline doctor`: is everything there, does it work, how fast is it, and if not, what to do.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest, Sha256};
use tower_lsp::ls_types::{Position, Uri};

use super::{Config, Options, ready_completer, say};
use crate::model;
use crate::model::fim_template::FimTemplate;
use crate::model::manifest::Manifest;
use crate::model::tokenizer::Tokenizer;
use crate::runtime::Runtime;
use crate::text::context::Trigger;
use crate::text::document::Documents;
use crate::text::position::PositionEncoding;

/// The model completes this if it can complete anything.
const SMOKE_TEST: &str = "def add(a, b):\n    \"\"\"Return the sum of a and b.\"\"\"\n    return ";

/// Answers whether all is well.
pub(super) async fn run(options: Options) -> anyhow::Result<bool> {
    let config = Config::from(options);
    let directory = config.model.clone().or_else(model::default_directory);
    let directory = directory.context("there is no model folder; name one with --model");

    let mut healthy = report("runtime", runtime(&config));
    let model = directory.and_then(|directory| {
        let summary = files(&directory)?;
        Ok((directory, summary))
    });
    match model {
        Ok((directory, summary)) => {
            healthy &= report("model", Ok(summary));
            healthy &= report("template", template(&directory));
        }
        Err(error) => healthy &= report("model", Err(error)),
    }
    if healthy {
        healthy &= report("completion", completion(config).await);
    }
    Ok(healthy)
}

fn report(what: &str, result: anyhow::Result<String>) -> bool {
    let mut out = std::io::stdout().lock();
    let (mark, text) = match &result {
        Ok(text) => ("ok  ", text.clone()),
        Err(error) => ("FAIL", format!("{error:#}")),
    };
    // Nobody is left to tell if standard output is closed.
    let _ = writeln!(out, "{mark} {what:<10} {text}");
    result.is_ok()
}

fn runtime(config: &Config) -> anyhow::Result<String> {
    let runtime = Runtime::load_probed(&config.runtime, &mut say)?;
    let mut summary = format!(
        "ONNX Runtime {} on {} from {}",
        runtime.version,
        runtime.provider,
        runtime.path.display()
    );
    if let Some(reason) = &runtime.fallback {
        summary.push_str(&format!(" (not on the GPU: {reason})"));
    }
    Ok(summary)
}

/// Checks the model's files against its `SHA256SUMS`, where it has them.
fn files(directory: &Path) -> anyhow::Result<String> {
    let manifest = Manifest::read(directory)?;
    let path = directory.join("SHA256SUMS");
    let checked = match std::fs::read_to_string(&path) {
        Ok(sums) => {
            for line in sums.lines().filter(|line| !line.trim().is_empty()) {
                let (sum, name) = line
                    .split_once(char::is_whitespace)
                    .with_context(|| format!("{} is not a list of hashes", path.display()))?;
                let file = directory.join(name.trim_start_matches([' ', '*', '.', '/']));
                let bytes = std::fs::read(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                let digest = hex::encode(Sha256::digest(bytes));
                ensure!(
                    digest.eq_ignore_ascii_case(sum),
                    "{} is not the file it should be (its SHA-256 is {digest}); copy the model folder again",
                    file.display()
                );
            }
            "files verified"
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "no SHA256SUMS to verify with"
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let license = manifest.license.as_deref().unwrap_or("licence unknown");
    Ok(format!(
        "{} ({license}) from {}, {checked}",
        manifest.name,
        directory.display()
    ))
}

/// The prompt format's tokens are one id each, and text that looks like them is text.
fn template(directory: &Path) -> anyhow::Result<String> {
    let manifest = Manifest::read(directory)?;
    let tokenizer = Tokenizer::load(&directory.join(&manifest.tokenizer))?;
    let fim = FimTemplate::resolve(&tokenizer, manifest.fim.as_ref())?;
    if let Some(described) = &manifest.fim {
        let ids = tokenizer.encode(&described.middle);
        if ids.contains(&fim.middle) {
            bail!(
                "the text {:?} in a file would end the prompt",
                described.middle
            );
        }
    }
    Ok(format!(
        "{:?} with prefix {}, suffix {}, middle {}",
        fim.order, fim.prefix, fim.suffix, fim.middle
    ))
}

async fn completion(config: Config) -> anyhow::Result<String> {
    let documents = Arc::new(Documents::new());
    let uri: Uri = "untitled:smoke.py".parse()?;
    documents.open(uri.clone(), "python".to_owned(), 0, SMOKE_TEST);
    let end = Position::new(u32::MAX, 0);
    let snapshot = documents.snapshot(&uri, end, PositionEncoding::Utf16);
    let snapshot = snapshot.context("the document is not open")?;
    let (completer, ready) = ready_completer(config, documents).await?;
    let completions = completer.complete(&snapshot, Trigger::Automatic).await?;
    Ok(format!(
        "`return {}`; reads {:.0} and writes {:.0} tokens a second, prompts of up to {} tokens",
        completions.texts.first().map_or("", String::as_str),
        ready.prefill_speed,
        ready.decode_speed,
        ready.prompt_tokens
    ))
}
