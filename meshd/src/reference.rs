//! The reference page of meshd, made from its tables: `cargo xtask docs` writes it, `cargo test -p meshd` compares.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;
use mesh_api_rt::metrics::{Declaration, MetricSet as _};

use crate::args::Cli;
use crate::metrics::{
    CaMetrics, ControllerMetrics, InfoMetrics, PushMetrics, ReviewMetrics, ServerMetrics, WatchMetrics, WebhookMetrics,
};

const HEAD: &str = "<!-- Generated from meshd; do not edit: `cargo xtask docs` writes it anew. -->";

fn flags(page: &mut String) {
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(page, "\n## meshd {}\n\n{about}.\n\n", command.get_name());
        page.push_str("| Flag | Also | Default | Meaning |\n|---|---|---|---|\n");
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            let aliases = arg.get_all_aliases().unwrap_or_default().into_iter().map(|alias| format!("`--{alias}`"));
            let short = arg.get_short().map(|short| format!("`-{short}`"));
            let env = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
            let also: Vec<String> = short.into_iter().chain(aliases).chain(env).collect();
            let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(page, "| `--{long}` | {} | {} | {help} |", also.join(", "), default.join(", "));
        }
    }
}

fn metrics(page: &mut String) {
    page.push_str("\n## Metrics\n\nOn `/metrics` of the monitoring port, beside those of the process (`process_…`).\n");
    let sets: [(&str, &[Declaration]); 8] = [
        ("Pushing", PushMetrics::DECLARATIONS),
        ("Connections", ServerMetrics::DECLARATIONS),
        ("Certificates", CaMetrics::DECLARATIONS),
        ("Service account tokens", ReviewMetrics::DECLARATIONS),
        ("Reading the cluster", WatchMetrics::DECLARATIONS),
        ("Webhooks", WebhookMetrics::DECLARATIONS),
        ("Writing to the cluster", ControllerMetrics::DECLARATIONS),
        ("Build", InfoMetrics::DECLARATIONS),
    ];
    for (title, declarations) in sets {
        let _ = write!(page, "\n### {title}\n\n| Name | Kind | Meaning |\n|---|---|---|\n");
        for declaration in declarations {
            let kind = declaration.kind.as_str();
            let _ = writeln!(page, "| `{}` | {kind} | {} |", declaration.name, declaration.help());
        }
    }
}

#[test]
fn golden_page_of_meshd() {
    let mut page =
        format!("# meshd\n\n{HEAD}\n\nThe control plane: its flags, the variables that count, its metrics.\n");
    flags(&mut page);
    metrics(&mut page);
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../docs/reference/meshd.md"].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/reference/meshd.md is not up to date; run `cargo xtask docs`");
}
