//! What is found in the folders of exporters, which have no `model.toml`.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use interline::model::findings::findings;

use crate::support::{folder, load};

fn check(name: &str, change: impl FnOnce(&Path), expected: Expect) {
    let folder = folder(name);
    change(folder.path());
    let shown = match findings(folder.path()) {
        Ok(found) => {
            let lines = found
                .iter()
                .map(|it| format!("{}: {} ({})", it.what, it.value, it.why));
            lines.collect::<Vec<_>>().join("\n")
        }
        Err(error) => error.to_string(),
    };
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let shown = shown.replace(folder.path().to_str().unwrap(), "");
    expected.assert_eq(&shown.replace(name, "FOLDER"));
}

/// The lines that tell of the graph and the longest text.
fn check_lines(name: &str, whats: &[&str], change: impl FnOnce(&Path), expected: Expect) {
    let folder = folder(name);
    change(folder.path());
    let found = findings(folder.path()).unwrap();
    let found = found.iter().filter(|it| whats.contains(&it.what));
    let lines = found.map(|it| format!("{}: {} ({})", it.what, it.value, it.why));
    let shown = lines.collect::<Vec<_>>().join("\n");
    expected.assert_eq(&shown.replace(folder.path().to_str().unwrap(), ""));
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_folder_of_optimum_is_described() {
    check(
        "llama",
        |_| (),
        expect![[r#"
        name: FOLDER (the folder's name)
        licence: unknown (no file says it for programs to read)
        type: llama (`model_type` of its configuration)
        graph: onnx/model.onnx (the only graph; weights as published)
        cache: 0.1 kB a token, copied by each pass (the graph has no GroupQueryAttention on 32-bit numbers)
        vocabulary: 260 tokens (tokenizer.json)
        context: 128 tokens (config.json)
        layout: prefix, suffix, middle (prefix token 257, suffix token 258, middle token 259) (the tokens in tokenizer.json are those of StarCoder)
        markers: <fim_prefix><fim_suffix><fim_middle> (the tokens in tokenizer.json are those of StarCoder)
        end: <|endoftext|> (the tokens in tokenizer.json are those of StarCoder, generation_config.json, config.json)
        chat: none: tasks are documents to continue (neither chat_template.jinja nor `chat_template` in tokenizer_config.json)"#]],
    );
    check(
        "gpt_bigcode-merged",
        |_| (),
        expect![[r#"
        name: FOLDER (the folder's name)
        licence: unknown (no file says it for programs to read)
        type: gpt_bigcode (`model_type` of its configuration)
        graph: onnx/decoder_model_merged.onnx (the only graph; weights as published)
        cache: 0.1 kB a token, copied by each pass (the graph has no GroupQueryAttention on 32-bit numbers)
        vocabulary: 260 tokens (tokenizer.json)
        context: 128 tokens (config.json)
        layout: prefix, suffix, middle (prefix token 257, suffix token 258, middle token 259) (the tokens in tokenizer.json are those of StarCoder)
        markers: <fim_prefix><fim_suffix><fim_middle> (the tokens in tokenizer.json are those of StarCoder)
        end: <|endoftext|> (the tokens in tokenizer.json are those of StarCoder, generation_config.json, config.json)
        chat: none: tasks are documents to continue (neither chat_template.jinja nor `chat_template` in tokenizer_config.json)"#]],
    );
    check(
        "llama-genai",
        |_| (),
        expect![[r#"
        name: FOLDER (the folder's name)
        licence: unknown (no file says it for programs to read)
        type: llama (`model_type` of its configuration)
        graph: model.onnx (`filename` in genai_config.json)
        cache: 0.5 kB a token, in place (the graph has GroupQueryAttention)
        vocabulary: 260 tokens (tokenizer.json)
        context: 128 tokens (genai_config.json)
        layout: prefix, suffix, middle (prefix token 257, suffix token 258, middle token 259) (the tokens in tokenizer.json are those of StarCoder)
        markers: <fim_prefix><fim_suffix><fim_middle> (the tokens in tokenizer.json are those of StarCoder)
        end: <|endoftext|> (the tokens in tokenizer.json are those of StarCoder, genai_config.json)
        chat: none: tasks are documents to continue (neither chat_template.jinja nor `chat_template` in tokenizer_config.json)"#]],
    );
}

#[test]
fn what_runs_fast_on_a_cpu_is_chosen_among_several() {
    let add = |names: &'static [&'static str]| {
        move |folder: &Path| {
            let from = folder.join("onnx/model.onnx");
            for name in names {
                fs::copy(&from, folder.join("onnx").join(name)).unwrap();
            }
        }
    };
    check_lines(
        "llama",
        &["graph"],
        add(&["model_q4.onnx", "model_fp16.onnx"]),
        expect!["graph: onnx/model_q4.onnx (weights in 4 bits, the best on a CPU of 3 graphs)"],
    );
    check_lines(
        "llama",
        &["graph"],
        add(&["model_fp16.onnx", "model_quantized.onnx"]),
        expect![
            "graph: onnx/model_quantized.onnx (weights in 8 bits, the best on a CPU of 3 graphs)"
        ],
    );
    check_lines(
        "llama",
        &["graph"],
        add(&["decoder_model_merged_q4.onnx"]),
        expect!["graph: onnx/model.onnx (weights as published, the best on a CPU of 2 graphs)"],
    );
    check_lines(
        "llama",
        &["graph"],
        add(&["other.onnx"]),
        expect!["graph: onnx/model.onnx (weights as published, the best on a CPU of 2 graphs)"],
    );
}

#[test]
fn a_manifest_overrides_what_is_found() {
    let manifest = "name = 'mine'\nlicense = 'MIT'\ncontext_length = 64\n[fim]\norder = 'spm'\n\
        prefix = '<fim_prefix>'\nsuffix = '<fim_suffix>'\nmiddle = '<fim_middle>'\n\
        end = ['<|endoftext|>']\n";
    check(
        "llama",
        |folder| write(folder, "model.toml", manifest),
        expect![[r#"
            name: mine (model.toml)
            licence: MIT (model.toml)
            type: llama (`model_type` of its configuration)
            graph: onnx/model.onnx (the only graph; weights as published)
            cache: 0.1 kB a token, copied by each pass (the graph has no GroupQueryAttention on 32-bit numbers)
            vocabulary: 260 tokens (tokenizer.json)
            context: 64 tokens (model.toml)
            layout: suffix, prefix, middle (prefix token 257, suffix token 258, middle token 259) ([fim] in model.toml)
            markers: <fim_prefix><fim_suffix><fim_middle> ([fim] in model.toml)
            end: <|endoftext|> ([fim] in model.toml)
            chat: none: tasks are documents to continue (neither chat_template.jinja nor `chat_template` in tokenizer_config.json)"#]],
    );
}

#[test]
fn a_chat_template_is_found_in_the_tokenizers_configuration() {
    let config = |template: &str| {
        let template = serde_json::Value::from(template);
        let text = format!(r#"{{"eos_token": "<|endoftext|>", "chat_template": {template}}}"#);
        move |folder: &Path| write(folder, "tokenizer_config.json", &text)
    };
    let whats = ["chat", "chat end"];
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}";
    check_lines(
        "llama",
        &whats,
        config(template),
        expect![[r#"
        chat: from a template (tokenizer_config.json, `chat_template` in it)
        chat end: <|endoftext|> (tokenizer_config.json)"#]],
    );
    // A template that cannot be used does not cost the completions.
    check_lines(
        "llama",
        &whats,
        config("{% for"),
        expect![
            "chat: none: tasks are documents to continue (cannot use the chat template /tokenizer_config.json: syntax error: unexpected end of input, expected identifier (in chat_template:1))"
        ],
    );
    let folder = folder("llama");
    config("{% for")(folder.path());
    assert!(load(folder.path()).unwrap().chat.is_none());
}
