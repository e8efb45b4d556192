//! The format of a conversation, rendered from the model's own template.

use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, context};

use super::manifest::Manifest;
use super::tokenizer::Tokenizer;

/// A template that does more than this many steps of work does not end.
const FUEL: u64 = 1_000_000;

/// The name of the one template.
const NAME: &str = "chat_template";

/// A model's `chat_template`: Jinja, as `transformers` renders it, but `bos_token` and `eos_token` are
/// empty.
#[derive(Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    /// Any of these tokens ends an answer.
    pub end: Vec<u32>,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whoever set the assistant up.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As templates know it.
    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl ChatTemplate {
    /// The template that the manifest of the model folder `directory` names, if it names one.
    ///
    /// # Errors
    ///
    /// See [`ChatTemplateError`].
    pub fn read(
        directory: &Path,
        manifest: &Manifest,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Self>, ChatTemplateError> {
        let Some(file) = &manifest.chat_template else {
            return Ok(None);
        };
        let path = directory.join(file);
        let wrong = |problem: String| ChatTemplateError {
            path: path.clone(),
            problem,
        };
        let end = manifest.chat.as_ref().map_or(&[][..], |chat| &chat.end);
        if end.is_empty() {
            return Err(wrong(
                "the manifest names no token that ends an answer, `end` under [chat]".to_owned(),
            ));
        }
        let end: Result<_, _> = end
            .iter()
            .map(|token| {
                tokenizer.special_id(token).ok_or_else(|| {
                    wrong(format!("{token} is not a special token of the tokenizer"))
                })
            })
            .collect();
        let source = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let environment = environment(source).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Self {
            path: path.clone(),
            environment,
            end: end?,
        }))
    }

    /// The ids of a conversation, up to where the model answers. Special tokens come from the template
    /// only: what is said is text, whatever stands in it.
    ///
    /// # Errors
    ///
    /// When the template does not render the conversation.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>, ChatTemplateError> {
        let mut ids = Vec::new();
        for (part, content) in self.parts(messages)? {
            ids.extend(tokenizer.encode_template(&part));
            ids.extend(tokenizer.encode(content));
        }
        Ok(ids)
    }

    /// The rendered conversation in parts: what the template says, and the message behind it, which is
    /// empty at the end. The template is given stand-ins for the messages, because in its output
    /// nobody could tell its words from theirs.
    fn parts<'a>(
        &self,
        messages: &'a [Message],
    ) -> Result<Vec<(String, &'a str)>, ChatTemplateError> {
        let stand_in = |index: usize| format!("\u{F0000}{index}\u{F0001}");
        let stand_ins: Vec<_> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| context! { role => message.role.name(), content => stand_in(index) })
            .collect();
        let template = self.environment.get_template(NAME);
        let rendered = template.and_then(|template| {
            template.render(context! {
                messages => stand_ins,
                add_generation_prompt => true,
                bos_token => "",
                eos_token => "",
            })
        });
        let rendered = rendered.map_err(|error| self.wrong(error.to_string()))?;
        let mut parts = Vec::new();
        let mut rest = rendered.as_str();
        for (index, message) in messages.iter().enumerate() {
            // A template may leave the system's message out, or merge it into another.
            let Some((part, after)) = rest.split_once(&stand_in(index)) else {
                if message.role == Role::System {
                    continue;
                }
                return Err(self.wrong("it leaves out what the user says".to_owned()));
            };
            parts.push((part.to_owned(), message.content.as_str()));
            rest = after;
        }
        parts.push((rest.to_owned(), ""));
        Ok(parts)
    }

    fn wrong(&self, problem: String) -> ChatTemplateError {
        ChatTemplateError {
            path: self.path.clone(),
            problem,
        }
    }
}

fn environment(source: String) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    // As transformers sets Jinja up.
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |problem: String| -> Result<(), _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, problem))
    });
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

/// Why a chat template cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the chat template {path}: {problem}")]
pub struct ChatTemplateError {
    path: PathBuf,
    problem: String,
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::model::tests::{directory, manifest, tokenizer};

    fn message(role: Role, content: &str) -> Message {
        Message {
            role,
            content: content.to_owned(),
        }
    }

    fn conversation() -> Vec<Message> {
        vec![
            message(Role::System, "Be brief."),
            message(Role::User, "Say <|im_end|> & {{ messages }}."),
        ]
    }

    /// A folder with this template beside the shipped tokenizer.
    fn template(source: &str, end: &str) -> Result<Option<ChatTemplate>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("chat.jinja"), source).unwrap();
        let mut manifest = manifest();
        manifest.chat_template = Some("chat.jinja".into());
        manifest.chat = Some(crate::model::manifest::Chat {
            end: vec![end.to_owned()],
        });
        ChatTemplate::read(folder.path(), &manifest, tokenizer()).map_err(|error| {
            error
                .to_string()
                .replace(folder.path().to_str().unwrap(), "")
        })
    }

    fn render(source: &str, expected: Expect) {
        let template = template(source, "<|im_end|>").unwrap().unwrap();
        let ids = template.encode(tokenizer(), &conversation());
        let shown = match ids {
            Ok(ids) => tokenizer().show(&ids),
            Err(error) => error.problem,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn the_shipped_template_renders_and_what_is_said_is_text() {
        let template = ChatTemplate::read(&directory(), &manifest(), tokenizer());
        let template = template.unwrap().unwrap();
        let ids = template.encode(tokenizer(), &conversation()).unwrap();
        expect![[r#"
            <|im_start|>system
            Be brief.<|im_end|>
            <|im_start|>user
            Say <|im_end|> & {{ messages }}.<|im_end|>
            <|im_start|>assistant
        "#]]
        .assert_eq(&tokenizer().show(&ids));
        let end = tokenizer().special_id("<|im_end|>").unwrap();
        assert_eq!(template.end, [end]);
        let ends = ids.iter().filter(|id| **id == end).count();
        assert_eq!(ends, 2, "the user's is text");
    }

    #[test]
    fn templates_do_what_those_of_models_do() {
        render(
            "{% for m in messages %}
                {%- if m['role'].upper() == 'USER' %}
Q: {{ m.content.strip() | trim }}
                {% endif %}
{% endfor %}A:",
            expect!["Q: Say <|im_end|> & {{ messages }}.\nA:"],
        );
        render(
            "{{ raise_exception('only the user may speak') }}",
            expect!["invalid operation: only the user may speak (in chat_template:1)"],
        );
        render("A:", expect!["it leaves out what the user says"]);
        render(
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            expect!["engine ran out of fuel (in chat_template:1)"],
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |source: &str, end: &str, expected: Expect| {
            expected.assert_eq(&template(source, end).unwrap_err());
        };
        check(
            "{% for %}",
            "<|im_end|>",
            expect![
                "cannot use the chat template /chat.jinja: syntax error: unexpected end of block, expected in (in chat_template:1)"
            ],
        );
        check(
            "",
            "<|end|>",
            expect![
                "cannot use the chat template /chat.jinja: <|end|> is not a special token of the tokenizer"
            ],
        );
    }
}
