//! Files that are never shown to the model.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Files that hold secrets: whatever is in them must not turn up in another place, nor in a log.
pub const SECRETS: &[&str] = &[
    ".env*",
    ".dev.vars",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.cert",
    "*.crt",
    "id_rsa*",
    "id_ed25519*",
    "secrets.*",
    "**/.aws/**",
    "**/.ssh/**",
    "**/.gnupg/**",
];

/// The files that are excluded, by pattern.
#[derive(Clone, Debug)]
pub struct Exclusion {
    globs: GlobSet,
    patterns: Vec<String>,
}

impl Exclusion {
    /// Excludes [`SECRETS`], and files that match one of `patterns`. A pattern with no slash is for
    /// file names, one with a slash for whole paths.
    ///
    /// # Errors
    ///
    /// When a pattern is no glob; the text names it.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let patterns: Vec<String> = SECRETS
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .chain(patterns.iter().cloned())
            .collect();
        let mut globs = GlobSetBuilder::new();
        for pattern in &patterns {
            let anywhere = match pattern.contains('/') {
                true => pattern.clone(),
                false => format!("**/{pattern}"),
            };
            let glob = GlobBuilder::new(&anywhere).case_insensitive(true).build();
            globs.add(glob.map_err(|error| format!("in excludedFiles: {error}"))?);
        }
        let globs = globs.build().map_err(|error| error.to_string())?;
        Ok(Self { globs, patterns })
    }

    /// The pattern by which `path` is excluded.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<&str> {
        let index = *self.globs.matches(path).first()?;
        Some(&self.patterns[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<&str>) {
        let exclusion = Exclusion::new(&["*.min.js".to_owned(), "/work/**".to_owned()]).unwrap();
        assert_eq!(exclusion.of(Path::new(path)), expected, "{path}");
    }

    #[test]
    fn secrets_are_excluded() {
        check("/home/a/.env", Some(".env*"));
        check(".env.local", Some(".env*"));
        check("/home/a/Server.PEM", Some("*.pem"));
        check("/home/a/.ssh/config", Some("**/.ssh/**"));
        check("/home/a/id_rsa.pub", Some("id_rsa*"));
        check("/home/a/config/secrets.yml", Some("secrets.*"));
    }

    #[test]
    fn the_user_adds_patterns() {
        check("/home/a/jquery.min.js", Some("*.min.js"));
        check("/work/a.py", Some("/work/**"));
        assert!(
            Exclusion::new(&["a[".to_owned()])
                .unwrap_err()
                .starts_with("in excludedFiles: error parsing glob '**/a['")
        );
    }

    #[test]
    fn code_is_not() {
        check("/home/a/environment.py", None);
        check("/home/a/keys.rs", None);
        check("/home/a/config.json", None);
        check("", None);
    }
}
