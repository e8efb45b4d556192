//! The block types of GGUF tensors, and the weights that they stand for.
//!
//! Each weight equals what ggml computes to the bit: the operations and their order are those of
//! `dequantize_row_*` in its `ggml-quants.c`.

use half::{bf16, f16};

/// How a tensor's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
}

/// Weights of a block of the K types.
const SUPER: usize = 256;

/// The scale and the numbers of a block.
type NumbersOf = fn(&[u8]) -> (f32, [i8; 32]);

/// The numbers that the four bits of IQ4_NL stand for.
const IQ4_NL_NUMBERS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

impl BlockType {
    /// The type with ggml's number `code`, if its tensors can be read.
    pub(super) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            20 => Self::Iq4Nl,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// The name of a type that cannot be read, by ggml's number.
    pub(super) fn name_of(code: u32) -> String {
        let name = match code {
            9 => "Q8_1",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            _ => return format!("type {code}"),
        };
        name.to_owned()
    }

    /// Weights of a block.
    pub(super) fn weights(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Iq4Nl => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => SUPER,
        }
    }

    /// Bytes of a block.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The numbers of a block and their scale, where weights are that and nothing more: 8 bits times
    /// one scale.
    pub(super) fn numbers(self) -> Option<NumbersOf> {
        match self {
            Self::Q4_0 => Some(q4_0),
            Self::Q5_0 => Some(q5_0),
            Self::Q8_0 => Some(q8_0),
            Self::Iq4Nl => Some(iq4_nl),
            _ => None,
        }
    }

    /// The weights of whole blocks.
    pub(super) fn dequantize(self, blocks: &[u8], weights: &mut [f32]) {
        let blocks = blocks.chunks_exact(self.bytes());
        let blocks = blocks.zip(weights.chunks_exact_mut(self.weights()));
        if let Some(numbers) = self.numbers() {
            for (block, weights) in blocks {
                let (scale, numbers) = numbers(block);
                for (weight, number) in weights.iter_mut().zip(numbers) {
                    *weight = scale * f32::from(number);
                }
            }
            return;
        }
        let dequantize = match self {
            Self::F16 => f16_weight,
            Self::Bf16 => bf16_weight,
            Self::Q4_1 => q4_1,
            Self::Q5_1 => q5_1,
            Self::Q2K => q2_k,
            Self::Q3K => q3_k,
            Self::Q4K => q4_k,
            Self::Q5K => q5_k,
            Self::Q6K => q6_k,
            _ => f32_weight,
        };
        for (block, weights) in blocks {
            dequantize(block, weights);
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn f32_weight(block: &[u8], weights: &mut [f32]) {
    weights[0] = f32::from_bits(u32_at(block, 0));
}

fn f16_weight(block: &[u8], weights: &mut [f32]) {
    weights[0] = half_at(block, 0);
}

fn bf16_weight(block: &[u8], weights: &mut [f32]) {
    weights[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32();
}

/// The 32 numbers of 4 bits in 16 bytes: first all lower halves, then all upper ones.
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let mut nibbles = [0; 32];
    let (low, high) = nibbles.split_at_mut(16);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    nibbles
}

/// The 32 numbers of 5 bits: 4 bytes with the fifth bits, and the lower four as in [`nibbles`].
fn five_bits(bytes: &[u8]) -> [u8; 32] {
    let fifth = u32_at(bytes, 0);
    let mut numbers = nibbles(&bytes[4..]);
    for (bit, number) in numbers.iter_mut().enumerate() {
        *number |= ((fifth >> bit) as u8 & 1) << 4;
    }
    numbers
}

fn q4_0(block: &[u8]) -> (f32, [i8; 32]) {
    let numbers = nibbles(&block[2..]).map(|number| number as i8 - 8);
    (half_at(block, 0), numbers)
}

fn q4_1(block: &[u8], weights: &mut [f32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    for (weight, number) in weights.iter_mut().zip(nibbles(&block[4..])) {
        *weight = scale * f32::from(number) + min;
    }
}

fn q5_0(block: &[u8]) -> (f32, [i8; 32]) {
    let numbers = five_bits(&block[2..]).map(|number| number as i8 - 16);
    (half_at(block, 0), numbers)
}

fn q5_1(block: &[u8], weights: &mut [f32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    for (weight, number) in weights.iter_mut().zip(five_bits(&block[4..])) {
        *weight = scale * f32::from(number) + min;
    }
}

fn q8_0(block: &[u8]) -> (f32, [i8; 32]) {
    let mut numbers = [0; 32];
    for (number, byte) in numbers.iter_mut().zip(&block[2..]) {
        *number = *byte as i8;
    }
    (half_at(block, 0), numbers)
}

fn iq4_nl(block: &[u8]) -> (f32, [i8; 32]) {
    let numbers = nibbles(&block[2..]).map(|number| IQ4_NL_NUMBERS[usize::from(number)]);
    (half_at(block, 0), numbers)
}

/// 16 scales and minima of 4 bits, 64 bytes with 2 bits for each weight, two halves.
fn q2_k(block: &[u8], weights: &mut [f32]) {
    let (scales, numbers) = (&block[..16], &block[16..80]);
    let (scale, min) = (half_at(block, 80), half_at(block, 82));
    for (group, weights) in weights.chunks_exact_mut(16).enumerate() {
        let scale = scale * f32::from(scales[group] & 15);
        let min = min * f32::from(scales[group] >> 4);
        let shift = group / 2 % 4 * 2;
        let numbers = &numbers[group / 8 * 32 + group % 2 * 16..];
        for (weight, number) in weights.iter_mut().zip(numbers) {
            *weight = scale * f32::from(number >> shift & 3) - min;
        }
    }
}

/// 32 bytes with the third bits, inverted, 64 with the lower two, 16 scales of 6 bits, a half.
fn q3_k(block: &[u8], weights: &mut [f32]) {
    let (third, numbers, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = half_at(block, 108);
    for (group, weights) in weights.chunks_exact_mut(16).enumerate() {
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let scale = scale * f32::from((low | high << 4) as i8 - 32);
        let (shift, bit) = (group / 2 % 4 * 2, group / 2);
        let third = &third[group % 2 * 16..];
        let numbers = &numbers[group / 8 * 32 + group % 2 * 16..];
        for ((weight, number), third) in weights.iter_mut().zip(numbers).zip(third) {
            let number = (number >> shift & 3) as i8 - 4 + (third >> bit & 1) as i8 * 4;
            *weight = scale * f32::from(number);
        }
    }
}

/// The eighth of a block's scales and minima that has this `index`: 6 bits each, in 12 bytes.
fn scale_and_min(scales: &[u8], index: usize) -> (f32, f32) {
    let (scale, min) = match index {
        0..4 => (scales[index] & 63, scales[index + 4] & 63),
        _ => (
            scales[index + 4] & 15 | scales[index - 4] >> 6 << 4,
            scales[index + 4] >> 4 | scales[index] >> 6 << 4,
        ),
    };
    (f32::from(scale), f32::from(min))
}

/// Two halves, the scales and minima, 128 bytes with 4 bits for each weight.
fn q4_k(block: &[u8], weights: &mut [f32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let (scales, numbers) = (&block[4..16], &block[16..144]);
    for (group, weights) in weights.chunks_exact_mut(32).enumerate() {
        let (group_scale, group_min) = scale_and_min(scales, group);
        let (scale, min) = (scale * group_scale, min * group_min);
        let shift = group % 2 * 4;
        for (weight, number) in weights.iter_mut().zip(&numbers[group / 2 * 32..]) {
            *weight = scale * f32::from(number >> shift & 15) - min;
        }
    }
}

/// As [`q4_k`], with 32 bytes of fifth bits before the numbers.
fn q5_k(block: &[u8], weights: &mut [f32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    let (scales, fifth, numbers) = (&block[4..16], &block[16..48], &block[48..176]);
    for (group, weights) in weights.chunks_exact_mut(32).enumerate() {
        let (group_scale, group_min) = scale_and_min(scales, group);
        let (scale, min) = (scale * group_scale, min * group_min);
        let shift = group % 2 * 4;
        let numbers = numbers[group / 2 * 32..].iter().zip(fifth);
        for (weight, (number, fifth)) in weights.iter_mut().zip(numbers) {
            let number = number >> shift & 15 | (fifth >> group & 1) << 4;
            *weight = scale * f32::from(number) - min;
        }
    }
}

/// 128 bytes with the lower 4 bits, 64 with the upper 2, 16 scales of 8 bits, a half.
fn q6_k(block: &[u8], weights: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half_at(block, 208);
    for (group, weights) in weights.chunks_exact_mut(16).enumerate() {
        let scale = scale * f32::from(scales[group] as i8);
        // Of each half of the block, the four quarters: in the lower 4 bits of the first and the
        // second 32 bytes, then in the upper ones.
        let (half, quarter, at) = (group / 8, group / 2 % 4, group % 2 * 16);
        let low = &low[half * 64 + quarter % 2 * 32 + at..];
        let high = &high[half * 32 + at..];
        let (low_shift, high_shift) = (quarter / 2 * 4, quarter * 2);
        for ((weight, low), high) in weights.iter_mut().zip(low).zip(high) {
            let number = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
            *weight = scale * f32::from(number as i8 - 32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// See `tests/samples/gguf_blocks.py`.
    const SAMPLES: &[u8] = include_bytes!("../../../tests/samples/gguf_blocks.bin");

    #[test]
    fn weights_are_those_of_an_independent_reader() {
        let mut rest = SAMPLES;
        let mut take = |len: usize| rest.split_off(..len).unwrap();
        let mut seen = Vec::new();
        for _ in 0..14 {
            let [code, bytes, weights] = [0, 4, 8].map({
                let head = take(12);
                move |at| u32_at(head, at)
            });
            let block_type = BlockType::from_code(code).unwrap();
            assert_eq!(block_type.bytes(), bytes as usize);
            assert_eq!(block_type.weights(), weights as usize);
            let mut dequantized = vec![0.0; 2 * block_type.weights()];
            block_type.dequantize(take(2 * block_type.bytes()), &mut dequantized);
            for (index, weight) in dequantized.iter().enumerate() {
                let expected = u32_at(take(4), 0);
                assert_eq!(weight.to_bits(), expected, "{block_type:?}, weight {index}");
            }
            seen.push(code);
        }
        assert!(rest.is_empty());
        let all = (0..256).filter(|code| BlockType::from_code(*code).is_some());
        seen.sort_unstable();
        assert_eq!(seen, all.collect::<Vec<_>>());
    }
}
