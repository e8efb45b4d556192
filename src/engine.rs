//! The engine: a handle to the one thread that owns the model.
//!
//! A request goes through the [`Mailbox`] to the thread, which builds the prompt, reads it into the
//! decoder (keeping what the cache has), writes, and replies. Nothing here knows of editors.

pub mod cancel;
pub mod decoder;
pub mod generate;
pub mod mailbox;
pub mod prompt;
pub mod sampler;
pub mod stop;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::model::{CausalLm, ForwardError, Model};
use cancel::Cancel;
use decoder::{Decoder, Prefill};
use generate::{Generation, Limits, generate};
use mailbox::Mailbox;
use prompt::{Hole, PromptBuilder};
use sampler::{Sampler, Sampling};
use stop::{Scope, StopCriteria};

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
#[derive(Clone, Debug, PartialEq)]
pub enum EngineState {
    /// Not yet; the text says what it is doing.
    Loading(String),
    /// It can.
    Ready(Ready),
    /// It never will; the text says why and what to do.
    Failed(String),
}

/// A loaded model.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// The model's name.
    pub model: String,
    /// The longest prompt, in tokens: what this machine reads in a second.
    pub prompt_tokens: usize,
    /// Prompt tokens a second, measured once after loading.
    pub prefill_speed: f64,
    /// Written tokens a second, measured once after loading.
    pub decode_speed: f64,
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

/// The handle to the inference thread. Dropping the last one ends the thread.
#[derive(Debug)]
pub struct Engine {
    mailbox: Arc<Mailbox<Job>>,
    state: watch::Receiver<EngineState>,
}

impl Engine {
    /// Starts the thread, which loads the model first: `load` is called there and may take its time,
    /// saying what it does through the function it is given.
    pub fn spawn<M, L, E>(load: L) -> Self
    where
        M: CausalLm + 'static,
        L: FnOnce(&mut dyn FnMut(&str)) -> Result<Model<M>, E> + Send + 'static,
        E: std::fmt::Display,
    {
        let mailbox = Arc::new(Mailbox::default());
        let (sender, state) = watch::channel(EngineState::Loading("starting".to_owned()));
        let thread_mailbox = mailbox.clone();
        let thread = std::thread::Builder::new().name("inference".to_owned());
        let spawned = thread.spawn(move || {
            give_way();
            let mut say = |what: &str| {
                sender.send_replace(EngineState::Loading(what.to_owned()));
            };
            let start = Instant::now();
            let loaded = catch_unwind(AssertUnwindSafe(|| {
                let model = load(&mut say).map_err(|error| error.to_string())?;
                Worker::new(model).map_err(|error| error.to_string())
            }));
            let loaded = loaded.unwrap_or_else(|_| Err("loading the model panicked".to_owned()));
            match loaded {
                Ok((worker, ready)) => {
                    tracing::info!(?ready, elapsed = ?start.elapsed(), "the model is ready");
                    sender.send_replace(EngineState::Ready(ready));
                    worker.run(&thread_mailbox);
                }
                Err(problem) => {
                    tracing::error!("no model: {problem}");
                    // Who waits shall not wait for ever.
                    drop(thread_mailbox.close());
                    sender.send_replace(EngineState::Failed(problem));
                }
            }
        });
        if let Err(error) = spawned {
            // The thread's end of the channel is gone, so the state stays what it is.
            tracing::error!(%error, "cannot start the inference thread");
            drop(mailbox.close());
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
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.mailbox.close());
    }
}

/// What the inference thread owns.
struct Worker<M: CausalLm> {
    model: Model<M>,
    decoder: Decoder<M>,
    prompts: PromptBuilder,
    prompt_tokens: usize,
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
        };
        let worker = Self {
            model,
            decoder,
            prompts: PromptBuilder::default(),
            prompt_tokens,
        };
        Ok((worker, ready))
    }

    fn run(mut self, mailbox: &Mailbox<Job>) {
        while let Some(job) = mailbox.take() {
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
            let generation = generate(
                &mut self.model,
                &mut self.decoder,
                &prompt.healed,
                &mut Sampler::new(sampling(candidate)),
                StopCriteria::new(request.scope, &request.hole.suffix),
                request.limits,
                &request.cancel,
            )?;
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
    use std::sync::mpsc;

    use tokio::sync::mpsc::UnboundedSender;

    use super::*;
    use crate::model::fim_template::FimTemplate;
    use crate::model::tests::{manifest, tokenizer};
    use crate::model::tokenizer::Tokenizer;

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
        pub(crate) gate: Option<(UnboundedSender<()>, mpsc::Receiver<()>)>,
    }

    impl Scripted {
        pub(crate) fn cached<'a>(&self, cache: &'a (Vec<u32>, usize)) -> &'a [u32] {
            &cache.0
        }
    }

    const MIDDLE: u32 = 10;

    impl CausalLm for Scripted {
        /// The tokens and how many fit.
        type Cache = (Vec<u32>, usize);

        fn vocabulary(&self) -> usize {
            tokenizer().len()
        }

        fn new_cache(&self, max_tokens: usize) -> Result<Self::Cache, ForwardError> {
            Ok((Vec::new(), max_tokens))
        }

        fn forward(
            &mut self,
            (cache, max_tokens): &mut Self::Cache,
            past: usize,
            tokens: &[u32],
            rows: usize,
            logits: &mut Vec<f32>,
        ) -> Result<(), ForwardError> {
            assert!(past <= cache.len() && rows == 1 && !tokens.is_empty());
            if past + tokens.len() > *max_tokens {
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
            cache.truncate(past);
            cache.extend_from_slice(tokens);
            let middle = cache.iter().rposition(|token| *token == MIDDLE);
            let written = middle.map_or(0, |middle| cache.len() - 1 - middle);
            logits.clear();
            logits.resize(self.vocabulary(), 0.0);
            logits[self.says.get(written).copied().unwrap_or_default() as usize] = 1.0;
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
            tokenizer: Tokenizer::load(&directory.join("tokenizer.json")).unwrap(),
            fim: FimTemplate::resolve(tokenizer(), manifest().fim.as_ref()).unwrap(),
            context_length: 2048,
        }
    }
}
