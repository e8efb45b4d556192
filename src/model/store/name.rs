//! The name of a model in the store, which is the name of a folder.

use std::fmt;
use std::str::FromStr;

/// A name: lower-case letters, digits, `.`, `-` and `_`, of which the first is a letter or a digit
/// and the last is not a dot. So it is no path, and the same on file systems that ignore case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

/// The longest name, in bytes.
const MAX: usize = 100;

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name nearest to a text, such as a file's name; `None` if nothing of it can stay.
    #[must_use]
    pub fn nearest(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        let name: String = text
            .chars()
            .map(|char| if is_allowed(char) { char } else { '-' })
            .take(MAX)
            .collect();
        let name = name.trim_start_matches(['.', '-', '_']);
        name.trim_end_matches(['.', '-', '_']).parse().ok()
    }
}

fn is_allowed(char: char) -> bool {
    char.is_ascii_lowercase() || char.is_ascii_digit() || ".-_".contains(char)
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let begins = text.starts_with(|char: char| char.is_ascii_alphanumeric());
        let good = begins && !text.ends_with('.') && text.len() <= MAX;
        match good && text.chars().all(is_allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(NameError(text.to_owned())),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Names in a sentence.
#[must_use]
pub fn list(names: &[Name]) -> String {
    let names: Vec<&str> = names.iter().map(Name::as_str).collect();
    names.join(", ")
}

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name for a model; use up to {MAX} lower-case letters, digits, dots, hyphens \
     and underscores, beginning with a letter or digit"
)]
pub struct NameError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_folder_name() {
        for good in ["a", "7b", "qwen2.5-coder-0.5b", "a_b..c", &"a".repeat(100)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a.",
            "a/b",
            "a\\b",
            "../a",
            "/a",
            "A",
            "a b",
            "a\0",
            "é",
            "c:",
            &"a".repeat(101),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_nearest_name_is_found() {
        for (text, expected) in [
            (
                "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M",
                "qwen2.5-coder-0.5b-instruct-q4_k_m",
            ),
            ("my model (2)", "my-model--2"),
            ("..hidden", "hidden"),
            ("a.", "a"),
        ] {
            assert_eq!(Name::nearest(text).unwrap().as_str(), expected);
        }
        assert_eq!(Name::nearest("…"), None);
        assert!(Name::nearest(&"a".repeat(1000)).is_some());
    }
}
