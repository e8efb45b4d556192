//! What a feature asks of the engine, and what it gets back.

use std::time::{Duration, Instant};

use super::EngineError;
use super::cancel::Cancel;
use super::sampler::Sampling;
use super::stop::{FinishReason, Scope};

/// What the model should write. It holds text only, because only the engine knows the model's
/// tokens and formats.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the model continues.
    pub input: Input,
    /// What else to show the model, the nearest first. The prompt holds as many as fit.
    pub parts: Vec<Part>,
    /// How much to write.
    pub scope: Scope,
    /// How long the prompt and a text may become.
    pub limits: Limits,
    /// How many texts, and how they are chosen.
    pub draws: Draws,
    /// Which requests it gives way to.
    pub priority: Priority,
    /// Ends it early.
    pub cancel: Cancel,
    /// Whether [`Event::Started`] carries the prompt's text.
    pub echo: bool,
}

/// What the model continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A text with a hole in it.
    Hole(Hole),
    /// The beginning of a file.
    Continue {
        /// The file's base name.
        file_name: String,
        /// How it begins. Only the last lines of a long text are used.
        text: String,
    },
    /// A conversation.
    Chat(Chat),
}

/// The text around the place where the model writes. Line ends are `\n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hole {
    /// The file's base name.
    pub file_name: String,
    /// The text before the hole, or its end.
    pub prefix: String,
    /// Where `prefix` begins in the file, in bytes.
    pub prefix_start: usize,
    /// Where the file has a byte that `prefix` lacks: offsets into `prefix`, ascending, one for each
    /// byte.
    pub dropped: Vec<usize>,
    /// The text after the hole, or its beginning.
    pub suffix: String,
    /// What is open at the hole and closed by the rest of its line: the closing quotes and brackets,
    /// the innermost first. A text that closes all of it is complete.
    pub closed: Vec<String>,
}

/// A conversation whose last answer the model writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chat {
    /// The system message.
    pub system: String,
    /// Questions with their answers, the nearest to this question first. The prompt holds as many
    /// as fit.
    pub examples: Vec<(String, String)>,
    /// The question.
    pub question: String,
    /// How the answer begins. The model is given it and does not write it again.
    pub answer: String,
}

/// A piece of another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The file's base name.
    pub file_name: String,
    /// The piece.
    pub text: String,
}

/// How long a prompt and a text may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of the prompt around a hole. `None`: as many as the engine reads in about a second.
    pub prompt: Option<usize>,
    /// Tokens written at most.
    pub tokens: usize,
    /// Time for writing, after the prompt has been read. `None`: as long as it takes.
    pub time: Option<Duration>,
}

/// How many texts are drawn from one prompt. The first is the likeliest; the others are sampled,
/// the same ones each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// How many, at least one.
    pub count: usize,
    /// The temperatures of the draws after the first, in percent, taken in turn.
    pub temperatures: &'static [u32],
}

impl Draws {
    /// The likeliest text alone.
    pub const GREEDY: Self = Self {
        count: 1,
        temperatures: &[],
    };

    /// How the tokens of draw `draw` are chosen.
    pub(super) fn sampling(&self, draw: usize) -> Sampling {
        match draw.checked_sub(1) {
            Some(drawn) if !self.temperatures.is_empty() => Sampling::TopP {
                temperature: self.temperatures[drawn % self.temperatures.len()] as f32 / 100.0,
                top_p: 0.95,
                seed: draw as u64,
            },
            _ => Sampling::Greedy,
        }
    }
}

/// Which request goes first. A run gives way to a higher one between two passes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Prepares for a likely request. Any other request drops it.
    Idle,
    /// A task. Tasks run one after the other.
    Task,
    /// The user has invoked a completion.
    Invoked,
    /// Typing has triggered one. Of the waiting ones only the newest is kept.
    Keystroke,
}

/// What a feature hears about its request, in this order. No event follows the last one.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt has been built; nothing has been read yet.
    Started(Started),
    /// The next piece of the text; of code in a fence, only whole lines. Not sent when several
    /// texts are drawn.
    Text(String),
    /// This draw is done.
    Drawn(usize, Generation),
    /// All draws are done. The last event.
    Finished(Stats),
    /// The request has failed. The last event.
    Failed(EngineError),
}

/// A prompt that has been built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// Tokens of the prompt.
    pub tokens: usize,
    /// Tokens of it that are in the cache already.
    pub reused: usize,
    /// How many parts or examples it holds.
    pub parts: usize,
    /// Its text with special tokens spelled out, if [`Request::echo`] is set.
    pub text: Option<String>,
}

/// What the model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The text, up to where it was stopped.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens the model wrote, including those that were cut off again.
    pub tokens: usize,
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
    /// Waiting in the queue.
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

/// The events of one request. Dropping them before the last one cancels it.
#[derive(Debug)]
pub struct Events {
    receiver: flume::Receiver<Event>,
    cancel: Cancel,
    ended: bool,
}

impl Events {
    /// Waits for the next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.recv_async().await.ok();
        self.note(&event);
        event
    }

    /// Waits for the next event on this thread, for at most `time`.
    ///
    /// # Errors
    ///
    /// When the time is up. `Ok(None)` after the last event.
    pub fn next_within(&mut self, time: Duration) -> Result<Option<Event>, Timeout> {
        let event = match self.receiver.recv_timeout(time) {
            Ok(event) => Some(event),
            Err(flume::RecvTimeoutError::Disconnected) => None,
            Err(flume::RecvTimeoutError::Timeout) => return Err(Timeout),
        };
        self.note(&event);
        Ok(event)
    }

    fn note(&mut self, event: &Option<Event>) {
        self.ended |= matches!(event, None | Some(Event::Finished(_) | Event::Failed(_)));
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel.cancel();
        }
    }
}

/// No event came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout;

/// A request in the engine, with the channel back to its submitter.
///
/// Law (exactly one answer): whatever happens to it, the last event is sent exactly once, even when
/// it is dropped.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) submitted: Instant,
    events: Option<flume::Sender<Event>>,
}

impl Job {
    /// A job for a request, and the events it will send.
    pub(super) fn new(request: Request) -> (Self, Events) {
        let (sender, receiver) = flume::unbounded();
        let cancel = request.cancel.clone();
        let job = Self {
            request,
            submitted: Instant::now(),
            events: Some(sender),
        };
        let events = Events {
            receiver,
            cancel,
            ended: false,
        };
        (job, events)
    }

    /// Sends an event that is not the last.
    pub(super) fn send(&self, event: Event) {
        if let Some(events) = &self.events {
            // The submitter may be gone, which has cancelled the request.
            let _ = events.send(event);
        }
    }

    /// Sends the last event.
    pub(super) fn end(mut self, result: Result<Stats, EngineError>) {
        self.last(result.map_or_else(Event::Failed, Event::Finished));
    }

    fn last(&mut self, event: Event) {
        self.send(event);
        self.events = None;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.last(Event::Failed(EngineError::Ended));
    }
}

/// About how many tokens a text has. Code has three to four bytes a token in the vocabularies of
/// today's models, so that this is seldom too low.
#[must_use]
pub fn likely_tokens(text: &str) -> usize {
    text.len().div_ceil(3)
}
