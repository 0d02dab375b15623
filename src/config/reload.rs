//! Reading a configuration again while its link runs, and what of it may change meanwhile.

use std::path::PathBuf;
use std::time::Duration;

use super::environment::Environment;
use super::typed::{Flags, Settings};
use super::{Config, LogLevel};
use crate::error::{Error, Result};

/// Keys that a running link takes over.
pub const ADJUSTABLE: [&str; 4] = [
    "conflicts.clock_skew_warn",
    "conflicts.retention",
    "apply.operations_per_second_max",
    "log.level",
];

/// Keys that an existing link never changes.
const NEVER: [&str; 5] = [
    "link.name",
    "link.mode",
    "link.database",
    "conflicts.tie",
    "renames",
];

/// The values of [`ADJUSTABLE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustable {
    pub clock_skew_warn: Duration,
    pub retention: Duration,
    /// Of each pipeline. None: no limit.
    pub operations_per_second_max: Option<u64>,
    pub log_level: LogLevel,
}

/// Where a configuration comes from.
#[derive(Clone)]
pub(super) struct Origin {
    /// None: it was not read from a file.
    pub file: Option<PathBuf>,
    pub environment: Environment,
    pub flags: Flags,
    pub settings: Settings,
}

/// It holds connection strings.
impl std::fmt::Debug for Origin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Origin({:?})", self.file)
    }
}

/// A configuration that was read again beside the one that is in effect.
#[derive(Debug)]
pub struct Reread {
    pub newer: Config,
    /// Keys with other values, that a running link takes.
    pub taken: Vec<&'static str>,
    /// Those that it does not, each with the reason.
    pub refused: Vec<(&'static str, &'static str)>,
}

impl Config {
    /// What may change while the link runs.
    pub fn adjustable(&self) -> Adjustable {
        Adjustable {
            clock_skew_warn: self.conflicts.clock_skew_warn,
            retention: self.conflicts.retention,
            operations_per_second_max: self.apply.operations_per_second_max,
            log_level: self.log_level,
        }
    }

    /// Reads the file again, with the environment and the flags of this process over it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read_again(&self) -> Result<Reread> {
        let origin = &self.origin;
        let Some(file) = &origin.file else {
            return Err(Error::config("this configuration was not read from a file"));
        };
        let newer = Config::load(file, &origin.environment, &origin.flags)?;
        let changed = origin.settings.differing(&newer.origin.settings);
        let (taken, others): (Vec<_>, Vec<_>) = changed
            .into_iter()
            .partition(|key| ADJUSTABLE.contains(key));
        let refused = others.into_iter().map(|key| (key, reason(key)));
        Ok(Reread {
            taken,
            refused: refused.collect(),
            newer,
        })
    }

    /// This configuration with the values of `newer` for the keys that were taken.
    pub fn with(&self, reread: &Reread) -> Config {
        let newer = &reread.newer;
        let mut config = self.adjusted_as(newer);
        let mut origin = (*self.origin).clone();
        origin.settings.take(&newer.origin.settings, &reread.taken);
        config.origin = origin.into();
        config
    }

    /// This configuration with what may change as it is in `newer`.
    pub fn adjusted_as(&self, newer: &Config) -> Config {
        let mut config = self.clone();
        config.conflicts.clock_skew_warn = newer.conflicts.clock_skew_warn;
        config.conflicts.retention = newer.conflicts.retention;
        config.apply.operations_per_second_max = newer.apply.operations_per_second_max;
        config.log_level = newer.log_level;
        config.origin = newer.origin.clone();
        config
    }
}

fn reason(key: &str) -> &'static str {
    if NEVER.contains(&key) {
        "it cannot be changed later"
    } else if key.starts_with("clusters.") {
        "a link belongs to its clusters: it is looked at by the next start"
    } else if key.starts_with("namespaces.") || key == "filters" {
        "what is replicated is compared with what was before by the next start"
    } else {
        "it takes effect at the next start"
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn written(dir: &Path, more: &str) -> PathBuf {
        let file = dir.join("tandem.toml");
        let text = format!(
            "[clusters.a]\nuri = \"mongodb://one/\"\n[clusters.b]\nuri = \"mongodb://two/\"\n\
             [namespaces]\ninclude = [\"shop.*\"]\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn what_may_change_is_taken_and_the_rest_is_refused_until_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path(), "");
        let load = |file: &Path| Config::load(file, &Environment::default(), &Flags::default());
        let config = load(&file).unwrap();
        let lanes = config.apply.lanes;
        written(
            dir.path(),
            "[apply]\nlanes = 2\noperations_per_second_max = 9\n[conflicts]\ntie = \"b\"\n",
        );
        let reread = config.read_again().unwrap();
        assert_eq!(reread.taken, ["apply.operations_per_second_max"]);
        let refused: Vec<_> = reread.refused.iter().map(|(key, _)| *key).collect();
        assert_eq!(refused, ["conflicts.tie", "apply.lanes"]);
        let config = config.with(&reread);
        assert_eq!(config.adjustable().operations_per_second_max, Some(9));
        assert_eq!(config.apply.lanes, lanes);
        let again = config.read_again().unwrap();
        assert_eq!((again.taken.len(), again.refused.len()), (0, 2));
        written(dir.path(), "[apply]\noperations_per_second_max = 9\n");
        assert!(config.read_again().unwrap().refused.is_empty());
    }

    #[test]
    fn a_file_with_problems_is_refused_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path(), "");
        let config = Config::load(&file, &Environment::default(), &Flags::default()).unwrap();
        written(
            dir.path(),
            "[apply]\noperations_per_second_max = 9\nlane = 1\n",
        );
        let error = config.read_again().expect_err("a problem");
        assert!(
            error.to_string().contains("did you mean apply.lanes"),
            "{error}"
        );
    }
}
