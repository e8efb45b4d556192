//! The command line.

pub mod complete;
pub mod doctor;
pub mod models;
pub mod replay;
pub mod runtimes;
pub mod task;

mod delivery;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::download::Waiter;
use crate::engine::{self, CACHED_TOKENS, Engine, EngineState, Ready};
use crate::model::catalogue::DEFAULT;
use crate::model::needs::Needs;
use crate::model::store::name::Name;
use crate::model::store::{Store, StoreError};
use crate::model::{Model, choice, trial};
use crate::runtime::provider::Provider;
use crate::runtime::{Runtime, probe, telemetry};
use crate::server;
use crate::server::settings::{EngineOptions, Options};
use crate::suggest::Completer;
use crate::tasks::Task;
use crate::text::document::Documents;

/// A language server that writes between your lines: local AI code completion, with no cloud.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Without a command, it serves an editor on standard input and \
    output. Logs go to standard error; set INTERLINE_LOG=debug for more."
)]
struct Arguments {
    #[command(flatten)]
    engine: EngineArguments,
    /// Serve on standard input and output: the default, which some clients ask for all the same.
    #[arg(long, hide = true)]
    stdio: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct EngineArguments {
    /// A model from `interline model list`, or a model folder [default: the one in use]
    #[arg(long, global = true, value_name = "NAME|DIR")]
    model: Option<PathBuf>,
    /// The shared library of ONNX Runtime [default: found, or downloaded once with pip]
    #[arg(long, global = true, value_name = "PATH")]
    runtime: Option<PathBuf>,
    /// Where the model runs [default: auto]
    #[arg(long, global = true, value_name = "NAME")]
    provider: Option<Provider>,
    /// Never download anything
    #[arg(long, global = true)]
    offline: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the completion at a position in a file
    Complete(complete::Arguments),
    /// Check runtime, model and prompt format, and measure speed
    Doctor,
    /// List, download, add, use, check and remove models
    #[command(subcommand)]
    Model(models::Command),
    /// List and download what models can run on
    #[command(subcommand)]
    Runtime(runtimes::Command),
    /// Translate a file to another language
    Translate(task::Translate),
    /// Write code from a description, or from the comment above a line
    Generate(task::Generate),
    /// Explain what code does
    Explain(task::Place),
    /// Write the docstring or doc comment of a function or type
    Document(task::Place),
    /// Write a test for a function or type
    Test(task::Place),
    /// Fix code that has problems
    Fix(task::Fix),
    /// Solve a problem by generating many programs and running them in a sandbox
    Solve(task::Solve),
    /// Print the completion script of this command line for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Type a file through a server in memory, and print what each keystroke costs
    Replay(replay::Arguments),
    /// Load an ONNX Runtime library, and do nothing else
    #[command(name = probe::SUBCOMMAND, hide = true)]
    ProbeRuntime {
        /// The library
        library: PathBuf,
    },
    /// Compare a device with the CPU, and print the outcome
    #[command(name = trial::SUBCOMMAND, hide = true)]
    TryDevice {
        /// The model's folder
        folder: PathBuf,
        /// What to try
        provider: Provider,
        /// The library of ONNX Runtime
        library: PathBuf,
    },
}

impl From<EngineArguments> for Options {
    fn from(arguments: EngineArguments) -> Self {
        Self {
            model: arguments.model,
            runtime: arguments.runtime,
            provider: arguments.provider,
            offline: arguments.offline.then_some(true),
            ..Self::default()
        }
    }
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    // Law (stdout is the protocol): logs go to standard error.
    let filter = EnvFilter::try_from_env("INTERLINE_LOG");
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        // Below debug, tower-lsp logs whole messages, and documents with them.
        .with(LevelFilter::DEBUG)
        .with(filter.unwrap_or_else(|_| EnvFilter::new("warn,ort=error")))
        .with(format)
        .init();
    // One thread: nothing computes on it, since the model has its own, and no other thread has to wake
    // up when one part of the server hands something to another.
    let runtime = telemetry::silence()
        .context("cannot restart without ONNX Runtime's telemetry")
        .and_then(|()| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start tokio")
        });
    let done = runtime.and_then(|runtime| {
        let done = runtime.block_on(dispatch(arguments));
        // A thread that reads standard input cannot be woken, and there is nothing to wait for.
        runtime.shutdown_background();
        done
    });
    engine::wait_for_threads(LAST_PASS);
    Runtime::release();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // If even this cannot be written, there is nothing left to do.
            let _ = writeln!(std::io::stderr(), "error: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// How long the end of the program waits for the model's last pass.
const LAST_PASS: Duration = Duration::from_secs(1);

/// The text of an error, followed by those of its causes that it does not name itself.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text.push_str(separator);
            text.push_str(&cause);
        }
    }
    text
}

async fn dispatch(arguments: Arguments) -> anyhow::Result<bool> {
    let options = Options::from(arguments.engine);
    match arguments.command {
        None => {
            if std::io::stdin().is_terminal() {
                // Otherwise a user who typed this would see nothing happen.
                say("waiting for an editor on standard input; see interline --help");
            }
            let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
            let start = Arc::new(|options: &EngineOptions| Arc::new(start_engine(options)));
            let store = Store::of_user().ok();
            Ok(server::serve(input, output, options, start, store).await)
        }
        Some(Command::Complete(arguments)) => complete::run(&arguments, options).await,
        Some(Command::Doctor) => doctor::run(options).await,
        Some(Command::Model(command)) => command.run(options.offline.unwrap_or_default()),
        Some(Command::Runtime(command)) => command.run(options.offline.unwrap_or_default()),
        Some(Command::Translate(arguments)) => arguments.run(options).await,
        Some(Command::Generate(arguments)) => arguments.run(options).await,
        Some(Command::Explain(place)) => place.perform(Task::Explain, options).await,
        Some(Command::Document(place)) => place.perform(Task::Document, options).await,
        Some(Command::Test(place)) => place.perform(Task::Test, options).await,
        Some(Command::Fix(arguments)) => arguments.run(options).await,
        Some(Command::Solve(arguments)) => arguments.run(options).await,
        Some(Command::Completions { shell }) => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "interline", &mut std::io::stdout());
            Ok(true)
        }
        Some(Command::Replay(arguments)) => replay::run(&arguments, options).await,
        Some(Command::ProbeRuntime { library }) => {
            probe::load(&library)?;
            Ok(true)
        }
        Some(Command::TryDevice {
            folder,
            provider,
            library,
        }) => {
            let outcome = trial::report(&folder, provider, library);
            writeln!(std::io::stdout(), "{outcome}")?;
            Ok(true)
        }
    }
}

/// Writes what the program is doing to standard error.
fn say(what: &str) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(std::io::stderr(), "interline: {what}");
}

/// Repeats on standard error what a waiter is told.
struct Aloud<'a>(&'a mut dyn Waiter);

impl Waiter for Aloud<'_> {
    fn say(&mut self, what: &str) {
        self.0.say(what);
        say(what);
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.0.progress(done, total);
    }

    fn is_wanted(&self) -> bool {
        self.0.is_wanted()
    }
}

/// Starts the engine, which reports its downloads on standard error.
fn start_engine(options: &EngineOptions) -> Engine {
    let EngineOptions {
        model,
        runtime: options,
    } = options.clone();
    Engine::spawn(move |waiter| {
        let directory = choice::folder(model.as_deref())?;
        Needs::estimate(&directory, CACHED_TOKENS)?.check()?;
        let mut runtime = Runtime::load_probed(&options, &mut Aloud(waiter))?;
        trial::choose(&mut runtime, &directory, &mut Aloud(waiter));
        Model::load(&directory, &mut runtime).map_err(anyhow::Error::from)
    })
}

/// A completer set up as in the server, once its engine is ready. `unusable` is told why the model in
/// use is not used, if it cannot be.
async fn ready_completer(
    options: &Options,
    documents: Arc<Documents>,
    unusable: impl FnMut(&str),
) -> anyhow::Result<(Completer, Ready)> {
    let (engine, ready) = ready_engine(options, unusable).await?;
    let settings = options
        .suggest(Arc::new(engine))
        .map_err(anyhow::Error::msg)?;
    Ok((Completer::new(documents, settings), ready))
}

/// The engine that the options and the user's choice ask for, once it is ready. Where the choice
/// cannot be loaded, `unusable` is told why, and the default serves.
async fn ready_engine(
    options: &Options,
    mut unusable: impl FnMut(&str),
) -> anyhow::Result<(Engine, Ready)> {
    let in_use = in_use(options).unwrap_or_else(|problem| {
        unusable(&problem.to_string());
        None
    });
    let engine = start_engine(&options.engine(in_use.as_ref()));
    let problem = match ready(&engine).await {
        Ok(ready) => return Ok((engine, ready)),
        Err(problem) => problem,
    };
    let Some(name) = in_use else {
        return Err(problem);
    };
    let engine = start_engine(&options.engine(None));
    let Ok(ready) = ready(&engine).await else {
        return Err(problem);
    };
    let problem = problem.context(format!("{name} cannot be used, and {DEFAULT} serves"));
    unusable(&with_causes(&problem));
    Ok((engine, ready))
}

/// The model that the user has chosen in the store, if the options name none.
fn in_use(options: &Options) -> Result<Option<Name>, StoreError> {
    match options.model {
        Some(_) => Ok(None),
        None => Store::of_user().map_or(Ok(None), |store| store.in_use()),
    }
}

/// Waits until the engine is ready or has failed.
async fn ready(engine: &Engine) -> anyhow::Result<Ready> {
    let mut state = engine.state();
    let state = state
        .wait_for(|state| !matches!(state, EngineState::Loading(_)))
        .await;
    match &*state.context("the inference thread has ended")? {
        EngineState::Ready(ready) => Ok(ready.clone()),
        EngineState::Failed(problem) => anyhow::bail!("{problem}"),
        EngineState::Loading(_) => unreachable!("waited for its end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let file = std::io::Error::other("no such file");
        let named = anyhow::Error::new(file).context("cannot read a: no such file");
        assert_eq!(with_causes(&named), "cannot read a: no such file");
        let unnamed = named.context("no model");
        assert_eq!(
            with_causes(&unnamed),
            "no model: cannot read a: no such file"
        );
    }

    #[test]
    fn the_command_line_is_valid_and_shells_complete_it() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Zsh,
            clap_complete::Shell::Fish,
        ] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "interline", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in [
                "model",
                "pull",
                "translate",
                "generate",
                "explain",
                "document",
                "test",
                "fix",
                "solve",
            ] {
                assert!(script.contains(name), "{shell} does not know {name}");
            }
        }
    }
}
