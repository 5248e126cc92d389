//! Capture rules at work: every case runs in a user and a network namespace of its own, with real rules and real
//! connections.
//!
//! A process with several threads may not enter a user namespace, and the standard harness has several, so this one
//! runs each case in a fresh child of itself. It takes the standard harness's arguments as far as cargo and nextest
//! use them.

#![expect(clippy::unwrap_used, clippy::print_stdout, unreachable_pub, reason = "tests, without the standard harness")]

mod capture;
mod dns;
mod inherit;
mod world;

use std::process::{Command, ExitCode};

/// A case and its name.
type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("capture::outgoing_connections_reach_the_proxy", capture::outgoing_connections_reach_the_proxy),
    ("capture::outgoing_ipv6_connections_reach_the_proxy", capture::outgoing_ipv6_connections_reach_the_proxy),
    ("capture::incoming_connections_reach_the_proxy", capture::incoming_connections_reach_the_proxy),
    ("capture::marked_connections_are_left_alone", capture::marked_connections_are_left_alone),
    ("capture::connections_of_the_proxys_user_are_left_alone", capture::connections_of_the_proxys_user_are_left_alone),
    (
        "capture::the_proxy_reaches_its_workload_as_a_client_would",
        capture::the_proxy_reaches_its_workload_as_a_client_would,
    ),
    ("capture::excluded_destinations_are_left_alone", capture::excluded_destinations_are_left_alone),
    ("capture::rules_are_replaced_and_removed", capture::rules_are_replaced_and_removed),
    ("capture::a_process_without_the_capability_is_told", capture::a_process_without_the_capability_is_told),
    ("capture::as_many_entries_as_may_be_fit_into_a_batch", capture::as_many_entries_as_may_be_fit_into_a_batch),
    ("capture::look_ups_of_the_workload_reach_the_proxy", capture::look_ups_of_the_workload_reach_the_proxy),
    ("capture::groups_choose_whose_connections_are_captured", capture::groups_choose_whose_connections_are_captured),
    (
        "capture::the_pass_through_address_of_ipv6_comes_and_goes_with_the_rules",
        capture::the_pass_through_address_of_ipv6_comes_and_goes_with_the_rules,
    ),
    (
        "capture::rules_of_another_namespace_are_written_from_here",
        capture::rules_of_another_namespace_are_written_from_here,
    ),
    ("capture::tproxy_keeps_the_clients_address", capture::tproxy_keeps_the_clients_address),
    ("capture::capture_is_validated_by_a_connection", capture::capture_is_validated_by_a_connection),
    (
        "dns::names_of_the_mesh_are_answered_and_others_passed_on",
        dns::names_of_the_mesh_are_answered_and_others_passed_on,
    ),
    ("inherit::a_handed_in_socket_is_served", inherit::a_handed_in_socket_is_served),
];

/// First argument of a child that runs one case.
const RUN_CASE: &str = "--run-case";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [RUN_CASE, name] => {
            let (_, case) = CASES.iter().find(|(known, _)| known == name).expect("a known case");
            world::enter();
            case();
            ExitCode::SUCCESS
        }
        [inherit::SERVE] => inherit::serve(),
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
