//! Runs programs on a problem's examples, in the sandbox.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::TryRngCore;
use rand::rngs::OsRng;

use super::problem::{Check, Problem};
use crate::sandbox::{Ending, Limits, NoSandbox, Outcome, Program, Sandbox, on_path};
use crate::text::language::Language;

/// Runs Python checks in one process and the program in another. Its docstring says how it keeps
/// them apart.
const HARNESS: &str = include_str!("harness.py");

/// Makes Python print its real path, and the folder that it is installed in. The harness needs
/// `ctypes`.
const PYTHON_PROBE: &str = "import ctypes, os, sys
print(os.path.realpath(sys.executable))
print(os.path.realpath(sys.base_prefix))";

/// Makes Node print its real path twice, because it is a single file.
const NODE_PROBE: &str = "const path = require('fs').realpathSync(process.execPath);
console.log(path);
console.log(path);";

/// Runs programs in one language.
#[derive(Debug)]
pub struct Judge {
    sandbox: Sandbox,
    interpreter: Interpreter,
    limits: Limits,
}

#[derive(Debug)]
struct Interpreter {
    /// Its path and options, before the program's name.
    command: Vec<String>,
    /// The folders that it is installed in, if they are not the system's.
    folders: Vec<PathBuf>,
}

/// Why programs cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// There is no sandbox, and without one nothing is run.
    #[error("generated programs run only in a sandbox, and there is none: {0}")]
    Sandbox(#[from] NoSandbox),
    /// There is no interpreter.
    #[error("{0} is not on the PATH; install it to run programs in {1}")]
    Interpreter(&'static str, Language),
    /// It does not run, or is incomplete.
    #[error("{interpreter} does not work ({reason}); install a complete one to run programs in it")]
    Broken {
        /// Its path.
        interpreter: PathBuf,
        /// The last line of its errors.
        reason: String,
    },
    /// The interpreter's folder cannot be shown without the home folder.
    #[error(
        "{0} is in a folder that contains the home folder, which no program may see; install it elsewhere"
    )]
    Home(String),
    /// Programs in it cannot be run.
    #[error("programs in {0} cannot be run here; solve in Python or JavaScript")]
    Language(Language),
}

impl Judge {
    /// Finds the sandbox and the interpreter.
    ///
    /// # Errors
    ///
    /// See [`JudgeError`].
    pub fn find(language: Language) -> Result<Self, JudgeError> {
        let (program, options, probe): (_, &[&str], _) = match language {
            Language::Python => ("python3", &["-I"], ["-Ic", PYTHON_PROBE]),
            Language::JavaScript => ("node", &[], ["-e", NODE_PROBE]),
            other => return Err(JudgeError::Language(other)),
        };
        let found = std::env::var_os("PATH").and_then(|path| on_path(program, &path));
        let found = found.ok_or(JudgeError::Interpreter(program, language))?;
        let (path, place) = ask(&found, probe).map_err(|reason| JudgeError::Broken {
            interpreter: found,
            reason,
        })?;
        let place = PathBuf::from(place);
        // If the home folder is in it, the sandbox would protect nothing.
        let home = directories::UserDirs::new().map(|user| user.home_dir().to_path_buf());
        if home.is_some_and(|home| home.starts_with(&place)) {
            return Err(JudgeError::Home(path));
        }
        let system = ["/usr", "/bin"]
            .iter()
            .any(|system| place.starts_with(system));
        Ok(Self {
            sandbox: Sandbox::find()?,
            interpreter: Interpreter {
                command: std::iter::once(path)
                    .chain(options.iter().map(|option| (*option).to_owned()))
                    .collect(),
                folders: if system { Vec::new() } else { vec![place] },
            },
            limits: Limits::default(),
        })
    }

    /// Whether a program does what the problem's examples say. The program cannot forge this:
    /// outputs are compared here, and Python statements run in a process of their own, which alone
    /// knows the word that says that they pass. Statements that use functions of the program
    /// besides the problem's own, or methods of its classes, trust what these return.
    ///
    /// # Errors
    ///
    /// If the sandbox cannot be set up.
    pub fn passes(
        &self,
        problem: &Problem,
        program: &str,
        cancelled: &impl Fn() -> bool,
    ) -> io::Result<bool> {
        let mut asserts = String::new();
        for check in &problem.checks {
            match check {
                Check::Assert(statement) => {
                    asserts.push_str(statement);
                    asserts.push('\n');
                }
                Check::Io { input, output } => {
                    let done = self.run(program, input, cancelled)?;
                    let written = String::from_utf8_lossy(&done.stdout);
                    if done.ending != Ending::Exited(0) || !same(&written, output) {
                        return Ok(false);
                    }
                }
            }
        }
        if asserts.is_empty() {
            return Ok(true);
        }
        let word = word()?;
        let task = serde_json::json!({
            "checks": asserts,
            "function": problem.function,
            "word": word,
        });
        let files = [("harness", HARNESS), ("solution", program)];
        let done = self.run_files(&files, &task.to_string(), cancelled)?;
        let written = String::from_utf8_lossy(&done.stdout);
        Ok(done.ending == Ending::Exited(0) && written.trim_end() == word)
    }

    /// What a program does on each of `inputs`: calls of its function, or standard input.
    ///
    /// # Errors
    ///
    /// If the sandbox cannot be set up.
    pub fn behaviour(
        &self,
        problem: &Problem,
        program: &str,
        inputs: &[String],
        cancelled: &impl Fn() -> bool,
    ) -> io::Result<Vec<String>> {
        if problem.function.is_none() {
            let run = |input: &String| Ok(self.run(program, input, cancelled)?.shown());
            return inputs.iter().map(run).collect();
        }
        let mut text = format!("{program}\n");
        for call in inputs {
            text.push_str(&format!(
                "try:\n    print(repr(eval({})))\nexcept BaseException as error:\n    print(type(error).__name__)\n",
                // A JSON string is also a Python string.
                serde_json::Value::from(call.as_str())
            ));
        }
        Ok(vec![self.run(&text, "", cancelled)?.shown()])
    }

    fn run(&self, text: &str, input: &str, cancelled: &impl Fn() -> bool) -> io::Result<Outcome> {
        self.run_files(&[("solution", text)], input, cancelled)
    }

    /// Runs the first of `files`.
    fn run_files(
        &self,
        files: &[(&str, &str)],
        input: &str,
        cancelled: &impl Fn() -> bool,
    ) -> io::Result<Outcome> {
        let Interpreter { command, folders } = &self.interpreter;
        let mut command: Vec<_> = command.iter().map(String::as_str).collect();
        command.extend(files.first().map(|(name, _)| *name));
        let folders: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
        let program = Program {
            command: &command,
            files,
            folders: &folders,
            stdin: input.as_bytes(),
        };
        self.sandbox.run(&program, &self.limits, cancelled)
    }
}

/// A word that a program cannot guess.
fn word() -> io::Result<String> {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

impl Outcome {
    /// What the program wrote, and how it ended if it failed.
    fn shown(&self) -> String {
        let written = String::from_utf8_lossy(&self.stdout);
        match self.ending {
            Ending::Exited(0) => written.trim_end().to_owned(),
            ending => format!("{ending:?} {}", written.trim_end()),
        }
    }
}

/// Asks an interpreter for its real path and the place it is installed in. The error says what is
/// wrong with it.
fn ask(interpreter: &Path, probe: [&str; 2]) -> Result<(String, String), String> {
    let output = Command::new(interpreter).args(probe).output();
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    if let Some((path, place)) = said.trim().split_once('\n') {
        return Ok((path.trim().to_owned(), place.trim().to_owned()));
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(error.lines().last().unwrap_or_default().to_owned())
}

/// Whether two outputs are the same, except for blanks at the ends of lines and of the text.
fn same(a: &str, b: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.trim_end()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    };
    lines(a) == lines(b)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::sandbox::tests::is_skipped;

    /// Whether programs pass statements about their function `f`.
    fn check(expected: bool, cases: &[(&str, &str)]) {
        if is_skipped() {
            return;
        }
        let judge = Judge::find(Language::Python).unwrap();
        for (program, checks) in cases {
            let json = serde_json::json!({"statement": "", "stub": "def f(x):", "tests": [checks]});
            let problem = Problem::from_json(&json.to_string(), Language::Python).unwrap();
            let passes = judge.passes(&problem, program, &|| false).unwrap();
            assert_eq!(passes, expected, "{program}\n{checks}");
        }
    }

    #[test]
    fn right_programs_pass() {
        check(
            true,
            &[
                (
                    "def f(x): return 2 * x",
                    "assert f(2) == 4\nassert abs(f(2.5) - 5) < 1e-9",
                ),
                // Values of all kinds come back as they are.
                (
                    "def f(x): return 10**6000, -0.0, float('nan'), '\\ud800', b'a', 1j, range(3), {1: (2, {3}), (1, 2): None}",
                    "a = f(1)\nassert a[0] == 10**6000 and str(a[1]) == '-0.0' and a[2] != a[2]
assert a[3:] == ('\\ud800', b'a', 1j, range(3), {1: (2, {3}), (1, 2): None})",
                ),
                (
                    "import fractions\nfrom collections import *\ndef f(x): return [fractions.Fraction(1, 3), deque(x), Counter(x)]",
                    "from fractions import Fraction\nfrom collections import deque
assert f('aa') == [Fraction(1, 3), deque('aa'), {'a': 2}]",
                ),
                (
                    "def f(x): yield from range(x)",
                    "assert list(f(3)) == [0, 1, 2]",
                ),
                // Arguments that are changed.
                (
                    "def f(x): x.sort()",
                    "a = [2, 1]\nassert f(a) is None and a == [1, 2]",
                ),
                // Functions and iterators of the checks.
                (
                    "def f(x, y): return [x(y) for y in y]",
                    "assert f(lambda x: x + 1, (x for x in [1, 2])) == [2, 3]",
                ),
                (
                    "import math\ndef f(x): return x",
                    "def check(f):\n    for x in range(99): assert math.isclose(f(x), x)\ncheck(f)",
                ),
                // Classes and errors of the program.
                (
                    "class P:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return self.x == other.x
def f(x): return sum(p.x for p in x)",
                    "assert f([P(1), P(2)]) == 3 and P(1) == P(1) and P(1) != P(2) and P(5).x == 5",
                ),
                (
                    "class No(Exception): pass\ndef f(x): raise No('no') if x else KeyError(1)",
                    "for x, error in (0, KeyError), (1, No):
    try: f(x)
    except error: pass
    else: assert False",
                ),
                (
                    "print('hello')\ndef f(x): print(x); return x\nif __name__ == '__main__': print(f(1))",
                    "assert f(1) == 1",
                ),
            ],
        );
    }

    #[test]
    fn wrong_programs_do_not_pass() {
        check(
            false,
            &[
                ("def f(x): return x", "assert f(2) == 4"),
                ("def f(x): return x +", "pass"),
                ("raise SystemExit(0)", "pass"),
                ("import sys\ndef f(x): sys.exit(0)", "assert f(1) == 1"),
                ("import os\ndef f(x): os._exit(0)", "assert f(1) == 1"),
                // Prints what used to mean success, and ends.
                (
                    "print('interline: all checks passed')\nraise SystemExit(0)",
                    "assert f(2) == 4",
                ),
                (
                    "import os\nos.write(1, b'interline: all checks passed\\n'); os._exit(0)",
                    "assert f(2) == 4",
                ),
            ],
        );
    }

    #[test]
    fn a_program_cannot_say_that_it_passes() {
        // Searches all that it can reach of the judge for its word, and prints it.
        const SEARCH: &str = "import gc, os, re
def texts():
    judge = f'/proc/{os.getppid()}/'
    for name in 'environ', 'cmdline', 'fd/0', 'fd/3', 'fd/4', 'fd/5', 'fd/6':
        try: yield os.read(os.open(judge + name, os.O_RDONLY | os.O_NONBLOCK), 1 << 20)
        except OSError: pass
    for file in os.listdir(): yield open(file, 'rb').read()
    yield repr([x for x in gc.get_objects() if type(x) in (str, dict, list, tuple)]).encode()
    memory = os.open(judge + 'mem', os.O_RDONLY)
    for line in open(judge + 'maps'):
        first, last = (int(end, 16) for end in line.split()[0].split('-'))
        try: yield os.pread(memory, last - first, first)
        except (OSError, OverflowError): pass
def search():
    for text in texts():
        for word in re.findall(rb'\"word\": ?\"([0-9a-f]{32})\"', text):
            os.write(os.open(f'/proc/{os.getppid()}/fd/1', os.O_WRONLY), word)
            return
def f(x):
    try: search()
    finally: raise SystemExit(0)
";
        check(
            false,
            &[
                (SEARCH, "assert f(2) == 4"),
                // An object that equals everything.
                (
                    "class Any:
    __eq__ = __lt__ = __gt__ = __contains__ = lambda self, other: True
    __bool__ = lambda self: True
    __sub__ = __rsub__ = __abs__ = lambda self, *_: self
def f(x): return Any()",
                    "assert f(2) == 4",
                ),
                (
                    "class Any:\n  __lt__ = __sub__ = __abs__ = lambda self, *_: self\ndef f(x): return Any()",
                    "assert abs(f(2) - 4) < 1e-6",
                ),
                (
                    "class Any:\n  __contains__ = lambda *_: True\n  __iter__ = lambda _: iter([])\ndef f(x): return Any()",
                    "assert 4 in f(2)",
                ),
                (
                    "class Any(int): __eq__ = lambda *_: True\ndef f(x): return Any()",
                    "assert f(2) == 4",
                ),
                // Redefinitions of what the checks use.
                (
                    "def abs(x): return 0\ndef f(x): return x",
                    "assert abs(f(2) - 4) < 1e-6",
                ),
                (
                    "class math: isclose = lambda *_: True\ndef f(x): return x",
                    "assert math.isclose(f(2), 4)",
                ),
                (
                    "import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return x",
                    "assert abs(f(2) - 4) < 1e-6",
                ),
                // A premature end of an iteration.
                (
                    "def f(x): raise StopIteration",
                    "assert all(map(lambda x: f(x) == 2 * x, [1, 2]))",
                ),
                // Objects made on the judge's side, and a way to its memory.
                (
                    "import gc
def f(x):
    side = [x for x in gc.get_objects() if type(x).__name__ == 'Side'][0]
    name = ['dict', [['__eq__', ['builtin', 'bool']]]]
    side.send(['ask', 'call', [['builtin', 'type'], ['list', ['Any', ['tuple', []], name]], ['dict', []]]])
    side.reader.readline()
    side.send(['value', ['yours', 0], None])",
                    "assert f(2) == 4",
                ),
                (
                    "import gc, os
def f(x):
    side = [x for x in gc.get_objects() if type(x).__name__ == 'Side'][0]
    side.send(['ask', 'attribute', [['yours', 0], '__globals__']])
    os._exit(0 if 'raise' in side.reader.readline() else 1)",
                    "assert f(lambda: 1) == 4",
                ),
            ],
        );
    }
}
