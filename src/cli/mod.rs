//! What is typed on the command line, and the command it starts.

pub mod check;
pub mod completions;
pub mod confirm;
pub mod conflict;
pub mod conflict_report;
pub mod cutover;
pub mod dead_letter;
pub mod init;
pub mod man;
pub mod moment;
pub mod output;
pub mod pause;
pub mod reload;
pub mod reset;
pub mod resync;
pub mod run;
pub mod runs;
pub mod status;
pub mod verify;

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::change::Side;
use crate::config::{Config, Environment, Flags};
use crate::error::{Error, ExitCode, Result};
use crate::telemetry::logs::{self, LogFormat};

/// Keeps two MongoDB clusters in step, both ways at once.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, max_term_width = 100)]
#[command(after_help = "Example:\n  tandem init && tandem check && tandem run")]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// The configuration
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "tandem.toml"
    )]
    pub config: PathBuf,
    /// Where this host keeps the link's state, before link.state_dir
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormatArg,
    /// More log lines; twice: still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormatArg {
    Text,
    Json,
}

/// One of the two clusters, by its side.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SideArg {
    A,
    B,
}

impl From<SideArg> for Side {
    fn from(side: SideArg) -> Side {
        match side {
            SideArg::A => Side::A,
            SideArg::B => Side::B,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::InitArgs),
    Check(check::CheckArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Reload(reload::ReloadArgs),
    Resync(resync::ResyncArgs),
    Verify(verify::VerifyArgs),
    Cutover(cutover::CutoverArgs),
    Runs(runs::RunsArgs),
    ConflictReport(conflict_report::ConflictReportArgs),
    Conflict(conflict::ConflictArgs),
    DeadLetter(dead_letter::DeadLetterArgs),
    Reset(reset::ResetArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

impl Common {
    /// The configuration of the link that a command is about.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_config(&self) -> Result<Config> {
        let flags = Flags {
            state_dir: self.state_dir.clone(),
        };
        let config = Config::load(&self.config, &Environment::of_process(), &flags)?;
        logs::set_level(config.log_level);
        Ok(config)
    }
}

/// What was typed. Ends the process with 2, or with 0 after `--help`, where it cannot be meant.
pub fn parse() -> Cli {
    Cli::parse()
}

/// Runs the command to its end.
///
/// # Errors
/// With the exit code that the process must end in.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let format = match cli.common.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    logs::start(format, cli.common.verbose);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .map_err(|error| Error::bug("cannot start the runtime").caused_by(error))?;
    let outcome = runtime.block_on(dispatch(cli));
    // The process ends next. To take the runtime down first would drop the driver's pools under
    // its own tasks, one of which may panic then.
    std::mem::forget(runtime);
    outcome
}

/// Threads for what tandem does itself: far less than what both servers do meanwhile, perhaps on the
/// same machine. More threads than there is work for wake each other all the time.
fn workers() -> usize {
    const WORKERS_MAX: usize = 4;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    (cores / 2).clamp(1, WORKERS_MAX)
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    let Cli { common, command } = cli;
    match command {
        Command::Init(args) => init::run(&common, &args),
        Command::Check(args) => check::run(&common, &args).await,
        Command::Run(args) => run::run(&common, &args).await,
        Command::Status(args) => status::run(&common, &args).await,
        Command::Pause(args) => pause::pause(&common, &args).await,
        Command::Resume(args) => pause::resume(&common, &args).await,
        Command::Reload(args) => reload::run(&common, &args).await,
        Command::Resync(args) => resync::run(&common, &args).await,
        Command::Verify(args) => verify::run(&common, &args).await,
        Command::Cutover(args) => cutover::run(&common, &args).await,
        Command::Runs(args) => runs::run(&common, &args).await,
        Command::ConflictReport(args) => conflict_report::run(&common, &args).await,
        Command::Conflict(args) => conflict::run(&common, &args).await,
        Command::DeadLetter(args) => dead_letter::run(&common, &args).await,
        Command::Reset(args) => reset::run(&common, &args).await,
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

#[cfg(test)]
mod examples;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_help_of_every_command_has_an_example() {
        fn visit(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string);
            let shown = help.unwrap_or_default();
            assert!(shown.contains("Example"), "{}", command.get_name());
            command.get_subcommands().for_each(visit);
        }
        let command = Cli::command();
        command.clone().debug_assert();
        visit(&command);
    }

    /// The command lines of the units and manifests in docs, as whoever runs them splits them.
    fn documented_commands() -> Vec<Vec<String>> {
        let of_unit = |line: &str| {
            let command = line.strip_prefix("ExecStart=")?;
            Some(command.split(' ').map(str::to_owned).collect())
        };
        let of_manifest = |line: &str| -> Option<Vec<String>> {
            let (name, list) = line.trim().split_once(": ")?;
            let list: Vec<String> = serde_json::from_str(list).ok()?;
            match (name, list.first()?.as_str()) {
                ("args", _) => Some([vec!["tandem".to_owned()], list].concat()),
                ("command", "tandem") if list.len() > 1 => Some(list),
                _ => None,
            }
        };
        let units = [
            include_str!("../../docs/systemd/tandem@.service"),
            include_str!("../../docs/systemd/tandem-sync@.service"),
        ];
        let manifests = [
            include_str!("../../docs/kubernetes/statefulset.yaml"),
            include_str!("../../docs/kubernetes/cronjob.yaml"),
        ];
        let of_units = units
            .iter()
            .flat_map(|text| text.lines().filter_map(of_unit));
        let lines = manifests.iter().flat_map(|text| text.lines());
        of_units.chain(lines.filter_map(of_manifest)).collect()
    }

    #[test]
    fn the_command_lines_in_units_and_manifests_are_understood() {
        let commands = documented_commands();
        assert_eq!(commands.len(), 5, "{commands:?}");
        for command in commands {
            Cli::try_parse_from(&command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        }
    }

    #[test]
    fn what_nobody_can_mean_is_a_usage_error() {
        for typed in [
            "tandem",
            "tandem runn",
            "tandem run --timeout soon",
            "tandem conflict-report --since never",
            "tandem conflict-report --format xml",
            "tandem conflict-report --kind lost",
            "tandem conflict restore",
            "tandem conflict show",
            "tandem conflict-report --status gone",
            "tandem conflict-report --sort color",
            "tandem conflict-report --summary --limit 3",
            "tandem check --log-format loud",
            "tandem verify --readers 0",
            "tandem verify --from a",
            "tandem resync --from c",
            "tandem pause b-to-c",
            "tandem run --window 22:00",
            "tandem run --time-zone UTC",
            "tandem cutover --at noon",
            "tandem cutover --time-zone UTC",
            "tandem cutover --abort --reverse",
        ] {
            let error = Cli::try_parse_from(typed.split(' ')).expect_err(typed);
            assert_eq!(error.exit_code(), 2, "{typed}");
        }
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        for typed in [
            "tandem --config x.toml -vv status --json",
            "tandem status --json --config x.toml -vv",
        ] {
            let cli = Cli::try_parse_from(typed.split(' ')).expect(typed);
            assert_eq!(cli.common.config, PathBuf::from("x.toml"));
            assert_eq!(cli.common.verbose, 2);
        }
    }
}
