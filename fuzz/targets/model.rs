//! A model folder: whatever its files hold, it is read or refused by a message that names one of them.
//!
//! The input is the files, as `tail` prints them: `==> model.toml <==`, a line end, and the text.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use interline::model::chat_template::{Message, Role};
use interline::model::describe::Description;
use interline::model::onnx;
use interline::model::tokenizer::{Detokenizer, Tokenizer};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// The files that a folder may have.
const FILES: [&str; 8] = [
    "model.toml",
    "tokenizer.json",
    "chat_template.jinja",
    "model.onnx",
    "config.json",
    "generation_config.json",
    "genai_config.json",
    "tokenizer_config.json",
];

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    // In memory where that is possible.
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
    .expect("a folder")
});

const TEXTS: [&str; 4] = [
    "",
    "def f(a):\n    return é😀\r\n",
    "<|im_end|>\0",
    "  \u{301}\t",
];

/// Writes the folder.
fn write(data: &[u8]) {
    for name in FILES {
        let _ = std::fs::remove_file(FOLDER.path().join(name));
    }
    std::fs::write(FOLDER.path().join("model.onnx"), "").expect("it can be written");
    let mut rest = data;
    while let Some((name, start)) = FILES.iter().find_map(|name| {
        let header = format!("==> {name} <==\n");
        rest.starts_with(header.as_bytes())
            .then_some((name, header.len()))
    }) {
        rest = &rest[start..];
        let next = rest.windows(5).position(|window| window == b"\n==> ");
        let end = next.unwrap_or(rest.len());
        std::fs::write(FOLDER.path().join(name), &rest[..end]).expect("it can be written");
        rest = rest.get(end + 1..).unwrap_or_default();
    }
}

/// What `Model::load` reads before ONNX Runtime reads the graph.
fn read(folder: &Path) -> Result<(), String> {
    let mut description = Description::read(folder).map_err(|error| error.to_string())?;
    let path = folder.join(&description.manifest.tokenizer);
    let tokenizer = Tokenizer::load(&path).map_err(|error| error.to_string())?;
    for text in TEXTS {
        let ids = tokenizer.encode(text);
        let mut detokenizer = Detokenizer::default();
        ids.iter()
            .for_each(|id| detokenizer.push(tokenizer.bytes(*id)));
        let _ = tokenizer.show(&tokenizer.encode_template(text));
    }
    if let Some(first) = tokenizer.beginning(b"re").next() {
        assert!((first as usize) < tokenizer.len());
    }
    description
        .fim(&tokenizer)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let chat = description.chat_template(folder, &tokenizer);
    let chat = chat.map_err(|error| error.to_string())?;
    if let Some(chat) = chat {
        let said = |role, content: &str| Message {
            role,
            content: content.to_owned(),
        };
        let messages = [said(Role::System, "Be brief."), said(Role::User, "Hello.")];
        chat.encode(&tokenizer, &messages)
            .map_err(|error| error.to_string())?;
    }
    let graph = folder.join(&description.manifest.graph);
    let outline = onnx::outline(&graph, &description.sizes);
    outline.map(|_| ()).map_err(|error| error.to_string())
}

/// Panics that the server catches are no findings: libFuzzer's hook would end the process at each.
static QUIET: LazyLock<()> = LazyLock::new(|| std::panic::set_hook(Box::new(|_| {})));

fuzz_target!(|data: &[u8]| {
    LazyLock::force(&QUIET);
    write(data);
    if let Err(message) = read(FOLDER.path()) {
        assert!(
            message.contains(FOLDER.path().to_str().expect("a plain name")),
            "{message}"
        );
    }
});
