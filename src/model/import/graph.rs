//! The graph of an imported model, which reads and writes its key/value cache in place.

use std::path::Path;

use prost::Message as _;

use super::Progress;
use super::architecture::{Architecture, Layer};
use super::gguf::{Gguf, Tensor};
use super::protobuf::{self, Size, element};
use super::quantize::{BLOCK, Bits};
use super::weights::{Matrix, Rows, Weights, WeightsError};

/// The name of the graph's file.
pub(super) const FILE_NAME: &str = "model.onnx";

/// The domain of ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";

/// Writes the graph and its weights into the folder `target`. Inputs and outputs are those of
/// [`crate::model::onnx::OnnxLm`].
///
/// Matrix products are `MatMulNBits` in 8 or 4 bits, whose `accuracy_level` of 4 makes activations 8
/// bits. The embedding and the output share their weights where the model does. Attention
/// is `GroupQueryAttention` with rotary embedding.
///
/// # Errors
///
/// See [`WeightsError`].
pub(super) fn write(
    gguf: &Gguf,
    architecture: &Architecture<'_>,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), WeightsError> {
    let weights = Weights::create(gguf, target, progress)?;
    let mut builder = Builder {
        weights,
        nodes: Vec::new(),
        initializers: Vec::new(),
    };
    let a = architecture;
    builder.constants(a)?;
    let head = builder.embedding(a)?;
    let mut hidden = builder.norm_of_embedding(a)?;
    for (index, layer) in a.layers.iter().enumerate() {
        let next = a.layers.get(index + 1);
        let next = next.map_or(a.norm, |next| next.attention_norm);
        hidden = builder.layer(a, index, layer, &hidden, next)?;
    }
    builder.logits(&hidden, &head);
    let Builder {
        weights,
        nodes,
        initializers,
    } = builder;
    weights.finish()?;
    let model = model(a, nodes, initializers);
    std::fs::write(target.join(FILE_NAME), model.encode_to_vec()).map_err(WeightsError::Write)
}

/// A graph that grows.
struct Builder<'a> {
    weights: Weights<'a>,
    nodes: Vec<protobuf::Node>,
    initializers: Vec<protobuf::Tensor>,
}

/// An attribute of a node.
#[derive(Clone, Copy)]
enum Attribute {
    Float(f32),
    Int(i64),
}

use Attribute::{Float, Int};

impl Builder<'_> {
    fn node(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) {
        let attributes = attributes.iter().map(|(name, attribute)| {
            let (kind, f, i) = match attribute {
                Float(float) => (1, Some(*float), None),
                Int(int) => (2, None, Some(*int)),
            };
            protobuf::Attribute {
                name: Some((*name).to_owned()),
                f,
                i,
                kind: Some(kind),
            }
        });
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.nodes.push(protobuf::Node {
            input: owned(inputs),
            output: owned(outputs),
            name: Some(outputs[0].to_owned()),
            op_type: Some(op_type.to_owned()),
            attribute: attributes.collect(),
            domain: Some(domain.to_owned()),
        });
    }

    /// A tensor that is stored in the graph itself.
    fn inline(&mut self, name: &str, data_type: i32, dims: &[usize], raw_data: Vec<u8>) {
        self.initializers.push(protobuf::Tensor {
            dims: dims.iter().map(|dim| *dim as i64).collect(),
            data_type: Some(data_type),
            name: Some(name.to_owned()),
            raw_data: Some(raw_data),
            external_data: Vec::new(),
            data_location: None,
        });
    }

    fn integers(&mut self, name: &str, dims: &[usize], integers: &[i64]) {
        let bytes = integers.iter().flat_map(|integer| integer.to_le_bytes());
        self.inline(name, element::INT64, dims, bytes.collect());
    }

    fn vector(&mut self, name: &str, vector: &[f32]) {
        let bytes = vector.iter().flat_map(|float| float.to_le_bytes());
        self.inline(name, element::FLOAT, &[vector.len()], bytes.collect());
    }

    /// The weights of a norm.
    fn norm(&mut self, name: &str, tensor: &Tensor) -> Result<(), WeightsError> {
        let weights = self.weights.read(whole(tensor))?;
        self.vector(name, &weights);
        Ok(())
    }

    fn matrix(&mut self, name: &str, parts: &[Rows<'_>]) -> Result<Matrix, WeightsError> {
        let bits = Bits::of(parts.iter().map(|part| part.tensor.block_type));
        self.weights
            .matrix(name, parts, bits, &mut self.initializers)
    }

    /// A matrix with a row for each token. 8 bits, since each token that is written depends on it.
    fn token_matrix(&mut self, name: &str, tensor: &Tensor) -> Result<Matrix, WeightsError> {
        let (parts, initializers) = ([whole(tensor)], &mut self.initializers);
        self.weights.matrix(name, &parts, Bits::Eight, initializers)
    }

    /// A product with a matrix, plus `bias`.
    fn product(&mut self, input: &str, matrix: &Matrix, bias: Option<&str>, output: &str) {
        let mut inputs = vec![input, &matrix.quantized, &matrix.scales];
        if let Some(bias) = bias {
            inputs.extend(["", "", bias]);
        }
        let attributes = [
            ("K", Int(matrix.columns as i64)),
            ("N", Int(matrix.rows as i64)),
            ("bits", Int(matrix.bits.count() as i64)),
            ("block_size", Int(BLOCK as i64)),
            ("accuracy_level", Int(4)),
        ];
        self.node(MICROSOFT, "MatMulNBits", &inputs, &[output], &attributes);
    }

    /// What all layers use: rotary angles, and the lengths of the sequences.
    fn constants(&mut self, a: &Architecture<'_>) -> Result<(), WeightsError> {
        self.integers("one", &[1], &[1]);
        self.integers("one.scalar", &[], &[1]);
        self.integers("end", &[1], &[i64::MAX]);

        let half = a.head_dim / 2;
        let factors = match a.rotary_factors {
            Some(factors) => self.weights.read(whole(factors))?,
            None => vec![1.0; half],
        };
        let frequencies = factors.iter().enumerate().map(|(index, factor)| {
            let exponent = -2.0 * index as f64 / a.head_dim as f64;
            a.rotary_base.powf(exponent) / f64::from(*factor) / a.rotary_scale
        });
        let frequencies: Vec<f64> = frequencies.collect();
        for (name, function) in [("cos", f64::cos as fn(f64) -> f64), ("sin", f64::sin)] {
            let angles = (0..a.context_length).flat_map(|position| {
                let position = position as f64;
                frequencies
                    .iter()
                    .map(move |frequency| position * frequency)
            });
            let table: Vec<f32> = angles.map(|angle| function(angle) as f32).collect();
            let dims = [a.context_length, half];
            self.weights
                .floats(name, &table, &dims, &mut self.initializers)?;
        }

        // The last token's position in each lane, and the longest lane's length.
        self.node("", "Shape", &["attention_mask"], &["mask.shape"], &[]);
        let gather = ["mask.shape", "one.scalar"];
        self.node("", "Gather", &gather, &["mask.length"], &[("axis", Int(0))]);
        let int32 = [("to", Int(element::INT32.into()))];
        self.node("", "Cast", &["mask.length"], &["total_length"], &int32);
        let sum = ["attention_mask", "one"];
        self.node(
            "",
            "ReduceSum",
            &sum,
            &["mask.sum"],
            &[("keepdims", Int(0))],
        );
        self.node("", "Sub", &["mask.sum", "one"], &["mask.last"], &[]);
        self.node("", "Cast", &["mask.last"], &["last_positions"], &int32);
        Ok(())
    }

    /// Looks the tokens up, as `hidden.0`. Returns the matrix that makes logits.
    fn embedding(&mut self, a: &Architecture<'_>) -> Result<Matrix, WeightsError> {
        // Files may hold a shared matrix twice. The output's copy is the finer one then.
        let separate = match a.head {
            None => None,
            Some(head) if self.weights.are_alike(a.embedding, head)? => None,
            Some(head) => Some(head),
        };
        let (embedding, head) = match separate {
            None => {
                let shared = a.head.unwrap_or(a.embedding);
                let shared = self.token_matrix("embedding", shared)?;
                let names = (shared.quantized.clone(), shared.scales.clone());
                (names, shared)
            }
            Some(head) => {
                let embedding = self.token_matrix("embedding", a.embedding)?;
                let head = self.token_matrix("head", head)?;
                ((embedding.quantized, embedding.scales), head)
            }
        };
        let (rows, columns) = (a.vocabulary as i64, a.width as i64);
        self.reshaped(&embedding.0, "embedding.rows", [rows, columns]);
        let blocks = columns / BLOCK as i64;
        self.reshaped(&embedding.1, "embedding.scale_rows", [rows, blocks]);
        let attributes = [
            ("bits", Int(8)),
            ("block_size", Int(BLOCK as i64)),
            ("gather_axis", Int(0)),
            ("quantize_axis", Int(1)),
        ];
        let inputs = ["embedding.rows", "input_ids", "embedding.scale_rows"];
        let outputs = ["hidden.0"];
        self.node(
            MICROSOFT,
            "GatherBlockQuantized",
            &inputs,
            &outputs,
            &attributes,
        );
        Ok(head)
    }

    /// Gives an initializer a second name and another shape. It is in the file of weights once. With
    /// a `Reshape` node ONNX Runtime would copy it while it loads.
    fn reshaped(&mut self, initializer: &str, name: &str, dims: [i64; 2]) {
        let is_it = |tensor: &&protobuf::Tensor| tensor.name.as_deref() == Some(initializer);
        if let Some(tensor) = self.initializers.iter().find(is_it) {
            self.initializers.push(protobuf::Tensor {
                name: Some(name.to_owned()),
                dims: dims.to_vec(),
                ..tensor.clone()
            });
        }
    }

    /// The first input, normalised along its last dimension and times the second.
    fn normed(&mut self, a: &Architecture<'_>, inputs: [&str; 2], output: &str) {
        let attributes = [
            ("epsilon", Float(a.epsilon)),
            ("axis", Int(-1)),
            ("stash_type", Int(1)),
        ];
        let op_type = "SimplifiedLayerNormalization";
        self.node("", op_type, &inputs, &[output], &attributes);
    }

    fn norm_of_embedding(&mut self, a: &Architecture<'_>) -> Result<Hidden, WeightsError> {
        self.norm("norm.0", a.layers[0].attention_norm)?;
        self.normed(a, ["hidden.0", "norm.0"], "normed.0");
        Ok(Hidden {
            sum: "hidden.0".to_owned(),
            normed: "normed.0".to_owned(),
        })
    }

    /// Adds `change` to the hidden state, and normalises the sum.
    fn add(&mut self, a: &Architecture<'_>, hidden: &Hidden, change: &str, norm: &str) -> Hidden {
        let (normed, sum) = (format!("{norm}.normed"), format!("{norm}.sum"));
        let inputs = [&*hidden.sum, change, norm];
        let outputs = [&*normed, "", "", &*sum];
        let attributes = [("epsilon", Float(a.epsilon))];
        let op_type = "SkipSimplifiedLayerNormalization";
        self.node(MICROSOFT, op_type, &inputs, &outputs, &attributes);
        Hidden { sum, normed }
    }

    /// A layer. `next` is the norm after it.
    fn layer(
        &mut self,
        a: &Architecture<'_>,
        index: usize,
        layer: &Layer<'_>,
        hidden: &Hidden,
        next: &Tensor,
    ) -> Result<Hidden, WeightsError> {
        let name = |part: &str| format!("layer.{index}.{part}");
        let alternating = a.alternates.then_some(a.head_dim);
        let turned = |tensor| Rows {
            tensor,
            alternating,
        };
        let parts = [turned(layer.query), turned(layer.key), whole(layer.value)];
        let matrix = self.matrix(&name("query_key_value"), &parts)?;
        let mut bias = None;
        if let Some([query, key, value]) = layer.bias {
            let mut all = Vec::new();
            for part in [turned(query), turned(key), whole(value)] {
                all.extend(self.weights.read(part)?);
            }
            self.vector(&name("query_key_value.bias"), &all);
            bias = Some(name("query_key_value.bias"));
        }
        let product = name("query_key_value.product");
        self.product(&hidden.normed, &matrix, bias.as_deref(), &product);
        // One input for all three, or three.
        let (mut query, mut key, mut value) = (product, String::new(), String::new());
        if let Some(norms) = layer.head_norms {
            (query, key, value) = self.head_norms(a, index, norms, &query)?;
        }
        let past = |kind: &str| format!("past_key_values.{index}.{kind}");
        let present = |kind: &str| format!("present.{index}.{kind}");
        let (past_key, past_value) = (past("key"), past("value"));
        let (present_key, present_value) = (present("key"), present("value"));
        let attention = name("attention");
        self.node(
            MICROSOFT,
            "GroupQueryAttention",
            &[
                &query,
                &key,
                &value,
                &past_key,
                &past_value,
                "last_positions",
                "total_length",
                "cos",
                "sin",
            ],
            &[&attention, &present_key, &present_value],
            &[
                ("num_heads", Int(a.heads as i64)),
                ("kv_num_heads", Int(a.key_value_heads as i64)),
                ("scale", Float((a.head_dim as f32).powf(-0.5))),
                ("do_rotary", Int(1)),
                ("rotary_interleaved", Int(0)),
                ("local_window_size", Int(-1)),
            ],
        );
        let output = self.matrix(&name("output"), &[whole(layer.output)])?;
        self.product(&attention, &output, None, &name("output.product"));
        self.norm(&name("norm"), layer.feed_forward_norm)?;
        let hidden = self.add(a, hidden, &name("output.product"), &name("norm"));

        let gate = self.matrix(&name("gate"), &[whole(layer.gate)])?;
        self.product(&hidden.normed, &gate, None, &name("gate.product"));
        let up = self.matrix(&name("up"), &[whole(layer.up)])?;
        self.product(&hidden.normed, &up, None, &name("up.product"));
        let (gate, up) = (name("gate.product"), name("up.product"));
        let (sigmoid, silu, gated) = (name("sigmoid"), name("silu"), name("gated"));
        self.node("", "Sigmoid", &[&gate], &[&sigmoid], &[]);
        self.node("", "Mul", &[&gate, &sigmoid], &[&silu], &[]);
        self.node("", "Mul", &[&silu, &up], &[&gated], &[]);
        let down = self.matrix(&name("down"), &[whole(layer.down)])?;
        self.product(&gated, &down, None, &name("down.product"));
        let norm = format!("norm.{}", index + 1);
        self.norm(&norm, next)?;
        Ok(self.add(a, &hidden, &name("down.product"), &norm))
    }

    /// Takes the product of layer `index` apart into queries, keys and values, and normalises each
    /// head of the first two.
    fn head_norms(
        &mut self,
        a: &Architecture<'_>,
        index: usize,
        norms: [&Tensor; 2],
        product: &str,
    ) -> Result<(String, String, String), WeightsError> {
        let name = |part: &str| format!("layer.{index}.{part}");
        let (query, key) = (a.heads * a.head_dim, a.key_value_heads * a.head_dim);
        self.integers(
            &name("split"),
            &[3],
            &[query, key, key].map(|width| width as i64),
        );
        let parts = ["query", "key", "value"].map(name);
        let outputs = parts.each_ref().map(String::as_str);
        let inputs = [product, &name("split")];
        self.node("", "Split", &inputs, &outputs, &[("axis", Int(-1))]);
        // A size of 0 is the input's own.
        self.integers(&name("heads"), &[4], &[0, 0, -1, a.head_dim as i64]);
        self.integers(&name("flat"), &[3], &[0, 0, -1]);
        let [query, key, value] = parts;
        let mut normed = [query, key];
        for (part, norm) in normed.iter_mut().zip(norms) {
            let of_part = |suffix: &str| format!("{part}.{suffix}");
            self.norm(&of_part("norm"), norm)?;
            let inputs = [&**part, &name("heads")];
            self.node("", "Reshape", &inputs, &[&of_part("heads")], &[]);
            let inputs = [&*of_part("heads"), &of_part("norm")];
            self.normed(a, inputs, &of_part("normed"));
            let inputs = [&*of_part("normed"), &name("flat")];
            let flat = of_part("flat");
            self.node("", "Reshape", &inputs, &[&flat], &[]);
            *part = flat;
        }
        let [query, key] = normed;
        Ok((query, key, value))
    }

    /// The logits of the rows that are asked for.
    fn logits(&mut self, hidden: &Hidden, head: &Matrix) {
        self.node("", "Neg", &["num_logits_to_keep"], &["keep.negative"], &[]);
        self.node(
            "",
            "Reshape",
            &["keep.negative", "one"],
            &["keep.start"],
            &[],
        );
        let inputs = [&*hidden.normed, "keep.start", "end", "one"];
        self.node("", "Slice", &inputs, &["kept"], &[]);
        self.product("kept", head, None, "logits");
    }
}

/// A hidden state, by the names of its values.
struct Hidden {
    sum: String,
    normed: String,
}

fn whole(tensor: &Tensor) -> Rows<'_> {
    Rows {
        tensor,
        alternating: None,
    }
}

fn model(
    a: &Architecture<'_>,
    node: Vec<protobuf::Node>,
    initializer: Vec<protobuf::Tensor>,
) -> protobuf::Model {
    let fixed = |size: usize| Size::Fixed(size as i64);
    let open = |name: &str| Size::Open(name.to_owned());
    let cache = |name: String, length: &str| {
        let shape = [
            open("lanes"),
            fixed(a.key_value_heads),
            open(length),
            fixed(a.head_dim),
        ];
        value_info(&name, element::FLOAT, &shape)
    };
    let mut input = vec![
        value_info(
            "input_ids",
            element::INT64,
            &[open("lanes"), open("length")],
        ),
        value_info(
            "attention_mask",
            element::INT64,
            &[open("lanes"), open("total")],
        ),
        value_info("num_logits_to_keep", element::INT64, &[]),
    ];
    let logits = [open("lanes"), open("kept"), fixed(a.vocabulary)];
    let mut output = vec![value_info("logits", element::FLOAT, &logits)];
    for layer in 0..a.layers.len() {
        for kind in ["key", "value"] {
            input.push(cache(format!("past_key_values.{layer}.{kind}"), "past"));
            output.push(cache(format!("present.{layer}.{kind}"), "present"));
        }
    }
    let operators = |domain: &str, version| protobuf::OperatorSet {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    protobuf::Model {
        ir_version: Some(10),
        producer_name: Some("interline".to_owned()),
        producer_version: Some(super::VERSION.to_string()),
        graph: Some(protobuf::Graph {
            node,
            name: Some("decoder".to_owned()),
            initializer,
            input,
            output,
        }),
        opset_import: vec![operators("", 22), operators(MICROSOFT, 1)],
    }
}

fn value_info(name: &str, element: i32, sizes: &[Size]) -> protobuf::ValueInfo {
    let dim = sizes.iter().map(|size| protobuf::Dimension {
        size: Some(size.clone()),
    });
    let shape = protobuf::Shape { dim: dim.collect() };
    protobuf::ValueInfo {
        name: Some(name.to_owned()),
        kind: Some(protobuf::Type {
            tensor: Some(protobuf::TensorType {
                element: Some(element),
                shape: Some(shape),
            }),
        }),
    }
}
