//! Corrects messages that do not follow the protocol where their meaning is clear.
//!
//! tower-lsp silently drops a notification that it cannot read, and answers such a request with an
//! error. A dropped edit is the worst case, because the server's text then differs from the client's.
//! So each message is checked before tower-lsp sees it: what can be understood is corrected, what
//! cannot is logged, and a document with a lost edit is marked as out of step.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tower_lsp::jsonrpc::{ErrorCode, Response};
use tower_lsp::ls_types::{
    CancelParams, DidChangeConfigurationParams, DidChangeTextDocumentParams,
    DidChangeWorkspaceFoldersParams, DidCloseTextDocumentParams, DidOpenTextDocumentParams,
    InitializeParams, Range, VersionedTextDocumentIdentifier, WorkDoneProgressCancelParams,
};

use super::cells::{self, CELLS_CHANGED, DidChangeCellsParams};
use super::items::{DidPartiallyAcceptCompletionParams, DidShowCompletionParams};
use super::malformed::{self, Marks};
use super::status::DidFocusParams;
use super::uri;

/// The notification that a change to a document was lost: [`OutOfStepParams`].
pub const OUT_OF_STEP: &str = "interline/outOfStep";

/// The notification of a change with halves of surrogate pairs in it: [`HalvedChangeParams`].
pub const HALVED_CHANGE: &str = "interline/didChange";

/// See [`OUT_OF_STEP`].
#[derive(Clone, Debug, Deserialize)]
pub struct OutOfStepParams {
    /// The document; `None` for all of them, where it is not known which.
    pub uri: Option<String>,
}

/// See [`HALVED_CHANGE`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HalvedChangeParams {
    /// The document.
    pub text_document: VersionedTextDocumentIdentifier,
    /// The changes, in order.
    pub content_changes: Vec<HalvedChange>,
}

/// A change whose text has U+FFFD in place of halves of surrogate pairs.
#[derive(Clone, Debug, Deserialize)]
pub struct HalvedChange {
    /// The replaced range; without it, the whole text is replaced.
    pub range: Option<Range>,
    /// The new text.
    pub text: String,
    /// Where the halves are in the text, as byte offsets in order, and their UTF-16 units.
    #[serde(default)]
    pub halves: Vec<(usize, u16)>,
}

/// A message for one side or the other.
#[derive(Clone, Debug, PartialEq)]
pub enum To {
    /// For the server.
    Server(Value),
    /// For the client: an answer that the server cannot give.
    Client(Value),
}

/// The client's names for documents and their versions, where the server's differ.
#[derive(Clone, Debug, Default)]
pub struct Names {
    shared: Arc<Mutex<Named>>,
}

#[derive(Debug, Default)]
struct Named {
    /// The client's name for a URI.
    uris: HashMap<String, String>,
    /// The documents whose versions are not numbers.
    unversioned: HashSet<String>,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, Named> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server and the client use the same names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let named = self.lock();
        named.uris.is_empty() && named.unversioned.is_empty()
    }

    /// Replaces the server's names in a message from the server by the client's.
    pub fn restore(&self, message: &mut Value) {
        self.lock().restore(message);
    }
}

impl Named {
    fn restore(&self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                let uri = members.get("uri").and_then(Value::as_str);
                let unversioned = uri.is_some_and(|uri| self.unversioned.contains(uri));
                for (key, value) in members.iter_mut() {
                    match value {
                        Value::String(uri) if is_uri(key) => {
                            if let Some(name) = self.uris.get(uri) {
                                uri.clone_from(name);
                            }
                        }
                        Value::Number(_) if key == "version" && unversioned => *value = Value::Null,
                        _ => self.restore(value),
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.restore(value)),
            _ => {}
        }
    }

    /// Replaces a URI from the client by the server's.
    fn tidy(&mut self, name: &mut String) {
        let uri = uri::tidy(name).into_owned();
        if uri == *name {
            self.uris.remove(name);
        } else {
            tracing::debug!("{name} is read as {uri}");
            self.uris.insert(uri.clone(), std::mem::replace(name, uri));
        }
    }
}

/// Whether a string member of a message with this key is a URI.
fn is_uri(key: &str) -> bool {
    const MEMBERS: [&str; 9] = [
        "uri",
        "rootUri",
        "oldUri",
        "newUri",
        "targetUri",
        "scopeUri",
        "baseUri",
        "document",
        "href",
    ];
    MEMBERS.contains(&key)
}

/// Corrects messages.
#[derive(Debug, Default)]
pub struct Tidy {
    names: Names,
    /// The latest version of each open document.
    versions: HashMap<String, i32>,
    /// Whether `initialize` has been received.
    has_begun: bool,
}

impl Tidy {
    /// Corrects the messages of one client, whose names go to `names`.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// Handles a message that is JSON. If it was repaired, `marks` may be in its strings.
    pub fn message(&mut self, message: Value, marks: Option<Marks>) -> Vec<To> {
        match message {
            Value::Object(members) if members.contains_key("method") => self.call(members, marks),
            Value::Object(members) => answer(members, marks).into_iter().collect(),
            // A batch, which LSP does not have.
            Value::Array(messages) => {
                let messages = messages.into_iter();
                messages
                    .flat_map(|message| self.message(message, marks))
                    .collect()
            }
            other => {
                let kind = match other {
                    Value::String(_) => "a string",
                    Value::Number(_) => "a number",
                    _ => "null, true or false",
                };
                tracing::warn!("skipped a message that is {kind}");
                Vec::new()
            }
        }
    }

    /// Handles bytes that are not a message.
    pub fn unreadable(&mut self, bytes: &[u8], why: &str) -> Vec<To> {
        let gist = malformed::gist(bytes);
        let method = gist.method.as_deref();
        let what = method.map_or(String::new(), |method| format!(" ({method})"));
        tracing::warn!("skipped {} bytes{what}: {why}", bytes.len());
        let mut done = Vec::new();
        match gist.id {
            None | Some(Value::Null) => {}
            Some(id) if gist.is_answer => done.push(lost_answer(id, why)),
            Some(id) => done.push(error(id, ErrorCode::ParseError, why)),
        }
        let changes = match method {
            Some(method) => is_edit(method) || cells::is_about_notebook(method),
            None => {
                let word = b"contentChanges";
                bytes.windows(word.len()).any(|window| window == word)
            }
        };
        if changes {
            // That of a notebook says nothing of its cells.
            let uri = gist
                .uri
                .filter(|_| !method.is_some_and(cells::is_about_notebook));
            done.push(out_of_step(uri.map(|uri| uri::tidy(&uri).into_owned())));
        }
        done
    }

    fn call(&mut self, mut members: Map<String, Value>, marks: Option<Marks>) -> Vec<To> {
        let method = members.get("method").and_then(Value::as_str);
        let of_notebook = method.filter(|method| cells::is_about_notebook(method));
        if let Some(method) = of_notebook.map(str::to_owned) {
            let params = members.get_mut("params");
            let mut apart = cells::apart(&method, params.unwrap_or(&mut Value::Null));
            // What is wrong about an id is said once.
            if let (Some(id), Some(first)) = (members.remove("id"), apart.first_mut()) {
                first.insert("id".to_owned(), id);
            }
            let apart = apart.into_iter();
            return apart
                .flat_map(|members| self.call(members, marks))
                .collect();
        }
        members.insert("jsonrpc".to_owned(), "2.0".into());
        let mut message = Value::Object(members);
        let edited = self.walk(&mut message, "", marks);
        let members = message.as_object_mut();
        let members = members.map(std::mem::take).unwrap_or_default();
        self.call_in_order(members, edited)
    }

    fn call_in_order(&mut self, mut members: Map<String, Value>, edited: Edited) -> Vec<To> {
        let mut done = Vec::new();
        let method = match members.get("method") {
            Some(Value::String(method)) => method.clone(),
            other => {
                let why = format!(
                    "the method {} is not a string",
                    other.unwrap_or(&Value::Null)
                );
                tracing::warn!("skipped a message: {why}");
                let id = members.remove("id").filter(|id| !id.is_null());
                return id
                    .map(|id| error(id, ErrorCode::InvalidRequest, &why))
                    .into_iter()
                    .collect();
            }
        };
        let is_notification = is_notification(&method);
        match members.get("id") {
            None if !is_notification && is_request(&method) => {
                tracing::warn!("skipped {method}, a request without an id");
                return done;
            }
            None => {}
            Some(_) if is_notification => {
                tracing::warn!("{method} is a notification, but has an id");
                let id = members.remove("id").filter(|id| !id.is_null());
                done.extend(
                    id.map(|id| To::Client(json!({ "jsonrpc": "2.0", "id": id, "result": null }))),
                );
            }
            Some(Value::String(_) | Value::Null) => {}
            Some(id) if id.is_i64() => {}
            Some(id) => {
                let why = format!("the id {id} is neither a whole number nor a string");
                tracing::warn!("skipped {method}: {why}");
                return vec![error(id.clone(), ErrorCode::InvalidRequest, &why)];
            }
        }
        if method == "initialize" {
            self.has_begun = true;
        } else if is_notification && !self.has_begun && method != "exit" {
            tracing::warn!("{method} came before initialize, and has no effect");
        }
        match method.as_str() {
            "shutdown" | "exit" => {
                members.remove("params");
            }
            "initialized" => {
                let params = members.entry("params").or_insert_with(|| json!({}));
                if !params.is_object() {
                    *params = json!({});
                }
            }
            "workspace/didChangeConfiguration" => {
                let params = members.entry("params").or_insert_with(|| json!({}));
                if params.is_null() {
                    *params = json!({});
                }
                if let Some(params) = params.as_object_mut() {
                    params.entry("settings").or_insert(Value::Null);
                }
            }
            "initialize" => {
                let params = members.entry("params").or_insert_with(|| json!({}));
                fix_initialize(params);
            }
            "workspace/executeCommand" => {
                let params = members.get_mut("params");
                let asks_for_text = |params: &&mut Value| {
                    params.get("command").and_then(Value::as_str)
                        == Some(super::commands::DOCUMENT_TEXT)
                };
                let params = params.filter(asks_for_text);
                let uri = params.and_then(|params| params.pointer_mut("/arguments/0"));
                if let Some(Value::String(uri)) = uri {
                    self.names.lock().tidy(uri);
                }
            }
            _ => {}
        }
        let params = members.entry("params").or_insert(Value::Null);
        let uri = params
            .pointer("/textDocument/uri")
            .and_then(Value::as_str)
            .map(str::to_owned);
        match method.as_str() {
            "textDocument/didOpen" | "textDocument/didChange" => {
                self.version(params, uri.as_deref());
            }
            "textDocument/didClose" => {
                if let Some(uri) = &uri {
                    self.versions.remove(uri);
                    self.names.lock().unversioned.remove(uri);
                }
            }
            _ => {}
        }
        if params.is_null() {
            members.remove("params");
        }
        let params = members.get("params").unwrap_or(&Value::Null);
        if let Err(why) = check(&method, params) {
            tracing::warn!("skipped {method}, which cannot be read: {why}");
            if is_edit(&method) {
                done.push(out_of_step(uri));
            }
            return done;
        }
        done.extend(edited.apply(members, &method, uri));
        done
    }

    /// Walks through a message: URIs become the server's, numbers like `1.0` become integers, and marks
    /// are removed from the strings.
    fn walk(&mut self, value: &mut Value, key: &str, marks: Option<Marks>) -> Edited {
        let mut edited = Edited::default();
        self.walk_into(value, key, &mut String::new(), marks, &mut edited);
        edited
    }

    fn walk_into(
        &mut self,
        value: &mut Value,
        key: &str,
        path: &mut String,
        marks: Option<Marks>,
        edited: &mut Edited,
    ) {
        match value {
            Value::String(text) => {
                if let Some(marks) = marks {
                    let marked = marks.remove(text);
                    if is_document_text(path) {
                        edited.is_damaged |= marked.is_damaged;
                        if !marked.halves.is_empty() {
                            edited.halves.push((path.clone(), marked.halves));
                        }
                    }
                }
                if is_uri(key) {
                    self.names.lock().tidy(text);
                }
            }
            Value::Number(number) => {
                if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                    && let Some(whole) = whole(float)
                {
                    *value = whole.into();
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter_mut().enumerate() {
                    let length = path.len();
                    path.push_str(&format!("/{index}"));
                    self.walk_into(value, "", path, marks, edited);
                    path.truncate(length);
                }
            }
            Value::Object(members) => {
                for (key, value) in members.iter_mut() {
                    let length = path.len();
                    path.push('/');
                    // As in a JSON pointer, RFC 6901.
                    path.push_str(&key.replace('~', "~0").replace('/', "~1"));
                    self.walk_into(value, key, path, marks, edited);
                    path.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Makes sure that a document's version is a number.
    fn version(&mut self, params: &mut Value, uri: Option<&str>) {
        let Some(uri) = uri else { return };
        let Some(document) = params
            .get_mut("textDocument")
            .and_then(Value::as_object_mut)
        else {
            return;
        };
        let sent = document.get("version");
        let number = sent
            .and_then(Value::as_i64)
            .and_then(|it| i32::try_from(it).ok());
        let version = number.unwrap_or_else(|| {
            let text = sent
                .and_then(Value::as_str)
                .and_then(|text| text.parse().ok());
            text.unwrap_or_else(|| self.versions.get(uri).copied().unwrap_or_default())
        });
        let mut named = self.names.lock();
        match number {
            Some(_) => named.unversioned.remove(uri),
            None => named.unversioned.insert(uri.to_owned()),
        };
        self.versions.insert(uri.to_owned(), version);
        document.insert("version".to_owned(), version.into());
        let opens = document.contains_key("text");
        if opens && !document.get("languageId").is_some_and(Value::is_string) {
            document.insert("languageId".to_owned(), "plaintext".into());
        }
    }
}

/// What was found in the texts of a document or its changes.
#[derive(Debug, Default)]
struct Edited {
    /// The halves of surrogate pairs, by the path of the text they are in.
    halves: Vec<(String, Vec<(usize, u16)>)>,
    /// Whether a part of a text is lost.
    is_damaged: bool,
}

impl Edited {
    /// The messages to send to the server.
    fn apply(self, members: Map<String, Value>, method: &str, uri: Option<String>) -> Vec<To> {
        let mut message = Value::Object(members);
        let mut done = Vec::new();
        if self.halves.is_empty() || !is_edit(method) {
            done.push(To::Server(message));
        } else if method == "textDocument/didChange" {
            for (path, halves) in self.halves {
                let change = path
                    .strip_suffix("/text")
                    .and_then(|path| message.pointer_mut(path));
                if let Some(change) = change {
                    change["halves"] = json!(halves);
                }
            }
            message["method"] = HALVED_CHANGE.into();
            done.push(To::Server(message));
        } else {
            let document = &message["params"]["textDocument"];
            let change = json!({
                "jsonrpc": "2.0",
                "method": HALVED_CHANGE,
                "params": {
                    "textDocument": { "uri": document["uri"], "version": document["version"] },
                    "contentChanges": [{ "text": document["text"], "halves": self.halves[0].1 }],
                },
            });
            done.extend([To::Server(message), To::Server(change)]);
        }
        if self.is_damaged {
            tracing::warn!("{method} has a text that is not UTF-8");
            done.push(out_of_step(uri));
        }
        done
    }
}

/// Whether a path in a message leads to the text of a document or of a change to one.
fn is_document_text(path: &str) -> bool {
    let change = path
        .strip_prefix("/params/contentChanges/")
        .and_then(|rest| rest.strip_suffix("/text"));
    let is_index = |index: &str| index.bytes().all(|byte| byte.is_ascii_digit());
    path == "/params/textDocument/text" || change.is_some_and(is_index)
}

/// The number as an integer, if it is whole.
fn whole(float: f64) -> Option<i64> {
    // 2^53: beyond it, a float cannot represent every whole number.
    const MAX: f64 = 9_007_199_254_740_992.0;
    let is_whole = float.fract() == 0.0 && float.abs() < MAX;
    #[allow(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
    is_whole.then_some(float as i64)
}

/// Handles an answer from the client.
fn answer(mut members: Map<String, Value>, marks: Option<Marks>) -> Option<To> {
    members.insert("jsonrpc".to_owned(), "2.0".into());
    let id = members.get("id").filter(|id| !id.is_null()).cloned();
    let Some(id) = id else {
        tracing::warn!("skipped a message with neither a method nor an id");
        return None;
    };
    if !members.contains_key("result") && !members.contains_key("error") {
        let why = "there is no method, and neither a result nor an error";
        tracing::warn!("skipped a message: {why}");
        return Some(error(id, ErrorCode::InvalidRequest, why));
    }
    let mut message = Value::Object(members);
    Tidy::default().walk(&mut message, "", marks);
    Some(match Response::deserialize(&message) {
        Ok(_) => To::Server(message),
        Err(why) => {
            tracing::warn!("an answer from the client cannot be read: {why}");
            lost_answer(id, &why.to_string())
        }
    })
}

/// An error in place of the client's answer, so that the server does not wait for it forever.
fn lost_answer(id: Value, why: &str) -> To {
    let message = format!("the client's answer cannot be read: {why}");
    let code = ErrorCode::InternalError.code();
    To::Server(json!({
        "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message },
    }))
}

/// An error for the client.
fn error(id: Value, code: ErrorCode, why: &str) -> To {
    let message = format!("the message cannot be read: {why}");
    To::Client(json!({
        "jsonrpc": "2.0", "id": id, "error": { "code": code.code(), "message": message },
    }))
}

fn out_of_step(uri: Option<String>) -> To {
    let params = json!({ "uri": uri });
    To::Server(json!({ "jsonrpc": "2.0", "method": OUT_OF_STEP, "params": params }))
}

fn is_edit(method: &str) -> bool {
    matches!(method, "textDocument/didOpen" | "textDocument/didChange")
}

fn is_notification(method: &str) -> bool {
    let name = method.rsplit('/').next().unwrap_or_default();
    let is_past = |rest: &str| rest.starts_with(|char: char| char.is_ascii_uppercase());
    method.starts_with("$/")
        || matches!(method, "initialized" | "exit" | "textDocument/willSave")
        || method == "window/workDoneProgress/cancel"
        || name.strip_prefix("did").is_some_and(is_past)
}

/// Whether a method is a request that the server answers.
fn is_request(method: &str) -> bool {
    const METHODS: [&str; 6] = [
        "initialize",
        "shutdown",
        "textDocument/inlineCompletion",
        "textDocument/completion",
        "textDocument/codeAction",
        "workspace/executeCommand",
    ];
    METHODS.contains(&method)
}

/// Checks that the server can read a notification. For a request, the server answers itself.
fn check(method: &str, params: &Value) -> Result<(), serde_json::Error> {
    fn read<T: DeserializeOwned>(params: &Value) -> Result<(), serde_json::Error> {
        T::deserialize(params).map(drop)
    }
    match method {
        "textDocument/didOpen" => read::<DidOpenTextDocumentParams>(params),
        "textDocument/didChange" => read::<DidChangeTextDocumentParams>(params),
        "textDocument/didClose" => read::<DidCloseTextDocumentParams>(params),
        CELLS_CHANGED => read::<DidChangeCellsParams>(params),
        "textDocument/didFocus" => read::<DidFocusParams>(params),
        "textDocument/didShowCompletion" => read::<DidShowCompletionParams>(params),
        "textDocument/didPartiallyAcceptCompletion" => {
            read::<DidPartiallyAcceptCompletionParams>(params)
        }
        "workspace/didChangeConfiguration" => read::<DidChangeConfigurationParams>(params),
        "workspace/didChangeWorkspaceFolders" => read::<DidChangeWorkspaceFoldersParams>(params),
        "window/workDoneProgress/cancel" => read::<WorkDoneProgressCancelParams>(params),
        "$/cancelRequest" => read::<CancelParams>(params),
        _ => {
            if is_notification(method) {
                tracing::trace!("received {method}");
            }
            Ok(())
        }
    }
}

/// Removes from the parameters of `initialize` what cannot be read, so that the server starts.
fn fix_initialize(params: &mut Value) {
    if !params.is_object() {
        tracing::warn!("initialize has no parameters");
        *params = json!({});
    }
    let Some(members) = params.as_object_mut() else {
        return;
    };
    let capabilities = members.entry("capabilities").or_insert_with(|| json!({}));
    if !capabilities.is_object() {
        *capabilities = json!({});
    }
    if let Some(Value::Array(folders)) = members.get_mut("workspaceFolders") {
        for folder in folders.iter_mut().filter_map(Value::as_object_mut) {
            if !folder.get("name").is_some_and(Value::is_string) {
                folder.insert("name".to_owned(), "".into());
            }
        }
        let can_be_read =
            |folder: &Value| reads(&json!({ "capabilities": {}, "workspaceFolders": [folder] }));
        folders.retain(can_be_read);
    }
    if reads(params) {
        return;
    }
    if let Some(members) = params.as_object_mut() {
        let wrap = |key: &str, value: &Value| match key {
            "capabilities" => json!({ "capabilities": value }),
            _ => json!({ "capabilities": {}, key: value }),
        };
        prune(members, "", &wrap);
    }
}

fn reads(params: &Value) -> bool {
    InitializeParams::deserialize(params).is_ok()
}

/// Removes the members that cannot be read. `wrap` makes parameters with only one member.
fn prune(members: &mut Map<String, Value>, path: &str, wrap: &dyn Fn(&str, &Value) -> Value) {
    members.retain(|key, value| {
        if reads(&wrap(key, value)) {
            return true;
        }
        let path = format!("{path}{key}");
        if let Value::Object(inner) = value {
            let inside = |inner_key: &str, inner: &Value| wrap(key, &json!({ inner_key: inner }));
            prune(inner, &format!("{path}."), &inside);
            if reads(&wrap(key, value)) {
                return true;
            }
        }
        tracing::warn!("{path} in initialize cannot be read, and is ignored");
        false
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "textDocument/didOpen";
    const CHANGE: &str = "textDocument/didChange";

    fn document(version: Value) -> Value {
        json!({ "uri": "file:///a.py", "languageId": "python", "version": version, "text": "x" })
    }

    fn change(version: &Value, changes: Value) -> Value {
        let document = json!({ "uri": "file:///a.py", "version": version });
        json!({ "method": CHANGE, "params": { "textDocument": document, "contentChanges": changes } })
    }

    /// What the server receives for a message: the methods and the parameters.
    fn heard(tidy: &mut Tidy, message: Value) -> Vec<(String, Value)> {
        let messages = tidy.message(message, None).into_iter();
        let heard = messages.map(|message| match message {
            To::Server(mut message) => {
                assert_eq!(message["jsonrpc"], "2.0");
                let method = message["method"].as_str().unwrap_or("answer").to_owned();
                (method, message["params"].take())
            }
            To::Client(message) => ("to the client".to_owned(), message),
        });
        heard.collect()
    }

    fn heard_alone(message: Value) -> (String, Value) {
        let mut heard = heard(&mut Tidy::default(), message);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    #[test]
    fn a_version_becomes_a_number() {
        let mut tidy = Tidy::default();
        let uri = "file:///a.py";
        let mut check = |version: Value, expected: i32, is_versioned: bool| {
            let mut message = change(&version, json!([{ "text": "y" }]));
            if version == "missing" {
                message["params"]["textDocument"]
                    .as_object_mut()
                    .unwrap()
                    .remove("version");
            }
            let (method, params) = heard(&mut tidy, message).remove(0);
            assert_eq!(method, CHANGE);
            assert_eq!(params["textDocument"]["version"], expected, "{version}");
            let mut edit = json!({ "textDocument": { "uri": uri, "version": expected } });
            tidy.names.restore(&mut edit);
            assert_eq!(edit["textDocument"]["version"].is_i64(), is_versioned);
        };
        check(json!(2), 2, true);
        check(json!(null), 2, false);
        check(json!("missing"), 2, false);
        check(json!("7"), 7, false);
        check(json!("seven"), 7, false);
        check(json!(8.0), 8, true);
        check(json!(8.5), 8, false);
        check(json!([]), 8, false);
        check(json!(3_000_000_000_u32), 8, false);
        check(json!(-1), -1, true);
        for version in [json!(null), json!("x"), json!(1.5)] {
            let message =
                json!({ "method": OPEN, "params": { "textDocument": document(version) } });
            let (method, params) = heard_alone(message);
            assert_eq!(method, OPEN);
            assert_eq!(params["textDocument"]["version"], 0);
        }
    }

    #[test]
    fn a_uri_is_tidied_wherever_it_is() {
        let untidy = "file:///tmp/[a] b.py";
        let tidied = "file:///tmp/%5Ba%5D%20b.py";
        let request = json!({ "id": 1, "method": "workspace/executeCommand", "params": {
            "command": "interline.explain",
            "arguments": [{ "uri": untidy, "diagnostics": [{
                "relatedInformation": [{ "location": { "uri": untidy } }],
                "message": untidy,
            }] }, untidy],
        }});
        let mut tidy = Tidy::default();
        let (_, mut params) = heard(&mut tidy, request.clone()).remove(0);
        let argument = &params["arguments"][0];
        assert_eq!(argument["uri"], tidied);
        let diagnostic = &argument["diagnostics"][0];
        assert_eq!(
            diagnostic["relatedInformation"][0]["location"]["uri"],
            tidied
        );
        // These are texts.
        assert_eq!(diagnostic["message"], untidy);
        assert_eq!(params["arguments"][1], untidy);
        // The client reads its own name.
        tidy.names.restore(&mut params);
        assert_eq!(params, request["params"]);

        let text = super::super::commands::DOCUMENT_TEXT;
        let request = json!({ "id": 1, "method": "workspace/executeCommand",
            "params": { "command": text, "arguments": [untidy] } });
        assert_eq!(heard_alone(request).1["arguments"][0], tidied);

        // Once the client sends the tidy URI, the server sends it too.
        let close = json!({ "method": "textDocument/didClose",
            "params": { "textDocument": { "uri": tidied } } });
        heard(&mut tidy, close);
        let mut named = json!({ "uri": tidied });
        tidy.names.restore(&mut named);
        assert_eq!(named["uri"], tidied);
        assert!(tidy.names.is_empty());
    }

    #[test]
    fn initialize_succeeds_whatever_it_contains() {
        let begin = |params: Value| {
            let (method, params) =
                heard_alone(json!({ "id": 1, "method": "initialize", "params": params }));
            assert_eq!(method, "initialize");
            assert!(reads(&params), "{params}");
            params
        };
        begin(Value::Null);
        begin(json!([]));
        begin(json!({}));
        begin(json!({ "capabilities": null }));
        begin(json!({ "capabilities": [] }));
        let params = begin(json!({ "rootUri": "file:///tmp/my app", "processId": 5.0 }));
        assert_eq!(params["rootUri"], "file:///tmp/my%20app");
        assert_eq!(params["processId"], 5);
        assert_eq!(
            begin(json!({ "rootUri": "/tmp/x" }))["rootUri"],
            "file:///tmp/x"
        );
        let params = begin(json!({ "processId": -1, "trace": "loud", "locale": 5,
            "initializationOptions": { "excludedFiles": ["x"] } }));
        assert_eq!(
            params,
            json!({ "capabilities": {}, "initializationOptions": { "excludedFiles": ["x"] } })
        );
        let params = begin(json!({ "workspaceFolders": [
            { "uri": "file:///a b", "name": "a" }, { "uri": "C:\\x" }, null, { "name": "b" },
        ] }));
        assert_eq!(
            params["workspaceFolders"],
            json!([{ "uri": "file:///a%20b", "name": "a" }, { "uri": "file:///C:/x", "name": "" }])
        );
        let params = begin(json!({ "capabilities": {
            "general": { "positionEncodings": ["utf-8"], "regularExpressions": 5 },
            "window": { "workDoneProgress": true },
            "textDocument": { "completion": { "completionItem": { "snippetSupport": "yes" } } },
        } }));
        let expected = json!({
            "general": { "positionEncodings": ["utf-8"] },
            "window": { "workDoneProgress": true },
            "textDocument": { "completion": { "completionItem": {} } },
        });
        assert_eq!(params["capabilities"], expected);
    }

    #[test]
    fn unwanted_parameters_are_removed() {
        for params in [json!({}), json!([]), json!(null), json!(5)] {
            for method in ["shutdown", "exit"] {
                let message = json!({ "id": 1, "method": method, "params": params });
                let heard = heard(&mut Tidy::default(), message);
                assert_eq!(heard.last().unwrap(), &(method.to_owned(), Value::Null));
            }
        }
        let (_, params) = heard_alone(json!({ "method": "initialized" }));
        assert_eq!(params, json!({}));
        let settings = json!({ "method": "workspace/didChangeConfiguration", "params": null });
        assert_eq!(heard_alone(settings).1, json!({ "settings": null }));
    }

    #[test]
    fn an_unreadable_change_is_reported() {
        let mut tidy = Tidy::default();
        let lost = |uri: Value| vec![(OUT_OF_STEP.to_owned(), json!({ "uri": uri }))];
        let here = || lost("file:///a.py".into());
        let place = json!({ "line": 0, "character": 0 });
        for changes in [
            json!(null),
            json!({}),
            json!([{}]),
            json!([{ "text": null }]),
            json!([{ "text": "a" }, { "text": 5 }]),
            json!([{ "text": "a", "range": { "start": place } }]),
            json!([{ "text": "a", "range": { "start": place, "end": { "line": -1, "character": 0 } } }]),
            json!([{ "text": "a", "range": { "start": place, "end": { "line": 0.5, "character": 0 } } }]),
        ] {
            assert_eq!(heard(&mut tidy, change(&json!(1), changes)), here());
        }
        let mut nameless = change(&json!(1), json!([{ "text": "a" }]));
        nameless["params"]["textDocument"]["uri"] = Value::Null;
        assert_eq!(heard(&mut tidy, nameless), lost(Value::Null));
        assert_eq!(
            heard(&mut tidy, json!({ "method": CHANGE })),
            lost(Value::Null)
        );
        let mut wordless =
            json!({ "method": OPEN, "params": { "textDocument": document(json!(1)) } });
        wordless["params"]["textDocument"]["text"] = Value::Null;
        assert_eq!(heard(&mut tidy, wordless), here());

        let cut =
            br#"{"method":"textDocument/didChange","params":{"textDocument":{"uri":"file:///a.py""#;
        let messages = tidy.unreadable(cut, "it is cut off");
        assert_eq!(messages, [out_of_step(Some("file:///a.py".to_owned()))]);
        let garbled = br#"{method:"...","contentChanges":[]}"#;
        assert_eq!(
            tidy.unreadable(garbled, "it is garbled"),
            [out_of_step(None)]
        );
        // A float that is whole is valid.
        let range = json!({ "start": { "line": 0.0, "character": 1.0 }, "end": place });
        let floats = change(&json!(1), json!([{ "text": "a", "range": range }]));
        let (method, params) = heard_alone(floats);
        assert_eq!(method, CHANGE);
        let start = &params["contentChanges"][0]["range"]["start"];
        assert_eq!(*start, json!({ "line": 0, "character": 1 }));
    }

    #[test]
    fn a_notification_with_an_id_is_applied() {
        let mut message = change(&json!(1), json!([{ "text": "a" }]));
        message["id"] = Value::Null;
        assert_eq!(heard_alone(message.clone()).0, CHANGE);
        message["id"] = json!(5);
        let heard = heard(&mut Tidy::default(), message);
        assert_eq!(heard[0].0, "to the client");
        assert_eq!(heard[0].1["id"], 5);
        assert_eq!(heard[1].0, CHANGE);
    }

    #[test]
    fn an_unreadable_answer_becomes_an_error() {
        let pass = |message: Value| match Tidy::default().message(message, None).remove(0) {
            To::Server(message) => message,
            To::Client(message) => panic!("{message}"),
        };
        let good = json!({ "jsonrpc": "2.0", "id": 1, "result": { "applied": true } });
        assert_eq!(pass(good.clone()), good);
        assert_eq!(
            pass(json!({ "id": 1, "result": { "applied": true } })),
            good
        );
        for error in [
            json!("no"),
            json!({ "code": 1 }),
            json!({ "code": 1, "message": "a", "x": 1 }),
        ] {
            let lost = pass(json!({ "id": 1, "error": error }));
            assert_eq!(lost["error"]["code"], -32603, "{lost}");
        }
    }

    /// Each of these is hostile somewhere. Other tests check the outcome; this one only that nothing
    /// panics.
    #[test]
    fn no_message_causes_a_panic() {
        let text = super::super::commands::DOCUMENT_TEXT;
        let shapes = [
            json!(null),
            json!(5),
            json!("x"),
            json!([]),
            json!([[]]),
            json!({}),
            json!({ "textDocument": 5, "contentChanges": 5 }),
            json!({ "textDocument": {}, "contentChanges": { "0": { "text": 1 } } }),
            json!({ "textDocument": { "uri": 5, "version": {} }, "contentChanges": [5] }),
            json!({ "command": text }),
            json!({ "command": text, "arguments": 5 }),
            json!({ "command": text, "arguments": [] }),
            json!({ "command": text, "arguments": [5] }),
            json!({ "capabilities": 5, "workspaceFolders": 5, "processId": {} }),
            json!({ "a/b": { "~": "file:///[a]" }, "uri": "", "document": "\\" }),
        ];
        let methods = [
            "initialize",
            "initialized",
            "shutdown",
            "exit",
            "textDocument/didOpen",
            "textDocument/didChange",
            "textDocument/didClose",
            "textDocument/didFocus",
            "textDocument/inlineCompletion",
            "workspace/executeCommand",
            "workspace/didChangeConfiguration",
            "$/cancelRequest",
            "",
        ];
        let mut tidy = Tidy::default();
        for method in methods {
            for id in [json!(null), json!(1), json!([])] {
                tidy.message(json!({ "method": method, "id": id }), None);
                tidy.message(json!({ "method": method }), None);
                for shape in &shapes {
                    let message = json!({ "method": method, "id": id, "params": shape });
                    tidy.message(message, None);
                    tidy.message(json!({ "method": method, "params": shape }), None);
                }
            }
        }
        // Halves of surrogate pairs outside the text of a document.
        for member in [
            r#""a/b":{"text":"\ud83d"},"a":{"b":5}"#,
            r#""contentChanges/0":{"text":"xxx\ud83d"}"#,
            r#""textDocument":{"text":"\ud83d","uri":"file:///a"}"#,
        ] {
            for method in methods {
                let body = format!(
                    r#"{{"method":"{method}","params":{{"contentChanges":[{{"text":""}}],{member}}}}}"#
                );
                let (repaired, marks) = malformed::repair(body.as_bytes()).unwrap();
                let message = serde_json::from_slice(&repaired).unwrap();
                for done in tidy.message(message, Some(marks)) {
                    let To::Server(done) = done else { continue };
                    let changes = done.pointer("/params/contentChanges").cloned();
                    let changes = changes.unwrap_or_default();
                    let is_edit = ["didOpen", "didChange"]
                        .iter()
                        .any(|name| method.ends_with(name));
                    assert!(changes[0].get("halves").is_none() || is_edit, "{done}");
                }
            }
        }
    }

    #[test]
    fn a_batch_is_split_into_its_messages() {
        let batch = json!([{ "id": 1, "method": "shutdown" }, 5, { "method": "exit" }]);
        let heard = heard(&mut Tidy::default(), batch);
        let methods: Vec<&str> = heard.iter().map(|(method, _)| method.as_str()).collect();
        assert_eq!(methods, ["shutdown", "exit"]);
    }
}
