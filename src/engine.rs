//! The engine: a handle to the one thread that owns the model.
//!
//! [`Engine::submit`] is the only way in: a [`Request`] of text goes through the queue to the
//! thread, where a run builds the prompt, reads it into the decoder (keeping what the cache has)
//! and writes, one pass of the model at a time; [`Events`] come back. Nothing here knows about
//! editors, and nothing above knows about tokens.

pub mod cancel;
pub mod decoder;
pub mod lanes;
mod local;
mod pace;
pub mod prompt;
mod queue;
pub mod request;
mod run;
pub mod sampler;
#[cfg(test)]
pub(crate) mod scripted;
pub mod stop;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::download::Waiter;
use crate::model::{ForwardError, Model};
pub use local::CACHED_TOKENS;
use local::Worker;
use queue::Queue;
use request::{Events, Job, Request};

/// The longest completion, in tokens.
pub const MAX_NEW_TOKENS: usize = 512;

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

/// A loaded model, in names and figures.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The model's name.
    pub model: String,
    /// What runs the model, and why nothing better does it.
    pub runs_on: String,
    /// Why the model does not run on what the user asked for.
    pub warning: Option<String>,
    /// The format in which the model is given a text with a hole.
    pub prompt_format: String,
    /// Whether the model sees what comes after a hole.
    pub fills_holes: bool,
    /// The longest prompt of a completion, in tokens: as many as this machine reads in a second.
    pub prompt_tokens: usize,
    /// Prompt tokens of one pass: as many as this machine reads in the time a keystroke may wait.
    pub chunk_tokens: usize,
    /// How many texts are written in one batch.
    pub lanes: usize,
    /// How long an automatic completion may write unless the user has set a limit: the time of a
    /// line.
    pub line_time: Duration,
    /// Prompt tokens a second, as measured so far.
    pub prefill_speed: f64,
    /// Written tokens a second, as measured so far.
    pub decode_speed: f64,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// A newer request took its place.
    #[error("a newer request took its place")]
    Superseded,
    /// Its submitter cancelled it.
    #[error("cancelled")]
    Cancelled,
    /// The engine has ended, or never had a model.
    #[error("the engine has ended")]
    Ended,
    /// The prompt leaves no room for the answer.
    #[error(
        "the text is too long for the model: {prompt} tokens with its prompt, and {room} fit beside \
         the answer; select less"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that would fit.
        room: usize,
    },
    /// The model's chat template does not work.
    #[error("{0}")]
    Template(String),
    /// The model failed on it. The next request starts with an empty cache.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The request hit a bug.
    #[error("the engine panicked on the request; please report it with the log")]
    Panicked,
}

/// The handle to the inference thread. Dropping the last one ends the thread.
#[derive(Debug)]
pub struct Engine {
    queue: Arc<Queue>,
    state: watch::Receiver<EngineState>,
}

impl Engine {
    /// Starts the thread, which first loads the model with `load`. That may take its time; it
    /// reports what it does to the [`Waiter`] it is given, which wants the model until the engine
    /// is dropped.
    pub fn spawn<L, E>(load: L) -> Self
    where
        L: FnOnce(&mut dyn Waiter) -> Result<Model, E> + Send + 'static,
        E: std::fmt::Display,
    {
        let queue = Arc::new(Queue::default());
        let (sender, state) = watch::channel(EngineState::Loading("starting".to_owned()));
        let thread_queue = queue.clone();
        let thread = std::thread::Builder::new().name("inference".to_owned());
        let alive = Alive::new();
        let spawned = thread.spawn(move || {
            let _alive = alive;
            lower_priority();
            let start = Instant::now();
            let loaded = catch_unwind(AssertUnwindSafe(|| {
                let mut waiter = Loading(&sender, &thread_queue);
                let model = load(&mut waiter).map_err(|error| error.to_string())?;
                Worker::new(model).map_err(|error| error.to_string())
            }));
            let loaded = loaded.unwrap_or_else(|_| Err("loading the model panicked".to_owned()));
            match loaded {
                Ok(worker) => {
                    let ready = worker.ready();
                    tracing::info!(?ready, elapsed = ?start.elapsed(), "the model is ready");
                    sender.send_replace(EngineState::Ready(ready));
                    worker.run(&thread_queue, |ready| {
                        // The watchers of the state need not wake up for this.
                        sender.send_if_modified(|state| {
                            *state = EngineState::Ready(ready);
                            false
                        });
                    });
                }
                Err(problem) => {
                    tracing::error!("no model: {problem}");
                    // Waiting requests must not wait forever.
                    thread_queue.close();
                    sender.send_replace(EngineState::Failed(problem));
                }
            }
        });
        if let Err(error) = spawned {
            // The thread's end of the channel is gone, so the state stays what it is.
            tracing::error!(%error, "cannot start the inference thread");
            queue.close();
        }
        Self { queue, state }
    }

    /// Whether the engine can answer, now and later.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.state.clone()
    }

    /// Queues a request. Dropping the events cancels it.
    pub fn submit(&self, request: Request) -> Events {
        let (job, events) = Job::new(request);
        self.queue.submit(job);
        events
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// How many inference threads there are, and a signal when one ends.
static THREADS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// An inference thread, from before its start to its end.
struct Alive;

impl Alive {
    fn new() -> Self {
        *THREADS.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        *THREADS.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        THREADS.1.notify_all();
    }
}

/// Waits until the threads of all engines have ended, for at most `limit`. A thread ends after the
/// pass it is at when its engine is dropped. To be called at the end of `main`: a process that ends
/// while a thread frees a model on a GPU may crash.
pub fn wait_for_threads(limit: Duration) {
    let threads = THREADS.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever is still at work then, for example loading a model, is left alone.
    let _ = THREADS
        .1
        .wait_timeout_while(threads, limit, |alive| *alive > 0);
}

/// Publishes progress while the model is loaded.
struct Loading<'a>(&'a watch::Sender<EngineState>, &'a Queue);

impl Waiter for Loading<'_> {
    fn say(&mut self, what: &str) {
        self.0.send_replace(EngineState::Loading(what.to_owned()));
    }

    fn is_wanted(&self) -> bool {
        !self.1.is_closed()
    }
}

/// Lowers the calling thread's priority, and that of the threads it will start, which are ONNX
/// Runtime's: a keystroke that comes while the model writes must not wait for a core. With it the
/// slowest change of a burst was applied in 2.8 ms instead of 3.8 to 6 (`benches/server.rs`, two
/// cores, default model); while two other programs keep both cores busy, answers take 15 % longer.
///
/// Only on Linux does each thread have its own niceness.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(5) {
        tracing::debug!(%error, "the inference thread keeps its priority");
    }
}

#[cfg(test)]
mod tests;
