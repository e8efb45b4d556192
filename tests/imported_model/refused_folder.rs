//! A folder that cannot be imported is one clear error, whatever is in it.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use interline::model::import::import;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value as Json, json};

use crate::model_folder::{Dtype, ModelFolder, shard, table, with_table, write_index};
use crate::served::random;

const WEIGHTS: &str = "model.safetensors";

fn good() -> ModelFolder {
    ModelFolder::of(&mut random("qwen2", true), Dtype::Bf16)
}

/// The error of importing a folder that `make` fills, if there is one. It names the folder, and what
/// was left of the import is no model.
fn error_of(make: impl FnOnce(&Path)) -> Option<String> {
    let home = tempfile::tempdir().unwrap();
    let (source, target) = (home.path().join("bad"), home.path().join("model"));
    fs::create_dir(&source).unwrap();
    fs::create_dir(&target).unwrap();
    make(&source);
    let error = import(&source, &target, &mut |_| ()).err()?.to_string();
    assert!(!target.join("model.toml").exists());
    let begin = format!("cannot import {}: ", source.display());
    Some(error.strip_prefix(&begin).expect(&error).to_owned())
}

fn check_files(make: impl FnOnce(&Path), expected: Expect) {
    expected.assert_eq(&error_of(make).unwrap());
}

fn check(change: impl FnOnce(&mut ModelFolder), expected: Expect) {
    let mut folder = good();
    change(&mut folder);
    check_files(|path| folder.write(path), expected);
}

/// The error of a folder whose file of weights `change` has changed.
fn check_bytes(change: impl FnOnce(&mut Vec<u8>), expected: Expect) {
    let mut bytes = shard(&good().tensors);
    change(&mut bytes);
    let make = |path: &Path| {
        good().write(path);
        fs::write(path.join(WEIGHTS), bytes).unwrap();
    };
    check_files(make, expected);
}

/// The error of a folder whose table of tensors `change` has changed.
fn check_table(change: impl FnOnce(&mut Map<String, Json>), expected: Expect) {
    let tensors = good().tensors;
    let mut table = table(&tensors);
    change(&mut table);
    check_bytes(|bytes| *bytes = with_table(&table, &tensors), expected);
}

#[test]
fn files_that_are_missing_or_elsewhere_are_named() {
    let without = |name: &'static str| {
        move |path: &Path| {
            good().write(path);
            fs::remove_file(path.join(name)).unwrap();
        }
    };
    check_files(
        without("config.json"),
        expect![
            "its config.json cannot be read: No such file or directory (os error 2); download the folder again"
        ],
    );
    check_files(
        without("tokenizer.json"),
        expect![
            "it has no tokenizer.json; write one, as `save_pretrained` of transformers' AutoTokenizer does"
        ],
    );
    check_files(
        without(WEIGHTS),
        expect![
            "it has neither model.safetensors nor model.safetensors.index.json; save the model in this form, as `save_pretrained` of transformers does"
        ],
    );
    let shards = |change: fn(&Path)| {
        move |path: &Path| {
            good().write_shards(path, 3);
            change(path);
        }
    };
    check_files(
        shards(|path| fs::remove_file(path.join("model-00002-of-00003.safetensors")).unwrap()),
        expect![
            "its model-00002-of-00003.safetensors cannot be read: No such file or directory (os error 2); download the folder again"
        ],
    );
    for outside in [
        "../secret.safetensors",
        "/etc/passwd",
        "..",
        "a/b.safetensors",
    ] {
        let make = |path: &Path| {
            good().write_formats(path);
            let map = Map::from_iter([("model.norm.weight".to_owned(), json!(outside))]);
            write_index(path, map);
        };
        let error = error_of(make).unwrap();
        assert!(
            error.contains(&format!("names {outside:?}, which is not")),
            "{error}"
        );
    }
    check_files(
        |path| {
            good().write_formats(path);
            fs::write(path.join("model.safetensors.index.json"), "{}").unwrap();
        },
        expect![
            "its model.safetensors.index.json has no weight_map; the file is damaged, download it again"
        ],
    );
    check_files(
        |path| {
            good().write_formats(path);
            let map = Map::from_iter([("model.norm.weight".to_owned(), json!(1))]);
            write_index(path, map);
        },
        expect![
            "its model.safetensors.index.json says of the tensor model.norm.weight that it is where it is not; the file is damaged, download it again"
        ],
    );
    // A tensor in two files, and one that is not where the index says.
    check_files(
        shards(|path| {
            fs::copy(
                path.join("model-00001-of-00003.safetensors"),
                path.join("model-00002-of-00003.safetensors"),
            )
            .unwrap();
        }),
        expect![
            "its model-00002-of-00003.safetensors has a tensor lm_head.weight, which another file has too; the file is damaged, download it again"
        ],
    );
    check_files(
        shards(|path| {
            let index = path.join("model.safetensors.index.json");
            let text = fs::read_to_string(&index).unwrap();
            fs::write(index, text.replacen("model-00001", "model-00002", 1)).unwrap();
        }),
        expect![
            "its model.safetensors.index.json says of the tensor lm_head.weight that it is where it is not; the file is damaged, download it again"
        ],
    );
}

#[cfg(unix)]
#[test]
fn a_link_may_not_lead_out_of_the_folder() {
    use std::os::unix::fs::symlink;

    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join(WEIGHTS), shard(&good().tensors)).unwrap();
    let link = |path: &Path| {
        good().write_formats(path);
        symlink(elsewhere.path().join(WEIGHTS), path.join(WEIGHTS)).unwrap();
    };
    check_files(
        link,
        expect![
            "its model.safetensors is a link that leads out of the folder; put the file itself there"
        ],
    );
    check_files(
        |path| {
            good().write_formats(path);
            symlink("/dev/zero", path.join(WEIGHTS)).unwrap();
        },
        expect![
            "its model.safetensors is a link that leads out of the folder; put the file itself there"
        ],
    );
    check_files(
        |path| {
            good().write(path);
            fs::remove_file(path.join("config.json")).unwrap();
            symlink("none", path.join("config.json")).unwrap();
        },
        expect![
            "its config.json cannot be read: No such file or directory (os error 2); download the folder again"
        ],
    );
    // The cache of a Hub consists of links to the place for its files.
    let home = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (home.path().join("blobs"), home.path().join("snapshots/abc"));
    good().write(&blobs);
    fs::create_dir_all(&snapshot).unwrap();
    for file in ["config.json", "tokenizer.json", WEIGHTS] {
        symlink(Path::new("../../blobs").join(file), snapshot.join(file)).unwrap();
    }
    let target = tempfile::tempdir().unwrap();
    import(&snapshot, target.path(), &mut |_| ()).unwrap();
}

#[test]
fn a_lying_table_is_refused() {
    check_bytes(
        |bytes| bytes.truncate(5),
        expect![
            "its model.safetensors ends within its table, after 5 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| bytes.truncate(200),
        expect![
            "its model.safetensors ends within its table, after 200 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| bytes.truncate(bytes.len() - 1),
        expect![
            "its model.safetensors has 194108 bytes, and its table is about 194109; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| bytes.push(0),
        expect![
            "its model.safetensors has 194110 bytes, and its table is about 194109; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| bytes[..8].fill(0xFF),
        expect![
            "its model.safetensors ends within its table, after 194109 bytes; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| bytes[0] ^= 1,
        expect![
            "its model.safetensors has a table that cannot be: EOF while parsing an object at line 1 column 2740; the file is damaged, download it again"
        ],
    );
    check_bytes(
        |bytes| {
            let len = 17 << 20;
            bytes[..8].copy_from_slice(&(len as u64).to_le_bytes());
            bytes.resize(len + 8, b' ');
        },
        expect![
            "its model.safetensors has a table of 17825792 bytes, and no known model has; the file is damaged, download it again"
        ],
    );
    const NORM: &str = "model.norm.weight";
    check_table(
        |table| table[NORM]["data_offsets"][0] = json!(0),
        expect![
            "its model.safetensors has a table that cannot be: invalid offset for tensor `model.norm.weight`; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["data_offsets"][1] = json!(1),
        expect![
            "its model.safetensors has a table that cannot be: invalid offset for tensor `model.norm.weight`; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["data_offsets"] = json!([1_u64 << 63, 1_u64 << 63]),
        expect![
            "its model.safetensors has a table that cannot be: invalid offset for tensor `model.layers.0.input_layernorm.weight`; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["shape"] = json!([32]),
        expect![
            "its model.safetensors has a table that cannot be: invalid shape, data type, or offset for tensor; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["shape"] = json!([u64::MAX, 2]),
        expect![
            "its model.safetensors has a table that cannot be: overflow computing buffer size from shape and/or element type; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["shape"] = json!([-64]),
        expect![
            "its model.safetensors has a table that cannot be: invalid value: integer `-64`, expected usize at line 1 column 2742; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["shape"] = json!([4, 16]),
        expect![
            "its tensor model.norm.weight has the shape [4, 16], and [64] fits the sizes that it names; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["dtype"] = json!("F32"),
        expect![
            "its model.safetensors has a table that cannot be: invalid shape, data type, or offset for tensor; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["dtype"] = json!("F8"),
        expect![
            "its model.safetensors has a table that cannot be: unknown variant `F8`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 2739; the file is damaged, download it again"
        ],
    );
    check_table(
        |table| table[NORM]["dtype"] = json!("I16"),
        expect![
            "its tensor model.norm.weight is stored as I16, which cannot be read; use the same model in F32, F16 or BF16"
        ],
    );
    check_table(
        |table| {
            table.remove(NORM);
        },
        expect![
            "its model.safetensors has a table that cannot be: invalid offset for tensor `model.layers.0.input_layernorm.weight`; the file is damaged, download it again"
        ],
    );
    check(
        |folder| folder.tensors.retain(|tensor| tensor.name != NORM),
        expect!["it has no tensor model.norm.weight; get the model from its publisher"],
    );
    check(
        |folder| {
            let mut empty = folder.tensor(NORM).clone();
            (empty.name, empty.shape, empty.bytes) = ("empty".to_owned(), vec![0], Vec::new());
            folder.tensors.push(empty);
        },
        expect![
            "its model.safetensors has a tensor empty of the shape [0]; the file is damaged, download it again"
        ],
    );
    check(
        |folder| folder.tensor(NORM).bytes[..2].copy_from_slice(&[0xFF, 0xFF]),
        expect![
            "its tensor model.norm.weight has weights that are not numbers; download the file again"
        ],
    );
}

#[test]
fn a_lying_configuration_is_refused() {
    let set =
        |key: &'static str, value: Json| move |folder: &mut ModelFolder| folder.config[key] = value;
    check(
        set("model_type", json!("gemma2")),
        expect![
            "its architecture is gemma2, and only llama, mistral, qwen2, qwen3, starcoder2, gemma and granite are supported; use another model"
        ],
    );
    check(
        set("model_type", json!(7)),
        expect!["its model_type is not a text; get the model from its publisher"],
    );
    check(
        set("hidden_size", json!(128)),
        expect![
            "its tensor model.embed_tokens.weight has the shape [263, 64], and [_, 128] fits the sizes that it names; the file is damaged, download it again"
        ],
    );
    check(
        set("hidden_size", json!("64")),
        expect!["its hidden_size is not a whole number; get the model from its publisher"],
    );
    check(
        set("hidden_size", json!(-64)),
        expect!["its hidden_size is not a whole number; get the model from its publisher"],
    );
    check(
        set("num_hidden_layers", json!(3)),
        expect![
            "it has no tensor model.layers.2.self_attn.q_proj.weight; get the model from its publisher"
        ],
    );
    check(
        set("num_hidden_layers", json!(1)),
        expect![
            "it has a tensor model.layers.1.input_layernorm.weight, which is not supported; use another model"
        ],
    );
    check(
        set("num_hidden_layers", json!(u64::MAX)),
        expect![
            "its num_hidden_layers is 18446744073709551615, not 1 to 1048576; the file is damaged, download it again"
        ],
    );
    check(
        set("num_attention_heads", json!(0)),
        expect![
            "its num_attention_heads is 0, not 1 to 64; the file is damaged, download it again"
        ],
    );
    check(
        set("num_key_value_heads", json!(3)),
        expect![
            "it has 4 query heads for 3 key/value heads, which is not supported; use another model"
        ],
    );
    check(
        set("head_dim", json!(32)),
        expect![
            "its tensor model.layers.0.self_attn.q_proj.weight has the shape [64, 64], and [128, 64] fits the sizes that it names; the file is damaged, download it again"
        ],
    );
    check(
        set("rms_norm_eps", json!(-1.0)),
        expect!["it has a rms_norm_eps of -1, which is not supported; use another model"],
    );
    check(
        set("rms_norm_eps", json!(null)),
        expect!["it does not say its rms_norm_eps; get the model from its publisher"],
    );
    check(
        set("mlp_bias", json!(true)),
        expect![
            "it has no tensor model.layers.0.mlp.gate_proj.bias; get the model from its publisher"
        ],
    );
    check(
        set("hidden_act", json!("relu")),
        expect!["it has the activation relu, which is not supported; use another model"],
    );
    check(
        set("tie_word_embeddings", json!("yes")),
        expect!["its tie_word_embeddings is not true or false; get the model from its publisher"],
    );
    check(
        set("quantization_config", json!({ "quant_method": "gptq" })),
        expect![
            "it has weights that gptq has quantised, which is not supported; use another model"
        ],
    );
    check(
        set("partial_rotary_factor", json!(0.5)),
        expect!["it has a partial_rotary_factor of 0.5, which is not supported; use another model"],
    );
    check(
        set("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 })),
        expect!["it has rotary scaling of type dynamic, which is not supported; use another model"],
    );
    check(
        set(
            "rope_scaling",
            json!({ "rope_type": "llama3", "factor": 8.0 }),
        ),
        expect![
            "it does not say its rope_scaling.low_freq_factor; get the model from its publisher"
        ],
    );
    check(
        set("rope_scaling", json!({ "type": "linear", "factor": 0 })),
        expect![
            "it has rotary numbers that make no sense, which is not supported; use another model"
        ],
    );
    check(
        set("rope_theta", json!(0)),
        expect![
            "it has rotary numbers that make no sense, which is not supported; use another model"
        ],
    );
    check(
        |folder| {
            folder.config["sliding_window"] = json!(5);
            folder.config["use_sliding_window"] = json!(true);
            folder.config["layer_types"] = json!(["full_attention"]);
        },
        expect!["it has layer_types of 1 layers, which is not supported; use another model"],
    );
    check(
        |folder| {
            folder.tensor("lm_head.weight").name = "other.weight".to_owned();
        },
        expect!["it has no tensor lm_head.weight; get the model from its publisher"],
    );
    check(
        |folder| {
            folder.tensor("model.layers.1.self_attn.k_proj.bias").name = "other".to_owned();
        },
        expect![
            "it has no tensor model.layers.1.self_attn.k_proj.bias; get the model from its publisher"
        ],
    );
    check_files(
        |path| {
            good().write(path);
            fs::write(path.join("config.json"), "[".repeat(100_000)).unwrap();
        },
        expect![
            "its config.json is no JSON: recursion limit exceeded at line 1 column 128; the file is damaged, download it again"
        ],
    );
    check_files(
        |path| {
            good().write(path);
            fs::write(path.join("config.json"), " ".repeat(2 << 20)).unwrap();
        },
        expect![
            "its config.json cannot be read: it is larger than 1048576 bytes; download the folder again"
        ],
    );
    check_files(
        |path| {
            good().write(path);
            fs::write(path.join("tokenizer.json"), "{}").unwrap();
        },
        expect![
            "its tokenizer is unusable: Model missing. at line 1 column 2; get the model from its publisher"
        ],
    );
    check(
        |folder| {
            for name in ["model.embed_tokens.weight", "lm_head.weight"] {
                let tensor = folder.tensor(name);
                tensor.shape[0] = 10;
                tensor.bytes.truncate(10 * 64 * 2);
            }
        },
        expect!["it has 262 tokens and an embedding of 10 rows; get the model from its publisher"],
    );
}

/// No change of a few bytes is a panic, and what is refused is refused by name.
#[test]
fn random_damage_of_a_folder_is_refused_or_imported() {
    let bytes = shard(&good().tensors);
    let table = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut rng = SmallRng::seed_from_u64(22);
    let mut refused = 0;
    for _ in 0..150 {
        let mut damaged = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..table);
            damaged[at] = match rng.random() {
                // Most numbers and punctuation are there already.
                true => bytes[rng.random_range(8..table)],
                false => rng.random(),
            };
        }
        if rng.random_bool(0.1) {
            damaged.truncate(rng.random_range(0..bytes.len()));
        }
        let error = error_of(|path| {
            good().write(path);
            fs::write(path.join(WEIGHTS), &damaged).unwrap();
        });
        refused += usize::from(error.is_some());
    }
    assert!(refused > 50, "{refused}");
}
