//! A problem: what to write, and the examples to judge it by.

use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use serde::Deserialize;

use crate::text::language::Language;
use crate::text::syntax;

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The language to solve it in.
    pub language: Language,
    /// The beginning of the program, without a line end: imports, the function's head and
    /// docstring, or the statement as a comment.
    pub stub: String,
    /// The function to write, if that is what the problem asks for.
    pub function: Option<String>,
    /// What a solution must do.
    pub checks: Vec<Check>,
}

/// What a solution must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Read this and write that, blanks at the ends of lines ignored.
    Io {
        /// Standard input.
        input: String,
        /// Standard output.
        output: String,
    },
    /// Make this Python statement pass, which follows the program.
    Assert(String),
}

/// Why a text is not a problem.
#[derive(Debug, thiserror::Error)]
pub enum ProblemError {
    /// Programs in this language cannot be run here.
    #[error("problems are solved in Python or JavaScript, not in {0}")]
    Language(Language),
    /// This form belongs to Python.
    #[error("a problem with {0} can be solved only in Python; give inputs and outputs instead")]
    OnlyPython(&'static str),
    /// The JSON is not as expected.
    #[error("the problem's JSON is not as expected: {0}")]
    Json(#[from] serde_json::Error),
    /// There is nothing to judge a solution by.
    #[error("the problem has no examples: {0}")]
    NoExamples(&'static str),
}

/// A problem in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    statement: String,
    #[serde(default)]
    stub: String,
    #[serde(default)]
    examples: Vec<JsonExample>,
    #[serde(default)]
    tests: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonExample {
    input: String,
    output: String,
}

impl Problem {
    /// Reads a problem: JSON, Markdown or a Python file with a docstring, depending on the file's
    /// extension.
    ///
    /// # Errors
    ///
    /// See [`ProblemError`].
    pub fn read(path: &Path, text: &str, language: Language) -> Result<Self, ProblemError> {
        if !matches!(language, Language::Python | Language::JavaScript) {
            return Err(ProblemError::Language(language));
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::from_json(text, language),
            Some("py") if language == Language::Python => Self::from_docstring(text),
            Some("py") => Err(ProblemError::OnlyPython("a docstring")),
            _ => Self::from_markdown(text, language),
        }
    }

    /// `{"statement", "stub", "examples": [{"input", "output"}], "tests": ["assert …"]}`.
    ///
    /// # Errors
    ///
    /// See [`ProblemError`].
    pub fn from_json(text: &str, language: Language) -> Result<Self, ProblemError> {
        let json: Json = serde_json::from_str(text)?;
        if language != Language::Python && !(json.stub.is_empty() && json.tests.is_empty()) {
            return Err(ProblemError::OnlyPython("`stub` or `tests`"));
        }
        let examples = json
            .examples
            .into_iter()
            .map(|JsonExample { input, output }| Check::Io { input, output });
        let checks: Vec<_> = examples
            .chain(json.tests.into_iter().map(Check::Assert))
            .collect();
        if checks.is_empty() {
            return Err(ProblemError::NoExamples("give `examples` or `tests`"));
        }
        Ok(Self::new(language, &json.statement, &json.stub, checks))
    }

    /// Markdown in which fenced blocks follow a line with "input" and one with "output", in pairs.
    ///
    /// # Errors
    ///
    /// See [`ProblemError`].
    pub fn from_markdown(text: &str, language: Language) -> Result<Self, ProblemError> {
        let (mut statement, mut checks) = (String::new(), Vec::new());
        let (mut label, mut input) = (String::new(), None);
        // The fenced block that is being read, and where the text before the next one starts.
        let (mut block, mut after) = (None::<String>, 0);
        for (event, range) in Parser::new(text).into_offset_iter() {
            match (event, &mut block) {
                (Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_))), _) => {
                    if checks.is_empty() && input.is_none() {
                        statement.push_str(&text[after..range.start]);
                    }
                    after = range.end;
                    block = Some(String::new());
                }
                (Event::End(TagEnd::CodeBlock), _) => {
                    let Some(block) = block.take() else { continue };
                    if label.contains("input") {
                        input = Some(block);
                    } else if label.contains("output")
                        && let Some(input) = input.take()
                    {
                        let output = block;
                        checks.push(Check::Io { input, output });
                    }
                }
                (Event::Text(text), Some(block)) => block.push_str(&text),
                // The label is the last line of text before the block.
                (Event::Start(Tag::Paragraph | Tag::Heading { .. } | Tag::Item), _)
                | (Event::SoftBreak | Event::HardBreak, _) => label.clear(),
                (Event::Html(html), _) => label = html.to_lowercase(),
                (Event::Text(text) | Event::Code(text) | Event::InlineHtml(text), None) => {
                    label.push_str(&text.to_lowercase());
                }
                _ => {}
            }
        }
        if checks.is_empty() {
            return Err(ProblemError::NoExamples(
                "in Markdown, a fenced block after a line with \"input\" and one after a line with \"output\"",
            ));
        }
        Ok(Self::new(language, &statement, "", checks))
    }

    /// A Python function whose docstring has examples as in `doctest`; what is below the docstring
    /// is ignored.
    ///
    /// # Errors
    ///
    /// See [`ProblemError`].
    pub fn from_docstring(text: &str) -> Result<Self, ProblemError> {
        const MISSING: ProblemError =
            ProblemError::NoExamples("in Python, a docstring with `>>> f(1)` and its value below");
        let quotes = ["\"\"\"", "'''"];
        let start = quotes
            .iter()
            .filter_map(|quote| Some((text.find(quote)?, *quote)))
            .min();
        let (start, quote) = start.ok_or(MISSING)?;
        let inner = start + quote.len();
        let length = text[inner..].find(quote).ok_or(MISSING)?;
        let docstring = &text[inner..inner + length];
        let stub = &text[..inner + length + quote.len()];
        let mut checks = Vec::new();
        let mut asserted = false;
        let mut lines = docstring.lines().map(str::trim).peekable();
        while let Some(line) = lines.next() {
            let Some(call) = line.strip_prefix(">>> ") else {
                continue;
            };
            let value = lines.next_if(|line| !line.is_empty() && !line.starts_with(">>>"));
            let statement = match value {
                Some(value) => format!("assert ({call}) == ({value})"),
                None => call.to_owned(),
            };
            // An example of an error, or over several lines, cannot be asserted.
            if syntax::errors(&statement, Language::Python).is_empty() {
                asserted |= value.is_some();
                checks.push(Check::Assert(statement));
            }
        }
        if !asserted {
            return Err(MISSING);
        }
        Ok(Self::new(Language::Python, docstring, stub, checks))
    }

    /// The whole program: the stub and what the model wrote.
    #[must_use]
    pub fn program(&self, written: &str) -> String {
        format!("{}{}\n", self.stub, written.trim_end())
    }

    fn new(language: Language, statement: &str, stub: &str, checks: Vec<Check>) -> Self {
        let items = syntax::items(stub, language);
        let function = items
            .into_iter()
            .rev()
            .find(|item| item.signature.is_some());
        let comment = || -> String {
            let mark = language.line_comment();
            let lines = statement.trim().lines();
            lines.flat_map(|line| [mark, " ", line, "\n"]).collect()
        };
        let stub = match stub.trim().is_empty() {
            true => comment(),
            false => stub.to_owned(),
        };
        Self {
            language,
            function: function.and_then(|function| function.name),
            stub: stub.trim_end().to_owned(),
            checks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expected: Result<(&str, &[Check]), &str>) {
        let read = Problem::read(Path::new(name), text, Language::Python);
        let read = read
            .as_ref()
            .map(|problem| (problem.stub.as_str(), problem.checks.as_slice()));
        assert_eq!(
            read.map_err(ToString::to_string),
            expected.map_err(str::to_owned)
        );
    }

    fn io(input: &str, output: &str) -> Check {
        Check::Io {
            input: input.to_owned(),
            output: output.to_owned(),
        }
    }

    #[test]
    fn markdown_has_inputs_and_outputs() {
        let text = "# Sum\n\nPrint the sum.\n\nInput:\n\n```\n1 2\n```\n\nOutput:\n\n```\n3\n```\n\nMore\n";
        let stub = "# # Sum\n# \n# Print the sum.\n# \n# Input:";
        check("a.md", text, Ok((stub, &[io("1 2\n", "3\n")])));
        for text in [
            // Tildes are a fence too.
            "Input\n~~~\n```\n~~~\nOutput\n~~~\n3\n~~~\n",
            // A longer fence has a shorter one in it.
            "Input\n````text\n```\n````\nOutput\n```\n3\n```\n",
            // The indentation of a list is not part of the block.
            "1. Input\n\n   ~~~\n   ```\n   ~~~\n\n2. Output\n\n   ```\n   3\n   ```\n",
            "**Input**:\r\n\r\n````\r\n```\r\n````\r\n\r\nThe `output`\r\n\r\n```\r\n3\r\n```\r\n",
        ] {
            let problem = Problem::from_markdown(text, Language::Python).unwrap();
            assert_eq!(problem.checks, [io("```\n", "3\n")], "{text}");
        }
        check(
            "a.md",
            "# Sum\n",
            Err(
                "the problem has no examples: in Markdown, a fenced block after a line with \"input\" and one after a line with \"output\"",
            ),
        );
    }

    #[test]
    fn a_docstring_has_doctests() {
        let stub = "import math\n\ndef double(x):\n    \"\"\"Double it.\n\n    >>> double(2)\n    4\n    >>> double(3)\n    6\n    \"\"\"";
        let checks = [
            Check::Assert("assert (double(2)) == (4)".to_owned()),
            Check::Assert("assert (double(3)) == (6)".to_owned()),
        ];
        check(
            "a.py",
            &format!("{stub}\n    return 1\n"),
            Ok((stub, &checks)),
        );
        check(
            "a.py",
            "def double(x):\n    return 2 * x\n",
            Err(
                "the problem has no examples: in Python, a docstring with `>>> f(1)` and its value below",
            ),
        );
    }

    #[test]
    fn json_has_tests_or_examples() {
        let text =
            r#"{"statement": "Double.", "stub": "def f(x):\n", "tests": ["assert f(1) == 2"]}"#;
        let checks = [Check::Assert("assert f(1) == 2".to_owned())];
        check("a.json", text, Ok(("def f(x):", &checks)));
        let text = r#"{"statement": "Echo.", "examples": [{"input": "a", "output": "a"}]}"#;
        check("a.json", text, Ok(("# Echo.", &[io("a", "a")])));
        check(
            "a.json",
            r#"{"statement": "Echo."}"#,
            Err("the problem has no examples: give `examples` or `tests`"),
        );
        check(
            "a.json",
            "{}",
            Err(
                "the problem's JSON is not as expected: missing field `statement` at line 1 column 2",
            ),
        );
    }
}
