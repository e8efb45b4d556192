//! The engine over a scripted model: the events of a request, whatever happens to it.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::cancel::Cancel;
use super::request::{Chat, Draws, Event, Events, Hole, Input, Limits, Part, Priority};
use super::scripted::{Gate, Scripted, gated, ready, scripted};
use super::stop::Scope;
use super::*;
use crate::model::tests::tokenizer;

fn request(input: Input, priority: Priority) -> Request {
    Request {
        input,
        parts: Vec::new(),
        scope: Scope::Text,
        limits: Limits {
            prompt: None,
            tokens: 8,
            time: None,
        },
        draws: Draws::GREEDY,
        priority,
        cancel: Cancel::default(),
        echo: false,
    }
}

fn question() -> Input {
    Input::Chat(Chat {
        question: "Say it.".to_owned(),
        ..Chat::default()
    })
}

fn task() -> Request {
    request(question(), Priority::Task)
}

fn hole(text: &str) -> Input {
    let (prefix, suffix) = text.split_once("$0").unwrap();
    Input::Hole(Hole {
        file_name: "a.py".to_owned(),
        prefix: prefix.to_owned(),
        suffix: suffix.to_owned(),
        ..Hole::default()
    })
}

fn keystroke(text: &str) -> Request {
    request(hole(text), Priority::Keystroke)
}

async fn all(mut events: Events) -> Vec<Event> {
    let mut heard = Vec::new();
    while let Some(event) = events.next().await {
        heard.push(event);
    }
    heard
}

fn show(events: &[Event]) -> String {
    let lines = events.iter().map(|event| match event {
        Event::Started(started) => format!("started: {} parts\n", started.parts),
        Event::Text(text) => format!("text {text:?}\n"),
        Event::Drawn(draw, generation) => format!(
            "draw {draw}: {:?}, {:?}\n",
            generation.text, generation.finish_reason
        ),
        Event::Finished(stats) => format!("finished: {} written\n", stats.generated),
        Event::Failed(error) => format!("failed: {error}\n"),
    });
    lines.collect()
}

async fn check(says: &str, request: Request, expected: Expect) {
    let (model, scripted) = scripted(says);
    let engine = ready(model, &scripted).await;
    expected.assert_eq(&show(&all(engine.submit(request)).await));
}

#[tokio::test]
async fn a_single_text_is_sent_as_it_grows() {
    let expected = expect![[r#"
        started: 0 parts
        text "one"
        text " two"
        draw 0: "one two", End
        finished: 2 written
    "#]];
    check("one two", task(), expected).await;
    let expected = expect![[r#"
        started: 0 parts
        text "b"
        text " ="
        text " "
        text "2"
        draw 0: "b = 2", End
        finished: 4 written
    "#]];
    check("b = 2", keystroke("a = 1\n$0\n"), expected).await;
}

#[tokio::test]
async fn code_in_a_fence_is_sent_in_whole_lines() {
    let fence = Request {
        scope: Scope::Fence,
        ..task()
    };
    let expected = expect![[r#"
        started: 0 parts
        text "a\n"
        draw 0: "a\n", Fence
        finished: 4 written
    "#]];
    check("a\n```\nb", fence, expected).await;
}

#[tokio::test]
async fn a_text_that_is_too_long_is_cut_short() {
    let short = Request {
        limits: Limits {
            prompt: None,
            tokens: 3,
            time: None,
        },
        ..task()
    };
    let expected = expect![[r#"
        started: 0 parts
        text "a"
        text " b"
        draw 0: "a b c", Length
        finished: 3 written
    "#]];
    check("a b c d e f", short, expected).await;
}

#[tokio::test]
async fn more_draws_than_lanes_come_one_after_the_other() {
    let (model, scripted) = scripted("a b");
    let engine = ready(model, &scripted).await;
    for priority in [Priority::Task, Priority::Invoked] {
        let many = Request {
            draws: Draws {
                count: 40,
                temperatures: &[10],
            },
            ..request(question(), priority)
        };
        let events = all(engine.submit(many)).await;
        let mut drawn: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Drawn(draw, generation) => {
                    assert_eq!(generation.text, "a b");
                    Some(*draw)
                }
                _ => None,
            })
            .collect();
        drawn.sort_unstable();
        assert_eq!(drawn, Vec::from_iter(0..40));
    }
}

#[tokio::test]
async fn empty_input_has_a_prompt_too() {
    for input in [
        hole("$0"),
        Input::Continue {
            file_name: String::new(),
            text: String::new(),
        },
        Input::Chat(Chat::default()),
    ] {
        let (model, scripted) = scripted("a");
        let engine = ready(model, &scripted).await;
        let heard = all(engine.submit(request(input, Priority::Task))).await;
        assert!(
            matches!(heard.last(), Some(Event::Finished(_))),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn parts_that_do_not_fit_are_left_out() {
    let part = |file_name: &str, lines: usize| Part {
        file_name: file_name.to_owned(),
        text: "value = 1\n".repeat(lines),
    };
    let shown = |parts| Request {
        parts,
        echo: true,
        ..keystroke("a = 1\n$0\n")
    };
    for (parts, expected) in [
        (vec![part("b.py", 3), part("a.py", 3)], 2),
        (vec![part("b.py", 3), part("a.py", 9000)], 1),
        (vec![part("a.py", 9000), part("b.py", 3)], 0),
    ] {
        let (model, scripted) = scripted("b");
        let engine = ready(model, &scripted).await;
        let heard = all(engine.submit(shown(parts))).await;
        let Event::Started(started) = &heard[0] else {
            panic!("{heard:?}");
        };
        assert_eq!(started.parts, expected);
        let text = started.text.as_deref().unwrap();
        let names: Vec<_> = text.split("<filename>").skip(1).collect();
        assert_eq!(names.len(), expected + 1, "{text}");
        // In the order of their names, the text with the hole last.
        assert!(names[expected].contains("a = 1"), "{text}");
        assert!(names[..expected].is_sorted(), "{text}");
        assert!(
            matches!(heard.last(), Some(Event::Finished(_))),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn a_question_that_does_not_fit_is_an_error() {
    let long = Input::Chat(Chat {
        question: "value ".repeat(3000),
        ..Chat::default()
    });
    let expected = expect![[r#"
        failed: the text is too long for the model: 3008 tokens with its prompt, and 2040 fit beside the answer; select less
    "#]];
    check("a", request(long, Priority::Task), expected).await;
}

#[tokio::test]
async fn examples_that_do_not_fit_are_left_out() {
    let example = |lines: usize| ("value = 1\n".repeat(lines), "It is.".to_owned());
    let chat = Input::Chat(Chat {
        question: "Say it.".to_owned(),
        examples: vec![example(3), example(9000), example(1)],
        ..Chat::default()
    });
    let expected = expect![[r#"
        started: 1 parts
        text "a"
        text " b"
        draw 0: "a b", End
        finished: 2 written
    "#]];
    check("a b", request(chat, Priority::Task), expected).await;
}

/// Where a request is when something happens to it.
#[derive(Clone, Copy, Debug)]
enum At {
    Reading,
    Writing,
}

/// A prompt of two chunks at least, so that there is a pass after the first one.
fn long_hole() -> Input {
    hole(&format!("{}$0\n", "value = 1\n".repeat(90)))
}

async fn cancelled(at: At, priority: Priority) {
    let request = request(long_hole(), priority);
    let cancel = request.cancel.clone();
    let (model, scripted) = scripted(&"b = 2 ".repeat(20));
    let engine = ready(model, &scripted).await;
    let gate = Gate::before(&scripted);
    let mut events = engine.submit(request);
    if let At::Writing = at {
        // The first pass that writes has one token.
        while scripted.script().passes.last() != Some(&1) {
            gate.begun.recv().await.unwrap();
            if scripted.script().passes.last() != Some(&1) {
                gate.go_on.send(()).unwrap();
            }
        }
    } else {
        gate.begun.recv().await.unwrap();
    }
    let before = scripted.script().passes.len();
    cancel.cancel();
    drop(gate);
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Failed(EngineError::Cancelled)), "{at:?}");
    assert_eq!(scripted.script().passes.len(), before, "{at:?}");
    served(&engine).await;
}

/// Checks that the next requests are served.
async fn served(engine: &Engine) {
    for request in [keystroke("a = 1\n$0\n"), task()] {
        let heard = all(engine.submit(request)).await;
        assert!(
            matches!(heard.last(), Some(Event::Finished(_))),
            "{heard:?}"
        );
    }
}

#[tokio::test]
async fn a_cancelled_request_ends_within_a_pass() {
    for priority in [Priority::Keystroke, Priority::Invoked, Priority::Task] {
        cancelled(At::Reading, priority).await;
        cancelled(At::Writing, priority).await;
    }
}

#[tokio::test]
async fn a_request_cancelled_before_it_begins_computes_nothing() {
    let (model, scripted) = scripted("a b");
    let engine = ready(model, &scripted).await;
    let request = task();
    request.cancel.cancel();
    let heard = all(engine.submit(request)).await;
    assert_eq!(heard, [Event::Failed(EngineError::Cancelled)]);
    assert_eq!(scripted.script().passes, [0; 0]);
    served(&engine).await;
}

#[tokio::test]
async fn dropping_the_events_cancels() {
    let (engine, gate) = gated(&"a b ".repeat(100)).await;
    let request = task();
    let cancel = request.cancel.clone();
    let events = engine.submit(request);
    gate.begun.recv().await.unwrap();
    drop(events);
    assert!(cancel.is_cancelled());
    drop(gate);
    served(&engine).await;
}

/// Breaks the model, and returns the events of the request.
async fn broken(request: Request, says: &str, breaks: impl Fn(&Scripted)) -> Vec<Event> {
    let (model, scripted) = scripted(says);
    let engine = ready(model, &scripted).await;
    breaks(&scripted);
    let heard = all(engine.submit(request)).await;
    served(&engine).await;
    heard
}

#[tokio::test]
async fn a_panic_or_a_failure_ends_one_request() {
    let reading = *tokenizer().encode("value").first().unwrap();
    let writing = *tokenizer().encode(" two").first().unwrap();
    let panicked = Event::Failed(EngineError::Panicked);
    let failed = Event::Failed(ForwardError::Runtime("as told".to_owned()).into());
    for token in [reading, writing] {
        for priority in [Priority::Keystroke, Priority::Invoked, Priority::Task] {
            let request = || request(long_hole(), priority);
            let heard = broken(request(), "one two", |model| {
                model.script().panics_at = Some(token)
            });
            assert_eq!(heard.await.last(), Some(&panicked));
            let heard = broken(request(), "one two", |model| {
                model.script().fails_at = Some(token)
            });
            assert_eq!(heard.await.last(), Some(&failed));
        }
    }
}

#[tokio::test]
async fn a_panic_while_the_prompt_is_built_ends_one_request() {
    // No caller makes such a hole: its offsets lie outside its text.
    let hole = Input::Hole(Hole {
        prefix: "value = 1\n".repeat(900),
        dropped: vec![usize::MAX; 3],
        ..Hole::default()
    });
    let heard = broken(request(hole, Priority::Keystroke), "a", |_| {}).await;
    assert_eq!(heard, [Event::Failed(EngineError::Panicked)]);
}

#[tokio::test]
async fn an_engine_that_ends_fails_its_requests() {
    let (engine, gate) = gated("a b").await;
    let (running, waiting) = (engine.submit(task()), engine.submit(task()));
    drop((engine, gate));
    for events in [running, waiting] {
        let heard = all(events).await;
        assert_eq!(heard.last(), Some(&Event::Failed(EngineError::Ended)));
    }
}

/// Law: a more urgent request runs between the passes of a less urgent one.
#[tokio::test]
async fn an_urgent_request_does_not_wait_for_a_less_urgent_one() {
    let order = [
        Priority::Idle,
        Priority::Task,
        Priority::Invoked,
        Priority::Keystroke,
    ];
    for (lower, higher) in order.iter().zip(&order[1..]) {
        let (engine, gate) = gated("a b c d e").await;
        let two = Draws {
            count: 2,
            temperatures: &[10],
        };
        let mut slow = engine.submit(Request {
            draws: two,
            ..request(long_hole(), *lower)
        });
        gate.begun.recv().await.unwrap();
        let mut urgent = engine.submit(request(hole("a = 1\n$0\n"), *higher));
        gate.go_on.send(()).unwrap();
        let mut heard = Vec::new();
        let last = loop {
            tokio::select! {
                event = urgent.next() => {
                    if let last @ (Event::Finished(_) | Event::Failed(_)) = event.unwrap() {
                        break last;
                    }
                }
                Some(event) = slow.next() => heard.push(event),
                _ = gate.begun.recv() => drop(gate.go_on.send(())),
            }
        };
        assert!(matches!(last, Event::Finished(_)), "{last:?}");
        assert!(!show(&heard).contains("draw"), "{higher:?}: {heard:?}");
        drop(gate);
        heard.extend(all(slow).await);
        let expected = match lower {
            Priority::Idle => "failed: a newer request took its place\n",
            _ => "draw 1: \"a b c d e\", End\nfinished: 10 written\n",
        };
        assert!(show(&heard).ends_with(expected), "{lower:?}: {heard:?}");
    }
}

#[test]
fn waiting_for_an_event_can_time_out() {
    let engine = Engine::spawn(|_| {
        std::thread::park();
        Err::<Model, _>("never")
    });
    let mut events = engine.submit(task());
    assert!(events.next_within(Duration::from_millis(1)).is_err());
}

#[test]
fn a_model_is_wanted_until_the_engine_is_dropped() {
    let (loading, begun) = std::sync::mpsc::channel();
    let (go_on, dropped) = std::sync::mpsc::channel();
    let (sender, wanted) = std::sync::mpsc::channel();
    let engine = Engine::spawn(move |waiter| {
        loading.send(waiter.is_wanted()).unwrap();
        let () = dropped.recv().unwrap();
        sender.send(waiter.is_wanted()).unwrap();
        Err::<Model, _>("no longer wanted")
    });
    assert!(begun.recv().unwrap());
    // Its state may still be watched.
    let _state = engine.state();
    drop(engine);
    go_on.send(()).unwrap();
    assert!(!wanted.recv().unwrap());
}
