//! The engine: a handle to the one thread that owns the model.
//!
//! A request goes through the [`Mailbox`] to the thread, which builds the prompt, reads it into the
//! decoder (keeping what the cache has), writes, and replies. Nothing here knows of editors.

pub mod cancel;
pub mod decoder;
pub mod generate;
pub mod lanes;
pub mod mailbox;
pub mod prompt;
pub mod sampler;
pub mod stop;
pub mod task;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::download::Waiter;
use crate::model::chat_template::ChatTemplate;
use crate::model::fim_template::FimTemplate;
use crate::model::tokenizer::Tokenizer;
use crate::model::{CausalLm, ForwardError, Model};
use cancel::Cancel;
use decoder::{Decoder, Prefill};
use generate::{Generation, Limits, Writer, generate};
use mailbox::{Mailbox, Next};
use prompt::{Hole, PromptBuilder};
use sampler::Sampling;
use stop::{Scope, StopCriteria};
use task::{Run, TASK_TOKENS, TaskEvent, TaskRequest};

/// The longest prompt, in tokens.
const PROMPT_TOKENS: usize = 1024;

/// The longest generation, in tokens.
pub const MAX_NEW_TOKENS: usize = 512;

/// A prompt is made to be read within this time when nothing of it is in the cache.
const PREFILL_TIME: Duration = Duration::from_secs(1);

/// What the model shall write.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where.
    pub hole: Hole,
    /// How much.
    pub scope: Scope,
    /// For how long.
    pub limits: Limits,
    /// How many different texts; the first is the likeliest, the others are drawn.
    pub candidates: usize,
    /// Ends it early.
    pub cancel: Cancel,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Response {
    /// The texts. None if the request was cancelled while its prompt was read.
    pub generations: Vec<Generation>,
    /// What it cost.
    pub stats: Stats,
}

/// What a request cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Prompt tokens that were in the cache.
    pub reused: usize,
    /// Prompt tokens that went through the model.
    pub computed: usize,
    /// Tokens the model wrote.
    pub generated: usize,
    /// In the mailbox.
    pub queued: Duration,
    /// Building the prompt.
    pub prompt: Duration,
    /// Reading the prompt.
    pub prefill: Duration,
    /// Writing.
    pub decode: Duration,
    /// The part of reading and writing that was spent in the model's forward passes.
    pub model: Duration,
}

/// Whether the engine can answer.
#[derive(Clone, Debug)]
pub enum EngineState {
    /// Not yet; the text says what it is doing.
    Loading(String),
    /// It can.
    Ready(Ready),
    /// It never will; the text says why and what to do.
    Failed(String),
}

/// A loaded model.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The model's name.
    pub model: String,
    /// The longest prompt, in tokens: what this machine reads in a second.
    pub prompt_tokens: usize,
    /// Prompt tokens a second, measured once after loading.
    pub prefill_speed: f64,
    /// Written tokens a second, measured once after loading.
    pub decode_speed: f64,
    /// The longest prompt and answer of a task together, in tokens.
    pub task_tokens: usize,
    /// What turns text into tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// The format of a text with a hole in it.
    pub fim: FimTemplate,
    /// The format of a conversation, if the model was taught one.
    pub chat: Option<Arc<ChatTemplate>>,
}

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A newer request took its place, or the engine ended.
    #[error("a newer request took its place")]
    Superseded,
    /// The model failed on it. The next request starts with an empty cache.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The request hit a bug.
    #[error("the engine panicked on the request; please report it with the log")]
    Panicked,
}

#[derive(Debug)]
struct Job {
    request: Request,
    put: Instant,
    reply: oneshot::Sender<Result<Response, EngineError>>,
}

#[derive(Debug)]
struct Task {
    request: TaskRequest,
    events: mpsc::Sender<TaskEvent>,
}

/// The handle to the inference thread. Dropping the last one ends the thread.
#[derive(Debug)]
pub struct Engine {
    mailbox: Arc<Mailbox<Job, Task>>,
    state: watch::Receiver<EngineState>,
}

impl Engine {
    /// Starts the thread, which loads the model first: `load` is called there and may take its time,
    /// saying what it does to the [`Waiter`] it is given, which wants it until the engine is dropped.
    pub fn spawn<M, L, E>(load: L) -> Self
    where
        M: CausalLm + 'static,
        L: FnOnce(&mut dyn Waiter) -> Result<Model<M>, E> + Send + 'static,
        E: std::fmt::Display,
    {
        let mailbox = Arc::new(Mailbox::default());
        let (sender, state) = watch::channel(EngineState::Loading("starting".to_owned()));
        let thread_mailbox = mailbox.clone();
        let thread = std::thread::Builder::new().name("inference".to_owned());
        let spawned = thread.spawn(move || {
            give_way();
            let mut loading = Loading(&sender, &thread_mailbox);
            let start = Instant::now();
            let loaded = catch_unwind(AssertUnwindSafe(|| {
                let model = load(&mut loading).map_err(|error| error.to_string())?;
                Worker::new(model).map_err(|error| error.to_string())
            }));
            let loaded = loaded.unwrap_or_else(|_| Err("loading the model panicked".to_owned()));
            match loaded {
                Ok((worker, ready)) => {
                    tracing::info!(ready.model, ready.prefill_speed, ready.decode_speed, elapsed = ?start.elapsed(), "the model is ready");
                    sender.send_replace(EngineState::Ready(ready));
                    worker.run(&thread_mailbox);
                }
                Err(problem) => {
                    tracing::error!("no model: {problem}");
                    // Who waits shall not wait for ever.
                    thread_mailbox.close();
                    sender.send_replace(EngineState::Failed(problem));
                }
            }
        });
        if let Err(error) = spawned {
            // The thread's end of the channel is gone, so the state stays what it is.
            tracing::error!(%error, "cannot start the inference thread");
            mailbox.close();
        }
        Self { mailbox, state }
    }

    /// Whether the engine can answer, now and later.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }

    /// Has the model write. A request that waits is superseded by this one; dropping the future
    /// cancels the request.
    ///
    /// # Errors
    ///
    /// See [`EngineError`].
    pub async fn generate(&self, request: Request) -> Result<Response, EngineError> {
        let cancel = request.cancel.on_drop();
        let (reply, response) = oneshot::channel();
        let job = Job {
            request,
            put: Instant::now(),
            reply,
        };
        drop(self.mailbox.put(job));
        let response = response.await;
        cancel.disarm();
        response.unwrap_or(Err(EngineError::Superseded))
    }

    /// Has the model write on request, after the tasks that wait already. It gives way to completions
    /// at each pass. What is answered tells what happens, and ends with the task, or with the engine.
    pub fn perform(&self, request: TaskRequest) -> mpsc::Receiver<TaskEvent> {
        let (events, told) = mpsc::channel();
        drop(self.mailbox.put_task(Task { request, events }));
        told
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

/// Tells the state while the model is loaded.
struct Loading<'a>(&'a watch::Sender<EngineState>, &'a Mailbox<Job, Task>);

impl Waiter for Loading<'_> {
    fn say(&mut self, what: &str) {
        let state = EngineState::Loading(what.to_owned());
        self.0.send_replace(state);
    }

    fn is_wanted(&self) -> bool {
        !self.1.is_closed()
    }
}

/// What the inference thread owns.
struct Worker<M: CausalLm> {
    model: Model<M>,
    decoder: Decoder<M>,
    prompts: PromptBuilder,
    prompt_tokens: usize,
    /// The tasks' own decoder, made at the first one.
    task_decoder: Option<Decoder<M>>,
}

impl<M: CausalLm> Worker<M> {
    /// Makes the cache and measures the model's speed, which also warms it up.
    fn new(mut model: Model<M>) -> Result<(Self, Ready), ForwardError> {
        let capacity = (PROMPT_TOKENS + MAX_NEW_TOKENS).min(model.context_length);
        let mut decoder = Decoder::new(&model.causal_lm, capacity)?;
        let (prefill_speed, decode_speed) = measure(&mut model, &mut decoder)?;
        let quarter = PROMPT_TOKENS / 4;
        let readable = (prefill_speed * PREFILL_TIME.as_secs_f64()) as usize;
        // In coarse steps, or two starts on one machine would see different amounts of a file.
        let prompt_tokens = (readable / quarter * quarter)
            .clamp(quarter, PROMPT_TOKENS)
            .min(capacity * 2 / 3);
        let ready = Ready {
            model: model.name.clone(),
            prompt_tokens,
            prefill_speed,
            decode_speed,
            task_tokens: TASK_TOKENS.min(model.context_length),
            tokenizer: model.tokenizer.clone(),
            fim: model.fim.clone(),
            chat: model.chat.clone(),
        };
        let worker = Self {
            model,
            decoder,
            prompts: PromptBuilder::default(),
            prompt_tokens,
            task_decoder: None,
        };
        Ok((worker, ready))
    }

    fn run(mut self, mailbox: &Mailbox<Job, Task>) {
        let mut task = None;
        loop {
            match mailbox.next(task.is_some()) {
                Next::Completion(job) => self.answer(job),
                Next::Task(Task { request, events }) => task = Some(Run::new(request, events)),
                Next::GoOn => task = task.and_then(|task| self.advance(task)),
                Next::End => return,
            }
        }
    }

    fn answer(&mut self, job: Job) {
        let queued = job.put.elapsed();
        // Law (cache truth): after a panic nobody knows what the cache holds.
        let response = catch_unwind(AssertUnwindSafe(|| self.respond(&job.request, queued)))
            .unwrap_or_else(|_| {
                tracing::error!(file = job.request.hole.file_name, "the engine panicked");
                self.decoder.truncate(0);
                Err(EngineError::Panicked)
            });
        // Whoever asked may be gone.
        let _ = job.reply.send(response);
    }

    /// Does one pass of a task, and answers the task if there is more of it to do.
    fn advance(&mut self, mut task: Run<M>) -> Option<Run<M>> {
        let advanced = catch_unwind(AssertUnwindSafe(|| {
            let capacity = TASK_TOKENS.min(self.model.context_length);
            let decoder = match &mut self.task_decoder {
                Some(decoder) => decoder,
                none => none.insert(Decoder::new(&self.model.causal_lm, capacity)?),
            };
            task.advance(&mut self.model, decoder)
        }));
        let error = match advanced {
            Ok(Ok(more)) => return more.then_some(task),
            Ok(Err(error)) => error.into(),
            Err(_) => {
                tracing::error!("the engine panicked at a task");
                EngineError::Panicked
            }
        };
        self.task_decoder = None;
        task.fail(error);
        None
    }

    fn respond(&mut self, request: &Request, queued: Duration) -> Result<Response, EngineError> {
        let mut stats = Stats {
            queued,
            ..Stats::default()
        };
        let mut generations = Vec::new();
        if request.cancel.is_cancelled() {
            return Ok(Response { generations, stats });
        }
        let Model { tokenizer, fim, .. } = &self.model;
        let (prompt, time) = timed(|| {
            self.prompts
                .build(tokenizer, fim, &request.hole, self.prompt_tokens)
        });
        stats.prompt = time;

        self.decoder.take_model_time();
        let (prefill, time) = timed(|| {
            self.decoder
                .prefill(&mut self.model.causal_lm, &prompt.ids, &request.cancel)
        });
        stats.prefill = time;
        let Prefill {
            reused,
            computed,
            complete,
        } = prefill?;
        (stats.reused, stats.computed) = (reused, computed);

        let start = Instant::now();
        let fork = (request.candidates > 1).then(|| self.decoder.logits().to_vec());
        for candidate in 0..request.candidates {
            if !complete || request.cancel.is_cancelled() {
                break;
            }
            // A fork of the prefill: the cache rewinds for nothing and only the logits were kept.
            if let (1.., Some(logits)) = (candidate, &fork) {
                self.decoder.rewind(prompt.ids.len(), logits);
            }
            let stop = StopCriteria::new(request.scope, &request.hole.suffix);
            let how = sampling(candidate);
            let writer = Writer::new(prompt.healed.clone(), how, stop, request.limits);
            let (model, decoder) = (&mut self.model, &mut self.decoder);
            let generation = generate(model, decoder, writer, &request.cancel)?;
            stats.generated += generation.tokens;
            if !generations
                .iter()
                .any(|other: &Generation| other.text == generation.text)
            {
                generations.push(generation);
            }
        }
        stats.decode = start.elapsed();
        stats.model = self.decoder.take_model_time();
        Ok(Response { generations, stats })
    }
}

/// Lowers the calling thread's priority, and that of the threads it will start, which are ONNX
/// Runtime's: a keystroke that comes while the model writes must not wait for a core. With it the
/// slowest change of a burst was applied in 2.8 ms instead of 3.8 to 6 (`benches/server.rs`, two cores);
/// while two other programs keep both cores busy, answers take 15 % longer.
///
/// Only on Linux is niceness a thread's own.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(5) {
        tracing::debug!(%error, "the inference thread keeps its priority");
    }
}

/// The first candidate is the likeliest; the same request draws the same others.
fn sampling(candidate: usize) -> Sampling {
    match candidate {
        0 => Sampling::Greedy,
        seed => Sampling::TopP {
            temperature: 0.8,
            top_p: 0.95,
            seed: seed as u64,
        },
    }
}

/// Prompt tokens and written tokens a second. The first pass of each kind also allocates, and is not
/// counted.
fn measure<M: CausalLm>(
    model: &mut Model<M>,
    decoder: &mut Decoder<M>,
) -> Result<(f64, f64), ForwardError> {
    const PROMPT: usize = 64;
    const STEPS: usize = 4;
    let cancel = Cancel::default();
    let lm = &mut model.causal_lm;
    // Any ids will do; their number is what costs. Ascending ones differ from each other.
    let ids: Vec<u32> = (0..2 * PROMPT as u32).collect();
    decoder.prefill(lm, &ids[..PROMPT], &cancel)?;
    let (done, prefill) = timed(|| decoder.prefill(lm, &ids, &cancel));
    done?;
    decoder.step(lm, 0)?;
    let (done, decode) = timed(|| (0..STEPS).try_for_each(|_| decoder.step(lm, 0)));
    done?;
    decoder.truncate(0);
    let speed = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    Ok((speed(PROMPT, prefill), speed(STEPS, decode)))
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;
    use crate::model::tests::{manifest, tokenizer};

    /// A model that writes what it is told, for counting passes and forcing errors.
    #[derive(Debug, Default)]
    pub(crate) struct Scripted {
        /// What it writes behind the middle marker, then the end token.
        pub(crate) says: Vec<u32>,
        /// The tokens of each pass.
        pub(crate) passes: Vec<usize>,
        /// Cancels after so many passes.
        pub(crate) cancel_after: Option<(usize, Cancel)>,
        /// Panics at the first pass with this token.
        pub(crate) panics_at: Option<u32>,
        /// Says that a pass begins, and waits for the word to go on, if the other end is there.
        gate: Option<(UnboundedSender<()>, mpsc::Receiver<()>)>,
    }

    /// The two ends with which a test holds a model: passes that have begun, and the word to go on,
    /// of which each pass takes one. Without the gate, the model goes on for ever.
    pub(crate) struct Gate {
        pub(crate) begun: UnboundedReceiver<()>,
        pub(crate) go_on: mpsc::Sender<()>,
    }

    impl Gate {
        pub(crate) fn before(model: &mut Model<Scripted>) -> Self {
            let (begun_sender, begun) = unbounded_channel();
            let (go_on, go_on_receiver) = mpsc::channel();
            model.causal_lm.gate = Some((begun_sender, go_on_receiver));
            Self { begun, go_on }
        }
    }

    /// An engine that is ready, and stands still at the first pass that belongs to a request.
    pub(crate) async fn gated(says: &str) -> (Engine, Gate) {
        let mut model = scripted(says);
        let mut gate = Gate::before(&mut model);
        let engine = Engine::spawn(move |_| Ok::<_, String>(model));
        let mut state = engine.state();
        let warm = state.wait_for(|state| !matches!(state, EngineState::Loading(_)));
        tokio::pin!(warm);
        loop {
            tokio::select! {
                state = &mut warm => {
                    assert!(matches!(*state.unwrap(), EngineState::Ready(_)));
                    break;
                }
                Some(()) = gate.begun.recv() => gate.go_on.send(()).unwrap(),
            }
        }
        (engine, gate)
    }

    /// What a scripted model keeps of its token sequences.
    #[derive(Debug)]
    pub(crate) struct ScriptedCache {
        lanes: Vec<Vec<u32>>,
        max_tokens: usize,
        /// Tokens of the prompt, where it was forked.
        prompt: Option<usize>,
    }

    impl Scripted {
        pub(crate) fn cached<'a>(&self, cache: &'a ScriptedCache) -> &'a [u32] {
            &cache.lanes[0]
        }
    }

    const MIDDLE: u32 = 10;

    impl CausalLm for Scripted {
        type Cache = ScriptedCache;

        fn vocabulary(&self) -> usize {
            tokenizer().len()
        }

        fn new_cache(&self, max_tokens: usize) -> Result<Self::Cache, ForwardError> {
            Ok(ScriptedCache {
                lanes: vec![Vec::new()],
                max_tokens,
                prompt: None,
            })
        }

        fn forward(
            &mut self,
            cache: &mut ScriptedCache,
            past: usize,
            tokens: &[u32],
            rows: usize,
            logits: &mut Vec<f32>,
        ) -> Result<(), ForwardError> {
            assert!(past <= cache.lanes[0].len() && rows == 1 && cache.lanes.len() == 1);
            self.pass(cache, &[past], tokens, logits)
        }

        fn fork(
            &self,
            cache: &ScriptedCache,
            len: usize,
            lanes: usize,
            max_tokens: usize,
        ) -> Result<ScriptedCache, ForwardError> {
            Ok(ScriptedCache {
                lanes: vec![cache.lanes[0][..len].to_vec(); lanes],
                max_tokens,
                prompt: Some(len),
            })
        }

        fn forward_lanes(
            &mut self,
            cache: &mut ScriptedCache,
            pasts: &[usize],
            tokens: &[u32],
            logits: &mut Vec<f32>,
        ) -> Result<(), ForwardError> {
            self.pass(cache, pasts, tokens, logits)
        }
    }

    impl Scripted {
        fn pass(
            &mut self,
            cache: &mut ScriptedCache,
            pasts: &[usize],
            tokens: &[u32],
            logits: &mut Vec<f32>,
        ) -> Result<(), ForwardError> {
            let ScriptedCache {
                lanes,
                max_tokens,
                prompt,
            } = cache;
            assert!(!tokens.is_empty() && lanes.len() == pasts.len());
            let length = tokens.len() / lanes.len();
            if pasts.iter().any(|past| past + length > *max_tokens) {
                return Err(ForwardError::Full(*max_tokens));
            }
            if self
                .panics_at
                .take_if(|token| tokens.contains(token))
                .is_some()
            {
                panic!("as told");
            }
            self.passes.push(tokens.len());
            if let Some((begun, go_on)) = &self.gate {
                // Closed ends mean that nobody wants to stop the model any more.
                let _ = begun.send(());
                let _ = go_on.recv();
            }
            if let Some((passes, cancel)) = &self.cancel_after
                && *passes == self.passes.len()
            {
                cancel.cancel();
            }
            logits.clear();
            let inputs = pasts.iter().zip(tokens.chunks(length));
            for (lane, (past, tokens)) in lanes.iter_mut().zip(inputs) {
                lane.truncate(*past);
                lane.extend_from_slice(tokens);
                let middle = lane.iter().rposition(|token| *token == MIDDLE);
                let begin = prompt.or(middle.map(|middle| middle + 1));
                let written = begin.map_or(0, |begin| lane.len() - begin);
                let row = logits.len();
                logits.resize(row + self.vocabulary(), 0.0);
                logits[row + self.says.get(written).copied().unwrap_or_default() as usize] = 1.0;
            }
            Ok(())
        }
    }

    pub(crate) fn scripted(says: &str) -> Model<Scripted> {
        let directory = crate::model::tests::directory();
        Model {
            name: "scripted".to_owned(),
            causal_lm: Scripted {
                says: tokenizer().encode(says),
                ..Scripted::default()
            },
            tokenizer: Arc::new(Tokenizer::load(&directory.join("tokenizer.json")).unwrap()),
            chat: None,
            fim: FimTemplate::resolve(tokenizer(), manifest().fim.as_ref()).unwrap(),
            context_length: 2048,
        }
    }

    #[test]
    fn a_model_is_wanted_until_the_engine_is_dropped() {
        let (loading, begun) = mpsc::channel();
        let (go_on, dropped) = mpsc::channel();
        let (sender, wanted) = mpsc::channel();
        let engine = Engine::spawn(move |waiter| {
            loading.send(waiter.is_wanted()).unwrap();
            let () = dropped.recv().unwrap();
            sender.send(waiter.is_wanted()).unwrap();
            Err::<Model<Scripted>, _>("no longer wanted")
        });
        assert!(begun.recv().unwrap());
        // Somebody may still listen to its state.
        let _state = engine.state();
        drop(engine);
        go_on.send(()).unwrap();
        assert!(!wanted.recv().unwrap());
    }
}
