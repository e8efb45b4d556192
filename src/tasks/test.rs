//! Writes a test for a function or type, in the usual framework of its language.

use super::question::{Answer, Question};
use super::{Desk, NoItem, NothingWritten, Outcome, Output, Source, parse_notes};
use crate::engine::EngineError;
use crate::text::language::Language;
use crate::text::syntax::{ItemKind, Parsed};

/// The longest test, in tokens.
const BUDGET: usize = 320;

/// Writes a file of tests for the function or type at the cursor, or for the file's first one. The
/// beginning of the file is given, so that the framework and the name are right whatever the model
/// knows.
///
/// # Errors
///
/// See [`TestError`].
pub fn test(desk: &mut Desk<'_>, source: &Source) -> Result<Outcome, TestError> {
    let (text, language) = (&source.text, source.language);
    let parsed = Parsed::new(text, language);
    let at = parsed.item_at(source.selection.start);
    let named = parsed
        .items()
        .into_iter()
        .find(|item| item.signature.is_some());
    let (name, kind, code) = match (at, named) {
        (Some(item), _) => (item.name, item.kind, &text[item.range]),
        (None, Some(item)) => (item.name, item.kind, &text[item.range]),
        (None, None) => {
            return Err(NoItem(source.line(source.selection.start)).into());
        }
    };
    let name = name.unwrap_or_else(|| "it".to_owned());
    let code = code.trim_end();
    let Frame {
        framework,
        file_name,
        start,
    } = frame(language, source.stem(), &name);
    let start = match kind {
        ItemKind::Function => format!("{start}{}", first_assertion(language, &name)),
        _ => start,
    };
    let question = Question {
        instruction: format!("Write tests with {framework}."),
        details: format!(" Test `{name}`."),
        code: Some((language, code.to_owned())),
        answer: Answer::Code {
            language,
            start: start.clone(),
        },
    };
    let written = desk.ask(&question, BUDGET)?;
    if written.text.trim().is_empty() {
        return Err(NothingWritten.into());
    }
    let text = written.as_file(&start, language);
    let mut notes = written.cut_short("the test");
    notes.extend(parse_notes(&text, language, "it"));
    Ok(Outcome {
        output: Output::Text {
            language_id: language.id(),
            file_name,
            text,
        },
        complete: written.complete,
        notes,
    })
}

/// The beginning of the first test's body: without it, a small model stops before it has written
/// anything.
fn first_assertion(language: Language, name: &str) -> String {
    match language {
        Language::Python => format!("    assert {name}("),
        Language::JavaScript | Language::TypeScript => format!("  expect({name}("),
        Language::Rust => format!("        assert_eq!({name}("),
        Language::Go => format!("\tif got := {name}("),
        Language::Java => "        assertEquals(".to_owned(),
        Language::C | Language::Cpp => format!("    assert({name}("),
        Language::CSharp => "        Assert.Equal(".to_owned(),
        Language::Ruby => "    assert_equal ".to_owned(),
    }
}

struct Frame {
    framework: &'static str,
    file_name: String,
    start: String,
}

/// The file's name and its beginning, up to the first test's body.
fn frame(language: Language, stem: &str, name: &str) -> Frame {
    let upper = || {
        let mut chars = name.chars();
        let first = chars.next().map(|first| first.to_uppercase().to_string());
        format!("{}{}", first.unwrap_or_default(), chars.as_str())
    };
    let (framework, file_name, start) = match language {
        Language::Python => (
            "pytest",
            format!("test_{stem}.py"),
            format!(
                "from {stem} import {name}\n\n\ndef test_{}():\n",
                name.to_lowercase()
            ),
        ),
        Language::JavaScript => (
            "Jest",
            format!("{stem}.test.js"),
            format!("const {{ {name} }} = require('./{stem}');\n\ntest('{name}', () => {{\n"),
        ),
        Language::TypeScript => (
            "Jest",
            format!("{stem}.test.ts"),
            format!("import {{ {name} }} from './{stem}';\n\ntest('{name}', () => {{\n"),
        ),
        Language::Rust => (
            "the built-in test harness",
            format!("{stem}_tests.rs"),
            format!(
                "#[cfg(test)]\nmod tests {{\n    use super::*;\n\n    #[test]\n    fn test_{}() {{\n",
                name.to_lowercase()
            ),
        ),
        Language::Go => (
            "the testing package",
            format!("{stem}_test.go"),
            format!(
                "package {stem}\n\nimport \"testing\"\n\nfunc Test{}(t *testing.T) {{\n",
                upper()
            ),
        ),
        Language::Java => (
            "JUnit 5",
            format!("{}Test.java", upper()),
            format!(
                "import static org.junit.jupiter.api.Assertions.*;\n\nimport org.junit.jupiter.api.Test;\n\nclass {}Test {{\n    @Test\n    void {name}() {{\n",
                upper()
            ),
        ),
        Language::C => (
            "assert",
            format!("test_{stem}.c"),
            format!("#include <assert.h>\n#include \"{stem}.h\"\n\nint main(void) {{\n"),
        ),
        Language::Cpp => (
            "assert",
            format!("test_{stem}.cpp"),
            format!("#include <cassert>\n#include \"{stem}.hpp\"\n\nint main() {{\n"),
        ),
        Language::CSharp => (
            "xUnit",
            format!("{stem}Tests.cs"),
            format!(
                "using Xunit;\n\npublic class {}Tests\n{{\n    [Fact]\n    public void {name}()\n    {{\n",
                upper()
            ),
        ),
        Language::Ruby => (
            "Minitest",
            format!("test_{stem}.rb"),
            format!(
                "require 'minitest/autorun'\nrequire_relative '{stem}'\n\nclass Test{} < Minitest::Test\n  def test_{}\n",
                upper(),
                name.to_lowercase()
            ),
        ),
    };
    Frame {
        framework,
        file_name,
        start,
    }
}

/// Why there is no test.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// There is no function or type.
    #[error(transparent)]
    NoItem(#[from] NoItem),
    /// The answer is empty.
    #[error(transparent)]
    Nothing(#[from] NothingWritten),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
