//! The size of a graph's key/value cache, from the inputs that its file declares.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use prost::Message as _;

use crate::model::import::protobuf::{Dimension, Size, ValueInfo};
use crate::model::onnx::head_dim_of_config;

/// The number of the graph in an ONNX model, and of an input in a graph.
///
/// Source: `onnx/onnx.proto` of the ONNX repository.
const GRAPH: u64 = 7;
const INPUT: u64 = 11;

/// The longest declaration of an input, in bytes.
const MAX_INPUT: u64 = 64 * 1024;

/// ONNX's number for elements of 16 bits.
const FLOAT_16: i32 = 10;

/// Bytes of keys and values for each token of a sequence. `None` if the file does not say it.
///
/// # Errors
///
/// When the file cannot be read as an ONNX model.
pub(super) fn bytes_per_token(graph: &Path) -> io::Result<Option<u64>> {
    let inputs = inputs(graph)?;
    let caches = inputs.iter().filter(|input| {
        let name = input.name.as_deref();
        name.is_some_and(|name| name.starts_with("past_key_values."))
    });
    let open = || head_dim_of_config(graph).ok().map(|size| size as u64);
    let mut all = Some(0_u64);
    for cache in caches {
        all = all.and_then(|all| all.checked_add(bytes_of_row(cache, open)?));
    }
    Ok(all.filter(|bytes| *bytes > 0))
}

/// Bytes of the row that a cache `[lanes, heads, rows, width]` or `[lanes, rows, width]` has for a
/// token. `open` is the width where the graph leaves it open.
fn bytes_of_row(cache: &ValueInfo, open: impl Fn() -> Option<u64>) -> Option<u64> {
    let tensor = cache.kind.as_ref()?.tensor.as_ref()?;
    let bytes = match tensor.element {
        Some(FLOAT_16) => 2,
        _ => 4,
    };
    let fixed = |dimension: &Dimension| match dimension.size {
        Some(Size::Fixed(size)) => u64::try_from(size).ok(),
        _ => None,
    };
    let (heads, width) = match &tensor.shape.as_ref()?.dim[..] {
        [_, heads, _, width] => (fixed(heads)?, width),
        [_, _, width] => (1, width),
        _ => return None,
    };
    let width = fixed(width).or_else(open)?;
    heads.checked_mul(width)?.checked_mul(bytes)
}

/// The inputs of a graph. The file is read field by field, and what is not asked for is passed
/// over, since it may be larger than memory.
fn inputs(path: &Path) -> io::Result<Vec<ValueInfo>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut inputs = Vec::new();
    let mut in_graph = false;
    while let Some((number, length)) = field(&mut file)? {
        match number {
            // Its own fields come next.
            GRAPH if !in_graph => in_graph = true,
            INPUT if in_graph && length <= MAX_INPUT => {
                let mut bytes = vec![0; length as usize];
                file.read_exact(&mut bytes)?;
                inputs.push(ValueInfo::decode(&*bytes).map_err(io::Error::other)?);
            }
            _ => {
                let length = i64::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
                file.seek_relative(length)?;
            }
        }
    }
    Ok(inputs)
}

/// The number of the next field that has a content, and how many bytes follow. Other fields are
/// numbers, which are passed over.
fn field(file: &mut impl Read) -> io::Result<Option<(u64, u64)>> {
    while let Some(key) = varint(file)? {
        let length = match key & 7 {
            0 => {
                varint(file)?;
                continue;
            }
            1 => 8,
            2 => varint(file)?.ok_or(io::ErrorKind::UnexpectedEof)?,
            5 => 4,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        return Ok(Some((key >> 3, length)));
    }
    Ok(None)
}

/// A number in seven bits a byte; `None` at the end of the file.
fn varint(file: &mut impl Read) -> io::Result<Option<u64>> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        match file.read(&mut byte)? {
            0 if shift == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => value |= u64::from(byte[0] & 0x7f) << shift,
        }
        if byte[0] < 0x80 {
            return Ok(Some(value));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::import::protobuf::{Shape, TensorType, Type};
    use crate::model::tests::directory;

    /// A field that holds a message or a text.
    fn framed(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend(content);
        bytes
    }

    fn input(name: &str, element: i32, shape: &[i64]) -> Vec<u8> {
        let dim = shape.iter().map(|size| Dimension {
            size: Some(match size {
                -1 => Size::Open("n".to_owned()),
                size => Size::Fixed(*size),
            }),
        });
        let input = ValueInfo {
            name: Some(name.to_owned()),
            kind: Some(Type {
                tensor: Some(TensorType {
                    element: Some(element),
                    shape: Some(Shape { dim: dim.collect() }),
                }),
            }),
        };
        framed(11, &input.encode_to_vec())
    }

    fn read(bytes: &[u8]) -> io::Result<Option<u64>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        bytes_per_token(file.path())
    }

    fn check(inputs: &[Vec<u8>], expected: Option<u64>) {
        // A number first, and weights before the inputs.
        let weights = framed(5, &[11; 300]);
        let graph = framed(7, &[weights, inputs.concat()].concat());
        assert_eq!(read(&[vec![8, 10], graph].concat()).unwrap(), expected);
    }

    #[test]
    fn keys_and_values_of_all_layers_count() {
        let ids = input("input_ids", 7, &[-1, -1]);
        check(std::slice::from_ref(&ids), None);
        let key = input("past_key_values.0.key", 1, &[-1, 2, -1, 64]);
        let value = input("past_key_values.0.value", 10, &[1, 3, 512, 32]);
        check(&[ids, key.clone(), value], Some(2 * 64 * 4 + 3 * 32 * 2));
        let both = input("past_key_values.1.key_value", 1, &[-1, -1, 128]);
        check(&[key, both], Some(2 * 64 * 4 + 128 * 4));
        let open = input("past_key_values.0.key", 1, &[-1, 2, -1, -1]);
        check(&[open], None);
        let huge = input("past_key_values.0.key", 1, &[-1, i64::MAX, -1, i64::MAX]);
        check(&[huge], None);
    }

    #[test]
    fn a_size_that_the_graph_leaves_open_is_in_the_configuration() {
        // 30 layers of 3 heads of 64 elements.
        let bytes = bytes_per_token(&directory().join("model.onnx"));
        assert_eq!(bytes.unwrap(), Some(30 * 2 * 3 * 64 * 4));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in any::<Vec<u8>>()) {
            let _ = read(&bytes);
            let _ = read(&framed(7, &bytes));
        }
    }
}
