//! A question to the model, in the form it was taught: a conversation, or a document to go on with.

use super::examples::Example;
use crate::engine::Ready;
use crate::engine::stop::Scope;
use crate::model::chat_template::{ChatTemplateError, Message, Role};
use crate::text::language::Language;

/// What the assistant is told to be.
const SYSTEM: &str = "You are an expert programmer. Answer briefly and exactly.";

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What to do, with this and with each example.
    pub instruction: String,
    /// What else to know of this one; where there is no code, what is asked for.
    pub details: String,
    /// With what.
    pub code: Option<(Language, String)>,
    /// In which form to answer.
    pub answer: Answer,
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Prose.
    Prose,
    /// Code, which begins with `start`, and `start` is not written again.
    Code {
        /// In this language.
        language: Language,
        /// The beginning, which is given.
        start: String,
    },
}

impl Question {
    /// How far the answer goes.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self.answer {
            Answer::Prose => Scope::Text,
            Answer::Code { .. } => Scope::Fence,
        }
    }

    /// The model's input up to where it answers. The examples stand before the question, the nearest
    /// last, which is where a model looks first.
    ///
    /// # Errors
    ///
    /// When the model's chat template does not render.
    pub fn encode(
        &self,
        ready: &Ready,
        examples: &[Example],
    ) -> Result<Vec<u32>, ChatTemplateError> {
        let tokenizer = &ready.tokenizer;
        let Some(chat) = &ready.chat else {
            return Ok(tokenizer.encode(&self.as_document(examples)));
        };
        let message = |role, content| Message { role, content };
        let mut messages = vec![message(Role::System, SYSTEM.to_owned())];
        for example in examples.iter().rev() {
            messages.push(message(Role::User, self.put("", Some(&example.input))));
            messages.push(message(Role::Assistant, self.answered(&example.output)));
        }
        let code = self.code.as_ref().map(|(_, code)| code.as_str());
        messages.push(message(Role::User, self.put(&self.details, code)));
        let mut ids = chat.encode(tokenizer, &messages)?;
        ids.extend(tokenizer.encode(&self.beginning()));
        Ok(ids)
    }

    /// The same as a Markdown document, for a model that was taught no conversations.
    fn as_document(&self, examples: &[Example]) -> String {
        let mut document = String::new();
        let code = self.code.as_ref().map(|(_, code)| code.as_str());
        let answered = examples.iter().rev().map(|example| {
            (
                "",
                Some(example.input.as_str()),
                self.answered(&example.output),
            )
        });
        let last = (self.details.as_str(), code, self.beginning());
        for (details, code, answer) in answered.chain([last]) {
            let question = self.put(details, code);
            document.push_str(&format!(
                "## Question\n\n{question}\n\n## Answer\n\n{answer}"
            ));
            document.push_str(if document.ends_with('\n') { "\n" } else { "" });
        }
        // The last answer is open.
        document.truncate(document.trim_end_matches('\n').len());
        if let Answer::Code { start, .. } = &self.answer
            && (start.is_empty() || start.ends_with('\n'))
        {
            document.push('\n');
        }
        document
    }

    /// An example's question, or with its details this one.
    fn put(&self, details: &str, input: Option<&str>) -> String {
        let instruction = &self.instruction;
        match (&self.code, input) {
            (Some((language, _)), Some(code)) => {
                format!("{instruction}{details}\n\n{}", fenced(*language, code))
            }
            (None, Some(asked)) => format!("{instruction} {}", asked.trim()),
            (_, None) => format!("{instruction} {}", details.trim()),
        }
    }

    fn answered(&self, output: &str) -> String {
        match self.answer {
            Answer::Prose => output.to_owned(),
            Answer::Code { language, .. } => fenced(language, output),
        }
    }

    /// How the answer begins.
    fn beginning(&self) -> String {
        match &self.answer {
            Answer::Prose => String::new(),
            Answer::Code { language, start } => format!("```{}\n{start}", language.id()),
        }
    }
}

fn fenced(language: Language, code: &str) -> String {
    format!("```{}\n{}\n```", language.id(), code.trim_end())
}
