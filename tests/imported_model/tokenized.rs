//! An imported vocabulary gives the ids that its publisher's tokenizer gives.

use std::path::{Path, PathBuf};

use interline::model::import::import;
use interline::model::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::gguf_file::{GgufFile, SIZES, Sizes, Value, vocabulary};

fn imported(file: &GgufFile) -> Tokenizer {
    imported_as(file, |_| ())
}

/// The tokenizer of a file, after `change` has changed its `tokenizer.json`.
fn imported_as(file: &GgufFile, change: impl FnOnce(&mut Json)) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("small.gguf");
    std::fs::write(&source, file.bytes().0).unwrap();
    let target = folder.path().join("model");
    std::fs::create_dir(&target).unwrap();
    import(&source, &target, &mut |_| ()).unwrap();
    let path = target.join("tokenizer.json");
    let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
    Tokenizer::load(&path).unwrap()
}

/// The tokens of `text`, with bars between them.
fn check(pre: &str, text: &str, expected: &str) {
    let merges = [
        "1 2", "3 4", "12 3", "123 4", "' S", "' s", "Ċ Ċ", "Ġ Ġ", "! !", "! Ċ", "Ì ģ", "Ã ©",
    ];
    let file = GgufFile::random("llama", SIZES, false, vocabulary(pre, &merges));
    let tokenizer = imported(&file);
    let tokens = tokenizer.encode(text).into_iter();
    let tokens = tokens.map(|id| tokenizer.bytes(id).to_vec());
    let tokens = tokens.collect::<Vec<_>>().join(&b'|');
    assert_eq!(String::from_utf8_lossy(&tokens), expected, "{pre}");
}

#[test]
fn texts_are_taken_apart_as_each_pre_tokenizer_does() {
    for (pre, expected) in [
        ("qwen2", "a|1|2|3|4|'S|!!|\n\n|  | |b"),
        ("llama-bpe", "a|123|4|'S|!!|\n\n|  | |b"),
        ("smollm", "a|1|2|3|4|'|S|!!|\n\n|  | |b"),
        ("starcoder", "a|1|2|3|4|'|S|!!|\n\n|  | |b"),
        ("refact", "a|1|2|3|4|'|S|!!|\n\n|  | |b"),
        ("gpt-2", "a|12|34|'|S|!!|\n\n|  | |b"),
        ("default", "a|123|4|'|S|!!|\n\n|  | |b"),
    ] {
        check(pre, "a1234'S!!\n\n   b", expected);
    }
    // Only one of the families composes characters.
    check("qwen2", "e\u{301}", "\u{e9}");
    check("gpt-2", "e\u{301}", "e|\u{301}");
}

#[test]
fn the_token_that_begins_a_text_is_put_there_where_the_file_says_so() {
    for (pre, flag, expected) in [
        ("qwen2", None, None),
        ("qwen2", Some(false), None),
        ("qwen2", Some(true), Some("<|endoftext|>")),
        ("llama-bpe", None, Some("<|endoftext|>")),
        ("llama-bpe", Some(false), None),
    ] {
        let mut file = GgufFile::random("llama", SIZES, false, vocabulary(pre, &[]));
        file.set("tokenizer.ggml.bos_token_id", Value::U32(256));
        if let Some(flag) = flag {
            file.set("tokenizer.ggml.add_bos_token", Value::Flag(flag));
        }
        let tokenizer = imported(&file);
        let beginning = tokenizer.beginning_of_text();
        let beginning = beginning.map(|id| tokenizer.show(&[id]));
        assert_eq!(beginning.as_deref(), expected, "{pre}, {flag:?}");
        assert_eq!(tokenizer.encode("a"), [u32::from(b'a')], "{pre}");
    }
}

fn repository_texts() -> Vec<String> {
    fn collect(path: PathBuf, texts: &mut Vec<String>) {
        if path.is_dir() {
            for entry in path.read_dir().unwrap() {
                collect(entry.unwrap().path(), texts);
            }
        } else if let Ok(text) = std::fs::read_to_string(path) {
            texts.push(text);
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for folder in ["src/model", "tests/samples", "docs", "examples"] {
        collect(root.join(folder), &mut texts);
    }
    texts
}

/// The shipped model's tokenizer is one of the gpt-2 family.
#[test]
fn ids_of_a_corpus_are_those_of_the_shipped_tokenizer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2-135m-fim/tokenizer.json");
    let json = std::fs::read(&path).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let mut kinds = vec![1; tokens.len()];
    for token in json["added_tokens"].as_array().unwrap() {
        let id = token["id"].as_u64().unwrap() as usize;
        tokens[id] = token["content"].as_str().unwrap().to_owned();
        kinds[id] = 3;
    }
    let merges = json["model"]["merges"].as_array().unwrap().iter();
    let merges = merges.map(|pair| {
        let part = |index: usize| pair[index].as_str().unwrap();
        format!("{} {}", part(0), part(1))
    });
    let mut vocabulary = vocabulary("gpt-2", &[]);
    vocabulary.retain(|(key, _)| !key.contains("eos_token_id"));
    let mut file = GgufFile {
        metadata: vocabulary,
        tensors: Vec::new(),
    };
    file.set("tokenizer.ggml.tokens", Value::Texts(tokens));
    file.set("tokenizer.ggml.token_type", Value::I32s(kinds));
    file.set("tokenizer.ggml.merges", Value::Texts(merges.collect()));
    let sizes = Sizes {
        width: 32,
        feed_forward: 32,
        heads: 2,
        key_value_heads: 1,
        layers: 1,
    };
    let imported = imported(&GgufFile::random("llama", sizes, false, file.metadata));
    let published = Tokenizer::load(&path).unwrap();
    assert_eq!(imported.len(), published.len());
    assert_eq!(imported.special(), published.special());
    let texts = repository_texts();
    assert!(texts.len() > 30, "only {} texts", texts.len());
    for text in texts {
        assert!(imported.encode(&text) == published.encode(&text), "{text}");
    }
}

/// See `tests/samples/small_pieces.py`.
#[derive(Deserialize)]
struct SmallPieces {
    pieces: Vec<(String, f32, i32)>,
    texts: Vec<(String, Vec<u32>)>,
}

#[test]
fn ids_of_sentencepiece_are_its_own() {
    let json = include_str!("../samples/small_pieces.json");
    let SmallPieces { pieces, texts } = serde_json::from_str(json).unwrap();
    let tokens = pieces.iter().map(|(piece, _, _)| piece.clone()).collect();
    let scores = pieces.iter().map(|(_, score, _)| *score).collect();
    let kinds = pieces.iter().map(|(_, _, kind)| *kind).collect();
    let metadata = [
        ("model", Value::Text("llama".to_owned())),
        ("tokens", Value::Texts(tokens)),
        ("scores", Value::F32s(scores)),
        ("token_type", Value::I32s(kinds)),
        ("eos_token_id", Value::U32(2)),
    ];
    let metadata = metadata.map(|(key, value)| (format!("tokenizer.ggml.{key}"), value));
    let file = GgufFile::random("llama", SIZES, false, metadata.into());

    // As imported, and in the two ways in which publishers put a space before each text.
    let prepend = json!({ "type": "Prepend", "prepend": "\u{2581}" });
    let metaspace = json!({
        "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false,
    });
    let tokenizers = [
        imported(&file),
        imported_as(&file, |json| {
            let steps = [prepend, json["normalizer"].clone()];
            json["normalizer"] = json!({ "type": "Sequence", "normalizers": steps });
        }),
        imported_as(&file, |json| json["pre_tokenizer"] = metaspace),
    ];
    for tokenizer in &tokenizers {
        for (text, expected) in &texts {
            let ids = tokenizer.encode(text);
            assert_eq!(&ids, expected, "{text:?}");
            let bytes: Vec<u8> = ids
                .iter()
                .flat_map(|id| tokenizer.bytes(*id))
                .copied()
                .collect();
            let spaced = text.replace('\u{2581}', " ");
            assert_eq!(String::from_utf8(bytes).unwrap(), spaced);
        }
        assert_eq!(tokenizer.special(), [0, 1, 2, 3, 4, 5, 6]);
    }
}
