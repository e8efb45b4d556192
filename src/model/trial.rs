//! A trial of a device: whether it computes what the CPU computes, and which of the two is faster.
//!
//! A driver can be wrong, hang, or end the process that uses it. So the trial is made in a child
//! process, with real passes of the model, and its outcome is remembered ([`memory`]): a start does
//! not measure again.

pub mod memory;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::{ForwardError, LoadError, Model};
use crate::cache_folder::cache_folder;
use crate::download::Waiter;
use crate::runtime::probe::{Problem, end_with_parent, in_child};
use crate::runtime::provider::{Provider, ProviderError};
use crate::runtime::{Runtime, RuntimeError, RuntimeOptions};
use memory::{Key, Memory};

/// The hidden subcommand that the child runs, before the model's folder, the provider and the
/// library of ONNX Runtime. It calls [`report`].
pub const SUBCOMMAND: &str = "try-device";

/// A trial takes some seconds on a GPU, of which most go by while the driver compiles. A device that
/// has not finished by then would not serve an editor either.
const LIMIT: Duration = Duration::from_secs(60);

/// The largest difference between two rows of logits, relative to how far logits are from their
/// mean (root mean squares), at which they still are the same computation.
///
/// The CPU rounds the activations of each product to 8 bits and a GPU does not, and some GPUs
/// compute in 16 bits: that is a difference of some 0.02. Logits that have nothing in common with
/// the CPU's are off by about 1.4, and a cache that was not written was off by 0.6
/// (docs/decisions/013). So the bound is in between.
const BOUND: f32 = 0.2;

/// What is read in a trial, if the model's context allows.
const TEXT: &str = "def total(items):\n    \"\"\"Return the sum of the prices of all items.\"\"\"\n    \
    result = 0\n    for item in items:\n        if item.price is None:\n            continue\n        \
    result += item.price * item.count\n    return result\n\n\ndef average(items):\n    \"\"\"Return \
    the mean price of the items, or zero.\"\"\"\n    if not items:\n        return 0\n    return \
    total(items) / len(items)\n";

/// Tokens that are read at once.
const READ: usize = 40;

/// Tokens that are then read in one pass, and again as many one by one.
const STEPS: usize = 8;

/// About as many tokens as the engine's caches hold, so that a device without the memory for them
/// fails here.
const CACHE: usize = 2048;

/// How often each speed is measured, of which the best counts.
const ROUNDS: usize = 3;

/// What was measured of a device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The largest difference of a row of logits, as at [`BOUND`].
    pub difference: f32,
    /// How long the CPU takes to read [`READ`] tokens and write [`STEPS`], in milliseconds.
    pub cpu: f32,
    /// How long the device takes.
    pub device: f32,
}

/// What both computed and how fast.
impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            difference,
            cpu,
            device,
        } = self;
        write!(
            f,
            "logits within {:.1} % of the CPU's; {READ} tokens read and {STEPS} written in {device:.0} \
             ms, by the CPU in {cpu:.0}",
            difference * 100.0
        )
    }
}

impl Trial {
    /// Whether the device is used. If it is not, the text says why.
    ///
    /// # Errors
    ///
    /// When the device computes something else than the CPU, or is slower and was not asked for.
    fn verdict(&self, wanted: Provider) -> Result<(), String> {
        if self.difference > BOUND {
            return Err(format!(
                "it computes something else than the CPU: its logits are off by {}{:.0} %, and up to \
                 {:.0} % is rounding; update its driver",
                if self.difference > 1.0 {
                    "more than "
                } else {
                    ""
                },
                self.difference.min(1.0) * 100.0,
                BOUND * 100.0
            ));
        }
        match wanted == Provider::Auto && self.device >= self.cpu {
            true => Err(format!("it is slower here: {self}")),
            false => Ok(()),
        }
    }
}

/// Makes `runtime` run the model in `folder` on the device that the user wants, or on the fastest if
/// the user leaves it open. A device that does not pass its trial is not used, and the runtime says
/// why. For the program itself only, since the child of a trial is this program too.
pub fn choose(runtime: &mut Runtime, folder: &Path, waiter: &mut dyn Waiter) {
    // Loading a folder that is none says why.
    if Manifest::read(folder).is_err() {
        return;
    }
    let memory = Memory::in_folder(cache_folder().as_deref());
    let mut refused = Vec::new();
    for provider in runtime.candidates() {
        let tried = tried(runtime, provider, folder, &memory, waiter);
        let passed = tried.and_then(|trial| trial.verdict(runtime.wanted).map(|()| trial));
        let used = passed.and_then(|trial| match runtime.run_on(provider) {
            Ok(()) => Ok(trial),
            Err(error) => Err(error.to_string()),
        });
        match used {
            Ok(trial) => {
                runtime.reason = Some(trial.to_string());
                return;
            }
            Err(reason) => refused.push(format!("{provider} is not used: {reason}")),
        }
    }
    if !refused.is_empty() {
        runtime.fall_back(refused.join("; "));
    }
}

/// Forgets the outcomes of all trials, so that devices are tried again: after a change of a driver.
pub fn forget() {
    Memory::in_folder(cache_folder().as_deref()).forget();
}

/// The outcome of the trial: the remembered one, or that of a new one.
fn tried(
    runtime: &Runtime,
    provider: Provider,
    folder: &Path,
    memory: &Memory,
    waiter: &mut dyn Waiter,
) -> Result<Trial, String> {
    let plugin = runtime.find(provider).map_err(|error| error.to_string())?;
    let key = Key::new(provider, folder, &runtime.path, plugin.as_deref());
    if let Some(outcome) = memory.get(&key) {
        return outcome;
    }
    waiter.say(&format!(
        "trying {provider} with this model: once, for at most {} s",
        LIMIT.as_secs()
    ));
    let name = provider.to_string();
    let arguments = [
        SUBCOMMAND.as_ref(),
        folder.as_os_str(),
        name.as_ref(),
        runtime.path.as_os_str(),
    ];
    let outcome = match in_child(&arguments, LIMIT, waiter) {
        Ok(printed) => serde_json::from_str(&printed)
            .unwrap_or_else(|_| Err("its trial printed no outcome".to_owned())),
        Err(Problem::Fatal(problem)) => Err(format!("its trial {problem}")),
        // It may be possible the next time.
        Err(Problem::Unknown) => return Err("its trial cannot be made".to_owned()),
    };
    if waiter.is_wanted() {
        memory.add(&key, &outcome);
    }
    outcome
}

/// The child's part: makes a trial, and returns its outcome as what it prints.
#[must_use]
pub fn report(folder: &Path, provider: Provider, library: PathBuf) -> String {
    end_with_parent();
    let outcome = measure(folder, provider, library).map_err(|error| error.to_string());
    serde_json::to_string(&outcome).unwrap_or_default()
}

/// Why a trial has no outcome.
#[derive(Debug, thiserror::Error)]
enum TrialError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{0}")]
    FellBack(String),
    #[error("the CPU cannot run the model either: {0}")]
    Cpu(ForwardError),
    #[error("its logits are not numbers; update its driver")]
    NotNumbers,
    #[error("{0}")]
    Device(ForwardError),
}

fn measure(folder: &Path, provider: Provider, library: PathBuf) -> Result<Trial, TrialError> {
    let options = RuntimeOptions {
        library: Some(library),
        offline: true,
        provider,
    };
    let mut runtime = Runtime::load(&options, &mut |_: &str| {})?;
    // What is missing is told before anything is measured.
    runtime.run_on(provider)?;
    runtime.run_on(Provider::Cpu)?;
    // One after the other, so that the memory need not hold both.
    let model = Model::load(folder, &mut runtime)?;
    let (expected, cpu) = passes(&model).map_err(TrialError::Cpu)?;
    drop(model);
    runtime.run_on(provider)?;
    let model = Model::load(folder, &mut runtime)?;
    if runtime.provider != provider {
        let reason = runtime.reason.unwrap_or_default();
        let prefix = format!("{provider} is not used: ");
        let reason = reason.strip_prefix(&prefix).unwrap_or(&reason);
        return Err(TrialError::FellBack(reason.to_owned()));
    }
    let (actual, device) = passes(&model).map_err(|error| match error {
        ForwardError::Damaged => TrialError::NotNumbers,
        error => TrialError::Device(error),
    })?;
    let difference = difference(&expected, &actual, model.causal_lm.vocabulary());
    Ok(Trial {
        difference: difference.ok_or(TrialError::NotNumbers)?,
        cpu: cpu.as_secs_f32() * 1000.0,
        device: device.as_secs_f32() * 1000.0,
    })
}

/// The logits of passes of each kind that the engine makes, and how long it takes to read and to
/// write.
fn passes(model: &Model) -> Result<(Vec<f32>, Duration), ForwardError> {
    let mut tokens = model.tokenizer.encode(TEXT);
    let capacity = model.context_length.min(CACHE);
    tokens.truncate(capacity.saturating_sub(1).min(READ + 2 * STEPS));
    if tokens.is_empty() {
        return Err(ForwardError::Full(capacity));
    }
    let mut cache = model.causal_lm.new_cache(capacity)?;
    let (mut all, mut logits) = (Vec::new(), Vec::new());
    let mut past = 0;
    // A prompt, what is typed after it, and then token by token.
    let read = tokens.len().saturating_sub(2 * STEPS).max(1);
    for length in [read, STEPS].into_iter().chain([1; STEPS]) {
        let Some(pass) = tokens.get(past..past + length) else {
            break;
        };
        cache.forward(&[past], pass, length, &mut logits)?;
        all.extend_from_slice(&logits);
        past += length;
    }
    // Two texts at once, of which one goes on from an earlier place.
    let mut lanes = cache.fork(past, 2, capacity)?;
    lanes.forward(
        &[past, past - 1],
        &[tokens[0], tokens[past - 1]],
        1,
        &mut logits,
    )?;
    all.extend_from_slice(&logits);

    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        cache.forward(&[0], &tokens[..read], 1, &mut logits)?;
        for (step, token) in tokens[read..].iter().take(STEPS).enumerate() {
            cache.forward(&[read + step], &[*token], 1, &mut logits)?;
        }
        best = best.min(start.elapsed());
    }
    Ok((all, best))
}

/// The largest difference between two rows, as at [`BOUND`]; `None` if they cannot be compared,
/// since a logit is not a finite number.
fn difference(expected: &[f32], actual: &[f32], vocabulary: usize) -> Option<f32> {
    let mut rows = expected.chunks(vocabulary).zip(actual.chunks(vocabulary));
    rows.try_fold(0.0, |most: f32, (expected, actual)| {
        let mean = expected.iter().sum::<f32>() / expected.len() as f32;
        let apart = expected.iter().zip(actual);
        let apart: f32 = apart.map(|(a, b)| (a - b).powi(2)).sum();
        let spread: f32 = expected.iter().map(|logit| (logit - mean).powi(2)).sum();
        let one = (apart / spread).sqrt();
        one.is_finite().then_some(most.max(one))
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn rounding_is_no_difference_and_another_computation_is() {
        let logits = |seed: u32| -> Vec<f32> {
            (0..200_u32)
                .map(|index| ((index * 7919 + seed * 104_729) % 1000) as f32 / 100.0)
                .collect()
        };
        let expected = logits(1);
        let rounded: Vec<f32> = expected.iter().map(|logit| logit.round()).collect();
        // One row of two is another's.
        let mut mixed = expected.clone();
        mixed[100..].copy_from_slice(&logits(2)[100..]);
        let mut nan = expected.clone();
        nan[3] = f32::NAN;
        let mut infinite = expected.clone();
        infinite[103] = f32::INFINITY;
        for (name, actual, same) in [
            ("the same", expected.clone(), Some(true)),
            ("rounded", rounded, Some(true)),
            ("another row", mixed, Some(false)),
            ("constant", vec![0.0; 200], Some(false)),
            ("not a number", nan, None),
            ("infinite", infinite, None),
        ] {
            let difference = difference(&expected, &actual, 100);
            let is_same = difference.map(|difference| difference <= BOUND);
            assert_eq!(is_same, same, "{name}: {difference:?}");
        }
    }

    #[test]
    fn a_device_is_used_if_it_is_right_and_wanted_or_faster() {
        let check = |difference, device, wanted, expected: Expect| {
            let trial = Trial {
                difference,
                cpu: 100.0,
                device,
            };
            let verdict = match trial.verdict(wanted) {
                Ok(()) => "used".to_owned(),
                Err(reason) => reason,
            };
            expected.assert_eq(&verdict);
        };
        check(0.02, 50.0, Provider::Auto, expect!["used"]);
        check(0.02, 200.0, Provider::Webgpu, expect!["used"]);
        check(
            0.02,
            200.0,
            Provider::Auto,
            expect![[
                r#"it is slower here: logits within 2.0 % of the CPU's; 40 tokens read and 8 written in 200 ms, by the CPU in 100"#
            ]],
        );
        check(
            1.4,
            50.0,
            Provider::Webgpu,
            expect![[
                r#"it computes something else than the CPU: its logits are off by more than 100 %, and up to 20 % is rounding; update its driver"#
            ]],
        );
    }
}
