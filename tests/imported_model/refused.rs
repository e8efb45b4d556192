//! A file that cannot be imported is one clear error, whatever is in it.

use std::path::Path;

use expect_test::{Expect, expect};
use interline::model::import::import;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::gguf_file::{GgufFile, SIZES, Stored, Tensor, Value, vocabulary};

fn good() -> GgufFile {
    GgufFile::random("qwen2", SIZES, true, vocabulary("qwen2", &["l e", "1 2"]))
}

/// The error of importing `bytes`, if there is one. It names the file, and what was left of the
/// import is no model.
fn error_of(bytes: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("bad.gguf");
    std::fs::write(&source, bytes).unwrap();
    let target = folder.path().join("model");
    std::fs::create_dir(&target).unwrap();
    let error = import(&source, &target, &mut |_| ()).err()?.to_string();
    assert!(!target.join("model.toml").exists());
    let begin = format!("cannot import {}: ", source.display());
    Some(error.strip_prefix(&begin).expect(&error).to_owned())
}

fn check_bytes(change: impl FnOnce(&mut Vec<u8>), expected: Expect) {
    let (mut bytes, _) = good().bytes();
    change(&mut bytes);
    expected.assert_eq(&error_of(&bytes).unwrap());
}

fn check(change: impl FnOnce(&mut GgufFile), expected: Expect) {
    let mut file = good();
    change(&mut file);
    expected.assert_eq(&error_of(&file.bytes().0).unwrap());
}

/// Sets the eight bytes after the first `text`, or those `skip` bytes further on.
fn lie(bytes: &mut [u8], text: &str, skip: usize, number: u64) {
    let mut windows = bytes.windows(text.len());
    let at = windows
        .position(|window| window == text.as_bytes())
        .unwrap()
        + text.len()
        + skip;
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

#[test]
fn what_is_no_gguf_file_is_refused() {
    check_bytes(
        |bytes| bytes.clear(),
        expect![[r#"it does not begin with "GGUF"; name a GGUF file"#]],
    );
    check_bytes(
        |bytes| bytes[0] = b'g',
        expect![[r#"it does not begin with "GGUF"; name a GGUF file"#]],
    );
    check_bytes(
        |bytes| bytes[4] = 1,
        expect![
            "it has version 1, and only little-endian GGUF 2 and 3 can be read; get a newer file"
        ],
    );
    check_bytes(
        |bytes| bytes[4..8].reverse(),
        expect![
            "it is big-endian, and only little-endian GGUF 2 and 3 can be read; get a newer file"
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    for source in [
        folder.path(),
        &folder.path().join("none"),
        Path::new("/dev/zero"),
    ] {
        let target = tempfile::tempdir().unwrap();
        let error = import(source, target.path(), &mut |_| ()).unwrap_err();
        let error = error.to_string();
        assert!(
            [
                "name a GGUF file",
                "that can be read",
                "download the folder again"
            ]
            .iter()
            .any(|end| error.ends_with(end)),
            "{error}"
        );
        assert!(error.contains(&*source.to_string_lossy()), "{error}");
    }
}

#[test]
fn lying_numbers_are_refused() {
    let tensors = |number: u64| {
        move |bytes: &mut Vec<u8>| bytes[8..16].copy_from_slice(&number.to_le_bytes())
    };
    let entries = |number: u64| {
        move |bytes: &mut Vec<u8>| bytes[16..24].copy_from_slice(&number.to_le_bytes())
    };
    check_bytes(
        tensors(u64::MAX),
        expect![
            "it says that it has 18446744073709551615 tensors, which do not fit its 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        tensors(1 << 17),
        expect![
            "it says that it has 131072 tensors, which do not fit its 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        tensors(28),
        expect![
            "it ends within the table of tensors, after 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        entries(u64::MAX),
        expect![
            "it says that it has 18446744073709551615 values of metadata, which do not fit its 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        entries(1000),
        expect![
            "it ends within the metadata, after 109312 bytes; the file is damaged, download it again"
        ],
    );
    // A key's length, a text's, a list's.
    check_bytes(
        |bytes| bytes[24..32].copy_from_slice(&(1_u64 << 62).to_le_bytes()),
        expect![
            "it ends within the metadata, after 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, "general.architecture", 4, u64::MAX),
        expect![
            "it ends within the metadata, after 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, "ggml.tokens", 8, u64::MAX),
        expect![
            "it says that it has 18446744073709551615 elements in a list, which do not fit its 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, "ggml.tokens", 8, 3),
        expect![
            "it ends within the metadata, after 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, "ggml.tokens", 0, 9 | 99 << 32),
        expect![
            "its metadata have a value of type 99, which does not exist; the file is damaged, download it again"
        ],
    );
    // A tensor's rank, dimension, type and offset.
    let tensor = "blk.0.attn_q.weight";
    check_bytes(
        |bytes| lie(bytes, tensor, 0, 5),
        expect![
            "its tensor blk.0.attn_q.weight has 5 dimensions, not 1 to 4; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, tensor, 4, 0),
        expect![
            "its tensor blk.0.attn_q.weight has a dimension that cannot be; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, tensor, 4, u64::MAX),
        expect![
            "its tensor blk.0.attn_q.weight has a dimension that cannot be; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, tensor, 4, 1 << 40),
        expect![
            "its tensor blk.0.attn_q.weight has dimensions that do not fit the file; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, tensor, 4, 33),
        expect![
            "its tensor blk.0.attn_q.weight has rows that end within a block; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, tensor, 4, 32),
        expect![
            "its tensor blk.0.attn_q.weight has the shape [64, 32], and [64, 64] fits the sizes that it names; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, tensor, 24, u64::MAX - 31),
        expect![
            "it ends before its tensor blk.0.attn_q.weight does, after 109312 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| lie(bytes, tensor, 24, 33),
        expect![
            "its tensor blk.0.attn_q.weight begins at an offset that is not aligned; the file is damaged, download it again"
        ],
    );
    check(
        |file| file.tensor(tensor).block_type = 23,
        expect![
            "its tensor blk.0.attn_q.weight is stored as IQ4_XS, which cannot be read; use a file of the same model in Q8_0, Q6_K, Q5_K_M or Q4_K_M"
        ],
    );
    check(
        |file| file.tensor(tensor).block_type = 99,
        expect![
            "its tensor blk.0.attn_q.weight is stored as type 99, which cannot be read; use a file of the same model in Q8_0, Q6_K, Q5_K_M or Q4_K_M"
        ],
    );
    check(
        |file| file.tensor("output.weight").dimensions.push(300),
        expect![
            "its tensor output.weight has dimensions that do not fit the file; the file is damaged, download it again"
        ],
    );
    check(
        |file| file.set("general.alignment", Value::U32(24)),
        expect![
            "its general.alignment is not a power of two; the file is damaged, download it again"
        ],
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    check(
        |file| file.metadata.push(file.metadata[0].clone()),
        expect!["it has general.architecture twice; the file is damaged, download it again"],
    );
    check(
        |file| file.tensors.push(file.tensors[0].clone()),
        expect![
            "its tensor token_embd.weight is there twice; the file is damaged, download it again"
        ],
    );
    check(
        |file| {
            file.tensors
                .retain(|tensor| tensor.name != "blk.1.ffn_up.weight")
        },
        expect!["it has no tensor blk.1.ffn_up.weight; get the model from its publisher"],
    );
    check(
        |file| file.set("qwen2.block_count", Value::U32(u32::MAX)),
        expect![
            "its qwen2.block_count is 4294967295, not 1 to 1048576; the file is damaged, download it again"
        ],
    );
    check(
        |file| file.set("qwen2.block_count", Value::U32(1 << 19)),
        expect!["it has no tensor blk.2.attn_q.weight; get the model from its publisher"],
    );
    check(
        |file| file.set("qwen2.attention.head_count", Value::U32(0)),
        expect![
            "its qwen2.attention.head_count is 0, not 1 to 64; the file is damaged, download it again"
        ],
    );
    check(
        |file| file.set("qwen2.embedding_length", Value::U32(128)),
        expect![
            "its tensor token_embd.weight has the shape [264, 64], and [_, 128] fits the sizes that it names; the file is damaged, download it again"
        ],
    );
    check(
        |file| file.set("qwen2.embedding_length", Value::F32(64.0)),
        expect![
            "its qwen2.embedding_length is not a whole number; get the model from its publisher"
        ],
    );
    check(
        |file| file.metadata.retain(|(key, _)| key != "qwen2.block_count"),
        expect!["it does not say its qwen2.block_count; get the model from its publisher"],
    );
    check(
        |file| file.set("tokenizer.ggml.eos_token_id", Value::U32(100_000)),
        expect![
            "its tokenizer.ggml.eos_token_id is no token; the file is damaged, download it again"
        ],
    );
    check(
        |file| file.set("tokenizer.ggml.token_type", Value::I32s(vec![1])),
        expect![
            "it has 264 tokens and the types or scores of 1; the file is damaged, download it again"
        ],
    );
    check(
        |file| file.set("tokenizer.ggml.merges", Value::Texts(vec!["a".to_owned()])),
        expect![[
            r#"its merge "a" is not two tokens that make a third; the file is damaged, download it again"#
        ]],
    );
    check(
        |file| {
            file.set(
                "tokenizer.ggml.merges",
                Value::Texts(vec!["a b".to_owned()]),
            )
        },
        expect![[
            r#"its merge "a b" is not two tokens that make a third; the file is damaged, download it again"#
        ]],
    );
    check(
        |file| file.set("tokenizer.ggml.merges", Value::I32s(vec![1])),
        expect![
            "its tokenizer.ggml.merges is not a list of texts; get the model from its publisher"
        ],
    );
    let tokens = |change: fn(&mut Vec<String>)| {
        move |file: &mut GgufFile| {
            let Value::Texts(mut tokens) = file.get("tokenizer.ggml.tokens").clone() else {
                unreachable!("tokens are texts");
            };
            change(&mut tokens);
            file.set("tokenizer.ggml.tokens", Value::Texts(tokens));
        }
    };
    check(
        tokens(|tokens| tokens[65] = tokens[66].clone()),
        expect![[r#"it has the token "B" twice; get the file from the model's publisher"#]],
    );
    check(
        tokens(|tokens| tokens[65] = "▁a".to_owned()),
        expect![[
            r#"its tokenizer is unusable: its token 65 ("▁a") is not byte-level, and of other vocabularies only SentencePiece's with tokens for bytes are supported; get the model from its publisher"#
        ]],
    );
    check(
        |file| {
            for name in ["token_embd.weight", "output.weight"] {
                let rows = vec![0.5; 64 * 10];
                *file.tensor(name) = Tensor::new(name, &[64, 10], Stored::Q8_0, &rows);
            }
        },
        expect!["it has 263 tokens and an embedding of 10 rows; get the model from its publisher"],
    );
    check(
        |file| {
            let norm = file.tensor("output_norm.weight");
            norm.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        },
        expect![
            "its tensor output_norm.weight has weights that are not numbers; download the file again"
        ],
    );
    // The scale of a block is infinite.
    check(
        |file| file.tensor("blk.1.ffn_up.weight").bytes[..2].copy_from_slice(&[0, 0x7C]),
        expect![
            "its tensor blk.1.ffn_up.weight has weights that are not numbers; download the file again"
        ],
    );
}

#[test]
fn what_is_not_supported_is_named() {
    check(
        |file| file.set("general.architecture", Value::Text("mamba".to_owned())),
        expect![
            "its architecture is mamba, and only llama, mistral, qwen2, qwen3, starcoder2, gemma and granite are supported; use another model"
        ],
    );
    check(
        |file| file.set("tokenizer.ggml.model", Value::Text("t5".to_owned())),
        expect![
            "its tokenizer is of the kind t5, and only gpt2 and llama are supported; use another model"
        ],
    );
    check(
        |file| file.set("tokenizer.ggml.pre", Value::Text("tekken".to_owned())),
        expect![
            "its tokenizer takes text apart as tekken does, and only qwen2, llama-bpe, smollm, starcoder, refact, gpt-2 and default are supported; use another model"
        ],
    );
    check(
        |file| {
            file.set(
                "qwen2.rope.scaling.type",
                Value::Text("longrope".to_owned()),
            )
        },
        expect![
            "it has rotary scaling of type longrope, which is not supported; use another model"
        ],
    );
    check(
        |file| file.set("qwen2.rope.dimension_count", Value::U32(8)),
        expect![
            "it has a rope.dimension_count of 8 for heads of 16 elements, which is not supported; use another model"
        ],
    );
    check(
        |file| file.set("split.count", Value::U32(3)),
        expect!["it has its weights in 3 files, which is not supported; use another model"],
    );
    check(
        |file| file.set("qwen2.expert_count", Value::U32(8)),
        expect!["it has 8 experts, which is not supported; use another model"],
    );
    check(
        |file| {
            file.tensors.push(Tensor::new(
                "blk.0.attn_q_norm.weight",
                &[16],
                Stored::F32,
                &[1.0; 16],
            ))
        },
        expect![
            "it has a tensor blk.0.attn_q_norm.weight, which is not supported; use another model"
        ],
    );
}

#[test]
fn a_file_that_ends_early_is_refused() {
    let (bytes, header) = good().bytes();
    let ends = (0..header)
        .step_by(29)
        .chain(header - 40..header)
        .chain([bytes.len() - 1]);
    for end in ends {
        let error = error_of(&bytes[..end]).unwrap();
        let remedies = ["download it again", "name a GGUF file"];
        assert!(
            remedies.iter().any(|remedy| error.ends_with(remedy)),
            "{end}: {error}"
        );
    }
}

#[test]
fn a_vocabulary_of_sentencepiece_that_lacks_something_is_refused() {
    let pieces = |scores: usize| {
        move |file: &mut GgufFile| {
            file.set("tokenizer.ggml.model", Value::Text("llama".to_owned()));
            file.set("tokenizer.ggml.scores", Value::F32s(vec![0.0; scores]));
        }
    };
    check(
        |file| file.set("tokenizer.ggml.model", Value::Text("llama".to_owned())),
        expect![
            "its metadata have no tokenizer.ggml.scores; get the file from the model's publisher"
        ],
    );
    check(
        pieces(1),
        expect![
            "it has 264 tokens and the types or scores of 1; the file is damaged, download it again"
        ],
    );
    check(
        pieces(264),
        expect![
            "its tokenizer has no token for each byte; get the file from the model's publisher"
        ],
    );
    check(
        |file| {
            pieces(264)(file);
            let kinds = [vec![6; 256], vec![1; 8]].concat();
            file.set("tokenizer.ggml.token_type", Value::I32s(kinds));
        },
        expect!["its tokenizer has no unknown token; get the file from the model's publisher"],
    );
    check(
        |file| {
            pieces(264)(file);
            file.set("tokenizer.ggml.scores", Value::I32s(vec![0; 264]));
        },
        expect![
            "its tokenizer.ggml.scores is not a list of numbers; get the model from its publisher"
        ],
    );
}

/// No change of a few bytes is a panic, and what is refused is refused by name.
#[test]
fn random_damage_is_refused_or_imported() {
    let (bytes, header) = good().bytes();
    let mut rng = SmallRng::seed_from_u64(22);
    let mut refused = 0;
    for _ in 0..150 {
        let mut damaged = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..header);
            damaged[at] = rng.random();
        }
        refused += usize::from(error_of(&damaged).is_some());
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("good.gguf");
    std::fs::write(&source, good().bytes().0).unwrap();
    let error = import(&source, folder.path(), &mut |_| ())
        .unwrap_err()
        .to_string();
    let error = error.replace(&*folder.path().to_string_lossy(), "");
    expect![" is not empty; name an empty folder"].assert_eq(&error);
}
