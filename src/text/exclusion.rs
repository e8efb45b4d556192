//! Files that are never shown to the model.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::language;

/// Files that hold secrets. Their contents must not appear anywhere else, nor in a log.
///
/// The list combines four sources: the paths in gitleaks' rules, Zed's
/// `edit_predictions.disabled_globs`, Continue's `DEFAULT_SECURITY_IGNORE_*`, and the files in
/// which tools keep the secrets that GitHub's push protection looks for. Where they differ:
///
/// - `.env.example` and `.env.py` are excluded: Zed and Continue have `.env*`, and the scanners
///   check all of them.
/// - `config.json`, `settings.json`, `*.db`, `*.bak`, `private/`, `keys/` and `env/` are not: only
///   Continue has them, and most such files are ordinary.
///
/// In lower case. A pattern without a slash applies to file names, one with a slash to whole paths.
const SECRETS: &[&str] = &[
    // Environment variables.
    ".env*",
    "*.env",
    ".flaskenv",
    ".{dev,prod,staging,test}.vars*",
    "**/.{env,envs}{,.*}/**",
    // Keys and certificates.
    "*.{pem,key,keypair,p8,p12,pfx,pkcs12,der,cer,cert,crt,ppk,gpg,pgp,snk,priv,agekey}",
    "*.{jks,jceks,bks,keystore,truststore,keytab,keyring,mobileprovision}",
    "id_{rsa,dsa,ecdsa,ed25519,xmss}*",
    "*_{rsa,dsa,ecdsa,ed25519}",
    "ssh_host_*_key",
    "{secring,pubring}.*",
    "{key,keystore,signing}.properties",
    // Password stores.
    "*.{kdb,kdbx,psafe3,agilekeychain,opvault,keychain,keychain-db,kwallet,1pux}",
    "*.{secret,secrets,token,tokens,credential,credentials,creds,htpasswd}",
    ".{secret,credential,password,passwd,authinfo,vault-token,vault_pass,vault-pass}*",
    ".{token,tokens,htpasswd,netrc,pgpass,pg_service.conf,my.cnf,mylogin.cnf,odbc.ini}",
    "{_netrc,netrc,htpasswd,pgpass,pgpass.conf,vault_pass*,vault-pass*,master.passwd}",
    ".{muttrc,msmtprc,fetchmailrc,smbcredentials,purple}",
    // Package managers, clouds and their tools.
    ".{npmrc,yarnrc,yarnrc.yml,pypirc,git-credentials,dockercfg,s3cfg,boto,passwd-s3fs,databrickscfg}",
    "{npmrc,git-credentials,dockercfg,s3cfg,pip.conf,nuget.config,rclone.conf,kaggle.json,auth.json}",
    "*.{tfvars,tfvars.json,tfstate,tfstate.*}",
    "{.terraformrc,terraform.rc}",
    "{google-services.json,googleservice-info.plist,application_default_credentials.json}",
    "{client_secret,client-secret,service-account,service_account,serviceaccount,gcp-key}*.json",
    "*{-firebase-adminsdk-,-service-account,_service_account,gcloud-service-key}*.json",
    "*.{kubeconfig,ovpn,tblk,rdp}",
    // Source files whose only purpose is to hold a secret.
    "{secret_token.rb,arduino_secrets.h,wp-config.php,localsettings.php}",
    // Histories of typed commands.
    ".*_history",
    ".history",
    // Folders.
    "**/.{aws,ssh,gnupg,gpg,kube,azure,gcp,gcloud,oci,aliyun,terraform.d,password-store}/**",
    "**/.{secret,secrets,private,vault,purple,chef}/**",
    "**/.docker/{config.json,contexts/**}",
    "**/.config/{gcloud,gh,hub,glab-cli,doctl,rclone,op,git/credentials}{,/**}",
    "**/.{cargo,gem}/credentials*",
    "**/.{bundle,git,irssi,snowsql}/config",
    "**/.{m2/settings*.xml,gradle/gradle.properties,dbt/profiles.yml,huggingface/token}",
    "**/etc/{shadow,gshadow,sudoers}*",
    "**/etc/ssl/private/**",
    "**/wireguard/*.conf",
    "**/run/secrets/**",
];

/// Files that hold secrets if they are data, but are ordinary if they are source code: the modules
/// `secrets.rs`, `credentials.go` and `token.ts` handle secrets, as Python's own `secrets.py` does,
/// and none of the four sources lists them. Scripts for a shell count as data, because such files
/// set variables.
///
/// The syntax is that of [`SECRETS`].
const SECRET_DATA: &[&str] = &[
    "*.env.*",
    "{secret,secrets,credential,credentials,creds}{,.*}",
    "*[-_.]{secret,secrets,credential,credentials,creds}{,.*}",
    "{secrets,credentials,creds}[-_]*",
    "*{secrets,credentials}.{json,yml,yaml,toml,ini,xml,properties,txt,csv,conf,cfg,plist}",
    "{password,passwords,passwd}{,.*}",
    "{token,token.json,token.txt,tokens.txt}",
    "{api_key,api-key,apikey}*",
    "*{private_key,private-key,privatekey}*",
    "{kubeconfig,kube.config}*",
    "*[-_.]kubeconfig{,.*}",
    "**/{secrets,credentials}/**",
];

/// What an editor or a person appends to the name of a copy.
const COPIES: &[&str] = &[
    "~", "#", ".bak", ".backup", ".old", ".orig", ".save", ".swp", ".swo", ".tmp", ".copy",
];

/// The most symbolic links that a path may lead through, as on Linux.
const MAX_LINKS: usize = 40;

/// The files that are excluded, by pattern.
#[derive(Clone, Debug)]
pub struct Exclusion {
    own: &'static Own,
    users: Patterns,
}

/// The patterns that come with Interline.
#[derive(Debug)]
struct Own {
    secrets: Patterns,
    secret_data: Patterns,
}

/// Compiled once: the user's patterns may change, and are checked before they take effect.
static OWN: LazyLock<Result<Own, String>> = LazyLock::new(|| {
    let own = |patterns: &[&str]| {
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned());
        Patterns::new(patterns.collect(), true)
    };
    Ok(Own {
        secrets: own(SECRETS)?,
        secret_data: own(SECRET_DATA)?,
    })
});

impl Exclusion {
    /// Excludes files that hold secrets, and files that match one of `patterns`, in upper or lower
    /// case. A pattern without a slash applies to file names, one with a slash to whole paths.
    ///
    /// # Errors
    ///
    /// If a pattern is not a valid glob; the message names it.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        Ok(Self {
            own: OWN.as_ref().map_err(Clone::clone)?,
            users: Patterns::new(patterns.to_vec(), false)?,
        })
    }

    /// The pattern that excludes `path`: by its own name and those of its parents, or by those of
    /// anything that it leads to through symbolic links. A path that does not exist is judged by
    /// its name alone.
    ///
    /// Every border calls this one function: documents, tasks, the command line, examples and
    /// parts. It reads no file, only the links of the path, with one system call for each folder in
    /// it.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<&str> {
        self.named(path).or_else(|| self.linked(path))
    }

    /// Judges by the names in the path alone.
    fn named(&self, path: &Path) -> Option<&str> {
        let plain = plain(path);
        let source = language::is_source(&plain)
            && !matches!(
                language::id_of_file(&plain),
                "shellscript" | "fish" | "powershell" | "bat"
            );
        self.own
            .secrets
            .of(&plain)
            .or_else(|| self.own.secret_data.of(&plain).filter(|_| !source))
            .or_else(|| self.users.of(path))
    }

    /// Judges by what the path leads to: each name on the way, and the real path.
    fn linked(&self, path: &Path) -> Option<&str> {
        path.file_name()?;
        let absolute = match path.is_absolute() {
            true => path.to_path_buf(),
            // What does not exist may be any text, such as an unsaved one.
            false if path.symlink_metadata().is_err() => return None,
            false => std::path::absolute(path).ok()?,
        };
        let reversed = |path: &Path| -> Vec<OsString> {
            let parts = path.components().map(|part| part.as_os_str().to_owned());
            let mut parts: Vec<_> = parts.collect();
            parts.reverse();
            parts
        };
        let mut rest = reversed(&absolute);
        let mut real = PathBuf::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match part.to_str() {
                Some(".") => continue,
                Some("..") => {
                    real.pop();
                    continue;
                }
                _ => real.push(part),
            }
            let Ok(target) = std::fs::read_link(&real) else {
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            real.pop();
            rest.extend(reversed(&target));
            let mut whole = real.join(&target);
            // The last part of `target` is not yet resolved, and more may follow it.
            whole.extend(rest.iter().rev().skip(target.components().count()));
            if let Some(pattern) = self.named(&whole) {
                return Some(pattern);
            }
            if target.is_absolute() {
                real = PathBuf::new();
            }
        }
        self.named(&real)
    }
}

/// Globs, and the patterns they were made from.
#[derive(Clone, Debug)]
struct Patterns {
    globs: GlobSet,
    patterns: Vec<String>,
}

impl Patterns {
    /// Our `own` patterns are compared with paths in lower case, which is much faster.
    fn new(patterns: Vec<String>, own: bool) -> Result<Self, String> {
        let mut globs = GlobSetBuilder::new();
        for pattern in &patterns {
            let anywhere = match pattern.contains('/') {
                true => pattern.clone(),
                false => format!("**/{pattern}"),
            };
            let glob = GlobBuilder::new(&anywhere)
                .case_insensitive(!own)
                .literal_separator(own)
                .empty_alternates(true)
                .build();
            globs.add(glob.map_err(|error| error.to_string())?);
        }
        let globs = globs.build().map_err(|error| error.to_string())?;
        Ok(Self { globs, patterns })
    }

    fn of(&self, path: &Path) -> Option<&str> {
        let index = *self.globs.matches(path).first()?;
        Some(&self.patterns[index])
    }
}

/// The path in lower case, without `.` and `..`. If its name is that of a copy, it becomes that of
/// the original.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part.as_os_str().to_string_lossy().to_lowercase()),
        }
    }
    let Some(name) = plain.file_name().and_then(|name| name.to_str()) else {
        return plain;
    };
    let mut original = name.strip_prefix('#').unwrap_or(name);
    // Vim's swap file for `a` is `.a.swp`.
    if name.ends_with(".swp") || name.ends_with(".swo") {
        original = original.strip_prefix('.').unwrap_or(original);
    }
    while let Some(shorter) = COPIES
        .iter()
        .find_map(|copy| original.strip_suffix(copy))
        .filter(|shorter| !shorter.is_empty())
    {
        original = shorter;
    }
    match original == name {
        true => plain,
        false => plain.with_file_name(original),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exclusion() -> Exclusion {
        Exclusion::new(&["*.min.js".to_owned(), "/vault/**".to_owned()]).unwrap()
    }

    fn check(path: &str, expected: Option<&str>) {
        assert_eq!(exclusion().of(Path::new(path)), expected, "{path}");
    }

    fn check_all(paths: &str, excluded: bool) {
        let exclusion = exclusion();
        for name in paths.split_whitespace() {
            for path in [
                name.to_owned(),
                format!("/home/a/{name}"),
                name.to_uppercase(),
            ] {
                let found = exclusion.of(Path::new(&path));
                assert_eq!(found.is_some(), excluded, "{path}: {found:?}");
            }
        }
    }

    #[test]
    fn the_pattern_is_named() {
        check("/home/a/.env", Some(".env*"));
        check(".env.local", Some(".env*"));
        check("prod.env", Some("*.env"));
        check(
            "/home/a/id_rsa.pub",
            Some("id_{rsa,dsa,ecdsa,ed25519,xmss}*"),
        );
        check("/home/a/jquery.min.js", Some("*.min.js"));
        check("/home/a/JQUERY.Min.js", Some("*.min.js"));
        check("/vault/a.py", Some("/vault/**"));
        assert!(
            Exclusion::new(&["a[".to_owned()])
                .unwrap_err()
                .starts_with("error parsing glob '**/a['")
        );
    }

    #[test]
    fn secrets_are_excluded() {
        check_all(
            "prod.env config/app.env .netrc .npmrc .git-credentials .pgpass .kube/config \
             .docker/config.json terraform.tfvars id_ecdsa secrets/db.yaml app.keystore \
             .env .env.local .env.example .env.py .envrc .env/variables .envs/.production/.postgres \
             app.env.prod .dev.vars .flaskenv server.pem Server.key a.p12 a.pfx a.jks a.ppk a.gpg \
             a.cer tls.crt debug.keystore key.properties id_rsa id_dsa id_ed25519 id_ed25519_sk \
             deploy_rsa ssh_host_rsa_key .ssh/config .aws/credentials .gnupg/a.txt .azure/a.json \
             .gcp/key.json .config/gcloud/a.db .config/gh/hosts.yml .cargo/credentials.toml \
             .gem/credentials .m2/settings.xml .gradle/gradle.properties .bundle/config .git/config \
             _netrc .pypirc .yarnrc.yml nuget.config pip.conf .my.cnf .s3cfg .boto .dockercfg \
             .htpasswd .vault-token .vault_pass.txt .terraformrc prod.auto.tfvars a.tfvars.json \
             terraform.tfstate terraform.tfstate.backup client_secret_123.json service-account.json \
             app-firebase-adminsdk-1.json google-services.json auth.json token.json token a.token \
             credentials credentials.json aws-credentials.csv credentials.yml.enc awsCredentials.json \
             secrets.yml secret.yaml db-secret.yaml app.secrets.json secrets-prod.yaml .secrets.toml \
             .secrets/a.py appSecrets.json passwords.txt creds.ini api_keys.json private_key.txt \
             secrets.sh kubeconfig prod-kubeconfig.yaml admin.kubeconfig a.kdbx a.ovpn \
             .bash_history .psql_history secret_token.rb arduino_secrets.h wp-config.php \
             .env~ .env.bak prod.env.old id_rsa.bak credentials.json.orig .prod.env.swp #prod.env# \
             src/../.ssh/config a/run/secrets/db",
            true,
        );
    }

    #[test]
    fn source_code_is_not_excluded() {
        check_all(
            "environment.py src/secrets.rs credentials.go token.ts tokenizer.json key.rs secrets.py \
             keys.rs config.json secrets/mod.rs src/credentials/store.go secret_manager.py \
             my-secret.test.ts password.go passwords.rb PasswordReset.vue tokens.json tokens.css \
             tokenizer_config.json api_key.rs private_key.cpp kubeconfig.go app.env.ts vite-env.d.ts \
             env.ts env/a.py environment.yml .environment/a.yml keyboard.py keymap.json monkey.py \
             .github/workflows/secret_scanning.yml .github/workflows/token.yml package.json \
             settings.json .git/COMMIT_EDITMSG .docker/Dockerfile .kubernetes/a.yaml main.tf \
             shadow.rs history.txt certs/readme.md src/private/a.h secrets.rs.bak a.py~ Makefile \
             ssh/../src/a.yaml secrets/../a.yaml",
            false,
        );
        for path in ["", "/", ".", "..", "a/.."] {
            check(path, None);
        }
    }

    /// Checks `path` in a folder with these links, an ordinary file and a secret one.
    #[cfg(unix)]
    fn check_links(links: &[(&str, &str)], path: &str, expected: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        for name in ["src", ".ssh", "store"] {
            std::fs::create_dir(real.join(name)).unwrap();
        }
        std::fs::write(real.join("src/a.txt"), "a").unwrap();
        std::fs::write(real.join(".ssh/config"), "a").unwrap();
        for (link, target) in links {
            let target = match target.strip_prefix('/') {
                Some(inside) => real.join(inside),
                None => target.into(),
            };
            std::os::unix::fs::symlink(target, real.join(link)).unwrap();
        }
        let found = exclusion();
        let found = found.of(&real.join(path));
        assert_eq!(found, expected, "{path} with {links:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_judged_by_what_it_leads_to() {
        let ssh = Some(
            SECRETS
                .iter()
                .find(|pattern| pattern.contains(",ssh,"))
                .unwrap(),
        );
        let ssh = ssh.copied();
        let env = Some(".env*");
        check_links(&[("notes.py", ".env")], "notes.py", env);
        check_links(&[("notes.py", "/.env")], "notes.py", env);
        check_links(&[("src/notes.py", "../.env")], "src/notes.py", env);
        check_links(&[("notes.py", "b.py"), ("b.py", ".env")], "notes.py", env);
        check_links(
            &[("notes.py", ".env"), (".env", "store/1")],
            "notes.py",
            env,
        );
        check_links(&[("notes.py", ".ssh/config")], "notes.py", ssh);
        check_links(&[("docs", ".ssh")], "docs/config", ssh);
        check_links(&[("docs", "/.ssh")], "docs/new.py", ssh);
        check_links(&[("docs", ".ssh")], "docs/../src/a.txt", None);
        check_links(&[(".env", "src/a.txt")], ".env", env);
        check_links(&[("a.py", "src/a.txt")], "a.py", None);
        check_links(&[("src/b", "../src")], "src/b/b/b/a.txt", None);
        check_links(&[("a.py", "b.py"), ("b.py", "a.py")], "a.py", None);
        check_links(&[("a.py", "nothing.py")], "a.py", None);
    }

    #[cfg(unix)]
    #[test]
    fn the_users_patterns_hold_for_what_a_link_leads_to() {
        check_links(&[("a.py", "store/jquery.min.js")], "a.py", Some("*.min.js"));
    }

    proptest! {
        #[test]
        fn a_secret_stays_one_wherever_it_is(
            parents in prop::collection::vec("[a-z]{1,8}", 0..4),
            name in prop::sample::select(vec![".env", "prod.env", ".netrc", "id_ecdsa", ".ssh/config"]),
        ) {
            let path = format!("/{}/{name}", parents.join("/"));
            prop_assert!(exclusion().of(Path::new(&path)).is_some());
        }
    }
}
