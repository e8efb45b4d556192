//! The format of a conversation, rendered from the model's own template.
//!
//! The template is an untrusted program. It runs on a thread of its own, whose stack is large
//! enough for the deepest template that [`admission`] accepts, because an overflow would end the
//! whole process.

pub mod admission;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, context};

use super::configuration;
use super::manifest::Manifest;
use super::plain_file::{self, PlainFileError};
use super::tokenizer::Tokenizer;

/// A template that takes more than this many steps is taken to be endless. A step is an instruction
/// or 64 bytes of text; the templates of models take some tens for each message. It also limits how
/// deep values are nested, since each level takes a step.
const FUEL: u64 = 50_000;

/// The largest template that is read, in bytes. The largest of known models have 30 kB.
const MAX_BYTES: u64 = 64 * 1024;

/// The most that a template may add to the messages, in bytes.
const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// What a thread may use to parse or render a template. Only address space is reserved; memory is
/// taken as it is used. The deepest accepted templates use up to 7 MB to parse and 48 MB to render,
/// measured with minijinja 3.1.0 on x86-64 without optimization.
const LIMITS: Limits = Limits {
    stack: 128 * 1024 * 1024,
    time: Duration::from_secs(2),
};

/// The tokens that end a turn in the templates of common models.
pub const ENDS_OF_TURN: [&str; 6] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_text|>",
    "<|EOT|>",
];

/// The name of the only template.
const NAME: &str = "chat_template";

/// A model's `chat_template`: Jinja, as `transformers` renders it, except that `bos_token` and
/// `eos_token` are empty.
#[derive(Debug)]
pub struct ChatTemplate {
    path: PathBuf,
    environment: Arc<Environment<'static>>,
    limits: Limits,
    /// Set once it has not finished in time: it is not tried again, because its thread cannot be
    /// ended.
    endless: AtomicBool,
    /// Any of these tokens ends an answer.
    pub end: Vec<u32>,
}

/// The limits of a thread.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// In bytes.
    stack: usize,
    time: Duration,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one who set up the assistant.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that templates use.
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
                "nothing names a token that ends an answer; add `end` under [chat] in model.toml"
                    .to_owned(),
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
        let source = source(&path)?;
        let parsed = within(LIMITS, move || environment(source));
        let environment = parsed.map_err(|unfinished| wrong(unfinished.to_string()))?;
        Ok(Some(Self {
            path: path.clone(),
            environment: Arc::new(environment.map_err(wrong)?),
            limits: LIMITS,
            endless: AtomicBool::new(false),
            end: end?,
        }))
    }

    /// The ids of a conversation, up to where the model answers. Special tokens come from the
    /// template only: messages are text, whatever they contain.
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

    /// The rendered conversation in parts: a piece of the template's own text, and the message
    /// after it, which is empty at the end. The template is given placeholders for the messages,
    /// because in its output its own text could not be told from theirs.
    fn parts<'a>(
        &self,
        messages: &'a [Message],
    ) -> Result<Vec<(String, &'a str)>, ChatTemplateError> {
        let placeholder = |index: usize| format!("\u{F0000}{index}\u{F0001}");
        let placeholders: Vec<_> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| context! { role => message.role.name(), content => placeholder(index) })
            .collect();
        let rendered = self.render(context! {
            messages => placeholders,
            add_generation_prompt => true,
            bos_token => "",
            eos_token => "",
        })?;
        let mut parts = Vec::new();
        let mut rest = rendered.as_str();
        for (index, message) in messages.iter().enumerate() {
            // A template may leave out the system's message, or merge it into another.
            let Some((part, after)) = rest.split_once(&placeholder(index)) else {
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

    fn render(&self, context: minijinja::Value) -> Result<String, ChatTemplateError> {
        if self.endless.load(Ordering::Relaxed) {
            return Err(self.wrong("it did not finish before and is not tried again".to_owned()));
        }
        let environment = self.environment.clone();
        let rendered = within(self.limits, move || {
            let template = environment.get_template(NAME);
            let rendered = template.and_then(|template| template.render(context));
            // On this thread, whose stack is large, because an error can hold values.
            rendered.map_err(|error| error.to_string())
        });
        let rendered = rendered.map_err(|unfinished| {
            self.endless.store(true, Ordering::Relaxed);
            self.wrong(unfinished.to_string())
        })?;
        let rendered = rendered.map_err(|problem| self.wrong(problem))?;
        match rendered.len() > MAX_OUTPUT_BYTES {
            true => Err(self.wrong(format!("it writes more than {MAX_OUTPUT_BYTES} bytes"))),
            false => Ok(rendered),
        }
    }

    fn wrong(&self, problem: String) -> ChatTemplateError {
        ChatTemplateError {
            path: self.path.clone(),
            problem,
        }
    }
}

/// The text of the template at `path`: a file of its own, or one in a `tokenizer_config.json`.
///
/// # Errors
///
/// When there is none, or a larger one than is let in.
pub fn source(path: &Path) -> Result<String, ChatTemplateError> {
    let wrong = |problem: String| ChatTemplateError {
        path: path.to_path_buf(),
        problem,
    };
    if path.extension().is_none_or(|extension| extension != "json") {
        return plain_file::read_text(path, MAX_BYTES).map_err(|error| wrong(error.to_string()));
    }
    let source = configuration::chat_template(path).map_err(|error| wrong(error.to_string()))?;
    match source.len() as u64 > MAX_BYTES {
        true => Err(wrong(PlainFileError::TooLarge(MAX_BYTES).to_string())),
        false => Ok(source),
    }
}

fn environment(source: String) -> Result<Environment<'static>, String> {
    // As `transformers` sets up Jinja.
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    let syntax = syntax.map_err(|error| error.to_string())?;
    admission::admit(&source, &syntax)?;
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |problem: String| -> Result<(), _> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, problem))
    });
    environment
        .add_template_owned(NAME, source)
        .map_err(|error| error.to_string())?;
    Ok(environment)
}

/// Does `work` on a thread of its own. A thread that does not finish in time is abandoned.
fn within<T: Send + 'static>(
    limits: Limits,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("chat template".to_owned())
        .stack_size(limits.stack)
        .spawn(move || {
            // Once the time is up, nothing receives this.
            let _ = sender.send(work());
        })
        .map_err(Unfinished::NoThread)?;
    let done = receiver
        .recv_timeout(limits.time)
        .map_err(|error| match error {
            RecvTimeoutError::Timeout => Unfinished::Time(limits.time),
            RecvTimeoutError::Disconnected => Unfinished::Panic,
        })?;
    // The thread has sent its result and is about to end. Its stack is free when this returns.
    let _ = thread.join();
    Ok(done)
}

/// Why a thread has no result.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("cannot start a thread for it: {0}")]
    NoThread(std::io::Error),
    #[error("it does not finish within {0:?}")]
    Time(Duration),
    #[error("the template engine panics on it")]
    Panic,
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
    use proptest::prelude::*;

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

    impl ChatTemplate {
        /// The template `source`, whose answers end with the token `end`.
        pub(crate) fn of(source: &str, tokenizer: &Tokenizer, end: &str) -> Self {
            Self {
                path: "chat.jinja".into(),
                environment: Arc::new(environment(source.to_owned()).unwrap()),
                limits: LIMITS,
                endless: AtomicBool::new(false),
                end: vec![tokenizer.special_id(end).unwrap()],
            }
        }
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
    fn the_shipped_template_renders_and_messages_are_text() {
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
    fn templates_can_use_what_those_of_models_use() {
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

    /// Parses and renders with half of the stack, so that a template that passes leaves the other
    /// half to spare: an overflow would end the tests. Returns the length of the text.
    fn run(source: &str) -> Result<usize, String> {
        let limits = Limits {
            stack: LIMITS.stack / 2,
            time: Duration::from_secs(60),
        };
        let source = source.to_owned();
        let environment = within(limits, move || environment(source)).unwrap()?;
        let template = ChatTemplate {
            path: "a/chat.jinja".into(),
            environment: Arc::new(environment),
            limits,
            endless: AtomicBool::new(false),
            end: Vec::new(),
        };
        let rendered = template.render(context! { a => context! { a => 1 }, b => vec![1, 2] });
        rendered
            .map(|text| text.len())
            .map_err(|error| error.problem)
    }

    /// The kinds of templates that can be nested to any depth: `head`, `open` repeated, `middle`,
    /// `close` repeated, `tail`.
    const DEEP: &[[&str; 5]] = &[
        ["{{ ", "not ", "a", "", " }}"],
        ["{{ ", "-", "a", "", " }}"],
        ["{{ ", "- ", "a", "", " }}"],
        ["{{ a", ".a", "", "", " }}"],
        ["{{ a", "[0]", "", "", " }}"],
        ["{{ a", "[:]", "", "", " }}"],
        ["{{ a", "()", "", "", " }}"],
        ["{{ a", "|e", "", "", " }}"],
        ["{{ a", " is string", "", "", " }}"],
        ["{{ a", "+1", "", "", " }}"],
        ["{{ 1", "+1", "", "", " }}"],
        ["{{ a", "*1", "", "", " }}"],
        ["{{ a", "**1", "", "", " }}"],
        ["{{ a", "~1", "", "", " }}"],
        ["{{ a", " and a", "", "", " }}"],
        ["{{ a", " or a", "", "", " }}"],
        ["{{ a", " if a", "", "", " }}"],
        ["{{ a", " if a else a", "", "", " }}"],
        ["{{ a", "<1", "", "", " }}"],
        ["{{ a", " in b", "", "", " }}"],
        ["{{ ", "(", "a", ")", " }}"],
        ["{{ ", "[", "a", "]", " }}"],
        ["{{ ", "{1:", "a", "}", " }}"],
        ["{{ ", "(a,", "a", ")", " }}"],
        ["{{ ", "a[", "a", "]", " }}"],
        ["{{ ", "a(", "a", ")", " }}"],
        ["{{ ", "a|e(", "a", ")", " }}"],
        ["{{ ", "-(", "a", ")", " }}"],
        ["{% for ", "(", "a", ")", " in b %}{% endfor %}"],
        ["{% set ", "(", "a", ")", " = b %}"],
        ["{% set a", ".a", "", "", " = b %}"],
        ["", "{% if a %}", "a", "{% endif %}", ""],
        ["", "{% for a in b %}", "a", "{% endfor %}", ""],
        ["", "{% filter e %}", "a", "{% endfilter %}", ""],
        ["", "{% set a %}", "a", "{% endset %}", ""],
        ["", "{% with a=a %}", "a", "{% endwith %}", ""],
        ["", "{% autoescape true %}", "a", "{% endautoescape %}", ""],
        ["{% if a %}", "{% elif a %}", "", "", "{% endif %}"],
        ["{% if b %}", "{% elif a %}", "", "", "{% endif %}"],
        ["{% if c %}", "{% else %}{% if c %}", "", "", ""],
        ["{% filter e", "|e", "", "", " %}{% endfilter %}"],
        ["{% set a = 1 %}", "{% set a = [a] %}", "", "", "{{ a }}"],
        [
            "{% set a = 1 %}",
            "{% set a = {1: a} %}",
            "{% set b = a %}",
            "",
            "{{ a == b }}",
        ],
        ["{{ '", "\u{f0000}", "", "", "' }}"],
        ["", "{{ a }}", "", "", ""],
        ["", "{# a #}", "", "", ""],
        ["", "{", "", "", ""],
        ["{#", "{#", "", "", ""],
    ];

    fn deep([head, open, middle, close, tail]: [&str; 5], depth: usize) -> String {
        [
            head,
            &open.repeat(depth),
            middle,
            &close.repeat(depth),
            tail,
        ]
        .concat()
    }

    #[test]
    fn a_deep_template_is_an_error_or_fits_twice() {
        for kind in DEEP {
            let most = (MAX_BYTES as usize - 100) / (kind[1].len() + kind[3].len());
            for depth in [70, 140, 490, 990, most] {
                let depth = depth.min(most);
                let _ = run(&deep(*kind, depth));
            }
        }
        // The deepest that are accepted are rendered too.
        let check = |kind: [&str; 5], depth, expected: Result<usize, &str>| {
            let run = run(&deep(kind, depth));
            assert_eq!(
                run.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|e| *e)
            );
        };
        let long = "one of its tags has more than 1000 words";
        check(DEEP[0], 990, Ok(4));
        check(DEEP[0], 10_000, Err(long));
        check(DEEP[1], 10_000, Err(long));
        check(DEEP[3], 10_000, Err(long));
        check(DEEP[37], 400, Ok(0));
        check(DEEP[37], 1000, Err("it has more than 500 `elif` branches"));
        check(DEEP[31], 140, Ok(1));
        check(
            DEEP[31],
            1000,
            Err("syntax error: template exceeds maximum recursion limits (in chat_template:1)"),
        );
    }

    #[test]
    fn values_nested_while_rendering_fit_twice() {
        let nested = [("[", "]"), ("{1:", "}"), ("(", ",)")];
        let uses = [
            "{{ n.a }}",
            "{{ n.a == n.b }}",
            "{{ n.a < n.b }}",
            "{{ n.a in [n.b] }}",
            "{{ {n.a: 1}|length }}",
            "{{ [n.a, n.b]|unique|length }}",
            "{{ [n.a, n.b]|sort|length }}",
            "{{ n.a|string|length }}",
            "{{ (n.a ~ 1)|length }}",
            "{{ raise_exception(n.a|string) }}",
            "{{ n.a|nothing }}",
        ];
        for (open, close) in nested {
            let (open, close) = (open.repeat(70), close.repeat(70));
            let set = |name: &str| format!("{{% set n.{name} = {open}n.{name}{close} %}}");
            for of in uses {
                // As deep as the fuel allows, and a little less, so that some is left for the use.
                for rounds in [50, 150, 200, 300, 340, 380, 420, 440, 460, 10_000] {
                    for sets in [set("a"), set("a") + &set("b")] {
                        let _ = run(&format!(
                            "{{% set n = namespace(a=1, b=1) %}}{{% for i in range({rounds}) %}}\
                             {sets}{{% endfor %}}{of}"
                        ));
                    }
                }
            }
        }
        for lazy in [
            "n.a[0:]",
            "n.a|reverse",
            "n.a|chain([])",
            "{1: n.a}|items",
            "dict(a=n.a)",
        ] {
            let _ = run(&format!(
                "{{% set n = namespace(a=[1]) %}}{{% for i in range(300) %}}\
                 {{% set n.a = {lazy} %}}{{% endfor %}}{{{{ n.a|list }}}}"
            ));
        }
    }

    #[test]
    fn recursion_ends() {
        let error = run("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}").unwrap_err();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }

    #[test]
    fn too_much_output_is_an_error() {
        let source =
            "{% for i in range(2000) %}0123456789012345678901234567890123456789{% endfor %}";
        assert_eq!(run(source).unwrap_err(), "it writes more than 65536 bytes");
        let source = "{% set a = 'a' %}{% for i in range(40) %}{% set a = a ~ a %}{{ a * 100000000 }}{% endfor %}";
        assert_eq!(
            run(source).unwrap_err(),
            "engine ran out of fuel (in chat_template:1)"
        );
    }

    #[test]
    fn a_template_that_does_not_finish_in_time_is_tried_once() {
        // A list that holds a list twice, which holds a list twice, and so on: comparing it takes
        // seconds.
        let mut template = template(
            "{% set n = namespace(a=1, b=1) %}{% for i in range(22) %}{% set n.a = [n.a, n.a] %}\
             {% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
            "<|im_end|>",
        )
        .unwrap()
        .unwrap();
        template.limits.time = Duration::from_millis(1);
        let encode = || {
            let ids = template.encode(tokenizer(), &conversation());
            ids.unwrap_err().problem
        };
        assert_eq!(encode(), "it does not finish within 1ms");
        assert_eq!(encode(), "it did not finish before and is not tried again");
    }

    #[test]
    fn a_panic_is_an_error() {
        let done = within(LIMITS, || std::panic::panic_any(()));
        let error = done.unwrap_err().to_string();
        assert_eq!(error, "the template engine panics on it");
    }

    proptest! {
        #[test]
        fn any_words_are_an_error_or_a_text(
            words in prop::collection::vec(prop::sample::select(WORDS), 0..200),
            repeated in 1..40_usize,
        ) {
            let words: String = words.concat();
            let whole = words.repeat(repeated);
            if whole.len() as u64 <= MAX_BYTES {
                let _ = run(&whole);
            }
        }
    }

    const WORDS: &[&str] = &[
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "{%-",
        "-%}",
        " ",
        "\n",
        "a",
        "b",
        "n",
        ".",
        "1",
        "'",
        "\"",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "|",
        "|e",
        "~",
        "-",
        "not ",
        " if ",
        " else ",
        " in ",
        " is ",
        " and ",
        "=",
        "==",
        "set ",
        "for ",
        "endfor",
        "if ",
        "elif ",
        "endif",
        "raw",
        "endraw",
        "namespace(",
        "n.a",
        "messages",
        "loop",
        "range(9)",
        "a text",
        "\u{e9}",
    ];

    #[test]
    fn errors_name_the_problem() {
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
        check(
            &format!("{{{{ {}a }}}}", "not ".repeat(10_000)),
            "<|im_end|>",
            expect![
                "cannot use the chat template /chat.jinja: one of its tags has more than 1000 words"
            ],
        );
        check(
            &" ".repeat(70_000),
            "<|im_end|>",
            expect!["cannot use the chat template /chat.jinja: it is larger than 65536 bytes"],
        );
    }
}
