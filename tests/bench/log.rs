//! A long conflict log: how fast it takes records, and how long reports of it take.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

use bson::{DateTime, RawDocumentBuf, Timestamp, rawdoc};
use tandem::store::{Store, is_locked};

use crate::report::print_table;
use crate::resources::{Resources, own_cpu_seconds};
use crate::support::env::TestEnv;
use crate::support::tandem::Tandem;

const RECORDS: usize = 1_000_000;
const DOCUMENT_BYTES: usize = 500;
/// Put at once, as one transaction of a lane does.
const AT_ONCE: usize = 100;
/// The rate is told so many times while the log is filled.
const STEPS: usize = 10;
/// What the log of an hour's run holds.
const SPREAD: Duration = Duration::from_secs(3600);

/// Records of each namespace: one in so many.
const NAMESPACES: usize = 100;

const POLL: Duration = Duration::from_millis(1);
const REPORT_TIME_MAX: Duration = Duration::from_secs(600);

/// The log is filled once: a round more would take as long again as all of its reports.
pub async fn print(records: Option<usize>) {
    let records = records.unwrap_or(RECORDS);
    let env = TestEnv::start().await;
    let link = env.link();
    let mut tandem = env.streaming(&link).await;
    tandem.stop().await;
    let state = env.path(&link.state_dir);
    let first = fill(&state, records);
    note_down(&state);
    let mut rows = Vec::new();
    let last_minute = first + SPREAD - Duration::from_secs(60);
    let since = DateTime::from_system_time(last_minute)
        .try_to_rfc3339_string()
        .expect("a time of our days");
    for (what, words) in [
        ("of the last minute", &["--since", &since][..]),
        (
            "of one namespace in a hundred",
            &["--namespace", "shop.orders7"][..],
        ),
        ("of one document", &["--key", "777"][..]),
        ("of one kind in a hundred", &["--kind", "dead_letter"][..]),
        (
            "of one status in a hundred",
            &["--status", "overturned"][..],
        ),
        ("summary of all", &["--summary"][..]),
        ("all as NDJSON", &["--format", "ndjson"][..]),
        ("all as CSV", &["--format", "csv"][..]),
        ("all as HTML", &["--format", "html"][..]),
    ] {
        let (time, peak, lines) = report(&tandem, words).await;
        assert!(lines > 1, "{what}: nothing was found");
        assert!(what != "all as NDJSON" || lines == records, "{lines} lines");
        let seconds = time.as_secs_f64();
        rows.push(vec![
            what.to_owned(),
            format!("{seconds:.2}"),
            format!("{peak:.0}"),
        ]);
    }
    let reported = format!("`conflict-report` of {records} records");
    print_table(&[&reported, "s", "peak memory, MB"], &rows);
}

/// Returns the time of the first record.
fn fill(state: &Path, records: usize) -> std::time::SystemTime {
    let store = Store::open(state).expect("the store of the link");
    let first = std::time::SystemTime::now() - SPREAD;
    let mut rows = Vec::new();
    let step = (records / STEPS).next_multiple_of(AT_ONCE).max(AT_ONCE);
    let (mut started, mut cpu) = (Instant::now(), own_cpu_seconds());
    for from in (0..records).step_by(AT_ONCE) {
        let numbers = from..records.min(from + AT_ONCE);
        let some: Vec<RawDocumentBuf> = numbers
            .map(|number| {
                record(
                    number,
                    first + SPREAD.mul_f64(number as f64 / records as f64),
                )
            })
            .collect();
        store.put_records(&some).expect("records are put");
        let done = from + some.len();
        if done.is_multiple_of(step) {
            let rate = step as f64 / started.elapsed().as_secs_f64();
            let taken = own_cpu_seconds() - cpu;
            rows.push(vec![
                done.to_string(),
                format!("{rate:.0}"),
                format!("{taken:.2}"),
            ]);
            (started, cpu) = (Instant::now(), own_cpu_seconds());
        }
    }
    store.flush().expect("the store is on disk");
    print_table(
        &["records", "records/s since the row before", "CPU s"],
        &rows,
    );
    first
}

/// As a run does at its end when it has written much. The store is let go of a moment after it is
/// dropped.
fn note_down(state: &Path) {
    loop {
        match Store::open(state) {
            Ok(_) => return,
            Err(error) if is_locked(&error) => std::thread::sleep(POLL),
            Err(error) => panic!("{error}"),
        }
    }
}

/// As scattered as the ids of real records, which are digests.
fn id_of(number: usize) -> String {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let scattered = (number as u128).wrapping_mul(ODD);
    format!("{:024x}", scattered >> 32)
}

fn record(number: usize, at: std::time::SystemTime) -> RawDocumentBuf {
    let at = DateTime::from_system_time(at);
    let id = i64::try_from(number).expect("not that many");
    let time = Timestamp {
        time: 1_700_000_000,
        increment: 1 + number as u32,
    };
    let is_one_in_a_hundred = |of: usize| number % 100 == of;
    let document = rawdoc! { "_id": id, "text": "x".repeat(DOCUMENT_BYTES) };
    rawdoc! {
        "_id": id_of(number),
        "logged_at": at,
        "pipeline": "a-to-b",
        "namespace": format!("shop.orders{}", number % NAMESPACES),
        "document_key": { "_id": id },
        "kind": if is_one_in_a_hundred(1) { "dead_letter" } else { "update_origin_differs" },
        "policy": "last-write-wins",
        "winner": "us",
        "winner_cluster": "b",
        "reason": "it was written later",
        "winning": {
            "operation": "update", "cluster_time": time, "wall_time": at, "version": at,
            "document": document.clone(),
        },
        "losing": {
            "operation": "update", "cluster_time": time, "wall_time": at, "version": at,
            "change": { "updatedFields": { "text": "y".repeat(50) } }, "document": document,
        },
        "clock_skew_ms": 0_i64,
        "status": if is_one_in_a_hundred(2) { "overturned" } else { "logged" },
    }
}

/// How long one report takes, its peak memory in megabytes, and its lines.
async fn report(tandem: &Tandem, words: &[&str]) -> (Duration, f64, usize) {
    let mut arguments = vec!["conflict-report"];
    arguments.extend(words);
    let mut command = tandem.command(&[], &arguments);
    command.stdout(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().expect("tandem starts");
    let stdout = child.stdout.take().expect("it is piped");
    let lines = std::thread::spawn(|| lines_of(stdout));
    let mut resources = Resources::default();
    let status = loop {
        resources = Resources::of(child.id()).unwrap_or(resources);
        if let Some(status) = child.try_wait().expect("the process is ours") {
            break status;
        }
        assert!(started.elapsed() < REPORT_TIME_MAX, "the report never ends");
        tokio::time::sleep(POLL).await;
    };
    assert!(status.success(), "{words:?}: {status}");
    let time = started.elapsed();
    let lines = lines.join().expect("the output is read");
    (time, resources.peak_megabytes, lines)
}

fn lines_of(stdout: ChildStdout) -> usize {
    let lines = BufReader::new(stdout).split(b'\n');
    lines.filter(Result::is_ok).count()
}
