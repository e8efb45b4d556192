//! What a model folder is: where its graph is, and what its own files say, which `model.toml` may
//! override.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::chat_template::{self, ChatTemplate, ChatTemplateError, ENDS_OF_TURN};
use super::configuration::{CONFIG, Configuration, ConfigurationError, GENAI, Sizes, TOKENIZER};
use super::fim_template::{FimTemplate, FimTemplateError};
use super::manifest::{self, Chat, Manifest, ManifestError, ManifestFile};
use super::tokenizer::Tokenizer;

/// The names of a graph that is chosen among several, the best first: what it is, without and with
/// the `decoder_model_merged` of older exporters, and then how its weights are stored.
///
/// The order is that of the CPU, which every provider can fall back to. Weights in 4 bits are read
/// fastest, and they are multiplied by floating-point activations, which those in 8 bits round as
/// well. 16-bit floating-point numbers, which GPUs like, are converted one by one on a CPU. It is a
/// judgement: `graph` in `model.toml` names another.
const FORMS: [(&str, &str); 10] = [
    ("_q4", "weights in 4 bits"),
    ("_quantized", "weights in 8 bits"),
    ("_int8", "weights in 8 bits"),
    ("_uint8", "weights in 8 bits"),
    ("", "weights as published"),
    ("_bnb4", "weights in 4 bits"),
    ("_q4f16", "weights in 4 bits, the rest in 16"),
    ("_fp16", "weights in 16 bits"),
    ("_q2", "weights in 2 bits"),
    ("_q2f16", "weights in 2 bits, the rest in 16"),
];

/// What comes before the form in the name of a graph.
const STEMS: [&str; 2] = ["model", "decoder_model_merged"];

/// The tokenizer of a folder that does not say otherwise.
const TOKENIZER_FILE: &str = "tokenizer.json";

/// The chat template in a file of its own.
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// A model folder as its files describe it.
#[derive(Debug)]
pub struct Description {
    /// What must be known about it; the tokens that end an answer only after
    /// [`Description::chat_template`].
    pub manifest: Manifest,
    /// The sizes that its graph must agree with.
    pub sizes: Sizes,
    /// The model's family, as its configuration names it.
    pub model_type: Option<String>,
    /// The ids of the tokens that end a text, by the configuration.
    pub ends: Vec<u32>,
    /// Where each part of the manifest is from.
    pub sources: Sources,
    /// How the configuration spells the token that ends a text.
    end: Option<String>,
}

/// Where each part of a manifest is from: a file, or a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Of the name.
    pub name: String,
    /// Of the licence.
    pub license: String,
    /// Of the choice of the graph.
    pub graph: String,
    /// Of the choice of the tokenizer.
    pub tokenizer: String,
    /// Of the longest sequence.
    pub context_length: String,
    /// Of the tokens that end a text.
    pub ends: String,
    /// Of the chat template.
    pub chat_template: String,
    /// Of the tokens that end an answer.
    pub chat: String,
}

impl Manifest {
    /// What must be known about the model folder `directory`, but for the tokens that end an answer.
    ///
    /// # Errors
    ///
    /// See [`DescribeError`].
    pub fn read(directory: &Path) -> Result<Self, DescribeError> {
        Description::read(directory).map(|description| description.manifest)
    }
}

impl Description {
    /// Reads the files of the model folder `directory`, without its graph and its tokenizer.
    ///
    /// # Errors
    ///
    /// See [`DescribeError`].
    pub fn read(directory: &Path) -> Result<Self, DescribeError> {
        let file = ManifestFile::read(directory)?;
        let file = file.unwrap_or_default();
        let configuration = Configuration::read(directory)?;
        let in_manifest = || manifest::FILE_NAME.to_owned();
        let mut sources = Sources::default();

        let graph;
        (graph, sources.graph) = match file.graph {
            Some(graph) => (graph, in_manifest()),
            None => graph_of(directory, configuration.graph())?,
        };
        let tokenizer;
        (tokenizer, sources.tokenizer) = match file.tokenizer {
            Some(tokenizer) => (tokenizer, in_manifest()),
            None => (TOKENIZER_FILE.into(), "the usual name".to_owned()),
        };
        let name;
        (name, sources.name) = match file.name {
            Some(name) => (name, in_manifest()),
            None => (name_of(directory), "the folder's name".to_owned()),
        };
        sources.license = match file.license {
            Some(_) => in_manifest(),
            None => "no file says it for programs to read".to_owned(),
        };
        let context_length;
        (context_length, sources.context_length) =
            match (file.context_length, configuration.context_length()) {
                (Some(length @ 1..), _) => (length, in_manifest()),
                (_, Some((length, from))) => (length, from.to_owned()),
                _ => {
                    return Err(DescribeError::ContextLength {
                        folder: directory.to_path_buf(),
                    });
                }
            };
        let chat_template;
        (chat_template, sources.chat_template) = match file.chat_template {
            Some(template) => (Some(template), in_manifest()),
            None if directory.join(CHAT_TEMPLATE).is_file() => {
                (Some(CHAT_TEMPLATE.into()), "its own file".to_owned())
            }
            None if configuration.has_chat_template() => {
                (Some(TOKENIZER.into()), "`chat_template` in it".to_owned())
            }
            None => (
                None,
                format!("neither {CHAT_TEMPLATE} nor `chat_template` in {TOKENIZER}"),
            ),
        };
        let (ends, files) = configuration.ends();
        sources.ends = files.join(", ");
        sources.chat = match file.chat {
            Some(_) => format!("[chat] in {}", manifest::FILE_NAME),
            None => String::new(),
        };
        Ok(Self {
            manifest: Manifest {
                name,
                license: file.license,
                graph,
                tokenizer,
                context_length,
                fim: file.fim,
                chat_template,
                chat: file.chat,
            },
            sizes: configuration.sizes(),
            model_type: configuration.model_type().map(str::to_owned),
            ends,
            sources,
            end: configuration.end().map(str::to_owned),
        })
    }

    /// The format of a text with a hole in it. Unless the manifest names it, the tokens that end
    /// texts by the configuration end the middle too.
    ///
    /// # Errors
    ///
    /// See [`FimTemplateError`].
    pub fn fim(&self, tokenizer: &Tokenizer) -> Result<FimTemplate, FimTemplateError> {
        let named = self.manifest.fim.as_ref();
        let mut fim = FimTemplate::resolve(tokenizer, named, self.model_type.as_deref())?;
        if named.is_none() {
            for end in &self.ends {
                if !fim.end.contains(end) {
                    fim.end.push(*end);
                }
            }
        }
        Ok(fim)
    }

    /// The chat template of the folder, with the tokens that end an answer. One that was found, and
    /// that cannot be used, is left out: the model completes without it.
    ///
    /// # Errors
    ///
    /// When the manifest names a template that cannot be used.
    pub fn chat_template(
        &mut self,
        directory: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<Option<ChatTemplate>, ChatTemplateError> {
        let Some(file) = self.manifest.chat_template.clone() else {
            return Ok(None);
        };
        let read = self.read_template(&directory.join(&file), tokenizer);
        let read = read.and_then(|()| ChatTemplate::read(directory, &self.manifest, tokenizer));
        match read {
            Err(error) if self.sources.chat_template != manifest::FILE_NAME => {
                tracing::warn!("the model is used without a chat template: {error}");
                self.manifest.chat_template = None;
                self.sources.chat_template = error.to_string();
                Ok(None)
            }
            read => read,
        }
    }

    /// Finds the tokens that end an answer, unless the manifest names them: those that the template
    /// writes after a turn, and those that end a text.
    fn read_template(
        &mut self,
        template: &Path,
        tokenizer: &Tokenizer,
    ) -> Result<(), ChatTemplateError> {
        if self.manifest.chat.is_some() {
            return Ok(());
        }
        let template = chat_template::source(template)?;
        let turns = ENDS_OF_TURN.iter().copied();
        let turns = turns.filter(|token| template.contains(token));
        let turns = turns.map(|token| (token.to_owned(), "the template"));
        let end = self.end.iter().map(|token| (token.clone(), TOKENIZER));
        let by_id = self.ends.iter().map(|id| tokenizer.show(&[*id]));
        let by_id = by_id.map(|token| (token, self.sources.ends.as_str()));
        let (mut tokens, mut why) = (Vec::new(), Vec::new());
        for (token, from) in turns.chain(end).chain(by_id) {
            if tokenizer.special_id(&token).is_some() && !tokens.contains(&token) {
                tokens.push(token);
                if !why.contains(&from) {
                    why.push(from);
                }
            }
        }
        self.sources.chat = why.join(", ");
        self.manifest.chat = Some(Chat { end: tokens });
        Ok(())
    }
}

/// The last part of the folder's path that names a model: in a Hub's cache, the folders of a
/// repository's versions have names that say nothing.
fn name_of(directory: &Path) -> String {
    let whole = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
    let mut parts = whole.iter().rev().map(|part| part.to_string_lossy());
    let last = parts.next().unwrap_or_default().into_owned();
    match (parts.next().as_deref(), parts.next()) {
        (Some("snapshots"), Some(repository)) => match repository.rsplit_once("--") {
            Some((_, name)) => name.to_owned(),
            None => last,
        },
        _ => last,
    }
}

/// The graph of a folder without a manifest, and why it is that one.
fn graph_of(directory: &Path, genai: Option<&str>) -> Result<(PathBuf, String), DescribeError> {
    if let Some(name) = genai {
        let graph = PathBuf::from(name);
        let plain = Path::new(name).file_name() == Some(graph.as_os_str());
        return match plain && directory.join(&graph).is_file() {
            true => Ok((graph, format!("`filename` in {GENAI}"))),
            false => Err(DescribeError::Genai {
                path: directory.join(GENAI),
                graph,
            }),
        };
    }
    let graphs = graphs(directory)?;
    let [first, ..] = graphs.as_slice() else {
        return Err(DescribeError::NoGraph(directory.to_path_buf()));
    };
    // In each form both places are looked at, so that neither is preferred.
    for stem in STEMS {
        for (form, what) in FORMS {
            let name = format!("{stem}{form}.onnx");
            let mut fitting = graphs.iter().filter(|graph| graph.ends_with(&name));
            let (Some(graph), second) = (fitting.next(), fitting.next()) else {
                continue;
            };
            if let Some(second) = second {
                return Err(ambiguous(directory, graph, second));
            }
            let why = match graphs.len() {
                1 => format!("the only graph; {what}"),
                count => format!("{what}, the best on a CPU of {count} graphs"),
            };
            return Ok((graph.clone(), why));
        }
    }
    // The two halves of an older exporter are not a choice: neither is enough.
    let half = |graph: &&PathBuf| graph.ends_with("decoder_with_past_model.onnx");
    if let Some(half) = graphs.iter().find(half) {
        return Err(DescribeError::Half(directory.join(half)));
    }
    match graphs.get(1) {
        None => Ok((first.clone(), "the only graph".to_owned())),
        Some(second) => Err(ambiguous(directory, first, second)),
    }
}

fn ambiguous(directory: &Path, first: &Path, second: &Path) -> DescribeError {
    DescribeError::Ambiguous {
        folder: directory.to_path_buf(),
        first: first.to_path_buf(),
        second: second.to_path_buf(),
    }
}

/// The graphs in a folder and in its folder `onnx`, relative to it and sorted.
fn graphs(directory: &Path) -> Result<Vec<PathBuf>, DescribeError> {
    let mut graphs = Vec::new();
    for inner in ["", "onnx"] {
        let folder = directory.join(inner);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(_) if !inner.is_empty() => continue,
            Err(problem) => return Err(DescribeError::Folder { folder, problem }),
        };
        for entry in entries.flatten() {
            let name = PathBuf::from(entry.file_name());
            let is_graph = name
                .extension()
                .is_some_and(|extension| extension == "onnx");
            if is_graph && entry.path().is_file() {
                graphs.push(Path::new(inner).join(name));
            }
        }
    }
    graphs.sort();
    Ok(graphs)
}

/// Why a folder is not one of a model that can be served.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Its `model.toml` is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Another of its files is wrong.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// It cannot be read.
    #[error("cannot read {folder}: {problem}; name a model folder")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        problem: io::Error,
    },
    /// It has no graph.
    #[error(
        "{0} is not a model folder: neither it nor its folder `onnx` has a file that ends in .onnx; \
         name another one, or import a GGUF file with `interline model add`"
    )]
    NoGraph(PathBuf),
    /// Its configuration names a graph that it does not have.
    #[error(
        "{path} names {graph}, which is missing or not a plain file in its folder; copy the model \
         folder again"
    )]
    Genai {
        /// The configuration.
        path: PathBuf,
        /// The graph.
        graph: PathBuf,
    },
    /// It has several graphs, and no rule chooses.
    #[error(
        "{folder} has several graphs, among them {first} and {second}, and nothing tells which to \
         use; remove one, or name one in {folder}/{}, as in `graph = {second:?}`",
        manifest::FILE_NAME
    )]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// A graph, relative to it.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// It has one graph for the first pass, and another one for the rest.
    #[error(
        "{0} is one of two graphs that work only together, which Interline does not support; export \
         the model as one graph (model.onnx or decoder_model_merged.onnx)"
    )]
    Half(PathBuf),
    /// No file states the longest sequence.
    #[error(
        "no file in {folder} states how many tokens the model was made for; add `context_length` to \
         {folder}/{}, or max_position_embeddings to {folder}/{CONFIG}",
        manifest::FILE_NAME
    )]
    ContextLength {
        /// The folder.
        folder: PathBuf,
    },
}
