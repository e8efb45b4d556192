//! A model folder: its decoder, its vocabulary and its prompt format.

pub mod catalogue;
pub mod chat_template;
pub mod choice;
pub mod configuration;
pub mod describe;
mod fim_families;
pub mod fim_template;
pub mod findings;
pub mod import;
pub mod manifest;
pub mod needs;
pub mod onnx;
pub mod overview;
pub mod plain_file;
pub mod store;
pub mod sums;
pub mod tokenizer;
pub mod trial;

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::runtime::Runtime;
use chat_template::{ChatTemplate, ChatTemplateError};
use describe::{DescribeError, Description};
use fim_template::{FimTemplate, FimTemplateError};
use onnx::{OnnxError, OnnxLm};
use tokenizer::{Tokenizer, TokenizerError};

/// A vocabulary may be padded to a round number, with fewer than one row in this many: of known
/// models Phi-2 has the most, one in 56.
const PADDING_SHARE: usize = 16;

/// A causal language model.
pub trait CausalLm: std::fmt::Debug + Send {
    /// The width of a row of logits.
    fn vocabulary(&self) -> usize;

    /// An empty cache for one sequence of up to `max_tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`ForwardError::Runtime`] when there is no memory for it.
    fn new_cache(&self, max_tokens: usize) -> Result<Box<dyn KvCache>, ForwardError>;
}

/// The keys and values of one token sequence or of several, its lanes, on the device that computes.
pub trait KvCache: std::fmt::Debug + Send {
    /// One forward pass of the model: equally many tokens in each lane, `tokens` being
    /// `[lanes, length]`, after the lane's first `pasts[lane]` tokens. Afterwards a lane holds
    /// `pasts[lane] + length` tokens; what came after its past is overwritten. `logits` becomes the
    /// last `rows` rows of each lane, `[lanes, rows, vocabulary]`. After an error each lane still
    /// holds its past.
    ///
    /// # Errors
    ///
    /// See [`ForwardError`].
    fn forward(
        &mut self,
        pasts: &[usize],
        tokens: &[u32],
        rows: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ForwardError>;

    /// A cache of `lanes` sequences of up to `max_tokens` tokens, each of which begins with the
    /// first `len` tokens of this one, which has one lane.
    ///
    /// # Errors
    ///
    /// [`ForwardError::Runtime`] when there is no memory for it.
    fn fork(
        &self,
        len: usize,
        lanes: usize,
        max_tokens: usize,
    ) -> Result<Box<dyn KvCache>, ForwardError>;
}

/// Why a forward pass did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The sequence is longer than the cache, in tokens.
    #[error("the sequence does not fit a cache of {0} tokens")]
    Full(usize),
    /// ONNX Runtime failed.
    #[error("the model failed: {0}")]
    Runtime(String),
    /// A logit is not a number.
    #[error(
        "the model computes values that are not numbers: its weights are damaged; \
         copy the model folder again, or name another one"
    )]
    Damaged,
}

/// A model that is ready to write.
#[derive(Debug)]
pub struct Model {
    /// The name people know it by.
    pub name: String,
    /// The decoder.
    pub causal_lm: Box<dyn CausalLm>,
    /// The vocabulary.
    pub tokenizer: Tokenizer,
    /// The format of a text with a hole in it.
    pub fim: FimTemplate,
    /// The format of a conversation, if the model was trained on one.
    pub chat: Option<ChatTemplate>,
    /// The longest sequence the model was made for, in tokens.
    pub context_length: usize,
    /// What runs it, and why nothing better does it.
    pub runs_on: String,
    /// Why it does not run on what the user asked for.
    pub warning: Option<String>,
}

impl Model {
    /// Loads the model folder `directory`.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]: each message names the file and the remedy.
    pub fn load(directory: &Path, runtime: &mut Runtime) -> Result<Self, LoadError> {
        let mut description = Description::read(directory)?;
        let graph = directory.join(&description.manifest.graph);
        let sizes = description.sizes.clone();
        // Each takes about as long as the other (docs/decisions/014-start.md).
        let (format, causal_lm) = std::thread::scope(|scope| {
            let format = scope.spawn(|| prompt_format(directory, &mut description));
            let start = Instant::now();
            let causal_lm = OnnxLm::load(&graph, &sizes, runtime);
            tracing::debug!(elapsed = ?start.elapsed(), "the graph is loaded");
            (format.join(), causal_lm)
        });
        let (tokenizer, fim, chat) = format.unwrap_or_else(|panic| resume_unwind(panic))?;
        let causal_lm = causal_lm?;
        check_vocabulary(directory, tokenizer.len(), causal_lm.vocabulary())?;
        let manifest = description.manifest;
        Ok(Self {
            name: manifest.name,
            causal_lm: Box::new(causal_lm),
            tokenizer,
            fim,
            chat,
            context_length: manifest.context_length,
            runs_on: runtime.to_string(),
            warning: runtime.warning(),
        })
    }
}

/// What a model is given, and how: everything of a model folder but its graph.
fn prompt_format(
    directory: &Path,
    description: &mut Description,
) -> Result<(Tokenizer, FimTemplate, Option<ChatTemplate>), LoadError> {
    let start = Instant::now();
    let path = directory.join(&description.manifest.tokenizer);
    let tokenizer = Tokenizer::load(&path)?;
    let fim = description
        .fim(&tokenizer)
        .map_err(|source| LoadError::Fim { path, source })?;
    let chat = description.chat_template(directory, &tokenizer)?;
    tracing::debug!(elapsed = ?start.elapsed(), "the tokenizer is loaded");
    Ok((tokenizer, fim, chat))
}

/// Checks that a tokenizer of `tokens` tokens fits logits of `width`.
fn check_vocabulary(directory: &Path, tokens: usize, width: usize) -> Result<(), LoadError> {
    match tokens > width || tokens < width - width / PADDING_SHARE {
        true => Err(LoadError::Mismatch {
            directory: directory.to_path_buf(),
            tokenizer: tokens,
            graph: width,
        }),
        false => Ok(()),
    }
}

/// Why a model folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not a model folder, or a file of it is wrong.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The tokenizer is missing or wrong.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The tokenizer does not have the tokens of the prompt format.
    #[error("{path}: {source}")]
    Fim {
        /// The tokenizer's file.
        path: PathBuf,
        /// What is missing.
        source: FimTemplateError,
    },
    /// The chat template is missing or wrong.
    #[error(transparent)]
    Chat(#[from] ChatTemplateError),
    /// The graph is missing or wrong.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The tokenizer belongs to another model.
    #[error(
        "in {directory} the tokenizer has {tokenizer} tokens and the graph {graph}: \
         they belong to different models; copy the model folder again"
    )]
    Mismatch {
        /// The model folder.
        directory: PathBuf,
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Width of the graph's logits.
        graph: usize,
    },
}

/// The folder of the model that is used when none is named, if it can be found: beside the
/// executable, where a package puts it, or in the source tree the executable was built from.
#[must_use]
pub fn default_directory() -> Option<PathBuf> {
    const NAME: &str = "models/smollm2-135m-fim";
    let exe = std::env::current_exe().ok();
    let beside = exe.as_deref().and_then(Path::parent);
    let places = [
        beside.map(|beside| beside.join(NAME)),
        beside.map(|beside| beside.join("../share/interline").join(NAME)),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(NAME)),
    ];
    places
        .into_iter()
        .flatten()
        .find(|directory| directory.join(manifest::FILE_NAME).is_file())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::LazyLock;

    use super::manifest::Manifest;
    use super::*;

    /// The shipped model's folder.
    pub(crate) fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/smollm2-135m-fim")
    }

    /// The shipped model's manifest.
    pub(crate) fn manifest() -> Manifest {
        Manifest::read(&directory()).unwrap()
    }

    /// The shipped model's tokenizer.
    pub(crate) fn tokenizer() -> &'static Tokenizer {
        static TOKENIZER: LazyLock<Tokenizer> =
            LazyLock::new(|| Tokenizer::load(&directory().join("tokenizer.json")).unwrap());
        &TOKENIZER
    }

    #[test]
    fn a_vocabulary_may_be_padded_but_not_be_another() {
        for (tokens, width, fits) in [
            (151_665, 151_936, true),
            (50_295, 51_200, true),
            (260, 260, true),
            (261, 260, false),
            (32_000, 49_152, false),
        ] {
            let checked = check_vocabulary(Path::new("a"), tokens, width);
            assert_eq!(checked.is_ok(), fits, "{tokens} {width}");
        }
    }
}
