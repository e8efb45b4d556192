//! The commands about models: which there are, getting one, and taking one into use.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tower_lsp::jsonrpc::{Error, Result};
use tower_lsp::ls_types::ProgressToken;

use super::Server;
use super::progress::{Follows, failed};
use super::switch::Chosen;
use crate::download::hub::Hub;
use crate::download::{self, Waiter};
use crate::engine::cancel::Cancel;
use crate::model::catalogue::DEFAULT;
use crate::model::choice;
use crate::model::overview::{Whereabouts, overview};
use crate::model::store::name::Name;
use crate::model::store::pull::Wanted;
use crate::model::store::{Store, StoreError};
use crate::tasks::desk::HEARD;

/// The models that this server pulls.
#[derive(Debug, Default)]
pub(super) struct Pulling {
    /// Each with what cancels its pull.
    models: Mutex<Vec<(Name, Cancel)>>,
    /// A pull has ended.
    ended: Condvar,
}

impl Pulling {
    /// Registers a pull. One that was cancelled ends with its next bytes, and is waited for. `None`
    /// if the model is being pulled already, or if this pull is cancelled meanwhile.
    fn begin(self: &Arc<Self>, name: &Name, cancel: &Cancel) -> Option<Pull> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, other)) = models.iter().find(|(other, _)| other == name) {
            if !other.is_cancelled() || cancel.is_cancelled() {
                return None;
            }
            let waited = self.ended.wait_timeout(models, HEARD);
            (models, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        models.push((name.clone(), cancel.clone()));
        Some(Pull(self.clone(), name.clone()))
    }
}

/// A pull, until it is dropped.
struct Pull(Arc<Pulling>, Name);

impl Drop for Pull {
    fn drop(&mut self) {
        let Self(pulling, name) = self;
        let mut models = pulling
            .models
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        models.retain(|(other, _)| other != name);
        pulling.ended.notify_all();
    }
}

impl Server {
    fn store(&self) -> Result<&Store> {
        let none = || failed(StoreError::NoHome.to_string());
        self.store.as_ref().ok_or_else(none)
    }

    /// The models that can be pulled and those that are here.
    pub(super) async fn models(&self) -> Result<Option<Value>> {
        let in_use = self.session()?.switch.in_use();
        let store = self.store()?.clone();
        let known = tokio::task::spawn_blocking(move || overview(&store)).await;
        let known = known.map_err(|_| Error::internal_error())?;
        let known = known.map_err(|problem| failed(problem.to_string()))?;
        let shown = known.iter().map(|known| {
            json!({
                "name": known.name.as_str(),
                "about": known.about,
                "license": known.license,
                "sizeBytes": known.size,
                "memoryBytes": known.memory,
                "score": known.score,
                "here": known.whereabouts == Whereabouts::Here,
                "inUse": known.name.as_str() == in_use,
                "recommended": known.recommended,
            })
        });
        Ok(Some(shown.collect()))
    }

    /// Takes a model into use. It is kept as the user's choice once it serves.
    pub(super) async fn use_model(&self, name: &Name) -> Result<Option<Value>> {
        let store = self.store()?;
        choice::named(store, name).map_err(|problem| failed(problem.to_string()))?;
        let options = {
            let configured = self.lock_configured();
            let named = configured.options.model.as_deref();
            if let Some(named) = named.filter(|named| *named != Path::new(name.as_str())) {
                return Err(failed(format!(
                    "the setting `model` or --model names {}, and goes first; remove it there to \
                     use {name}",
                    named.display()
                )));
            }
            configured.options.engine(Some(name))
        };
        let session = self.session()?;
        let served = session.switch.ask(options).await;
        served.map_err(|problem| failed(format!("{name} cannot be used: {problem}")))?;
        self.lock_configured().in_use = Some(name.clone());
        let (store, taken) = (store.clone(), name.clone());
        let keep = move || {
            store.take_into_use(&taken)?;
            Ok(Chosen::in_store(&store))
        };
        let kept: std::result::Result<_, StoreError> = tokio::task::spawn_blocking(keep)
            .await
            .map_err(|_| Error::internal_error())?;
        let kept =
            kept.map_err(|problem| failed(format!("{name} is in use here only: {problem}")))?;
        session.switch.saw(kept);
        Ok(Some(json!({ "name": name.as_str() })))
    }

    /// Pulls a model, on a thread of its own. What has come stays when it is cancelled.
    pub(super) async fn pull_model(
        &self,
        what: String,
        token: Option<ProgressToken>,
    ) -> Result<Option<Value>> {
        if what == DEFAULT {
            return Ok(Some(json!({ "name": what })));
        }
        let store = self.store()?.clone();
        if self.lock_configured().options.offline.unwrap_or_default() {
            return Err(failed(format!(
                "{what} cannot be pulled while the setting `offline` or --offline forbids downloads; \
                 remove it, and pull again"
            )));
        }
        let cancel = Cancel::default();
        let place = self.running.begin(&cancel, Follows::Nothing)?;
        let _guard = cancel.on_drop();
        let progress = self
            .begin_progress(token, &format!("pull {what}"), &place)
            .await;
        let (sender, mut updates) = unbounded_channel();
        let (ended, mut end) = oneshot::channel();
        let mut waiter = Reports::new(sender, cancel.clone());
        let (pulling, own) = (self.pulling.clone(), cancel.clone());
        let mut work = move || {
            let hub = Hub::of_environment();
            let wanted = Wanted::named(&what, &hub).map_err(|problem| problem.to_string())?;
            let name = &wanted.name;
            let Some(_pull) = pulling.begin(name, &own) else {
                return Err(format!("{name} is being pulled already"));
            };
            let pulled = store.pull(&wanted, &download::pythons(), &mut waiter);
            pulled.map_err(|problem| problem.to_string())?;
            Ok(name.clone())
        };
        let thread = std::thread::Builder::new().name("pull".to_owned());
        let thread = thread.spawn(move || {
            // The handler may have been dropped.
            let _ = ended.send(work());
        });
        thread.map_err(|problem| failed(format!("cannot start a thread: {problem}")))?;
        let pulled = loop {
            tokio::select! {
                biased;
                update = updates.recv() => match update {
                    Some(value) => progress.report(value).await,
                    None => break (&mut end).await,
                },
                // A server that sends nothing is not waited for.
                () = tokio::time::sleep(HEARD) => {}
            }
            if cancel.is_cancelled() {
                return Err(Error::request_cancelled());
            }
        };
        drop(progress);
        let name = pulled
            .map_err(|_| Error::internal_error())?
            .map_err(failed)?;
        Ok(Some(json!({ "name": name.as_str() })))
    }
}

/// The share of a pull that is its download, in percent. The import is the rest.
const DOWNLOAD: u64 = 90;

/// How often progress is reported, at most.
const OFTEN: Duration = Duration::from_millis(200);

/// Reports what a pull does as the values of `$/progress`.
struct Reports {
    sender: UnboundedSender<Value>,
    cancel: Cancel,
    /// Whether the download has ended, and the import begun.
    importing: bool,
    percentage: u64,
    last: Option<Instant>,
}

impl Reports {
    const fn new(sender: UnboundedSender<Value>, cancel: Cancel) -> Self {
        Self {
            sender,
            cancel,
            importing: false,
            percentage: 0,
            last: None,
        }
    }

    fn send(&self, message: &str) {
        let report = json!({
            "kind": "report", "percentage": self.percentage, "message": message,
        });
        // The handler may have been dropped.
        let _ = self.sender.send(report);
    }
}

impl Waiter for Reports {
    fn say(&mut self, what: &str) {
        self.send(what);
    }

    fn part(&mut self, what: &str) {
        self.importing = true;
        self.last = None;
        self.send(what);
    }

    fn progress(&mut self, done: u64, total: u64) {
        if self.last.is_some_and(|last| last.elapsed() < OFTEN) {
            return;
        }
        self.last = Some(Instant::now());
        let (start, share, doing) = match self.importing {
            false => (0, DOWNLOAD, ""),
            true => (DOWNLOAD, 100 - DOWNLOAD, "importing, "),
        };
        let part = done.saturating_mul(share).checked_div(total).unwrap_or(0);
        // It never falls, even if a file starts anew.
        self.percentage = self.percentage.max(start + part.min(share));
        let megabytes = |bytes: u64| bytes.saturating_add(500_000) / 1_000_000;
        let (done, total) = (megabytes(done), megabytes(total));
        self.send(&format!("{doing}{done} of {total} MB"));
    }

    fn is_wanted(&self) -> bool {
        !self.cancel.is_cancelled()
    }
}
