//! What the user can set: [`Options`] as they are written, [`Config`] as it holds.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::runtime::{Provider, RuntimeOptions};

/// The settings as a client sends them, all optional: in `initializationOptions`, or under
/// `interline` in `workspace/didChangeConfiguration`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// See [`Config::enabled`].
    pub enabled: Option<bool>,
    /// See [`Config::disabled_languages`].
    pub disabled_languages: Option<Vec<String>>,
    /// See [`Config::excluded_files`].
    pub excluded_files: Option<Vec<String>>,
    /// See [`Config::model`].
    pub model: Option<PathBuf>,
    /// See [`RuntimeOptions::library`].
    pub runtime: Option<PathBuf>,
    /// See [`RuntimeOptions::provider`].
    pub provider: Option<Provider>,
    /// See [`RuntimeOptions::offline`].
    pub offline: Option<bool>,
    /// See [`Config::max_new_tokens`].
    pub max_new_tokens: Option<usize>,
    /// See [`Config::time_limit_ms`].
    pub time_limit_ms: Option<u64>,
}

/// The settings as they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether to complete at all. By default, yes.
    pub enabled: bool,
    /// Languages, by the editor's identifier (`markdown`), in which not to complete. By default,
    /// none.
    pub disabled_languages: Vec<String>,
    /// Globs of files never to be shown to the model, beside those that hold secrets: one without a
    /// slash is for file names (`*.min.js`), one with a slash for whole paths. By default, none.
    pub excluded_files: Vec<String>,
    /// The folder of the model. By default, the one that comes with Interline.
    pub model: Option<PathBuf>,
    /// Where ONNX Runtime comes from and what it runs on.
    pub runtime: RuntimeOptions,
    /// The longest completion, in tokens. By default, 64; an explicit request gets twice as many.
    pub max_new_tokens: usize,
    /// How long the model may write at an automatic completion, in milliseconds, once it has read
    /// the text. By default, 400; an explicit request gets 3,000.
    pub time_limit_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self::from(Options::default())
    }
}

impl From<Options> for Config {
    fn from(options: Options) -> Self {
        Self {
            enabled: options.enabled.unwrap_or(true),
            disabled_languages: options.disabled_languages.unwrap_or_default(),
            excluded_files: options.excluded_files.unwrap_or_default(),
            model: options.model,
            runtime: RuntimeOptions {
                library: options.runtime,
                offline: options.offline.unwrap_or_default(),
                provider: options.provider.unwrap_or_default(),
            },
            max_new_tokens: options.max_new_tokens.unwrap_or(64),
            time_limit_ms: options.time_limit_ms.unwrap_or(400),
        }
    }
}

impl Options {
    /// These options, and where they say nothing, the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            enabled: self.enabled.or(others.enabled),
            disabled_languages: self.disabled_languages.or(others.disabled_languages),
            excluded_files: self.excluded_files.or(others.excluded_files),
            model: self.model.or(others.model),
            runtime: self.runtime.or(others.runtime),
            provider: self.provider.or(others.provider),
            offline: self.offline.or(others.offline),
            max_new_tokens: self.max_new_tokens.or(others.max_new_tokens),
            time_limit_ms: self.time_limit_ms.or(others.time_limit_ms),
        }
    }

    /// Reads the options from what a client sent: the object itself, or the one under `interline`.
    /// Nothing (`null`) leaves all at their defaults.
    ///
    /// # Errors
    ///
    /// When a setting is unknown or of the wrong type; the text names it.
    pub fn from_json(json: serde_json::Value) -> Result<Self, String> {
        let json = match json {
            serde_json::Value::Object(mut object) => match object.remove("interline") {
                Some(section) => section,
                None => object.into(),
            },
            other => other,
        };
        if json.is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(json).map_err(|error| format!("in the configuration: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_said_is_the_default() {
        for json in [json!(null), json!({}), json!({"interline": null})] {
            assert_eq!(Options::from_json(json), Ok(Options::default()));
        }
        let config = Config::default();
        assert!(config.enabled && config.model.is_none());
        assert_eq!((config.max_new_tokens, config.time_limit_ms), (64, 400));
    }

    #[test]
    fn settings_come_bare_or_under_our_name() {
        let bare = json!({"maxNewTokens": 8, "provider": "cpu", "model": "m"});
        for json in [bare.clone(), json!({"interline": bare, "other": 1})] {
            let config = Config::from(Options::from_json(json).unwrap());
            assert_eq!(config.max_new_tokens, 8);
            assert_eq!(config.runtime.provider, Provider::Cpu);
            assert_eq!(config.model, Some("m".into()));
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let error = Options::from_json(json!({"maxTokens": 8})).unwrap_err();
        assert!(error.contains("unknown field `maxTokens`"), "{error}");
        let error = Options::from_json(json!({"provider": "tpu"})).unwrap_err();
        assert!(error.contains("unknown variant `tpu`"), "{error}");
    }

    /// VS Code shows the settings of its extension's `package.json`.
    #[test]
    fn vs_code_has_these_settings_and_these_defaults() {
        let manifest = include_str!("../../editors/vscode/package.json");
        let manifest: serde_json::Value = serde_json::from_str(manifest).unwrap();
        let properties = &manifest["contributes"]["configuration"]["properties"];
        let mut defaults: serde_json::Map<_, _> = properties
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, property)| {
                let name = name.strip_prefix("interline.").unwrap();
                (name.to_owned(), property["default"].clone())
            })
            .collect();
        // Which server to start is the extension's own matter.
        assert_eq!(defaults.remove("serverPath"), Some(json!(null)));

        let options = json!(Options::default());
        let names = options.as_object().unwrap().keys();
        assert_eq!(
            names.collect::<Vec<_>>(),
            defaults.keys().collect::<Vec<_>>()
        );
        let options = Options::from_json(defaults.into()).unwrap();
        assert_eq!(Config::from(options), Config::default());
        assert_eq!(
            properties["interline.provider"]["enum"],
            json!(<Provider as clap::ValueEnum>::value_variants())
        );
    }
}
