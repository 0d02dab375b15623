//! Whether a link does its work, and if not, why.

use super::status::{LinkState, LinkStatus, Phase};

/// Why the link does not stream in every direction; none where it does.
pub fn not_ready(status: &LinkStatus) -> Option<String> {
    let reasons = status.pipelines.iter().filter_map(|pipeline| {
        let phase = pipeline.phase.as_str();
        let on = pipeline.waiting_on.as_deref();
        match pipeline.phase {
            Phase::Streaming => None,
            Phase::Starting
            | Phase::InitialSync
            | Phase::Recovering
            | Phase::Waiting
            | Phase::Paused
            | Phase::Stopped => {
                let on = on.map(|on| format!(" ({on})")).unwrap_or_default();
                Some(format!("{} is {phase}{on}", pipeline.id.as_str()))
            }
        }
    });
    let mut reasons: Vec<String> = reasons.collect();
    if status.state != LinkState::Running {
        reasons.insert(0, format!("the link is {}", status.state.as_str()));
    }
    if let (Some(error), LinkState::Failed) = (&status.last_error, status.state) {
        reasons.push(error.message.clone());
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Pair, PipelineId};

    fn status(state: LinkState, phases: [Phase; 2]) -> LinkStatus {
        let mut status = LinkStatus::new("l", state, Pair::new("eu", "us"), &PipelineId::BOTH);
        for (pipeline, phase) in status.pipelines.iter_mut().zip(phases) {
            pipeline.phase = phase;
        }
        status
    }

    #[test]
    fn only_a_link_that_streams_both_ways_is_ready() {
        for state in LinkState::ALL {
            for phase in Phase::ALL {
                let ready = not_ready(&status(state, [Phase::Streaming, phase])).is_none();
                let should = state == LinkState::Running && phase == Phase::Streaming;
                assert_eq!(ready, should, "{state:?} {phase:?}");
            }
        }
    }

    #[test]
    fn it_says_what_it_waits_for() {
        let mut status = status(LinkState::Waiting, [Phase::Streaming, Phase::Waiting]);
        status.pipelines[1].waiting_on = Some("us: cannot be reached".to_owned());
        assert_eq!(
            not_ready(&status).unwrap(),
            "the link is waiting; b-to-a is waiting (us: cannot be reached)"
        );
    }
}
