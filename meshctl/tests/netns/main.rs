//! Sandboxes without root, with real processes in them.
//!
//! This program plays every part: the test, the sandbox's helper, and the programs that run inside. The standard
//! harness would not let it, so it has a small one of its own that runs each case in a fresh child and takes the
//! arguments that cargo and nextest use.
#![expect(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "tests, without the standard harness")]

mod cases;
mod parts;

use std::process::{Command, ExitCode};

/// A case and its name.
type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("user_namespaces_are_available", cases::user_namespaces_are_available),
    ("workloads_talk_over_the_bridge", cases::workloads_talk_over_the_bridge),
    ("capture_rules_stay_in_their_workload", cases::capture_rules_stay_in_their_workload),
    ("sockets_handed_in_are_reached_from_outside", cases::sockets_handed_in_are_reached_from_outside),
    ("files_are_shown_inside_only", cases::files_are_shown_inside_only),
    ("processes_end_as_told_and_are_reported", cases::processes_end_as_told_and_are_reported),
    ("what_a_process_leaves_in_its_group_ends_with_it", cases::what_a_process_leaves_in_its_group_ends_with_it),
    ("dropping_the_sandbox_ends_even_who_hides", cases::dropping_the_sandbox_ends_even_who_hides),
    ("nothing_outlives_a_killed_parent", cases::nothing_outlives_a_killed_parent),
    ("errors_name_what_was_asked", cases::errors_name_what_was_asked),
];

/// First argument of a child that runs one case.
const RUN_CASE: &str = "--run-case";

fn main() -> ExitCode {
    if let Some(code) = meshctl::netns::helper_main() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [RUN_CASE, name] => {
            let (_, case) = CASES.iter().find(|(known, _)| known == name).expect("a known case");
            case();
            ExitCode::SUCCESS
        }
        [parts::PART, part, args @ ..] => parts::play(part, args),
        args => run_all(args),
    }
}

fn run_all(args: &[&str]) -> ExitCode {
    let exact = args.contains(&"--exact");
    let filters: Vec<&str> = args.iter().copied().filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |name: &str| {
        let fits = |filter: &&str| if exact { name == *filter } else { name.contains(*filter) };
        filters.is_empty() || filters.iter().any(fits)
    };
    // None of these cases is ever ignored.
    let cases = CASES.iter().map(|(name, _)| *name).filter(|name| !args.contains(&"--ignored") && chosen(name));
    if args.contains(&"--list") {
        cases.for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for name in cases {
        let child = Command::new("/proc/self/exe").args([RUN_CASE, name]).output().expect("start the case");
        if child.status.success() {
            println!("test {name} ... ok");
        } else {
            failed += 1;
            println!("test {name} ... FAILED ({})", child.status);
            print!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        }
    }
    println!("\ntest result: {}. {failed} failed\n", if failed == 0 { "ok" } else { "FAILED" });
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
