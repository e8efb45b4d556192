//! What Interline finds in a model folder, and why.

use std::path::Path;

use super::describe::Description;
use super::fim_families::family_of;
use super::{LoadError, check_vocabulary, manifest, onnx, prompt_format};

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

/// Reads a model folder. Its graph is not loaded, but what it takes and gives is checked.
///
/// # Errors
///
/// See [`LoadError`].
pub fn findings(folder: &Path) -> Result<Vec<Finding>, LoadError> {
    let mut description = Description::read(folder)?;
    let (tokenizer, fim, chat) = prompt_format(folder, &mut description)?;
    let Description {
        manifest,
        model_type,
        sources,
        sizes,
        ..
    } = description;
    let outline = onnx::outline(&folder.join(&manifest.graph), &sizes)?;
    check_vocabulary(folder, tokenizer.len(), outline.vocabulary)?;

    let mut found = Vec::new();
    let mut find = |what, value: String, why: &str| {
        let why = why.to_owned();
        found.push(Finding { what, value, why });
    };
    let tokenizer_file = manifest.tokenizer.display().to_string();
    find("name", manifest.name.clone(), &sources.name);
    let license = manifest.license.as_deref().unwrap_or("unknown");
    find("licence", license.to_owned(), &sources.license);
    if let Some(model_type) = &model_type {
        find(
            "type",
            model_type.clone(),
            "`model_type` of its configuration",
        );
    }
    let graph = manifest.graph.display().to_string();
    find("graph", graph, &sources.graph);
    let bytes = format!("{:.1} kB a token", outline.token_bytes as f64 / 1000.0);
    let (cache, why) = match outline.in_place {
        true => (
            format!("{bytes}, in place"),
            "the graph has GroupQueryAttention",
        ),
        false => (
            format!("{bytes}, copied by each pass"),
            "the graph has no GroupQueryAttention on 32-bit numbers",
        ),
    };
    find("cache", cache, why);
    let tokens = format!("{} tokens", tokenizer.len());
    find("vocabulary", tokens, &tokenizer_file);
    let context = format!("{} tokens", manifest.context_length);
    find("context", context, &sources.context_length);
    let family = family_of(&tokenizer, model_type.as_deref());
    let why = match (&manifest.fim, family) {
        (Some(_), _) => format!("[fim] in {}", manifest::FILE_NAME),
        (None, Some(family)) => {
            let family = family.name;
            format!("the tokens in {tokenizer_file} are those of {family}")
        }
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
    let why = match &manifest.fim {
        None if !sources.ends.is_empty() => format!("{why}, {}", sources.ends),
        _ => why,
    };
    find("end", tokenizer.show(&fim.end), &why);
    match (chat, &manifest.chat_template) {
        (Some(chat), Some(file)) => {
            let from = format!("{}, {}", file.display(), sources.chat_template);
            find("chat", "from a template".to_owned(), &from);
            find("chat end", tokenizer.show(&chat.end), &sources.chat);
        }
        _ => find(
            "chat",
            "none: tasks are documents to continue".to_owned(),
            &sources.chat_template,
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
            type: llama (`model_type` of its configuration)
            graph: model.onnx (model.toml)
            cache: 46.1 kB a token, in place (the graph has GroupQueryAttention)
            vocabulary: 49152 tokens (tokenizer.json)
            context: 8192 tokens (model.toml)
            layout: suffix, prefix, middle (prefix token 8, suffix token 9, middle token 10) ([fim] in model.toml)
            markers: <filename><fim_prefix><fim_suffix><fim_middle> ([fim] in model.toml)
            end: <|endoftext|> ([fim] in model.toml)
            chat: from a template (chat_template.jinja, model.toml)
            chat end: <|im_end|> ([chat] in model.toml)
        "#]].assert_eq(&shown);
    }
}
