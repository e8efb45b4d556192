//! Weights in 8 or 4 bits, as the operator `MatMulNBits` reads them: a weight is about the scale of
//! its block times a whole number.

use super::blocks::BlockType;

/// Weights that share a scale. They are consecutive in a row.
pub(super) const BLOCK: usize = 32;

/// Adding this to a number rounds it to a whole one, half to even, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// How many bits a number has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    /// From -128 to 127.
    Eight,
    /// From -8 to 7.
    Four,
}

/// The form of weights that no form keeps as they are. In 4 bits a model's file has two thirds of
/// the size, but its perplexity grows by 4 %: from 11.74 to 12.22 on 7,656 tokens of Interline's own
/// code, Qwen2.5-Coder-0.5B-Instruct from the publisher's q4_k_m file. What that costs in completions
/// is not measured.
const LOSSY: Bits = Bits::Eight;

impl Bits {
    /// The form of a matrix whose parts are stored as these types.
    pub(super) fn of(parts: impl IntoIterator<Item = BlockType>) -> Self {
        let mut parts = parts.into_iter();
        match parts.all(|part| part == BlockType::Q4_0) {
            true => Self::Four,
            false => LOSSY,
        }
    }

    /// As a number.
    pub(super) fn count(self) -> usize {
        match self {
            Self::Eight => 8,
            Self::Four => 4,
        }
    }

    /// Bytes of a block.
    pub(super) fn bytes(self) -> usize {
        self.count() * BLOCK / 8
    }

    /// Whether the numbers of this type are also numbers of this form.
    fn keeps(self, block_type: BlockType) -> bool {
        self == Self::Eight || block_type == BlockType::Q4_0
    }

    fn write(self, numbers: &[i8; BLOCK], bytes: &mut [u8]) {
        match self {
            Self::Eight => {
                for (byte, number) in bytes.iter_mut().zip(numbers) {
                    *byte = *number as u8 ^ 0x80;
                }
            }
            Self::Four => {
                for (byte, pair) in bytes.iter_mut().zip(numbers.as_chunks::<2>().0) {
                    let [low, high] = pair.map(|number| (number + 8) as u8);
                    *byte = low | high << 4;
                }
            }
        }
    }
}

/// Rows of a matrix on their way from one form into another.
pub(super) struct Quantizer {
    bits: Bits,
    block_type: BlockType,
    /// A row.
    weights: Vec<f32>,
}

impl Quantizer {
    /// For rows of `columns` weights that are stored as `block_type`.
    pub(super) fn new(bits: Bits, block_type: BlockType, columns: usize) -> Self {
        Self {
            bits,
            block_type,
            weights: vec![0.0; columns],
        }
    }

    /// Quantises the stored `row`. Where the form can, it keeps numbers and scales as they are; else
    /// no weight is further off than half a scale in 8 bits, and in 4 bits the scales are those of
    /// the least error. Returns whether all weights are finite.
    pub(super) fn quantize(&mut self, row: &[u8], bytes: &mut [u8], scales: &mut [f32]) -> bool {
        let outputs = bytes.chunks_exact_mut(self.bits.bytes()).zip(&mut *scales);
        let numbers = self.block_type.numbers();
        if let Some(numbers) = numbers.filter(|_| self.bits.keeps(self.block_type)) {
            let blocks = row.chunks_exact(self.block_type.bytes());
            for (block, (bytes, scale)) in blocks.zip(outputs) {
                let numbers_of_block;
                (*scale, numbers_of_block) = numbers(block);
                self.bits.write(&numbers_of_block, bytes);
            }
        } else {
            self.block_type.dequantize(row, &mut self.weights);
            let blocks = self.weights.as_chunks::<BLOCK>().0.iter();
            for (block, (bytes, scale)) in blocks.zip(outputs) {
                let numbers;
                (*scale, numbers) = match self.bits {
                    Bits::Eight => eight_bits(block),
                    Bits::Four => four_bits(block),
                };
                self.bits.write(&numbers, bytes);
            }
        }
        scales.iter().all(|scale| scale.is_finite())
    }
}

/// The largest number is 127. The scale is infinite or not a number if a weight is.
fn eight_bits(block: &[f32; BLOCK]) -> (f32, [i8; BLOCK]) {
    // The bits of positive numbers are in the numbers' order, with infinity and then what is not a
    // number at the end.
    let bits = block.iter().map(|weight| weight.abs().to_bits());
    let largest = f32::from_bits(bits.fold(0, u32::max));
    let scale = match largest / 127.0 {
        0.0 => 1.0,
        scale => scale,
    };
    (scale, block.map(|weight| round(weight / scale)))
}

/// The nearest whole number, which has 8 bits.
fn round(number: f32) -> i8 {
    // The low byte of a negative number is its two's complement.
    (number + ROUND).to_bits() as i8
}

/// Of some scales around the one that makes the largest weight -8, the one with the least error, in
/// which large weights count more: squares are weighted by the weights' squares.
///
/// Source: `make_qx_quants` of ggml's `ggml-quants.c`, in its idea.
fn four_bits(block: &[f32; BLOCK]) -> (f32, [i8; BLOCK]) {
    /// Sums that are added up side by side.
    const LANES: usize = 8;
    let largest = block.iter().fold(0.0_f32, |largest, weight| {
        match weight.abs() > largest.abs() || weight.is_nan() {
            true => *weight,
            false => largest,
        }
    });
    if largest == 0.0 || !largest.is_finite() {
        return (largest, [0; BLOCK]);
    }
    let numbers =
        |inverse: f32| block.map(|weight| ((weight * inverse).clamp(-8.0, 7.0) + ROUND) - ROUND);
    let (mut best, mut best_numbers, mut best_scale) = (0.0, [0.0; BLOCK], 1.0);
    for step in 0..15 {
        let numbers = numbers(-8.0 / (largest * (0.75 + 0.025 * step as f32)));
        let (mut products, mut squares) = ([0.0; LANES], [0.0; LANES]);
        let lanes = block.as_chunks::<LANES>().0.iter();
        for (weights, numbers) in lanes.zip(numbers.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                let (weight, number) = (weights[lane], numbers[lane]);
                let importance = weight * weight;
                products[lane] += importance * weight * number;
                squares[lane] += importance * number * number;
            }
        }
        let product: f32 = products.iter().sum();
        let square: f32 = squares.iter().sum();
        // With the best scale for these numbers the error is a constant less this.
        let gain = product * product / square;
        if gain > best {
            (best, best_numbers, best_scale) = (gain, numbers, product / square);
        }
    }
    (best_scale, best_numbers.map(round))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum of the squared errors, weighted by the weights' squares.
    fn error(block: &[f32; BLOCK], scale: f32, numbers: &[i8; BLOCK]) -> f32 {
        let errors = block.iter().zip(numbers);
        let errors =
            errors.map(|(weight, number)| (weight * (weight - scale * f32::from(*number))).powi(2));
        errors.sum()
    }

    proptest! {
        #[test]
        fn in_8_bits_no_weight_is_further_off_than_half_a_scale(
            block in proptest::array::uniform32(-2.0_f32..2.0),
        ) {
            let (scale, numbers) = eight_bits(&block);
            for (weight, number) in block.iter().zip(numbers) {
                let back = scale * f32::from(number);
                prop_assert!((back - weight).abs() <= 0.5001 * scale, "{weight} {back}");
            }
        }

        #[test]
        fn in_4_bits_errors_are_no_larger_than_with_the_largest_weight_as_8(
            block in proptest::array::uniform32(-2.0_f32..2.0),
        ) {
            let largest = block.into_iter().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
            let scale = largest / -8.0;
            let plain = block.map(|weight| (weight / scale).round().clamp(-8.0, 7.0) as i8);
            let (best_scale, best) = four_bits(&block);
            prop_assert!(best.iter().all(|number| (-8..8).contains(number)));
            let (found, most) = (error(&block, best_scale, &best), error(&block, scale, &plain));
            prop_assert!(found <= 1.001 * most + 1e-6, "{found} {most}");
        }
    }

    #[test]
    fn what_is_not_finite_is_seen() {
        for (weight, finite) in [
            (0.0, true),
            (f32::MAX, true),
            (f32::INFINITY, false),
            (f32::NEG_INFINITY, false),
            (f32::NAN, false),
            (-f32::NAN, false),
        ] {
            let mut row = [0; 4 * BLOCK];
            row[28..32].copy_from_slice(&weight.to_le_bytes());
            for bits in [Bits::Eight, Bits::Four] {
                let mut bytes = vec![0; bits.bytes()];
                let mut quantizer = Quantizer::new(bits, BlockType::F32, BLOCK);
                let seen = quantizer.quantize(&row, &mut bytes, &mut [0.0]);
                assert_eq!(seen, finite, "{weight}");
            }
        }
    }

    /// The bytes of one block, which begins with the scale 1 in half precision.
    fn check_kept(bits: Bits, block_type: BlockType, numbers: &[u8], expected: &[u8]) {
        let block = [&[0x00, 0x3C], numbers].concat();
        let mut bytes = vec![0; bits.bytes()];
        let mut scales = [0.0];
        let mut quantizer = Quantizer::new(bits, block_type, BLOCK);
        assert!(quantizer.quantize(&block, &mut bytes, &mut scales));
        assert_eq!((&*bytes, scales), (expected, [1.0]), "{block_type:?}");
    }

    #[test]
    fn numbers_of_the_source_are_kept() {
        // The first and the second half of the weights are in the lower and upper bits; then pairs.
        let nibbles: [u8; 16] = std::array::from_fn(|byte| byte as u8 | 3 << 4);
        let pairs = [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE];
        let four = [pairs, [0x33; 8]].concat();
        check_kept(Bits::Four, BlockType::Q4_0, &nibbles, &four);
        let eight: Vec<u8> = (120..136).chain([123; 16]).collect();
        check_kept(Bits::Eight, BlockType::Q4_0, &nibbles, &eight);
        let signed: Vec<u8> = (0..32).map(|number| number as u8 ^ 0x80).collect();
        let plain: Vec<u8> = (0..32).collect();
        check_kept(Bits::Eight, BlockType::Q8_0, &signed, &plain);
        let fifth = [&[0, 0, 0xFF, 0xFF], &nibbles[..]].concat();
        let eight: Vec<u8> = (112..128).chain([131; 16]).collect();
        check_kept(Bits::Eight, BlockType::Q5_0, &fifth, &eight);
    }
}
