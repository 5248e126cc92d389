//! The only place that writes to the user. Standard output is for data, standard error for everything else.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::error::CliError;
use crate::exit::Exit;
use crate::table::Table;

/// How data is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    #[value(alias = "short", alias = "wide", alias = "log")]
    Table,
    /// JSON, a stable shape.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// What a command has to say.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// For people, above the table: what is no table.
    pub text: String,
    /// For people.
    pub table: Table,
    /// For programs.
    pub data: Value,
    /// For the standard error: what is worth knowing and is no data.
    pub notes: Vec<String>,
    /// How the process ends.
    pub exit: Exit,
}

/// Writes to the standard streams.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// How data is shown.
    pub format: Format,
}

impl Printer {
    /// Shows a report.
    ///
    /// # Errors
    /// When the data cannot be written as asked. A reader that went away is no error.
    pub fn report(self, report: &Report) -> Result<(), CliError> {
        let failed = |error: &dyn std::error::Error| CliError::internal("cannot write the result").because(error);
        let text = match self.format {
            Format::Table => format!("{}{}", report.text, report.table),
            Format::Json => serde_json::to_string_pretty(&report.data).map_err(|error| failed(&error))? + "\n",
            Format::Yaml => serde_yaml_ng::to_string(&report.data).map_err(|error| failed(&error))?,
            Format::Name => report.table.rows.iter().filter_map(|row| Some(row.first()?.clone() + "\n")).collect(),
        };
        out(&text).map_err(|error| failed(&error))?;
        for note in &report.notes {
            self.note(note);
        }
        Ok(())
    }

    /// A line on the standard error.
    pub fn note(self, text: &str) {
        // There is nowhere else to tell that this fails.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Writes data to the standard output as it is.
///
/// # Errors
/// When it cannot be written. A reader that went away is no error.
pub fn out(text: &str) -> io::Result<()> {
    let mut stream = io::stdout().lock();
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Whether a person watches the standard output.
#[must_use]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
