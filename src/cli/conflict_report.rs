//! `tandem conflict-report`: the writes that lost, with their whole content.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::moment::Moment;
use super::{Common, output};
use crate::change::{ConflictKind, RecordStatus};
use crate::config::{Config, suggestion};
use crate::error::{ExitCode, Result};
use crate::link::reporting::{self, Asked};
use crate::report::{Detail, Format};
use crate::store::{Direction, Page, RecordFilter, SortBy};

/// List the writes that lost a conflict, with their whole content
#[derive(Debug, Args)]
#[command(
    after_help = "One filter given twice means either; different filters must all match.\n\n\
                  Examples:\n  \
                  tandem conflict-report --since 24h --namespace 'shop.*' --format csv\n  \
                  tandem conflict-report --summary --status logged --kind update_deleted\n  \
                  tandem conflict-report --key 'order-7*' --sort size --reverse --limit 20\n  \
                  tandem conflict-report --since 720h --format html > conflicts.html\n  \
                  tandem conflict-report --fail-if-any --winner b"
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
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    pub kind: Vec<ConflictKind>,
    /// Won by this cluster: its name, a or b
    #[arg(long, value_name = "CLUSTER")]
    pub winner: Vec<String>,
    /// In this state
    #[arg(long, value_name = "STATUS", value_parser = statuses())]
    pub status: Vec<RecordStatus>,
    /// Of this document: its _id (in a text, * stands for any), or its key as extended JSON
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// The record with this id
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// In this order [default: logged-at, in HTML the newest first]
    #[arg(long, value_name = "FIELD")]
    pub sort: Option<SortArg>,
    /// In the opposite order
    #[arg(long)]
    pub reverse: bool,
    /// At most so many records; in HTML so many are told in full [default there: 1000]
    #[arg(long, value_name = "N", conflicts_with = "summary")]
    pub limit: Option<u64>,
    /// Without the first N
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        conflicts_with = "summary"
    )]
    pub offset: u64,
    /// Counts instead of records
    #[arg(long)]
    pub summary: bool,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: ReportFormat,
    /// Exit with 6 where a record matches that is not overturned, listed or not
    #[arg(long)]
    pub fail_if_any: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Table,
    Json,
    Ndjson,
    Csv,
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortArg {
    LoggedAt,
    LostAt,
    Namespace,
    Kind,
    Winner,
    Status,
    Size,
}

impl From<SortArg> for SortBy {
    fn from(sort: SortArg) -> SortBy {
        match sort {
            SortArg::LoggedAt => SortBy::LoggedAt,
            SortArg::LostAt => SortBy::LostAt,
            SortArg::Namespace => SortBy::Namespace,
            SortArg::Kind => SortBy::Kind,
            SortArg::Winner => SortBy::Winner,
            SortArg::Status => SortBy::Status,
            SortArg::Size => SortBy::Size,
        }
    }
}

/// A shell completes them, and help lists them.
fn kinds() -> impl TypedValueParser<Value = ConflictKind> {
    let names = ConflictKind::ALL.map(ConflictKind::as_str);
    PossibleValuesParser::new(names)
        .try_map(|typed| ConflictKind::parse(&typed).ok_or("not a kind"))
}

fn statuses() -> impl TypedValueParser<Value = RecordStatus> {
    let names = RecordStatus::ALL.map(RecordStatus::as_str);
    PossibleValuesParser::new(names)
        .try_map(|typed| RecordStatus::parse(&typed).ok_or("not a status"))
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
            statuses: self.status.clone(),
            keys: self.key.clone(),
            ids: self.id.clone(),
            ..RecordFilter::default()
        }
    }

    /// The filters, for a report that is kept: with the times that `24h` stood for.
    fn typed(&self, filter: &RecordFilter) -> Vec<String> {
        let time = |name: &str, at: Option<bson::DateTime>| {
            at.map(|at| format!("{name} {}", crate::change::rfc3339(at)))
        };
        let mut typed: Vec<String> = [time("since", filter.since), time("until", filter.until)]
            .into_iter()
            .flatten()
            .collect();
        let kinds: Vec<_> = self
            .kind
            .iter()
            .map(|kind| kind.as_str().to_owned())
            .collect();
        let statuses: Vec<_> = self
            .status
            .iter()
            .map(|status| status.as_str().to_owned())
            .collect();
        for (name, values) in [
            ("namespace", &self.namespace),
            ("kind", &kinds),
            ("winner", &self.winner),
            ("status", &statuses),
            ("key", &self.key),
            ("id", &self.id),
        ] {
            if !values.is_empty() {
                typed.push(format!("{name} {}", values.join(" or ")));
            }
        }
        typed
    }

    fn page(&self) -> Page {
        // A page is read from its top, and tells only some of many in full.
        let newest_first = self.format == ReportFormat::Html && self.sort.is_none();
        Page {
            sort: self.sort.map_or_else(SortBy::default, SortBy::from),
            direction: match self.reverse != newest_first {
                true => Direction::Descending,
                false => Direction::Ascending,
            },
            offset: self.offset,
            limit: self.limit,
        }
    }
}

/// # Errors
/// A config error (3), more records than can be sorted (2), or a store that cannot be read (7).
pub async fn run(common: &Common, args: &ConflictReportArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let format = match args.format {
        ReportFormat::Table => Format::Table,
        ReportFormat::Json => Format::Json,
        ReportFormat::Ndjson => Format::Ndjson,
        ReportFormat::Csv => Format::Csv,
        ReportFormat::Html => Format::Html,
    };
    let detail = if args.summary {
        Detail::Summary
    } else {
        Detail::Records
    };
    let mut asked = Asked::of(&config);
    asked.filter = args.filter(jiff::Timestamp::now());
    asked.page = args.page();
    asked.typed = args.typed(&asked.filter);
    let found = reporting::conflict_report(&asked, format, detail, output::results()).await?;
    if found.total == 0 {
        hint_at_names(&config, args).await?;
    }
    if args.fail_if_any && any_standing(&mut asked).await? {
        return Ok(ExitCode::Found);
    }
    Ok(ExitCode::Done)
}

/// Whether a record matches that is not overturned, on whichever page.
async fn any_standing(asked: &mut Asked<'_>) -> Result<bool> {
    let standing = |status: &RecordStatus| *status != RecordStatus::Overturned;
    let filter = &mut asked.filter;
    if filter.statuses.is_empty() {
        filter.statuses = RecordStatus::ALL.to_vec();
    }
    filter.statuses.retain(standing);
    if filter.statuses.is_empty() {
        return Ok(false);
    }
    asked.page = Page {
        limit: Some(1),
        ..Page::default()
    };
    let out = std::io::sink();
    let found = reporting::conflict_report(asked, Format::Ndjson, Detail::Records, out).await?;
    Ok(found.standing > 0)
}

/// Nothing was found: names that are on no record may be mistyped.
async fn hint_at_names(config: &Config, args: &ConflictReportArgs) -> Result<()> {
    let names = [&config.clusters.a.name, &config.clusters.b.name];
    let known = || names.into_iter().map(String::as_str).chain(["a", "b"]);
    for winner in &args.winner {
        if !known().any(|name| name == winner) {
            let near = suggestion(winner, known());
            output::hint(&format!("no cluster is called {winner}{near}"));
        }
    }
    if args.namespace.is_empty() {
        return Ok(());
    }
    let on_record = reporting::namespaces(&Asked::of(config)).await?;
    for pattern in &args.namespace {
        let matches = |name: &String| crate::change::wildcard_matches(pattern, name);
        if !on_record.iter().any(matches) {
            let near = suggestion(pattern, on_record.iter().map(String::as_str));
            output::hint(&format!("no record is about {pattern}{near}"));
        }
    }
    Ok(())
}
