//! The programming languages: the one table of their names, identifiers, extensions and comments.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A programming language that tasks know.
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

/// A word that names no known language.
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

    /// Its usual name: `C++`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Its identifier in LSP and VS Code: `cpp`. It also labels fenced code blocks in Markdown:
    /// every renderer knows these identifiers.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.row().id
    }

    /// The usual extension of its files, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        self.row().extensions[0]
    }

    /// What begins a line comment.
    #[must_use]
    pub const fn line_comment(self) -> &'static str {
        self.row().line_comment
    }

    const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The language called `word`: a name, an identifier or an extension, in any case.
    ///
    /// # Errors
    ///
    /// If it is none of [`Self::ALL`]; the message lists them.
    pub fn from_name(word: &str) -> Result<Self, UnknownLanguage> {
        let plain = word.trim().to_lowercase();
        let extension = plain.strip_prefix('.').unwrap_or(&plain);
        Self::ALL
            .into_iter()
            .find(|language| {
                let row = language.row();
                plain == row.name.to_lowercase()
                    || plain == row.id
                    || row.aliases.contains(&plain.as_str())
                    || row.extensions.contains(&extension)
            })
            .ok_or_else(|| UnknownLanguage(word.to_owned()))
    }

    /// The language of a file, by its extension. A `.h` counts as C.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<Self> {
        let at = index_of_file(path)?;
        Self::ALL.get(at).copied()
    }
}

/// The identifier that editors give the language of a file, by its extension, including languages
/// that tasks do not know: `shellscript`. For a file of an unknown language it is the extension,
/// which may be empty.
#[must_use]
pub fn id_of_file(path: &Path) -> &str {
    match index_of_file(path) {
        Some(at) => TABLE[at].id,
        None => extension(path).unwrap_or_default(),
    }
}

/// What begins a line comment in the language that editors call `id`; empty if that is not known.
#[must_use]
pub fn line_comment(id: &str) -> &'static str {
    row_of_id(id).map_or("", |row| row.line_comment)
}

/// The usual extension, without the dot, of files in the language that editors call `id`; `None` if
/// it is not known.
#[must_use]
pub fn usual_extension(id: &str) -> Option<&'static str> {
    row_of_id(id).map(|row| row.extensions[0])
}

fn row_of_id(id: &str) -> Option<&'static Row> {
    TABLE
        .iter()
        .find(|row| row.id == id || row.aliases.contains(&id))
}

/// Whether a file holds source code, by its extension: not data, not settings, not prose.
#[must_use]
pub fn is_source(path: &Path) -> bool {
    index_of_file(path).is_some()
}

fn index_of_file(path: &Path) -> Option<usize> {
    let extension = extension(path)?.to_lowercase();
    TABLE
        .iter()
        .position(|row| row.extensions.contains(&extension.as_str()))
}

fn extension(path: &Path) -> Option<&str> {
    path.extension()?.to_str()
}

/// What is known about a language.
struct Row {
    name: &'static str,
    /// As in LSP and VS Code.
    id: &'static str,
    /// In lower case, without the dot, the usual one first.
    extensions: &'static [&'static str],
    /// Its other names, in lower case.
    aliases: &'static [&'static str],
    line_comment: &'static str,
}

const fn row(
    name: &'static str,
    id: &'static str,
    extensions: &'static [&'static str],
    aliases: &'static [&'static str],
    line_comment: &'static str,
) -> Row {
    Row {
        name,
        id,
        extensions,
        aliases,
        line_comment,
    }
}

/// First the languages of [`Language::ALL`], in that order, then those that only editors know.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("Python", "python", &["py", "pyi", "pyw"], &["python3"], "#"),
    row("JavaScript", "javascript", &["js", "jsx", "mjs", "cjs"], &["javascriptreact", "ecmascript", "node", "nodejs", "node.js"], "//"),
    row("TypeScript", "typescript", &["ts", "tsx", "mts", "cts"], &["typescriptreact"], "//"),
    row("Rust", "rust", &["rs"], &[], "//"),
    row("Go", "go", &["go"], &["golang"], "//"),
    row("Java", "java", &["java"], &[], "//"),
    row("C", "c", &["c", "h"], &[], "//"),
    row("C++", "cpp", &["cpp", "cc", "cxx", "hpp", "hh", "hxx"], &["cplusplus"], "//"),
    row("C#", "csharp", &["cs", "csx"], &["c-sharp", "c_sharp"], "//"),
    row("Ruby", "ruby", &["rb", "rake", "gemspec"], &[], "#"),

    row("Ada", "ada", &["adb", "ads"], &[], "--"),
    row("Astro", "astro", &["astro"], &[], "//"),
    row("Batch", "bat", &["bat", "cmd"], &[], "REM"),
    row("Clojure", "clojure", &["clj", "cljs", "cljc"], &[], ";"),
    row("CMake", "cmake", &["cmake"], &[], "#"),
    row("CoffeeScript", "coffeescript", &["coffee"], &[], "#"),
    row("Crystal", "crystal", &["cr"], &[], "#"),
    row("CSS", "css", &["css"], &[], ""),
    row("CUDA C++", "cuda-cpp", &["cu", "cuh"], &[], "//"),
    row("D", "d", &["d"], &[], "//"),
    row("Dart", "dart", &["dart"], &[], "//"),
    row("Elixir", "elixir", &["ex", "exs"], &[], "#"),
    row("Elm", "elm", &["elm"], &[], "--"),
    row("Erlang", "erlang", &["erl", "hrl"], &[], "%"),
    row("F#", "fsharp", &["fs", "fsi", "fsx"], &[], "//"),
    row("Fish", "fish", &["fish"], &[], "#"),
    row("GDScript", "gdscript", &["gd"], &[], "#"),
    row("GraphQL", "graphql", &["graphql", "gql"], &[], "#"),
    row("Groovy", "groovy", &["groovy", "gradle"], &[], "//"),
    row("Haskell", "haskell", &["hs", "lhs"], &[], "--"),
    row("HCL", "hcl", &["hcl"], &[], "#"),
    row("HLSL", "hlsl", &["hlsl"], &[], "//"),
    row("HTML", "html", &["html", "htm"], &[], ""),
    row("Julia", "julia", &["jl"], &[], "#"),
    row("Kotlin", "kotlin", &["kt", "kts"], &[], "//"),
    row("Less", "less", &["less"], &[], "//"),
    row("Lua", "lua", &["lua"], &[], "--"),
    row("Nim", "nim", &["nim"], &[], "#"),
    row("Nix", "nix", &["nix"], &[], "#"),
    row("Objective-C", "objective-c", &["m"], &[], "//"),
    row("Objective-C++", "objective-cpp", &["mm"], &[], "//"),
    row("OCaml", "ocaml", &["ml", "mli"], &[], ""),
    row("Perl", "perl", &["pl", "pm"], &[], "#"),
    row("PHP", "php", &["php"], &[], "//"),
    row("PowerShell", "powershell", &["ps1", "psm1"], &[], "#"),
    row("Protocol Buffers", "proto3", &["proto"], &[], "//"),
    row("R", "r", &["r"], &[], "#"),
    row("Sass", "sass", &["sass"], &[], "//"),
    row("Scala", "scala", &["scala", "sc"], &[], "//"),
    row("SCSS", "scss", &["scss"], &[], "//"),
    row("Shell", "shellscript", &["sh", "bash", "zsh", "ksh"], &[], "#"),
    row("Solidity", "solidity", &["sol"], &[], "//"),
    row("Svelte", "svelte", &["svelte"], &[], "//"),
    row("Swift", "swift", &["swift"], &[], "//"),
    row("Terraform", "terraform", &["tf"], &[], "#"),
    row("Visual Basic", "vb", &["vb"], &[], "'"),
    row("Vue", "vue", &["vue"], &[], "//"),
    row("WGSL", "wgsl", &["wgsl"], &[], "//"),
    row("Zig", "zig", &["zig"], &[], "//"),
];

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
    fn each_language_is_found_by_its_own_names() {
        for language in Language::ALL {
            let id = language.id();
            check(&[language.name(), id, language.extension()], language);
            let file = format!("a/b.{}", language.extension());
            assert_eq!(Language::of_file(Path::new(&file)), Some(language));
        }
    }

    #[test]
    fn no_word_names_two_languages() {
        for language in Language::ALL {
            check(language.row().extensions, language);
            check(language.row().aliases, language);
        }
    }

    #[test]
    fn no_extension_is_in_two_rows() {
        let mut seen = std::collections::HashSet::new();
        for row in TABLE {
            for extension in row.extensions {
                assert!(seen.insert(extension), "{extension}");
            }
        }
    }

    #[test]
    fn a_file_has_the_identifier_that_editors_give_it() {
        for (path, expected) in [
            ("a.py", "python"),
            ("a.PY", "python"),
            ("a.tsx", "typescript"),
            ("a.h", "c"),
            ("a.cc", "cpp"),
            ("a.cs", "csharp"),
            ("a.go", "go"),
            ("b/a.sh", "shellscript"),
            ("a.bash", "shellscript"),
            ("a.exs", "elixir"),
            ("a.jl", "julia"),
            ("a.gd", "gdscript"),
            ("a.lua", "lua"),
            ("a.nim", "nim"),
            ("a.json", "json"),
            ("Makefile", ""),
        ] {
            assert_eq!(id_of_file(Path::new(path)), expected, "{path}");
        }
        assert_eq!(Language::of_file(Path::new("a.lua")), None);
        assert!(is_source(Path::new("a.lua")) && !is_source(Path::new("a.json")));
    }

    #[test]
    fn a_language_that_only_editors_know_has_comments_and_an_extension() {
        for (id, comment, extension) in [
            ("python", "#", Some("py")),
            ("julia", "#", Some("jl")),
            ("html", "", Some("html")),
            ("plaintext", "", None),
        ] {
            assert_eq!(line_comment(id), comment, "{id}");
            assert_eq!(usual_extension(id), extension, "{id}");
        }
    }

    #[test]
    fn an_unknown_language_is_named() {
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
    fn a_file_without_a_known_extension_has_no_language() {
        for path in ["Makefile", "", ".py", "a.txt", "a.py/"] {
            let expected = (path == "a.py/").then_some(Language::Python);
            assert_eq!(Language::of_file(Path::new(path)), expected, "{path}");
        }
    }
}
