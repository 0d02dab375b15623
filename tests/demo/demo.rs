//! The demo: two replica sets, a real data set, races on purpose, and the proof at the end.

mod cities;
mod link;
mod migration;
mod narrate;
mod proof;
mod races;
mod stage;
mod writers;

// Of these the demo needs only a part.
#[allow(dead_code)]
#[path = "../suite/support/mongod.rs"]
mod mongod;
#[allow(dead_code)]
#[path = "../suite/support/processes.rs"]
mod processes;
#[allow(dead_code)]
#[path = "../suite/support/proxy.rs"]
mod proxy;
#[allow(dead_code)]
#[path = "../suite/support/random.rs"]
mod random;
#[allow(dead_code)]
#[path = "../suite/support/wait.rs"]
mod wait;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use narrate::Narrator;
use stage::Stage;
use tokio::signal::unix::{SignalKind, signal};

/// Anything that goes wrong ends the demo.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How often something awaited is looked at.
const POLL: Duration = Duration::from_millis(50);

/// What the script hands over.
struct Arguments {
    tandem: PathBuf,
    cities: PathBuf,
    /// Everything is written here.
    dir: PathBuf,
}

fn arguments() -> Option<Arguments> {
    let mut given = std::env::args_os().skip(1).map(PathBuf::from);
    let (tandem, cities, dir) = (given.next()?, given.next()?, given.next()?);
    // The commands run in a directory of their own.
    Some(Arguments {
        tandem: std::path::absolute(tandem).ok()?,
        cities,
        dir,
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: scripts/demo");
        return ExitCode::from(2);
    };
    let mut narrator = Narrator::new();
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a signal handler");
    // Whichever way it ends, the stage is dropped, and servers and directories go with it.
    let outcome = tokio::select! {
        outcome = play(&arguments, &mut narrator) => outcome,
        _ = terminate.recv() => Err("interrupted".into()),
        _ = interrupt.recv() => Err("interrupted".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            narrator.end_live("");
            narrator.bad(&format!("The demo failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn play(arguments: &Arguments, narrator: &mut Narrator) -> Outcome<()> {
    narrator.title("tandem keeps two MongoDB clusters in step, both ways at once.");
    narrator.say("Two replica sets, eu and us. Applications write to both. One process between");
    narrator
        .say("them carries every write across and settles every race, with the loser on record.");
    let mut stage = Stage::set_up(arguments, narrator).await?;
    cities::load(&mut stage, narrator, &arguments.cities).await?;
    writers::both_sides_write(&stage, narrator).await?;
    races::provoke(&mut stage, narrator).await?;
    proof::both_sides_are_equal(&stage, narrator).await?;
    let eu = stage.strike(narrator).await?;
    migration::move_to_new(arguments, narrator, &eu).await?;
    drop(eu);
    let seconds = narrator.elapsed().as_secs();
    narrator.good(&format!(
        "Done in {}:{:02}. The servers are gone, and their data too.",
        seconds / 60,
        seconds % 60
    ));
    Ok(())
}
