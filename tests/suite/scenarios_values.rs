//! Documents of every kind arrive byte for byte, copied and streamed.

use bson::oid::ObjectId;
use bson::raw::CStr;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, RawBson, RawDocumentBuf, Regex, Timestamp, cstr, doc, rawdoc};

use crate::scenarios_documents::{
    a_file_in_chunks, as_many_levels_as_a_server_takes, documents_of_the_largest_size,
    documents_that_the_validator_refuses, empty_documents_and_collections,
    names_of_collections_that_are_hard_to_quote, names_that_stand_twice_in_what_is_changed,
};
use crate::support::scenario::{Phase, Scenario, Scene, play, scenarios};

const SCENARIOS: &[Scenario] = scenarios![
    every_type_at_the_top_and_nested,
    types_that_only_old_drivers_write,
    binaries_of_every_subtype,
    numbers_that_are_equal_and_not_the_same,
    names_that_look_like_operators_paths_and_indexes,
    strings_that_are_no_text,
    a_hundred_levels_of_nesting,
    an_empty_timestamp_stays_empty,
    fields_in_another_order,
    keys_of_every_type,
    keys_that_are_equal_but_of_another_type,
    as_many_levels_as_a_server_takes,
    names_that_stand_twice_in_what_is_changed,
    documents_of_the_largest_size,
    documents_that_the_validator_refuses,
    a_file_in_chunks,
    empty_documents_and_collections,
    names_of_collections_that_are_hard_to_quote,
];

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_every_kind_are_copied_byte_for_byte() {
    play(SCENARIOS, Phase::Copied, "two-way").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_every_kind_are_streamed_byte_for_byte() {
    play(SCENARIOS, Phase::Streamed, "two-way").await;
}

/// A document from its elements as bytes.
fn of_elements(elements: &[u8]) -> RawDocumentBuf {
    let length = (elements.len() + 5) as i32;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(elements);
    bytes.push(0);
    RawDocumentBuf::from_bytes(bytes).expect("a document")
}

/// One element: its type, its name and its value.
fn element(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(name.as_bytes());
    bytes.push(0);
    bytes.extend(value);
    bytes
}

fn text(value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as i32 + 1).to_le_bytes().to_vec();
    bytes.extend(value);
    bytes.push(0);
    bytes
}

fn number(id: i32) -> Vec<u8> {
    element(0x10, "_id", &id.to_le_bytes())
}

fn values() -> Vec<Bson> {
    vec![
        Bson::Double(-0.0),
        Bson::Double(f64::from_bits(0x7ff8_dead_beef_0001)),
        Bson::Double(f64::INFINITY),
        Bson::Double(f64::MIN_POSITIVE / 4.0),
        Bson::String("\u{0}zero \u{1f980}\u{301}".to_owned()),
        Bson::Document(doc! { "b": 1, "a": {} }),
        Bson::Array(vec![Bson::Null, Bson::Array(Vec::new()), Bson::Int32(1)]),
        Bson::Binary(Binary {
            subtype: BinarySubtype::Generic,
            bytes: Vec::new(),
        }),
        Bson::Undefined,
        Bson::ObjectId(ObjectId::from_bytes([0xff; 12])),
        Bson::Boolean(true),
        Bson::DateTime(bson::DateTime::MIN),
        Bson::DateTime(bson::DateTime::MAX),
        Bson::Null,
        Bson::RegularExpression(Regex {
            pattern: cstr!("a/b(").to_owned(),
            options: cstr!("ximsu").to_owned(),
        }),
        Bson::JavaScriptCode("f(".to_owned()),
        Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
            code: "x".to_owned(),
            scope: doc! { "x": 1 },
        }),
        Bson::Symbol("symbol".to_owned()),
        Bson::Int32(i32::MIN),
        Bson::Timestamp(Timestamp {
            time: u32::MAX,
            increment: 1,
        }),
        Bson::Int64(i64::MIN),
        Bson::Decimal128("1.2300E+5".parse().expect("a decimal")),
        Bson::Decimal128("NaN".parse().expect("a decimal")),
        Bson::Decimal128("-0E-6176".parse().expect("a decimal")),
        Bson::MinKey,
        Bson::MaxKey,
    ]
}

async fn every_type_at_the_top_and_nested(scene: Scene) {
    let all = scene.collection("all");
    for (id, value) in values().into_iter().enumerate() {
        let id = id as i32;
        let nested = doc! { "in": { "deep": [value.clone(), { "x": value.clone() }] } };
        let whole = doc! { "_id": id, "top": value.clone(), "nested": nested };
        all.insert_one(whole.clone()).await.unwrap();
        all.insert_one(doc! { "_id": id + 1000 }).await.unwrap();
        let set = doc! { "$set": { "top": value.clone(), "in.deep": value.clone() } };
        all.update_one(doc! { "_id": id + 1000 }, set)
            .await
            .unwrap();
        all.insert_one(doc! { "_id": id + 2000 }).await.unwrap();
        let mut replaced = whole;
        replaced.insert("_id", id + 2000);
        all.replace_one(doc! { "_id": id + 2000 }, replaced)
            .await
            .unwrap();
        all.insert_one(doc! { "_id": id + 3000 }).await.unwrap();
        let pipeline = vec![doc! { "$set": { "list": [{ "$literal": value }] } }];
        all.update_one(doc! { "_id": id + 3000 }, pipeline)
            .await
            .unwrap();
    }
}

async fn types_that_only_old_drivers_write(scene: Scene) {
    let mut pointer = text(b"other.collection");
    pointer.extend([7; 12]);
    let mut scoped = text(b"code");
    scoped.extend(rawdoc! { "y": 2 }.as_bytes());
    let mut scope = ((scoped.len() + 4) as i32).to_le_bytes().to_vec();
    scope.extend(scoped);
    let all = [
        number(1),
        element(0x0c, "pointer", &pointer),
        element(0x0f, "scoped", &scope),
        element(0x06, "undefined", &[]),
        element(0x0e, "symbol", &text(b"s")),
        element(0x0b, "regex", b"x\0xsim\0"),
    ];
    let odd = scene.raw("odd");
    odd.insert_one(of_elements(&all.concat())).await.unwrap();
    let reference = doc! { "$ref": "other", "$id": 1, "$db": "shop" };
    let odd = scene.collection("odd");
    odd.insert_one(doc! { "_id": 2, "reference": reference.clone() })
        .await
        .unwrap();
    let set = doc! { "$set": { "list": [reference] } };
    odd.update_one(doc! { "_id": 2 }, set).await.unwrap();
}

async fn binaries_of_every_subtype(scene: Scene) {
    let all = scene.raw("binaries");
    for (id, subtype) in (0..=9).chain([127, 128, 255]).enumerate() {
        let data = match subtype {
            2 => [&4_i32.to_le_bytes()[..], b"data"].concat(),
            _ => b"sixteen bytes!!!".to_vec(),
        };
        let mut value = (data.len() as i32).to_le_bytes().to_vec();
        value.push(subtype);
        value.extend(data);
        let id = id as i32;
        let both = [number(id), element(5, "binary", &value)].concat();
        all.insert_one(of_elements(&both)).await.unwrap();
    }
}

async fn numbers_that_are_equal_and_not_the_same(scene: Scene) {
    let numbers = scene.collection("numbers");
    let ones = [
        Bson::Int32(1),
        Bson::Int64(1),
        Bson::Double(1.0),
        Bson::Decimal128("1".parse().expect("a decimal")),
        Bson::Decimal128("1.000".parse().expect("a decimal")),
    ];
    for (id, one) in ones.iter().enumerate() {
        let id = id as i32;
        let insert = doc! { "_id": id, "one": one.clone(), "list": ones.to_vec() };
        numbers.insert_one(insert).await.unwrap();
        for other in &ones {
            let set = doc! { "$set": { "one": other.clone(), "list.2": other.clone() } };
            numbers.update_one(doc! { "_id": id }, set).await.unwrap();
        }
    }
}

async fn names_that_look_like_operators_paths_and_indexes(scene: Scene) {
    let names = scene.raw("names");
    let one = |name: &'static CStr, value: i32| {
        let mut document = RawDocumentBuf::new();
        document.append(name, value);
        document
    };
    let mut twice = rawdoc! { "_id": 1, "x": 1, "y": 2 };
    twice.append(cstr!("x"), "again");
    twice.append(cstr!("nested"), one(cstr!("$set"), 1));
    names.insert_one(twice).await.unwrap();
    for (id, name) in [
        cstr!("$set"),
        cstr!("a.b"),
        cstr!(""),
        cstr!("0"),
        cstr!("$"),
        cstr!("."),
        cstr!("$where"),
        cstr!("a..b"),
        cstr!("__tandem_touch"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut document = rawdoc! { "_id": 10 + id as i32 };
        document.append(name, "at the top");
        document.append(cstr!("in"), one(name, 1));
        names.insert_one(document).await.unwrap();
    }
    let names = scene.collection("names");
    let all = doc! { "_id": { "$gte": 10 } };
    let set = doc! { "$set": { "in.5": 1, "o": { "5": 1 }, "list": [1, { "5": 2 }] } };
    names.update_many(all.clone(), set).await.unwrap();
    let set = doc! { "$set": { "o.5": 2, "o.6": 3, "list.1.5": 4, "list.3": 5 } };
    names.update_many(all.clone(), set).await.unwrap();
    for (field, value) in [("p.q", 1), ("p.q", 2), ("$dollar", 3)] {
        let set = doc! { "$setField": {
            "field": { "$literal": field }, "input": "$$ROOT", "value": value,
        } };
        let pipeline = vec![doc! { "$replaceWith": set }];
        names.update_many(all.clone(), pipeline).await.unwrap();
    }
}

async fn strings_that_are_no_text(scene: Scene) {
    let raw = scene.raw("bytes");
    for (id, bytes) in [&b"\xed\xa0\x80"[..], b"\xff\xfe", b"a\0b\0"]
        .into_iter()
        .enumerate()
    {
        let both = [
            number(id as i32),
            element(2, "no text", &text(bytes)),
            element(
                3,
                "in",
                of_elements(&element(2, "deep", &text(bytes))).as_bytes(),
            ),
        ];
        raw.insert_one(of_elements(&both.concat())).await.unwrap();
    }
    let set = doc! { "$set": { "later": 1 } };
    let bytes = scene.collection("bytes");
    bytes.update_many(doc! {}, set).await.unwrap();
}

async fn a_hundred_levels_of_nesting(scene: Scene) {
    let mut deep = doc! { "bottom": 1 };
    for level in 0..100 {
        deep = match level % 2 {
            0 => doc! { "d": deep },
            _ => doc! { "l": [deep] },
        };
    }
    let nested = scene.collection("nested");
    nested
        .insert_one(doc! { "_id": 1, "x": deep })
        .await
        .unwrap();
    let path = format!("y{}", ".z".repeat(90));
    let set = doc! { "$set": { path: 1 } };
    nested.update_one(doc! { "_id": 1 }, set).await.unwrap();
}

async fn an_empty_timestamp_stays_empty(scene: Scene) {
    let empty = Timestamp {
        time: 0,
        increment: 0,
    };
    let times = scene.collection("times");
    times.insert_one(doc! { "_id": 1 }).await.unwrap();
    let set = doc! { "$set": { "at": empty, "in": { "at": empty } } };
    times.update_one(doc! { "_id": 1 }, set).await.unwrap();
    let literal = doc! { "$literal": { "_id": 2, "at": empty, "other": 1 } };
    times
        .update_one(doc! { "_id": 2 }, vec![doc! { "$replaceWith": literal }])
        .upsert(true)
        .await
        .unwrap();
    let found = times.find_one(doc! { "_id": 2 }).await.unwrap().unwrap();
    assert_eq!(found.get_timestamp("at").ok(), Some(empty));
}

async fn fields_in_another_order(scene: Scene) {
    let orders = scene.collection("orders");
    for id in 0..10 {
        orders
            .insert_one(doc! { "_id": id, "a": 1, "b": 2, "c": { "d": 1, "e": 2 } })
            .await
            .unwrap();
        let turned = doc! { "_id": id, "c": { "e": 2, "d": 1 }, "b": 2, "a": 1 };
        orders
            .replace_one(doc! { "_id": id }, turned)
            .await
            .unwrap();
        let pipeline = vec![
            doc! { "$unset": "b" },
            doc! { "$set": { "b": 2, "c": { "z": 1 } } },
        ];
        orders
            .update_one(doc! { "_id": id }, pipeline)
            .await
            .unwrap();
    }
}

async fn keys_of_every_type(scene: Scene) {
    let keys = scene.collection("keys");
    let refused = |value: &Bson| {
        matches!(
            value,
            Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined
        )
    };
    let mut ids: Vec<Bson> = values().into_iter().filter(|id| !refused(id)).collect();
    ids.extend([
        Bson::Double(1.0),
        Bson::Document(doc! { "a": 1, "b": 2 }),
        Bson::Document(doc! { "b": 2, "a": 1 }),
        Bson::Document(doc! { "a": { "$b": 1 }, "": 1 }),
        Bson::String(String::new()),
        Bson::String("x".repeat(5000)),
        Bson::Binary(bson::Uuid::from_bytes([9; 16]).into()),
        Bson::Boolean(false),
    ]);
    for id in &ids {
        // NaN of both types is one key.
        let _ = keys.insert_one(doc! { "_id": id.clone(), "v": 1 }).await;
    }
    for (number, id) in ids.into_iter().enumerate() {
        let one = doc! { "_id": { "$eq": id } };
        match number % 3 {
            0 => {
                keys.update_one(one, doc! { "$set": { "v": 2 } })
                    .await
                    .unwrap();
            }
            1 => {
                keys.replace_one(one, doc! { "w": 1 }).await.unwrap();
            }
            _ => {
                keys.delete_one(one).await.unwrap();
            }
        }
    }
    assert!(keys.count_documents(doc! {}).await.unwrap() > 15);
}

async fn keys_that_are_equal_but_of_another_type(scene: Scene) {
    let keys = scene.collection("keys");
    let types = [
        RawBson::Int32(7),
        RawBson::Double(7.0),
        RawBson::Int64(7),
        RawBson::Decimal128("7.00".parse().expect("a decimal")),
    ];
    for id in types {
        let raw = scene.raw("keys");
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("_id"), id);
        document.append(cstr!("v"), 1);
        raw.delete_one(doc! { "_id": 7 }).await.unwrap();
        raw.insert_one(document).await.unwrap();
        let set = doc! { "$inc": { "v": 1 } };
        keys.update_one(doc! { "_id": 7 }, set).await.unwrap();
    }
    let nested = |one: Bson| doc! { "_id": { "k": one }, "v": 1 };
    keys.insert_one(nested(Bson::Int32(1))).await.unwrap();
    keys.delete_one(doc! { "_id": { "k": 1 } }).await.unwrap();
    keys.insert_one(nested(Bson::Double(1.0))).await.unwrap();
}
