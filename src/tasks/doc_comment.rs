//! Writes the docstring or doc comment of a function or type.

use super::{Desk, NoItem, NothingWritten, Outcome, Output, Source};
use crate::engine::EngineError;
use crate::engine::request::Hole;
use crate::engine::stop::Scope;
use crate::text::language::Language;
use crate::text::syntax::{self, Enclosing, ItemKind, Parsed, SyntaxError};

/// The longest comment, in tokens.
const BUDGET: usize = 80;

/// Where the comment goes, and its delimiters.
struct Place {
    /// The offset, in bytes.
    at: usize,
    open: String,
    close: String,
}

/// Documents the function or type at the cursor, by its language's convention: the model fills a
/// hole where the comment belongs.
///
/// # Errors
///
/// See [`DocumentError`].
pub fn document(desk: &mut Desk<'_>, source: &Source) -> Result<Outcome, DocumentError> {
    let (text, start) = (&source.text, source.selection.start);
    // The cursor may be in the blanks before it.
    let offset =
        start + (text[start..].len() - text[start..].trim_start_matches([' ', '\t']).len());
    let parsed = Parsed::new(text, source.language);
    let Some(item) = parsed.item_at(offset) else {
        return Err(NoItem(source.line(start)).into());
    };
    if item.documented {
        let name = item.name.unwrap_or_else(|| item.signature.clone());
        return Err(DocumentError::Documented(name));
    }
    let mut place = place(source, &item);
    // A small model fills the hole with more code unless the sentence is begun for it.
    let verb = if item.kind == ItemKind::Type {
        "A "
    } else if text[item.range.clone()].contains("return ") || item.signature.contains("->") {
        if source.language == Language::Python {
            "Return "
        } else {
            "Returns "
        }
    } else {
        ""
    };
    place.open.push_str(verb);
    let hole = Hole {
        file_name: source.file_name.clone(),
        prefix: format!("{}{}", &text[..place.at], place.open),
        suffix: format!("{}{}", place.close, &text[place.at..]),
        ..Hole::default()
    };
    let written = desk.fill(hole, Scope::Line, BUDGET)?;
    let mut said = sentence(&written.text, place.close.trim()).to_owned();
    if said.is_empty() {
        return Err(NothingWritten.into());
    }
    if source.language == Language::Python {
        // A last quote must not join the closing ones, and a backslash must not begin an escape.
        said = said.replace('\\', "\\\\");
        if said.ends_with('"') {
            said.push('.');
        }
    }
    let comment = format!("{}{said}{}", place.open, place.close);
    let after = format!("{}{comment}{}", &text[..place.at], &text[place.at..]);
    let before = parsed.errors().len();
    if let Some(error) = syntax::errors(&after, source.language)
        .into_iter()
        .nth(before)
    {
        return Err(DocumentError::Broken(error));
    }
    Ok(Outcome {
        output: Output::Edit(place.at..place.at, comment),
        complete: written.complete,
        notes: written.cut_short("the comment"),
    })
}

fn place(source: &Source, item: &Enclosing) -> Place {
    let indent = &item.indentation;
    let above = |open: &str, close: &str| Place {
        at: item.range.start,
        open: format!("{indent}{open}"),
        close: format!("{close}\n"),
    };
    match source.language {
        Language::Python => {
            let body = item.body.clone().unwrap_or(item.range.end..item.range.end);
            let line = source.text[..body.start]
                .rfind('\n')
                .map_or(0, |end| end + 1);
            // A body on its head's line (`def f(): ...`) has no line of its own.
            let (at, indent) = match source.text[line..body.start].trim().is_empty() {
                true => (line, source.text[line..body.start].to_owned()),
                false => return above("# ", ""),
            };
            Place {
                at,
                open: format!("{indent}\"\"\""),
                close: "\"\"\"\n".to_owned(),
            }
        }
        Language::Rust => above("/// ", ""),
        Language::Go => match &item.name {
            Some(name) => above(&format!("// {name}: "), ""),
            None => above("// ", ""),
        },
        Language::CSharp => above("/// <summary>", "</summary>"),
        Language::Ruby => above("# ", ""),
        Language::JavaScript
        | Language::TypeScript
        | Language::Java
        | Language::C
        | Language::Cpp => above("/** ", " */"),
    }
}

/// What the model wrote, without what would end the comment early or begin another one.
fn sentence<'a>(text: &'a str, close: &str) -> &'a str {
    let line = text.trim().lines().next().unwrap_or_default();
    let line = match close {
        "" => line,
        close => line.split(close).next().unwrap_or_default(),
    };
    line.trim().trim_end_matches('\\').trim()
}

/// Why nothing is documented.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// There is no function or type.
    #[error(transparent)]
    NoItem(#[from] NoItem),
    /// The item has a comment already.
    #[error("{0} is documented already")]
    Documented(String),
    /// The answer is empty.
    #[error(transparent)]
    Nothing(#[from] NothingWritten),
    /// The comment would break the file.
    #[error("the model's answer does not parse ({0}), and nothing was changed")]
    Broken(SyntaxError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
