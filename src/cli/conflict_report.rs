//! `tandem conflict-report`: the writes that lost, with their whole content.

use clap::{Args, ValueEnum};

use super::moment::Moment;
use super::{Common, output};
use crate::change::ConflictKind;
use crate::error::{ExitCode, Result};
use crate::link::reporting;
use crate::report::{Detail, Format};
use crate::store::RecordFilter;

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

impl ConflictReportArgs {
    fn filter(&self, now: jiff::Timestamp) -> RecordFilter {
        let time = |moment: Option<Moment>| {
            moment.map(|moment| bson::DateTime::from_millis(moment.before(now).as_millisecond()))
        };
        RecordFilter {
            since: time(self.since),
            until: time(self.until),
            namespaces: self.namespace.clone(),
            kinds: self.kind.clone(),
            winners: self.winner.clone(),
            ids: self.id.clone(),
            ..RecordFilter::default()
        }
    }
}

/// # Errors
/// A config error (3), or a store that cannot be read (7).
pub async fn run(common: &Common, args: &ConflictReportArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let format = match args.format {
        ReportFormat::Table => Format::Table,
        ReportFormat::Json => Format::Json,
        ReportFormat::Ndjson => Format::Ndjson,
        ReportFormat::Csv => Format::Csv,
    };
    let detail = if args.summary {
        Detail::Summary
    } else {
        Detail::Records
    };
    let found = reporting::conflict_report(
        &config.link.state_dir,
        &config.link.name,
        &args.filter(jiff::Timestamp::now()),
        format,
        detail,
        output::results(),
    )
    .await?;
    if args.fail_if_any && found.standing > 0 {
        return Ok(ExitCode::Found);
    }
    Ok(ExitCode::Done)
}
