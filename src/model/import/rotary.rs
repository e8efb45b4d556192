//! By which angles heads are rotated at each position.

use std::f64::consts::TAU;

use super::architecture::ArchitectureError;
use super::source::{Format, Source};

/// The frequencies of the rotation, and how they are stretched for long texts.
#[derive(Debug)]
pub(super) struct Rotary {
    base: f64,
    scaling: Scaling,
    /// By what sines and cosines are multiplied.
    pub(super) amplitude: f64,
}

/// How frequencies are stretched.
#[derive(Debug)]
enum Scaling {
    /// All of them by this factor, which may be 1.
    Linear(f64),
    /// The low ones by a factor, the high ones not at all.
    ///
    /// Source: `_compute_llama3_parameters` in `modeling_rope_utils.py` of transformers.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// Between two numbers of rotations within the original length, more and more.
    ///
    /// Source: arXiv 2309.00071; `_compute_yarn_parameters` there.
    Yarn {
        factor: f64,
        fast: f64,
        slow: f64,
        original: f64,
    },
}

impl Rotary {
    /// Reads what `source` says. `key` spells a key of GGUF in full.
    ///
    /// # Errors
    ///
    /// A kind of scaling that is not known is refused by name.
    pub(super) fn read(
        source: &Source,
        key: impl Fn(&str) -> String,
    ) -> Result<Self, ArchitectureError> {
        let unsupported = |problem: &str| ArchitectureError::Unsupported(problem.to_owned());
        // Newer folders have all in one place.
        let newer = source.says("rope_parameters.");
        let spelled = |gguf: &str, folder: &str| match (source.format, newer) {
            (Format::Gguf, _) => key(&format!("rope.scaling.{gguf}")),
            (Format::Folder, true) => format!("rope_parameters.{folder}"),
            (Format::Folder, false) => format!("rope_scaling.{folder}"),
        };
        let optional = |gguf: &str, folder: &str| source.number(&spelled(gguf, folder));
        let required = |gguf: &str, folder: &str| {
            let key = spelled(gguf, folder);
            source.number(&key)?.ok_or(ArchitectureError::Missing(key))
        };
        let base = match (source.format, newer) {
            (Format::Gguf, _) => key("rope.freq_base"),
            (Format::Folder, true) => "rope_parameters.rope_theta".to_owned(),
            (Format::Folder, false) => "rope_theta".to_owned(),
        };
        let base = source.number(&base)?.unwrap_or(10_000.0);
        for key in [
            "partial_rotary_factor",
            "rope_parameters.partial_rotary_factor",
        ] {
            if let Some(part) = source.number(key)?.filter(|part| *part != 1.0) {
                return Err(unsupported(&format!("a {key} of {part}")));
            }
        }
        let mut kind = source.text(&spelled("type", "rope_type"))?;
        if kind.is_none() {
            kind = source.text(&spelled("type", "type"))?;
        }
        let mut amplitude = 1.0;
        let scaling = match kind {
            None | Some("none" | "default") => Scaling::Linear(1.0),
            Some("linear") => Scaling::Linear(required("factor", "factor")?),
            Some("llama3") => Scaling::Llama3 {
                factor: required("factor", "factor")?,
                low: required("low_freq_factor", "low_freq_factor")?,
                high: required("high_freq_factor", "high_freq_factor")?,
                original: required(
                    "original_context_length",
                    "original_max_position_embeddings",
                )?,
            },
            Some("yarn") => {
                let factor = required("factor", "factor")?;
                let original = optional(
                    "original_context_length",
                    "original_max_position_embeddings",
                )?;
                let original = match original {
                    Some(original) => original,
                    None => source
                        .number(&match source.format {
                            Format::Gguf => key("context_length"),
                            Format::Folder => "max_position_embeddings".to_owned(),
                        })?
                        .unwrap_or(0.0),
                };
                for other in ["mscale", "mscale_all_dim", "truncate"] {
                    if source.says(&spelled(other, other)) {
                        return Err(unsupported(&format!("rotary scaling with {other}")));
                    }
                }
                let usual = 0.1 * factor.max(1.0).ln() + 1.0;
                amplitude = match (source.format, optional("attn_factor", "attention_factor")?) {
                    (_, None) => usual,
                    (Format::Gguf, Some(number)) => number * usual,
                    (Format::Folder, Some(number)) => number,
                };
                Scaling::Yarn {
                    factor,
                    fast: optional("yarn_beta_fast", "beta_fast")?.unwrap_or(32.0),
                    slow: optional("yarn_beta_slow", "beta_slow")?.unwrap_or(1.0),
                    original,
                }
            }
            Some(other) => return Err(unsupported(&format!("rotary scaling of type {other}"))),
        };
        let rotary = Self {
            base,
            scaling,
            amplitude,
        };
        match rotary.is_sensible() {
            true => Ok(rotary),
            false => Err(unsupported("rotary numbers that make no sense")),
        }
    }

    fn is_sensible(&self) -> bool {
        let positive = |number: f64| number > 0.0;
        let scaling = match self.scaling {
            Scaling::Linear(factor) => positive(factor),
            Scaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => [factor, low, high - low, original]
                .into_iter()
                .all(positive),
            Scaling::Yarn {
                factor,
                fast,
                slow,
                original,
            } => [factor, slow, fast - slow, original]
                .into_iter()
                .all(positive),
        };
        scaling && self.base > 1.0 && positive(self.amplitude)
    }

    /// The angles of the first position in radians, `[head_dim / 2]`.
    pub(super) fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let half = head_dim / 2;
        let plain = |index: usize| self.base.powf(-2.0 * index as f64 / head_dim as f64);
        let stretched = |index: usize| {
            let frequency = plain(index);
            match self.scaling {
                Scaling::Linear(factor) => frequency / factor,
                Scaling::Llama3 {
                    factor,
                    low,
                    high,
                    original,
                } => {
                    let rotations = original * frequency / TAU;
                    let smooth = ((rotations - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * ((1.0 - smooth) / factor + smooth)
                }
                Scaling::Yarn {
                    factor,
                    fast,
                    slow,
                    original,
                } => {
                    let last = head_dim as f64 - 1.0;
                    let index_of = |rotations: f64| {
                        let ratio = (original / (rotations * TAU)).ln() / self.base.ln();
                        head_dim as f64 * ratio / 2.0
                    };
                    let first = index_of(fast).floor().max(0.0);
                    let end = index_of(slow).ceil().min(last);
                    let width = match end - first {
                        0.0 => 0.001,
                        width => width,
                    };
                    let ramp = ((index as f64 - first) / width).clamp(0.0, 1.0);
                    frequency * (ramp / factor + (1.0 - ramp))
                }
            }
        };
        (0..half).map(stretched).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected numbers: the functions of transformers 5.24, in double precision.
    fn check(scaling: Scaling, expected: [f64; 8]) {
        let rotary = Rotary {
            base: 500_000.0,
            scaling,
            amplitude: 1.0,
        };
        assert!(rotary.is_sensible());
        let frequencies = rotary.frequencies(16);
        assert_eq!(frequencies.len(), expected.len());
        for (frequency, expected) in frequencies.iter().zip(expected) {
            let off = (frequency / expected - 1.0).abs();
            assert!(off < 1e-6, "{frequencies:?}");
        }
    }

    #[test]
    fn frequencies_are_those_of_the_reference() {
        let plain = [0, 1, 2, 3, 4, 5, 6, 7].map(|index| 500_000_f64.powf(f64::from(index) / -8.0));
        check(Scaling::Linear(1.0), plain);
        check(Scaling::Linear(4.0), plain.map(|frequency| frequency / 4.0));
        check(
            Scaling::Llama3 {
                factor: 8.0,
                low: 1.0,
                high: 4.0,
                original: 8192.0,
            },
            [
                1.0,
                0.193_922_7,
                0.037_606_03,
                0.007_292_665,
                5.248_462e-4,
                3.428_102e-5,
                6.647_87e-6,
                1.289_173e-6,
            ],
        );
        check(
            Scaling::Yarn {
                factor: 4.0,
                fast: 32.0,
                slow: 1.0,
                original: 4096.0,
            },
            [
                1.0,
                0.193_922_7,
                0.028_204_52,
                0.003_646_332,
                3.535_534e-4,
                6.856_204e-5,
                1.329_574e-5,
                2.578_346e-6,
            ],
        );
    }
}
