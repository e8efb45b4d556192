//! What opens and closes in each language: strings, comments and brackets.
//!
//! The rules only find where strings and comments end. They know no grammar, and a language that is
//! not listed here gets rules that suit most.

use crate::text::language;

/// How a string ends, and what may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    pub(super) escape: Escape,
    /// Whether it goes on after the end of a line.
    pub(super) multiline: bool,
    /// What opens code in it, and what closes that: `${` and `}`.
    pub(super) holes: &'static [(&'static str, char)],
    /// Letters before the string of which one must be there for the holes to count; if empty, they
    /// always count.
    pub(super) hole_prefix: &'static str,
}

/// What keeps a quote in a string from ending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// Nothing.
    None,
    /// This character before it.
    With(char),
    /// The quote itself before it.
    Doubled,
}

/// What `'` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// Begins a string if `Rules::quotes` says so, else nothing.
    Quote,
    /// Begins a single character in quotes, or a name, as Rust's lifetimes.
    Character,
}

/// What `<` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Angle {
    /// An operator.
    Operator,
    /// After a name it begins type arguments.
    Generics,
    /// It begins a tag in prose.
    Tags,
}

/// Strings whose end depends on how they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// There are none.
    None,
    /// `r#"…"#`.
    Hashes,
    /// `R"x(…)x"`.
    Parentheses,
}

/// The rules of a language.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) line_comment: &'static str,
    pub(super) block_comment: Option<(&'static str, &'static str)>,
    /// The longer ones before those that they begin with.
    pub(super) quotes: &'static [Quote],
    /// Letters that may stand directly before a `'` that begins a string.
    pub(super) prefixes: &'static str,
    pub(super) tick: Tick,
    pub(super) angle: Angle,
    pub(super) raw: Raw,
    /// Whether a `/` where a value is expected begins a regular expression.
    pub(super) regex: bool,
    /// Whether a quote in a hole of a string that is made of the same quotes ends the string.
    pub(super) holes_end: bool,
    /// Whether the text outside strings is prose and not code.
    pub(super) prose: bool,
    /// What stands in pairs in prose.
    pub(super) marks: &'static [&'static str],
}

const fn quote(text: &'static str) -> Quote {
    Quote {
        open: text,
        close: text,
        escape: Escape::With('\\'),
        multiline: false,
        holes: &[],
        hole_prefix: "",
    }
}

const fn long(text: &'static str) -> Quote {
    Quote {
        multiline: true,
        ..quote(text)
    }
}

const fn raw(open: &'static str, close: &'static str) -> Quote {
    Quote {
        close,
        escape: Escape::None,
        ..long(open)
    }
}

const fn doubled(text: &'static str) -> Quote {
    Quote {
        escape: Escape::Doubled,
        ..quote(text)
    }
}

impl Quote {
    const fn with(self, holes: &'static [(&'static str, char)]) -> Self {
        Self { holes, ..self }
    }

    const fn after(self, hole_prefix: &'static str) -> Self {
        Self {
            hole_prefix,
            ..self
        }
    }
}

/// A regular expression.
pub(super) const REGEX: Quote = quote("/");

const DOUBLE: Quote = quote("\"");
const SINGLE: Quote = quote("'");
const DOUBLE3: Quote = long("\"\"\"");
const SINGLE3: Quote = long("'''");
const DOLLAR: &[(&str, char)] = &[("${", '}')];
const HASH: &[(&str, char)] = &[("#{", '}')];
const BRACE: &[(&str, char)] = &[("{", '}')];
const SHELL: &[(&str, char)] = &[("${", '}'), ("$(", ')')];

const BASE: Rules = Rules {
    line_comment: "",
    block_comment: None,
    quotes: &[DOUBLE, SINGLE, quote("`")],
    prefixes: "",
    tick: Tick::Quote,
    angle: Angle::Operator,
    raw: Raw::None,
    regex: false,
    holes_end: false,
    prose: false,
    marks: &["\"", "'", "`"],
};

const C: Rules = Rules {
    block_comment: Some(("/*", "*/")),
    quotes: &[DOUBLE, SINGLE],
    prefixes: "LUu8",
    ..BASE
};

/// Languages with type arguments and text blocks.
const JAVA: Rules = Rules {
    quotes: &[DOUBLE3, DOUBLE, SINGLE],
    prefixes: "",
    angle: Angle::Generics,
    ..C
};

const JAVASCRIPT: Rules = Rules {
    quotes: &[DOUBLE, SINGLE, long("`").with(DOLLAR)],
    prefixes: "",
    regex: true,
    ..C
};

const MARKDOWN: Rules = Rules {
    block_comment: Some(("<!--", "-->")),
    prose: true,
    marks: &[
        "**", "*", "__", "_", "~~", "```", "``", "`", "$$", "$", "\"", "'",
    ],
    ..BASE
};

const MARKUP: Rules = Rules {
    block_comment: Some(("<!--", "-->")),
    quotes: &[quote("\""), quote("'"), quote("`")],
    angle: Angle::Tags,
    prose: true,
    ..BASE
};

const DATA: Rules = Rules {
    quotes: &[DOUBLE],
    ..BASE
};

impl Rules {
    /// The rules of a language, by the editor's identifier or a file's extension.
    pub(super) fn of(id: &str) -> Self {
        let rules = match id {
            "python" | "gdscript" | "starlark" | "cython" => Self {
                quotes: const {
                    &[
                        DOUBLE3.with(BRACE).after("fFtT"),
                        SINGLE3.with(BRACE).after("fFtT"),
                        DOUBLE.with(BRACE).after("fFtT"),
                        SINGLE.with(BRACE).after("fFtT"),
                    ]
                },
                prefixes: "rRbBfFuUtT",
                holes_end: true,
                ..BASE
            },
            "javascript" | "javascriptreact" | "coffeescript" => JAVASCRIPT,
            "typescript" | "typescriptreact" => Self {
                angle: Angle::Generics,
                ..JAVASCRIPT
            },
            "rust" => Self {
                quotes: const { &[long("\"")] },
                prefixes: "b",
                tick: Tick::Character,
                angle: Angle::Generics,
                raw: Raw::Hashes,
                ..C
            },
            "go" => Self {
                quotes: const { &[DOUBLE, SINGLE, raw("`", "`")] },
                prefixes: "",
                ..C
            },
            "cpp" | "cuda-cpp" | "objective-cpp" => Self {
                angle: Angle::Generics,
                raw: Raw::Parentheses,
                ..C
            },
            // As in `#include <$0>`.
            "c" | "objective-c" => Self {
                angle: Angle::Generics,
                ..C
            },
            "hlsl" | "wgsl" | "glsl" | "solidity" | "proto3" | "proto" | "zig" | "css" | "scss"
            | "less" | "sass" | "d" | "php" => C,
            "java" => JAVA,
            "groovy" => Self {
                quotes: const { &[DOUBLE3.with(DOLLAR), SINGLE3, DOUBLE.with(DOLLAR), SINGLE] },
                ..JAVA
            },
            "kotlin" => Self {
                quotes: const { &[DOUBLE3.with(DOLLAR), DOUBLE.with(DOLLAR), SINGLE] },
                ..JAVA
            },
            "dart" => Self {
                quotes: const {
                    &[
                        DOUBLE3.with(DOLLAR),
                        SINGLE3.with(DOLLAR),
                        DOUBLE.with(DOLLAR),
                        SINGLE.with(DOLLAR),
                    ]
                },
                prefixes: "r",
                ..JAVA
            },
            "swift" => Self {
                quotes: const { &[DOUBLE3.with(&[("\\(", ')')]), DOUBLE.with(&[("\\(", ')')])] },
                ..JAVA
            },
            "csharp" => Self {
                quotes: const { &[DOUBLE3, DOUBLE.with(BRACE).after("$"), SINGLE] },
                ..JAVA
            },
            "scala" => Self {
                quotes: const { &[DOUBLE3.with(DOLLAR), DOUBLE.with(DOLLAR)] },
                tick: Tick::Character,
                angle: Angle::Operator,
                ..JAVA
            },
            "ruby" | "crystal" | "elixir" => Self {
                quotes: const { &[DOUBLE3.with(HASH), DOUBLE.with(HASH), SINGLE, quote("`")] },
                regex: id != "elixir",
                ..BASE
            },
            "perl" | "r" => BASE,
            "shellscript" | "sh" | "bash" | "zsh" | "fish" | "makefile" | "dockerfile" => Self {
                quotes: const {
                    &[
                        DOUBLE.with(SHELL),
                        Quote {
                            escape: Escape::None,
                            ..SINGLE
                        },
                        quote("`"),
                    ]
                },
                ..BASE
            },
            "powershell" => Self {
                block_comment: Some(("<#", "#>")),
                quotes: const {
                    &[
                        Quote {
                            escape: Escape::With('`'),
                            holes: &[("$(", ')')],
                            ..DOUBLE
                        },
                        doubled("'"),
                    ]
                },
                ..BASE
            },
            "lua" => Self {
                block_comment: Some(("--[[", "]]")),
                quotes: const { &[DOUBLE, SINGLE, raw("[[", "]]")] },
                ..BASE
            },
            "nix" => Self {
                block_comment: Some(("/*", "*/")),
                quotes: const { &[DOUBLE.with(DOLLAR), raw("''", "''").with(DOLLAR)] },
                ..BASE
            },
            "sql" | "plsql" | "pgsql" | "ada" | "vb" => Self {
                block_comment: (id.ends_with("sql")).then_some(("/*", "*/")),
                prefixes: "nNeExXbB",
                quotes: match id {
                    "vb" => const { &[doubled("\"")] },
                    _ => const { &[doubled("'"), doubled("\"")] },
                },
                ..BASE
            },
            "haskell" | "elm" | "purescript" => Self {
                block_comment: Some(("{-", "-}")),
                quotes: const { &[DOUBLE] },
                tick: Tick::Character,
                ..BASE
            },
            "ocaml" | "fsharp" => Self {
                block_comment: Some(("(*", "*)")),
                quotes: const { &[DOUBLE3, DOUBLE] },
                tick: Tick::Character,
                ..BASE
            },
            "clojure" | "scheme" | "racket" | "lisp" | "commonlisp" | "emacs-lisp" | "el" => DATA,
            "julia" => Self {
                block_comment: Some(("#=", "=#")),
                quotes: const { &[DOUBLE3.with(&[("$(", ')')]), DOUBLE.with(&[("$(", ')')])] },
                tick: Tick::Character,
                ..BASE
            },
            "nim" => Self {
                quotes: const { &[DOUBLE3, DOUBLE, SINGLE] },
                ..BASE
            },
            "hcl" | "terraform" | "tf" => Self {
                quotes: const { &[DOUBLE.with(DOLLAR)] },
                block_comment: Some(("/*", "*/")),
                ..BASE
            },
            "graphql" => Self {
                quotes: const { &[DOUBLE3, DOUBLE] },
                ..BASE
            },
            "json" | "jsonc" | "json5" | "jsonl" => Self {
                block_comment: Some(("/*", "*/")),
                ..DATA
            },
            "toml" => Self {
                quotes: const {
                    &[
                        DOUBLE3,
                        raw("'''", "'''"),
                        DOUBLE,
                        Quote {
                            escape: Escape::None,
                            ..SINGLE
                        },
                    ]
                },
                ..BASE
            },
            "yaml" | "yml" | "dockercompose" => Self {
                quotes: const { &[DOUBLE, doubled("'")] },
                ..BASE
            },
            "html" | "htm" | "xml" | "svg" | "xhtml" | "vue" | "svelte" | "astro"
            | "handlebars" | "xsl" => MARKUP,
            "markdown" | "md" | "mdx" | "quarto" | "rmd" | "latex" | "tex" | "typst" => MARKDOWN,
            "plaintext" | "text" | "txt" | "restructuredtext" | "rst" | "asciidoc"
            | "git-commit" | "gitcommit" | "org" => Self {
                block_comment: None,
                ..MARKDOWN
            },
            _ => BASE,
        };
        let line_comment = match id {
            "toml" | "yaml" | "yml" | "dockerfile" | "makefile" | "sh" | "bash" | "zsh"
            | "starlark" | "dockercompose" | "tf" | "cython" => "#",
            "jsonc" | "json5" | "glsl" | "proto" => "//",
            "sql" | "plsql" | "pgsql" | "purescript" => "--",
            "latex" | "tex" => "%",
            "scheme" | "racket" | "lisp" | "commonlisp" | "emacs-lisp" | "el" => ";",
            _ => language::line_comment(id),
        };
        Self {
            line_comment,
            ..rules
        }
    }
}
