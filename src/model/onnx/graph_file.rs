//! What the file of a graph says before ONNX Runtime reads it: its inputs, outputs and operators, and
//! the files that hold its weights.
//!
//! The file is read field by field, and weights in it are passed over, because it may be larger
//! than memory. Source of the field numbers: `onnx/onnx.proto` of the ONNX repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

/// Graphs in graphs, as the branches of an `If`, are followed down to this depth.
const MAX_DEPTH: usize = 8;

/// The longest name of anything, in bytes.
const MAX_NAME: u64 = 4096;

/// No tensor has more dimensions.
const MAX_RANK: usize = 8;

/// The parts of a graph's file that matter here.
#[derive(Debug, Default)]
pub(super) struct GraphFile {
    /// Its inputs.
    pub(super) inputs: Vec<Port>,
    /// Its outputs.
    pub(super) outputs: Vec<Port>,
    /// The types of its operators.
    operators: BTreeSet<String>,
    /// The files of its weights, and how long each must be at least, in bytes.
    weights: BTreeMap<String, u64>,
}

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) element: Element,
    /// In which -1 is open.
    pub(super) shape: Vec<i64>,
}

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    I64,
    Bool,
    /// One that no decoder is served with, by its number in `TensorProto.DataType`.
    Other(u64),
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::I64 => "int64",
            Self::Bool => "bool",
            Self::Other(2) => "uint8",
            Self::Other(3) => "int8",
            Self::Other(6) => "int32",
            Self::Other(16) => "bfloat16",
            Self::Other(17..=20) => "float8",
            Self::Other(_) => "of another type",
        })
    }
}

/// As `float32 [?, 2, ?, 64]`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.shape.iter().map(|size| match size {
            -1 => "?".to_owned(),
            size => size.to_string(),
        });
        let sizes: Vec<String> = sizes.collect();
        write!(f, "{} [{}]", self.element, sizes.join(", "))
    }
}

impl GraphFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// A sentence about the file, when it cannot be read or is no graph.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let read = || {
            // Nothing else is opened: a pipe may never end.
            if !fs::metadata(path)?.is_file() {
                return Err(io::Error::other("it is not a plain file"));
            }
            let file = File::open(path)?;
            let end = file.metadata()?.len();
            let mut reader = Reader {
                file: BufReader::new(file),
                at: 0,
                found: Self::default(),
            };
            let mut parameters = BTreeSet::new();
            reader.model(end, &mut parameters)?;
            // Older files list their weights among the inputs.
            let mut found = reader.found;
            found
                .inputs
                .retain(|input| !parameters.contains(&input.name));
            Ok(found)
        };
        read().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                "it is damaged or not an ONNX file; copy the model folder again".to_owned()
            }
            _ => error.to_string(),
        })
    }

    /// Whether it has an operator of this type.
    pub(super) fn has(&self, operator: &str) -> bool {
        self.operators.contains(operator)
    }

    /// Checks that each file of weights is in the graph's folder and long enough.
    ///
    /// # Errors
    ///
    /// A sentence about the graph that names the first file that is not.
    pub(super) fn check_weights(&self, graph: &Path) -> Result<(), String> {
        let folder = graph.parent().unwrap_or(Path::new(""));
        for (name, needed) in &self.weights {
            let relative = Path::new(name);
            let mut components = relative.components();
            let inside = components.all(|part| matches!(part, Component::Normal(_)));
            if name.is_empty() || !inside {
                return Err(format!(
                    "its weights are in {name:?}, which is outside its folder; get the model from \
                     its publisher"
                ));
            }
            let file = folder.join(relative);
            let shown = file.display();
            let Ok(metadata) = fs::metadata(&file) else {
                return Err(format!(
                    "its weights are in {shown}, which is missing; copy the model folder again"
                ));
            };
            if !metadata.is_file() {
                return Err(format!(
                    "its weights are in {shown}, which is not a plain file; copy the model folder \
                     again"
                ));
            }
            if metadata.len() < *needed {
                return Err(format!(
                    "its weights are in {shown}, which has {} of at least {needed} bytes; copy the \
                     model folder again",
                    metadata.len()
                ));
            }
        }
        Ok(())
    }

    /// Checks that no file of weights is a link out of the graph's folder.
    ///
    /// # Errors
    ///
    /// A sentence about the graph that names the first that is.
    pub(super) fn check_links(&self, graph: &Path) -> Result<(), String> {
        let folder = graph.parent().unwrap_or(Path::new(""));
        let mut files = self.weights.keys().map(|name| folder.join(name));
        match files.find(|file| leads_outside(folder, file)) {
            None => Ok(()),
            Some(file) => Err(format!(
                "its weights are in {}, a link out of the folder, which ONNX Runtime does not \
                 follow; `interline model add` makes a copy without links",
                file.display()
            )),
        }
    }

    /// The names of the files of its weights.
    pub(super) fn weights(&self) -> impl Iterator<Item = PathBuf> {
        self.weights.keys().map(PathBuf::from)
    }
}

/// Whether a file of `folder` is somewhere else in truth.
fn leads_outside(folder: &Path, file: &Path) -> bool {
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    match (fs::canonicalize(folder), fs::canonicalize(file)) {
        (Ok(folder), Ok(file)) => !file.starts_with(folder),
        _ => true,
    }
}

/// Reads messages of protocol buffers.
struct Reader {
    file: BufReader<File>,
    /// The offset in the file.
    at: u64,
    found: GraphFile,
}

impl Reader {
    /// The next field of a message that goes up to `end`: its number, where it ends, and its value if
    /// it is a number. What is not read of it must be skipped to its end.
    fn field(&mut self, end: u64) -> io::Result<Option<(u64, u64, u64)>> {
        if self.at < end {
            let key = self.varint()?;
            let length = match key & 7 {
                0 => {
                    let value = self.varint()?;
                    return match self.at <= end {
                        true => Ok(Some((key >> 3, self.at, value))),
                        false => Err(io::ErrorKind::InvalidData.into()),
                    };
                }
                1 => 8,
                2 => self.varint()?,
                5 => 4,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            let field_end = self.at.checked_add(length);
            let field_end = field_end.filter(|field_end| *field_end <= end);
            let field_end = field_end.ok_or(io::ErrorKind::InvalidData)?;
            return Ok(Some((key >> 3, field_end, 0)));
        }
        match self.at == end {
            true => Ok(None),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    fn skip_to(&mut self, end: u64) -> io::Result<()> {
        // A field ends within the file, whose length fits.
        self.file.seek_relative((end - self.at) as i64)?;
        self.at = end;
        Ok(())
    }

    fn text(&mut self, end: u64) -> io::Result<String> {
        let length = end - self.at;
        if length > MAX_NAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes)?;
        self.at = end;
        String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn model(&mut self, end: u64, parameters: &mut BTreeSet<String>) -> io::Result<()> {
        let mut has_graph = false;
        while let Some((number, end, _)) = self.field(end)? {
            if number == 7 {
                has_graph = true;
                self.graph(end, 0, parameters)?;
            }
            self.skip_to(end)?;
        }
        match has_graph {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Adds the names of the graph's weights to `parameters`.
    fn graph(
        &mut self,
        end: u64,
        depth: usize,
        parameters: &mut BTreeSet<String>,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::ErrorKind::InvalidData.into());
        }
        while let Some((number, end, _)) = self.field(end)? {
            match number {
                1 => self.node(end, depth)?,
                5 => drop(parameters.insert(self.tensor(end)?)),
                // Of the whole graph, and not of a branch.
                11 if depth == 0 => {
                    let input = self.port(end)?;
                    self.found.inputs.push(input);
                }
                12 if depth == 0 => {
                    let output = self.port(end)?;
                    self.found.outputs.push(output);
                }
                _ => {}
            }
            self.skip_to(end)?;
        }
        Ok(())
    }

    fn node(&mut self, end: u64, depth: usize) -> io::Result<()> {
        while let Some((number, end, _)) = self.field(end)? {
            match number {
                4 => {
                    let operator = self.text(end)?;
                    self.found.operators.insert(operator);
                }
                5 => self.attribute(end, depth)?,
                _ => {}
            }
            self.skip_to(end)?;
        }
        Ok(())
    }

    fn attribute(&mut self, end: u64, depth: usize) -> io::Result<()> {
        while let Some((number, end, _)) = self.field(end)? {
            match number {
                // One tensor or graph, or several.
                5 | 10 => drop(self.tensor(end)?),
                6 | 11 => self.graph(end, depth + 1, &mut BTreeSet::new())?,
                _ => {}
            }
            self.skip_to(end)?;
        }
        Ok(())
    }

    /// An input or output: its name, and the type and shape of its tensor.
    fn port(&mut self, end: u64) -> io::Result<Port> {
        let (mut name, mut element) = (String::new(), Element::Other(0));
        let mut shape = Vec::new();
        while let Some((number, end, _)) = self.field(end)? {
            match number {
                1 => name = self.text(end)?,
                2 => {
                    // The type: of a tensor, if it is field 1.
                    while let Some((number, end, _)) = self.field(end)? {
                        if number == 1 {
                            (element, shape) = self.tensor_type(end)?;
                        }
                        self.skip_to(end)?;
                    }
                }
                _ => {}
            }
            self.skip_to(end)?;
        }
        Ok(Port {
            name,
            element,
            shape,
        })
    }

    /// The type of a tensor's elements, and its shape, in which -1 is open.
    fn tensor_type(&mut self, end: u64) -> io::Result<(Element, Vec<i64>)> {
        let mut element = Element::Other(0);
        let mut shape = Vec::new();
        while let Some((number, end, value)) = self.field(end)? {
            match number {
                1 => element = element_type(value),
                2 => {
                    while let Some((_, end, _)) = self.field(end)? {
                        let mut size = -1;
                        while let Some((number, end, value)) = self.field(end)? {
                            if number == 1 {
                                size = i64::try_from(value).unwrap_or(-1);
                            }
                            self.skip_to(end)?;
                        }
                        if shape.len() == MAX_RANK {
                            return Err(io::ErrorKind::InvalidData.into());
                        }
                        shape.push(size);
                    }
                }
                _ => {}
            }
            self.skip_to(end)?;
        }
        Ok((element, shape))
    }

    /// Returns the tensor's name.
    fn tensor(&mut self, end: u64) -> io::Result<String> {
        let mut name = String::new();
        let (mut location, mut offset, mut length) = (None, 0, 0);
        while let Some((number, end, _)) = self.field(end)? {
            if number == 8 {
                name = self.text(end)?;
            }
            // An entry of `external_data`.
            if number == 13 {
                let (mut key, mut value) = (String::new(), String::new());
                while let Some((number, end, _)) = self.field(end)? {
                    match number {
                        1 => key = self.text(end)?,
                        2 => value = self.text(end)?,
                        _ => {}
                    }
                    self.skip_to(end)?;
                }
                let parsed = || value.parse::<u64>().map_err(|_| io::ErrorKind::InvalidData);
                match key.as_str() {
                    "location" => location = Some(value),
                    "offset" => offset = parsed()?,
                    "length" => length = parsed()?,
                    _ => {}
                }
            }
            self.skip_to(end)?;
        }
        if let Some(location) = location {
            let needed = self.found.weights.entry(location).or_default();
            *needed = (*needed).max(offset.saturating_add(length));
        }
        Ok(name)
    }
}

/// The type of this number in `TensorProto.DataType`.
const fn element_type(number: u64) -> Element {
    match number {
        1 => Element::F32,
        7 => Element::I64,
        9 => Element::Bool,
        10 => Element::F16,
        other => Element::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    /// A field that holds a message or a text.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(content);
        bytes
    }

    fn model(nodes: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
        let nodes = nodes.iter().flat_map(|node| field(1, node));
        let tensors = tensors.iter().flat_map(|tensor| field(5, tensor));
        // The version of the format, a number, comes first.
        let mut bytes = vec![8, 10];
        bytes.extend(field(7, &nodes.chain(tensors).collect::<Vec<_>>()));
        bytes
    }

    fn tensor(entries: &[(&str, &str)]) -> Vec<u8> {
        let entry = |(key, value): &(&str, &str)| {
            let pair = [field(1, key.as_bytes()), field(2, value.as_bytes())];
            field(13, &pair.concat())
        };
        entries.iter().flat_map(entry).collect()
    }

    fn read(bytes: &[u8]) -> Result<GraphFile, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        GraphFile::read(file.path())
    }

    #[test]
    fn operators_and_weights_are_found_in_branches_too() {
        let weights = tensor(&[("location", "w"), ("offset", "4096"), ("length", "10")]);
        let inner = [field(1, &field(4, b"MatMul")), field(5, &weights)].concat();
        let branch = field(5, &field(6, &inner));
        let nodes = [[field(4, b"If"), branch].concat()];
        let first = tensor(&[("location", "w"), ("length", "9")]);
        let found = read(&model(&nodes, &[first, field(9, &[0; 300])])).unwrap();
        assert_eq!(found.operators, ["If", "MatMul"].map(str::to_owned).into());
        assert_eq!(found.weights, [("w".to_owned(), 4106)].into());
        assert!(found.has("MatMul") && !found.has("Add"));
    }

    fn check(entries: &[(&str, &str)], make: impl FnOnce(&Path), expected: Expect) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("model");
        fs::create_dir(&folder).unwrap();
        fs::write(home.path().join("outside"), [0; 10]).unwrap();
        make(&folder);
        let graph = folder.join("model.onnx");
        fs::write(&graph, model(&[], &[tensor(entries)])).unwrap();
        let checked = GraphFile::read(&graph).and_then(|file| {
            file.check_weights(&graph)?;
            file.check_links(&graph)
        });
        let shown = checked.err().unwrap_or_else(|| "good".to_owned());
        expected.assert_eq(&shown.replace(home.path().to_str().unwrap(), ""));
    }

    #[test]
    fn weights_that_are_missing_short_or_elsewhere_are_named() {
        let data = |folder: &Path| fs::write(folder.join("data"), [0; 10]).unwrap();
        check(
            &[("location", "data"), ("length", "10")],
            data,
            expect!["good"],
        );
        check(
            &[("location", "data")],
            |_| (),
            expect![
                "its weights are in /model/data, which is missing; copy the model folder again"
            ],
        );
        check(
            &[("location", "data"), ("offset", "1"), ("length", "10")],
            data,
            expect![
                "its weights are in /model/data, which has 10 of at least 11 bytes; copy the model folder again"
            ],
        );
        check(
            &[
                ("location", "data"),
                ("offset", "18446744073709551615"),
                ("length", "10"),
            ],
            data,
            expect![
                "its weights are in /model/data, which has 10 of at least 18446744073709551615 bytes; copy the model folder again"
            ],
        );
        for outside in ["../outside", "/etc/passwd", "a/../../outside", ""] {
            let file = read(&model(&[], &[tensor(&[("location", outside)])])).unwrap();
            let error = file.check_weights(Path::new("model.onnx")).unwrap_err();
            assert!(error.contains("outside its folder"), "{error}");
        }
        #[cfg(unix)]
        check(
            &[("location", "data"), ("length", "10")],
            |folder| std::os::unix::fs::symlink("../outside", folder.join("data")).unwrap(),
            expect![
                "its weights are in /model/data, a link out of the folder, which ONNX Runtime does not follow; `interline model add` makes a copy without links"
            ],
        );
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in any::<Vec<u8>>()) {
            let _ = read(&bytes);
        }
    }
}
