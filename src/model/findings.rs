//! What Interline finds in a model folder, and why.

use std::path::Path;

use super::LoadError;
use super::manifest::{self, Manifest};
use super::prompt_format;

/// A property of a model, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The property, in a word or two.
    pub what: &'static str,
    /// Its value.
    pub value: String,
    /// The reason, a file or a rule.
    pub why: String,
}

/// Reads a model folder, without its graph.
///
/// # Errors
///
/// See [`LoadError`].
pub fn findings(folder: &Path) -> Result<Vec<Finding>, LoadError> {
    let manifest = Manifest::read(folder)?;
    let (tokenizer, fim, chat) = prompt_format(folder, &manifest)?;

    let mut found = Vec::new();
    let mut find = |what, value: String, why: &str| {
        let why = why.to_owned();
        found.push(Finding { what, value, why });
    };
    let tokenizer_file = manifest.tokenizer.display().to_string();
    find("name", manifest.name.clone(), manifest::FILE_NAME);
    let license = manifest.license.as_deref().unwrap_or("unknown");
    find("licence", license.to_owned(), manifest::FILE_NAME);
    let graph = manifest.graph.display().to_string();
    find("graph", graph, manifest::FILE_NAME);
    let tokens = format!("{} tokens", tokenizer.len());
    find("vocabulary", tokens, &tokenizer_file);
    let context = format!("{} tokens", manifest.context_length);
    find("context", context, manifest::FILE_NAME);
    let why = match (&manifest.fim, fim.markers) {
        (Some(_), _) => format!("[fim] in {}", manifest::FILE_NAME),
        (None, Some(_)) => format!("the special tokens in {tokenizer_file}"),
        (None, None) => format!("no markers of a hole in {tokenizer_file}"),
    };
    find("layout", fim.to_string(), &why);
    if let Some(markers) = fim.markers {
        let ids = [markers.prefix, markers.suffix, markers.middle];
        let ids: Vec<u32> = fim.file.into_iter().chain(ids).collect();
        find("markers", tokenizer.show(&ids), &why);
    }
    if let Some(beginning) = tokenizer.beginning_of_text() {
        let why = format!("{tokenizer_file}, or the tokenizer_config.json beside it");
        find("beginning", tokenizer.show(&[beginning]), &why);
    }
    find("end", tokenizer.show(&fim.end), &why);
    match (chat, &manifest.chat_template) {
        (Some(chat), Some(file)) => {
            find(
                "chat",
                "from a template".to_owned(),
                &file.display().to_string(),
            );
            let why = format!("[chat] in {}", manifest::FILE_NAME);
            find("chat end", tokenizer.show(&chat.end), &why);
        }
        _ => find(
            "chat",
            "none: tasks are documents to continue".to_owned(),
            &format!("no `chat_template` in {}", manifest::FILE_NAME),
        ),
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::model::tests::directory;

    #[test]
    fn the_shipped_model_is_described() {
        let found = findings(&directory()).unwrap();
        let shown: String = found
            .iter()
            .map(|finding| format!("{}: {} ({})\n", finding.what, finding.value, finding.why))
            .collect();
        expect![[r#"
            name: smollm2-135m-fim (model.toml)
            licence: Apache-2.0 (model.toml)
            graph: model.onnx (model.toml)
            vocabulary: 49152 tokens (tokenizer.json)
            context: 8192 tokens (model.toml)
            layout: suffix, prefix, middle (prefix token 8, suffix token 9, middle token 10) ([fim] in model.toml)
            markers: <filename><fim_prefix><fim_suffix><fim_middle> ([fim] in model.toml)
            end: <|endoftext|> ([fim] in model.toml)
            chat: from a template (chat_template.jinja)
            chat end: <|im_end|> ([chat] in model.toml)
        "#]].assert_eq(&shown);
    }
}
