//! Checks the borders between the rooms, by the paths in the code, and the map in
//! `ARCHITECTURE.md`.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each room may use itself and the rooms below it. A module includes all modules inside it that
/// are not named themselves.
const ROOMS: [(&str, &[&str]); 8] = [
    ("program", &["main", "cli"]),
    ("protocol", &["server"]),
    ("features", &["suggest", "tasks"]),
    ("text", &["text"]),
    ("engine", &["engine"]),
    ("model", &["model"]),
    ("sandbox", &["sandbox"]),
    (
        "foundation",
        &["runtime", "download", "verified", "cache_folder"],
    ),
];

/// Crates that only some modules may name, and those modules.
const CRATES: [(&str, &[&str]); 4] = [
    ("ort", &["model::onnx", "runtime"]),
    ("tokenizers", &["model::tokenizer"]),
    ("tower_lsp", &["server", "text::position"]),
    ("tokio", &["cli", "server", "engine"]),
];

/// Files that may share a name: the tests of a module that has many.
const SHARED_NAMES: [&str; 1] = ["tests"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every module but the crate's root, as `a::b`, with its code and without its tests.
fn modules() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    let modules = found.iter().filter_map(|path| {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let names: Vec<_> = relative.iter().map(|name| name.to_str().unwrap()).collect();
        let name = names.join("::");
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        (name != "lib" && !name.ends_with("::tests")).then(|| (name, code.to_owned()))
    });
    modules.collect()
}

fn is_inside(module: &str, outer: &str) -> bool {
    module
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The room of a module or of something in it, counted from the top.
fn room(path: &str) -> usize {
    let rooms = ROOMS.iter().enumerate();
    let named = rooms.flat_map(|(room, (_, modules))| modules.iter().map(move |name| (room, name)));
    let inside = named.filter(|(_, name)| is_inside(path, name));
    let nearest = inside.max_by_key(|(_, name)| name.len());
    nearest.unwrap_or_else(|| panic!("{path} is in no room")).0
}

/// The paths after each `prefix` in the code.
fn paths<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let lines = code.lines().filter(|line| !line.trim().starts_with("//"));
    let found = lines.flat_map(|line| line.match_indices(prefix).map(move |(at, _)| (line, at)));
    let whole = found.filter(|(line, at)| {
        !line[..*at].ends_with(|char: char| char.is_alphanumeric() || "_:".contains(char))
    });
    let rest = whole.map(|(line, at)| &line[at + prefix.len()..]);
    rest.map(|rest| {
        let end = rest.find(|char: char| !(char.is_alphanumeric() || "_:".contains(char)));
        rest[..end.unwrap_or(rest.len())].trim_end_matches(':')
    })
    .collect()
}

#[test]
fn a_room_uses_only_the_rooms_below_it() {
    let mut used = 0;
    for (module, code) in modules() {
        for path in paths(&code, "crate::")
            .into_iter()
            .chain(paths(&code, "interline::"))
        {
            used += 1;
            let (from, to) = (room(&module), room(path));
            assert!(
                from <= to,
                "{module} is in the room \"{}\" and uses {path}, which is in the room \"{}\" above it. \
                 Hand down what it needs as a plain value, or move what it needs to its own room or \
                 one below; tests/borders.rs lists the rooms.",
                ROOMS[from].0,
                ROOMS[to].0
            );
        }
    }
    assert!(used > 50, "only {used} uses were read");
}

#[test]
fn a_crate_is_named_only_where_it_may_be() {
    for (module, code) in modules() {
        for (name, allowed) in CRATES {
            // The engine's handle is async; what the engine is made of is not.
            let may = allowed
                .iter()
                .any(|outer| is_inside(&module, outer) && !module.starts_with("engine::"));
            let uses = paths(&code, &format!("{name}::"));
            assert!(
                may || uses.is_empty(),
                "{module} uses {name}::{uses:?}, but only {allowed:?} may name that crate. Ask one of \
                 these for what is needed, in types of our own."
            );
        }
    }
}

#[test]
fn no_two_files_share_a_name() {
    let mut seen = std::collections::HashMap::new();
    for (module, _) in modules() {
        let name = module.rsplit("::").next().unwrap().to_owned();
        if SHARED_NAMES.contains(&name.as_str()) {
            continue;
        }
        if let Some(other) = seen.insert(name.clone(), module.clone()) {
            panic!(
                "{other} and {module} are both in a file {name}.rs. A file has one subject and is \
                 named by it: give one of them a name that tells it from the other."
            );
        }
    }
}

#[test]
fn the_map_shows_every_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for (module, _) in modules() {
        let file = format!("`{}.rs`", module.replace("::", "/"));
        assert!(
            map.contains(&file),
            "ARCHITECTURE.md does not name {file}. Add it to the map, with its subject in a few words."
        );
    }
}
