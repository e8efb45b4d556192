//! A folder that cannot be served is refused by a sentence that names the file and the remedy, alike
//! by `interline model info` and by loading it.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use interline::model::findings::findings;

use crate::support::{folder, load};

/// Changes a folder and checks why it is refused.
fn check(name: &str, change: impl FnOnce(&Path), expected: Expect) {
    let folder = folder(name);
    change(folder.path());
    let error = load(folder.path()).unwrap_err();
    let described = findings(folder.path()).unwrap_err().to_string();
    assert_eq!(described, error, "info and loading differ");
    expected.assert_eq(&error.replace(folder.path().to_str().unwrap(), ""));
}

/// Replaces each occurrence of a text in a file, which need not be text.
fn edit(path: &Path, from: &str, to: &str) {
    let bytes = fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut edited = Vec::new();
    while !rest.is_empty() {
        let is_here = rest.starts_with(from.as_bytes());
        let (taken, written) = match is_here {
            true => (from.len(), to.as_bytes()),
            false => (1, &rest[..1]),
        };
        edited.extend_from_slice(written);
        rest = &rest[taken..];
    }
    assert_ne!(edited, bytes, "{from} is not in {}", path.display());
    fs::write(path, edited).unwrap();
}

fn config(from: &'static str, to: &'static str) -> impl FnOnce(&Path) {
    move |folder| edit(&folder.join("config.json"), from, to)
}

fn graph(from: &'static str, to: &'static str) -> impl FnOnce(&Path) {
    assert_eq!(from.len(), to.len(), "or the lengths in the file would lie");
    move |folder| edit(&folder.join("onnx/model.onnx"), from, to)
}

#[test]
fn a_configuration_that_lies_is_named() {
    check(
        "llama",
        config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
        expect![
            "cannot use the graph /onnx/model.onnx: it has a key/value cache of 2 layers, and /config.json says 3: they belong to different models; copy the model folder again"
        ],
    );
    check(
        "llama",
        config("\"head_dim\": 4", "\"head_dim\": 9"),
        expect![
            "cannot use the graph /onnx/model.onnx: the size of an attention head is 4 in its past_key_values.0.key and 9 in /config.json: they belong to different models; copy the model folder again"
        ],
    );
    check(
        "llama",
        config("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4"),
        expect![
            "cannot use the graph /onnx/model.onnx: the number of key/value heads is 2 in its past_key_values.0.key and 4 in /config.json: they belong to different models; copy the model folder again"
        ],
    );
    check(
        "llama",
        config("\"vocab_size\": 260", "\"vocab_size\": 999"),
        expect![
            "cannot use the graph /onnx/model.onnx: the vocabulary is 260 in its logits and 999 in /config.json: they belong to different models; copy the model folder again"
        ],
    );
    check(
        "llama",
        config(
            "\"max_position_embeddings\": 128",
            "\"max_position_embeddings\": -1",
        ),
        expect![
            "cannot use /config.json: invalid value: integer `-1`, expected usize at line 14 column 31; copy the model folder again"
        ],
    );
    check(
        "llama",
        |folder| {
            for name in ["config.json", "tokenizer_config.json"] {
                fs::remove_file(folder.join(name)).unwrap();
            }
        },
        expect![
            "no file in  states how many tokens the model was made for; add `context_length` to /model.toml, or max_position_embeddings to /config.json"
        ],
    );
}

#[test]
fn an_input_that_is_not_known_is_named() {
    let conv = graph("past_key_values.1.key", "past_conv_value.1.key");
    check(
        "llama",
        conv,
        expect![
            "cannot use the graph /onnx/model.onnx: its input past_conv_value.1.key is not one that Interline can serve; use a graph that takes input_ids, attention_mask, position_ids and past_key_values.*"
        ],
    );
    check(
        "llama",
        graph("present.1.value", "present.1.valeu"),
        expect![
            "cannot use the graph /onnx/model.onnx: it has past_key_values.1.value but no output present.1.value"
        ],
    );
    check(
        "llama",
        graph("input_ids", "input_xyz"),
        expect![
            "cannot use the graph /onnx/model.onnx: its input input_xyz is not one that Interline can serve; use a graph that takes input_ids, attention_mask, position_ids and past_key_values.*"
        ],
    );
}

#[test]
fn a_tokenizer_of_another_size_is_named() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2-135m-fim");
    check(
        "llama",
        |folder| {
            fs::copy(
                shipped.join("tokenizer.json"),
                folder.join("tokenizer.json"),
            )
            .unwrap();
        },
        expect![
            "in  the tokenizer has 49152 tokens and the graph 260: they belong to different models; copy the model folder again"
        ],
    );
}

#[test]
fn several_graphs_without_a_rule_are_refused_with_their_names() {
    check(
        "llama",
        |folder| {
            fs::copy(folder.join("onnx/model.onnx"), folder.join("model.onnx")).unwrap();
        },
        expect![[
            r#" has several graphs, among them model.onnx and onnx/model.onnx, and nothing tells which to use; remove one, or name one in /model.toml, as in `graph = "onnx/model.onnx"`"#
        ]],
    );
    check(
        "llama",
        |folder| {
            let onnx = folder.join("onnx");
            fs::copy(onnx.join("model.onnx"), onnx.join("a.onnx")).unwrap();
            fs::rename(onnx.join("model.onnx"), onnx.join("b.onnx")).unwrap();
        },
        expect![[
            r#" has several graphs, among them onnx/a.onnx and onnx/b.onnx, and nothing tells which to use; remove one, or name one in /model.toml, as in `graph = "onnx/b.onnx"`"#
        ]],
    );
    check(
        "llama",
        |folder| {
            let onnx = folder.join("onnx");
            fs::copy(onnx.join("model.onnx"), onnx.join("decoder_model.onnx")).unwrap();
            let second = onnx.join("decoder_with_past_model.onnx");
            fs::rename(onnx.join("model.onnx"), second).unwrap();
        },
        expect![
            "/onnx/decoder_with_past_model.onnx is one of two graphs that work only together, which Interline does not support; export the model as one graph (model.onnx or decoder_model_merged.onnx)"
        ],
    );
    check(
        "llama",
        |folder| fs::remove_dir_all(folder.join("onnx")).unwrap(),
        expect![
            " is not a model folder: neither it nor its folder `onnx` has a file that ends in .onnx; name another one, or import a GGUF file with `interline model add`"
        ],
    );
}

#[test]
fn weights_in_another_file_must_be_there_and_whole() {
    let data = |folder: &Path| folder.join("model.onnx.data");
    check(
        "llama-genai",
        |folder| fs::remove_file(data(folder)).unwrap(),
        expect![
            "cannot use the graph /model.onnx: its weights are in /model.onnx.data, which is missing; copy the model folder again"
        ],
    );
    check(
        "llama-genai",
        |folder| {
            let bytes = fs::read(data(folder)).unwrap();
            fs::write(data(folder), &bytes[..bytes.len() / 2]).unwrap();
        },
        expect![
            "cannot use the graph /model.onnx: its weights are in /model.onnx.data, which has 39328 of at least 78656 bytes; copy the model folder again"
        ],
    );
    check(
        "llama-genai",
        |folder| {
            edit(
                &folder.join("model.onnx"),
                "model.onnx.data",
                "../model.x.data",
            )
        },
        expect![[
            r#"cannot use the graph /model.onnx: its weights are in "../model.x.data", which is outside its folder; get the model from its publisher"#
        ]],
    );
    check(
        "llama-genai",
        |folder| {
            edit(
                &folder.join("genai_config.json"),
                "\"model.onnx\"",
                "\"../model.onnx\"",
            )
        },
        expect![
            "/genai_config.json names ../model.onnx, which is missing or not a plain file in its folder; copy the model folder again"
        ],
    );
}

#[cfg(unix)]
#[test]
fn weights_behind_a_link_are_refused_and_copied_by_adding() {
    let folder = folder("llama-genai");
    let elsewhere = tempfile::tempdir().unwrap();
    let (data, moved) = (
        folder.path().join("model.onnx.data"),
        elsewhere.path().join("blob"),
    );
    fs::rename(&data, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &data).unwrap();
    let error = load(folder.path()).unwrap_err();
    let error = error.replace(folder.path().to_str().unwrap(), "");
    expect!["cannot use the graph /model.onnx: its weights are in /model.onnx.data, a link out of the folder, which ONNX Runtime does not follow; `interline model add` makes a copy without links"].assert_eq(&error);

    let store = interline::model::store::Store::at(elsewhere.path().join("models"));
    let name = "mine".parse().unwrap();
    let added = store
        .add(folder.path(), Some(name), &mut |_: &str| {})
        .unwrap();
    load(&added).unwrap();
}

#[test]
fn adding_copies_the_graph_that_is_chosen_and_no_other_weights() {
    let folder = folder("llama");
    for other in [
        "onnx/model_fp16.onnx",
        "onnx/model.onnx_data",
        "pytorch_model.bin",
        "x.md",
    ] {
        fs::write(folder.path().join(other), "other").unwrap();
    }
    let home = tempfile::tempdir().unwrap();
    let store = interline::model::store::Store::at(home.path().to_path_buf());
    let name = "mine".parse().unwrap();
    let added = store
        .add(folder.path(), Some(name), &mut |_: &str| {})
        .unwrap();
    let files = interline::model::plain_file::list(&added).unwrap();
    let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
    expect![[r#"
        SHA256SUMS
        config.json
        generation_config.json
        onnx/model.onnx
        origin.toml
        reference.json
        tokenizer.json
        tokenizer_config.json
        x.md"#]]
    .assert_eq(&files.join("\n"));
    load(&added).unwrap();
    fs::write(added.join("onnx/model.onnx"), "damaged").unwrap();
    let record = interline::verified::Record::in_folder(None);
    assert!(interline::model::sums::check(&added, &record).is_err());
}
