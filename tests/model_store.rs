//! Pulling a model from a Hub that breaks off, lies or refuses, and the commands of `interline
//! model`. The Hub is a server on loopback.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use expect_test::{Expect, expect};
use interline::download::WheelFile;
use interline::download::hub::{Hub, HubFile};
use interline::download::pinned::{self, Pinned, Source};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

const SIZE: usize = 300_000;

/// Bytes in which no part repeats.
fn content() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..SIZE).map(|_| next()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A request: its path and its headers.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    headers: HashMap<String, String>,
}

impl Asked {
    /// Where to start, if the request names that.
    fn start(&self) -> Option<usize> {
        let range = self.headers.get("range")?;
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    }

    fn is_for_file(&self) -> bool {
        self.path.contains("/resolve/")
    }
}

/// An answer, of whose body only the first `sent` bytes are sent. Then the connection is closed, or
/// it is told that they are sent, and held until the client closes it.
struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    sent: usize,
    held: Option<Sender<()>>,
}

impl Answer {
    fn status(status: &'static str) -> Self {
        Self {
            status,
            headers: String::new(),
            body: Vec::new(),
            sent: 0,
            held: None,
        }
    }

    /// What a good server answers.
    fn good(asked: &Asked, whole: &[u8]) -> Self {
        let start = asked.start().unwrap_or(0);
        let (status, headers) = match asked.start() {
            Some(start) => {
                let last = whole.len() - 1;
                let range = format!("Content-Range: bytes {start}-{last}/{}\r\n", whole.len());
                ("206 Partial Content", range)
            }
            None => ("200 OK", String::new()),
        };
        let body = whole[start..].to_vec();
        Self {
            status,
            headers,
            sent: body.len(),
            body,
            held: None,
        }
    }

    fn cut(self, sent: usize) -> Self {
        let sent = sent.min(self.body.len());
        Self { sent, ..self }
    }

    fn held(self, told: &Sender<()>) -> Self {
        let held = Some(told.clone());
        Self { held, ..self }
    }

    fn redirect(to: &str) -> Self {
        Self {
            headers: format!("Location: {to}\r\n"),
            ..Self::status("302 Found")
        }
    }
}

/// A Hub on loopback. It runs until the test's process ends.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `answer` is given the request and how many came before it.
    fn new(answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (all, answer) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (all, answer) = (all.clone(), answer.clone());
                thread::spawn(move || {
                    let stream = stream.unwrap();
                    let asked = read(&stream);
                    let before = {
                        let mut all = all.lock().unwrap();
                        all.push(asked.clone());
                        all.len() - 1
                    };
                    write(stream, &answer(&asked, before));
                });
            }
        });
        Self { port, asked }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn hub(&self) -> Hub {
        Hub::at(&self.endpoint(), Some("secret".to_owned()))
    }

    /// Where each request started.
    fn starts(&self) -> Vec<Option<usize>> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(Asked::start)
            .collect()
    }
}

fn read(stream: &TcpStream) -> Asked {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let headers = lines.take_while(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_lowercase(), value.to_owned())
    });
    Asked {
        path: first.split(' ').nth(1).unwrap().to_owned(),
        headers: headers.collect(),
    }
}

/// The client may be gone at any time.
fn write(mut stream: TcpStream, answer: &Answer) {
    let Answer {
        status,
        headers,
        body,
        sent,
        held,
    } = answer;
    let length = match headers.contains("Transfer-Encoding") {
        true => String::new(),
        false => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("HTTP/1.1 {status}\r\n{length}{headers}Connection: close\r\n\r\n");
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&body[..*sent]));
    if let Some(told) = held {
        let _ = told.send(());
        let _ = stream.read(&mut [0]);
    }
}

fn file() -> Pinned {
    Pinned {
        name: "the file".to_owned(),
        size: SIZE as u64,
        sha256: sha256(&content()),
    }
}

fn hub_file() -> HubFile {
    HubFile {
        repository: "owner/repo".to_owned(),
        revision: "main".to_owned(),
        path: "a b.gguf".to_owned(),
    }
}

/// What a fetch from these Hubs gives, when the partial file holds `before`.
fn fetch(servers: &[&Server], before: &[u8]) -> (TempDir, Result<(), String>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file.partial"), before).unwrap();
    let hubs: Vec<Hub> = servers.iter().map(|server| server.hub()).collect();
    let sources: Vec<Source<'_>> = hubs
        .iter()
        .map(|hub| Source::Hub(hub, hub_file()))
        .collect();
    let path = folder.path().join("file");
    let fetched = pinned::fetch(&file(), &sources, &path, 0, &[], &mut |_: &str| {});
    let fetched = fetched.map_err(|error| {
        let mut text = error.to_string();
        for server in servers {
            text = text.replace(&server.endpoint(), "HUB");
        }
        text.replace(folder.path().to_str().unwrap(), "FOLDER")
    });
    match &fetched {
        Ok(()) => {
            assert_eq!(fs::read(&path).unwrap(), content());
            assert_eq!(names(folder.path()), ["file"]);
        }
        Err(_) => assert!(!path.exists()),
    }
    (folder, fetched)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn check_error(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static, expected: Expect) {
    let server = Server::new(move |asked, _| answer(asked));
    let (_, fetched) = fetch(&[&server], b"");
    expected.assert_eq(&fetched.unwrap_err());
}

#[test]
fn a_break_is_continued() {
    for cut in [1, 1000, 65_536, SIZE - 1] {
        let server = Server::new(move |asked, before| {
            let answer = Answer::good(asked, &content());
            match before {
                0 => answer.cut(cut),
                _ => answer,
            }
        });
        fetch(&[&server], b"").1.unwrap();
        assert_eq!(server.starts(), [None, Some(cut)]);
    }
}

#[test]
fn what_an_earlier_run_left_is_continued() {
    let content = content();
    // What is no beginning of the file is found by its hash, and what is longer by its size.
    for (before, start) in [
        (&content[..0], None),
        (&content[..10], Some(10)),
        (&content[..SIZE - 1], Some(SIZE - 1)),
    ] {
        let server = Server::new(|asked, _| Answer::good(asked, &self::content()));
        fetch(&[&server], before).1.unwrap();
        assert_eq!(server.starts(), [start]);
    }
    let server = Server::new(|asked, _| Answer::good(asked, &self::content()));
    fetch(&[&server], &content).1.unwrap();
    assert_eq!(server.starts(), []);
    fetch(&[&server], &[&content[..], b"more"].concat())
        .1
        .unwrap();
    assert_eq!(server.starts(), [None]);
}

#[test]
fn a_server_that_ignores_range_starts_anew() {
    for before in [&b"wrong bytes"[..], &content()[..1000]] {
        let server = Server::new(|asked, _| {
            let headers = HashMap::new();
            let whole = Asked {
                headers,
                ..asked.clone()
            };
            Answer::good(&whole, &content())
        });
        fetch(&[&server], before).1.unwrap();
        assert_eq!(server.starts(), [Some(before.len())]);
    }
}

#[test]
fn a_server_that_breaks_off_at_one_place_is_given_up() {
    check_error(
        |asked| Answer::good(asked, &content()).cut(if asked.start().is_some() { 0 } else { 1000 }),
        expect![
            "cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf broke off after 1000 of 300000 bytes: Peer disconnected; try again to continue"
        ],
    );
    // Each time from the beginning.
    check_error(
        |asked| {
            let headers = HashMap::new();
            let whole = Asked {
                headers,
                ..asked.clone()
            };
            Answer::good(&whole, &content()).cut(2000)
        },
        expect![
            "cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf broke off after 2000 of 300000 bytes: Peer disconnected; try again to continue"
        ],
    );
}

#[test]
fn another_place_continues() {
    let first = Server::new(|asked, before| match before {
        0 => Answer::good(asked, &content()).cut(5000),
        _ => Answer::status("503 Service Unavailable"),
    });
    let second = Server::new(|asked, _| Answer::good(asked, &content()));
    fetch(&[&first, &second], b"").1.unwrap();
    assert_eq!(first.starts(), [None, Some(5000)]);
    assert_eq!(second.starts(), [Some(5000)]);
}

#[test]
fn other_bytes_are_never_kept() {
    let mut other = content();
    other[SIZE / 2] ^= 1;
    let lying = Server::new(move |asked, _| Answer::good(asked, &other));
    let (folder, fetched) = fetch(&[&lying], b"");
    expect!["cannot fetch the file: what has arrived is another file, or was damaged on its way: it has SHA-256 b5e52a24c9bcd2326478ebb2e587d2324dcaa6d9821e121754c0c152dea14f77 instead of the pinned e65d123120a92fa1849d6d01df4d6c632fb937c8ad5b90c5f8eca70f89eaaacc; it is deleted, so try again"].assert_eq(&fetched.unwrap_err());
    assert_eq!(names(folder.path()), Vec::<String>::new());
    // Another place is asked, from the beginning.
    let good = Server::new(|asked, _| Answer::good(asked, &content()));
    fetch(&[&lying, &good], b"").1.unwrap();
    assert_eq!(good.starts(), [None]);
}

#[test]
fn each_refusal_has_a_remedy() {
    check_error(
        |_| Answer::status("401 Unauthorized"),
        expect![
            "cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf refuses (401): there is no such repository, or it needs an account; check the name, set HF_TOKEN to a token that may read it, and accept its terms on the Hub"
        ],
    );
    check_error(
        |_| Answer::status("403 Forbidden"),
        expect![
            "cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf refuses (403): there is no such repository, or it needs an account; check the name, set HF_TOKEN to a token that may read it, and accept its terms on the Hub"
        ],
    );
    check_error(
        |_| Answer::status("404 Not Found"),
        expect![
            "cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf does not exist (404); check the names of the repository and the file"
        ],
    );
    check_error(
        |_| Answer::status("500 Internal Server Error"),
        expect![
            "cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf answers with status 500; try again later"
        ],
    );
    check_error(
        |_| Answer::redirect("/again"),
        expect![
            "cannot fetch the file: cannot reach HUB/owner/repo/resolve/main/a%20b.gguf: too many redirects; check the network, or name another Hub in HF_ENDPOINT"
        ],
    );
    check_error(
        |asked| Answer::good(asked, &content()[1..]),
        expect![
            "cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf is another file: it has 299999 bytes or more instead of 300000"
        ],
    );
    check_error(
        |_| Answer {
            headers: "Transfer-Encoding: chunked\r\n".to_owned(),
            sent: 5 + 300_001 + 2,
            body: format!("493e1\r\n{}\r\n", "a".repeat(300_001)).into_bytes(),
            ..Answer::status("200 OK")
        },
        expect![
            "cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf is another file: it has 300001 bytes or more instead of 300000"
        ],
    );
}

#[test]
fn a_server_that_continues_elsewhere_is_refused() {
    let server = Server::new(|asked, _| {
        let mut asked = asked.clone();
        asked
            .headers
            .insert("range".to_owned(), "bytes=7-".to_owned());
        Answer::good(&asked, &content())
    });
    let (_, fetched) = fetch(&[&server], &content()[..1000]);
    expect!["cannot fetch the file: HUB/owner/repo/resolve/main/a%20b.gguf does not continue at byte 1000, as it was asked to; try again later"].assert_eq(&fetched.unwrap_err());
}

#[test]
fn where_nothing_can_be_continued_the_file_starts_anew() {
    let server = Server::new(|asked, before| match before {
        0 => Answer::status("416 Range Not Satisfiable"),
        _ => Answer::good(asked, &content()),
    });
    fetch(&[&server], b"what another file began").1.unwrap();
    assert_eq!(server.starts(), [Some(23), None]);
}

#[test]
fn a_redirect_takes_the_range_along_and_the_token_only_on_the_same_host() {
    for host in ["127.0.0.1", "localhost"] {
        let target = Server::new(|asked, _| Answer::good(asked, &content()));
        let to = format!("http://{host}:{}/elsewhere", target.port);
        let server = Server::new(move |_, _| Answer::redirect(&to));
        fetch(&[&server], &content()[..1000]).1.unwrap();
        let asked = target.asked.lock().unwrap()[0].clone();
        assert_eq!(asked.start(), Some(1000));
        let token = asked.headers.get("authorization").map(String::as_str);
        let expected = (host == "127.0.0.1").then_some("Bearer secret");
        assert_eq!(token, expected, "{host}");
        let first = server.asked.lock().unwrap()[0].clone();
        assert_eq!(first.path, "/owner/repo/resolve/main/a%20b.gguf");
        assert_eq!(first.headers["authorization"], "Bearer secret");
    }
}

#[test]
fn a_file_without_room_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(|asked, _| Answer::good(asked, &content()));
    let hub = server.hub();
    let huge = Pinned {
        size: 1 << 60,
        ..file()
    };
    let path = folder.path().join("file");
    let sources = [Source::Hub(&hub, hub_file())];
    let error = pinned::fetch(&huge, &sources, &path, 1, &[], &mut |_: &str| {}).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains(" needs room for 1152921504607 MB, and its disk has "),
        "{error}"
    );
    assert_eq!(server.starts(), []);
}

/// A Python whose pip downloads the wheel of the package that it is asked for.
fn python(folder: &Path, parts: &[&[u8]]) -> Vec<Vec<String>> {
    for (number, part) in parts.iter().enumerate() {
        let wheel = fs::File::create(folder.join(format!("part{number}"))).unwrap();
        let mut zip = zip::ZipWriter::new(wheel);
        zip.start_file("data.bin", zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(part).unwrap();
        zip.finish().unwrap();
    }
    let folder = folder.display();
    let script = format!(
        "if [ \"$3\" = download ]; then for last; do :; done; echo \"$last\" >> '{folder}/calls'
         cp '{folder}'/\"${{last%==*}}\" wheel.whl; fi"
    );
    vec![["sh", "-c", &script, "python"].map(str::to_owned).to_vec()]
}

#[test]
fn parts_in_wheels_are_put_together() {
    let content = content();
    let parts = [
        &content[..100_000],
        &content[100_000..250_000],
        &content[250_000..],
    ];
    let sums = parts.map(sha256);
    for (before, calls) in [
        (0, "part0==1\npart1==1\npart2==1\n"),
        (99_999, "part0==1\npart1==1\npart2==1\n"),
        (100_000, "part1==1\npart2==1\n"),
        (260_000, "part2==1\n"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let pythons = python(home.path(), &parts);
        let wheels: Vec<WheelFile<'_>> = ["part0", "part1", "part2"]
            .into_iter()
            .enumerate()
            .map(|(number, package)| WheelFile {
                name: package,
                package,
                version: "1",
                platform: "any",
                member: "data.bin",
                size: parts[number].len() as u64,
                sha256: &sums[number],
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.partial"), &content[..before]).unwrap();
        // A Hub that refuses comes first.
        let server = Server::new(|_, _| Answer::status("404 Not Found"));
        let hub = server.hub();
        let sources = [Source::Hub(&hub, hub_file()), Source::Wheels(wheels)];
        pinned::fetch(&file(), &sources, &path, 0, &pythons, &mut |_: &str| {}).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(names(folder.path()), ["file"]);
        assert_eq!(
            fs::read_to_string(home.path().join("calls")).unwrap(),
            calls
        );
    }
}

/// A Hub with one repository that has one file.
fn repository(answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Server {
    let files = AtomicFiles::default();
    Server::new(move |asked, _| match asked.path.as_str() {
        "/api/models/owner/repo/revision/main?blobs=true" => {
            let lfs = format!(r#"{{"size": {SIZE}, "sha256": "{}"}}"#, sha256(&content()));
            let listed = format!(
                r#"{{"sha": "c0ffee", "siblings": [{{"rfilename": "README.md"}}, {{"rfilename": "Tiny.gguf", "lfs": {lfs}}}]}}"#
            );
            Answer::good(
                &Asked {
                    headers: HashMap::new(),
                    ..asked.clone()
                },
                listed.as_bytes(),
            )
        }
        "/owner/repo/resolve/c0ffee/Tiny.gguf" => answer(asked, files.next()),
        _ => Answer::status("404 Not Found"),
    })
}

/// Counts the requests for the file.
#[derive(Default)]
struct AtomicFiles(std::sync::atomic::AtomicUsize);

impl AtomicFiles {
    fn next(&self) -> usize {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst)
    }
}

/// A folder with a store, for the program.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_interline"));
        command.args(arguments);
        self.surround(&mut command);
        command
    }

    fn surround(&self, command: &mut Command) {
        command
            .env("INTERLINE_MODELS_DIR", self.0.path())
            .env("HF_TOKEN", "secret")
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .env_remove("ALL_PROXY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn pull(&self, server: &Server) -> Command {
        let mut command = self.command(&["model", "pull", "owner/repo"]);
        command.env("HF_ENDPOINT", server.endpoint());
        command
    }

    fn work(&self) -> PathBuf {
        self.0.path().join(".work/tiny")
    }

    /// What was fetched, checked against its hash. The importer refuses it, since it is no model.
    fn assert_fetched(&self, output: &Output) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("importing tiny"), "{said}");
        assert!(!output.status.success(), "{said}");
        let path = self.work().join(format!("{}.gguf", sha256(&content())));
        assert_eq!(fs::read(path).unwrap(), content());
        assert!(!self.0.path().join("tiny").exists());
    }
}

#[test]
fn a_pull_from_a_repository_is_pinned_to_its_commit() {
    let home = Home::new();
    let server = repository(|asked, _| Answer::good(asked, &content()));
    home.assert_fetched(&home.pull(&server).output().unwrap());
    let listed = home.run(&["model", "list"]);
    assert!(listed.status.success());
    // It is not a model yet.
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("tiny"));
    assert!(home.run(&["model", "remove", "tiny"]).status.success());
    assert!(!home.work().exists());
}

#[test]
fn a_killed_pull_is_continued() {
    let home = Home::new();
    let cuts = [
        0, 1, 100, 4_095, 4_096, 5_000, 10_000, 16_384, 20_000, 30_000, 40_000, 65_535, 65_536,
        70_000, 80_000, 90_000, 100_000, 150_000, 200_000, 299_999,
    ];
    for cut in cuts {
        let (sender, sent) = mpsc::channel();
        let server = repository(move |asked, _| {
            // How much of it the client has read when it ends is up to the machine.
            let start = asked.start().unwrap_or(0);
            let answer = Answer::good(asked, &content());
            answer.cut(cut.max(start + 1) - start).held(&sender)
        });
        let mut pull = home.pull(&server).spawn().unwrap();
        sent.recv_timeout(LONG).unwrap();
        pull.kill().unwrap();
        pull.wait().unwrap();
        assert!(!home.0.path().join("tiny").exists());
    }
    let server = repository(|asked, _| Answer::good(asked, &content()));
    home.assert_fetched(&home.pull(&server).output().unwrap());
    let fetched = format!("{}.gguf", sha256(&content()));
    assert_eq!(names(&home.work()), [fetched]);
}

/// The next line of a process's standard error that contains this.
fn heard(lines: &Receiver<String>, text: &str) {
    loop {
        let line = lines.recv_timeout(LONG).unwrap();
        if line.contains(text) {
            return;
        }
    }
}

#[test]
fn of_two_pulls_at_once_one_waits_for_the_other() {
    let home = Home::new();
    let (begun, has_begun) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let (begun, may_go) = (Mutex::new(begun), Mutex::new(may_go));
    let server = repository(move |asked, before| {
        if before == 0 {
            begun.lock().unwrap().send(()).unwrap();
            may_go.lock().unwrap().recv_timeout(LONG).unwrap();
        }
        Answer::good(asked, &content())
    });
    let first = home.pull(&server).spawn().unwrap();
    has_begun.recv_timeout(LONG).unwrap();
    let mut second = home.pull(&server).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let said = second.stderr.take().unwrap();
    let reader = thread::spawn(move || {
        for line in BufReader::new(said).lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    heard(&lines, "waiting for another interline that changes tiny");
    go.send(()).unwrap();
    home.assert_fetched(&first.wait_with_output().unwrap());
    heard(&lines, "importing tiny");
    assert!(!second.wait().unwrap().success());
    reader.join().unwrap();
    let asked = server.asked.lock().unwrap();
    let files = asked.iter().filter(|asked| asked.is_for_file());
    assert_eq!(files.count(), 1, "it was fetched twice");
}

#[test]
fn a_disk_that_fills_up_leaves_what_has_arrived() {
    let home = Home::new();
    let server = repository(|asked, _| Answer::good(asked, &content()));
    // A limit on the size of files stands in for the disk: 100 blocks of 512 or 1,024 bytes.
    let mut limited = Command::new("sh");
    limited.args([
        "-c",
        "trap '' XFSZ; ulimit -f 100; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_interline"),
        "model",
        "pull",
        "owner/repo",
    ]);
    home.surround(&mut limited);
    let output = limited
        .env("HF_ENDPOINT", server.endpoint())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("error: cannot write "), "{said}");
    assert!(
        said.contains("; make room or make it writable, and try again"),
        "{said}"
    );
    home.assert_fetched(&home.pull(&server).output().unwrap());
    let starts = server.starts();
    assert!(starts.last().unwrap().is_some(), "{starts:?}");
}

/// A disk of 1 MiB, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` if this user may not mount one.
    fn at(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
        let mounted = mount.arg(folder).stderr(Stdio::null()).status();
        let mounted = mounted.is_ok_and(|status| status.success());
        mounted.then(|| Self(folder.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_pull_goes_on_when_a_full_disk_has_room_again() {
    let home = Home::new();
    let Some(_disk) = SmallDisk::at(home.0.path()) else {
        // Not with a macro: their output is shown only for failed tests.
        let _ = writeln!(std::io::stderr(), "skipped: no disk can be mounted");
        return;
    };
    // There is room for the file when it is begun, and no more when it comes.
    let other = home.0.path().join("other");
    let full = other.clone();
    let server = repository(move |asked, before| {
        if before == 0 {
            fs::write(&full, vec![0; 900 << 10]).unwrap();
        }
        Answer::good(asked, &content())
    });
    let output = home.pull(&server).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("error: cannot write "), "{said}");
    assert!(said.contains("; make room"), "{said}");
    fs::remove_file(other).unwrap();
    home.assert_fetched(&home.pull(&server).output().unwrap());
    let start = server.starts().last().copied().flatten();
    assert!(start.is_some_and(|start| start > 0), "{start:?}");
}

/// A server of the program, and an editor's end of its connection. It ends when it is dropped.
struct Editor {
    server: Child,
    output: BufReader<ChildStdout>,
    id: u64,
    /// Messages that were not waited for yet.
    early: Vec<Value>,
}

impl Editor {
    /// The server has no engine: nothing is to be computed.
    fn start(home: &Home, hub: &Server, settings: Value) -> Self {
        let mut command = home.command(&["--model", "none"]);
        command.env("HF_ENDPOINT", hub.endpoint());
        let mut server = command.stdin(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(server.stdout.take().unwrap());
        let mut editor = Self {
            server,
            output,
            id: 0,
            early: Vec::new(),
        };
        let id = editor.ask(
            "initialize",
            json!({"capabilities": {}, "initializationOptions": settings}),
        );
        editor.answer(id);
        editor.send(json!({"method": "initialized", "params": {}}));
        editor
    }

    fn send(&mut self, mut message: Value) {
        message["jsonrpc"] = json!("2.0");
        let text = message.to_string();
        let input = self.server.stdin.as_mut().unwrap();
        write!(input, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        input.flush().unwrap();
    }

    fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.id += 1;
        let id = self.id;
        self.send(json!({"id": id, "method": method, "params": params}));
        id
    }

    fn command(&mut self, name: &str, arguments: Value, token: &str) -> u64 {
        let params = json!({"command": name, "arguments": arguments, "workDoneToken": token});
        self.ask("workspace/executeCommand", params)
    }

    fn receive(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.output.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.early.iter().position(&wanted) {
            return self.early.remove(at);
        }
        loop {
            let message = self.receive();
            if wanted(&message) {
                return message;
            }
            self.early.push(message);
        }
    }

    fn answer(&mut self, id: u64) -> Value {
        self.until(|message| message["id"] == id && message.get("method").is_none())
    }

    fn problem(&mut self, id: u64) -> String {
        let answer = self.answer(id);
        answer["error"]["message"].as_str().unwrap().to_owned()
    }

    /// The next progress under a token.
    fn progress(&mut self, token: &str) -> Value {
        let mut message = self.until(|message| {
            message["method"] == "$/progress" && message["params"]["token"] == token
        });
        message["params"]["value"].take()
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn an_editor_hears_how_far_a_pull_is_and_may_cancel_it() {
    for cancel in ["window/workDoneProgress/cancel", "$/cancelRequest"] {
        let home = Home::new();
        let (told, held) = mpsc::channel();
        let server = repository(move |asked, before| {
            let answer = Answer::good(asked, &content());
            match before {
                0 => answer.cut(100_000).held(&told),
                _ => answer,
            }
        });
        let mut editor = Editor::start(&home, &server, json!({}));
        let pull = editor.command("interline.pullModel", json!(["owner/repo"]), "work");
        held.recv_timeout(LONG).unwrap();
        assert_eq!(
            editor.progress("work"),
            json!({
                "kind": "begin", "title": "Interline: pull owner/repo", "cancellable": true,
                "percentage": 0,
            })
        );
        let report = loop {
            let report = editor.progress("work");
            if report["message"] == "0 of 0 MB" {
                break report;
            }
        };
        let percentage = report["percentage"].as_u64().unwrap();
        assert!(percentage <= 30, "{report}");

        // The server does not wait for it, and does not begin it twice.
        let again = editor.command("interline.pullModel", json!(["owner/repo"]), "again");
        assert_eq!(editor.problem(again), "tiny is being pulled already");
        let models = editor.command("interline.models", json!([]), "none");
        let models = editor.answer(models)["result"].take();
        let recommended = models.as_array().unwrap().iter();
        let mut recommended = recommended.filter(|model| model["recommended"] == true);
        let recommended = recommended.next().unwrap();
        assert_eq!(
            (&recommended["name"], &recommended["here"]),
            (&json!("qwen2.5-coder-0.5b"), &json!(false))
        );
        assert_eq!(recommended["sizeBytes"], 491_400_064);

        let params = match cancel {
            "$/cancelRequest" => json!({"id": pull}),
            _ => json!({"token": "work"}),
        };
        editor.send(json!({"method": cancel, "params": params}));
        assert_eq!(editor.answer(pull)["error"]["code"], -32800, "{cancel}");
        while editor.progress("work")["kind"] != "end" {}
        // The connection is still held, and so is the model, until the server ends.
        drop(editor);
        home.assert_fetched(&home.pull(&server).output().unwrap());
        let start = server.starts().last().copied().flatten();
        assert!(start.is_some_and(|start| start > 0), "{start:?}");
    }
}

#[test]
fn an_editor_is_told_why_a_pull_fails() {
    let check = |what: &str, settings: Value, expected: &str| {
        let home = Home::new();
        let server = repository(|asked, _| Answer::good(asked, &content()));
        let mut editor = Editor::start(&home, &server, settings);
        let pull = editor.command("interline.pullModel", json!([what]), "work");
        let problem = editor.problem(pull);
        assert!(problem.contains(expected), "{problem}");
    };
    let offline = json!({"offline": true});
    check(
        "owner/repo",
        offline,
        "the setting `offline` or --offline forbids downloads",
    );
    check(
        "mine",
        json!({}),
        "\"mine\" is neither a name from `interline model list`",
    );
    check("owner/other", json!({}), "does not exist (404)");
    check(
        "owner/repo:other.gguf",
        json!({}),
        "has these GGUF files: Tiny.gguf",
    );
    check("owner/repo", json!({}), "/tiny/");
    let home = Home::new();
    let server = Server::new(|_, _| Answer::status("500 No"));
    let mut editor = Editor::start(&home, &server, json!({}));
    let pull = editor.command("interline.pullModel", json!(["smollm2-135m-fim"]), "work");
    assert_eq!(
        editor.answer(pull)["result"],
        json!({"name": "smollm2-135m-fim"})
    );
}

#[test]
fn a_pull_that_cannot_be_says_why() {
    let check = |arguments: &[&str], server: &Server, expected: Expect| {
        let home = Home::new();
        let mut command = home.command(&[&["model", "pull"], arguments].concat());
        let output = command.env("HF_ENDPOINT", server.endpoint()).output();
        let output = output.unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        expected.assert_eq(said.replace(&server.endpoint(), "HUB").trim_end());
    };
    let server = repository(|asked, _| Answer::good(asked, &content()));
    check(
        &["nothing"],
        &server,
        expect![[
            r#"error: "nothing" is neither a name from `interline model list` nor OWNER/REPO[:FILE]"#
        ]],
    );
    check(
        &["../../etc"],
        &server,
        expect![[
            r#"error: "../../etc" is neither a name from `interline model list` nor OWNER/REPO[:FILE]"#
        ]],
    );
    check(
        &["owner/none"],
        &server,
        expect![
            "error: HUB/api/models/owner/none/revision/main?blobs=true does not exist (404); check the names of the repository and the file"
        ],
    );
    check(
        &["owner/repo:other.gguf"],
        &server,
        expect![
            "error: owner/repo has these GGUF files: Tiny.gguf; name one, as in `interline model pull owner/repo:Tiny.gguf`"
        ],
    );
    check(
        &["owner/repo", "--offline"],
        &server,
        expect!["error: `model pull` downloads; leave out --offline"],
    );
    let text = Server::new(|asked, _| Answer::good(asked, b"<html>"));
    check(
        &["owner/repo"],
        &text,
        expect![
            "error: HUB/api/models/owner/repo/revision/main?blobs=true does not answer as a Hub does: expected value at line 1 column 1; check HF_ENDPOINT"
        ],
    );
}

#[test]
fn a_model_of_ones_own_has_a_name() {
    let home = Home::new();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/graphs");
    let elsewhere = tempfile::tempdir().unwrap();
    let mine = elsewhere.path().join("Mine");
    fs::create_dir_all(&mine).unwrap();
    let files = [
        "tokenizer.json",
        "llama/config.json",
        "llama/onnx/model.onnx",
    ];
    for file in files.map(|file| samples.join(file)) {
        fs::copy(&file, mine.join(file.file_name().unwrap())).unwrap();
    }
    let said = |output: Output| {
        let both = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(both).unwrap())
    };
    let check = |arguments: &[&str], success: bool, part: &str| {
        let (succeeded, said) = said(home.run(arguments));
        assert_eq!(succeeded, success, "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    };
    let path = mine.to_str().unwrap();
    check(
        &["model", "info", "mine"],
        false,
        "there is no model \"mine\" here",
    );
    check(&["model", "add", path], true, "mine is ready in ");
    check(&["model", "list"], true, "\nmine ");
    check(
        &["model", "list"],
        true,
        "interline model pull qwen2.5-coder-0.5b",
    );
    check(
        &["model", "info", "mine"],
        true,
        "layout      prefix, suffix, middle",
    );
    check(&["model", "verify", "mine"], true, "ok   mine ");
    check(
        &["model", "info", "qwen2.5-coder-0.5b"],
        false,
        "run `interline model pull qwen2.5-coder-0.5b`",
    );
    check(
        &["doctor", "--model", "mine", "--offline"],
        true,
        "files verified",
    );
    check(
        &["doctor", "--model", "other"],
        false,
        "there is no model \"other\" here; there are smollm2-135m-fim, mine;",
    );
    fs::write(home.0.path().join("mine/model.onnx"), "damaged!").unwrap();
    check(&["model", "verify", "mine"], false, "FAIL mine ");
    check(
        &["model", "use", "other"],
        false,
        "there is no model \"other\" here",
    );
    check(
        &["model", "use", "qwen2.5-coder-0.5b"],
        false,
        "run `interline model pull qwen2.5-coder-0.5b`",
    );
    check(&["model", "list"], true, "yes, in use\nqwen2.5-coder-0.5b");
    check(&["model", "use", "mine"], true, "mine is in use");
    let (_, listed) = said(home.run(&["model", "list"]));
    let used: Vec<_> = listed
        .lines()
        .filter(|line| line.ends_with("yes, in use"))
        .collect();
    assert!(
        matches!(used[..], [line] if line.starts_with("mine ")),
        "{listed}"
    );
    // With no runtime, nothing else serves.
    fs::write(home.0.path().join("mine/model.onnx"), "no graph").unwrap();
    check(
        &["doctor", "--runtime", "/nowhere"],
        false,
        "chosen with `interline model use`",
    );
    check(
        &["model", "remove", "mine"],
        false,
        "mine is in use; choose",
    );
    check(
        &["model", "use", "--default"],
        true,
        "smollm2-135m-fim is in use",
    );
    check(&["model", "use"], false, "NAME");
    check(&["model", "remove", "mine"], true, "removed mine");
    // What was chosen may vanish without us.
    fs::write(home.0.path().join(".in-use"), "mine\n").unwrap();
    check(&["model", "list"], true, "mine was in use and is gone");
    check(
        &["doctor", "--runtime", "/nowhere"],
        false,
        "there is no model \"mine\" here",
    );
    fs::write(home.0.path().join(".in-use"), "../mine\n").unwrap();
    check(
        &["model", "list"],
        true,
        "which model is in use: \"../mine\" is not a name",
    );
    check(&["model", "use", "smollm2-135m-fim"], true, "is in use");
    assert!(!home.0.path().join(".in-use").exists());
    check(
        &["model", "remove", "mine"],
        false,
        "there is no model mine in the store",
    );
    check(
        &["model", "remove", "../mine"],
        false,
        "is not a name for a model",
    );
    check(
        &["model", "remove", "smollm2-135m-fim"],
        false,
        "comes with Interline",
    );
    // A pull does not replace it.
    check(
        &["model", "add", path, "--name", "tiny"],
        true,
        "tiny is ready",
    );
    let server = repository(|asked, _| Answer::good(asked, &content()));
    let (succeeded, said) = said(home.pull(&server).output().unwrap());
    assert!(
        !succeeded && said.contains("the store has another model tiny;"),
        "{said}"
    );
    check(&["model", "verify", "tiny"], true, "ok   tiny ");
}
