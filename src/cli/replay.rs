//! `interline replay FILE`: types a file, or functions in the middle of it, through the real server,
//! and reports what each keystroke costs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::{ready_engine, say};
use crate::server;
use crate::server::client::{Client, file_uri};
use crate::server::commands::WHY;
use crate::server::settings::{EngineOptions, Options};
use crate::text::language::{Language, id_of_file};
use crate::text::syntax::{ItemKind, Parsed};

/// The arguments of `interline replay`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file to type, from its first character to its last
    file: PathBuf,
    /// Type the bodies of this many functions instead, each with the rest of the file around it
    #[arg(long, value_name = "N")]
    functions: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one keystroke cost.
#[derive(Clone, Debug)]
struct Keystroke {
    /// From the edit's first byte to the answer's last.
    answer: Duration,
    /// Time in the model's forward passes.
    model: Duration,
    computed: usize,
    reused: usize,
    shown: bool,
    /// Whether the model was asked.
    asked: bool,
}

/// The median and the tail of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

impl Percentiles {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            // The nearest rank: the smallest value that `share` of the values do not exceed.
            let rank = (share * values.len() as f64).ceil() as usize;
            values
                .get(rank.saturating_sub(1))
                .copied()
                .unwrap_or_default()
        };
        Self {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
        }
    }
}

/// What a replay prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    keystrokes: usize,
    /// Keystrokes at which something was shown.
    shown: usize,
    /// Keystrokes at which the model was asked.
    asked: usize,
    answer_ms: Percentiles,
    outside_model_ms: Percentiles,
    /// Over all keystrokes.
    new_prompt_tokens: Percentiles,
    /// Over the keystrokes at which the model was asked.
    new_prompt_tokens_when_asked: Percentiles,
    /// The share of all prompt tokens that was reused, `0..=1`.
    reused_share: f64,
}

pub(super) async fn run(arguments: &Arguments, options: Options) -> anyhow::Result<bool> {
    let file = &arguments.file;
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {} as text", file.display()))?;
    let typings = match arguments.functions {
        None => vec![Typing {
            before: "",
            typed: &text,
            after: "",
        }],
        Some(count) => functions(file, &text, count)?,
    };
    let (engine, _) = ready_engine(&options, say).await?;
    let engine = Arc::new(engine);
    let (near, far) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(far);
    let start = Arc::new(move |_: &EngineOptions| engine.clone());
    let server = tokio::spawn(server::serve(input, output, options, start, None));
    let absolute = std::path::absolute(file)?;
    let uri = file_uri(&absolute).with_context(|| format!("{} has no URI", absolute.display()))?;
    let keystrokes = type_through(Client::new(near), &uri, id_of_file(file), &typings).await?;
    server.await?;
    let summary = summarize(&keystrokes);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?;
    } else {
        print(&summary, &mut out)?;
    }
    Ok(true)
}

/// A text to type between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Typing<'a> {
    before: &'a str,
    typed: &'a str,
    after: &'a str,
}

/// The bodies of at most `count` functions, from all over the file, each between the text before and
/// after it.
fn functions<'a>(file: &Path, text: &'a str, count: usize) -> anyhow::Result<Vec<Typing<'a>>> {
    let language = Language::of_file(file)
        .with_context(|| format!("the language of {} is not known", file.display()))?;
    let parsed = Parsed::new(text, language);
    let lines = text.match_indices('\n').map(|(end, _)| end + 1);
    let enclosing = lines.filter_map(|start| parsed.item_at(start));
    let functions = enclosing.filter(|item| item.kind == ItemKind::Function);
    let mut bodies: Vec<_> = functions.filter_map(|function| function.body).collect();
    bodies.sort_unstable_by_key(|body| body.start);
    bodies.dedup();
    ensure!(
        !bodies.is_empty() && count > 0,
        "there is no function to type in {}",
        file.display()
    );
    let step = bodies.len().div_ceil(count);
    let chosen = bodies.into_iter().step_by(step).map(|body| Typing {
        before: &text[..body.start],
        typed: &text[body.clone()],
        after: &text[body.end..],
    });
    Ok(chosen.collect())
}

async fn type_through(
    mut client: Client,
    uri: &str,
    language: &str,
    typings: &[Typing<'_>],
) -> anyhow::Result<Vec<Keystroke>> {
    client
        .request("initialize", json!({"capabilities": {}}))
        .await?;
    client.notify("initialized", json!({})).await?;
    let mut keystrokes = Vec::new();
    let mut version = 0;
    for Typing {
        before,
        typed,
        after,
    } in typings
    {
        version += 1;
        let text = format!("{before}{after}");
        let document =
            json!({"uri": uri, "languageId": language, "version": version, "text": text});
        client
            .notify("textDocument/didOpen", json!({"textDocument": document}))
            .await?;
        let mut line = before.matches('\n').count();
        let last = before.rsplit('\n').next().unwrap_or_default();
        let mut character = last.encode_utf16().count();
        for typed in typed.chars() {
            version += 1;
            let from = json!({"line": line, "character": character});
            match typed {
                '\n' => (line, character) = (line + 1, 0),
                _ => character += typed.len_utf16(),
            }
            let to = json!({"line": line, "character": character});
            keystrokes.push(keystroke(&mut client, uri, version, [from, to], typed).await?);
        }
        let closed = json!({"textDocument": {"uri": uri}});
        client.notify("textDocument/didClose", closed).await?;
    }
    client.request("shutdown", Value::Null).await?;
    client.notify("exit", Value::Null).await?;
    Ok(keystrokes)
}

/// Types one character, from the first position to the second, and asks for ghost text there.
async fn keystroke(
    client: &mut Client,
    uri: &str,
    version: i32,
    [from, to]: [Value; 2],
    typed: char,
) -> anyhow::Result<Keystroke> {
    let change = json!({
        "jsonrpc": "2.0", "method": "textDocument/didChange", "params": {
            "textDocument": {"uri": uri, "version": version},
            "contentChanges": [{"range": {"start": from, "end": from}, "text": typed}],
        },
    });
    let (id, request) = client.prepare(
        "textDocument/inlineCompletion",
        json!({
            "textDocument": {"uri": uri}, "position": to, "context": {"triggerKind": 2},
        }),
    );
    let bytes = [Client::frame(&change), Client::frame(&request)].concat();
    let start = Instant::now();
    client.send_raw(&bytes).await?;
    let answer = client.answer(id).await?;
    let elapsed = start.elapsed();
    let why = json!({"command": WHY, "arguments": [1]});
    let record = client.request("workspace/executeCommand", why).await?[0].take();
    let count = |name: &str| record[name].as_u64().unwrap_or_default() as usize;
    let model = record["modelMs"].as_f64().unwrap_or_default() / 1e3;
    let items = answer["result"]["items"].as_array();
    Ok(Keystroke {
        answer: elapsed,
        model: Duration::from_secs_f64(model),
        computed: count("computed"),
        reused: count("reused"),
        shown: items.is_some_and(|items| !items.is_empty()),
        asked: count("computed") > 0,
    })
}

fn summarize(keystrokes: &[Keystroke]) -> Summary {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let all = || keystrokes.iter();
    let reused: usize = all().map(|key| key.reused).sum();
    let computed: usize = all().map(|key| key.computed).sum();
    let asked = all().filter(|key| key.asked);
    Summary {
        keystrokes: keystrokes.len(),
        shown: all().filter(|key| key.shown).count(),
        asked: all().filter(|key| key.asked).count(),
        answer_ms: Percentiles::of(all().map(|key| ms(key.answer))),
        outside_model_ms: Percentiles::of(
            all().map(|key| ms(key.answer.saturating_sub(key.model))),
        ),
        new_prompt_tokens: Percentiles::of(all().map(|key| key.computed as f64)),
        new_prompt_tokens_when_asked: Percentiles::of(asked.map(|key| key.computed as f64)),
        reused_share: reused as f64 / (reused + computed).max(1) as f64,
    }
}

fn print(summary: &Summary, out: &mut impl Write) -> std::io::Result<()> {
    let Summary {
        keystrokes,
        shown,
        asked,
        reused_share,
        ..
    } = summary;
    writeln!(
        out,
        "{keystrokes} keystrokes, {shown} with something shown, {asked} through the model, {:.1} % \
         of the prompt tokens reused",
        reused_share * 1e2
    )?;
    writeln!(out, "{:<34}{:>9}{:>9}{:>9}", "", "p50", "p95", "p99")?;
    for (name, Percentiles { p50, p95, p99 }) in [
        ("keystroke to answer, ms", summary.answer_ms),
        ("  of that outside the model, ms", summary.outside_model_ms),
        ("new prompt tokens", summary.new_prompt_tokens),
        (
            "  when the model was asked",
            summary.new_prompt_tokens_when_asked,
        ),
    ] {
        writeln!(out, "{name:<34}{p50:>9.2}{p95:>9.2}{p99:>9.2}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_typed_within_the_rest_of_the_file() {
        let text = "import a\n\n\nclass B:\n    def c(self):\n        return 1\n\n    def d(self):\n        return 2\n\n\ndef e():\n    return 3\n";
        let typed = |count| -> Vec<&str> {
            let typings = functions(Path::new("a.py"), text, count).unwrap();
            for Typing {
                before,
                typed,
                after,
            } in &typings
            {
                assert_eq!(format!("{before}{typed}{after}"), text);
            }
            typings.iter().map(|typing| typing.typed).collect()
        };
        assert_eq!(typed(9), ["return 1", "return 2", "return 3"]);
        assert_eq!(typed(2), ["return 1", "return 3"]);
        let error = functions(Path::new("a.py"), "a = 1\n", 1).unwrap_err();
        assert_eq!(error.to_string(), "there is no function to type in a.py");
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let of = |values: &[f64]| Percentiles::of(values.iter().copied());
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let Percentiles { p50, p95, p99 } = of(&hundred);
        assert_eq!((p50, p95, p99), (50.0, 95.0, 99.0));
        assert_eq!(of(&[3.0]).p99, 3.0);
        assert_eq!(of(&[]).p50, 0.0);
    }
}
