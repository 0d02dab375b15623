//! Bytes that nobody means well, for the property tests: any document, and valid ones with a few
//! bytes changed.

use std::time::{SystemTime, UNIX_EPOCH};

use bson::{Bson, Decimal128, Document, RawDocumentBuf, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

const CASES: u32 = 1000;

/// Plays `test` with fresh values, more of them where `TANDEM_TEST_CASES` says so. A failing run
/// prints its seed, and `TANDEM_TEST_SEED` plays it again.
pub fn for_any<S: Strategy>(values: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let fresh = now.map_or(0, |time| time.as_nanos() as u64);
    let seed = number("TANDEM_TEST_SEED").unwrap_or(fresh);
    println!("TANDEM_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: number("TANDEM_TEST_CASES").map_or(CASES, |cases| cases as u32),
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let outcome = TestRunner::new_with_rng(config, rng).run(&values, test);
    outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

fn any_name() -> impl Strategy<Value = String> {
    let odd = [
        "",
        "_id",
        "$where",
        "$set",
        "a.b",
        "0",
        "__proto__",
        "d",
        "u",
        "i",
        "a",
        "l",
        "s",
        "sa",
        "u0",
        "s1",
    ];
    let text = "[a-c$.0-9\u{1b}\u{e9}]{0,4}";
    prop_oneof![
        proptest::sample::select(odd.to_vec()).prop_map(str::to_owned),
        text.prop_map(|name| name),
    ]
}

fn any_value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<f64>().prop_map(Bson::Double),
        any::<[u8; 16]>().prop_map(|bytes| Bson::Decimal128(Decimal128::from_bytes(bytes))),
        any::<bool>().prop_map(Bson::Boolean),
        any_name().prop_map(Bson::String),
        any_name().prop_map(Bson::Symbol),
        any::<i64>().prop_map(|ms| Bson::DateTime(bson::DateTime::from_millis(ms))),
        any::<(u32, u32)>()
            .prop_map(|(time, increment)| Bson::Timestamp(Timestamp { time, increment })),
        Just(Bson::Null),
        Just(Bson::MinKey),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Bson::Array),
            vec((any_name(), inner), 0..4)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

/// A valid document of any content.
pub fn any_document() -> impl Strategy<Value = RawDocumentBuf> {
    vec((any_name(), any_value()), 0..5).prop_map(|fields| {
        let document: Document = fields.into_iter().collect();
        RawDocumentBuf::try_from(&document).expect("it can be written")
    })
}

/// Any bytes in the frame of a document.
pub fn any_bytes() -> impl Strategy<Value = RawDocumentBuf> {
    vec(any::<u8>(), 0..200).prop_map(|body| framed(&body))
}

/// `document` with some bytes changed, and cut somewhere.
pub fn broken(
    document: RawDocumentBuf,
    changes: &[(usize, u8)],
    cut: Option<usize>,
) -> RawDocumentBuf {
    let bytes = document.as_bytes();
    let mut body = bytes[4..bytes.len() - 1].to_vec();
    for (at, value) in changes {
        let length = body.len().max(1);
        if let Some(byte) = body.get_mut(at % length) {
            *byte = *value;
        }
    }
    if let Some(cut) = cut {
        body.truncate(cut % (body.len() + 1));
    }
    framed(&body)
}

/// What [`broken`] takes beside the document.
pub fn any_damage() -> impl Strategy<Value = (Vec<(usize, u8)>, Option<usize>)> {
    (
        vec(any::<(usize, u8)>(), 0..6),
        proptest::option::weighted(0.2, any::<usize>()),
    )
}

fn framed(body: &[u8]) -> RawDocumentBuf {
    super::document_of([body])
}

/// `value` in `levels` documents of one field each.
pub fn nested(name: &str, levels: usize) -> RawDocumentBuf {
    let mut head = vec![3];
    head.extend_from_slice(name.as_bytes());
    head.push(0);
    let per_level = head.len() + 5;
    let mut bytes = Vec::with_capacity(levels * per_level + 5);
    for level in (1..=levels).rev() {
        let length = i32::try_from(level * per_level + 5).expect("it fits");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&head);
    }
    bytes.extend_from_slice(&5_i32.to_le_bytes());
    bytes.resize(bytes.len() + levels + 1, 0);
    RawDocumentBuf::from_bytes(bytes).expect("a document")
}
