//! What the model writes on request, beside completions: a prompt as it is, and one text or several.

use std::sync::mpsc;
use std::time::Duration;

use super::EngineError;
use super::cancel::Cancel;
use super::decoder::Decoder;
use super::generate::{Generation, Limits};
use super::lanes::Lanes;
use super::sampler::Sampling;
use super::stop::Scope;
use crate::model::{CausalLm, ForwardError, Model};

/// The longest prompt and answer together, in tokens.
pub const TASK_TOKENS: usize = 2048;

/// Texts written at once: with more, a completion would wait too long for the pass at hand.
const LANES: usize = 16;

/// Tokens of all lanes together: with the default model 46 KB each.
const LANE_TOKENS: usize = 8192;

/// What the model shall write.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    /// What it goes on from.
    pub prompt: Vec<u32>,
    /// What the model must write first, and is not part of the text.
    pub healed: Vec<u8>,
    /// The tokens that end a text.
    pub end: Vec<u32>,
    /// How much.
    pub scope: Scope,
    /// Tokens at most, a text.
    pub max_new_tokens: usize,
    /// How to choose the tokens, a text each.
    pub draws: Vec<Sampling>,
    /// Ends it early.
    pub cancel: Cancel,
}

/// What happens to a task. The channel closes when there is no more to say.
#[derive(Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// The one text goes on with this; of code in a fence only whole lines are told.
    Text(String),
    /// This draw is done.
    Drawn(usize, Generation),
    /// There will be no more.
    Failed(EngineError),
}

/// A task at work: each [`advance`](Self::advance) is one pass of the model, so that completions come
/// between.
#[derive(Debug)]
pub(super) struct Run<M: CausalLm> {
    request: TaskRequest,
    events: mpsc::Sender<TaskEvent>,
    stage: Stage<M>,
}

#[derive(Debug)]
enum Stage<M: CausalLm> {
    Begin,
    Read,
    Write { lanes: Lanes<M>, told: usize },
}

impl<M: CausalLm> Run<M> {
    /// `events` are told what happens. When their other end is gone, so is the task.
    pub(super) fn new(request: TaskRequest, events: mpsc::Sender<TaskEvent>) -> Self {
        Self {
            request,
            events,
            stage: Stage::Begin,
        }
    }

    /// Does one pass. Answers whether there is more to do.
    pub(super) fn advance(
        &mut self,
        model: &mut Model<M>,
        decoder: &mut Decoder<M>,
    ) -> Result<bool, ForwardError> {
        let Self {
            request,
            events,
            stage,
        } = self;
        let prompt = &request.prompt;
        let tell = |event| {
            if events.send(event).is_err() {
                request.cancel.cancel();
            }
        };
        match stage {
            Stage::Begin => {
                decoder.keep(prompt);
                *stage = Stage::Read;
            }
            Stage::Read if request.cancel.is_cancelled() => return Ok(false),
            Stage::Read if decoder.tokens().len() < prompt.len() => {
                decoder.read(&mut model.causal_lm, prompt)?;
            }
            Stage::Read => {
                let draws = std::mem::take(&mut request.draws);
                let limits = Limits {
                    max_new_tokens: request.max_new_tokens,
                    time: Duration::MAX,
                };
                let healed = request.healed.clone();
                let tokens = prompt.len() + request.max_new_tokens;
                let most = (LANE_TOKENS / tokens).clamp(1, LANES);
                let (lm, scope) = (&model.causal_lm, request.scope);
                let lanes = Lanes::fork(lm, decoder, draws, most, healed, scope, limits)?;
                *stage = Stage::Write { lanes, told: 0 };
            }
            Stage::Write { lanes, told } => {
                let more =
                    lanes.step(model, &request.end, &request.cancel, |draw, generation| {
                        tell(TaskEvent::Drawn(draw, generation));
                    })?;
                if !more {
                    return Ok(false);
                }
                let text = lanes.text();
                let end = match request.scope {
                    Scope::Fence => text.rfind('\n').map_or(0, |line| line + 1),
                    _ => text.len(),
                };
                if lanes.is_single() && end > *told {
                    tell(TaskEvent::Text(text[*told..end].to_owned()));
                    *told = end;
                }
            }
        }
        Ok(true)
    }

    /// Tells that the task has failed.
    pub(super) fn fail(self, error: EngineError) {
        // Whoever asked may be gone.
        let _ = self.events.send(TaskEvent::Failed(error));
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::engine::stop::FinishReason;
    use crate::engine::tests::{Gate, Scripted, gated, scripted};
    use crate::engine::{Engine, EngineState, Request};
    use crate::model::tests::tokenizer;

    fn request(draws: usize) -> TaskRequest {
        TaskRequest {
            prompt: tokenizer().encode("Say it."),
            healed: Vec::new(),
            end: vec![0],
            scope: Scope::Text,
            max_new_tokens: 8,
            draws: vec![Sampling::Greedy; draws],
            cancel: Cancel::default(),
        }
    }

    fn start(model: Model<Scripted>) -> Engine {
        let engine = Engine::spawn(move |_| Ok::<_, String>(model));
        while matches!(*engine.state().borrow(), EngineState::Loading(_)) {
            std::thread::yield_now();
        }
        engine
    }

    fn show(events: impl IntoIterator<Item = TaskEvent>) -> String {
        let lines = events.into_iter().map(|event| match event {
            TaskEvent::Text(text) => format!("text {text:?}\n"),
            TaskEvent::Drawn(
                draw,
                Generation {
                    text,
                    finish_reason,
                    ..
                },
            ) => {
                format!("draw {draw}: {text:?}, {finish_reason:?}\n")
            }
            TaskEvent::Failed(error) => format!("failed: {error}\n"),
        });
        lines.collect()
    }

    fn check(says: &str, request: TaskRequest, expected: Expect) {
        let engine = start(scripted(says));
        expected.assert_eq(&show(engine.perform(request)));
    }

    #[test]
    fn one_text_is_told_as_it_grows() {
        check(
            "one two",
            request(1),
            expect![[r#"
            text "one"
            text " two"
            draw 0: "one two", End
        "#]],
        );
    }

    #[test]
    fn of_code_in_a_fence_whole_lines_are_told() {
        let fence = TaskRequest {
            scope: Scope::Fence,
            ..request(1)
        };
        check(
            "a\n```\nb",
            fence,
            expect![[r#"
            text "a\n"
            draw 0: "a\n", Fence
        "#]],
        );
    }

    #[test]
    fn what_is_too_long_is_cut_short() {
        check(
            "a b c d e f g h i j k",
            request(1),
            expect![[r#"
            text "a"
            text " b"
            text " c"
            text " d"
            text " e"
            text " f"
            text " g"
            draw 0: "a b c d e f g h", Length
        "#]],
        );
    }

    #[test]
    fn more_draws_than_lanes_come_one_after_the_other() {
        let engine = start(scripted("a b"));
        let told = engine.perform(request(2 * LANES + 1));
        let drawn: Vec<_> = told
            .into_iter()
            .filter_map(|event| match event {
                TaskEvent::Drawn(draw, generation) => {
                    assert_eq!(generation.text, "a b");
                    Some(draw)
                }
                _ => None,
            })
            .collect();
        assert_eq!(drawn, Vec::from_iter(0..2 * LANES + 1));
    }

    #[test]
    fn a_cancelled_task_ends_within_a_pass() {
        let request = request(1);
        let mut model = scripted("a b c d e");
        // Four passes measure the speed.
        model.causal_lm.cancel_after = Some((9, request.cancel.clone()));
        let engine = start(model);
        let told = engine.perform(request);
        expect![[r#"
            text "a"
            draw 0: "a b", Cancelled
        "#]]
        .assert_eq(&show(told));
    }

    #[test]
    fn a_panic_fails_the_task_and_not_the_next() {
        let mut model = scripted("a b");
        model.causal_lm.panics_at = Some(tokenizer().encode("Say it.")[0]);
        let engine = start(model);
        let told = engine.perform(request(1));
        expect![[r#"
            failed: the engine panicked on the request; please report it with the log
        "#]]
        .assert_eq(&show(told));
        assert!(show(engine.perform(request(1))).ends_with("draw 0: \"a b\", End\n"));
    }

    #[test]
    fn an_engine_that_ends_closes_the_channel() {
        let mut model = scripted("a b");
        let gate = Gate::before(&mut model);
        let engine = Engine::spawn(move |_| Ok::<_, String>(model));
        let told = engine.perform(request(1));
        drop((engine, gate));
        assert_eq!(show(told), "");
    }

    /// Law: a completion comes between a task's passes.
    #[tokio::test]
    async fn a_completion_does_not_wait_for_a_task() {
        let (engine, mut gate) = gated("a b c d e").await;
        let mut told = Vec::new();
        let events = engine.perform(request(1));
        let completion = engine.generate(Request {
            hole: crate::engine::prompt::Hole::default(),
            scope: Scope::Line,
            limits: Limits {
                max_new_tokens: 2,
                time: Duration::MAX,
            },
            candidates: 1,
            cancel: Cancel::default(),
        });
        tokio::pin!(completion);
        let response = loop {
            tokio::select! {
                response = &mut completion => break response.unwrap(),
                _ = gate.begun.recv() => drop(gate.go_on.send(())),
            }
            told.extend(events.try_iter());
        };
        assert_eq!(response.generations[0].finish_reason, FinishReason::Length);
        drop(gate);
        let before = show(told);
        assert!(!before.contains("draw"), "{before}");
        assert!(show(events).ends_with("draw 0: \"a b c d e\", End\n"));
    }
}
