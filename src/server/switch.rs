//! Which engine serves, and which one is to take its place.
//!
//! While another model is loaded, the one before it goes on answering. The new one takes its place
//! when it is ready; if it fails, the one before it stays. Of two switches, the later one counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tower_lsp::Client;
use tower_lsp::ls_types::MessageType;

use super::progress::Running;
use super::settings::EngineOptions;
use super::status::{DidChangeStatus, Kind, Status};
use super::{Configured, StartEngine};
use crate::engine::{Engine, EngineState};
use crate::model::catalogue::DEFAULT;
use crate::model::store::Store;
use crate::model::store::name::Name;
use crate::suggest::Completer;
use crate::suggest::record::Silence;

/// How often to look whether the user has chosen another model. A small file is read each time:
/// nothing beside a keystroke, and it works on file systems that report no changes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Who asks for an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The settings. Clients send them right after the start, so an engine that is still loading
    /// gives way at once.
    Settings,
    /// The user's choice in the store. If it cannot be loaded and nothing else serves, the default
    /// does.
    Choice,
    /// A command, whose answer tells the user how it ended.
    Command,
}

/// The engines of a server, and what the client is told of them.
pub(super) struct Switch {
    client: Client,
    start: StartEngine,
    running: Arc<Running>,
    completer: Arc<Completer>,
    engines: Mutex<Engines>,
    /// The status that the client was last sent for the current file, if nothing is ever shown in it.
    inactive: Mutex<Option<Status>>,
    /// What the user had chosen in the store when it was last looked at.
    seen: Mutex<Option<Chosen>>,
}

struct Engines {
    serving: Started,
    next: Option<Started>,
    /// How many were started.
    count: u64,
}

/// An engine that was started.
struct Started {
    number: u64,
    by: By,
    options: EngineOptions,
    engine: Arc<Engine>,
    /// Why the user's choice, in whose place this one serves, does not.
    instead: Option<String>,
    /// How the start ended. `None` until then.
    outcome: watch::Sender<Option<Result<(), String>>>,
}

impl Started {
    fn new(number: u64, by: By, options: EngineOptions, engine: Arc<Engine>) -> Self {
        Self {
            number,
            by,
            options,
            engine,
            instead: None,
            outcome: watch::Sender::new(None),
        }
    }

    fn state(&self) -> EngineState {
        self.engine.state().borrow().clone()
    }

    fn status(&self) -> Status {
        let mut status = Status::from(&self.state());
        if let Some(instead) = self
            .instead
            .as_ref()
            .filter(|_| status.kind == Kind::Normal)
        {
            status.message = format!("{}; {instead}", status.message);
            status.kind = Kind::Warning;
        }
        status
    }
}

/// Where an engine stands.
enum Place {
    Serving,
    Next,
    /// Another one has taken its place.
    Gone,
}

impl Engines {
    fn place(&self, number: u64) -> Place {
        match &self.next {
            _ if self.serving.number == number => Place::Serving,
            Some(next) if next.number == number => Place::Next,
            _ => Place::Gone,
        }
    }
}

impl Switch {
    /// Begins with an engine that was started with these options, and which the completer uses.
    pub(super) fn begin(
        client: Client,
        start: StartEngine,
        running: Arc<Running>,
        completer: Arc<Completer>,
        options: EngineOptions,
        by: By,
    ) -> Arc<Self> {
        let engine = completer.settings().engine.clone();
        let switch = Arc::new(Self {
            client,
            start,
            running,
            completer,
            engines: Mutex::new(Engines {
                serving: Started::new(0, by, options, engine.clone()),
                next: None,
                count: 0,
            }),
            inactive: Mutex::default(),
            seen: Mutex::default(),
        });
        switch.follow(0, &engine);
        switch
    }

    fn lock(&self) -> MutexGuard<'_, Engines> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine that serves.
    pub(super) fn engine(&self) -> Arc<Engine> {
        self.lock().serving.engine.clone()
    }

    /// The name or the folder of the model that serves.
    pub(super) fn in_use(&self) -> String {
        self.lock().serving.options.model().into_owned()
    }

    /// Starts the engine that these options ask for, unless it serves or is about to. It takes the
    /// place of the one that serves when it is ready.
    pub(super) fn to(
        self: &Arc<Self>,
        options: EngineOptions,
        by: By,
    ) -> watch::Receiver<Option<Result<(), String>>> {
        let mut engines = self.lock();
        let state = engines.serving.state();
        let failed = matches!(state, EngineState::Failed(_));
        if engines.serving.options == options && !failed {
            let outcome = engines.serving.outcome.subscribe();
            if engines.next.take().is_some() {
                self.tell_soon();
            }
            return outcome;
        }
        if let Some(next) = &engines.next
            && next.options == options
        {
            return next.outcome.subscribe();
        }
        engines.count += 1;
        let engine = (self.start)(&options);
        let started = Started::new(engines.count, by, options, engine.clone());
        let outcome = started.outcome.subscribe();
        self.follow(started.number, &engine);
        let loading = matches!(state, EngineState::Loading(_));
        if failed || (loading && by == By::Settings) {
            self.put(&mut engines, started);
            engines.next = None;
        } else {
            engines.next = Some(started);
        }
        outcome
    }

    /// As [`to`](Self::to), and returns once the engine serves. If the future is dropped before, the
    /// switch is undone.
    ///
    /// # Errors
    ///
    /// Why it does not serve.
    pub(super) async fn ask(self: &Arc<Self>, options: EngineOptions) -> Result<(), String> {
        let mut outcome = self.to(options.clone(), By::Command);
        let _undo = Undo(self, options);
        let ended = outcome.wait_for(Option::is_some).await;
        let ended = ended.ok().and_then(|ended| ended.clone());
        ended.unwrap_or_else(|| Err("another model was chosen meanwhile".to_owned()))
    }

    /// Lets an engine serve from now on. The one before it ends with its last task.
    fn put(&self, engines: &mut Engines, started: Started) {
        if !matches!(engines.serving.state(), EngineState::Ready(_)) {
            // They wait for an engine that will not be ready any more.
            self.running.settings_changed();
        }
        self.completer.use_engine(started.engine.clone());
        engines.serving = started;
    }

    /// Follows an engine until it is ready or has failed.
    fn follow(self: &Arc<Self>, number: u64, engine: &Arc<Engine>) {
        // Its thread ends with the last handle to it.
        let switch = Arc::downgrade(self);
        let mut state = engine.state();
        tokio::spawn(async move {
            loop {
                let now = state.borrow_and_update().clone();
                let Some(switch) = switch.upgrade() else {
                    return;
                };
                if !switch.advance(number, now).await {
                    return;
                }
                drop(switch);
                if state.changed().await.is_err() {
                    break;
                }
            }
            if let Some(switch) = switch.upgrade() {
                let ended = EngineState::Failed("the engine could not be started".to_owned());
                switch.advance(number, ended).await;
            }
        });
    }

    /// Does what follows from the state of an engine. Returns whether there is more to come.
    async fn advance(self: &Arc<Self>, number: u64, state: EngineState) -> bool {
        let place = self.lock().place(number);
        match (place, state) {
            (Place::Gone, _) => return false,
            (_, EngineState::Loading(_)) => {
                self.tell().await;
                return true;
            }
            (_, EngineState::Ready(_)) => self.ready(number).await,
            (Place::Next, EngineState::Failed(problem)) => self.keep(number, problem).await,
            (Place::Serving, EngineState::Failed(problem)) => self.failed(number, problem).await,
        }
        false
    }

    async fn ready(&self, number: u64) {
        let instead = {
            let mut engines = self.lock();
            if let Some(next) = engines.next.take_if(|next| next.number == number) {
                self.put(&mut engines, next);
            }
            let serving = &engines.serving;
            if serving.number != number {
                return;
            }
            serving.outcome.send_replace(Some(Ok(())));
            serving.instead.clone()
        };
        self.tell().await;
        if let Some(instead) = instead {
            let warning = format!("Interline uses {DEFAULT}: {instead}");
            self.show(MessageType::WARNING, warning).await;
        }
    }

    /// The one that was to serve has failed; the one that serves stays.
    async fn keep(&self, number: u64, problem: String) {
        let (message, by) = {
            let mut engines = self.lock();
            let Some(next) = engines.next.take_if(|next| next.number == number) else {
                return;
            };
            let (new, old) = (next.options.model(), engines.serving.options.model());
            let message = format!("{old} stays in use, because {new} cannot be used: {problem}");
            let by = next.by;
            next.outcome.send_replace(Some(Err(problem)));
            (message, by)
        };
        let status = Status {
            busy: false,
            message: message.clone(),
            kind: Kind::Warning,
        };
        self.client
            .send_notification::<DidChangeStatus>(status)
            .await;
        if by != By::Command {
            let warning = format!("Interline: {message}");
            self.show(MessageType::WARNING, warning).await;
        }
    }

    /// The one that serves has failed. Where it is the user's choice, the default serves instead.
    async fn failed(self: &Arc<Self>, number: u64, problem: String) {
        let by = {
            let mut engines = self.lock();
            let serving = &engines.serving;
            if serving.number != number {
                return;
            }
            serving.outcome.send_replace(Some(Err(problem.clone())));
            let by = serving.by;
            if by == By::Choice && serving.options.model.is_some() {
                let instead = format!("{} cannot be used: {problem}", serving.options.model());
                let options = EngineOptions {
                    model: None,
                    ..serving.options.clone()
                };
                engines.count += 1;
                let engine = (self.start)(&options);
                let mut started = Started::new(engines.count, By::Settings, options, engine);
                started.instead = Some(instead);
                self.follow(started.number, &started.engine);
                self.put(&mut engines, started);
                return;
            }
            by
        };
        self.tell().await;
        if by != By::Command {
            // Few editors show the status, but the user must see this.
            let problem = format!("Interline cannot complete: {problem}");
            self.show(MessageType::ERROR, problem).await;
        }
    }

    async fn show(&self, kind: MessageType, message: String) {
        self.client.show_message(kind, message).await;
    }

    /// What the client should know of the engines.
    fn status(&self) -> Status {
        let engines = self.lock();
        let Some(next) = &engines.next else {
            return engines.serving.status();
        };
        let doing = match next.state() {
            EngineState::Loading(what) => what,
            _ => "loaded".to_owned(),
        };
        Status {
            busy: true,
            message: format!("switching to {}: {doing}", next.options.model()),
            kind: Kind::Normal,
        }
    }

    /// Tells the client the status.
    async fn tell(&self) {
        let status = self.status();
        // A model that serves changes nothing in a file in which it is not used.
        let off = self.lock_inactive().clone();
        let off = off.filter(|_| !status.busy && status.kind != Kind::Error);
        self.client
            .send_notification::<DidChangeStatus>(off.unwrap_or(status))
            .await;
    }

    fn tell_soon(self: &Arc<Self>) {
        let switch = self.clone();
        tokio::spawn(async move { switch.tell().await });
    }

    fn lock_inactive(&self) -> MutexGuard<'_, Option<Status>> {
        self.inactive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the client when the current file becomes one in which nothing is ever shown, and when it
    /// no longer is one.
    pub(super) async fn file_status(&self, silence: Option<&Silence>) {
        let inactive = silence.and_then(Status::inactive);
        let status = {
            let mut last = self.lock_inactive();
            if *last == inactive {
                return;
            }
            last.clone_from(&inactive);
            inactive.unwrap_or_else(|| self.status())
        };
        self.client
            .send_notification::<DidChangeStatus>(status)
            .await;
    }

    /// Keeps what the user has chosen in the store. Returns whether that is new: a choice that this
    /// server has made itself is not, and must not undo what the user has asked for since.
    pub(super) fn saw(&self, chosen: Chosen) -> bool {
        let chosen = Some(chosen);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *seen != chosen;
        *seen = chosen;
        is_new
    }

    /// Follows the user's choice in the store, which was `seen`, until the server ends. It counts where
    /// the settings name no model.
    pub(super) fn watch(
        self: &Arc<Self>,
        store: Store,
        seen: Chosen,
        configured: Arc<Mutex<Configured>>,
    ) {
        self.saw(seen);
        let switch = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let store = store.clone();
                let Ok(now) = tokio::task::spawn_blocking(move || Chosen::in_store(&store)).await
                else {
                    return;
                };
                let Some(switch) = switch.upgrade() else {
                    return;
                };
                if !switch.saw(now.clone()) {
                    continue;
                }
                let name = match now.name {
                    Ok(name) => name,
                    Err(problem) => {
                        let warning = format!("Interline {problem}");
                        switch.show(MessageType::WARNING, warning).await;
                        continue;
                    }
                };
                let wanted = {
                    let mut configured = configured.lock().unwrap_or_else(PoisonError::into_inner);
                    configured.in_use = name;
                    let names_none = configured.options.model.is_none();
                    names_none.then(|| configured.engine())
                };
                if let Some(options) = wanted {
                    switch.to(options, By::Choice);
                }
            }
        });
    }
}

/// What the user has chosen in the store, and when. Choosing the same again is a change too: the
/// model may have been repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) name: Result<Option<Name>, String>,
    at: Option<SystemTime>,
}

impl Chosen {
    pub(super) fn in_store(store: &Store) -> Self {
        Self {
            name: store.in_use().map_err(|problem| problem.to_string()),
            at: store.chosen_at(),
        }
    }
}

/// Undoes a switch that nobody waits for any more.
struct Undo<'a>(&'a Arc<Switch>, EngineOptions);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Self(switch, options) = self;
        let own = |next: &mut Started| next.by == By::Command && next.options == *options;
        if switch.lock().next.take_if(own).is_some() {
            switch.tell_soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::engine::scripted::{Gate, Scripted, scripted};
    use crate::model::Model;
    use crate::server::commands::{MODELS, USE_MODEL, WHY};
    use crate::server::tests::{TestServer, texts};

    /// What loads an engine when the test says so: the result.
    type Load = std::sync::mpsc::Sender<Result<Model, String>>;

    /// The engines that a server starts, in order, with the names of their models.
    struct Stage(flume::Receiver<(String, Load)>);

    impl Stage {
        fn new() -> (Self, StartEngine) {
            let (starts, started) = flume::unbounded();
            let start: StartEngine = Arc::new(move |options: &EngineOptions| {
                let (load, loaded) = std::sync::mpsc::channel();
                // At its end a test takes no more engines.
                let _ = starts.send((options.model().into_owned(), load));
                Arc::new(Engine::spawn(move |waiter| {
                    waiter.say("loading");
                    loaded
                        .recv()
                        .unwrap_or_else(|_| Err("not loaded".to_owned()))
                }))
            });
            (Self(started), start)
        }

        /// Waits until the engine of this model is started.
        async fn load(&self, name: &str) -> Load {
            let (started, load) = self.0.recv_async().await.unwrap();
            assert_eq!(started, name);
            load
        }
    }

    fn writes(name: &str, text: &str) -> (Model, Scripted) {
        let (model, scripted) = scripted(text);
        let name = name.to_owned();
        (Model { name, ..model }, scripted)
    }

    /// A model that will not be asked for more than its text.
    fn model(name: &str, text: &str) -> Result<Model, String> {
        Ok(writes(name, text).0)
    }

    /// A server with a model that is ready and writes `b = 2`, and an open document.
    async fn start(stage: &Stage, start: StartEngine, store: Option<Store>) -> TestServer {
        let mut server = TestServer::start_by(start, store, json!({"capabilities": {}})).await;
        let load = stage.load(DEFAULT).await;
        load.send(model(DEFAULT, "b = 2")).unwrap();
        is_ready(&mut server, DEFAULT).await;
        server.open("a = 1\n$0\n").await;
        server
    }

    async fn is_ready(server: &mut TestServer, name: &str) {
        let ready = format!("{name} is ready");
        server
            .notification("didChangeStatus", |status| {
                status["busy"] == false && status["message"] == ready.as_str()
            })
            .await;
    }

    async fn set(server: &mut TestServer, settings: Value) {
        let params = json!({"settings": {"interline": settings}});
        server
            .notify("workspace/didChangeConfiguration", params)
            .await;
    }

    async fn send_use(server: &mut TestServer, name: &str) -> i64 {
        let params = json!({"command": USE_MODEL, "arguments": [name]});
        let sent = server.client.send("workspace/executeCommand", params);
        sent.await.unwrap()
    }

    /// A store with models of these names, which are empty folders.
    fn store(names: &[&str]) -> (TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(home.path().join(name)).unwrap();
        }
        let store = Store::at(home.path().to_path_buf());
        (home, store)
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn warnings(server: &TestServer) -> Vec<&Value> {
        let all = server.client.notifications.iter();
        let shown = all.filter(|message| message["method"] == "window/showMessage");
        shown.map(|message| &message["params"]["message"]).collect()
    }

    #[tokio::test]
    async fn the_old_model_answers_until_the_new_one_is_ready() {
        let (stage, begin) = Stage::new();
        let mut server = TestServer::start_by(begin, None, json!({"capabilities": {}})).await;
        let (old, scripted) = writes("old", "b = 2");
        let Gate { begun, go_on } = Gate::before(&scripted);
        drop((go_on, scripted));
        stage.load(DEFAULT).await.send(Ok(old)).unwrap();
        is_ready(&mut server, "old").await;

        set(&mut server, json!({"model": "new"})).await;
        let load = stage.load("new").await;
        server
            .notification("didChangeStatus", |status| {
                status["busy"] == true && status["message"] == "switching to new: loading"
            })
            .await;
        server.open("a = 1\n$0\n").await;
        assert_eq!(texts(&server.ask().await), ["b = 2"]);
        server.client.notifications.clear();
        load.send(model("new", "c = 3")).unwrap();
        is_ready(&mut server, "new").await;
        // Nothing of what the old one wrote is shown, and it is freed.
        assert_eq!(texts(&server.ask().await), ["c = 3"]);
        while begun.recv().await.is_some() {}
        assert!(warnings(&server).is_empty());
        server.end().await;
    }

    #[tokio::test]
    async fn what_the_old_model_still_writes_is_not_shown() {
        let (stage, begin) = Stage::new();
        let mut server = TestServer::start_by(begin, None, json!({"capabilities": {}})).await;
        let (old, scripted) = writes("old", "b = 2");
        stage.load(DEFAULT).await.send(Ok(old)).unwrap();
        is_ready(&mut server, "old").await;
        let gate = Gate::before(&scripted);
        server.open("a = 1\n$0\n").await;
        let id = server.send().await;
        gate.begun.recv().await.unwrap();
        set(&mut server, json!({"model": "new"})).await;
        stage.load("new").await.send(model("new", "c = 3")).unwrap();
        is_ready(&mut server, "new").await;
        drop(gate);
        let answer = server.client.answer(id).await.unwrap();
        assert_eq!(answer["result"], Value::Null);
        let why = "#1 in a.py: nothing shown, because the settings or the model changed meanwhile";
        assert_eq!(server.why().await, why);
        assert_eq!(texts(&server.ask().await), ["c = 3"]);
        server.end().await;
    }

    #[tokio::test]
    async fn a_model_that_fails_leaves_the_old_one_in_use() {
        let (stage, begin) = Stage::new();
        let mut server = start(&stage, begin, None).await;
        set(&mut server, json!({"model": "new"})).await;
        let load = stage.load("new").await;
        load.send(Err("no graph".to_owned())).unwrap();
        let status = server
            .notification("didChangeStatus", |status| status["kind"] == "Warning")
            .await;
        let problem = "smollm2-135m-fim stays in use, because new cannot be used: no graph";
        assert_eq!(status["message"], problem);
        let shown = server.notification("window/showMessage", |_| true).await;
        assert_eq!(shown["message"], format!("Interline: {problem}"));
        assert_eq!(texts(&server.ask().await), ["b = 2"]);
        // Another setting does not try again, and naming the old one changes nothing.
        set(&mut server, json!({"maxNewTokens": 5})).await;
        set(&mut server, json!({"model": null})).await;
        assert_eq!(texts(&server.ask().await), ["b = 2"]);
        assert!(stage.0.is_empty() && warnings(&server).is_empty());
        set(&mut server, json!({"model": "new"})).await;
        stage.load("new").await.send(model("new", "c = 3")).unwrap();
        is_ready(&mut server, "new").await;
        assert_eq!(texts(&server.ask().await), ["c = 3"]);
        server.end().await;
    }

    #[tokio::test]
    async fn of_two_switches_the_last_one_counts() {
        for first_is_ready_first in [true, false] {
            let (stage, begin) = Stage::new();
            let mut server = start(&stage, begin, None).await;
            set(&mut server, json!({"model": "first"})).await;
            let first = stage.load("first").await;
            set(&mut server, json!({"model": "second"})).await;
            let second = stage.load("second").await;
            if first_is_ready_first {
                first.send(model("first", "c = 3")).unwrap();
                assert_eq!(texts(&server.ask().await), ["b = 2"]);
            }
            second.send(model("second", "d = 4")).unwrap();
            is_ready(&mut server, "second").await;
            // It may have ended already.
            let _ = first.send(Err("no graph".to_owned()));
            assert_eq!(texts(&server.ask().await), ["d = 4"]);
            let statuses = server.client.notifications.iter();
            let mut of_first =
                statuses.filter(|message| message["params"]["message"] == "first is ready");
            assert_eq!(of_first.next(), None);
            assert!(warnings(&server).is_empty());
            server.end().await;
        }
    }

    #[tokio::test]
    async fn going_back_needs_no_load() {
        let (stage, begin) = Stage::new();
        let mut server = start(&stage, begin, None).await;
        set(&mut server, json!({"model": "new"})).await;
        let load = stage.load("new").await;
        set(&mut server, json!({"model": null})).await;
        is_ready(&mut server, DEFAULT).await;
        // It is no longer wanted.
        let _ = load.send(model("new", "c = 3"));
        assert_eq!(texts(&server.ask().await), ["b = 2"]);
        assert!(stage.0.is_empty());
        server.end().await;
    }

    /// Clients send the settings once the server has started.
    #[tokio::test]
    async fn settings_replace_a_model_that_is_not_ready_yet() {
        let (stage, begin) = Stage::new();
        let mut server = TestServer::start_by(begin, None, json!({"capabilities": {}})).await;
        let default = stage.load(DEFAULT).await;
        set(&mut server, json!({"model": "new"})).await;
        let load = stage.load("new").await;
        default.send(model(DEFAULT, "b = 2")).unwrap();
        load.send(Err("no graph".to_owned())).unwrap();
        let shown = server.notification("window/showMessage", |_| true).await;
        assert_eq!(shown["message"], "Interline cannot complete: no graph");
        set(&mut server, json!({"model": "other"})).await;
        stage
            .load("other")
            .await
            .send(model("other", "c = 3"))
            .unwrap();
        is_ready(&mut server, "other").await;
        server.open("a = 1\n$0\n").await;
        assert_eq!(texts(&server.ask().await), ["c = 3"]);
        server.end().await;
    }

    #[tokio::test]
    async fn a_command_takes_a_model_into_use() {
        let (stage, begin) = Stage::new();
        let (_home, store) = store(&["bad", "good"]);
        let mut server = start(&stage, begin, Some(store.clone())).await;
        let id = send_use(&mut server, "bad").await;
        stage
            .load("bad")
            .await
            .send(Err("no graph".to_owned()))
            .unwrap();
        let answer = server.client.answer(id).await.unwrap();
        assert_eq!(answer["error"]["message"], "bad cannot be used: no graph");
        // The answer has said it.
        assert!(warnings(&server).is_empty());
        assert_eq!(store.in_use().unwrap(), None);
        assert_eq!(texts(&server.ask().await), ["b = 2"]);

        let id = send_use(&mut server, "good").await;
        stage
            .load("good")
            .await
            .send(model("good", "c = 3"))
            .unwrap();
        let answer = server.client.answer(id).await.unwrap();
        assert_eq!(answer["result"], json!({"name": "good"}));
        assert_eq!(store.in_use().unwrap(), Some(name("good")));
        assert_eq!(texts(&server.ask().await), ["c = 3"]);
        let models = server.command(MODELS, json!([])).await;
        let in_use = models.as_array().unwrap().iter();
        let in_use = in_use.filter(|model| model["inUse"] == true);
        let in_use: Vec<_> = in_use.map(|model| &model["name"]).collect();
        assert_eq!(in_use, ["good"]);
        // It serves already.
        assert_eq!(
            server.command(USE_MODEL, json!(["good"])).await["name"],
            "good"
        );

        let id = send_use(&mut server, DEFAULT).await;
        let load = stage.load(DEFAULT).await;
        load.send(model(DEFAULT, "b = 2")).unwrap();
        server.client.answer(id).await.unwrap();
        assert_eq!(store.in_use().unwrap(), None);
        server.end().await;
    }

    #[tokio::test]
    async fn a_command_that_cannot_switch_says_why() {
        let (stage, begin) = Stage::new();
        let (_home, store) = store(&["mine", "other"]);
        let mut server = start(&stage, begin, Some(store)).await;
        let check = async |server: &mut TestServer, name: &str, expected: &str| {
            let id = send_use(server, name).await;
            let answer = server.client.answer(id).await.unwrap();
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.starts_with(expected), "{message}");
        };
        check(&mut server, "nothing", "there is no model \"nothing\" here").await;
        let not_here = "the model qwen2.5-coder-1.5b is not here yet; run";
        check(&mut server, "qwen2.5-coder-1.5b", not_here).await;
        set(&mut server, json!({"model": "other"})).await;
        stage
            .load("other")
            .await
            .send(model("other", "c = 3"))
            .unwrap();
        is_ready(&mut server, "other").await;
        let named = "the setting `model` or --model names other, and goes first;";
        check(&mut server, "mine", named).await;
        // The setting names it too.
        assert_eq!(
            server.command(USE_MODEL, json!(["other"])).await["name"],
            "other"
        );
        server.end().await;
    }

    #[tokio::test]
    async fn a_cancelled_command_switches_nothing() {
        let (stage, begin) = Stage::new();
        let (_home, store) = store(&["mine"]);
        let mut server = start(&stage, begin, Some(store.clone())).await;
        let id = send_use(&mut server, "mine").await;
        let load = stage.load("mine").await;
        server.notify("$/cancelRequest", json!({"id": id})).await;
        server.client.answer(id).await.unwrap();
        is_ready(&mut server, DEFAULT).await;
        let _ = load.send(model("mine", "c = 3"));
        assert_eq!(texts(&server.ask().await), ["b = 2"]);
        assert_eq!(store.in_use().unwrap(), None);
        server.end().await;
    }

    #[tokio::test]
    async fn the_choice_in_the_store_is_followed() {
        let (stage, begin) = Stage::new();
        let (_home, store) = store(&["mine", "other"]);
        let mut server = start(&stage, begin, Some(store.clone())).await;
        store.take_into_use(&name("mine")).unwrap();
        stage
            .load("mine")
            .await
            .send(model("mine", "c = 3"))
            .unwrap();
        is_ready(&mut server, "mine").await;
        assert_eq!(texts(&server.ask().await), ["c = 3"]);
        // A model that the settings name goes first, and the choice counts after it.
        set(&mut server, json!({"model": "other"})).await;
        stage
            .load("other")
            .await
            .send(model("other", "d = 4"))
            .unwrap();
        is_ready(&mut server, "other").await;
        set(&mut server, json!({"model": null})).await;
        stage
            .load("mine")
            .await
            .send(model("mine", "c = 3"))
            .unwrap();
        is_ready(&mut server, "mine").await;
        store.take_into_use(&name(DEFAULT)).unwrap();
        let load = stage.load(DEFAULT).await;
        load.send(model(DEFAULT, "b = 2")).unwrap();
        is_ready(&mut server, DEFAULT).await;
        server.end().await;
    }

    #[tokio::test]
    async fn where_the_choice_cannot_be_used_the_default_serves() {
        let (stage, begin) = Stage::new();
        let (_home, store) = store(&["mine"]);
        store.take_into_use(&name("mine")).unwrap();
        let initialize = json!({"capabilities": {}});
        let mut server = TestServer::start_by(begin, Some(store), initialize).await;
        stage
            .load("mine")
            .await
            .send(Err("no graph".to_owned()))
            .unwrap();
        let load = stage.load(DEFAULT).await;
        load.send(model(DEFAULT, "b = 2")).unwrap();
        let shown = server.notification("window/showMessage", |_| true).await;
        assert_eq!(
            shown["message"],
            "Interline uses smollm2-135m-fim: mine cannot be used: no graph"
        );
        server
            .notification("didChangeStatus", |status| {
                status["kind"] == "Warning"
                    && status["message"]
                        == "smollm2-135m-fim is ready; mine cannot be used: no graph"
            })
            .await;
        server.open("a = 1\n$0\n").await;
        assert_eq!(texts(&server.ask().await), ["b = 2"]);
        server.command(WHY, json!([])).await;
        assert!(warnings(&server).is_empty());
        server.end().await;
    }

    #[tokio::test]
    async fn a_choice_that_cannot_be_read_is_told_once() {
        let (stage, begin) = Stage::new();
        let (home, store) = store(&[]);
        fs::write(home.path().join(".in-use"), "../elsewhere").unwrap();
        let mut server = start(&stage, begin, Some(store)).await;
        let shown = server.notification("window/showMessage", |_| true).await;
        let message = shown["message"].as_str().unwrap();
        assert!(
            message.starts_with("Interline cannot tell from "),
            "{message}"
        );
        assert_eq!(texts(&server.ask().await), ["b = 2"]);
        server.end().await;
    }
}
