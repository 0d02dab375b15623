//! A store that was lost, damaged, or put back: noticed, said, and never a start from "now".

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bson::doc;
use tandem::store::Store;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::random::{Random, scaled, seed};
use crate::support::tandem::Tandem;

const SOON: Duration = Duration::from_secs(30);
const CONFLICTS: i32 = 20;
const PAGE: usize = 4096;

/// A link that has stopped, with conflicts on record, and copies of its state directory.
struct Stopped {
    env: TestEnv,
    link: LinkConfig,
    tandem: Tandem,
    next: i32,
}

impl Stopped {
    async fn start() -> Self {
        let env = TestEnv::start().await;
        let link = env.link();
        let tandem = env.tandem(&link);
        let mut stopped = Self {
            env,
            link,
            tandem,
            next: 0,
        };
        stopped.more_conflicts().await;
        stopped
    }

    /// Runs until it has settled as many conflicts again.
    async fn more_conflicts(&mut self) {
        self.tandem.start();
        self.tandem.wait_until_streaming().await;
        self.tandem.sigstop();
        let ids = self.next..self.next + CONFLICTS;
        self.next += CONFLICTS;
        for (orders, side) in [(self.env.orders_a(), "a"), (self.env.orders_b(), "b")] {
            let rows = ids
                .clone()
                .map(|id| doc! { "_id": id, "name": side.repeat(3000) });
            orders.insert_many(rows).await.unwrap();
        }
        self.tandem.sigcont();
        assert_converged(&self.env, SOON).await;
        self.tandem.all_conflicts(&self.env).await;
        self.tandem.stop().await;
    }

    fn state(&self) -> PathBuf {
        self.env.path("tandem-state")
    }

    fn keep_as(&self, name: &str) -> PathBuf {
        let kept = self.env.path(name);
        copy(&self.state(), &kept);
        kept
    }

    fn put_back(&self, kept: &Path) {
        let _ = fs::remove_dir_all(self.state());
        copy(kept, &self.state());
    }

    /// Every record, whole.
    fn records(&self) -> Vec<String> {
        let output = self.report();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        lines(&output)
    }

    fn report(&self) -> Output {
        self.tandem.run(&["conflict-report", "--format", "ndjson"])
    }

    fn caught_up(&self) -> Output {
        self.tandem
            .run(&["run", "--until-caught-up", "--timeout", "30s"])
    }

    /// It goes on, with everything on record, and the sides are equal.
    async fn assert_goes_on(&self, whole: &[String]) -> String {
        let row = doc! { "$inc": { "count": 1 } };
        self.env
            .orders_a()
            .update_one(doc! { "_id": 0 }, row)
            .await
            .unwrap();
        let output = self.caught_up();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_converged(&self.env, Duration::ZERO).await;
        assert_eq!(ids(&self.records()), ids(whole));
        said
    }

    /// Either every command refuses the store and says what to do, or nothing of it is missing or
    /// another.
    fn is_refused(&self, what: &str, whole: &[String]) -> bool {
        let output = self.report();
        let said = stderr(&output);
        match output.status.code() {
            Some(7) => assert!(
                said.contains("hint: nothing lies in the store alone")
                    || said.contains("hint: run the newer tandem that wrote it"),
                "{what}: {said}"
            ),
            Some(0) => assert_eq!(lines(&output), whole, "{what}: silently another report"),
            code => panic!("{what}: {code:?} {said}"),
        }
        output.status.code() == Some(7)
    }

    /// And so does a run.
    async fn run_too(&self, what: &str, whole: &[String]) {
        match self.is_refused(what, whole) {
            true => {
                let output = self.caught_up();
                let said = stderr(&output);
                assert_eq!(output.status.code(), Some(7), "{what}: {said}");
                assert!(said.contains("hint: "), "{what}: {said}");
            }
            false => drop(self.assert_goes_on(whole).await),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()));
}

/// What is the same of a record on both clusters, whose own transactions have put it there.
fn ids(records: &[String]) -> Vec<&str> {
    let id = |record: &String| record.find(',').unwrap_or(0);
    records.iter().map(|record| &record[..id(record)]).collect()
}

/// Without their order.
fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("store.format")];
    for entry in fs::read_dir(dir.join("store")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            found.push(Path::new("store").join(entry.file_name()));
        }
    }
    found.sort();
    found
}

type Damage = Box<dyn Fn(&mut Vec<u8>)>;

fn flipped(at: usize, bit: u64) -> Damage {
    Box::new(move |bytes| bytes[at] ^= 1 << bit)
}

fn cut(bytes_lost: usize) -> Damage {
    Box::new(move |bytes| bytes.truncate(bytes.len().saturating_sub(bytes_lost)))
}

fn zeroed(page: usize) -> Damage {
    Box::new(move |bytes| {
        let end = bytes.len().min((page + 1) * PAGE);
        bytes[(page * PAGE).min(end)..end].fill(0);
    })
}

/// Where there is something in a file; sled leaves the rest of its segments empty.
fn used(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(1, |last| last + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_a_cut_end_or_an_empty_page_of_the_store_never_goes_unsaid() {
    let stopped = Stopped::start().await;
    let (clean, whole) = (stopped.keep_as("clean"), stopped.records());
    let mut random = Random::new(seed("store_damage"));
    let (mut refused, mut harmless) = (0, 0);
    for file in files(&clean) {
        let content = fs::read(clean.join(&file)).unwrap();
        let (used, rounds) = (used(&content), scaled(200).min(8 * content.len()));
        let mut damages: Vec<(String, Damage)> = Vec::new();
        for _ in 0..rounds {
            let (at, bit) = (random.below(used as u64) as usize, random.below(8));
            damages.push((format!("bit {bit} of byte {at}"), flipped(at, bit)));
        }
        for lost in [
            1,
            7,
            content.len() - used + 1,
            content.len() - used / 2,
            content.len(),
        ] {
            damages.push((format!("{lost} bytes cut off"), cut(lost)));
        }
        for _ in 0..4 {
            let page = random.below(used.div_ceil(PAGE) as u64) as usize;
            damages.push((format!("page {page} zeroed"), zeroed(page)));
        }
        for (number, (what, damage)) in damages.iter().enumerate() {
            stopped.put_back(&clean);
            let mut bytes = content.clone();
            damage(&mut bytes);
            fs::write(stopped.state().join(&file), bytes).unwrap();
            let what = format!("{}: {what}", file.display());
            match number % 12 {
                0 => stopped.run_too(&what, &whole).await,
                _ if stopped.is_refused(&what, &whole) => refused += 1,
                _ => harmless += 1,
            }
        }
    }
    println!("{refused} refused, {harmless} harmless");
    assert!(refused > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_lost_in_part_or_whole_is_said_to_be_and_rebuilt_or_refused() {
    let stopped = Stopped::start().await;
    let (clean, whole) = (stopped.keep_as("clean"), stopped.records());
    for file in files(&clean) {
        stopped.put_back(&clean);
        fs::remove_file(stopped.state().join(&file)).unwrap();
        let what = format!("without {}", file.display());
        stopped.run_too(&what, &whole).await;
    }
    for leave_empty in [false, true] {
        fs::remove_dir_all(stopped.state()).unwrap();
        if leave_empty {
            fs::create_dir(stopped.state()).unwrap();
        }
        let said = stopped.assert_goes_on(&whole).await;
        assert!(said.contains("does not know the last run"), "{said}");
        assert!(!said.contains("first start"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_store_put_back_is_said_to_be_and_loses_nothing() {
    let mut stopped = Stopped::start().await;
    let older = stopped.keep_as("older");
    stopped.more_conflicts().await;
    let newer = stopped.keep_as("newer");
    let whole = stopped.records();
    assert_eq!(whole.len(), 2 * CONFLICTS as usize);
    stopped.put_back(&older);
    let said = stopped.assert_goes_on(&whole).await;
    assert!(said.contains("does not know the last run"), "{said}");
    // Its own copy of last time is nothing to speak of.
    let said = stopped.assert_goes_on(&whole).await;
    assert!(!said.contains("does not know"), "{said}");

    // The old data under the newer format file.
    stopped.put_back(&older);
    fs::copy(
        newer.join("store.format"),
        stopped.state().join("store.format"),
    )
    .unwrap();
    assert!(stopped.is_refused("older data", &whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_link_or_another_format_or_that_is_in_use_is_refused_by_name() {
    let stopped = Stopped::start().await;
    let mut other = stopped.link.clone();
    other.name = "other".to_owned();
    other.include = vec!["other.*".to_owned()];
    other.state_dir = "other-state".to_owned();
    stopped.env.streaming(&other).await.stop().await;
    let mut mixed = stopped.link.clone();
    mixed.state_dir = "other-state".to_owned();
    let output = stopped.env.tandem_named("mixed.toml", &mixed).run(&["run"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("belongs to link other"),
        "{}",
        stderr(&output)
    );

    let stopped = &stopped;
    let every = [&["run"][..], &["status"], &["runs"], &["conflict-report"]];
    let refuses = |command: &[&str], reason: &str| {
        let output = stopped.env.tandem(&stopped.link).run(command);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(7), "{command:?}: {said}");
        assert!(said.contains(reason), "{said}");
    };
    let refuses = &refuses;
    let held = Store::open(&stopped.state()).unwrap();
    std::thread::scope(|scope| {
        for command in every {
            scope.spawn(move || refuses(command, "is locked"));
        }
    });
    drop(held);

    let marker = stopped.state().join("store.format");
    let text = fs::read_to_string(&marker).unwrap();
    for format in [0, 2] {
        let other = text.replacen("1 ", &format!("{format} "), 1);
        fs::write(&marker, other).unwrap();
        for command in every {
            refuses(command, &format!("has format {format}"));
        }
    }
}
