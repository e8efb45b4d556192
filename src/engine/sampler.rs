//! Chooses the next token from a row of logits.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The likeliest.
    Greedy,
    /// Sampled from the likeliest that together have the probability `top_p`.
    TopP {
        /// Divides the logits: below 1 sharpens, above 1 flattens.
        temperature: f32,
        /// The share of the probability to draw from, `0.0..=1.0`.
        top_p: f32,
        /// The same seed draws the same tokens.
        seed: u64,
    },
}

/// Draws tokens as one [`Sampling`] says.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: SmallRng,
    scratch: Vec<(u32, f32)>,
}

impl Sampler {
    /// A new sampler.
    #[must_use]
    pub fn new(sampling: Sampling) -> Self {
        let seed = match sampling {
            Sampling::Greedy => 0,
            Sampling::TopP { seed, .. } => seed,
        };
        Self {
            sampling,
            rng: SmallRng::seed_from_u64(seed),
            scratch: Vec::new(),
        }
    }

    /// The next token among those that `allowed` accepts, or `None` if there is none. `logits`
    /// is one row, indexed by token.
    pub fn sample(&mut self, logits: &[f32], allowed: impl Fn(u32) -> bool) -> Option<u32> {
        let best = greedy(logits, &allowed)?;
        let tokens = (0..).zip(logits).map(|(token, logit)| (token, *logit));
        Some(self.draw((best, logits[best as usize]), tokens, allowed))
    }

    /// The next token among `tokens`, or `None` if there is none.
    pub fn sample_among(
        &mut self,
        logits: &[f32],
        tokens: impl Iterator<Item = u32> + Clone,
    ) -> Option<u32> {
        let tokens = tokens.map(|token| (token, logits[token as usize]));
        let best = tokens.clone().max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(self.draw(best, tokens, |_| true))
    }

    /// Nucleus sampling (arXiv 1904.09751), unless it is greedy. `best` is the likeliest allowed
    /// token and its logit.
    fn draw(
        &mut self,
        (best, highest): (u32, f32),
        tokens: impl Iterator<Item = (u32, f32)>,
        allowed: impl Fn(u32) -> bool,
    ) -> u32 {
        let Sampling::TopP {
            temperature, top_p, ..
        } = self.sampling
        else {
            return best;
        };
        self.scratch.clear();
        // Tokens that are this much less likely than the best are never drawn, and sorting the rest
        // is cheap.
        let least = highest + temperature * 1e-4_f32.ln();
        let likely = tokens.filter(|(token, logit)| *logit > least && allowed(*token));
        let weight = |logit: f32| ((logit - highest) / temperature).exp();
        self.scratch
            .extend(likely.map(|(token, logit)| (token, weight(logit))));
        self.scratch.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
        let total: f32 = self.scratch.iter().map(|(_, weight)| weight).sum();
        let mut nucleus = 0.0;
        let end = self.scratch.iter().position(|(_, weight)| {
            nucleus += weight;
            nucleus >= top_p * total
        });
        let candidates = &self.scratch[..end.map_or(self.scratch.len(), |end| end + 1)];
        let mut draw = self.rng.random::<f32>() * nucleus;
        let drawn = candidates.iter().find(|(_, weight)| {
            draw -= weight;
            draw <= 0.0
        });
        drawn.map_or(best, |(token, _)| *token)
    }
}

fn greedy(logits: &[f32], allowed: impl Fn(u32) -> bool) -> Option<u32> {
    // The highest is nearly always allowed, and finding it alone is a small part of the work.
    if let Some(best) = likeliest(logits).filter(|best| allowed(*best)) {
        return Some(best);
    }
    let mut best = (None, f32::NEG_INFINITY);
    for (token, logit) in (0..).zip(logits) {
        if *logit > best.1 && allowed(token) {
            best = (Some(token), *logit);
        }
    }
    best.0
}

/// The first token with the highest logit. Block by block, because only the search for the highest
/// value is vectorised, and the search for its place is ten times slower.
fn likeliest(logits: &[f32]) -> Option<u32> {
    const BLOCK: usize = 1024;
    let (mut block, mut best) = (0, f32::NEG_INFINITY);
    for (index, logits) in logits.chunks(BLOCK).enumerate() {
        let highest = highest(logits);
        if highest > best {
            (block, best) = (index * BLOCK, highest);
        }
    }
    let place = logits[block..].iter().position(|logit| *logit == best)?;
    Some((block + place) as u32)
}

/// The highest logit. In lanes, because the compiler may not reorder a chain of comparisons.
fn highest(logits: &[f32]) -> f32 {
    const LANES: usize = 16;
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = higher(*lane, *logit);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, higher)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: Sampling, logits: &[f32], allowed: impl Fn(u32) -> bool + Copy) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        let tokens = (0..12).map(|_| sampler.sample(logits, allowed));
        tokens.map(Option::unwrap).collect()
    }

    fn top_p(top_p: f32, seed: u64) -> Sampling {
        Sampling::TopP {
            temperature: 1.0,
            top_p,
            seed,
        }
    }

    #[test]
    fn greedy_takes_the_likeliest_that_is_allowed() {
        let logits = [0.5, 3.0, 2.0, f32::NAN];
        assert_eq!(
            Sampler::new(Sampling::Greedy).sample(&logits, |_| true),
            Some(1)
        );
        assert_eq!(
            Sampler::new(Sampling::Greedy).sample(&logits, |id| id != 1),
            Some(2)
        );
        assert_eq!(
            Sampler::new(Sampling::Greedy).sample(&logits, |_| false),
            None
        );
        assert_eq!(Sampler::new(top_p(1.0, 1)).sample(&logits, |_| false), None);
    }

    #[test]
    fn the_likeliest_is_found_wherever_it_is() {
        for best in [0, 1, 1023, 1024, 2047, 2999] {
            let logits: Vec<f32> = (0..3000)
                .map(|token| if token == best { 1.0 } else { -1.0 })
                .collect();
            let mut sampler = Sampler::new(Sampling::Greedy);
            assert_eq!(sampler.sample(&logits, |_| true), Some(best));
        }
    }

    #[test]
    fn a_seed_draws_the_same_tokens() {
        let logits = [1.0, 1.0, 1.0, 1.0];
        let first = draw(top_p(1.0, 7), &logits, |_| true);
        assert_eq!(first, draw(top_p(1.0, 7), &logits, |_| true));
        assert_ne!(first, draw(top_p(1.0, 8), &logits, |_| true));
    }

    #[test]
    fn the_nucleus_holds_the_likeliest_only() {
        let logits = [5.0, 4.9, 1.0, 0.0];
        let drawn = draw(top_p(0.9, 3), &logits, |_| true);
        assert!(drawn.contains(&0) && drawn.contains(&1), "{drawn:?}");
        assert!(drawn.iter().all(|token| *token < 2), "{drawn:?}");
        let drawn = draw(top_p(0.1, 3), &logits, |_| true);
        assert_eq!(drawn, [0; 12]);
    }

    #[test]
    fn drawing_among_some_tokens_equals_allowing_only_them() {
        let logits = [1.0, 9.0, 2.0, 1.0];
        let mut greedy = Sampler::new(Sampling::Greedy);
        assert_eq!(greedy.sample_among(&logits, [0, 2, 3].into_iter()), Some(2));
        assert_eq!(greedy.sample_among(&logits, [].into_iter()), None);
        let mut all = Sampler::new(top_p(1.0, 4));
        let mut few = Sampler::new(top_p(1.0, 4));
        for _ in 0..12 {
            let drawn = all.sample(&logits, |token| token != 1);
            assert_eq!(few.sample_among(&logits, [0, 2, 3].into_iter()), drawn);
        }
    }

    #[test]
    fn what_is_not_allowed_is_never_drawn() {
        let drawn = draw(top_p(1.0, 5), &[9.0, 1.0, 1.0], |token| token != 0);
        assert!(drawn.contains(&1) && drawn.contains(&2), "{drawn:?}");
        assert!(!drawn.contains(&0), "{drawn:?}");
    }
}
