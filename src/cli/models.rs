//! `interline model`: what models there are, and getting, checking and removing them.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::download::hub::Hub;
use crate::download::{self, Waiter};
use crate::model::catalogue::{Catalogue, DEFAULT};
use crate::model::choice;
use crate::model::findings::findings;
use crate::model::overview::{Known, Whereabouts, overview};
use crate::model::store::name::Name;
use crate::model::store::origin::Origin;
use crate::model::store::pull::Wanted;
use crate::model::store::{self, Store};
use crate::model::sums;
use crate::verified::Record;

/// The commands of `interline model`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the models that can be pulled and those that are here
    List,
    /// Download a model by its name in the list, or a GGUF file of a Hub
    Pull {
        /// A name, or a file of a Hub
        #[arg(value_name = "NAME|OWNER/REPO[:FILE]")]
        what: String,
    },
    /// Add a model folder or a GGUF file of your own to the store
    Add {
        /// The folder or file
        path: PathBuf,
        /// The name it gets [default: that of the folder or file]
        #[arg(long)]
        name: Option<Name>,
    },
    /// Use a model wherever none is named, in servers that run too
    Use {
        /// A model that is here
        #[arg(required_unless_present = "default")]
        name: Option<Name>,
        /// Go back to the model that comes with Interline
        #[arg(long, conflicts_with = "name")]
        default: bool,
    },
    /// Show what Interline finds in a model, and why
    Info {
        /// A model that is here, or a model folder
        #[arg(value_name = "NAME|DIR")]
        model: PathBuf,
    },
    /// Read all files of a model, or of all models, and check them against their hashes
    Verify {
        /// A model that is here
        name: Option<Name>,
    },
    /// Remove a model from the store
    Remove {
        /// The model
        name: Name,
    },
}

impl Command {
    /// Returns whether all is well.
    pub(super) fn run(self, offline: bool) -> anyhow::Result<bool> {
        match self {
            Self::List => list(&Store::of_user()?),
            Self::Pull { what } => {
                ensure!(!offline, "`model pull` downloads; leave out --offline");
                pull(&Store::of_user()?, &what)
            }
            Self::Add { path, name } => {
                Store::of_user()?.add(&path, name, &mut Meter::default())?;
                Ok(true)
            }
            Self::Use { name, .. } => {
                let name = name.map_or_else(|| DEFAULT.parse(), Ok)?;
                take_into_use(&Store::of_user()?, &name)
            }
            Self::Info { model } => info(&model),
            Self::Verify { name } => verify(&Store::of_user()?, name),
            Self::Remove { name } => {
                ensure!(
                    name.as_str() != DEFAULT,
                    "{DEFAULT} comes with Interline and is not in the store"
                );
                Store::of_user()?.remove(&name, &mut Meter::default())?;
                super::say(&format!("removed {name}"));
                Ok(true)
            }
        }
    }
}

fn list(store: &Store) -> anyhow::Result<bool> {
    let mut rows = vec![["NAME", "SIZE", "LICENCE", "MEMORY", "HERE"].map(str::to_owned)];
    let mut out = std::io::stdout().lock();
    let mut in_use = store.in_use().unwrap_or_else(|problem| {
        super::say(&problem.to_string());
        None
    });
    if let Some(name) = in_use.take_if(|name| store.get(name).is_none()) {
        super::say(&format!("{name} was in use and is gone; {DEFAULT} serves"));
    }
    for known in overview(store)? {
        rows.push(row(&known, in_use.as_ref()));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    for row in &rows {
        for (text, width) in row.iter().zip(widths) {
            write!(out, "{text:width$}  ")?;
        }
        writeln!(out, "{}", row[4])?;
    }
    Ok(true)
}

fn row(known: &Known, in_use: Option<&Name>) -> [String; 5] {
    let name = &known.name;
    let is_in_use = name.as_str() == in_use.map_or(DEFAULT, Name::as_str);
    let here = match known.whereabouts {
        Whereabouts::Here if is_in_use => "yes, in use".to_owned(),
        Whereabouts::Here => "yes".to_owned(),
        Whereabouts::ToPull(0) => format!("no: interline model pull {name}"),
        Whereabouts::ToPull(have) => {
            format!("{} of it: interline model pull {name}", megabytes(have))
        }
        Whereabouts::Lost => "no: it is not where it was installed".to_owned(),
    };
    [
        name.to_string(),
        megabytes(known.size),
        known.license.clone(),
        known.memory.map_or_else(String::new, megabytes),
        here,
    ]
}

fn take_into_use(store: &Store, name: &Name) -> anyhow::Result<bool> {
    choice::named(store, name)?;
    store.take_into_use(name)?;
    super::say(&format!(
        "{name} is in use; servers that run switch to it, unless --model or the setting `model` \
         names another"
    ));
    Ok(true)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.saturating_add(500_000) / 1_000_000)
}

fn pull(store: &Store, what: &str) -> anyhow::Result<bool> {
    let hub = Hub::of_environment();
    if what == DEFAULT {
        super::say(&format!(
            "{what} comes with Interline; there is nothing to pull"
        ));
        return Ok(true);
    }
    let wanted = Wanted::named(what, &hub)?;
    let folder = store.pull(&wanted, &download::pythons(), &mut Meter::default())?;
    super::say(&format!(
        "use it with `interline model use {}`",
        folder.file_name().unwrap_or_default().display()
    ));
    Ok(true)
}

fn info(model: &Path) -> anyhow::Result<bool> {
    let folder = choice::folder(Some(model))?;
    if folder.is_file() {
        bail!(
            "{} is a file; a GGUF file is imported by `interline model add {0}`, and then described",
            folder.display()
        );
    }
    let found = findings(&folder)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<11} {}", "folder", folder.display())?;
    writeln!(out, "{:<11} {}", "size", megabytes(store::size(&folder)))?;
    if let Some(origin) = Origin::read(&folder) {
        writeln!(out, "{:<11} {}", "from", origin.source)?;
        if let Some(importer) = origin.importer {
            writeln!(out, "{:<11} by importer {importer}", "imported")?;
        }
    }
    for finding in found {
        writeln!(
            out,
            "{:<11} {} ({})",
            finding.what, finding.value, finding.why
        )?;
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    for score in Catalogue::embedded()
        .get(&name)
        .into_iter()
        .flat_map(|entry| &entry.scores)
    {
        writeln!(out, "{:<11} {score}", "scores")?;
    }
    Ok(true)
}

fn verify(store: &Store, name: Option<Name>) -> anyhow::Result<bool> {
    let names = match name {
        Some(name) => vec![name],
        None => std::iter::once(DEFAULT.parse()?)
            .chain(store.names())
            .collect(),
    };
    let mut healthy = true;
    for name in names {
        let folder = match name.as_str() {
            DEFAULT => choice::folder(None)?,
            _ => store.get(&name).ok_or_else(|| store.missing(&name))?,
        };
        // Without a record, because what is looked for is damage that no time tells.
        let (mark, text) = match sums::check(&folder, &Record::in_folder(None)) {
            Ok(Some(count)) => ("ok  ", format!("{count} files")),
            Ok(None) => ("FAIL", format!("no {} to verify with", sums::FILE_NAME)),
            Err(error) => ("FAIL", error.to_string()),
        };
        healthy &= mark != "FAIL";
        writeln!(std::io::stdout(), "{mark} {name:<20} {text}")
            .context("cannot write to standard output")?;
    }
    Ok(healthy)
}

/// Shows what is done on standard error: a bar for a person, and a line for every tenth part
/// otherwise.
#[derive(Default)]
struct Meter {
    bar: Option<ProgressBar>,
    /// The last tenth that a line was written for.
    tenth: u64,
}

/// The bar of a person's terminal.
const BAR: &str =
    "{wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";

impl Meter {
    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.tenth = 0;
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Waiter for Meter {
    fn say(&mut self, what: &str) {
        self.clear();
        super::say(what);
    }

    fn progress(&mut self, done: u64, total: u64) {
        if std::io::stderr().is_terminal() {
            let new = || {
                let style = ProgressStyle::with_template(BAR);
                // What an earlier run did says nothing about speed.
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                    .with_position(done)
            };
            self.bar.get_or_insert_with(new).set_position(done);
            return;
        }
        let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(0);
        if tenth > self.tenth {
            self.tenth = tenth;
            super::say(&format!("{} of {}", megabytes(done), megabytes(total)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_well_formed() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[test]
    fn sizes_are_rounded() {
        for (bytes, expected) in [
            (0, "0 MB"),
            (491_400_064, "491 MB"),
            (1_500_000, "2 MB"),
            (u64::MAX, "18446744073709 MB"),
        ] {
            assert_eq!(megabytes(bytes), expected);
        }
    }
}
