//! How much of the model's speed remains in Interline: prefill and decode, each compared with a
//! bare loop over ONNX Runtime with the same graph, threads and prompt.
//!
//! The two take turns, and the result is the median of the turns' ratios: the machine may be busy,
//! but it is as busy for one as for the other.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use interline::engine::cancel::Cancel;
use interline::engine::decoder::Decoder;
use interline::engine::lanes::{Lanes, Texts};
use interline::engine::request::{Draws, Limits};
use interline::engine::stop::{FinishReason, Scope};
use interline::model::{Model, default_directory};
use interline::runtime::{Runtime, RuntimeOptions};
use ort::memory::Allocator;
use ort::session::{IoBinding, Session};
use ort::value::Tensor;

const TURNS: usize = 15;

/// Tokens of the prompt.
const PROMPT: usize = 512;

/// Tokens of one pass over it.
const CHUNK: usize = 64;

/// Texts that are drawn at once.
const DRAWS: usize = 16;

/// The most tokens to write.
const WRITTEN: usize = 32;

/// ONNX Runtime and nothing else: one pass over the prompt, then one for each token, with past and
/// present in one buffer.
struct Bare {
    session: Session,
    binding: IoBinding,
    vocabulary: usize,
}

impl Bare {
    fn load(graph: &Path, runtime: &Runtime, vocabulary: usize) -> anyhow::Result<Self> {
        let session = runtime.session_builder()?.commit_from_file(graph)?;
        let mut binding = session.create_binding()?;
        for layer in 0..30 {
            for part in ["key", "value"] {
                let shape = [1_usize, 3, PROMPT + WRITTEN, 64];
                let mut tensor = Tensor::<f32>::new(&Allocator::default(), shape)?;
                binding.bind_input(format!("past_key_values.{layer}.{part}"), &tensor)?;
                binding.bind_output(format!("present.{layer}.{part}"), &mut tensor)?;
            }
        }
        let keep = Tensor::from_array(([0_usize; 0], vec![1_i64]))?;
        binding.bind_input("num_logits_to_keep", &keep)?;
        let logits = Tensor::<f32>::new(&Allocator::default(), [1, 1, vocabulary])?;
        binding.bind_output("logits", logits)?;
        Ok(Self {
            session,
            binding,
            vocabulary,
        })
    }

    /// Runs `tokens` after `past` others and returns the likeliest next one.
    fn run(&mut self, past: usize, tokens: &[u32]) -> anyhow::Result<u32> {
        let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
        let mask = vec![1_i64; past + ids.len()];
        let binding = &mut self.binding;
        binding.bind_input("input_ids", &Tensor::from_array(([1, ids.len()], ids))?)?;
        let mask = Tensor::from_array(([1, mask.len()], mask))?;
        binding.bind_input("attention_mask", &mask)?;
        let outputs = self.session.run_binding(binding)?;
        let (_, logits) = outputs["logits"].try_extract_tensor::<f32>()?;
        ensure!(logits.len() == self.vocabulary, "one row was requested");
        let best = (0..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1));
        Ok(best.context("a row is never empty")?.0)
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// The speeds of one of the two in one turn, in tokens a second.
#[derive(Clone, Copy)]
struct Speed {
    prefill: f64,
    decode: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Texts that continue a prompt, of `WRITTEN` tokens each, unless one of the tokens `end` ends one.
fn texts(count: usize, scope: Scope, end: &[u32]) -> Texts {
    Texts {
        healed: Vec::new(),
        end: end.to_vec(),
        scope,
        suffix: String::new(),
        closed: Vec::new(),
        limits: Limits {
            prompt: None,
            tokens: WRITTEN,
            time: None,
        },
        draws: Draws {
            count,
            temperatures: &[80],
        },
    }
}

/// The time it takes to draw `count` texts after the decoder's prompt, each of `WRITTEN` tokens.
fn draw(model: &Model, decoder: &mut Decoder, count: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    // No token ends a text, so that all have the same length.
    let mut lanes = Lanes::fork(decoder, texts(count, Scope::Text, &[]), count)?;
    let mut tokens = 0;
    while lanes.step(&model.tokenizer, decoder, |_, text| tokens += text.tokens)? {}
    ensure!(
        tokens >= count * WRITTEN / 2,
        "only {tokens} tokens of {count} texts"
    );
    Ok(start.elapsed())
}

fn main() -> anyhow::Result<()> {
    let options = RuntimeOptions::default();
    let mut progress = |line: &str| drop(writeln!(std::io::stderr(), "{line}"));
    let mut runtime = Runtime::load(&options, &mut progress)?;
    let directory = default_directory().context("the default model is not there")?;
    let model = Model::load(&directory, &mut runtime)?;
    let vocabulary = model.tokenizer.len();
    let mut bare = Bare::load(&directory.join("model.onnx"), &runtime, vocabulary)?;
    let mut decoder = Decoder::new(&*model.causal_lm, PROMPT + WRITTEN)?;

    // An indented list, so that the model keeps writing for a while.
    let lines: String = (0..200).map(|n| format!("    value_{n} = {n}\n")).collect();
    let text = format!("def values():\n{lines}");
    let mut prompt = model.tokenizer.encode(&text);
    prompt.truncate(PROMPT);

    let (mut turns, mut draws, mut without_prefill) = (Vec::new(), Vec::new(), Vec::new());
    // The first turn warms up both and does not count.
    for _ in 0..=TURNS {
        decoder.truncate(0);
        let cancel = Cancel::default();
        let (done, time) = timed(|| decoder.prefill(&prompt, CHUNK, &cancel));
        ensure!(done?.computed == PROMPT, "nothing may be reused here");
        let prefilled = time;
        let prefill = PROMPT as f64 / time.as_secs_f64();
        let block = texts(1, Scope::Block { indent: 0 }, &model.fim.end);
        let mut written = None;
        let (done, time) = timed(|| {
            let mut lanes = Lanes::in_place(&decoder, block);
            while lanes.step(&model.tokenizer, &mut decoder, |_, text| {
                written = Some(text)
            })? {}
            anyhow::Ok(())
        });
        done?;
        let written = written.context("a text is written")?;
        ensure!(written.tokens >= WRITTEN / 2, "it wrote only {written:?}");
        // The first token comes from the prefill's logits, and one that ends is not counted.
        let ended = written.finish_reason == FinishReason::End;
        let steps = written.tokens - usize::from(!ended);
        let ours = Speed {
            prefill,
            decode: steps as f64 / time.as_secs_f64(),
        };

        let (next, time) = timed(|| bare.run(0, &prompt));
        let (prefill, mut next) = (PROMPT as f64 / time.as_secs_f64(), next?);
        let (done, time) = timed(|| {
            (0..steps).try_for_each(|step| {
                next = bare.run(PROMPT + step, &[next])?;
                anyhow::Ok(())
            })
        });
        done?;
        let decode = steps as f64 / time.as_secs_f64();
        turns.push((ours, Speed { prefill, decode }));

        // The prompt again, for the texts to continue; nearly all of it is in the cache.
        decoder.prefill(&prompt, CHUNK, &cancel)?;
        let (one, many) = (
            draw(&model, &mut decoder, 1)?,
            draw(&model, &mut decoder, DRAWS)?,
        );
        let ratio = |many: Duration, one: Duration| many.as_secs_f64() / one.as_secs_f64();
        draws.push(ratio(prefilled + many, prefilled + one));
        without_prefill.push(ratio(many, one));
    }
    turns.remove(0);
    draws.remove(0);
    without_prefill.remove(0);

    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<28}{:>12}{:>12}{:>8}",
        "tokens a second", "Interline", "bare loop", "ratio"
    )?;
    let mut row = |name, of: fn(&Speed) -> f64| {
        let ours = median(turns.iter().map(|(ours, _)| of(ours)).collect());
        let theirs = median(turns.iter().map(|(_, bare)| of(bare)).collect());
        let ratios = turns.iter().map(|(ours, bare)| of(ours) / of(bare));
        let ratio = median(ratios.collect());
        writeln!(out, "{name:<28}{ours:>12.1}{theirs:>12.1}{ratio:>8.3}")
    };
    row("prefill, 512 tokens", |speed| speed.prefill)?;
    row("decode, after 512 tokens", |speed| speed.decode)?;
    writeln!(
        out,
        "\n{DRAWS} texts of {WRITTEN} tokens take {:.2} times the time of one; without the prefill {:.2}",
        median(draws),
        median(without_prefill)
    )?;
    drop(out);
    drop((model, decoder, bare));
    Runtime::release();
    Ok(())
}
