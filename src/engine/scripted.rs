//! A model that writes what its script says, for tests that count passes and force errors.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cancel::Cancel;
use super::{Engine, EngineState};
use crate::model::fim_template::FimTemplate;
use crate::model::tests::{directory, manifest, tokenizer};
use crate::model::tokenizer::Tokenizer;
use crate::model::{CausalLm, ForwardError, KvCache, Model};

/// The model: a handle to its script, which its caches share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted(Arc<Mutex<Script>>);

/// What the model should do, and what it did.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// What it writes after a prompt, then the end token.
    pub(crate) says: Vec<u32>,
    /// The tokens of each pass, those of all lanes together.
    pub(crate) passes: Vec<usize>,
    /// Cancels after this many passes.
    pub(crate) cancel_after: Option<(usize, Cancel)>,
    /// Panics at the first pass with this token.
    pub(crate) panics_at: Option<u32>,
    /// Fails at the first pass with this token.
    pub(crate) fails_at: Option<u32>,
    /// The tokens of the last cache that was used, in its first lane.
    cached: Vec<u32>,
    /// Reports that a pass has begun, and waits for the signal to continue while the other end
    /// exists.
    gate: Option<(flume::Sender<()>, flume::Receiver<()>)>,
}

impl Scripted {
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Panics at the first pass with the last token of `text`.
    pub(crate) fn panic_at(&self, text: &str) {
        self.script().panics_at = tokenizer().encode(text).last().copied();
    }

    pub(crate) fn cached(&self) -> Vec<u32> {
        self.script().cached.clone()
    }

    /// The text of what is cached, with its special tokens.
    pub(crate) fn read(&self) -> String {
        tokenizer().show(&self.cached())
    }
}

impl CausalLm for Scripted {
    fn vocabulary(&self) -> usize {
        tokenizer().len()
    }

    fn new_cache(&self, max_tokens: usize) -> Result<Box<dyn KvCache>, ForwardError> {
        Ok(Box::new(ScriptedCache {
            model: self.clone(),
            lanes: vec![Vec::new()],
            max_tokens,
            prompt: 0,
        }))
    }
}

/// The token sequences of the model.
#[derive(Debug)]
struct ScriptedCache {
    model: Scripted,
    lanes: Vec<Vec<u32>>,
    max_tokens: usize,
    /// Tokens of the prompt: all up to the last pass of several tokens.
    prompt: usize,
}

impl KvCache for ScriptedCache {
    fn forward(
        &mut self,
        pasts: &[usize],
        tokens: &[u32],
        rows: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), ForwardError> {
        assert!(!tokens.is_empty() && self.lanes.len() == pasts.len() && rows == 1);
        let length = tokens.len() / self.lanes.len();
        if pasts.iter().any(|past| past + length > self.max_tokens) {
            return Err(ForwardError::Full(self.max_tokens));
        }
        let gate = {
            let mut script = self.model.script();
            let is_in = |token: &mut u32| tokens.contains(token);
            if script.panics_at.take_if(is_in).is_some() {
                drop(script);
                panic!("as told");
            }
            if script.fails_at.take_if(is_in).is_some() {
                return Err(ForwardError::Runtime("as told".to_owned()));
            }
            script.passes.push(tokens.len());
            script.gate.clone()
        };
        if let Some((begun, go_on)) = gate {
            // Closed ends mean that the test no longer stops the model.
            let _ = begun.send(());
            let _ = go_on.recv();
        }
        let mut script = self.model.script();
        if let Some((passes, cancel)) = &script.cancel_after
            && *passes == script.passes.len()
        {
            cancel.cancel();
        }
        logits.clear();
        let inputs = pasts.iter().zip(tokens.chunks(length));
        for (lane, (past, tokens)) in self.lanes.iter_mut().zip(inputs) {
            assert!(*past <= lane.len(), "a past that is not there");
            lane.truncate(*past);
            lane.extend_from_slice(tokens);
            if length > 1 {
                self.prompt = lane.len();
            }
            let written = lane.len().saturating_sub(self.prompt);
            let row = logits.len();
            logits.resize(row + self.model.vocabulary(), 0.0);
            logits[row + script.says.get(written).copied().unwrap_or_default() as usize] = 1.0;
        }
        script.cached.clone_from(&self.lanes[0]);
        Ok(())
    }

    fn fork(
        &self,
        len: usize,
        lanes: usize,
        max_tokens: usize,
    ) -> Result<Box<dyn KvCache>, ForwardError> {
        Ok(Box::new(Self {
            model: self.model.clone(),
            lanes: vec![self.lanes[0][..len].to_vec(); lanes],
            max_tokens,
            prompt: len,
        }))
    }
}

/// A model that writes `says`, and the handle to its script.
pub(crate) fn scripted(says: &str) -> (Model, Scripted) {
    let scripted = Scripted::default();
    scripted.script().says = tokenizer().encode(says);
    let model = Model {
        name: "scripted".to_owned(),
        causal_lm: Box::new(scripted.clone()),
        tokenizer: Tokenizer::load(&directory().join("tokenizer.json")).unwrap(),
        chat: None,
        fim: FimTemplate::resolve(tokenizer(), manifest().fim.as_ref(), None).unwrap(),
        context_length: 2048,
        runs_on: "a script".to_owned(),
        warning: None,
    };
    (model, scripted)
}

/// The two ends with which a test holds a model: passes that have begun, and signals to continue,
/// one for each pass. Once the gate is dropped, nothing stops the model.
pub(crate) struct Gate {
    pub(crate) begun: Begun,
    pub(crate) go_on: flume::Sender<()>,
}

/// Passes that have begun.
pub(crate) struct Begun(flume::Receiver<()>);

impl Begun {
    /// Waits for the next one; `None` when the model is gone.
    pub(crate) async fn recv(&self) -> Option<()> {
        self.0.recv_async().await.ok()
    }

    /// The next one, if it has begun already.
    pub(crate) fn try_recv(&self) -> Option<()> {
        self.0.try_recv().ok()
    }
}

impl Gate {
    /// Puts a gate before the passes to come.
    pub(crate) fn before(model: &Scripted) -> Self {
        let (begun_sender, begun) = flume::unbounded();
        let (go_on, go_on_receiver) = flume::unbounded();
        model.script().gate = Some((begun_sender, go_on_receiver));
        Self {
            begun: Begun(begun),
            go_on,
        }
    }
}

/// An engine with this model, once it is ready. The passes until then are forgotten.
pub(crate) async fn ready(model: Model, scripted: &Scripted) -> Engine {
    let engine = Engine::spawn(move |_| Ok::<_, String>(model));
    let mut state = engine.state();
    let loaded = state.wait_for(|state| !matches!(state, EngineState::Loading(_)));
    assert!(matches!(*loaded.await.unwrap(), EngineState::Ready(_)));
    scripted.script().passes.clear();
    engine
}

/// An engine that is ready, and stops at the first pass that belongs to a request.
pub(crate) async fn gated(says: &str) -> (Engine, Gate) {
    let (model, scripted) = scripted(says);
    let engine = ready(model, &scripted).await;
    let gate = Gate::before(&scripted);
    (engine, gate)
}
