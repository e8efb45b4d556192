//! From a snapshot to what is shown: the whole journey.

pub mod cache;
pub mod filters;
pub mod record;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::cancel::Cancel;
use crate::engine::request::{
    Draws, Event, Generation, Hole, Input, Limits, Priority, Request, Stats,
};
use crate::engine::{Engine, EngineError, EngineState, Ready};
use crate::text::closers::Closers;
use crate::text::context::{Context, Trigger};
use crate::text::document::{Documents, Snapshot};
use crate::text::exclusion::Exclusion;
use cache::CompletionCache;
use filters::filtered;
use record::{Acceptance, Outcome, Record, Records, Silence};

/// An invoked completion draws three texts.
const INVOKED: Draws = Draws {
    count: 3,
    temperatures: &[80],
};

/// An invoked completion may take this many times a line's time, or [`INVOKED_TIME`] if that is
/// longer, because the user is waiting for it.
const INVOKED_LINES: u32 = 4;

/// See [`INVOKED_LINES`].
const INVOKED_TIME: Duration = Duration::from_secs(3);

/// What is shown at the cursor, the best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completions {
    /// The id of the request, for [`Completer::accept`].
    pub id: u64,
    /// The texts to insert at the cursor.
    pub texts: Vec<String>,
}

/// Where an editor shows completions. It may ask for both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// After the cursor, in the text.
    Ghost,
    /// In the completion menu.
    Menu,
}

/// A request at work.
#[derive(Clone, Debug)]
struct AtWork {
    face: Face,
    trigger: Trigger,
    context: Arc<Context>,
    cancel: Cancel,
    /// Whether it asks the model; else it waits for one of the other face that does.
    leads: bool,
    answer: Arc<OnceLock<Result<Vec<String>, Silence>>>,
    /// Disconnected when the request has ended.
    ended: flume::Receiver<()>,
}

/// Answers requests for completions.
#[derive(Debug)]
pub struct Completer {
    documents: Arc<Documents>,
    settings: Mutex<Arc<Settings>>,
    cache: Mutex<CompletionCache>,
    running: Mutex<HashMap<String, Vec<AtWork>>>,
    records: Mutex<Records>,
}

/// The settings, which apply until they are replaced.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether anything is shown at all.
    pub enabled: bool,
    /// Languages, by the editor's identifier, in which nothing is shown.
    pub disabled_languages: Vec<String>,
    /// Files that are never shown to the model.
    pub exclusion: Arc<Exclusion>,
    /// Tokens of the prompt. `None`: as many as the engine reads in about a second.
    pub prompt_tokens: Option<usize>,
    /// The longest automatic completion, in tokens. An invoked one may be twice as long.
    pub max_new_tokens: usize,
    /// How long writing an automatic completion may take. `None`: a line's time, as the engine
    /// measured it.
    pub time_limit: Option<Duration>,
    /// The engine.
    pub engine: Arc<Engine>,
}

impl Settings {
    /// Whether anything may be shown in a document.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub fn permit(&self, snapshot: &Snapshot) -> Result<(), Silence> {
        if !self.enabled {
            return Err(Silence::Disabled(""));
        }
        let disabled = &self.disabled_languages;
        if disabled.iter().any(|name| **name == *snapshot.language_id) {
            return Err(Silence::Disabled(" for this language"));
        }
        self.readable(snapshot)
    }

    /// Whether the model may be shown a document.
    ///
    /// # Errors
    ///
    /// The reason why not.
    pub fn readable(&self, snapshot: &Snapshot) -> Result<(), Silence> {
        match self.exclusion.of(&snapshot.path) {
            Some(pattern) => Err(Silence::Excluded(pattern.to_owned())),
            None if snapshot.out_of_step => Err(Silence::OutOfStep),
            None => Ok(()),
        }
    }

    fn limits(&self, trigger: Trigger, ready: &Ready) -> Limits {
        match trigger {
            Trigger::Automatic => Limits {
                prompt: self.prompt_tokens,
                tokens: self.max_new_tokens,
                time: Some(self.time_limit.unwrap_or(ready.line_time)),
            },
            Trigger::Invoked => Limits {
                prompt: self.prompt_tokens,
                tokens: 2 * self.max_new_tokens,
                time: Some(INVOKED_TIME.max(INVOKED_LINES * ready.line_time)),
            },
        }
    }
}

impl Completer {
    /// A completer for `documents`.
    #[must_use]
    pub fn new(documents: Arc<Documents>, settings: Settings) -> Self {
        Self {
            documents,
            settings: Mutex::new(Arc::new(settings)),
            cache: Mutex::default(),
            running: Mutex::default(),
            records: Mutex::default(),
        }
    }

    /// Replaces the settings. Running requests are cancelled, because their results would follow
    /// the old ones.
    pub fn configure(&self, settings: Settings) {
        *lock(&self.settings) = Arc::new(settings);
        for (_, running) in lock(&self.running).drain() {
            running.iter().for_each(|it| it.cancel.cancel());
        }
        lock(&self.cache).clear();
    }

    /// Replaces the engine, and nothing else of the settings. What the one before it still writes is
    /// not shown.
    pub fn use_engine(&self, engine: Arc<Engine>) {
        let settings = Settings::clone(&self.settings());
        self.configure(Settings { engine, ..settings });
    }

    /// The current settings.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        lock(&self.settings).clone()
    }

    /// What to show on `face` at the snapshot's offset, or why to show nothing. Either way the request
    /// leaves one record, even if the future is dropped.
    ///
    /// # Errors
    ///
    /// The reason for showing nothing.
    pub async fn complete(
        &self,
        snapshot: &Snapshot,
        trigger: Trigger,
        face: Face,
    ) -> Result<Completions, Silence> {
        let mut ending = self.begin(snapshot.file_name(), Silence::Cancelled);
        let texts = self
            .texts(snapshot, trigger, face, &mut ending.record)
            .await;
        // Law (no stale item).
        let current = self.documents.revision(&snapshot.uri) == Some(snapshot.revision);
        let texts = texts.and_then(|texts| current.then_some(texts).ok_or(Silence::Stale));
        if let Err(silence) = &texts {
            ending.record.outcome = Outcome::Silent(silence.clone());
        }
        let id = ending.record.id;
        texts.map(|texts| Completions { id, texts })
    }

    /// Records a request about a document that the client has not opened.
    pub fn not_open(&self, file_name: String) {
        drop(self.begin(file_name, Silence::NotOpen));
    }

    /// Begins a request, whose outcome is `silence` unless another is set before it ends.
    fn begin(&self, file_name: String, silence: Silence) -> Ending<'_> {
        Ending {
            completer: self,
            start: Instant::now(),
            record: Record {
                id: lock(&self.records).begin(),
                file_name,
                outcome: Outcome::Silent(silence),
                stats: Stats::default(),
                total: Duration::ZERO,
                acceptance: None,
            },
        }
    }

    async fn texts(
        &self,
        snapshot: &Snapshot,
        trigger: Trigger,
        face: Face,
        record: &mut Record,
    ) -> Result<Vec<String>, Silence> {
        let settings = self.settings();
        let context = settings.permit(snapshot).and_then(|()| {
            let shown = snapshot.shown();
            let (rope, language_id) = (&shown.rope, &snapshot.language_id);
            Context::at(rope, shown.offset, &shown.file_name, language_id, trigger)
                .map_err(Into::into)
        });
        let context = Arc::new(context.inspect_err(|_| self.close(&snapshot.uri))?);
        let turn = self.turn(snapshot, face, trigger, &context);
        if let Some(texts) = lock(&self.cache).get(&snapshot.uri, &context, trigger) {
            record.outcome = Outcome::TypedThrough(texts.len());
            return Ok(texts);
        }
        while let Some(other) = turn.other() {
            // It sends nothing, and disconnects at its end.
            let _ = other.ended.recv_async().await;
            if turn.cancel.is_cancelled() {
                return Err(Silence::Superseded);
            }
            match other.answer.get() {
                Some(Err(silence)) if silence.is_undecided() => {}
                None => {}
                Some(Ok(texts)) => {
                    record.outcome = Outcome::TypedThrough(texts.len());
                    return Ok(texts.clone());
                }
                Some(Err(silence)) => return Err(silence.clone()),
            }
        }
        let answer = self
            .written(
                &settings,
                snapshot,
                &context,
                trigger,
                turn.cancel.clone(),
                record,
            )
            .await;
        // Set once: the turn is this request's own.
        let _ = turn.answer.set(answer.clone());
        answer
    }

    /// Begins a request at work. Law (exactly one answer): Neovim never cancels, so the newest
    /// request for a document ends those before it, except one of the other face at the same place.
    fn turn(
        &self,
        snapshot: &Snapshot,
        face: Face,
        trigger: Trigger,
        context: &Arc<Context>,
    ) -> Turn<'_> {
        let (sender, ended) = flume::bounded(0);
        let turn = Turn {
            completer: self,
            uri: snapshot.uri.to_string(),
            face,
            trigger,
            cancel: Cancel::default(),
            answer: Arc::default(),
            _ends: sender,
        };
        let mut running = lock(&self.running);
        let running = running.entry(turn.uri.clone()).or_default();
        running.retain(|it| {
            let stays = it.face != face && it.context == *context;
            if !stays {
                it.cancel.cancel();
            }
            stays
        });
        running.push(AtWork {
            face,
            trigger,
            context: context.clone(),
            cancel: turn.cancel.clone(),
            leads: false,
            answer: turn.answer.clone(),
            ended,
        });
        turn
    }

    /// What the model writes, filtered.
    async fn written(
        &self,
        settings: &Arc<Settings>,
        snapshot: &Snapshot,
        context: &Context,
        trigger: Trigger,
        cancel: Cancel,
        record: &mut Record,
    ) -> Result<Vec<String>, Silence> {
        let ready = match &*settings.engine.state().borrow() {
            EngineState::Ready(ready) => ready.clone(),
            EngineState::Loading(what) => return Err(Silence::Loading(what.clone())),
            EngineState::Failed(problem) => return Err(Silence::NoModel(problem.clone())),
        };
        let closers = Closers::at(&snapshot.rope, snapshot.offset, &snapshot.language_id);
        let request = Request {
            input: Input::Hole(Hole {
                file_name: context.file_name.clone(),
                prefix: context.prefix.clone(),
                prefix_start: context.prefix_start,
                dropped: context.dropped.clone(),
                suffix: context.suffix.clone(),
                closed: closers.closed().to_vec(),
            }),
            parts: Vec::new(),
            scope: context.scope,
            limits: settings.limits(trigger, &ready),
            draws: match trigger {
                Trigger::Automatic => Draws::GREEDY,
                Trigger::Invoked => INVOKED,
            },
            priority: match trigger {
                Trigger::Automatic => Priority::Keystroke,
                Trigger::Invoked => Priority::Invoked,
            },
            cancel,
            echo: false,
        };
        let generations = self.generations(settings, request, record).await?;
        let mut texts: Vec<String> = Vec::new();
        let mut dropped = None;
        for generation in generations {
            match filtered(generation.text, context, &closers) {
                Ok(text) if !texts.contains(&text) => texts.push(text),
                Ok(_) => {}
                Err(rule) => dropped = dropped.or(Some(rule)),
            }
        }
        if texts.is_empty() {
            return Err(Silence::Dropped(
                dropped.unwrap_or("the model wrote nothing"),
            ));
        }
        lock(&self.cache).put(&snapshot.uri, context, trigger, texts.clone());
        record.outcome = Outcome::Written(texts.len());
        Ok(texts)
    }

    /// What the model writes, in the order of its draws.
    async fn generations(
        &self,
        settings: &Arc<Settings>,
        request: Request,
        record: &mut Record,
    ) -> Result<Vec<Generation>, Silence> {
        let cancel = request.cancel.clone();
        // If they are dropped with this future, the request is cancelled.
        let mut events = settings.engine.submit(request);
        let mut drawn = Vec::new();
        let ended = loop {
            match events.next().await {
                Some(Event::Drawn(draw, generation)) => drawn.push((draw, generation)),
                Some(Event::Finished(stats)) => break Ok(stats),
                Some(Event::Failed(error)) => break Err(error),
                Some(Event::Started(_) | Event::Text(_)) => {}
                None => break Err(EngineError::Ended),
            }
        };
        if !Arc::ptr_eq(settings, &self.settings()) {
            return Err(Silence::Reconfigured);
        }
        record.stats = ended.map_err(|error| match error {
            EngineError::Superseded | EngineError::Cancelled => Silence::Superseded,
            error => Silence::Failed(error.to_string()),
        })?;
        if cancel.is_cancelled() {
            return Err(Silence::Superseded);
        }
        drawn.sort_by_key(|(draw, _)| *draw);
        Ok(drawn
            .into_iter()
            .map(|(_, generation)| generation)
            .collect())
    }

    /// Records what the user did with what request `id` showed.
    pub fn accept(&self, id: u64, acceptance: Acceptance) {
        lock(&self.records).accept(id, acceptance);
    }

    /// Cancels the running requests of a document, as when it is closed.
    pub fn close(&self, uri: &str) {
        let running = lock(&self.running).remove(uri);
        running.iter().flatten().for_each(|it| it.cancel.cancel());
    }

    /// The records of the latest requests, the latest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        lock(&self.records).iter().cloned().collect()
    }
}

/// A request's place among those at work, until it is dropped.
struct Turn<'a> {
    completer: &'a Completer,
    uri: String,
    face: Face,
    trigger: Trigger,
    cancel: Cancel,
    answer: Arc<OnceLock<Result<Vec<String>, Silence>>>,
    /// Dropping it says that the request has ended.
    _ends: flume::Sender<()>,
}

impl Turn<'_> {
    /// The request of the other face at the same place that asks the model for as much as this one.
    /// If there is none, this one asks.
    fn other(&self) -> Option<AtWork> {
        let mut running = lock(&self.completer.running);
        let running = running.get_mut(&self.uri)?;
        let other = running.iter().find(|it| {
            let enough = it.trigger == self.trigger || it.trigger == Trigger::Invoked;
            it.face != self.face && it.leads && enough
        });
        if let Some(other) = other {
            return Some(other.clone());
        }
        let own = running.iter_mut().find(|it| self.is(it));
        if let Some(own) = own {
            own.leads = true;
        }
        None
    }

    fn is(&self, other: &AtWork) -> bool {
        Arc::ptr_eq(&self.answer, &other.answer)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut running = lock(&self.completer.running);
        if let Some(others) = running.get_mut(&self.uri) {
            others.retain(|it| !self.is(it));
            if others.is_empty() {
                running.remove(&self.uri);
            }
        }
    }
}

/// Keeps the record when the request ends, however it ends.
struct Ending<'a> {
    completer: &'a Completer,
    start: Instant,
    record: Record,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.record.total = self.start.elapsed();
        lock(&self.completer.records).end(self.record.clone());
    }
}

/// A panic elsewhere under a lock must not fail every later request.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
