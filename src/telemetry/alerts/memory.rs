//! What has been told already: each alert once, again after a while, and its end.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rules::{Finding, Rule, Verdict};

const FILE: &str = "alerts.json";
const FILE_MODE: u32 = 0o600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Firing,
    StillFiring,
    Recovered,
}

impl Event {
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Firing => "firing",
            Event::StillFiring => "still_firing",
            Event::Recovered => "recovered",
        }
    }
}

/// An alert that fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    pub rule: Rule,
    pub subject: String,
    pub text: String,
    pub since_ms: i64,
    told_ms: i64,
}

/// Outlives the process, so that a restart neither repeats an alert nor forgets its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    firing: BTreeMap<String, Fired>,
}

impl Memory {
    /// What is to be told of these findings.
    pub fn take(
        &mut self,
        findings: Vec<Finding>,
        now_ms: i64,
        repeat_after: Option<Duration>,
    ) -> Vec<(Event, Finding, i64)> {
        let mut news = Vec::new();
        for finding in findings {
            let name = format!("{} {}", finding.rule.as_str(), finding.subject);
            match (finding.verdict, self.firing.get_mut(&name)) {
                (Verdict::Firing, None) => {
                    let fired = Fired {
                        rule: finding.rule,
                        subject: finding.subject.clone(),
                        text: finding.text.clone(),
                        since_ms: now_ms,
                        told_ms: now_ms,
                    };
                    self.firing.insert(name, fired);
                    news.push((Event::Firing, finding, now_ms));
                }
                (Verdict::Firing, Some(fired)) => {
                    fired.text.clone_from(&finding.text);
                    let elapsed_ms = now_ms.saturating_sub(fired.told_ms);
                    let is_due = repeat_after.is_some_and(|after| {
                        u128::try_from(elapsed_ms).is_ok_and(|ms| ms >= after.as_millis())
                    });
                    if is_due {
                        fired.told_ms = now_ms;
                        news.push((Event::StillFiring, finding, fired.since_ms));
                    }
                }
                (Verdict::Fine, Some(fired)) => {
                    news.push((Event::Recovered, finding, fired.since_ms));
                    self.firing.remove(&name);
                }
                (Verdict::Fine, None) | (Verdict::Unknown, _) => {}
            }
        }
        news
    }

    pub fn firing(&self) -> impl Iterator<Item = &Fired> {
        self.firing.values()
    }

    /// What the last process knew; nothing where that cannot be read, which repeats an alert.
    pub fn load(state_dir: &Path) -> Self {
        let text = fs::read(state_dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// # Errors
    /// As the disk says.
    pub fn save(&self, state_dir: &Path) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
        file.as_file()
            .set_permissions(Permissions::from_mode(FILE_MODE))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.persist(state_dir.join(FILE))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(verdict: Verdict) -> Finding {
        Finding {
            rule: Rule::Lag,
            subject: "a-to-b".to_owned(),
            verdict,
            text: "late".to_owned(),
            value: Some(1.0),
            threshold: 0.5,
        }
    }

    const HOUR: Option<Duration> = Some(Duration::from_secs(3600));
    const HOUR_MS: i64 = 3_600_000;

    fn told(memory: &mut Memory, verdict: Verdict, now_ms: i64) -> Vec<Event> {
        let news = memory.take(vec![finding(verdict)], now_ms, HOUR);
        news.into_iter().map(|(event, _, _)| event).collect()
    }

    #[test]
    fn an_alert_is_told_once_again_after_a_while_and_when_it_ends() {
        let mut memory = Memory::default();
        assert_eq!(told(&mut memory, Verdict::Fine, 0), []);
        assert_eq!(told(&mut memory, Verdict::Firing, 1), [Event::Firing]);
        assert_eq!(told(&mut memory, Verdict::Firing, 2), []);
        assert_eq!(told(&mut memory, Verdict::Unknown, 3), []);
        assert_eq!(told(&mut memory, Verdict::Firing, HOUR_MS), []);
        assert_eq!(
            told(&mut memory, Verdict::Firing, HOUR_MS + 1),
            [Event::StillFiring]
        );
        assert_eq!(told(&mut memory, Verdict::Firing, HOUR_MS + 2), []);
        assert_eq!(
            told(&mut memory, Verdict::Fine, HOUR_MS + 3),
            [Event::Recovered]
        );
        assert_eq!(told(&mut memory, Verdict::Fine, HOUR_MS + 4), []);
    }

    #[test]
    fn two_subjects_are_two_alerts_and_a_clock_that_is_set_back_repeats_nothing() {
        let mut memory = Memory::default();
        let other = Finding {
            subject: "b-to-a".to_owned(),
            ..finding(Verdict::Firing)
        };
        let both = vec![finding(Verdict::Firing), other];
        assert_eq!(memory.take(both, HOUR_MS, HOUR).len(), 2);
        assert_eq!(told(&mut memory, Verdict::Firing, 0), []);
    }

    #[test]
    fn a_restart_remembers_what_fires() {
        let dir = tempfile::tempdir().unwrap();
        let mut memory = Memory::load(dir.path());
        told(&mut memory, Verdict::Firing, 7);
        memory.save(dir.path()).unwrap();
        let mut again = Memory::load(dir.path());
        assert_eq!(told(&mut again, Verdict::Firing, 8), []);
        assert_eq!(told(&mut again, Verdict::Fine, 9), [Event::Recovered]);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Memory::load(dir.path()), Memory::default());
    }
}
