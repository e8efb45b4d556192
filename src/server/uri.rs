//! Document URIs as clients send them: with characters that a URI may not contain, or as plain paths.

use std::borrow::Cow;
use std::path::PathBuf;

use tower_lsp::ls_types::Uri;

/// The path in a document's URI; empty if there is none. A document that is not a local file
/// (`untitled:`, `vscode-remote:`) has a path only to match rules against: nothing may be read there.
#[must_use]
pub fn path(uri: &Uri) -> PathBuf {
    uri.to_file_path().unwrap_or_default().into_owned()
}

/// The URI that is meant. A valid URI stays as it is, except that in a `file:` URI `?` and `#` are
/// characters of the path: a path has no query.
#[must_use]
pub fn tidy(uri: &str) -> Cow<'_, str> {
    let scheme = scheme(uri);
    let is_file = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("file"));
    let is_sound = scheme.is_some() && !(is_file && uri.contains(['?', '#']));
    if is_sound && is_uri(uri) {
        return Cow::Borrowed(uri);
    }
    let tidied = match scheme {
        None => format!("file://{}", path_of_uri(uri, false)),
        Some(scheme) if is_file => {
            let rest = &uri[scheme.len() + 1..];
            match rest.strip_prefix("//") {
                // A drive is not a host.
                Some(path) if has_drive(path) => format!("file://{}", path_of_uri(path, true)),
                Some(rest) => {
                    let (host, path) = rest.split_at(rest.find(['/', '\\']).unwrap_or(rest.len()));
                    let path = path_of_uri(path, true);
                    format!("file://{}{path}", encode(host, "", true))
                }
                None => format!("file://{}", path_of_uri(rest, true)),
            }
        }
        Some(scheme) => {
            let rest = &uri[scheme.len() + 1..];
            let (rest, fragment) = match rest.split_once('#') {
                Some((rest, fragment)) => (rest, Some(fragment)),
                None => (rest, None),
            };
            let allowed = "/:@?!$&'()*+,;=";
            let fragment = fragment.map_or(String::new(), |fragment| {
                format!("#{}", encode(fragment, allowed, true))
            });
            let careful = format!("{scheme}:{}{fragment}", encode(rest, allowed, true));
            match is_uri(&careful) {
                true => careful,
                // For example, an invalid host.
                false => format!("{scheme}:{}{fragment}", encode(rest, "", true)),
            }
        }
    };
    Cow::Owned(tidied)
}

fn is_uri(uri: &str) -> bool {
    uri.parse::<Uri>().is_ok()
}

/// The scheme of a URI. A single letter is a drive, not a scheme.
fn scheme(uri: &str) -> Option<&str> {
    let (scheme, _) = uri.split_once(':')?;
    let mut chars = scheme.chars();
    let is_scheme = chars.next()?.is_ascii_alphabetic()
        && chars.all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char));
    (is_scheme && scheme.len() > 1).then_some(scheme)
}

/// Whether a path begins with the letter of a drive.
fn has_drive(path: &str) -> bool {
    let path = path.as_bytes();
    matches!(path, [letter, b':', rest @ ..] if letter.is_ascii_alphabetic()
        && matches!(rest.first(), None | Some(b'/' | b'\\')))
}

/// The part of a URI after `file://` for a path, which is percent-encoded already if `is_encoded`.
fn path_of_uri(path: &str, is_encoded: bool) -> String {
    let bare = path.trim_start_matches('/');
    let is_windows = has_drive(bare) || path.starts_with("\\\\");
    let path = match is_windows {
        true => Cow::Owned(path.replace('\\', "/")),
        false => Cow::Borrowed(path),
    };
    let encoded = encode(&path, "/:@!$&'()*+,;=", is_encoded);
    match encoded.strip_prefix("//") {
        // `\\server\share`
        Some(share) if is_windows && !is_encoded => {
            let (host, path) = share.split_at(share.find('/').unwrap_or(share.len()));
            format!("{}{path}", encode(host, "%", true))
        }
        _ if encoded.starts_with('/') || encoded.is_empty() => encoded,
        _ => format!("/{encoded}"),
    }
}

/// Percent-encodes all but letters, digits, `-._~` and the `allowed` characters; if `is_encoded`, also
/// leaves escapes as they are.
fn encode(text: &str, allowed: &str, is_encoded: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let char = char::from(byte);
        let is_escape = is_encoded
            && byte == b'%'
            && matches!(bytes.get(at + 1..at + 3), Some(hex) if hex.iter().all(u8::is_ascii_hexdigit));
        if is_escape
            || byte.is_ascii_alphanumeric()
            || (byte.is_ascii() && ("-._~".contains(char) || allowed.contains(char)))
        {
            encoded.push(char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uris_as_clients_send_them_are_understood() {
        #[track_caller]
        fn check(uri: &str, expected: &str, expected_path: &str) {
            assert_eq!(tidy(uri), expected);
            let tidied: Uri = expected.parse().unwrap();
            if cfg!(unix) {
                assert_eq!(path(&tidied).to_str().unwrap(), expected_path);
            }
        }
        let same = |uri: &str, expected_path: &str| check(uri, uri, expected_path);
        same("file:///tmp/a.py", "/tmp/a.py");
        same("file:///tmp/a%20b/%C3%A9.py", "/tmp/a b/é.py");
        same("file:///c%3A/x.py", "/c:/x.py");
        same("file://server/share/x.py", "/share/x.py");
        same("untitled:Untitled-1", "Untitled-1");
        same("vscode-notebook-cell:/tmp/a.ipynb#W0s", "/tmp/a.ipynb");
        same("git:/tmp/a.py?%7B%22ref%22%3A%22%22%7D", "/tmp/a.py");
        same("vscode-remote://ssh-remote+host/tmp/a.py", "/tmp/a.py");

        let file = |name: &str, encoded: &str| {
            let path = format!("/tmp/{name}");
            let expected = format!("file:///tmp/{encoded}");
            check(&format!("file://{path}"), &expected, &path);
            check(&path, &expected, &path);
        };
        file("app/[slug]/page.py", "app/%5Bslug%5D/page.py");
        file("a b/x.py", "a%20b/x.py");
        file("été/x.py", "%C3%A9t%C3%A9/x.py");
        file("漢字.py", "%E6%BC%A2%E5%AD%97.py");
        file("{id}.py", "%7Bid%7D.py");
        file("100%.py", "100%25.py");
        file("100%x/%.py", "100%25x/%25.py");
        file("a|b.py", "a%7Cb.py");
        file("a^b`c\"d<e>f.py", "a%5Eb%60c%22d%3Ce%3Ef.py");
        file("c#/.env", "c%23/.env");
        file("why?.py", "why%3F.py");
        file("a\\b.py", "a%5Cb.py");
        file("a\tb\n.py", "a%09b%0A.py");

        // A plain path contains no escapes.
        check("/tmp/a%20b.py", "file:///tmp/a%2520b.py", "/tmp/a%20b.py");
        check("C:\\a b\\x.py", "file:///C:/a%20b/x.py", "/C:/a b/x.py");
        check("c:/x.py", "file:///c:/x.py", "/c:/x.py");
        check(
            "file:///C:\\a\\x y.py",
            "file:///C:/a/x%20y.py",
            "/C:/a/x y.py",
        );
        check("file://C:\\a\\x.py", "file:///C:/a/x.py", "/C:/a/x.py");
        check(
            "\\\\server\\a b\\x.py",
            "file://server/a%20b/x.py",
            "/a b/x.py",
        );
        check("x y.py", "file:///x%20y.py", "/x y.py");
        check("", "file://", "");
        check("file:/tmp/a b.py", "file:///tmp/a%20b.py", "/tmp/a b.py");
        check("file://[x]/a.py", "file://%5Bx%5D/a.py", "/a.py");
        check(
            "untitled:a b {1}.py",
            "untitled:a%20b%20%7B1%7D.py",
            "a b {1}.py",
        );
        check(
            "vscode-notebook-cell:/tmp/[a].ipynb#W0s|#",
            "vscode-notebook-cell:/tmp/%5Ba%5D.ipynb#W0s%7C%23",
            "/tmp/[a].ipynb",
        );
    }

    proptest! {
        /// Any text becomes a valid URI, which does not change when tidied again.
        #[test]
        fn any_text_is_tidied(uri in "(file:|file://|untitled:|C:|[a-z]+:)?(//|/|\\\\)?\\PC{0,30}") {
            let tidied = tidy(&uri).into_owned();
            prop_assert!(tidied.parse::<Uri>().is_ok(), "{tidied:?}");
            prop_assert_eq!(tidy(&tidied), tidied.as_str());
        }
    }
}
