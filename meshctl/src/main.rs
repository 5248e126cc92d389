//! The operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: a sandbox's helper must still have a single thread.
    if let Some(code) = meshctl::netns::helper_main() {
        return code;
    }
    ExitCode::SUCCESS
}
