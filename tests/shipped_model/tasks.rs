//! Tasks on the shipped model. It is often wrong; the code around it must not be.

use std::path::Path;
use std::sync::LazyLock;

use interline::engine::cancel::Cancel;
use interline::engine::decoder::Decoder;
use interline::engine::lanes::{Lanes, Texts};
use interline::engine::request::{Draws, Limits};
use interline::engine::stop::Scope;
use interline::engine::{Engine, EngineState};
use interline::tasks::desk::Desk;
use interline::tasks::fix::FixError;
use interline::tasks::fix::Problem;
use interline::tasks::{Outcome, Output, Source, Task, TaskError};
use interline::text::language::Language;
use interline::text::syntax;

use crate::support;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let engine = Engine::spawn(|_| Ok::<_, String>(support::model()));
    while matches!(*engine.state().borrow(), EngineState::Loading(_)) {
        std::thread::yield_now();
    }
    engine
});

fn source(file: &str, text: &str) -> Source {
    let cursor = text.find("$0");
    let at = cursor.unwrap_or_default();
    Source {
        file_name: file.to_owned(),
        language: Language::of_file(Path::new(file)).unwrap(),
        text: text.replacen("$0", "", 1),
        selection: at..at,
    }
}

fn example(file: &str) -> Source {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(file);
    source(file, &std::fs::read_to_string(path).unwrap())
}

fn perform(task: &Task, source: &Source) -> Result<Outcome, TaskError> {
    let mut desk = Desk {
        engine: &ENGINE,
        cancel: &Cancel::default(),
        examples: Vec::new(),
        observer: &mut |_| {},
        show_prompt: None,
    };
    task.perform(&mut desk, source)
}

fn text(outcome: &Outcome) -> &str {
    match &outcome.output {
        Output::Text { text, .. } => text,
        Output::Edit(_, text) => text,
    }
}

#[test]
fn a_translation_reports_what_is_wrong_with_it() {
    let mut source = example("inventory.py");
    let end = source.text.find("\n@dataclass\nclass Inventory").unwrap();
    source.selection = 0..end;
    let outcome = perform(&Task::Translate(Language::Rust), &source).unwrap();
    let errors = syntax::errors(text(&outcome), Language::Rust);
    let reported = outcome
        .notes
        .iter()
        .filter(|note| note.contains("the translation does not parse"));
    assert_eq!(reported.count(), errors.len());
    let missing = ["was cut short", "is left out"];
    let missing = |note: &String| missing.iter().any(|words| note.contains(words));
    assert_eq!(
        outcome.complete,
        !outcome.notes.iter().any(missing),
        "{:?}",
        outcome.notes
    );
    assert!(!text(&outcome).contains("```"), "{}", text(&outcome));
}

#[test]
fn an_item_that_does_not_fit_is_left_out_and_named() {
    let long = format!("def long():\n{}", "    value = value + 1\n".repeat(400));
    let code = format!("{long}\n\ndef area(width, height):\n    return width * height\n");
    let outcome = perform(&Task::Translate(Language::Rust), &source("a.py", &code)).unwrap();
    assert!(!outcome.complete);
    let note = &outcome.notes[0];
    assert!(
        note.starts_with("long (line 1) is left out: the text is too long"),
        "{note}"
    );
    assert!(text(&outcome).contains("// Not translated: long, from line 1 on."));
    assert!(text(&outcome).contains("fn area("));
}

#[test]
fn comments_follow_the_languages_convention() {
    let check = |file: &str, text: &str, before: &str, after: &str| {
        let source = source(file, text);
        let outcome = perform(&Task::Document, &source).unwrap();
        let Output::Edit(range, comment) = outcome.output else {
            panic!("{outcome:?}");
        };
        assert!(range.is_empty(), "nothing is removed");
        assert!(
            comment.starts_with(before) && comment.ends_with(after),
            "{comment:?}"
        );
        let mut text = source.text;
        text.replace_range(range, &comment);
        assert_eq!(syntax::errors(&text, source.language), [], "{text}");
    };
    check(
        "a.py",
        "class A:\n    def $0area(self):\n        return self.width\n",
        "        \"\"\"Return ",
        "\"\"\"\n",
    );
    check(
        "a.rs",
        "struct A;\nimpl A {\n    fn $0len(&self) -> usize {\n        1\n    }\n}\n",
        "    /// Returns ",
        "\n",
    );
    check(
        "a.go",
        "package a\n\nfunc $0Add(a, b int) int {\n\treturn a + b\n}\n",
        "// Add: Returns ",
        "\n",
    );
    check(
        "a.ts",
        "function $0add(a: number, b: number) {\n  return a + b;\n}\n",
        "/** Returns ",
        " */\n",
    );
}

#[test]
fn a_test_begins_as_its_framework_wants() {
    let source = source(
        "shapes.py",
        "$0def area(width, height):\n    return width * height\n",
    );
    let outcome = perform(&Task::Test, &source).unwrap();
    let start = "from shapes import area\n\n\ndef test_area():\n    assert area(";
    assert!(text(&outcome).starts_with(start), "{}", text(&outcome));
    let Output::Text { file_name, .. } = &outcome.output else {
        panic!("{outcome:?}");
    };
    assert_eq!(file_name, "test_shapes.py");
}

#[test]
fn code_goes_below_the_comment_that_describes_it() {
    let source = source(
        "a.py",
        "import math\n\n# Returns the largest of three numbers.$0\n",
    );
    let outcome = perform(&Task::Generate, &source).unwrap();
    let Output::Edit(range, code) = outcome.output else {
        panic!("{outcome:?}");
    };
    assert_eq!(range, source.text.len() - 1..source.text.len() - 1);
    assert!(
        code.starts_with("\ndef ") && code.contains("return"),
        "{code}"
    );
}

#[test]
fn prose_and_code_are_written_on_request() {
    let source = source(
        "a.py",
        "def area(width, height):\n    return width * height\n",
    );
    let said = perform(&Task::Explain, &source).unwrap();
    assert!(text(&said).len() > 40, "{}", text(&said));
    let wanted = Task::Write("a function that adds two numbers".to_owned());
    let code = perform(&wanted, &source).unwrap();
    assert!(text(&code).contains("def "), "{}", text(&code));
}

#[test]
fn a_fixed_file_parses_no_worse() {
    let source = source(
        "a.py",
        "def area(width, height):\n    return width * heigth\n",
    );
    let problem = Problem {
        offset: source.text.find("heigth").unwrap(),
        message: "undefined name 'heigth'".to_owned(),
    };
    match perform(&Task::Fix(vec![problem]), &source) {
        Ok(outcome) => assert_eq!(syntax::errors(text(&outcome), Language::Python), []),
        Err(error) => assert!(
            matches!(error, TaskError::Fix(FixError::Broken(_))),
            "{error}"
        ),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_problem_is_solved_and_the_evidence_counted() {
    if support::is_without_sandbox() {
        return;
    }
    let stub = "def double(x):\n    \"\"\"Return x times two.\n\n    >>> double(2)\n    4\n    >>> double(5)\n    10\n    \"\"\"\n";
    let task = Task::Solve { draws: 8, best: 3 };
    let outcome = perform(&task, &source("double.py", stub)).unwrap();
    assert!(outcome.complete, "{outcome:?}");
    assert!(
        text(&outcome).starts_with(stub.trim_end()),
        "{}",
        text(&outcome)
    );
    let evidence = &outcome.notes[0];
    assert!(
        evidence.starts_with("8 drawn, ") && evidence.contains("clusters of"),
        "{evidence}"
    );
}

/// Law (cache truth), for several texts at once: a lane's logits are those of a text that is
/// written alone, even if the lanes are not equally long.
#[test]
fn lanes_have_the_logits_of_single_texts() {
    const MARGIN: f32 = 2.0;
    let model = support::model();
    let lm = &*model.causal_lm;
    let prompt = model
        .tokenizer
        .encode("def area(width, height):\n    return width");
    let texts =
        [" * height\n", " + height + width\n", "\n"].map(|text| model.tokenizer.encode(text));
    let mut decoder = Decoder::new(lm, 128).unwrap();
    let mut single = Vec::new();
    for text in &texts {
        decoder.truncate(0);
        decoder.prefill(&prompt, 64, &Cancel::default()).unwrap();
        for token in text {
            decoder.step(*token).unwrap();
        }
        single.push(decoder.logits().to_vec());
    }
    let len = prompt.len();
    let mut whole = lm.new_cache(128).unwrap();
    whole.forward(&[0], &prompt, 1, &mut Vec::new()).unwrap();
    let mut cache = whole.fork(len, texts.len(), 128).unwrap();
    let mut pasts = vec![len; texts.len()];
    let mut written = vec![0; texts.len()];
    let mut checked = 0;
    let mut logits = Vec::new();
    for _ in 0..texts.iter().map(Vec::len).max().unwrap() {
        let tokens: Vec<u32> = texts
            .iter()
            .zip(&written)
            .map(|(text, at)| text[*at])
            .collect();
        cache.forward(&pasts, &tokens, 1, &mut logits).unwrap();
        for (lane, text) in texts.iter().enumerate() {
            pasts[lane] += 1;
            written[lane] += 1;
            if written[lane] == text.len() {
                let row = &logits[lane * lm.vocabulary()..][..lm.vocabulary()];
                let difference = row.iter().zip(&single[lane]).map(|(a, b)| (a - b).abs());
                let difference = difference.fold(0.0, f32::max);
                assert!(difference < MARGIN, "lane {lane} differs by {difference}");
                checked += 1;
                // The lane starts over, so that the lanes have different lengths.
                (pasts[lane], written[lane]) = (len, 0);
            }
        }
    }
    assert!(checked >= texts.len());
}

#[test]
fn the_same_seeds_draw_the_same_texts() {
    let model = support::model();
    let prompt = model
        .tokenizer
        .encode("def area(width, height):\n    return");
    let mut decoder = Decoder::new(&*model.causal_lm, 128).unwrap();
    decoder.prefill(&prompt, 64, &Cancel::default()).unwrap();
    let texts = Texts {
        healed: Vec::new(),
        end: model.fim.end.clone(),
        scope: Scope::Line,
        suffix: String::new(),
        closed: Vec::new(),
        limits: Limits {
            prompt: None,
            tokens: 8,
            time: None,
        },
        draws: Draws {
            count: 5,
            temperatures: &[80],
        },
    };
    let mut draw = |lanes: usize| {
        let mut lanes = Lanes::fork(&decoder, texts.clone(), lanes).unwrap();
        let mut drawn = vec![String::new(); texts.draws.count];
        while lanes
            .step(&model.tokenizer, &mut decoder, |draw, text| {
                drawn[draw] = text.text;
            })
            .unwrap()
        {}
        drawn
    };
    let drawn = draw(5);
    assert_eq!(draw(5), drawn);
    // With fewer lanes, texts follow each other in a lane that returns to the prompt's end.
    assert_eq!(draw(2), draw(2));
    assert!(drawn.iter().any(|text| *text != drawn[0]), "{drawn:?}");
}

/// A text that is written in the decoder itself equals one that is written in a copy of it.
#[test]
fn a_text_in_place_is_the_text_in_a_copy() {
    let model = support::model();
    let prompt = model.tokenizer.encode("def area(width, height):\n    ");
    let mut decoder = Decoder::new(&*model.causal_lm, 128).unwrap();
    let texts = Texts {
        healed: Vec::new(),
        end: model.fim.end.clone(),
        scope: Scope::Text,
        suffix: String::new(),
        closed: Vec::new(),
        limits: Limits {
            prompt: None,
            tokens: 24,
            time: None,
        },
        draws: Draws::GREEDY,
    };
    let mut written = Vec::new();
    for in_place in [false, true] {
        decoder.prefill(&prompt, 64, &Cancel::default()).unwrap();
        let mut lanes = match in_place {
            true => Lanes::in_place(&decoder, texts.clone()),
            false => Lanes::fork(&decoder, texts.clone(), 1).unwrap(),
        };
        while lanes
            .step(&model.tokenizer, &mut decoder, |_, text| written.push(text))
            .unwrap()
        {}
    }
    assert!(written[0].tokens > 2, "{written:?}");
    assert_eq!(written[0], written[1]);
}
