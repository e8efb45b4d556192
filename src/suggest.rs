//! From a snapshot to what is shown: the whole journey.

pub mod cache;
pub mod filters;
pub mod record;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::cancel::Cancel;
use crate::engine::generate::Limits;
use crate::engine::prompt::Hole;
use crate::engine::{Engine, EngineError, EngineState, Request, Stats};
use crate::server::settings::Config;
use crate::text::context::{Context, Trigger};
use crate::text::document::{Documents, Snapshot};
use crate::text::exclusion::Exclusion;
use cache::CompletionCache;
use filters::postprocess;
use record::{Acceptance, Outcome, Record, Records, Silence};

/// Texts drawn at an explicit request.
const CANDIDATES: usize = 3;

/// An explicit request may take this long, for the user waits for it.
const INVOKED_TIME: Duration = Duration::from_secs(3);

/// What is shown at the cursor, the best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completions {
    /// The request, for [`Completer::accept`].
    pub id: u64,
    /// The texts to insert at the cursor.
    pub texts: Vec<String>,
}

/// Answers requests for completions.
#[derive(Debug)]
pub struct Completer {
    documents: Arc<Documents>,
    settings: Mutex<Settings>,
    cache: Mutex<CompletionCache>,
    running: Mutex<HashMap<String, Cancel>>,
    records: Mutex<Records>,
}

/// What holds until the configuration changes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration.
    pub config: Arc<Config>,
    /// The files it excludes.
    pub exclusion: Arc<Exclusion>,
    /// The engine it leads to.
    pub engine: Arc<Engine>,
}

impl Settings {
    /// Whether anything may be shown in a document.
    ///
    /// # Errors
    ///
    /// The rule against it.
    pub fn permit(&self, snapshot: &Snapshot) -> Result<(), Silence> {
        if !self.config.enabled {
            return Err(Silence::Disabled(""));
        }
        let disabled = &self.config.disabled_languages;
        if disabled.iter().any(|name| **name == *snapshot.language_id) {
            return Err(Silence::Disabled(" for this language"));
        }
        match self.exclusion.of(&snapshot.path) {
            Some(pattern) => Err(Silence::Excluded(pattern.to_owned())),
            None if snapshot.out_of_step => Err(Silence::OutOfStep),
            None => Ok(()),
        }
    }
}

impl Completer {
    /// A completer for `documents`.
    #[must_use]
    pub fn new(documents: Arc<Documents>, settings: Settings) -> Self {
        Self {
            documents,
            settings: Mutex::new(settings),
            cache: Mutex::default(),
            running: Mutex::default(),
            records: Mutex::default(),
        }
    }

    /// Takes other settings, for the requests to come.
    pub fn configure(&self, settings: Settings) {
        *lock(&self.settings) = settings;
        lock(&self.cache).clear();
    }

    /// The settings that hold.
    #[must_use]
    pub fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// What to show at the snapshot's offset, or why to show nothing. Either way the request leaves
    /// one record, and if the future is dropped too.
    ///
    /// # Errors
    ///
    /// The reason for showing nothing.
    pub async fn complete(
        &self,
        snapshot: &Snapshot,
        trigger: Trigger,
    ) -> Result<Completions, Silence> {
        let mut ending = self.begin(snapshot.file_name(), Silence::Cancelled);
        let texts = self.texts(snapshot, trigger, &mut ending.record).await;
        // Law (no stale item).
        let current = self.documents.revision(&snapshot.uri) == Some(snapshot.revision);
        let texts = texts.and_then(|texts| current.then_some(texts).ok_or(Silence::Stale));
        if let Err(silence) = &texts {
            ending.record.outcome = Outcome::Silent(silence.clone());
        }
        let id = ending.record.id;
        texts.map(|texts| Completions { id, texts })
    }

    /// Leaves the record of a request about a document that the client has not opened.
    pub fn not_open(&self, file_name: String) {
        drop(self.begin(file_name, Silence::NotOpen));
    }

    /// Begins a request, which comes to `silence` if nothing else is said before it ends.
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
        record: &mut Record,
    ) -> Result<Vec<String>, Silence> {
        let settings = self.settings();
        let uri = &*snapshot.uri;
        // Law (exactly one answer): Neovim never cancels, so the newest request for a document ends
        // the one before it.
        let cancel = Cancel::default();
        if let Some(older) = lock(&self.running).insert(uri.to_owned(), cancel.clone()) {
            older.cancel();
        }
        settings.permit(snapshot)?;
        let context = Context::at(
            &snapshot.rope,
            snapshot.offset,
            &record.file_name,
            &snapshot.language_id,
            trigger,
        )?;
        if let Some(texts) = lock(&self.cache).get(uri, &context, trigger) {
            record.outcome = Outcome::TypedThrough(texts.len());
            return Ok(texts);
        }
        match &*settings.engine.state().borrow() {
            EngineState::Ready(_) => {}
            EngineState::Loading(what) => return Err(Silence::Loading(what.clone())),
            EngineState::Failed(problem) => return Err(Silence::NoModel(problem.clone())),
        }
        let request = Request {
            hole: Hole {
                file_name: context.file_name.clone(),
                prefix: context.prefix.clone(),
                prefix_start: context.prefix_start,
                suffix: context.suffix.clone(),
            },
            scope: context.scope,
            limits: limits(&settings.config, trigger),
            candidates: match trigger {
                Trigger::Automatic => 1,
                Trigger::Invoked => CANDIDATES,
            },
            cancel: cancel.clone(),
        };
        let response = settings
            .engine
            .generate(request)
            .await
            .map_err(|error| match error {
                EngineError::Superseded => Silence::Superseded,
                error => Silence::Failed(error.to_string()),
            })?;
        record.stats = response.stats;
        if cancel.is_cancelled() {
            return Err(Silence::Superseded);
        }
        let mut texts: Vec<String> = Vec::new();
        let mut dropped = None;
        for generation in response.generations {
            match postprocess(generation.text, &context) {
                Ok(text) if !texts.contains(&text) => texts.push(text),
                Ok(_) => {}
                Err(rule) => dropped = dropped.or(Some(rule)),
            }
        }
        if texts.is_empty() {
            return Err(Silence::Dropped(dropped.unwrap_or("it wrote nothing")));
        }
        lock(&self.cache).put(uri, &context, trigger, texts.clone());
        record.outcome = Outcome::Written(texts.len());
        Ok(texts)
    }

    /// Notes what the user did with what request `id` showed.
    pub fn accept(&self, id: u64, acceptance: Acceptance) {
        lock(&self.records).accept(id, acceptance);
    }

    /// Forgets a document that was closed, and ends its request.
    pub fn close(&self, uri: &str) {
        if let Some(cancel) = lock(&self.running).remove(uri) {
            cancel.cancel();
        }
    }

    /// The records of the latest requests, the latest first.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        lock(&self.records).iter().cloned().collect()
    }
}

/// Leaves the record when the request ends, in whatever way.
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

fn limits(config: &Config, trigger: Trigger) -> Limits {
    match trigger {
        Trigger::Automatic => Limits {
            max_new_tokens: config.max_new_tokens,
            time: Duration::from_millis(config.time_limit_ms),
        },
        Trigger::Invoked => Limits {
            max_new_tokens: 2 * config.max_new_tokens,
            time: INVOKED_TIME,
        },
    }
}

/// A panic elsewhere under a lock must not end every later request.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
