//! The programming languages that tasks know.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A programming language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// Python 3.
    Python,
    /// JavaScript, with JSX.
    JavaScript,
    /// TypeScript, with TSX.
    TypeScript,
    /// Rust.
    Rust,
    /// Go.
    Go,
    /// Java.
    Java,
    /// C.
    C,
    /// C++.
    Cpp,
    /// C#.
    CSharp,
    /// Ruby.
    Ruby,
}

/// A word that is no language of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the language {0:?} is not known; known are {known}", known = known())]
pub struct UnknownLanguage(String);

impl Language {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Python,
        Self::JavaScript,
        Self::TypeScript,
        Self::Rust,
        Self::Go,
        Self::Java,
        Self::C,
        Self::Cpp,
        Self::CSharp,
        Self::Ruby,
    ];

    /// What people call it: `C++`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
            Self::TypeScript => "TypeScript",
            Self::Rust => "Rust",
            Self::Go => "Go",
            Self::Java => "Java",
            Self::C => "C",
            Self::Cpp => "C++",
            Self::CSharp => "C#",
            Self::Ruby => "Ruby",
        }
    }

    /// The identifier that LSP and VS Code give it: `cpp`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::TypeScript => "typescript",
            Self::Rust => "rust",
            Self::Go => "go",
            Self::Java => "java",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::CSharp => "csharp",
            Self::Ruby => "ruby",
        }
    }

    /// The word after the backticks that open a block of Markdown code: every renderer knows the
    /// identifiers of LSP.
    #[must_use]
    pub const fn fence(self) -> &'static str {
        self.id()
    }

    /// The usual extension of its files, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        self.extensions()[0]
    }

    /// What begins a comment up to the end of the line.
    #[must_use]
    pub const fn line_comment(self) -> &'static str {
        match self {
            Self::Python | Self::Ruby => "#",
            _ => "//",
        }
    }

    /// The language called `word`: a name, an identifier or an extension, in any case.
    ///
    /// # Errors
    ///
    /// When it is none of [`Self::ALL`]; the text lists them.
    pub fn from_name(word: &str) -> Result<Self, UnknownLanguage> {
        let plain = word.trim().to_lowercase();
        let extension = plain.strip_prefix('.').unwrap_or(&plain);
        Self::ALL
            .into_iter()
            .find(|language| {
                plain == language.name().to_lowercase()
                    || plain == language.id()
                    || language.aliases().contains(&plain.as_str())
                    || language.extensions().contains(&extension)
            })
            .ok_or_else(|| UnknownLanguage(word.to_owned()))
    }

    /// The language of a file, by its extension. A `.h` counts as C.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|language| language.extensions().contains(&extension.as_str()))
    }

    /// Without the dot, the usual one first.
    const fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["py", "pyi", "pyw"],
            Self::JavaScript => &["js", "jsx", "mjs", "cjs"],
            Self::TypeScript => &["ts", "tsx", "mts", "cts"],
            Self::Rust => &["rs"],
            Self::Go => &["go"],
            Self::Java => &["java"],
            Self::C => &["c", "h"],
            Self::Cpp => &["cpp", "cc", "cxx", "hpp", "hh", "hxx"],
            Self::CSharp => &["cs", "csx"],
            Self::Ruby => &["rb", "rake", "gemspec"],
        }
    }

    /// What else it is called, in lower case.
    const fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["python3"],
            Self::JavaScript => &["javascriptreact", "ecmascript", "node", "nodejs", "node.js"],
            Self::TypeScript => &["typescriptreact"],
            Self::Go => &["golang"],
            Self::Cpp => &["cplusplus"],
            Self::CSharp => &["c-sharp", "c_sharp"],
            Self::Rust | Self::Java | Self::C | Self::Ruby => &[],
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::from_name(word)
    }
}

fn known() -> String {
    Language::ALL.map(Language::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: Language) {
        for word in words {
            assert_eq!(Language::from_name(word), Ok(expected), "{word}");
        }
    }

    #[test]
    fn a_language_has_many_names() {
        check(&["py", ".py", "Python", "Python3"], Language::Python);
        check(
            &["js", "JavaScript", "javascriptreact", "JSX"],
            Language::JavaScript,
        );
        check(&["ts", ".tsx", "typescriptreact"], Language::TypeScript);
        check(&["rs", "rust", " Rust "], Language::Rust);
        check(&["go", "golang", ".go"], Language::Go);
        check(&["java", "JAVA"], Language::Java);
        check(&["c", "C", ".h"], Language::C);
        check(&["c++", "C++", "cpp", "cc", ".hpp"], Language::Cpp);
        check(&["c#", "cs", "CSharp", ".cs"], Language::CSharp);
        check(&["rb", "ruby"], Language::Ruby);
    }

    #[test]
    fn each_finds_itself() {
        for language in Language::ALL {
            let id = language.id();
            check(&[language.name(), id, language.extension()], language);
            let file = format!("a/b.{}", language.extension());
            assert_eq!(Language::of_file(Path::new(&file)), Some(language));
        }
    }

    #[test]
    fn no_word_names_two() {
        for language in Language::ALL {
            check(language.extensions(), language);
            check(language.aliases(), language);
        }
    }

    #[test]
    fn an_unknown_one_is_named() {
        for word in ["cobol", "", ".", "..py"] {
            let error = Language::from_name(word).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "the language {word:?} is not known; known are Python, JavaScript, TypeScript, \
                     Rust, Go, Java, C, C++, C#, Ruby"
                )
            );
        }
    }

    #[test]
    fn a_file_without_an_extension_has_none() {
        for path in ["Makefile", "", ".py", "a.txt", "a.py/"] {
            let expected = (path == "a.py/").then_some(Language::Python);
            assert_eq!(Language::of_file(Path::new(path)), expected, "{path}");
        }
    }
}
