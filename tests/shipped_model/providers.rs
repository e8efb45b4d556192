//! What runs the model, and where its keys and values are.

use interline::engine::{Engine, EngineState};
use interline::model::Model;
use interline::runtime::{Provider, Runtime, RuntimeOptions};

use crate::support;

/// What the engine reports, and so what `interline doctor` prints, is how this model was loaded,
/// not how it might be loaded another time.
#[test]
fn a_fallback_is_reported_with_its_reason() {
    let engine = Engine::spawn(|_| {
        let mut runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
        runtime.fall_back("the model does not load on it: no device");
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
    let reason = "(not on the GPU: the model does not load on it: no device)";
    assert!(
        ready.runs_on.contains(expected) && ready.runs_on.ends_with(reason),
        "{}",
        ready.runs_on
    );
}

#[test]
fn keys_and_values_belong_to_the_device_that_computes() {
    // Device names come from the loaded library.
    let _runtime = Runtime::load(&RuntimeOptions::default(), &mut |_: &str| {}).unwrap();
    for (provider, device) in [(Provider::Cpu, "Cpu"), (Provider::Cuda, "Cuda")] {
        let memory = provider.memory().unwrap();
        assert_eq!(memory.allocation_device().as_str(), device);
        assert_eq!(memory.is_cpu_accessible(), provider == Provider::Cpu);
    }
}
