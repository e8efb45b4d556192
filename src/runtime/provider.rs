//! The execution providers of ONNX Runtime: what a session can run on, and where each comes from.

use std::fmt;
use std::path::PathBuf;

use ort::ep::{CUDA, CoreML, DirectML, ExecutionProvider, ExecutionProviderDispatch};

use super::plugin::PluginError;

/// An execution provider of ONNX Runtime.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Deserialize,
    serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// CUDA or WebGPU, if it is here, computes what the CPU computes and is faster; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// Any GPU, through Vulkan, Direct3D 12 or Metal. A plugin library.
    Webgpu,
    /// A GPU of NVIDIA. In a library that was built with it.
    Cuda,
    /// A CPU, GPU or NPU of Intel. A plugin library.
    Openvino,
    /// Any GPU on Windows. In a library that was built with it.
    Directml,
    /// Apple's GPU and Neural Engine. In the official library for macOS.
    Coreml,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Webgpu => "webgpu",
            Self::Cuda => "cuda",
            Self::Openvino => "openvino",
            Self::Directml => "directml",
            Self::Coreml => "coreml",
        })
    }
}

/// A provider that a library of ONNX Runtime may have been built with.
pub(super) struct BuiltIn {
    /// Whether it was.
    pub(super) is_there: fn() -> ort::Result<bool>,
    /// What adds it to a session.
    pub(super) dispatch: fn() -> ExecutionProviderDispatch,
    /// The name of its memory, unless that is the host's.
    pub(super) memory: Option<&'static str>,
    /// Where a library that has it comes from.
    pub(super) remedy: &'static str,
}

impl Provider {
    /// How the provider is used if it is part of ONNX Runtime's own library.
    pub(super) fn built_in(self) -> Option<BuiltIn> {
        match self {
            Self::Cuda => Some(BuiltIn {
                is_there: CUDA::is_available,
                dispatch: || CUDA::default().build(),
                memory: Some("Cuda"),
                remedy: "name the library of the Python package onnxruntime-gpu[cuda,cudnn] with \
                         --runtime or the setting `runtime`",
            }),
            Self::Directml => Some(BuiltIn {
                is_there: DirectML::is_available,
                dispatch: || DirectML::default().build(),
                memory: Some("DML"),
                remedy: "on Windows, name the library of the Python package onnxruntime-directml with \
                         --runtime or the setting `runtime`",
            }),
            Self::Coreml => Some(BuiltIn {
                is_there: CoreML::is_available,
                dispatch: || CoreML::default().build(),
                memory: None,
                remedy: "take the official library for macOS, which has it",
            }),
            Self::Auto | Self::Cpu | Self::Webgpu | Self::Openvino => None,
        }
    }
}

/// Why sessions cannot run on a provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The library was built without it.
    #[error("{library} was built without {provider}; to use it, {remedy}")]
    NotBuiltIn {
        /// The provider.
        provider: Provider,
        /// The loaded library.
        library: PathBuf,
        /// Where a library that has it comes from.
        remedy: &'static str,
    },
    /// Its plugin library is not there, or not whole.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// ONNX Runtime refuses its plugin library.
    #[error("{path} does not load: {problem}")]
    Load {
        /// The plugin library.
        path: PathBuf,
        /// What ONNX Runtime said.
        problem: ort::Error,
    },
    /// It has loaded, but there is nothing to run on.
    #[error("it finds no device; {remedy}")]
    NoDevice {
        /// What is probably missing.
        remedy: &'static str,
    },
    /// It does not start. This is where a machine without CUDA or cuDNN fails.
    #[error("it does not start: {0}")]
    Start(ort::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_has_one_name() {
        for provider in <Provider as clap::ValueEnum>::value_variants() {
            let name = provider.to_string();
            let flag = clap::ValueEnum::to_possible_value(provider).unwrap();
            assert_eq!(flag.get_name(), name);
            assert_eq!(serde_json::to_value(provider).unwrap(), *name);
        }
    }
}
