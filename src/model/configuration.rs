//! The JSON files that publishers put beside a graph: the sizes of a model, the tokens that end its
//! texts, and its chat template.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::plain_file::{self, PlainFileError};

/// The model's architecture, as `transformers` writes it.
pub const CONFIG: &str = "config.json";
/// How the model is made to write, as `transformers` writes it.
pub const GENERATION: &str = "generation_config.json";
/// What onnxruntime-genai must know.
pub const GENAI: &str = "genai_config.json";
/// What `transformers` must know of a tokenizer.
pub const TOKENIZER: &str = "tokenizer_config.json";

/// The largest file that is read, in bytes. Those that list all added tokens have a megabyte.
const MAX_BYTES: u64 = 16 << 20;

/// What the files of a folder say. A file that is not there says nothing.
#[derive(Debug, Default)]
pub struct Configuration {
    folder: PathBuf,
    config: Option<Config>,
    generation: Option<Ends>,
    genai: Option<Genai>,
    tokenizer: Option<TokenizerConfig>,
}

/// The sizes of a model, as far as its configuration states them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The file that states them.
    pub file: PathBuf,
    /// Layers.
    pub layers: Option<usize>,
    /// Key/value heads of a layer.
    pub heads: Option<usize>,
    /// The key/value heads that other sizes imply, for where none are stated.
    pub usual_heads: Option<usize>,
    /// Elements of a head.
    pub head_dim: Option<usize>,
    /// The size of a head that other sizes imply, for where none is stated.
    pub usual_head_dim: Option<usize>,
    /// The width of a row of logits.
    pub vocabulary: Option<usize>,
}

/// Each size has the names that architectures use.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    max_position_embeddings: Option<usize>,
    n_positions: Option<usize>,
    num_hidden_layers: Option<usize>,
    n_layer: Option<usize>,
    num_attention_heads: Option<usize>,
    n_head: Option<usize>,
    num_key_value_heads: Option<usize>,
    multi_query: Option<bool>,
    hidden_size: Option<usize>,
    n_embd: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    eos_token_id: Option<Ids>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ends {
    eos_token_id: Option<Ids>,
}

#[derive(Debug, Deserialize)]
struct Genai {
    model: GenaiModel,
}

#[derive(Debug, Deserialize)]
struct GenaiModel {
    context_length: Option<usize>,
    eos_token_id: Option<Ids>,
    #[serde(rename = "type")]
    model_type: Option<String>,
    vocab_size: Option<usize>,
    decoder: GenaiDecoder,
}

#[derive(Debug, Deserialize)]
struct GenaiDecoder {
    filename: Option<String>,
    head_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_key_value_heads: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    eos_token: Option<Token>,
    chat_template: Option<Templates>,
    model_max_length: Option<f64>,
}

/// One id or several. Some configurations write -1 for none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(i64),
    Several(Vec<i64>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl Configuration {
    /// Reads the files of `folder`.
    ///
    /// # Errors
    ///
    /// See [`ConfigurationError`].
    pub fn read(folder: &Path) -> Result<Self, ConfigurationError> {
        Ok(Self {
            folder: folder.to_path_buf(),
            config: json(folder, CONFIG)?,
            generation: json(folder, GENERATION)?,
            genai: json(folder, GENAI)?,
            tokenizer: json(folder, TOKENIZER)?,
        })
    }

    /// The model's family, as `transformers` or onnxruntime-genai names it.
    #[must_use]
    pub fn model_type(&self) -> Option<&str> {
        let config = self.config.as_ref();
        let genai = self.genai.as_ref();
        config
            .and_then(|config| config.model_type.as_deref())
            .or_else(|| genai.and_then(|genai| genai.model.model_type.as_deref()))
    }

    /// The graph that onnxruntime-genai would load.
    #[must_use]
    pub fn graph(&self) -> Option<&str> {
        self.genai.as_ref()?.model.decoder.filename.as_deref()
    }

    /// The sizes that the graph must agree with.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        if let Some(config) = &self.config {
            let all_heads = config.num_attention_heads.or(config.n_head);
            let hidden = config.hidden_size.or(config.n_embd);
            return Sizes {
                file: self.folder.join(CONFIG),
                layers: config.num_hidden_layers.or(config.n_layer),
                heads: config.num_key_value_heads,
                usual_heads: match config.multi_query {
                    Some(true) => Some(1),
                    _ => all_heads,
                },
                head_dim: config.head_dim,
                usual_head_dim: hidden
                    .zip(all_heads)
                    .and_then(|(hidden, heads)| hidden.checked_div(heads)),
                vocabulary: config.vocab_size,
            };
        }
        match &self.genai {
            Some(Genai { model }) => Sizes {
                file: self.folder.join(GENAI),
                layers: model.decoder.num_hidden_layers,
                heads: model.decoder.num_key_value_heads,
                head_dim: model.decoder.head_size,
                vocabulary: model.vocab_size,
                ..Sizes::default()
            },
            None => Sizes {
                file: self.folder.join(CONFIG),
                ..Sizes::default()
            },
        }
    }

    /// The longest sequence the model was made for, in tokens, and the file that says so.
    #[must_use]
    pub fn context_length(&self) -> Option<(usize, &'static str)> {
        let genai = self.genai.as_ref();
        let genai = genai.and_then(|genai| genai.model.context_length);
        let config = self.config.as_ref();
        let config = config.and_then(|it| it.max_position_embeddings.or(it.n_positions));
        let tokenizer = self.tokenizer.as_ref().and_then(|it| it.model_max_length);
        // Those without a limit say 10^30.
        let tokenizer = tokenizer.filter(|length| (1.0..1e9).contains(length));
        [
            (genai, GENAI),
            (config, CONFIG),
            (tokenizer.map(|length| length as usize), TOKENIZER),
        ]
        .into_iter()
        .find_map(|(length, file)| Some((length.filter(|length| *length > 0)?, file)))
    }

    /// The ids of the tokens that end a text, each once, and the files that name them.
    #[must_use]
    pub fn ends(&self) -> (Vec<u32>, Vec<&'static str>) {
        let generation = self.generation.as_ref();
        let config = self.config.as_ref();
        let genai = self.genai.as_ref();
        let named = [
            (
                generation.and_then(|it| it.eos_token_id.as_ref()),
                GENERATION,
            ),
            (config.and_then(|it| it.eos_token_id.as_ref()), CONFIG),
            (genai.and_then(|it| it.model.eos_token_id.as_ref()), GENAI),
        ];
        let (mut ends, mut files) = (Vec::new(), Vec::new());
        for (ids, file) in named {
            let ids = match ids {
                Some(Ids::One(id)) => std::slice::from_ref(id),
                Some(Ids::Several(ids)) => ids,
                None => continue,
            };
            files.push(file);
            for id in ids.iter().filter_map(|id| u32::try_from(*id).ok()) {
                if !ends.contains(&id) {
                    ends.push(id);
                }
            }
        }
        (ends, files)
    }

    /// The token that ends a text, as its tokenizer's configuration spells it.
    #[must_use]
    pub fn end(&self) -> Option<&str> {
        match self.tokenizer.as_ref()?.eos_token.as_ref()? {
            Token::Text(token) | Token::Added { content: token } => Some(token),
        }
    }

    /// Whether the tokenizer's configuration has a chat template.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        let tokenizer = self.tokenizer.as_ref();
        tokenizer.is_some_and(|it| {
            it.chat_template
                .as_ref()
                .and_then(Templates::usual)
                .is_some()
        })
    }
}

impl Templates {
    /// The one for plain conversations.
    fn usual(&self) -> Option<&str> {
        match self {
            Self::One(template) => Some(template),
            Self::Named(templates) => {
                let usual = templates.iter().find(|it| it.name == "default");
                Some(&usual.or(templates.first())?.template)
            }
        }
    }
}

/// The chat template in a `tokenizer_config.json`.
///
/// # Errors
///
/// See [`ConfigurationError`].
pub fn chat_template(path: &Path) -> Result<String, ConfigurationError> {
    let config: TokenizerConfig = parse(path, plain_file::read(path, MAX_BYTES))?;
    let template = config.chat_template.as_ref().and_then(Templates::usual);
    template
        .map(str::to_owned)
        .ok_or_else(|| ConfigurationError {
            path: path.to_path_buf(),
            problem: "it has no chat_template".to_owned(),
        })
}

/// A file that may be missing.
fn json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, ConfigurationError> {
    let path = folder.join(name);
    match plain_file::read(&path, MAX_BYTES) {
        Err(PlainFileError::System(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => parse(&path, read).map(Some),
    }
}

fn parse<T: DeserializeOwned>(
    path: &Path,
    read: Result<Vec<u8>, PlainFileError>,
) -> Result<T, ConfigurationError> {
    let wrong = |problem: String| ConfigurationError {
        path: path.to_path_buf(),
        problem,
    };
    let bytes = read.map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}

/// Why one of the files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}: {problem}; copy the model folder again")]
pub struct ConfigurationError {
    path: PathBuf,
    problem: String,
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(files: &[(&str, &str)], expected: Expect) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let shown = match Configuration::read(folder.path()) {
            Ok(read) => format!(
                "{:?} {:?} {:?} {:?} {:?} {}",
                read.model_type(),
                read.context_length(),
                read.ends(),
                read.end(),
                read.sizes(),
                read.has_chat_template()
            ),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown.replace(folder.path().to_str().unwrap(), ""));
    }

    #[test]
    fn each_file_says_what_it_knows() {
        check(
            &[],
            expect![[
                r#"None None ([], []) None Sizes { file: "/config.json", layers: None, heads: None, usual_heads: None, head_dim: None, usual_head_dim: None, vocabulary: None } false"#
            ]],
        );
        check(
            &[
                (
                    CONFIG,
                    r#"{"model_type": "gpt_bigcode", "n_positions": 512, "n_layer": 2, "n_head": 4,
                        "n_embd": 64, "multi_query": true, "vocab_size": 99, "eos_token_id": 0}"#,
                ),
                (GENERATION, r#"{"eos_token_id": [3, 0, -1]}"#),
                (
                    TOKENIZER,
                    r#"{"eos_token": {"content": "<end>"}, "model_max_length": 1e30,
                        "chat_template": [{"name": "tool_use", "template": "a"}]}"#,
                ),
            ],
            expect![[
                r#"Some("gpt_bigcode") Some((512, "config.json")) ([3, 0], ["generation_config.json", "config.json"]) Some("<end>") Sizes { file: "/config.json", layers: Some(2), heads: None, usual_heads: Some(1), head_dim: None, usual_head_dim: Some(16), vocabulary: Some(99) } true"#
            ]],
        );
        check(
            &[
                (
                    GENAI,
                    r#"{"model": {"type": "llama", "context_length": 7, "eos_token_id": [1],
                        "decoder": {"filename": "model.onnx", "head_size": 8}}}"#,
                ),
                (
                    TOKENIZER,
                    r#"{"eos_token": null, "chat_template": "b",
                        "model_max_length": 1000000000000000019884624838656}"#,
                ),
            ],
            expect![[
                r#"Some("llama") Some((7, "genai_config.json")) ([1], ["genai_config.json"]) None Sizes { file: "/genai_config.json", layers: None, heads: None, usual_heads: None, head_dim: Some(8), usual_head_dim: None, vocabulary: None } true"#
            ]],
        );
    }

    #[test]
    fn a_file_that_is_wrong_is_named() {
        check(
            &[(CONFIG, r#"{"head_dim": "many"}"#)],
            expect![[
                r#"cannot use /config.json: invalid type: string "many", expected usize at line 1 column 19; copy the model folder again"#
            ]],
        );
        check(
            &[(GENERATION, "{")],
            expect![
                "cannot use /generation_config.json: EOF while parsing an object at line 1 column 1; copy the model folder again"
            ],
        );
        check(
            &[(GENAI, "{}")],
            expect![
                "cannot use /genai_config.json: missing field `model` at line 1 column 2; copy the model folder again"
            ],
        );
    }
}
