//! `meshctl completion`: what shells need to complete our words.

use clap_complete::Shell;

use crate::error::CliError;
use crate::printer::Report;

/// For which shell.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  source <(meshctl completion bash)\n  meshctl completion zsh > ~/.zfunc/_meshctl")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The script for the command line `cli`.
///
/// # Errors
/// None: the signature is that of all commands.
pub fn run(args: &CompletionArgs, mut cli: clap::Command) -> Result<Report, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "meshctl", &mut script);
    Ok(Report { text: String::from_utf8_lossy(&script).into_owned(), ..Report::default() })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, ValueEnum as _};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_shell_has_a_script_with_our_commands() {
        for shell in Shell::value_variants() {
            let script = run(&CompletionArgs { shell: *shell }, Cli::command()).unwrap().text;
            assert!(script.contains("proxy-status"), "{shell}");
        }
    }
}
