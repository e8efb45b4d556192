//! How fast this machine runs the model at hand, and the limits that follow from it.

use std::time::{Duration, Instant};

use super::cancel::Cancel;
use super::decoder::Decoder;
use crate::model::ForwardError;

/// A pass of the model takes at most about this long, because a keystroke waits for the pass in
/// progress.
const PASS: Duration = Duration::from_millis(50);

/// A prompt with nothing in the cache is read within this time.
const READING: Duration = Duration::from_secs(1);

/// The lengths of prompts, in tokens. The steps are coarse, or two starts on one machine would show
/// the model different amounts of a file.
const PROMPTS: [usize; 7] = [128, 192, 256, 384, 512, 768, LONGEST_PROMPT];

/// The longest prompt, in tokens.
pub(super) const LONGEST_PROMPT: usize = 1024;

/// The most texts in one batch.
const LANES: usize = 16;

/// Tokens of a long line of code.
const LINE: usize = 24;

/// The least and the most time to wait for a line, whatever the model.
const LINE_TIME: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1500)];

/// What was measured after loading, and learned since.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Prompt tokens a second.
    pub(super) prefill: f64,
    /// Written tokens a second, in one text.
    pub(super) decode: f64,
    /// What each additional text in a batch adds to a pass.
    pub(super) lane: Duration,
    /// Tokens of one pass while a prompt is read.
    pub(super) chunk: usize,
}

impl Pace {
    /// Measures with `decoder`, which is empty afterwards. Whoever starts the engine waits for it,
    /// so it does no more than the limits need (docs/decisions/014-start.md): what it finds too slow,
    /// because a pass was the first of its kind, later passes correct.
    ///
    /// # Errors
    ///
    /// When the model fails.
    pub(super) fn measure(decoder: &mut Decoder) -> Result<Self, ForwardError> {
        const FIRST: usize = 4;
        const PROMPT: usize = 48;
        const BATCH: usize = 4;
        // Any ids will do: only their number costs time. Ascending ones are all different.
        let ids: Vec<u32> = (0..(FIRST + 2 * PROMPT) as u32).collect();
        let read = |decoder: &mut Decoder, to: usize| {
            timed(|| decoder.prefill(&ids[..to], PROMPT, &Cancel::default()))
        };
        read(decoder, FIRST)?;
        let prefill = read(decoder, FIRST + PROMPT)?;
        let step = timed(|| decoder.step(0))?.min(timed(|| decoder.step(0))?);

        let past = decoder.tokens().len();
        let mut fork = decoder.fork(BATCH, past + 1)?;
        let mut logits = Vec::new();
        let batch = timed(|| fork.forward(&[past; BATCH], &[0; BATCH], 1, &mut logits))?;

        // Short passes take longer per token than long ones, so that a short one is timed too.
        let mut chunk = chunk(PROMPT, prefill);
        if chunk < PROMPT {
            decoder.truncate(FIRST + PROMPT);
            let short = read(decoder, FIRST + PROMPT + chunk)?;
            chunk = chunk.min(self::chunk(chunk, short));
        }
        decoder.truncate(0);
        Ok(Self {
            prefill: speed(PROMPT, prefill),
            decode: speed(1, step),
            lane: batch.saturating_sub(step) / (BATCH as u32 - 1),
            chunk,
        })
    }

    /// Learns from a pass that read `tokens` tokens. The machine may have been busy when it was
    /// measured, so only faster passes count: nothing makes a machine seem faster than it is.
    pub(super) fn observe_reading(&mut self, tokens: usize, time: Duration) {
        // A pass over a few tokens says little about a long one.
        if tokens >= self.chunk {
            self.prefill = self.prefill.max(speed(tokens, time));
            self.chunk = self.chunk.max(chunk(tokens, time).min(2 * self.chunk));
        }
    }

    /// Learns from a pass that wrote a token in each of `lanes` texts. As with reading, only faster
    /// passes count.
    pub(super) fn observe_writing(&mut self, lanes: usize, time: Duration) {
        match lanes.checked_sub(1) {
            None | Some(0) => self.decode = self.decode.max(speed(1, time)),
            Some(further) => {
                let lane =
                    time.saturating_sub(self.step()) / u32::try_from(further).unwrap_or(u32::MAX);
                self.lane = self.lane.min(lane);
            }
        }
    }

    /// The longest prompt of a completion, in tokens, that leaves room for the answer within
    /// `capacity` tokens.
    pub(super) fn prompt_tokens(&self, capacity: usize) -> usize {
        let readable = (self.prefill * READING.as_secs_f64()) as usize;
        let fitting = PROMPTS.iter().rev().find(|tokens| **tokens <= readable);
        fitting
            .unwrap_or(&PROMPTS[0])
            .to_owned()
            .min(capacity * 2 / 3)
    }

    /// How many texts a batch may have.
    pub(super) fn lanes(&self) -> usize {
        let left = PASS.saturating_sub(self.step()).as_secs_f64();
        let further = left / self.lane.as_secs_f64().max(1e-9);
        (1 + further as usize).clamp(1, LANES)
    }

    /// The time of a pass that writes one token.
    fn step(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.decode.max(1e-3))
    }

    /// How long an automatic completion may write.
    pub(super) fn line_time(&self) -> Duration {
        let line = Duration::from_secs_f64(LINE as f64 / self.decode.max(1e-3));
        let [least, most] = LINE_TIME;
        // In tenths of a second, because people read it.
        let tenths = (line.as_secs_f64() * 10.0).ceil() as u64;
        Duration::from_millis(100 * tenths).clamp(least, most)
    }
}

/// Tokens a second.
fn speed(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(1e-9)
}

/// The tokens of a pass that takes [`PASS`], where `tokens` take `time`.
fn chunk(tokens: usize, time: Duration) -> usize {
    let fitting = tokens as f64 * PASS.as_secs_f64() / time.as_secs_f64().max(1e-9);
    (fitting as usize / 4 * 4).clamp(8, 256)
}

fn timed<T>(work: impl FnOnce() -> Result<T, ForwardError>) -> Result<Duration, ForwardError> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speeds in tokens a second and milliseconds a lane; then prompt tokens, lanes, and the time
    /// of a line in milliseconds.
    fn check(prefill: f64, decode: f64, lane: u64, expected: (usize, usize, u64)) {
        let pace = Pace {
            prefill,
            decode,
            lane: Duration::from_millis(lane),
            chunk: 64,
        };
        let line = pace.line_time().as_millis() as u64;
        assert_eq!((pace.prompt_tokens(1536), pace.lanes(), line), expected);
    }

    #[test]
    fn limits_follow_from_the_speed() {
        // 135M, 0.5B and 1.5B parameters on two cores, a fast GPU, and a machine that is far too
        // slow.
        check(1100.0, 100.0, 4, (1024, 11, 400));
        check(300.0, 38.0, 10, (256, 3, 700));
        check(110.0, 14.0, 30, (128, 1, 1500));
        check(20_000.0, 300.0, 1, (1024, 16, 400));
        check(1.0, 0.1, 9000, (128, 1, 1500));
    }

    #[test]
    fn a_busy_start_is_forgotten() {
        let busy = Pace {
            prefill: 30.0,
            decode: 4.0,
            lane: Duration::from_millis(200),
            chunk: 8,
        };
        let mut pace = busy;
        pace.observe_reading(8, Duration::from_millis(900));
        pace.observe_reading(4, Duration::from_millis(1));
        pace.observe_writing(1, Duration::from_millis(300));
        pace.observe_writing(3, Duration::from_millis(900));
        assert_eq!(pace, busy, "slower passes, and short ones, teach nothing");
        for _ in 0..3 {
            // 300 tokens a second.
            let tokens = pace.chunk;
            pace.observe_reading(tokens, Duration::from_secs_f64(tokens as f64 / 300.0));
        }
        pace.observe_writing(1, Duration::from_millis(25));
        pace.observe_writing(3, Duration::from_millis(45));
        assert_eq!(
            (pace.prompt_tokens(1536), pace.chunk, pace.lanes()),
            (256, 12, 3)
        );
        assert_eq!(pace.line_time(), Duration::from_millis(600));
    }

    #[test]
    fn a_pass_takes_no_longer_than_a_keystroke_may_wait() {
        for (tokens, milliseconds, expected) in
            [(64, 60, 52), (64, 213, 12), (64, 100, 32), (64, 1, 256)]
        {
            assert_eq!(chunk(tokens, Duration::from_millis(milliseconds)), expected);
        }
    }
}
