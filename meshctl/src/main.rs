//! The operator's command line.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use meshctl::cli::{Cli, Command};
use meshctl::cmd;
use meshctl::context::Context;
use meshctl::error::CliError;
use meshctl::exit::Exit;
use meshctl::printer::{Printer, Report};

fn main() -> ExitCode {
    // First of all: a sandbox's helper must still have a single thread.
    if let Some(code) = meshctl::netns::helper_main() {
        return code;
    }
    if let Some(code) = meshctl::demo::host::guard_main() {
        return code;
    }
    if let Some(code) = meshctl::demo::probe::probe_main() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions come as errors too, and go to the standard output.
            let _ = error.print();
            return if error.use_stderr() { Exit::User } else { Exit::Ok }.into();
        }
    };
    let context = Context { printer: Printer { format: cli.command.format() }, kube: cli.kube };
    let done = run(&context, cli.command).and_then(|report| {
        context.printer.report(&report)?;
        Ok(report.exit)
    });
    match done {
        Ok(exit) => exit,
        Err(error) => {
            context.printer.note(&error.to_string());
            error.exit
        }
    }
    .into()
}

fn run(context: &Context, command: Command) -> Result<Report, CliError> {
    match command {
        Command::Version(args) => cmd::version::run(context, &args),
        Command::Validate(args) => cmd::validate::run(context, &args),
        Command::Analyze(args) => cmd::analyze::run(context, &args),
        Command::Describe(args) => cmd::describe::run(context, &args),
        Command::Wait(args) => cmd::wait::run(context, &args),
        Command::Admin(args) => cmd::admin::run(context, &args),
        Command::Dashboard(args) => cmd::dashboard::run(context, &args),
        Command::BugReport(args) => cmd::bug_report::run(context, &args),
        Command::Precheck(args) => cmd::precheck::run(context, &args),
        Command::Migrate(args) => cmd::migrate::run(context, &args),
        Command::CreateRemoteSecret(args) => cmd::remote_secret::run(context, &args),
        Command::Completion(args) => cmd::completion::run(&args, Cli::command()),
        Command::Experimental(args) => cmd::experimental::run(context, &args),
        Command::ZtunnelConfig(args) => cmd::ztunnel_config::run(&args),
        Command::Inject(args) => cmd::inject::run(context, &args),
        Command::CheckInject(args) => cmd::check_inject::run(context, &args),
        Command::Install(args) => cmd::install::run(context, &args),
        Command::Upgrade(args) => cmd::upgrade::run(context, &args),
        Command::Uninstall(args) => cmd::uninstall::run(context, &args),
        Command::VerifyInstall(args) => cmd::verify_install::run(context, &args),
        Command::Tag(args) => cmd::tag::run(context, &args),
        Command::Revision(args) => cmd::revision::run(context, &args),
        Command::Manifest(args) => cmd::manifest::run(context, &args),
        Command::Profile(args) => cmd::profile::run(context, &args),
        Command::ProxyStatus(args) => cmd::proxy_status::run(context, &args),
        Command::ProxyConfig(args) => cmd::proxy_config::run(context, &args),
        Command::Workload(args) => cmd::workload::run(&args),
        Command::Demo(args) => meshctl::demo::run::run(context, &args),
    }
}
