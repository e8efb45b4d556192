//! Where the library is: named, beside the executable, in the user's cache, or to be fetched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::release::{Build, VERSION};
use super::{RuntimeError, RuntimeOptions};
use crate::cache_folder::cache_folder;
use crate::download::{self, Python, Waiter};
use crate::verified::{Record, Verdict};

/// How a library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Named by an option or by `ORT_DYLIB_PATH`.
    Explicit,
    /// Beside the executable.
    Beside,
    /// Fetched by an earlier run.
    Cache,
    /// Fetched by this call.
    Fetched,
}

/// A library file that exists; nothing has been loaded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its absolute path.
    pub path: PathBuf,
    /// How it was found.
    pub source: Source,
}

/// Finds the library without loading it, and fetches it if necessary.
///
/// # Errors
///
/// When a named library is not a file, or when there is none and none can be fetched.
pub fn locate(options: &RuntimeOptions, waiter: &mut dyn Waiter) -> Result<Located, RuntimeError> {
    locate_in(options, &Surroundings::of_process(), waiter)
}

/// What the process finds around it. Tests can provide their own.
struct Surroundings {
    /// The library that `ORT_DYLIB_PATH` names.
    named: Option<PathBuf>,
    /// The folder of the executable.
    beside: Option<PathBuf>,
    /// The user's cache folder for this program, absolute.
    cache: Option<PathBuf>,
    /// The official build for this machine.
    build: Option<Build>,
    pythons: Vec<Python>,
}

impl Surroundings {
    fn of_process() -> Self {
        let path_variable = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let executable = std::env::current_exe().ok();
        Self {
            named: path_variable("ORT_DYLIB_PATH"),
            beside: executable.and_then(|path| Some(path.parent()?.to_path_buf())),
            cache: cache_folder(),
            build: Build::for_this_machine(),
            pythons: download::pythons(),
        }
    }

    fn record(&self) -> Record {
        Record::in_folder(self.cache.as_deref())
    }

    /// What is wrong, as the end of a sentence, with a library that has the size of the official
    /// one. Damage to other builds cannot be told from the file.
    fn damage_of_official(&self, path: &Path) -> Option<String> {
        let build = self.build.filter(|build| build.has_size_of(path))?;
        // The loader says why it cannot be read.
        let damage = damage(&build, path, &self.record()).ok().flatten()?;
        Some(format!(
            "is damaged (its size is that of the official {VERSION}, but {damage})"
        ))
    }
}

fn locate_in(
    options: &RuntimeOptions,
    surroundings: &Surroundings,
    waiter: &mut dyn Waiter,
) -> Result<Located, RuntimeError> {
    if let Some(path) = options.library.as_ref().or(surroundings.named.as_ref()) {
        return named(origin(options), path, surroundings);
    }
    let mut tried = vec!["--runtime and ORT_DYLIB_PATH: not given".to_owned()];

    if let Some(directory) = &surroundings.beside {
        use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
        let mut names = vec![format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}")];
        names.extend(surroundings.build.map(|build| build.file_name().to_owned()));
        // On Windows, they are the same.
        names.dedup();
        for path in names.iter().map(|name| directory.join(name)) {
            if !path.is_file() {
                continue;
            }
            let Some(damage) = surroundings.damage_of_official(&path) else {
                let source = Source::Beside;
                return Ok(Located { path, source });
            };
            let damaged = format!("{}, which {damage}", path.display());
            waiter.say(&format!("skipped {damaged}"));
            tried.push(format!("beside the executable: {damaged}"));
        }
        tried.push(format!(
            "beside the executable: no {} in {}",
            names.join(" or "),
            directory.display()
        ));
    }

    cached_or_fetched(options, surroundings, &mut tried, waiter)
        .map_err(|advice| RuntimeError::Missing { tried, advice })
}

/// Adds what it tries to `tried`, and returns advice if everything fails.
fn cached_or_fetched(
    options: &RuntimeOptions,
    surroundings: &Surroundings,
    tried: &mut Vec<String>,
    waiter: &mut dyn Waiter,
) -> Result<Located, &'static str> {
    let Some(build) = &surroundings.build else {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        tried.push(format!(
            "pip: no official build of {VERSION} is known for {os} on {arch}"
        ));
        return Err("build or install ONNX Runtime for this machine");
    };
    let Some(cache) = &surroundings.cache else {
        tried.push("cache: this user has no cache directory".to_owned());
        return Err("set INTERLINE_CACHE_DIR");
    };
    let directory = cache.join(format!("onnxruntime-{VERSION}"));
    download::remove_abandoned(&directory);
    let path = directory.join(build.file_name());
    match damage(build, &path, &surroundings.record()) {
        Ok(None) => {
            let source = Source::Cache;
            return Ok(Located { path, source });
        }
        Ok(Some(damage)) => {
            let damaged = format!("{} is damaged ({damage})", path.display());
            if !options.offline {
                waiter.say(&format!("{damaged} and is fetched again"));
            }
            tried.push(format!("cache: {damaged}"));
        }
        Err(error) => tried.push(format!("cache: {}: {error}", path.display())),
    }
    if options.offline {
        tried.push("pip: not used when offline".to_owned());
        return Err("run once without --offline");
    }
    match download::fetch(&build.library(), &path, &surroundings.pythons, waiter) {
        Ok(()) => {
            let source = Source::Fetched;
            Ok(Located { path, source })
        }
        Err(error) => {
            tried.push(format!("pip: {error}"));
            Err("try again with Python 3 with pip, a network and a writable cache")
        }
    }
}

/// What is wrong with the library in the cache. A damaged one can silently end the process that
/// loads it, so its hash is checked first.
fn damage(build: &Build, path: &Path, record: &Record) -> io::Result<Option<String>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(Some("it is not a file".to_owned()));
    }
    let (size, pinned) = (metadata.len(), build.size);
    if size != pinned {
        return Ok(Some(format!("it has {size} bytes instead of {pinned}")));
    }
    Ok(match record.check(path, build.sha256)? {
        Verdict::Verified => None,
        Verdict::Wrong { actual } => Some(format!(
            "its SHA-256 is {actual} instead of {}",
            build.sha256
        )),
    })
}

/// What named the library.
pub(super) fn origin(options: &RuntimeOptions) -> &'static str {
    match options.library {
        Some(_) => "--runtime",
        None => "ORT_DYLIB_PATH",
    }
}

fn named(
    origin: &'static str,
    path: &Path,
    surroundings: &Surroundings,
) -> Result<Located, RuntimeError> {
    let problem = match fs::metadata(path) {
        // Absolute, because ort looks for a relative path beside the executable.
        Ok(metadata) if metadata.is_file() => match std::path::absolute(path) {
            Ok(path) => match surroundings.damage_of_official(&path) {
                Some(damage) => damage,
                None => {
                    let source = Source::Explicit;
                    return Ok(Located { path, source });
                }
            },
            Err(error) => format!("has no absolute path ({error})"),
        },
        Ok(_) => "is not a file".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "does not exist".to_owned(),
        Err(error) => format!("cannot be read ({error})"),
    };
    let path = path.to_path_buf();
    Err(RuntimeError::Named {
        origin,
        path,
        problem,
    })
}

#[cfg(test)]
#[cfg_attr(
    not(unix),
    allow(
        dead_code,
        unused_imports,
        reason = "a shell script stands in for Python"
    )
)]
pub(super) mod tests {
    use std::ffi::OsString;

    use expect_test::{Expect, expect};
    use tempfile::TempDir;

    use super::*;

    const CONTENT: &str = "a library\n";
    const MEMBER: &str = "onnxruntime/capi/libonnxruntime.test";
    const BUILD: Build = Build {
        os: "test",
        arch: "test",
        platform: "test_platform",
        member: MEMBER,
        size: 10,
        sha256: "7648f2a9cab0a0bd20bee710f2bbdb30c3990031c0c745986097645b6fabfccd",
    };

    /// A folder with everything that the process could find around it, and a Python that is a shell
    /// script.
    pub(in crate::runtime) struct Home(TempDir);

    impl Home {
        pub(in crate::runtime) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub(in crate::runtime) fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        pub(in crate::runtime) fn write(&self, name: impl AsRef<Path>, content: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            path
        }

        fn cached(&self) -> PathBuf {
            self.path(&format!("cache/onnxruntime-{VERSION}/libonnxruntime.test"))
        }

        /// The Python records each call in `calls`; pip's download runs `script`, which has its
        /// folder in `$2`.
        fn python(&self, script: &str) -> Python {
            let calls = self.path("calls");
            let python = format!(
                r#"
                echo "$3" >> '{}'
                if [ "$3" = download ]; then
                    while [ "$1" != -d ]; do shift; done
                    {script}
                fi
                "#,
                calls.display()
            );
            let path = self.write("python", &python);
            vec!["sh".to_owned(), path.to_str().unwrap().to_owned()]
        }

        /// A script whose pip downloads a wheel.
        fn wheel(&self, member: &str, content: &str) -> String {
            use std::io::Write;
            let path = self.path("wheel");
            let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(member, options).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
            zip.finish().unwrap();
            format!(r#"cp '{}' "$2/onnxruntime.whl""#, path.display())
        }

        fn surroundings(&self, script: &str) -> Surroundings {
            Surroundings {
                named: None,
                beside: Some(self.path("beside")),
                cache: Some(self.path("cache")),
                build: Some(BUILD),
                pythons: vec![self.python(script)],
            }
        }

        /// An error without what differs between folders and machines, a line for each part.
        pub(in crate::runtime) fn normal(&self, error: impl ToString) -> String {
            use std::env::consts::{ARCH, DLL_PREFIX, DLL_SUFFIX, OS};
            let error = error
                .to_string()
                .replace(self.0.path().to_str().unwrap(), "HOME")
                .replace(&format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}"), "PLAIN")
                .replace(&format!("{OS} on {ARCH}"), "OS on ARCH")
                .replace('\\', "/");
            error.replace("; ", ";\n") + "\n"
        }

        fn names_in_cache(&self) -> Vec<OsString> {
            fs::read_dir(self.cached().parent().unwrap())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect()
        }
    }

    fn quietly(options: &RuntimeOptions, surroundings: &Surroundings) -> Result<Located, String> {
        locate_in(options, surroundings, &mut |_: &str| {}).map_err(|error| error.to_string())
    }

    #[test]
    #[cfg(unix)]
    fn the_first_place_that_has_a_library_wins() {
        use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
        let plain = format!("beside/{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
        for present in 0..1 << 5 {
            for offline in [false, true] {
                let home = Home::new();
                let mut surroundings = home.surroundings(&home.wheel(MEMBER, CONTENT));
                let mut options = RuntimeOptions {
                    offline,
                    ..RuntimeOptions::default()
                };
                let is_present = |place: u32| present & 1 << place != 0;
                if is_present(0) {
                    options.library = Some(home.write("option", ""));
                }
                if is_present(1) {
                    surroundings.named = Some(home.write("variable", ""));
                }
                if is_present(2) {
                    home.write(&plain, "");
                }
                if is_present(3) {
                    home.write("beside/libonnxruntime.test", "");
                }
                if is_present(4) {
                    home.write(home.cached(), CONTENT);
                }
                let first: u32 = (0..5).find(|place| is_present(*place)).unwrap_or(5);
                let (path, source) = match first {
                    0 => (home.path("option"), Source::Explicit),
                    1 => (home.path("variable"), Source::Explicit),
                    2 => (home.path(&plain), Source::Beside),
                    3 => (home.path("beside/libonnxruntime.test"), Source::Beside),
                    4 => (home.cached(), Source::Cache),
                    _ => (home.cached(), Source::Fetched),
                };
                let located = quietly(&options, &surroundings);
                if first == 5 && offline {
                    assert!(located.is_err());
                } else {
                    assert_eq!(located, Ok(Located { path, source }), "{present:05b}");
                }
                let fetches = first == 5 && !offline;
                assert_eq!(home.path("calls").exists(), fetches, "{present:05b}");
            }
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_fetched_library_is_kept() {
        let home = Home::new();
        let surroundings = home.surroundings(&home.wheel(MEMBER, CONTENT));
        let options = RuntimeOptions::default();
        let mut said = Vec::new();
        let located = locate_in(&options, &surroundings, &mut |line: &str| {
            said.push(home.normal(line));
        });
        assert_eq!(located.unwrap().source, Source::Fetched);
        assert_eq!(
            said.concat(),
            "fetching ONNX Runtime 1.32.0 with pip (about 1 MB, once)\n\
             verified ONNX Runtime 1.32.0, kept as \
             HOME/cache/onnxruntime-1.32.0/libonnxruntime.test\n"
        );

        let expected = Located {
            path: home.cached(),
            source: Source::Cache,
        };
        assert_eq!(quietly(&options, &surroundings), Ok(expected));
        assert_eq!(fs::read_to_string(home.cached()).unwrap(), CONTENT);
        assert_eq!(home.names_in_cache(), ["libonnxruntime.test"]);
        let calls = fs::read_to_string(home.path("calls")).unwrap();
        assert_eq!(calls, "--version\ndownload\n");
    }

    #[test]
    #[cfg(unix)]
    fn a_damaged_library_is_fetched_again() {
        let check = |content: &str, damage: &str| {
            let home = Home::new();
            let surroundings = home.surroundings(&home.wheel(MEMBER, CONTENT));
            let options = RuntimeOptions::default();
            // Verified first, which is recorded.
            home.write(home.cached(), CONTENT);
            make_old(&home.cached());
            assert_eq!(
                quietly(&options, &surroundings).unwrap().source,
                Source::Cache
            );
            home.write(home.cached(), content);

            let mut first = None;
            let located = locate_in(&options, &surroundings, &mut |line: &str| {
                first.get_or_insert_with(|| home.normal(line));
            });
            assert_eq!(located.unwrap().source, Source::Fetched, "{content:?}");
            let said = format!(
                "HOME/cache/onnxruntime-1.32.0/libonnxruntime.test is damaged ({damage}) \
                 and is fetched again\n"
            );
            assert_eq!(first.unwrap(), said);
            assert_eq!(fs::read_to_string(home.cached()).unwrap(), CONTENT);
        };
        check("", "it has 0 bytes instead of 10");
        check("a library\nand more", "it has 18 bytes instead of 10");
        check(
            "b library\n",
            "its SHA-256 is 53816bb184ed39fa85904b966f75e9ef37bcc0bd7afc13bc3a6f08e3848ace01 \
             instead of 7648f2a9cab0a0bd20bee710f2bbdb30c3990031c0c745986097645b6fabfccd",
        );
    }

    /// Gives a file a time so old that it counts as settled.
    fn make_old(path: &Path) {
        let file = fs::File::options().write(true).open(path).unwrap();
        let hour = std::time::Duration::from_hours(1);
        file.set_modified(std::time::SystemTime::now() - hour)
            .unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn a_good_library_is_hashed_once() {
        let home = Home::new();
        let surroundings = home.surroundings("exit 1");
        let options = RuntimeOptions::default();
        home.write(home.cached(), CONTENT);
        make_old(&home.cached());
        quietly(&options, &surroundings).unwrap();
        // Changed without a trace in size or time: if it were read, that would be noticed.
        let record = fs::read_to_string(home.path("cache/verified.json")).unwrap();
        let modified = fs::metadata(home.cached()).unwrap().modified().unwrap();
        home.write(home.cached(), "b library\n");
        let file = fs::File::options().write(true).open(home.cached()).unwrap();
        file.set_modified(modified).unwrap();
        quietly(&options, &surroundings).unwrap();
        let after = fs::read_to_string(home.path("cache/verified.json")).unwrap();
        assert_eq!(after, record);
    }

    #[test]
    #[cfg(unix)]
    fn each_start_removes_what_a_killed_one_left() {
        for offline in [false, true] {
            let home = Home::new();
            home.write(home.cached(), CONTENT);
            let left = home.cached().with_file_name(".fetch-killed");
            home.write(left.join("alive"), "");
            home.write(left.join("half.whl"), "half");
            let options = RuntimeOptions {
                offline,
                ..RuntimeOptions::default()
            };
            quietly(&options, &home.surroundings("exit 1")).unwrap();
            assert!(!left.exists());
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_failed_fetch_says_why_and_leaves_nothing() {
        type Script = fn(&Home) -> String;
        let cases: [(Script, Expect); 7] = [
            (
                |home| home.wheel(MEMBER, "b library\n"),
                expect![[r#"
                    the wheel for test_platform is not as expected:
                    onnxruntime/capi/libonnxruntime.test has SHA-256 53816bb184ed39fa85904b966f75e9ef37bcc0bd7afc13bc3a6f08e3848ace01 instead of the pinned 7648f2a9cab0a0bd20bee710f2bbdb30c3990031c0c745986097645b6fabfccd
                "#]],
            ),
            (
                |home| home.wheel(MEMBER, "a lib"),
                expect![[r#"
                    the wheel for test_platform is not as expected:
                    onnxruntime/capi/libonnxruntime.test has 5 bytes instead of the pinned 10
                "#]],
            ),
            (
                |home| home.wheel("onnxruntime/README", CONTENT),
                expect![[r#"
                    the wheel for test_platform is not as expected:
                    no onnxruntime/capi/libonnxruntime.test:
                    specified file not found in archive
                "#]],
            ),
            (
                |_| r#"echo no zip > "$2/onnxruntime.whl""#.to_owned(),
                expect![[r#"
                    the wheel for test_platform is not as expected:
                    invalid Zip archive:
                    Could not find EOCD
                "#]],
            ),
            (
                |_| r#"echo a tarball > "$2/onnxruntime.tar.gz""#.to_owned(),
                expect![[r#"
                    the wheel for test_platform is not as expected:
                    there is none
                "#]],
            ),
            (
                |_| "echo Looking around; echo ERROR: No network. >&2; exit 1".to_owned(),
                expect![[r#"
                    sh HOME/python -m pip download failed:
                    ERROR:
                    No network
                "#]],
            ),
            (
                |_| r#"cd "$2"; echo half > onnxruntime.whl; kill $$"#.to_owned(),
                expect![[r#"
                    sh HOME/python -m pip download failed:
                    signal:
                    15 (SIGTERM)
                "#]],
            ),
        ];
        for (script, expected) in cases {
            let home = Home::new();
            let surroundings = home.surroundings(&script(&home));
            let error = quietly(&RuntimeOptions::default(), &surroundings).unwrap_err();
            let (_, error) = error.split_once("; pip: ").unwrap();
            let (error, _) = error.split_once("; to continue").unwrap();
            expected.assert_eq(&home.normal(error.replace(": ", ":\n")));
            assert!(home.names_in_cache().is_empty(), "{error}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_python_without_pip_is_skipped() {
        let home = Home::new();
        let mut surroundings = home.surroundings(&home.wheel(MEMBER, CONTENT));
        let none = vec![home.path("no-python").to_str().unwrap().to_owned()];
        surroundings.pythons.insert(0, none);
        surroundings.pythons.insert(1, vec!["false".to_owned()]);
        let located = quietly(&RuntimeOptions::default(), &surroundings).unwrap();
        assert_eq!(located.source, Source::Fetched);
    }

    #[test]
    #[cfg(unix)]
    fn the_error_lists_what_was_tried_and_what_helps() {
        type Change = fn(&Home, &mut RuntimeOptions, &mut Surroundings);
        let cases: [(Change, Expect); 7] = [
            (
                |_, _, surroundings| surroundings.build = None,
                expect![[r#"
                    beside the executable: no PLAIN in HOME/beside;
                    pip: no official build of 1.32.0 is known for OS on ARCH;
                    to continue, build or install ONNX Runtime for this machine"#]],
            ),
            (
                |_, _, surroundings| surroundings.cache = None,
                expect![[r#"
                    beside the executable: no PLAIN or libonnxruntime.test in HOME/beside;
                    cache: this user has no cache directory;
                    to continue, set INTERLINE_CACHE_DIR"#]],
            ),
            (
                |_, _, surroundings| surroundings.beside = None,
                expect![[r#"
                    cache: HOME/cache/onnxruntime-1.32.0/libonnxruntime.test: No such file or directory (os error 2);
                    pip: sh HOME/python -m pip download failed: exit status: 1;
                    to continue, try again with Python 3 with pip, a network and a writable cache"#]],
            ),
            (
                |_, options, _| options.offline = true,
                expect![[r#"
                    beside the executable: no PLAIN or libonnxruntime.test in HOME/beside;
                    cache: HOME/cache/onnxruntime-1.32.0/libonnxruntime.test: No such file or directory (os error 2);
                    pip: not used when offline;
                    to continue, run once without --offline"#]],
            ),
            (
                |home, options, _| {
                    home.write(home.cached(), "a lib");
                    options.offline = true;
                },
                expect![[r#"
                    beside the executable: no PLAIN or libonnxruntime.test in HOME/beside;
                    cache: HOME/cache/onnxruntime-1.32.0/libonnxruntime.test is damaged (it has 5 bytes instead of 10);
                    pip: not used when offline;
                    to continue, run once without --offline"#]],
            ),
            (
                |home, _, surroundings| {
                    let none = home.path("no-python").to_str().unwrap().to_owned();
                    surroundings.pythons = vec![vec![none], vec!["false".to_owned()]];
                },
                expect![[r#"
                    beside the executable: no PLAIN or libonnxruntime.test in HOME/beside;
                    cache: HOME/cache/onnxruntime-1.32.0/libonnxruntime.test: No such file or directory (os error 2);
                    pip: found no Python with pip (HOME/no-python: not found, false: exit status: 1);
                    to continue, try again with Python 3 with pip, a network and a writable cache"#]],
            ),
            (
                |home, _, _| {
                    home.write("cache", "a file in the way");
                },
                expect![[r#"
                    beside the executable: no PLAIN or libonnxruntime.test in HOME/beside;
                    cache: HOME/cache/onnxruntime-1.32.0/libonnxruntime.test: Not a directory (os error 20);
                    pip: cannot create HOME/cache/onnxruntime-1.32.0: Not a directory (os error 20);
                    to continue, try again with Python 3 with pip, a network and a writable cache"#]],
            ),
        ];
        for (change, expected) in cases {
            let home = Home::new();
            let mut surroundings = home.surroundings("exit 1");
            let mut options = RuntimeOptions::default();
            change(&home, &mut options, &mut surroundings);
            let error = home.normal(quietly(&options, &surroundings).unwrap_err());
            let (start, rest) = error.split_once(": not given;\n").unwrap();
            assert_eq!(
                start,
                "found no ONNX Runtime library;\ntried --runtime and ORT_DYLIB_PATH"
            );
            let (rest, remedy) = rest.split_once(", or ").unwrap_or_default();
            assert_eq!(
                remedy,
                "name an ONNX Runtime library with --runtime PATH or ORT_DYLIB_PATH\n"
            );
            expected.assert_eq(rest);
        }
    }

    #[test]
    fn a_named_library_must_be_a_file() {
        let home = Home::new();
        fs::create_dir(home.path("folder")).unwrap();
        for (name, expected) in [
            (
                "nothing",
                expect![[r#"
                    --runtime names HOME/nothing, which does not exist;
                    name the shared library of ONNX Runtime 1.24 or newer, or leave it out to have 1.32.0 fetched
                "#]],
            ),
            (
                "folder",
                expect![[r#"
                    --runtime names HOME/folder, which is not a file;
                    name the shared library of ONNX Runtime 1.24 or newer, or leave it out to have 1.32.0 fetched
                "#]],
            ),
        ] {
            let options = RuntimeOptions {
                library: Some(home.path(name)),
                ..RuntimeOptions::default()
            };
            let surroundings = home.surroundings("exit 1");
            let error = quietly(&options, &surroundings).unwrap_err();
            expected.assert_eq(&home.normal(error));

            let surroundings = Surroundings {
                named: options.library,
                ..surroundings
            };
            let by_variable = quietly(&RuntimeOptions::default(), &surroundings).unwrap_err();
            assert!(
                by_variable.starts_with("ORT_DYLIB_PATH names "),
                "{by_variable}"
            );
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_damaged_official_library_is_not_loaded() {
        let home = Home::new();
        let surroundings = home.surroundings(&home.wheel(MEMBER, CONTENT));
        let options = RuntimeOptions {
            library: Some(home.write("named", "b library\n")),
            ..RuntimeOptions::default()
        };
        let error = quietly(&options, &surroundings).unwrap_err();
        expect![[r#"
            --runtime names HOME/named, which is damaged (its size is that of the official 1.32.0, but its SHA-256 is 53816bb184ed39fa85904b966f75e9ef37bcc0bd7afc13bc3a6f08e3848ace01 instead of 7648f2a9cab0a0bd20bee710f2bbdb30c3990031c0c745986097645b6fabfccd);
            name the shared library of ONNX Runtime 1.24 or newer, or leave it out to have 1.32.0 fetched
        "#]].assert_eq(&home.normal(error));
        home.write("named", CONTENT);
        assert_eq!(
            quietly(&options, &surroundings).unwrap().source,
            Source::Explicit
        );

        home.write("beside/libonnxruntime.test", "b library\n");
        let mut said = String::new();
        let located = locate_in(
            &RuntimeOptions::default(),
            &surroundings,
            &mut |line: &str| {
                said += line;
            },
        );
        assert_eq!(located.unwrap().source, Source::Fetched);
        assert!(said.starts_with("skipped "), "{said}");
    }

    #[test]
    fn a_relative_name_is_made_absolute() {
        let options = RuntimeOptions {
            library: Some("Cargo.toml".into()),
            ..RuntimeOptions::default()
        };
        let located = quietly(&options, &Home::new().surroundings("exit 1")).unwrap();
        // Cargo runs tests in the folder of the package.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert_eq!(located.path, path);
    }
}
