//! What runs the model.

use interline::engine::{Engine, EngineState};
use interline::model::Model;
use interline::runtime::{Runtime, RuntimeOptions};

use crate::support;

/// What the engine reports, and so what `interline doctor` prints, is how this model was loaded,
/// not how it might be loaded another time.
#[test]
fn a_fallback_is_reported_with_its_reason() {
    let engine = Engine::spawn(|_| {
        let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
        runtime.fall_back("webgpu is not used: no device");
        Model::load(&support::directory(), &mut runtime)
    });
    let ready = loop {
        match &*engine.state().borrow() {
            EngineState::Ready(ready) => break ready.clone(),
            EngineState::Failed(problem) => panic!("{problem}"),
            EngineState::Loading(_) => std::thread::yield_now(),
        }
    };
    let expected = "on cpu from ";
    let reason = "(webgpu is not used: no device)";
    assert!(
        ready.runs_on.contains(expected) && ready.runs_on.ends_with(reason),
        "{}",
        ready.runs_on
    );
}
