//! The file of weights beside an ONNX graph, written tensor by tensor.
//!
//! Only some megabytes of a tensor are in memory at a time, and the scales of the whole one.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::Progress;
use super::protobuf::{self, element};
use super::quantize::{BLOCK, Bits, Quantizer};
use super::source::{Source, Tensor};

/// The name of the file.
pub(super) const FILE_NAME: &str = "model.onnx.data";

/// Where a tensor may begin, in bytes: at a page of memory, so that the file can be mapped.
const ALIGNMENT: u64 = 4096;

/// How many bytes of the source are read at a time, about.
const CHUNK: usize = 4 << 20;

/// No more threads than this work on a tensor.
const MAX_THREADS: usize = 8;

/// The file of weights, and where they come from.
pub(super) struct Weights<'a> {
    source: &'a Source,
    file: File,
    /// How many bytes were written.
    at: u64,
    threads: usize,
    done: u64,
    progress: &'a mut dyn FnMut(Progress),
}

/// The rows of a tensor, in an order.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The tensor.
    pub(super) tensor: &'a Tensor,
    /// Where rows alternate between the halves of a head, the rows of a head: they are brought into
    /// the order first half, second half.
    pub(super) alternating: Option<usize>,
}

impl Rows<'_> {
    /// The row of the tensor that comes at `row`.
    pub(super) fn source(&self, row: usize) -> usize {
        let Some(head) = self.alternating else {
            return row;
        };
        let (first, row) = (row / head * head, row % head);
        first + row % (head / 2) * 2 + row / (head / 2)
    }
}

/// A matrix as `MatMulNBits` reads it: the names of its two tensors.
pub(super) struct Matrix {
    /// uint8 `[rows, columns / BLOCK, bits.bytes()]`
    pub(super) quantized: String,
    /// float32 `[rows * columns / BLOCK]`
    pub(super) scales: String,
    /// Outputs.
    pub(super) rows: usize,
    /// Inputs.
    pub(super) columns: usize,
    /// Of a number.
    pub(super) bits: Bits,
}

impl<'a> Weights<'a> {
    /// Creates the file in the folder `target`.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Write`]
    pub(super) fn create(
        source: &'a Source,
        target: &Path,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Self, WeightsError> {
        let threads = std::thread::available_parallelism();
        Ok(Self {
            source,
            file: File::create_new(target.join(FILE_NAME)).map_err(WeightsError::Write)?,
            at: 0,
            threads: threads.map_or(1, usize::from).min(MAX_THREADS),
            done: 0,
            progress,
        })
    }

    /// Reports that all of the source is done, and makes sure that what was written is on the disk.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Write`]
    pub(super) fn finish(mut self) -> Result<(), WeightsError> {
        let total: u64 = self.source.tensors().map(|tensor| tensor.bytes).sum();
        self.report(total - self.done);
        self.file.sync_all().map_err(WeightsError::Write)
    }

    fn report(&mut self, bytes: u64) {
        self.done += bytes;
        let total = self.source.tensors().map(|tensor| tensor.bytes).sum();
        (self.progress)(Progress {
            done: self.done,
            total,
        });
    }

    /// The weights of a small tensor.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`].
    pub(super) fn read(&mut self, rows: Rows<'_>) -> Result<Vec<f32>, WeightsError> {
        let tensor = rows.tensor;
        let mut bytes = vec![0; tensor.bytes as usize];
        self.read_rows(tensor, 0, &mut bytes)?;
        let mut weights = vec![0.0; tensor.columns() * tensor.rows()];
        tensor.block_type.dequantize(&bytes, &mut weights);
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err(WeightsError::NotFinite(tensor.name.clone()));
        }
        self.report(tensor.bytes);
        let sources = (0..weights.len()).map(|index| weights[rows.source(index)]);
        Ok(sources.collect())
    }

    /// Whether two matrices of one shape hold the same weights, apart from what quantising them
    /// differently does: that changes a weight by a part, and the weights of another matrix differ
    /// by more than the weights themselves.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`].
    pub(super) fn are_alike(&self, one: &Tensor, other: &Tensor) -> Result<bool, WeightsError> {
        const SAMPLES: usize = 256;
        // What is not quantised is the same, or a copy that was trained apart.
        if [one, other].map(|tensor| tensor.block_type.weights()) == [1, 1] {
            return self.are_equal(one, other);
        }
        let row_of = |tensor: &Tensor, row| -> Result<Vec<f32>, WeightsError> {
            let mut bytes = vec![0; tensor.row_bytes()];
            self.read_rows(tensor, row, &mut bytes)?;
            let mut weights = vec![0.0; tensor.columns()];
            tensor.block_type.dequantize(&bytes, &mut weights);
            Ok(weights)
        };
        let (mut difference, mut size) = (0.0, 0.0);
        for row in (0..one.rows()).step_by(one.rows().div_ceil(SAMPLES)) {
            for (one, other) in row_of(one, row)?.into_iter().zip(row_of(other, row)?) {
                difference += f64::from(one - other).powi(2);
                size += f64::from(one).powi(2) + f64::from(other).powi(2);
            }
        }
        Ok(difference < 0.1 * size)
    }

    /// Whether two matrices of one shape have the same bytes.
    fn are_equal(&self, one: &Tensor, other: &Tensor) -> Result<bool, WeightsError> {
        if one.block_type != other.block_type {
            return Ok(false);
        }
        let row_bytes = one.row_bytes();
        let chunk = (CHUNK / row_bytes).max(1);
        for first in (0..one.rows()).step_by(chunk) {
            let count = chunk.min(one.rows() - first);
            let mut rows = [one, other].map(|_| vec![0; count * row_bytes]);
            for (tensor, rows) in [one, other].into_iter().zip(&mut rows) {
                self.read_rows(tensor, first, rows)?;
            }
            if rows[0] != rows[1] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_rows(
        &self,
        tensor: &Tensor,
        first: usize,
        rows: &mut [u8],
    ) -> Result<(), WeightsError> {
        let read = self.source.read_rows(tensor, first, rows);
        read.map_err(WeightsError::Read)
    }

    /// Writes the rows of all `parts`, one after the other and times `factor`, as one quantised
    /// matrix `name`.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`].
    pub(super) fn matrix(
        &mut self,
        name: &str,
        parts: &[Rows<'_>],
        factor: f32,
        bits: Bits,
        initializers: &mut Vec<protobuf::Tensor>,
    ) -> Result<Matrix, WeightsError> {
        let columns = parts[0].tensor.columns();
        let rows: usize = parts.iter().map(|part| part.tensor.rows()).sum();
        let blocks = columns / BLOCK;
        let matrix = Matrix {
            quantized: format!("{name}.quantized"),
            scales: format!("{name}.scales"),
            rows,
            columns,
            bits,
        };
        let offset = self.align()?;
        let mut scales = vec![0.0; rows * blocks];
        let mut next = scales.as_mut_slice();
        for part in parts {
            let (of_part, rest) = next.split_at_mut(part.tensor.rows() * blocks);
            self.quantize(*part, bits, of_part)?;
            next = rest;
        }
        for scale in &mut scales {
            *scale *= factor;
        }
        let dims = [rows, blocks, bits.bytes()];
        let length = dims.iter().product::<usize>() as u64;
        initializers.push(external(
            &matrix.quantized,
            element::UINT8,
            &dims,
            offset,
            length,
        ));
        self.floats(&matrix.scales, &scales, &[rows * blocks], initializers)?;
        Ok(matrix)
    }

    /// Writes `rows` quantised, and puts the scales of their blocks into `scales`.
    fn quantize(
        &mut self,
        rows: Rows<'_>,
        bits: Bits,
        mut scales: &mut [f32],
    ) -> Result<(), WeightsError> {
        let tensor = rows.tensor;
        let (columns, row_bytes) = (tensor.columns(), tensor.row_bytes());
        let blocks = columns / BLOCK;
        let bytes = blocks * bits.bytes();
        // Whole heads, whose rows may be in another order.
        let unit = rows.alternating.unwrap_or(1);
        let chunk = (CHUNK / row_bytes).next_multiple_of(unit).max(unit);
        let mut first = 0;
        let mut source = Vec::new();
        let mut quantized = Vec::new();
        while first < tensor.rows() {
            let count = chunk.min(tensor.rows() - first);
            source.resize(count * row_bytes, 0);
            self.read_rows(tensor, first, &mut source)?;
            quantized.resize(count * bytes, 0);
            let (of_chunk, rest) = scales.split_at_mut(count * blocks);
            scales = rest;
            let share = count.div_ceil(self.threads);
            let shares = quantized
                .chunks_mut(share * bytes)
                .zip(of_chunk.chunks_mut(share * blocks));
            let source = source.as_slice();
            let finite = std::thread::scope(|scope| {
                let work = shares.enumerate().map(|(index, (quantized, scales))| {
                    scope.spawn(move || {
                        let mut quantizer = Quantizer::new(bits, tensor.block_type, columns);
                        let outputs = quantized.chunks_mut(bytes).zip(scales.chunks_mut(blocks));
                        let mut finite = true;
                        for (row, (quantized, scales)) in outputs.enumerate() {
                            let at = rows.source(index * share + row) * row_bytes;
                            let row = &source[at..at + row_bytes];
                            finite &= quantizer.quantize(row, quantized, scales);
                        }
                        finite
                    })
                });
                let work: Vec<_> = work.collect();
                // A thread that panicked did not finish.
                work.into_iter()
                    .all(|thread| thread.join().unwrap_or(false))
            });
            if !finite {
                return Err(WeightsError::NotFinite(tensor.name.clone()));
            }
            self.write(&quantized)?;
            self.report((count * row_bytes) as u64);
            first += count;
        }
        Ok(())
    }

    /// Writes a tensor of floats.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Write`]
    pub(super) fn floats(
        &mut self,
        name: &str,
        floats: &[f32],
        dims: &[usize],
        initializers: &mut Vec<protobuf::Tensor>,
    ) -> Result<(), WeightsError> {
        let offset = self.align()?;
        for floats in floats.chunks(CHUNK / size_of::<f32>()) {
            let bytes: Vec<u8> = floats
                .iter()
                .flat_map(|float| float.to_le_bytes())
                .collect();
            self.write(&bytes)?;
        }
        let length = size_of_val(floats) as u64;
        initializers.push(external(name, element::FLOAT, dims, offset, length));
        Ok(())
    }

    /// Where the next tensor begins.
    fn align(&mut self) -> Result<u64, WeightsError> {
        let padding = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.write(&[0; ALIGNMENT as usize][..padding as usize])?;
        Ok(self.at)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WeightsError> {
        self.file.write_all(bytes).map_err(WeightsError::Write)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// A tensor whose data are in the file of weights.
fn external(
    name: &str,
    data_type: i32,
    dims: &[usize],
    offset: u64,
    length: u64,
) -> protobuf::Tensor {
    let entry = |key: &str, value: String| protobuf::Entry {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    protobuf::Tensor {
        dims: dims.iter().map(|dim| *dim as i64).collect(),
        data_type: Some(data_type),
        name: Some(name.to_owned()),
        raw_data: None,
        external_data: vec![
            entry("location", FILE_NAME.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ],
        data_location: Some(1),
    }
}

/// Why the weights cannot be written. The caller puts a file's name before this.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The source cannot be read.
    #[error("its weights cannot be read: {0}; try again")]
    Read(io::Error),
    /// A weight is not a number.
    #[error("its tensor {0} has weights that are not numbers; download the file again")]
    NotFinite(String),
    /// The target cannot be written.
    #[error("{0}; free some disk space, or name another folder")]
    Write(io::Error),
}
