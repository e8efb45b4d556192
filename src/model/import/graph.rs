//! The graph of an imported model, which reads and writes its key/value cache in place.

use std::path::Path;

use prost::Message as _;

use super::Progress;
use super::architecture::{Architecture, Layer, Linear, Norm};
use super::family::Activation;
use super::protobuf::{self, Size, element};
use super::quantize::{BLOCK, Bits};
use super::source::{Source, Tensor};
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
    source: &Source,
    architecture: &Architecture<'_>,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), WeightsError> {
    let weights = Weights::create(source, target, progress)?;
    let mut builder = Builder {
        weights,
        nodes: Vec::new(),
        initializers: Vec::new(),
    };
    let a = architecture;
    builder.constants(a)?;
    let (head, head_scale) = builder.embedding(a)?;
    let mut hidden = builder.norm_of_embedding(a)?;
    for (index, layer) in a.layers.iter().enumerate() {
        // The last norm carries what logits are multiplied by.
        let next = a.layers.get(index + 1);
        let (next, scale) = next.map_or((a.norm, head_scale), |next| (next.attention_norm, 1.0));
        hidden = builder.attention(a, index, layer, &hidden)?;
        hidden = builder.feed_forward(a, index, layer, &hidden, (next, scale))?;
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

    /// The weights of a norm, times `scale`.
    fn norm(
        &mut self,
        a: &Architecture<'_>,
        name: &str,
        norm: Norm<'_>,
        scale: f32,
    ) -> Result<Gains, WeightsError> {
        let mut weights = self.weights.read(whole(norm.weight))?;
        for weight in &mut weights {
            *weight = (*weight + a.norm_offset) * scale;
        }
        self.vector(name, &weights);
        let bias = match norm.bias {
            None => None,
            Some(bias) => Some(self.bias(name, [whole(bias)], scale)?),
        };
        Ok(Gains {
            weight: name.to_owned(),
            bias,
        })
    }

    /// What is added to the elements of `name`, times `scale`. Returns its name.
    fn bias<'a>(
        &mut self,
        name: &str,
        parts: impl IntoIterator<Item = Rows<'a>>,
        scale: f32,
    ) -> Result<String, WeightsError> {
        let mut all = Vec::new();
        for part in parts {
            all.extend(self.weights.read(part)?);
        }
        for weight in &mut all {
            *weight *= scale;
        }
        let name = format!("{name}.bias");
        self.vector(&name, &all);
        Ok(name)
    }

    /// A matrix with a row for each token, times `scale`. 8 bits, since each token that is written
    /// depends on it.
    fn token_matrix(
        &mut self,
        name: &str,
        tensor: &Tensor,
        scale: f32,
    ) -> Result<Matrix, WeightsError> {
        let (parts, initializers) = ([whole(tensor)], &mut self.initializers);
        self.weights
            .matrix(name, &parts, scale, Bits::Eight, initializers)
    }

    /// The matrix `name` of the rows of all `parts`, and the product of `input` with it, plus what
    /// is added to it, all times `scale`. Returns the product's name.
    fn linear(
        &mut self,
        name: &str,
        parts: &[(Linear<'_>, Option<usize>)],
        scale: f32,
        input: &str,
    ) -> Result<String, WeightsError> {
        let rows = |tensor, alternating| Rows {
            tensor,
            alternating,
        };
        let matrices = parts.iter().map(|(part, order)| rows(part.weight, *order));
        let matrices: Vec<_> = matrices.collect();
        let bits = Bits::of(matrices.iter().map(|part| part.tensor.block_type));
        let matrix = self
            .weights
            .matrix(name, &matrices, scale, bits, &mut self.initializers)?;
        let biases = parts
            .iter()
            .filter_map(|(part, order)| Some(rows(part.bias?, *order)));
        let biases: Vec<_> = biases.collect();
        let bias = match biases.is_empty() {
            true => None,
            false => Some(self.bias(name, biases, scale)?),
        };
        let product = format!("{name}.product");
        self.product(input, &matrix, bias.as_deref(), &product);
        Ok(product)
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
        let mut frequencies = a.rotary.frequencies(a.head_dim);
        if let Some(factors) = a.rotary_factors {
            for (frequency, factor) in frequencies
                .iter_mut()
                .zip(self.weights.read(whole(factors))?)
            {
                *frequency /= f64::from(factor);
            }
        }
        for (name, function) in [("cos", f64::cos as fn(f64) -> f64), ("sin", f64::sin)] {
            let angles = (0..a.context_length).flat_map(|position| {
                let position = position as f64;
                frequencies
                    .iter()
                    .map(move |frequency| position * frequency)
            });
            let table = angles.map(|angle| (a.rotary.amplitude * function(angle)) as f32);
            let table: Vec<f32> = table.collect();
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

    /// Looks the tokens up, as `hidden.0`. Returns the matrix that makes logits, and what is left to
    /// multiply them by.
    fn embedding(&mut self, a: &Architecture<'_>) -> Result<(Matrix, f32), WeightsError> {
        // Files may hold a shared matrix twice. The output's copy is the finer one then.
        let separate = match a.head {
            None => None,
            Some(head) if self.weights.are_alike(a.embedding, head)? => None,
            Some(head) => Some(head),
        };
        let (embedding, head, scale) = match separate {
            None => {
                let shared = a.head.unwrap_or(a.embedding);
                let shared = self.token_matrix("embedding", shared, a.embedding_scale)?;
                let names = (shared.quantized.clone(), shared.scales.clone());
                (names, shared, a.logit_scale / a.embedding_scale)
            }
            Some(head) => {
                let embedding = self.token_matrix("embedding", a.embedding, a.embedding_scale)?;
                let head = self.token_matrix("head", head, 1.0)?;
                ((embedding.quantized, embedding.scales), head, a.logit_scale)
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
        Ok((head, scale))
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

    /// `input`, normalised along its last dimension.
    fn normed(&mut self, a: &Architecture<'_>, input: &str, gains: &Gains, output: &str) {
        let mut inputs = vec![input, &gains.weight];
        inputs.extend(gains.bias.as_deref());
        let attributes = [
            ("epsilon", Float(a.epsilon)),
            ("axis", Int(-1)),
            ("stash_type", Int(1)),
        ];
        let op_type = match a.subtracts_mean {
            true => "LayerNormalization",
            false => "SimplifiedLayerNormalization",
        };
        self.node("", op_type, &inputs, &[output], &attributes);
    }

    fn norm_of_embedding(&mut self, a: &Architecture<'_>) -> Result<Hidden, WeightsError> {
        let gains = self.norm(a, "norm.0", a.layers[0].attention_norm, 1.0)?;
        self.normed(a, "hidden.0", &gains, "normed.0");
        Ok(Hidden {
            sum: "hidden.0".to_owned(),
            normed: "normed.0".to_owned(),
        })
    }

    /// Adds `change` to the hidden state, and normalises the sum.
    fn add(
        &mut self,
        a: &Architecture<'_>,
        hidden: &Hidden,
        change: &str,
        gains: &Gains,
    ) -> Hidden {
        let norm = &gains.weight;
        let (normed, sum) = (format!("{norm}.normed"), format!("{norm}.sum"));
        let mut inputs = vec![&*hidden.sum, change, norm];
        inputs.extend(gains.bias.as_deref());
        let outputs = [&*normed, "", "", &*sum];
        let attributes = [("epsilon", Float(a.epsilon))];
        let op_type = match a.subtracts_mean {
            true => "SkipLayerNormalization",
            false => "SkipSimplifiedLayerNormalization",
        };
        self.node(MICROSOFT, op_type, &inputs, &outputs, &attributes);
        Hidden { sum, normed }
    }

    /// The attention of a layer, and the norm after it.
    fn attention(
        &mut self,
        a: &Architecture<'_>,
        index: usize,
        layer: &Layer<'_>,
        hidden: &Hidden,
    ) -> Result<Hidden, WeightsError> {
        let name = |part: &str| format!("layer.{index}.{part}");
        let alternating = a.alternates.then_some(a.head_dim);
        let parts = [
            (layer.query, alternating),
            (layer.key, alternating),
            (layer.value, None),
        ];
        let product = self.linear(&name("query_key_value"), &parts, 1.0, &hidden.normed)?;
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
                ("scale", Float(a.attention_scale)),
                ("do_rotary", Int(1)),
                ("rotary_interleaved", Int(0)),
                (
                    "local_window_size",
                    Int(layer.window.map_or(-1, |window| window as i64)),
                ),
            ],
        );
        let output = [(layer.output, None)];
        let change = self.linear(&name("output"), &output, a.residual_scale, &attention)?;
        let gains = self.norm(a, &name("norm"), layer.feed_forward_norm, 1.0)?;
        Ok(self.add(a, hidden, &change, &gains))
    }

    /// The feed forward network of a layer, and `next`, the norm after it with its scale.
    fn feed_forward(
        &mut self,
        a: &Architecture<'_>,
        index: usize,
        layer: &Layer<'_>,
        hidden: &Hidden,
        next: (Norm<'_>, f32),
    ) -> Result<Hidden, WeightsError> {
        let name = |part: &str| format!("layer.{index}.{part}");
        let inner = match layer.gate {
            None => {
                let up = self.linear(&name("up"), &[(layer.up, None)], 1.0, &hidden.normed)?;
                self.activated(a, &up)
            }
            Some(gate) => {
                let gate = self.linear(&name("gate"), &[(gate, None)], 1.0, &hidden.normed)?;
                let up = self.linear(&name("up"), &[(layer.up, None)], 1.0, &hidden.normed)?;
                let (activated, gated) = (self.activated(a, &gate), name("gated"));
                self.node("", "Mul", &[&activated, &up], &[&gated], &[]);
                gated
            }
        };
        let down = [(layer.down, None)];
        let change = self.linear(&name("down"), &down, a.residual_scale, &inner)?;
        let gains = self.norm(a, &format!("norm.{}", index + 1), next.0, next.1)?;
        Ok(self.add(a, hidden, &change, &gains))
    }

    /// Applies the activation to each element. Returns the result's name.
    fn activated(&mut self, a: &Architecture<'_>, input: &str) -> String {
        let output = format!("{input}.activated");
        match a.activation {
            Activation::Gelu => self.node(MICROSOFT, "FastGelu", &[input], &[&output], &[]),
            Activation::Silu => {
                let sigmoid = format!("{input}.sigmoid");
                self.node("", "Sigmoid", &[input], &[&sigmoid], &[]);
                self.node("", "Mul", &[input, &sigmoid], &[&output], &[]);
            }
        }
        output
    }

    /// Takes the product of layer `index` apart into queries, keys and values, and normalises each
    /// head of the first two.
    fn head_norms(
        &mut self,
        a: &Architecture<'_>,
        index: usize,
        norms: [Norm<'_>; 2],
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
            let gains = self.norm(a, &of_part("norm"), norm, 1.0)?;
            let inputs = [&**part, &name("heads")];
            self.node("", "Reshape", &inputs, &[&of_part("heads")], &[]);
            self.normed(a, &of_part("heads"), &gains, &of_part("normed"));
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

/// The weights of a norm, by the names of their tensors.
struct Gains {
    weight: String,
    bias: Option<String>,
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
