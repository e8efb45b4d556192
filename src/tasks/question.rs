//! A question to the model, put as a conversation.

use super::examples::Example;
use crate::engine::request::Chat;
use crate::engine::stop::Scope;
use crate::text::language::Language;

/// The system message.
const SYSTEM: &str = "You are an expert programmer. Answer briefly and exactly.";

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What to do, in this question and in each example.
    pub instruction: String,
    /// More about this question; if there is no code, what to write.
    pub details: String,
    /// The code it is about.
    pub code: Option<(Language, String)>,
    /// The form of the answer.
    pub answer: Answer,
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Prose.
    Prose,
    /// Code that begins with `start`, which the model does not write again.
    Code {
        /// In this language.
        language: Language,
        /// The given beginning.
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

    /// The conversation that puts the question, with `examples`, the nearest first.
    #[must_use]
    pub fn chat(&self, examples: &[Example]) -> Chat {
        let code = self.code.as_ref().map(|(_, code)| code.as_str());
        let examples = examples
            .iter()
            .map(|Example { input, output }| (self.put("", Some(input)), self.answered(output)));
        Chat {
            system: SYSTEM.to_owned(),
            examples: examples.collect(),
            question: self.put(&self.details, code),
            answer: self.beginning(),
        }
    }

    /// The text of an example's question or, with its details, of this one.
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
