//! What the user can set, and the plain values that the rooms below get from it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::{Engine, MAX_NEW_TOKENS};
use crate::model::catalogue::DEFAULT;
use crate::model::store::name::Name;
use crate::runtime::RuntimeOptions;
use crate::runtime::provider::Provider;
use crate::suggest;
use crate::text::exclusion::Exclusion;

/// The settings, all optional, from a client or the command line.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Whether to complete at all. By default, yes.
    pub enabled: Option<bool>,
    /// Languages in which not to complete, by the editor's identifier (`markdown`). By default, none.
    pub disabled_languages: Option<Vec<String>>,
    /// Globs of files that are never shown to the model, in addition to those that hold secrets. One
    /// without a slash matches file names (`*.min.js`), one with a slash whole paths. By default, none.
    pub excluded_files: Option<Vec<String>>,
    /// The name of a model in the store, or a model folder. By default, the one in use: see
    /// [`Store::in_use`](crate::model::store::Store::in_use).
    pub model: Option<PathBuf>,
    /// See [`RuntimeOptions::library`].
    pub runtime: Option<PathBuf>,
    /// See [`RuntimeOptions::provider`].
    pub provider: Option<Provider>,
    /// See [`RuntimeOptions::offline`].
    pub offline: Option<bool>,
    /// The longest completion, in tokens. By default, 64; an invoked one may be twice as long.
    pub max_new_tokens: Option<usize>,
    /// How long the model may write an automatic completion after it has read the text, in
    /// milliseconds. By default, as long as a line takes on this machine: 400 to 1,500.
    pub time_limit_ms: Option<u64>,
    /// Whether the completion menu has our items. By default, yes, except in Neovim while it shows
    /// ghost text: a menu that opens with our item selected would hide it.
    pub completion_menu: Option<bool>,
}

/// What an engine is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// A model's name or folder; `None` for the one that comes with Interline.
    pub model: Option<PathBuf>,
    /// Where ONNX Runtime comes from and what it runs on.
    pub runtime: RuntimeOptions,
}

impl EngineOptions {
    /// The model's name or folder, for a person.
    #[must_use]
    pub fn model(&self) -> Cow<'_, str> {
        match &self.model {
            Some(model) => model.to_string_lossy(),
            None => DEFAULT.into(),
        }
    }
}

impl Options {
    /// Reads the options from the settings sent so far.
    ///
    /// # Errors
    ///
    /// When a setting has the wrong type; the text names it.
    fn from_map(map: &Map<String, Value>) -> Result<Self, String> {
        let mut options = Self::default();
        for (name, value) in map {
            let one = Map::from_iter([(name.clone(), value.clone())]);
            let one: Self = serde_json::from_value(one.into())
                .map_err(|error| format!("in the setting `{name}`: {error}"))?;
            options = one.or(options);
        }
        Ok(options)
    }

    /// These options, with the others where these are not set.
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
            completion_menu: self.completion_menu.or(others.completion_menu),
        }
    }

    /// What an engine is started with. `in_use` is the name of the model in use, which counts where
    /// these options name none.
    #[must_use]
    pub fn engine(&self, in_use: Option<&Name>) -> EngineOptions {
        let in_use = in_use.map(|name| PathBuf::from(name.as_str()));
        let model = self.model.as_deref().map(expand_home).or(in_use);
        EngineOptions {
            // Its name is the same as none.
            model: model.filter(|model| model != Path::new(DEFAULT)),
            runtime: RuntimeOptions {
                library: self.runtime.as_deref().map(expand_home),
                offline: self.offline.unwrap_or_default(),
                provider: self.provider.unwrap_or_default(),
            },
        }
    }

    /// These options without those that an engine is started with.
    #[must_use]
    pub fn without_engine(&self) -> Self {
        Self {
            model: None,
            runtime: None,
            provider: None,
            offline: None,
            ..self.clone()
        }
    }

    /// The files that are never shown to the model.
    ///
    /// # Errors
    ///
    /// When a pattern is not a valid glob; the text names it.
    pub fn exclusion(&self) -> Result<Exclusion, String> {
        Exclusion::new(self.excluded_files.as_deref().unwrap_or_default())
            .map_err(|error| format!("in the setting `excludedFiles`: {error}"))
    }

    /// The settings of completions. `engine` is the one that these options start.
    ///
    /// # Errors
    ///
    /// As [`exclusion`](Self::exclusion).
    pub fn suggest(&self, engine: Arc<Engine>) -> Result<suggest::Settings, String> {
        let max_new_tokens = self.max_new_tokens.unwrap_or(64);
        Ok(suggest::Settings {
            enabled: self.enabled.unwrap_or(true),
            disabled_languages: self.disabled_languages.clone().unwrap_or_default(),
            exclusion: Arc::new(self.exclusion()?),
            prompt_tokens: None,
            max_new_tokens: max_new_tokens.clamp(1, MAX_NEW_TOKENS / 2),
            time_limit: self.time_limit_ms.map(Duration::from_millis),
            engine,
        })
    }
}

/// Expands a leading `~` to the user's home folder, as no shell has done it.
fn expand_home(path: &Path) -> PathBuf {
    let home = directories::BaseDirs::new();
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.home_dir().join(rest),
        _ => path.to_path_buf(),
    }
}

/// All that a client has sent so far.
///
/// A later value replaces an earlier one, setting by setting, and `null` means the default. What a
/// message does not mention stays: a restriction is lifted by naming it, never by leaving it out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    settings: Map<String, Value>,
    /// Unknown names that have been reported.
    unknown: Vec<String>,
}

/// Whose settings a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// Ours: `initializationOptions`.
    Us,
    /// Any server's: `workspace/didChangeConfiguration`.
    AnyServer,
}

impl Sent {
    /// Merges the settings of a client's message: the object itself, or the one under `interline`.
    /// Returns the unknown names in it that were not returned before.
    pub fn take(&mut self, message: Value, addressee: Addressee) -> Vec<String> {
        let Value::Object(mut message) = message else {
            return Vec::new();
        };
        let known = |name: &String| NAMES.contains(&name.as_str());
        let settings = match message.remove("interline") {
            Some(Value::Object(section)) => section,
            Some(_) => return Vec::new(),
            // The sections of other servers.
            None if addressee == Addressee::AnyServer && !message.keys().any(known) => {
                return Vec::new();
            }
            None => message,
        };
        let mut unknown = Vec::new();
        for (name, value) in settings {
            if known(&name) {
                self.settings.insert(name, value);
            } else if !self.unknown.contains(&name) {
                self.unknown.push(name.clone());
                unknown.push(name);
            }
        }
        unknown
    }

    /// The options now in force.
    ///
    /// # Errors
    ///
    /// When a setting has the wrong type; the text names it.
    pub fn options(&self) -> Result<Options, String> {
        Options::from_map(&self.settings)
    }
}

/// The names of the settings.
const NAMES: [&str; 10] = [
    "enabled",
    "disabledLanguages",
    "excludedFiles",
    "model",
    "runtime",
    "provider",
    "offline",
    "maxNewTokens",
    "timeLimitMs",
    "completionMenu",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Checks the options after these messages, the first of which is `initializationOptions`, and the
    /// unknown names.
    fn check(messages: &[Value], expected: Value, unknown: &[&str]) {
        let mut sent = Sent::default();
        let mut reported = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let addressee = match number {
                0 => Addressee::Us,
                _ => Addressee::AnyServer,
            };
            reported.extend(sent.take(message.clone(), addressee));
        }
        let expected: Options = serde_json::from_value(expected).unwrap();
        assert_eq!(sent.options(), Ok(expected), "{messages:?}");
        assert_eq!(reported, unknown, "{messages:?}");
    }

    #[test]
    fn without_settings_the_defaults_apply() {
        for message in [
            json!(null),
            json!({}),
            json!({"interline": null}),
            json!([]),
            json!(1),
        ] {
            check(&[message], json!({}), &[]);
        }
    }

    #[test]
    fn settings_come_bare_or_under_interline() {
        let bare = json!({"maxNewTokens": 8, "provider": "cpu", "model": "m"});
        check(std::slice::from_ref(&bare), bare.clone(), &[]);
        check(&[json!({"interline": bare, "other": 1})], bare.clone(), &[]);
        check(
            &[json!(null), json!({"interline": bare})],
            bare.clone(),
            &[],
        );
        check(&[json!(null), bare.clone()], bare, &[]);
    }

    #[test]
    fn settings_that_are_not_mentioned_stay() {
        let first = json!({"excludedFiles": ["*.secret.py"], "disabledLanguages": ["markdown"]});
        for silent in [
            json!({}),
            json!(null),
            json!({"interline": null}),
            json!({"interline": {}}),
            json!({"python": {"analysis": {}}}),
            json!("interline"),
        ] {
            check(&[first.clone(), silent], first.clone(), &[]);
        }
        check(
            &[first.clone(), json!({"interline": {"maxNewTokens": 5}})],
            json!({"excludedFiles": ["*.secret.py"], "disabledLanguages": ["markdown"], "maxNewTokens": 5}),
            &[],
        );
        check(
            &[first.clone(), json!({"excludedFiles": []})],
            json!({"excludedFiles": [], "disabledLanguages": ["markdown"]}),
            &[],
        );
        check(
            &[first, json!({"disabledLanguages": null})],
            json!({"excludedFiles": ["*.secret.py"]}),
            &[],
        );
    }

    #[test]
    fn an_unknown_setting_is_reported_once_and_the_rest_apply() {
        let message = json!({"telemetry": false, "maxNewTokens": 64});
        check(
            &[message.clone(), message],
            json!({"maxNewTokens": 64}),
            &["telemetry"],
        );
        check(&[json!({"telemetry": false})], json!({}), &["telemetry"]);
        let python = json!({"python": {}, "enabled": false});
        check(
            &[json!(null), python],
            json!({"enabled": false}),
            &["python"],
        );
    }

    #[test]
    fn a_tilde_is_the_home_folder() {
        let home = directories::BaseDirs::new()
            .unwrap()
            .home_dir()
            .to_path_buf();
        for (given, expected) in [
            ("~/m", home.join("m")),
            ("~", home.join("")),
            ("/a/~/m", PathBuf::from("/a/~/m")),
            ("~m", PathBuf::from("~m")),
        ] {
            let options = Options {
                model: Some(given.into()),
                ..Options::default()
            };
            assert_eq!(options.engine(None).model, Some(expected), "{given}");
        }
    }

    #[test]
    fn a_model_that_is_named_goes_before_the_one_in_use() {
        let check = |named: Option<&str>, in_use: Option<&str>, expected: Option<&str>| {
            let options = Options {
                model: named.map(PathBuf::from),
                ..Options::default()
            };
            let in_use = in_use.map(|name| name.parse().unwrap());
            let started = options.engine(in_use.as_ref());
            assert_eq!(started.model, expected.map(PathBuf::from));
        };
        check(None, None, None);
        check(None, Some("mine"), Some("mine"));
        check(Some("other"), Some("mine"), Some("other"));
        check(Some(DEFAULT), Some("mine"), None);
        check(None, Some(DEFAULT), None);
    }

    #[test]
    fn an_invalid_setting_is_named() {
        for (message, expected) in [
            (json!({"provider": "tpu"}), "unknown variant `tpu`"),
            (
                json!({"maxNewTokens": 64.5}),
                "in the setting `maxNewTokens`",
            ),
            (
                json!({"excludedFiles": "*.py"}),
                "in the setting `excludedFiles`",
            ),
        ] {
            let mut sent = Sent::default();
            sent.take(message, Addressee::Us);
            let error = sent.options().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_names_are_those_of_the_options() {
        let options = json!(Options::default());
        let mut names = NAMES;
        names.sort_unstable();
        assert_eq!(
            options.as_object().unwrap().keys().collect::<Vec<_>>(),
            names
        );
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
        // Which server to start is up to the extension.
        assert_eq!(defaults.remove("serverPath"), Some(json!(null)));

        // The extension leaves the menu to the languages' own servers.
        let mut options = json!(Options::default());
        let options = options.as_object_mut().unwrap();
        assert_eq!(options.remove("completionMenu"), Some(json!(null)));
        assert_eq!(
            options.keys().collect::<Vec<_>>(),
            defaults.keys().collect::<Vec<_>>()
        );
        let engine = || Arc::new(Engine::spawn(|_| Err::<crate::model::Model, _>("none")));
        let options = Options::from_map(&defaults).unwrap();
        assert_eq!(options.engine(None), Options::default().engine(None));
        let shown = |options: &Options| {
            let suggest::Settings {
                enabled,
                disabled_languages,
                max_new_tokens,
                time_limit,
                ..
            } = options.suggest(engine()).unwrap();
            (enabled, disabled_languages, max_new_tokens, time_limit)
        };
        assert_eq!(shown(&options), shown(&Options::default()));
        assert_eq!(options.excluded_files, Some(Vec::new()));
        assert_eq!(
            properties["interline.provider"]["enum"],
            json!(<Provider as clap::ValueEnum>::value_variants())
        );
    }
}
