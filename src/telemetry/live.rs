//! Live bars on a terminal while a link runs, and log lines that do not tear them.

use std::io::{self, Write};
use std::sync::OnceLock;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use super::status::{LinkStatus, PipelineStatus};

/// The bars of this process, once there are any.
static BARS: OnceLock<MultiProgress> = OnceLock::new();

const MEGABYTE: f64 = 1_000_000.0;

/// Follows a running link with bars: the copy, the indexes, then the lag.
pub async fn follow(mut status: watch::Receiver<LinkStatus>, stop: CancellationToken) {
    let all = BARS.get_or_init(MultiProgress::new);
    let [mut copy, mut indexes] = [None, None];
    let style = ProgressStyle::with_template("{msg}").expect("a template that fits");
    let lag = all.add(ProgressBar::no_length().with_style(style));
    loop {
        let (bars, line) = {
            let now = status.borrow_and_update();
            let of_sync = now.initial_sync.as_ref().map(bars_of);
            (of_sync.unwrap_or_default(), lag_line(&now.pipelines))
        };
        show(all, &mut copy, "copy   ", bars.copy);
        show(all, &mut indexes, "indexes", bars.indexes);
        lag.set_message(line);
        tokio::select! {
            () = stop.cancelled() => break,
            changed = status.changed() => if changed.is_err() { break },
        }
    }
    let _ = all.clear();
}

/// A bar comes with what it first shows, and goes for good.
fn show(
    all: &MultiProgress,
    bar: &mut Option<ProgressBar>,
    name: &'static str,
    shown: Option<Shown>,
) {
    let Some(shown) = shown else {
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
        return;
    };
    let bar = bar.get_or_insert_with(|| {
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {msg}");
        let style = style.expect("a template that fits").progress_chars("=> ");
        let bar = ProgressBar::no_length().with_style(style).with_prefix(name);
        all.insert(0, bar)
    });
    bar.set_length(shown.total);
    bar.set_position(shown.done);
    bar.set_message(shown.text);
}

/// One bar.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    done: u64,
    total: u64,
    text: String,
}

#[derive(Debug, Default)]
struct BarsShown {
    copy: Option<Shown>,
    indexes: Option<Shown>,
}

/// What `initial_sync` of a status shows.
fn bars_of(numbers: &Value) -> BarsShown {
    let number = |name: &str| numbers[name].as_u64().unwrap_or(0);
    let left = numbers["seconds_left"].as_u64();
    let left = left.map(|seconds| format!(", {} left", time(seconds)));
    let left = left.unwrap_or_default();
    match numbers["state"].as_str() {
        Some("waiting" | "copying" | "catching_up") => {
            let (documents, of) = (number("documents_done"), number("documents_total"));
            let (done, total) = (number("bytes_done"), number("bytes_total"));
            let rate = number("documents_per_second");
            let megabytes = done as f64 / MEGABYTE;
            let text = format!("{documents} of {of} documents, {megabytes:.1} MB, {rate}/s{left}");
            // What is written meanwhile is copied too.
            let total = total.max(done).max(1);
            let copy = Some(Shown { done, total, text });
            BarsShown {
                copy,
                indexes: None,
            }
        }
        Some("building_indexes") => {
            let (done, total) = (number("indexes_done"), number("indexes_total"));
            let text = format!("{done} of {total} indexes{left}");
            let total = total.max(done).max(1);
            let indexes = Some(Shown { done, total, text });
            BarsShown {
                copy: None,
                indexes,
            }
        }
        _ => BarsShown::default(),
    }
}

fn lag_line(pipelines: &[PipelineStatus]) -> String {
    let of_one = |pipeline: &PipelineStatus| {
        let (name, phase) = (pipeline.id.as_str(), pipeline.phase.as_str());
        let lag = pipeline.lag_seconds;
        let lag = lag.map_or(phase.to_owned(), |lag| format!("lag {lag:.1} s"));
        format!(
            "{name}  {lag}, {} applied",
            pipeline.operations_applied_total
        )
    };
    pipelines
        .iter()
        .map(of_one)
        .collect::<Vec<_>>()
        .join("    ")
}

fn time(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02} min"),
        (hours, minutes, _) => format!("{hours}:{minutes:02} h"),
    }
}

/// Standard error, with the bars out of the way while a line is written.
#[derive(Debug, Clone, Copy)]
pub struct LogLines;

impl MakeWriter<'_> for LogLines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match BARS.get() {
            Some(bars) => bars.suspend(|| io::stderr().write(bytes)),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::change::PipelineId;
    use crate::telemetry::status::Phase;

    #[test]
    fn a_copy_shows_share_rate_and_time_left_and_then_the_indexes() {
        let mut numbers = json!({
            "state": "copying", "documents_done": 10, "documents_total": 40,
            "bytes_done": 2_500_000, "bytes_total": 10_000_000,
            "documents_per_second": 5, "seconds_left": 90,
            "indexes_done": 1, "indexes_total": 4,
        });
        let copy = bars_of(&numbers).copy.expect("a bar");
        assert_eq!((copy.done, copy.total), (2_500_000, 10_000_000));
        assert_eq!(copy.text, "10 of 40 documents, 2.5 MB, 5/s, 1:30 min left");
        numbers["state"] = "building_indexes".into();
        let shown = bars_of(&numbers);
        assert_eq!(shown.copy, None);
        assert_eq!(
            shown.indexes.expect("a bar").text,
            "1 of 4 indexes, 1:30 min left"
        );
        numbers["state"] = "done".into();
        assert_eq!(bars_of(&numbers).indexes, None);
    }

    #[test]
    fn the_lag_is_shown_once_it_is_known() {
        let mut pipeline = PipelineStatus::new(PipelineId::AToB, Phase::Recovering);
        assert_eq!(
            lag_line(&[pipeline.clone()]),
            "a-to-b  recovering, 0 applied"
        );
        pipeline.lag_seconds = Some(0.25);
        pipeline.operations_applied_total = 7;
        assert_eq!(lag_line(&[pipeline]), "a-to-b  lag 0.2 s, 7 applied");
    }
}
