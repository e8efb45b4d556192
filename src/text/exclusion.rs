//! Files that are never shown to the model.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::language;

/// Files that hold secrets: whatever is in them must not turn up in another place, nor in a log.
///
/// The kinds are those of four tools: the paths in gitleaks' rules, Zed's
/// `edit_predictions.disabled_globs`, Continue's `DEFAULT_SECURITY_IGNORE_*`, and the secrets that
/// GitHub's push protection looks for, by the files in which their tools keep them. Where they differ:
///
/// - `.env.example` and `.env.py` are excluded: Zed and Continue have `.env*`, and the scanners look into
///   all of them.
/// - `config.json`, `settings.json`, `*.db`, `*.bak`, `private/`, `keys/` and `env/` are not: only
///   Continue has them, and most of them are ordinary.
///
/// In lower case. A pattern with no slash is for file names, one with a slash for whole paths.
const SECRETS: &[&str] = &[
    // Variables of the environment.
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
    // Where passwords are kept.
    "*.{kdb,kdbx,psafe3,agilekeychain,opvault,keychain,keychain-db,kwallet,1pux}",
    "*.{secret,secrets,token,tokens,credential,credentials,creds,htpasswd}",
    ".{secret,credential,password,passwd,authinfo,vault-token,vault_pass,vault-pass}*",
    ".{token,tokens,htpasswd,netrc,pgpass,pg_service.conf,my.cnf,mylogin.cnf,odbc.ini}",
    "{_netrc,netrc,htpasswd,pgpass,pgpass.conf,vault_pass*,vault-pass*,master.passwd}",
    ".{muttrc,msmtprc,fetchmailrc,smbcredentials,purple}",
    // Of packages, clouds and their tools.
    ".{npmrc,yarnrc,yarnrc.yml,pypirc,git-credentials,dockercfg,s3cfg,boto,passwd-s3fs,databrickscfg}",
    "{npmrc,git-credentials,dockercfg,s3cfg,pip.conf,nuget.config,rclone.conf,kaggle.json,auth.json}",
    "*.{tfvars,tfvars.json,tfstate,tfstate.*}",
    "{.terraformrc,terraform.rc}",
    "{google-services.json,googleservice-info.plist,application_default_credentials.json}",
    "{client_secret,client-secret,service-account,service_account,serviceaccount,gcp-key}*.json",
    "*{-firebase-adminsdk-,-service-account,_service_account,gcloud-service-key}*.json",
    "*.{kubeconfig,ovpn,tblk,rdp}",
    // Source files that are there for nothing but a secret.
    "{secret_token.rb,arduino_secrets.h,wp-config.php,localsettings.php}",
    // What was typed.
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

/// Files that hold secrets where they are data, and are ordinary where they are source code: the modules
/// `secrets.rs`, `credentials.go` and `token.ts` handle secrets, as Python's own `secrets.py` does, and
/// none of the four tools passes them over. What a shell runs counts as data, because such files set
/// variables.
///
/// Written as [`SECRETS`].
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

/// A path may lead over no more links than this, as Linux has it.
const MAX_LINKS: usize = 40;

/// The files that are excluded, by pattern.
#[derive(Clone, Debug)]
pub struct Exclusion {
    secrets: Patterns,
    secret_data: Patterns,
    users: Patterns,
}

impl Exclusion {
    /// Excludes files that hold secrets, and files that match one of `patterns`, capitals or not. A
    /// pattern with no slash is for file names, one with a slash for whole paths.
    ///
    /// # Errors
    ///
    /// When a pattern is no glob; the text names it.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let own = |patterns: &[&str]| {
            let patterns = patterns.iter().map(|pattern| (*pattern).to_owned());
            Patterns::new(patterns.collect(), true)
        };
        Ok(Self {
            secrets: own(SECRETS)?,
            secret_data: own(SECRET_DATA)?,
            users: Patterns::new(patterns.to_vec(), false)?,
        })
    }

    /// The pattern by which `path` is excluded: by its own name and its parents', and by those of all
    /// that it leads to over symbolic links. What does not exist is judged by its name alone.
    ///
    /// This is the one function that every border asks: documents, tasks, the command line, examples and
    /// parts. It reads no file, only the links of the path, one call to the system for each folder in it.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<&str> {
        self.named(path).or_else(|| self.linked(path))
    }

    /// By the words of the path alone.
    fn named(&self, path: &Path) -> Option<&str> {
        let plain = plain(path);
        let source = language::is_source(&plain)
            && !matches!(
                language::id_of_file(&plain),
                "shellscript" | "fish" | "powershell" | "bat"
            );
        self.secrets
            .of(&plain)
            .or_else(|| self.secret_data.of(&plain).filter(|_| !source))
            .or_else(|| self.users.of(path))
    }

    /// By what the path leads to: each name on the way, and the real path.
    fn linked(&self, path: &Path) -> Option<&str> {
        path.file_name()?;
        let absolute = match path.is_absolute() {
            true => path.to_path_buf(),
            // What is not there may be any text, as an unsaved one.
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

/// Globs, and what they were made of.
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
            globs.add(glob.map_err(|error| format!("in excludedFiles: {error}"))?);
        }
        let globs = globs.build().map_err(|error| error.to_string())?;
        Ok(Self { globs, patterns })
    }

    fn of(&self, path: &Path) -> Option<&str> {
        let index = *self.globs.matches(path).first()?;
        Some(&self.patterns[index])
    }
}

/// A path in lower case, with no `.` and `..` in it, and with the name of the file of which it is a copy.
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
    // Vim's swap file of `a` is `.a.swp`.
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
                .starts_with("in excludedFiles: error parsing glob '**/a['")
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
    fn source_code_is_not() {
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

    /// A folder with links, and an ordinary file to which some lead.
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
