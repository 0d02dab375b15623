//! `tandem conflict-report`: the writes that lost, with their whole content.

use clap::{Args, ValueEnum};

use super::Common;
use super::moment::Moment;
use crate::change::ConflictKind;
use crate::error::{Error, ExitCode, Result};

/// List the writes that lost a conflict, with their whole content
#[derive(Debug, Args)]
#[command(
    after_help = "One filter given twice means either; different filters must all match.\n\n\
                  Example:\n  tandem conflict-report --since 24h --namespace 'shop.*' --format csv"
)]
pub struct ConflictReportArgs {
    /// From this moment on: a time such as 2025-01-31T12:00:00Z, or 24h
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    pub since: Option<Moment>,
    /// Before this moment
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    pub until: Option<Moment>,
    /// Of this namespace; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    pub namespace: Vec<String>,
    /// Of this kind
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub kind: Vec<ConflictKind>,
    /// Won by this cluster: its name, a or b
    #[arg(long, value_name = "CLUSTER")]
    pub winner: Vec<String>,
    /// The record with this id
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// Counts instead of records
    #[arg(long)]
    pub summary: bool,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: ReportFormat,
    /// Exit with 6 where a record matches that is not overturned
    #[arg(long)]
    pub fail_if_any: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Table,
    Json,
    Ndjson,
    Csv,
}

fn kind(typed: &str) -> std::result::Result<ConflictKind, String> {
    ConflictKind::parse(typed).ok_or_else(|| {
        let known = ConflictKind::ALL.map(ConflictKind::as_str).join(", ");
        format!("one of {known}")
    })
}

/// # Errors
/// A config error (3), or a store that cannot be read (7).
pub async fn run(common: &Common, _: &ConflictReportArgs) -> Result<ExitCode> {
    let _ = common.load_config()?;
    Err(Error::bug("tandem conflict-report is not wired up"))
}
