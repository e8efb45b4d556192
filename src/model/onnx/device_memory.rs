//! The memory of a device that is not the host's: tensors go there and come back.

use std::fmt::Display;

use ort::memory::Allocator;
use ort::session::{IoBinding, Session};
use ort::value::Tensor;

use crate::runtime::Runtime;

/// Where a session on a device keeps its keys and values.
pub(super) struct DeviceMemory {
    allocator: Allocator,
    /// Copies a tensor from where its input is bound to where its output is bound. ONNX Runtime's
    /// interface for C copies without a graph, but `ort` does not offer it, and its own way does
    /// not know plugin libraries.
    transfer: Session,
}

/// A graph of one node, `y = Identity(x)`, with float32 of any shape; opset 21.
const IDENTITY: &[u8] = b"\x08\x0a\x3a\x2b\x0a\x10\x0a\x01x\x12\x01y\x22\x08Identity\x12\x01g\
    \x5a\x09\x0a\x01x\x12\x04\x0a\x02\x08\x01b\x09\x0a\x01y\x12\x04\x0a\x02\x08\x01\x42\x02\x10\x15";

impl DeviceMemory {
    /// The memory of the device that `session` runs on; `None` if that is the host's. The text of
    /// the error is ONNX Runtime's.
    pub(super) fn of(session: &Session, runtime: &Runtime) -> Result<Option<Self>, String> {
        let text = |error: &dyn Display| error.to_string();
        let allocator = runtime
            .device_memory(session)
            .map_err(|error| text(&error))?;
        let Some(allocator) = allocator else {
            return Ok(None);
        };
        let mut builder = runtime.session_builder().map_err(|error| text(&error))?;
        let transfer = builder
            .commit_from_memory(IDENTITY)
            .map_err(|error| text(&error))?;
        Ok(Some(Self {
            allocator,
            transfer,
        }))
    }

    /// A copy of a tensor on the device.
    pub(super) fn upload(&mut self, tensor: &Tensor<f32>) -> ort::Result<Tensor<f32>> {
        let mut copy = Tensor::new(&self.allocator, tensor.shape().clone())?;
        self.copy(tensor, &mut copy)?;
        Ok(copy)
    }

    /// A copy of a tensor on the host.
    pub(super) fn download(&mut self, tensor: &Tensor<f32>) -> ort::Result<Tensor<f32>> {
        let mut copy = Tensor::new(&Allocator::default(), tensor.shape().clone())?;
        self.copy(tensor, &mut copy)?;
        Ok(copy)
    }

    fn copy(&mut self, from: &Tensor<f32>, to: &mut Tensor<f32>) -> ort::Result<()> {
        let mut binding: IoBinding = self.transfer.create_binding()?;
        binding.bind_input("x", from)?;
        binding.bind_output("y", to)?;
        self.transfer.run_binding(&binding)?;
        binding.synchronize_outputs()
    }
}
