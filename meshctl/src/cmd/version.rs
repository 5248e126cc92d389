//! `meshctl version`: which build this is, and which builds run.

use mesh_api_rt::build_info;
use serde_json::json;

use crate::error::CliError;
use crate::printer::Report;
use crate::table::Table;

/// Reports the client's version.
///
/// # Errors
/// None at present; all commands have the same form.
pub fn run() -> Result<Report, CliError> {
    let info = build_info!("meshctl");
    let mut table = Table { padding: 1, ..Table::new(&["", ""]) };
    table.row(["client version:".to_owned(), format!("{} ({}, {})", info.version, info.revision, info.profile)]);
    Ok(Report { table, data: json!({ "clientVersion": info }), ..Report::default() })
}
