//! `interline runtime`: what models can run on, and getting what the CPU does not need.

use std::io::Write;

use anyhow::ensure;
use clap::Subcommand;

use crate::model::trial;
use crate::runtime::plugin::{Plugin, PluginError};
use crate::runtime::provider::Provider;

/// The commands of `interline runtime`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the plugin libraries for this machine, and whether they are here
    List,
    /// Download the plugin library of a provider, and have devices tried again
    Pull {
        /// What the library adds, such as webgpu
        provider: Provider,
    },
}

impl Command {
    /// Returns whether all is well.
    pub(super) fn run(&self, offline: bool) -> anyhow::Result<bool> {
        match self {
            Self::List => list(),
            Self::Pull { provider } => {
                ensure!(!offline, "`runtime pull` downloads; leave out --offline");
                ensure!(
                    !matches!(provider, Provider::Auto | Provider::Cpu),
                    "{provider} needs nothing that can be pulled"
                );
                let path = Plugin::of(*provider)?.pull(&mut super::say)?;
                // The user may have mended something.
                trial::forget();
                super::say(&format!(
                    "{} is here; it is used with --provider {provider} or the setting `provider`, and \
                     with auto where it is faster: `interline doctor` tells",
                    path.display()
                ));
                Ok(true)
            }
        }
    }
}

fn list() -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<10}  {:<28}  {:<6}  HERE",
        "PROVIDER", "PACKAGE", "SIZE"
    )?;
    for plugin in Plugin::all() {
        let here = match plugin.find() {
            Ok(_) => "yes".to_owned(),
            Err(PluginError::Missing(provider)) => {
                format!("no: interline runtime pull {provider}")
            }
            Err(PluginError::ByHand { .. }) => continue,
            Err(error) => format!("no: {error}"),
        };
        let package = format!("{} {}", plugin.package, plugin.version);
        let size = format!("{} MB", plugin.size().div_ceil(1_000_000));
        writeln!(
            out,
            "{:<10}  {package:<28}  {size:<6}  {here}",
            plugin.provider
        )?;
    }
    Ok(true)
}
