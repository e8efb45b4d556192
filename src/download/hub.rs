//! A Hub: a server of model files with the addresses of the Hugging Face Hub.
//!
//! A download is continued with `Range`. A server may ignore that and answer with the whole file;
//! the file then starts anew.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::Body;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, header};

use super::{STALL, Waiter};

/// Where a Hub is if `HF_ENDPOINT` does not name another one.
const ENDPOINT: &str = "https://huggingface.co";

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(15);

/// The largest list of a repository's files that is read, in bytes.
const MAX_LIST_BYTES: u64 = 8 << 20;

/// What stays as it is in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A file in a repository of a Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// `OWNER/REPO`.
    pub repository: String,
    /// A branch or a commit.
    pub revision: String,
    /// The path in the repository.
    pub path: String,
}

/// What a repository holds.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Repository {
    /// The commit that was looked at.
    #[serde(rename = "sha")]
    pub commit: String,
    /// Its files.
    #[serde(rename = "siblings")]
    pub files: Vec<Listed>,
}

/// A file in a list.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Listed {
    /// The path in the repository.
    #[serde(rename = "rfilename")]
    pub path: String,
    /// Size and hash, which are known of large files.
    pub lfs: Option<Lfs>,
}

/// What is known of a large file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Lfs {
    /// In bytes.
    pub size: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// A Hub, with the user's token for it.
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: ureq::Agent,
}

/// Without the token.
impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hub").field(&self.endpoint).finish()
    }
}

impl Hub {
    /// The Hub that `HF_ENDPOINT` names, with the token from `HF_TOKEN` or from the file where the
    /// Hub's own tools keep it.
    #[must_use]
    pub fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let token = variable("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(token_file(&variable)?).ok())
            .map(|token| token.trim().to_owned());
        Self::at(&endpoint, token.filter(|token| !token.is_empty()))
    }

    /// The Hub at an endpoint such as `http://127.0.0.1:8000`.
    #[must_use]
    pub fn at(endpoint: &str, token: Option<String>) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A large file comes from another host, which is not to see the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(STALL))
            .timeout_per_read(Some(STALL))
            .user_agent(concat!("interline/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build()
            .new_agent();
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            agent,
        }
    }

    /// The files of the repository `OWNER/REPO` on its main branch.
    ///
    /// # Errors
    ///
    /// See [`HubError`].
    pub fn list(&self, repository: &str) -> Result<Repository, HubError> {
        let repository = utf8_percent_encode(repository, PATH);
        let url = format!(
            "{}/api/models/{repository}/revision/main?blobs=true",
            self.endpoint
        );
        let mut response = self.get(&url, 0)?;
        let body = response.body_mut().with_config().limit(MAX_LIST_BYTES);
        let text = body.read_to_vec().map_err(|error| HubError::Unreachable {
            url: url.clone(),
            problem: error.to_string(),
        })?;
        serde_json::from_slice(&text).map_err(|problem| HubError::List { url, problem })
    }

    /// The address of a file.
    #[must_use]
    pub fn url(&self, file: &HubFile) -> String {
        let encode = |text| utf8_percent_encode(text, PATH).to_string();
        format!(
            "{}/{}/resolve/{}/{}",
            self.endpoint,
            encode(&file.repository),
            encode(&file.revision),
            encode(&file.path)
        )
    }

    /// Downloads a file of `size` bytes into `partial`, which may hold the beginning of it and is
    /// continued. A connection that breaks off is made again for as long as more arrives each time.
    ///
    /// # Errors
    ///
    /// See [`HubError`]. What has arrived stays in `partial`.
    pub fn append(
        &self,
        file: &HubFile,
        partial: &mut File,
        size: u64,
        waiter: &mut dyn Waiter,
    ) -> Result<(), HubError> {
        let url = self.url(file);
        let mut most = length(partial)?;
        loop {
            let broken = match self.append_once(&url, partial, size, waiter)? {
                None => return Ok(()),
                Some(broken) => broken,
            };
            let done = length(partial)?;
            if done <= most {
                return Err(HubError::Broken {
                    url,
                    done,
                    size,
                    problem: broken,
                });
            }
            most = done;
            waiter.say(&format!(
                "the connection broke off after {done} of {size} bytes; continuing"
            ));
        }
    }

    /// One connection. Returns how it broke off, if it did.
    fn append_once(
        &self,
        url: &str,
        partial: &mut File,
        size: u64,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<String>, HubError> {
        let mut done = length(partial)?;
        if done > size {
            done = 0;
        }
        if done == size {
            return Ok(None);
        }
        let mut response = match self.get(url, done) {
            // The server's file ends before this: it is another one.
            Err(HubError::Status { status: 416, .. }) => {
                done = 0;
                self.get(url, 0)?
            }
            answer => answer?,
        };
        let wrong_size = |actual| HubError::Size {
            url: url.to_owned(),
            actual,
            size,
        };
        let whole = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let (start, whole) = range(&response).unwrap_or((0, None));
                if start != done {
                    return Err(HubError::Range {
                        url: url.to_owned(),
                        asked: done,
                    });
                }
                whole
            }
            // The whole file.
            _ => {
                done = 0;
                response.body().content_length()
            }
        };
        if let Some(actual) = whole.filter(|whole| *whole != size) {
            return Err(wrong_size(actual));
        }
        partial.set_len(done).map_err(HubError::Write)?;
        partial
            .seek(SeekFrom::Start(done))
            .map_err(HubError::Write)?;

        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 64 << 10];
        loop {
            if !waiter.is_wanted() {
                return Err(HubError::Unwanted);
            }
            let count = match body.read(&mut buffer) {
                Ok(0) if done == size => return Ok(None),
                Ok(0) => return Ok(Some("the connection was closed".to_owned())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Some(error.to_string())),
            };
            if count as u64 > size - done {
                return Err(wrong_size(done + count as u64));
            }
            partial
                .write_all(&buffer[..count])
                .map_err(HubError::Write)?;
            done += count as u64;
            waiter.progress(done, size);
        }
    }

    /// The answer to a request that succeeded, from a byte of the file on.
    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let url = url.to_owned();
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => {
                let problem = error.to_string();
                return Err(HubError::Unreachable { url, problem });
            }
        };
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            status @ (401 | 403) => Err(HubError::Refused { url, status }),
            404 => Err(HubError::NotFound { url }),
            status => Err(HubError::Status { url, status }),
        }
    }
}

/// The file with the token: `HF_TOKEN_PATH`, else `token` in the folder of the Hub's tools.
fn token_file(variable: &impl Fn(&'static str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = variable("HF_TOKEN_PATH") {
        return Some(path.into());
    }
    let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || Some(directories::BaseDirs::new()?.home_dir().join(".cache"));
        Some(cache.or_else(home)?.join("huggingface"))
    })?;
    Some(home.join("token"))
}

fn length(file: &File) -> Result<u64, HubError> {
    let metadata = file.metadata().map_err(HubError::Write)?;
    Ok(metadata.len())
}

/// The start and the size of the whole in `Content-Range: bytes START-END/WHOLE`.
fn range<B>(response: &Response<B>) -> Option<(u64, Option<u64>)> {
    let value = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    let (range, whole) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, whole.parse().ok()))
}

/// Why a Hub did not give a file.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// There is no answer.
    #[error("cannot reach {url}: {problem}; check the network, or name another Hub in HF_ENDPOINT")]
    Unreachable {
        /// The address.
        url: String,
        /// What happened.
        problem: String,
    },
    /// The token is missing or may not read this.
    #[error(
        "{url} refuses ({status}): there is no such repository, or it needs an account; check the \
         name, set HF_TOKEN to a token that may read it, and accept its terms on the Hub"
    )]
    Refused {
        /// The address.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// It is not there.
    #[error("{url} does not exist (404); check the names of the repository and the file")]
    NotFound {
        /// The address.
        url: String,
    },
    /// Another answer.
    #[error("{url} answers with status {status}; try again later")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// The file has another size.
    #[error("{url} is another file: it has {actual} bytes or more instead of {size}")]
    Size {
        /// The address.
        url: String,
        /// What it has, at least.
        actual: u64,
        /// What it should have.
        size: u64,
    },
    /// The server continues elsewhere.
    #[error("{url} does not continue at byte {asked}, as it was asked to; try again later")]
    Range {
        /// The address.
        url: String,
        /// Where to continue.
        asked: u64,
    },
    /// The connection broke off, and nothing more arrived when it was made again.
    #[error("{url} broke off after {done} of {size} bytes: {problem}; try again to continue")]
    Broken {
        /// The address.
        url: String,
        /// What has arrived.
        done: u64,
        /// The size of the file.
        size: u64,
        /// What happened.
        problem: String,
    },
    /// The answer is not a list of files.
    #[error("{url} does not answer as a Hub does: {problem}; check HF_ENDPOINT")]
    List {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: serde_json::Error,
    },
    /// The partial file cannot be written.
    #[error("{0}")]
    Write(io::Error),
    /// It is no longer wanted.
    #[error("no longer wanted")]
    Unwanted,
}
