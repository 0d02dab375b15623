//! What can be restored, and how it is shown.

use bson::rawdoc;

use super::*;
use crate::config::{Environment, Flags};
use crate::error::ExitCode;

fn record(kind: &str, status: &str, losing: RawDocumentBuf) -> RawDocumentBuf {
    rawdoc! {
        "_id": "0a",
        "pipeline": "b-to-a",
        "namespace": "shop.orders",
        "document_key": { "_id": 7 },
        "kind": kind,
        "losing": losing,
        "status": status,
    }
}

fn config(mode: &str) -> Config {
    let text = format!(
        "[link]\nmode = \"{mode}\"\n[clusters.a]\nname = \"eu\"\nuri = \"mongodb://x/?replicaSet=x\"\n\
         [clusters.b]\nname = \"us\"\nuri = \"mongodb://y/?replicaSet=y\"\n\
         [namespaces]\ninclude = [\"shop.*\"]\n"
    );
    let environment = Environment::default();
    Config::parse(
        &text,
        "test",
        Path::new(""),
        &environment,
        &Flags::default(),
    )
    .unwrap()
}

#[test]
fn only_what_was_lost_and_is_not_back_can_be_restored() {
    for (kind, status) in [
        ("ddl", "logged"),
        ("dead_letter", "logged"),
        ("insert_exists", "restored"),
    ] {
        let losing = rawdoc! { "document": { "_id": 7 } };
        let error = Lost::of("0a", &record(kind, status, losing)).unwrap_err();
        assert_eq!(error.exit, ExitCode::Usage, "{kind} {status}");
    }
    let overturned = record(
        "insert_exists",
        "overturned",
        rawdoc! { "document": bson::RawBson::Null },
    );
    assert!(Lost::of("0a", &overturned).unwrap().document.is_none());
}

#[test]
fn a_record_without_its_losing_document_is_no_record_of_a_delete() {
    let error = Lost::of("0a", &record("insert_exists", "logged", rawdoc! {})).unwrap_err();
    assert_eq!(error.exit, ExitCode::Store);
}

#[test]
fn what_is_shown_names_cluster_and_both_documents_and_hides_no_control_characters() {
    let losing = rawdoc! { "document": { "_id": 7, "x": "\u{9b}2J" } };
    let lost = Lost::of("0a", &record("insert_exists", "logged", losing)).unwrap();
    let shown = lost.shown(&config("two-way"), Some(&rawdoc! { "_id": 7, "x": 1 }));
    for part in [
        "us",
        "shop.orders",
        r#""x":{"$numberInt":"1"}"#,
        r"\u009b2J",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    assert!(!shown.contains('\u{9b}'));
    assert!(!shown.contains("one-way"));
    assert!(lost.shown(&config("one-way"), None).contains("one-way"));
}
