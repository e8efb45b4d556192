//! Work that the client hears of: what is in progress, how far it is, and its cancellation by the
//! user.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_lsp::Client;
use tower_lsp::jsonrpc::{Error, ErrorCode, Result};
use tower_lsp::ls_types::notification::Notification;
use tower_lsp::ls_types::{ProgressToken, WorkDoneProgressCancelParams};

use super::Server;
use crate::engine::cancel::Cancel;

/// The most tasks at once: edits and cancels need room among the handlers.
pub(super) const MAX_TASKS: usize = 32;

/// `$/progress`, with any value.
enum ProgressNotification {}

impl Notification for ProgressNotification {
    type Params = ProgressParams;
    const METHOD: &'static str = "$/progress";
}

/// See [`ProgressNotification`].
#[derive(Deserialize, Serialize)]
struct ProgressParams {
    token: ProgressToken,
    /// A `WorkDoneProgress`, or a piece of a text.
    value: Value,
}

/// The tasks in progress, and the tokens under which the client hears of them.
#[derive(Debug, Default)]
pub(super) struct Running {
    count: AtomicU64,
    tasks: Mutex<Vec<RunningTask>>,
}

#[derive(Debug)]
struct RunningTask {
    number: u64,
    token: Option<ProgressToken>,
    follows: Follows,
    cancel: Cancel,
}

/// What a task depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// The settings: it ends when those that it began with are no longer in force.
    Settings,
    /// Nothing: only the user ends it.
    Nothing,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Vec<RunningTask>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a task.
    ///
    /// # Errors
    ///
    /// If there are too many already.
    pub(super) fn begin(self: &Arc<Self>, cancel: &Cancel, follows: Follows) -> Result<Place> {
        let mut tasks = self.lock();
        if tasks.len() >= MAX_TASKS {
            return Err(failed(format!(
                "{MAX_TASKS} tasks are already in progress; let some end, or cancel them"
            )));
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        tasks.push(RunningTask {
            number,
            token: None,
            follows,
            cancel: cancel.clone(),
        });
        Ok(Place {
            running: self.clone(),
            number,
        })
    }

    /// Sets the token under which the client hears of a task.
    fn set_token(&self, number: u64, token: Option<ProgressToken>) {
        for task in &mut *self.lock() {
            if task.number == number {
                task.token.clone_from(&token);
            }
        }
    }

    /// Cancels the tasks that follow settings which are no longer in force.
    pub(super) fn settings_changed(&self) {
        for task in &*self.lock() {
            if task.follows == Follows::Settings {
                task.cancel.cancel();
            }
        }
    }
}

/// A task's place among those in progress, until it ends.
pub(super) struct Place {
    running: Arc<Running>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running
            .lock()
            .retain(|task| task.number != self.number);
    }
}

/// Reports a task's progress and, when dropped, its end, even if its handler is dropped.
pub(super) struct Reporter {
    client: Client,
    token: Option<ProgressToken>,
}

impl Reporter {
    pub(super) async fn report(&self, value: Value) {
        report(&self.client, self.token.clone(), value).await;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else {
            return;
        };
        let client = self.client.clone();
        tokio::spawn(async move { report(&client, Some(token), json!({ "kind": "end" })).await });
    }
}

/// Sends `value` under `token`, if there is one.
pub(super) async fn report(client: &Client, token: Option<ProgressToken>, value: Value) {
    if let Some(token) = token {
        let params = ProgressParams { token, value };
        client
            .send_notification::<ProgressNotification>(params)
            .await;
    }
}

impl Server {
    /// Begins to report progress, if the client asked for it or can be asked to show it.
    pub(super) async fn begin_progress(
        &self,
        token: Option<ProgressToken>,
        title: &str,
        place: &Place,
    ) -> Reporter {
        let mut reporter = Reporter {
            client: self.client.clone(),
            token,
        };
        if reporter.token.is_none()
            && self
                .session()
                .is_ok_and(|session| session.work_done_progress)
        {
            let token = ProgressToken::String(format!("interline/{}", place.number));
            let created = self.client.create_work_done_progress(token.clone()).await;
            reporter.token = created.is_ok().then_some(token);
        }
        self.running.set_token(place.number, reporter.token.clone());
        let title = format!("Interline: {title}");
        let begin =
            json!({ "kind": "begin", "title": title, "cancellable": true, "percentage": 0 });
        reporter.report(begin).await;
        reporter
    }

    /// `window/workDoneProgress/cancel`: the user cancels a task.
    pub(super) async fn cancel_progress(&self, params: WorkDoneProgressCancelParams) {
        for task in &*self.running.lock() {
            if task.token.as_ref() == Some(&params.token) {
                task.cancel.cancel();
            }
        }
    }
}

/// `RequestFailed`: the request was valid, but cannot be carried out.
pub(super) fn failed(problem: String) -> Error {
    Error {
        code: ErrorCode::ServerError(-32803),
        message: problem.into(),
        data: None,
    }
}
