//! An imported model is loaded as any other, and computes what the file says.

use std::path::Path;

use interline::model::Model;
use interline::model::import::{Progress, import};
use interline::model::manifest::Layout;
use interline::runtime::provider::Provider;
use interline::runtime::{Runtime, RuntimeOptions};
use serde_json::json;
use tempfile::TempDir;

use crate::gguf_file::{GgufFile, SIZES, Stored, Tensor, Value, vocabulary};
use crate::model_folder::{Dtype, ModelFolder};
use crate::reference;

/// How far logits of the imported graph may be from the reference's, relative to these. Weights are
/// the same on both sides; activations of the graph's products have 8 bits.
const MARGIN: f32 = 0.06;

fn imported(file: &GgufFile) -> Model {
    load(&folder_of(file).path().join("model"), Provider::Cpu)
}

/// A folder with the imported file in `model`.
pub(crate) fn folder_of(file: &GgufFile) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("small.gguf");
    std::fs::write(&source, file.bytes().0).unwrap();
    let all: usize = file.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    import_from(&source, all as u64)
}

/// The model of a source whose tensors have this many bytes.
fn imported_from(source: &Path, all: u64) -> Model {
    load(
        &import_from(source, all).path().join("model"),
        Provider::Cpu,
    )
}

/// A folder with the imported source in `model`, whose tensors have this many bytes.
fn import_from(source: &Path, all: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    std::fs::create_dir(&target).unwrap();
    let mut seen = Vec::new();
    import(source, &target, &mut |progress| seen.push(progress)).unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.done));
    let expected = Progress {
        done: all,
        total: all,
    };
    assert_eq!(seen.last(), Some(&expected));
    folder
}

pub(crate) fn load(model: &Path, provider: Provider) -> Model {
    let mut progress = |line: &str| eprintln!("{line}");
    let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut progress).unwrap();
    runtime.run_on(provider).unwrap();
    Model::load(model, &mut runtime).unwrap()
}

/// The root mean square of the difference, relative to that of `expected`.
fn difference(logits: &[f32], expected: &[Vec<f32>]) -> f32 {
    let expected = expected.concat();
    assert_eq!(logits.len(), expected.len());
    let squares = logits.iter().zip(&expected).map(|(a, b)| (a - b).powi(2));
    let all = expected.iter().map(|logit| logit.powi(2));
    (squares.sum::<f32>() / all.sum::<f32>()).sqrt()
}

fn check(name: &str, file: &GgufFile, in_pairs: bool) {
    check_model(name, &imported(file), file, in_pairs);
}

/// The logits of the file's model after each token, read at once and then one at a time.
pub(crate) fn check_model(name: &str, model: &Model, file: &GgufFile, in_pairs: bool) {
    check_window(name, model, file, in_pairs, usize::MAX);
}

/// The same, where attention sees `window` positions.
fn check_window(name: &str, model: &Model, file: &GgufFile, in_pairs: bool, window: usize) {
    let tokens = b"fn main() { let x = 1; }".map(u32::from);
    let expected = reference::logits(file, in_pairs, window, &tokens);
    let mut logits = Vec::new();
    let mut cache = model.causal_lm.new_cache(64).unwrap();
    cache
        .forward(&[0], &tokens, tokens.len(), &mut logits)
        .unwrap();
    let at_once = difference(&logits, &expected);

    let mut all = Vec::new();
    for (past, token) in tokens.iter().enumerate() {
        cache.forward(&[past], &[*token], 1, &mut logits).unwrap();
        all.extend_from_slice(&logits);
    }
    let stepwise = difference(&all, &expected);
    // That the margin tells something: another order of the rows is far outside it.
    let other = reference::logits(file, !in_pairs, window, &tokens).concat();
    let other = difference(&other, &expected);
    assert!(
        at_once < MARGIN && stepwise < MARGIN && other > 5.0 * MARGIN,
        "{name}: at once {at_once}, one at a time {stepwise}, other order {other}"
    );
}

pub(crate) fn random(architecture: &str, has_bias: bool) -> GgufFile {
    GgufFile::random(architecture, SIZES, has_bias, vocabulary("qwen2", &["l e"]))
}

#[test]
fn logits_are_those_of_the_file() {
    check("qwen2", &random("qwen2", true), false);
    check("llama", &random("llama", false), true);
    check("llama, bias", &random("llama", true), true);
    check("qwen3", &random("qwen3", false), false);
    check("starcoder2", &random("starcoder2", true), false);
    check("gemma", &random("gemma", false), false);
    check("granite", &random("granite", false), true);
    // In 4 bits.
    let mut file = random("llama", false);
    for tensor in &mut file.tensors {
        let Tensor {
            name,
            dimensions,
            weights,
            ..
        } = &*tensor;
        if name.starts_with("blk.") && dimensions.len() == 2 {
            *tensor = Tensor::new(name, dimensions, Stored::Q4_0, weights);
        }
    }
    check("Q4_0", &file, true);
    // With one matrix for the embedding and the output.
    let mut file = random("qwen2", false);
    file.tensors.retain(|tensor| tensor.name != "output.weight");
    check("shared", &file, false);
    // The same, stored twice.
    let mut copy = file.tensor("token_embd.weight").clone();
    copy.name = "output.weight".to_owned();
    file.tensors.push(copy);
    check("twice", &file, false);
}

/// The model of a folder, which `change` has changed, has the logits of the file's.
fn check_folder(
    name: &str,
    mut file: GgufFile,
    dtype: Dtype,
    shards: Option<usize>,
    window: usize,
    change: impl FnOnce(&mut ModelFolder),
) {
    let mut source = ModelFolder::of(&mut file, dtype);
    change(&mut source);
    let folder = tempfile::tempdir().unwrap();
    match shards {
        None => source.write(folder.path()),
        Some(count) => source.write_shards(folder.path(), count),
    }
    let all: usize = source.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    let model = imported_from(folder.path(), all as u64);
    check_window(name, &model, &file, false, window);
}

#[test]
fn logits_are_those_of_the_folder() {
    let all = usize::MAX;
    for (architecture, has_bias) in [
        ("llama", false),
        ("qwen2", true),
        ("qwen3", false),
        ("starcoder2", true),
        ("gemma", false),
        ("granite", false),
    ] {
        let file = random(architecture, has_bias);
        check_folder(architecture, file, Dtype::F32, None, all, |_| ());
    }
    check_folder("F16", random("llama", true), Dtype::F16, None, all, |_| ());
    check_folder(
        "BF16",
        random("qwen2", true),
        Dtype::Bf16,
        Some(3),
        all,
        |_| (),
    );
    // The output shares the embedding, and an old copy of it is there all the same.
    let mut file = random("qwen2", true);
    file.tensors.retain(|tensor| tensor.name != "output.weight");
    check_folder("tied", file, Dtype::F32, None, all, |folder| {
        let mut copy = folder.tensor("model.embed_tokens.weight").clone();
        copy.name = "lm_head.weight".to_owned();
        copy.bytes.fill(0);
        folder.tensors.push(copy);
    });
    // The output is a copy of the embedding that was trained on.
    let mut file = random("qwen2", true);
    let embedding = file.tensor("token_embd.weight").weights.clone();
    let head = &mut file.tensor("output.weight").weights;
    for (index, (weight, old)) in head.iter_mut().zip(embedding).enumerate() {
        *weight = old * (1.0 + 0.4 * (index as f32).sin());
    }
    check_folder("copy", file, Dtype::F32, None, all, |_| ());
    // Attention sees only the positions of a window.
    let window = |folder: &mut ModelFolder| {
        folder.config["model_type"] = json!("mistral");
        folder.config["sliding_window"] = json!(5);
    };
    check_folder(
        "window",
        random("llama", false),
        Dtype::F32,
        None,
        5,
        window,
    );
    for (switch, first, positions) in [
        (Some(true), 0, 5),
        (Some(true), 2, all),
        (Some(false), 0, all),
        (None, 0, all),
    ] {
        let window = |folder: &mut ModelFolder| {
            folder.config["sliding_window"] = json!(5);
            folder.config["max_window_layers"] = json!(first);
            folder.config["use_sliding_window"] = json!(switch);
        };
        let name = format!("{switch:?} from layer {first}");
        check_folder(
            &name,
            random("qwen2", true),
            Dtype::F32,
            None,
            positions,
            window,
        );
    }
}

#[test]
fn formats_are_found_in_the_vocabulary() {
    let mut file = random("qwen2", true);
    file.set("general.name", Value::Text("Small\n one".to_owned()));
    let template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
    file.set("tokenizer.chat_template", Value::Text(template.to_owned()));
    let model = imported(&file);
    assert_eq!(model.name, "Small one");
    assert_eq!(model.context_length, 64);
    let id = |token| model.tokenizer.special_id(token).unwrap();
    let markers = model.fim.markers.unwrap();
    assert_eq!(markers.layout, Layout::SpmV2);
    assert_eq!(markers.suffix, id("<|fim_suffix|>"));
    let ends = ["<|im_end|>", "<|endoftext|>"].map(id);
    assert_eq!(model.chat.unwrap().end, ends);
    // The padding at the end is no token.
    assert_eq!(model.tokenizer.len(), model.causal_lm.vocabulary() - 1);
}

#[test]
fn a_chat_template_that_cannot_be_used_is_left_out() {
    let mut file = random("qwen2", true);
    let endless = "{% for a in range(100000000) %}{% for ".repeat(2);
    file.set("tokenizer.chat_template", Value::Text(endless));
    assert!(imported(&file).chat.is_none());
}

#[test]
fn formats_are_found_in_the_folder() {
    let template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
    let mut source = ModelFolder::of(&mut random("llama", false), Dtype::F32);
    source.config["eos_token_id"] = json!(257);
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("My-Model.v2");
    source.write(&folder);
    let tokenizer_config = json!({ "chat_template": [
        { "name": "tools", "template": "no" },
        { "name": "default", "template": template },
    ] });
    std::fs::write(
        folder.join("tokenizer_config.json"),
        tokenizer_config.to_string(),
    )
    .unwrap();
    let all: usize = source.tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    let model = imported_from(&folder, all as u64);
    assert_eq!(model.name, "My-Model.v2");
    assert_eq!(model.context_length, 64);
    let id = |token| model.tokenizer.special_id(token).unwrap();
    assert_eq!(model.fim.markers.unwrap().suffix, id("<|fim_suffix|>"));
    let ends = ["<|im_end|>", "<|endoftext|>"].map(id);
    assert_eq!(model.chat.unwrap().end, ends);
}
