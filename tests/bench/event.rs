//! What an event costs on its way through tandem, without any cluster: read from the stream, known
//! to the ledger, decided, and made into statements.

use std::collections::HashSet;
use std::hint::black_box;

use bson::{DateTime, RawDocumentBuf, Timestamp, cstr, rawdoc};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tandem::change::{
    AppliedThrough, Filters, Mode, NamespaceFilter, Pair, PipelineId, Policy, Position,
    SharedEvent, Side,
};
use tandem::resolve::{BatchLimits, Caution, Ledger, Next, Plan, Rules};
use tandem::source::{Decoder, Observed};
use tandem::target::{Met, WriteSet};

/// In one transaction.
const EVENTS: u32 = 1000;
const DOCUMENT_BYTES: usize = 1024;

fn decoder() -> Decoder {
    let filter = NamespaceFilter::new(&["shop.*".into()], &[], "__tandem");
    let (filters, tags) = (Filters::default(), HashSet::new());
    Decoder::new(Side::A, Side::A, filter, filters, None, tags)
}

/// An event as the server sends it.
fn event(number: u32, operation: &str, content: RawDocumentBuf) -> RawDocumentBuf {
    let at = number + 2;
    let mut event = rawdoc! {
        "_id": { "_data": format!("826500000000{at:08X}2B042C0100296E5A1004") },
        "operationType": operation,
        "clusterTime": Timestamp { time: 1, increment: at },
        "wallTime": DateTime::from_millis(1_700_000_000_000),
        "ns": { "db": "shop", "coll": "orders" },
        "documentKey": { "_id": i64::from(number) },
    };
    match operation {
        "insert" => event.append(cstr!("fullDocument"), content),
        _ => event.append(cstr!("rawUpdateDescription"), content),
    }
    event
}

fn inserts() -> Vec<RawDocumentBuf> {
    let text = "x".repeat(DOCUMENT_BYTES);
    let insert = |number: u32| {
        let document = rawdoc! { "_id": i64::from(number), "text": text.as_str() };
        event(number, "insert", document)
    };
    (0..EVENTS).map(insert).collect()
}

fn updates() -> Vec<RawDocumentBuf> {
    let update = |number: u32| {
        let difference =
            rawdoc! { "diff": { "u": { "count": i64::from(number), "state": "paid" } } };
        event(number, "update", difference)
    };
    (0..EVENTS).map(update).collect()
}

fn decoded(raw: &[RawDocumentBuf]) -> Vec<SharedEvent> {
    let mut decoder = decoder();
    let event = |raw: &RawDocumentBuf| match decoder.decode(raw).expect("an event").observed {
        Observed::Local(event) => event,
        other => panic!("{other:?}"),
    };
    raw.iter().map(event).collect()
}

const fn at(increment: u32) -> Timestamp {
    Timestamp { time: 1, increment }
}

/// Two-way, with one lane, and nothing under way.
fn ledger() -> Ledger {
    let rules = Rules {
        mode: Mode::TwoWay,
        policy: Policy::LastWriteWins,
    };
    let from = || vec![AppliedThrough(Position::after_all_of(at(1), ""))];
    let mut ledger = Ledger::new(rules, Pair::new(from(), from()), Pair::new(at(1), at(1)));
    for side in Side::BOTH {
        ledger.own_writes_known(side);
    }
    ledger
}

fn observed(events: &[SharedEvent]) -> Ledger {
    let mut ledger = ledger();
    for event in events {
        ledger.observe(Side::A, event.clone()).expect("room");
    }
    for side in Side::BOTH {
        ledger.complete(side, Position::after_all_of(at(EVENTS + 2), ""));
    }
    ledger
}

fn planned(ledger: &mut Ledger) -> Plan {
    let limits = BatchLimits {
        operations_max: EVENTS as usize,
        bytes_max: 1 << 24,
    };
    match ledger.plan(PipelineId::AToB, 0, limits, &Caution::default()) {
        Ok(Next::Apply(plan)) => plan,
        other => panic!("{other:?}"),
    }
}

fn written(plan: &Plan) -> WriteSet {
    let mut writes = WriteSet::default();
    for decision in &plan.decisions {
        writes.add_deltas(&decision.key, &decision.events, Met::Nothing);
    }
    writes
}

fn measure(criterion: &mut Criterion) {
    for (name, raw) in [("insert", inserts()), ("update", updates())] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(u64::from(EVENTS)));
        group.bench_function("decode", |bench| {
            let mut decoder = decoder();
            bench.iter(|| {
                for raw in &raw {
                    black_box(decoder.decode(raw).expect("an event"));
                }
            });
        });
        let events = decoded(&raw);
        group.bench_function("observe", |bench| {
            bench.iter_batched(|| (), |()| observed(&events), BatchSize::LargeInput);
        });
        let mut ledger = observed(&events);
        group.bench_function("plan", |bench| {
            bench.iter(|| planned(&mut ledger));
        });
        let plan = planned(&mut ledger);
        group.bench_function("encode", |bench| {
            bench.iter(|| written(&plan));
        });
        group.finish();
    }
}

criterion_group!(benches, measure);
criterion_main!(benches);
