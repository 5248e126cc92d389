//! The reference page of meshctl, made from its definitions: `cargo xtask docs` writes it, `cargo test -p meshctl`
//! compares.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::cli::Cli;

const HEAD: &str = "<!-- Generated from meshctl; do not edit: `cargo xtask docs` writes it anew. -->";

/// Arguments that every command has are told once.
fn arguments<'a>(page: &mut String, arguments: impl Iterator<Item = &'a clap::Arg>) {
    page.push_str("\n| Argument | Default | Meaning |\n|---|---|---|\n");
    for arg in arguments.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
        let long = arg.get_long().map(|long| format!("`--{long}`"));
        let short = arg.get_short().map(|short| format!("`-{short}`"));
        let env = arg.get_env().map(|env| format!("`{}`", env.to_string_lossy()));
        let mut names: Vec<String> = long.into_iter().chain(short).chain(env).collect();
        if arg.is_positional() {
            names.push(format!("`{}`", arg.get_id().as_str().to_uppercase()));
        }
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let help = arg.get_help().map(|help| help.to_string().replace('|', "\\|")).unwrap_or_default();
        let _ = writeln!(page, "| {} | {} | {help} |", names.join(", "), default.join(", "));
    }
}

fn command(page: &mut String, name: &str, command: &clap::Command) {
    let mut inner = command.get_subcommands().filter(|inner| inner.get_name() != "help").peekable();
    if inner.peek().is_some() {
        inner.for_each(|inner| self::command(page, &format!("{name} {}", inner.get_name()), inner));
        return;
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let aliases: Vec<String> = command.get_all_aliases().map(|alias| format!("`{alias}`")).collect();
    let aliases = if aliases.is_empty() { String::new() } else { format!(" Also {}.", aliases.join(", ")) };
    let _ = write!(page, "\n## {name}\n\n{about}.{aliases}\n");
    arguments(page, command.get_arguments().filter(|arg| !arg.is_global_set()));
    if let Some(after) = command.get_after_help() {
        let _ = write!(page, "\n```\n{after}\n```\n");
    }
}

#[test]
fn golden_page_of_meshctl() {
    let mut page = format!(
        "# meshctl\n\n{HEAD}\n\nThe operator's tool: its commands and their arguments. Data goes to the standard output, \
         everything else to the standard error. Exit codes: 0 all is well, 1 something was found or asked for that cannot \
         be, 2 something does not work that should, 130 interrupted.\n"
    );
    let mut cli = Cli::command();
    cli.build();
    page.push_str("\n## Flags of every command\n");
    arguments(&mut page, cli.get_arguments().filter(|arg| arg.is_global_set()));
    command(&mut page, "meshctl", &cli);
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../docs/reference/cli.md"].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/reference/cli.md is not up to date; run `cargo xtask docs`");
}
