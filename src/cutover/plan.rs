//! What a cutover is going to do, in words, before it does it.

use super::{Comparing, CutoverOptions, Stopping, UnderWay};
use crate::change::Pair;
use crate::config::{Config, Mode};
use crate::error::{Error, Result};
use crate::link::both_clusters::with_both;
use crate::link::check::missing_privileges;
use crate::link::own::Own;
use crate::link::{Standing, Turn};

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub shown: String,
    /// It was decided before: nothing is left to ask.
    pub decided: bool,
}

/// Looks at both clusters and writes nothing.
///
/// # Errors
/// A link that has ended (3); an account that may not write where a turned link would (4).
pub async fn plan(config: &Config, options: &CutoverOptions) -> Result<Plan> {
    with_both(config, async |clusters| {
        let own = clusters
            .as_ref()
            .map(|cluster| Own::new(cluster, &config.link.database));
        let link = &config.link.name;
        let standing = Standing::read(&own, link).await?;
        let under_way = UnderWay::find(&own, link).await?;
        if let Some(found) = under_way.filter(|found| found.decided) {
            return Ok(Plan {
                shown: finishing(config, &standing, found),
                decided: true,
            });
        }
        standing.must_go_on(config, false)?;
        if !config.filters.is_empty() {
            let filtered = "filters: the other cluster does not hold everything, so the \
                            applications cannot move there";
            return Err(Error::config(filtered));
        }
        if options.reverse {
            let turned = Standing {
                source: standing.source.other(),
                ..standing.clone()
            };
            let to = &clusters[standing.source];
            let missing = missing_privileges(&turned.in_force(config), to).await?;
            if !missing.is_empty() {
                let name = &to.name;
                let missing = missing.join(", ");
                return Err(Error::cluster(format!(
                    "the account on {name} could not write there once the link is turned round: \
                     missing: {missing}"
                ))
                .hint("grant it the roles that the target needs"));
            }
        }
        Ok(Plan {
            shown: planned(config, options, &standing, under_way.is_some()),
            decided: false,
        })
    })
    .await
}

fn names(config: &Config) -> Pair<&str> {
    config
        .clusters
        .as_ref()
        .map(|cluster| cluster.name.as_str())
}

fn finishing(config: &Config, standing: &Standing, under_way: UnderWay) -> String {
    let (link, names) = (&config.link.name, names(config));
    let (from, to) = (names[under_way.source], names[under_way.source.other()]);
    let what = match standing.turn {
        Turn::Ended => "the link ends".to_owned(),
        Turn::Open | Turn::Turning => format!("{from} follows {to}"),
    };
    format!("cutover of link {link} from {from} to {to} is decided and will be finished: {what}\n")
}

fn planned(config: &Config, options: &CutoverOptions, standing: &Standing, again: bool) -> String {
    let (link, names) = (&config.link.name, names(config));
    let (from, to) = (names[standing.source], names[standing.source.other()]);
    let mut steps = Vec::new();
    if config.link.mode == Mode::TwoWay {
        steps.push(format!(
            "the applications on {to} must have stopped: what they wrote is brought to {from}"
        ));
    }
    steps.push(match options.stopping {
        Stopping::Server => format!("{from} refuses writes from here on"),
        Stopping::Operator => format!("the applications on {from} must have stopped"),
    });
    steps.push(format!("what is left is brought to {to}"));
    steps.push(match options.comparing {
        Comparing::All => {
            "both clusters are compared; if they differ, all is taken back".to_owned()
        }
        Comparing::Nothing => "nothing is compared".to_owned(),
    });
    steps.push(match options.reverse {
        true => format!("{from} takes writes again and follows {to}, where the applications go"),
        false => {
            format!("the link ends, {from} goes on refusing writes; the applications go to {to}")
        }
    });
    let mut shown = format!("cutover of link {link} from {from} to {to}");
    shown += if again { ", taken up again\n" } else { "\n" };
    for (number, step) in (1..).zip(steps) {
        shown += &format!("  {number}. {step}\n");
    }
    shown
}
