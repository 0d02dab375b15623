//! Records as JSON: plain where people and scripts look, canonical extended JSON where documents are.
//!
//! It is written as text from the raw bytes, so field order and duplicate names survive, and text
//! that is not UTF-8 is shown with replacement characters instead of failing.

use bson::raw::RawElement;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, RawArray, RawBsonRef, RawDocument};

use crate::change::rfc3339;

/// The parts of a record that hold fields of tandem's own, not somebody's document.
const PARTS: [&str; 3] = ["winning", "losing", "restored"];
/// What stands in for a value or the rest of a document whose bytes are broken.
const UNREADABLE: &str = "$unreadable";

/// JSON escapes some control characters only, and a terminal obeys the others too. They stand in
/// texts alone.
pub(super) fn without_controls(json: String) -> String {
    if !json.contains(char::is_control) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match character.is_control() {
            true => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => out.push(character),
        }
    }
    out
}

/// One line of JSON for a record; `_id` is called `id`.
pub fn record_json(record: &RawDocument) -> String {
    let mut out = String::with_capacity(record.as_bytes().len() * 2);
    write_fields(&mut out, record, |out, element| {
        let name = element.key().as_str();
        write_name(out, if name == "_id" { "id" } else { name });
        match element.value() {
            Ok(RawBsonRef::Document(part)) if PARTS.contains(&name) => {
                write_fields(out, part, |out, element| {
                    write_name(out, element.key().as_str());
                    write_plain(out, element);
                });
            }
            _ => write_plain(out, element),
        }
    });
    out
}

/// A document as canonical extended JSON.
pub fn write_canonical(out: &mut String, document: &RawDocument) {
    write_fields(out, document, |out, element| {
        write_name(out, element.key().as_str());
        write_canonical_value(out, element);
    });
}

/// A field of a record or of one of its parts.
pub(super) fn write_plain(out: &mut String, element: &RawElement<'_>) {
    match element.value() {
        Ok(RawBsonRef::String(text)) => write_text(out, text),
        Ok(RawBsonRef::Int32(number)) => out.push_str(&number.to_string()),
        Ok(RawBsonRef::Int64(number)) => out.push_str(&number.to_string()),
        Ok(RawBsonRef::DateTime(time)) => write_text(out, &rfc3339(time)),
        Ok(RawBsonRef::Timestamp(at)) => {
            out.push_str(&format!("[{},{}]", at.time, at.increment));
        }
        _ => write_canonical_value(out, element),
    }
}

/// The value alone, as canonical extended JSON.
pub(super) fn canonical_value(element: &RawElement<'_>) -> String {
    let mut out = String::new();
    write_canonical_value(&mut out, element);
    out
}

fn write_canonical_value(out: &mut String, element: &RawElement<'_>) {
    match element.value() {
        Ok(RawBsonRef::Document(document)) => write_canonical(out, document),
        Ok(RawBsonRef::Array(array)) => write_array(out, array),
        Ok(RawBsonRef::JavaScriptCodeWithScope(code)) => {
            out.push('{');
            write_name(out, "$code");
            write_text(out, code.code);
            out.push(',');
            write_name(out, "$scope");
            write_canonical(out, code.scope);
            out.push('}');
        }
        _ => write_scalar(out, element),
    }
}

fn write_scalar(out: &mut String, element: &RawElement<'_>) {
    let value = element
        .value_utf8_lossy()
        .and_then(Bson::try_from)
        .map(Bson::into_canonical_extjson);
    match value {
        Ok(value) => out.push_str(&without_controls(value.to_string())),
        Err(_) => {
            out.push('{');
            write_name(out, UNREADABLE);
            out.push_str("true}");
        }
    }
}

fn write_array(out: &mut String, array: &RawArray) {
    let Ok(items) = RawDocument::from_bytes(array.as_bytes()) else {
        return write_bytes(out, array.as_bytes());
    };
    out.push('[');
    for (at, item) in items.iter_elements().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match item {
            Ok(item) => write_canonical_value(out, &item),
            Err(_) => {
                write_bytes(out, array.as_bytes());
                break;
            }
        }
    }
    out.push(']');
}

fn write_fields(
    out: &mut String,
    document: &RawDocument,
    write_field: impl Fn(&mut String, &RawElement<'_>),
) {
    out.push('{');
    for (at, element) in document.iter_elements().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match element {
            Ok(element) => write_field(out, &element),
            Err(_) => {
                write_name(out, UNREADABLE);
                write_bytes(out, document.as_bytes());
                break;
            }
        }
    }
    out.push('}');
}

fn write_name(out: &mut String, name: &str) {
    write_text(out, name);
    out.push(':');
}

fn write_text(out: &mut String, text: &str) {
    out.push_str(&without_controls(serde_json::Value::from(text).to_string()));
}

fn write_bytes(out: &mut String, bytes: &[u8]) {
    let bytes = Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    });
    out.push_str(&bytes.into_canonical_extjson().to_string());
}
