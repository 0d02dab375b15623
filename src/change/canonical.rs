//! Keys as the server compares them: values it calls equal come to the same bytes.

use bson::spec::ElementType;
use bson::{Decimal128, RawDocument};
use smallvec::SmallVec;

use super::raw::{DEPTH_MAX, RawElement, elements};

/// Canonical bytes; those of numbers, ObjectIds and UUIDs take no allocation.
pub type Canonical = SmallVec<[u8; 24]>;

/// Tags of the canonical form. Only equality matters, not order.
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const NOT_A_NUMBER: u8 = 3;
const TEXT: u8 = 4;
const DOCUMENT: u8 = 5;
const OTHER: u8 = 6;
const ARRAY: u8 = 7;

/// The canonical bytes of a document's `_id` element (simple collation).
///
/// 1, 1.0 and Decimal 1 come to the same bytes, inside sub-documents and their arrays too; the fields of a
/// sub-document keep their order, since the server tells `{a, b}` from `{b, a}`.
pub fn canonical(element: &RawElement<'_>) -> Canonical {
    let mut out = Canonical::new();
    append(element, 0, &mut out);
    out
}

fn append(element: &RawElement<'_>, depth: usize, out: &mut Canonical) {
    let (kind, value) = element.kind_and_value();
    match ElementType::from(kind) {
        Some(ElementType::Int32) => integer(i64::from(i32::from_le_bytes(fixed(value))), out),
        Some(ElementType::Int64) => integer(i64::from_le_bytes(fixed(value)), out),
        Some(ElementType::Double) => double(f64::from_le_bytes(fixed(value)), out),
        Some(ElementType::Decimal128) => decimal(&Decimal128::from_bytes(fixed(value)), out),
        Some(ElementType::String | ElementType::Symbol) => {
            out.push(TEXT);
            out.extend_from_slice(value);
        }
        Some(ElementType::EmbeddedDocument) => nested(DOCUMENT, value, depth, out),
        Some(ElementType::Array) => nested(ARRAY, value, depth, out),
        _ => {
            out.push(OTHER);
            out.push(kind);
            out.extend_from_slice(value);
        }
    }
}

fn nested(tag: u8, value: &[u8], depth: usize, out: &mut Canonical) {
    let parts = RawDocument::from_bytes(value)
        .ok()
        .filter(|_| depth < DEPTH_MAX)
        .and_then(|document| elements(document).ok());
    let Some(parts) = parts else {
        out.push(OTHER);
        out.extend_from_slice(value);
        return;
    };
    out.push(tag);
    for part in &parts {
        out.push(1);
        out.extend_from_slice(part.name.as_bytes());
        out.push(0);
        append(part, depth + 1, out);
    }
    out.push(0);
}

fn integer(value: i64, out: &mut Canonical) {
    out.push(INTEGER);
    out.extend_from_slice(&value.to_be_bytes());
}

fn double(value: f64, out: &mut Canonical) {
    /// 2^63, the first double past the range of int64.
    const INT64_END: f64 = 9_223_372_036_854_775_808.0;
    /// Enough digits to write any double out in full.
    const EXACT_DIGITS: usize = 770;
    if value.is_nan() {
        out.push(NOT_A_NUMBER);
    } else if value.is_infinite() {
        real(value < 0.0, "inf", 0, out);
    } else if value.fract() == 0.0 && (-INT64_END..INT64_END).contains(&value) {
        integer(value as i64, out);
    } else {
        let text = format!("{:.*e}", EXACT_DIGITS, value.abs());
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i64 = exponent.parse().unwrap_or(0);
        let fraction = digits.len() as i64 - 2;
        number(
            value < 0.0,
            &digits.replace('.', ""),
            exponent - fraction,
            out,
        );
    }
}

fn decimal(value: &Decimal128, out: &mut Canonical) {
    let text = value.to_string();
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.as_str()),
    };
    if text.eq_ignore_ascii_case("nan") {
        out.push(NOT_A_NUMBER);
        return;
    }
    if text.to_ascii_lowercase().starts_with("inf") {
        real(negative, "inf", 0, out);
        return;
    }
    let (mantissa, exponent) = text.split_once(['E', 'e']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.trim_start_matches('+').parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    number(negative, &digits, exponent - fraction.len() as i64, out);
}

/// `digits` × 10^`exponent`: as an integer where it is one that int64 holds, else normalised.
fn number(negative: bool, digits: &str, exponent: i64, out: &mut Canonical) {
    const INT64_DIGITS_MAX: i64 = 19;
    let significant = digits.trim_start_matches('0');
    let trimmed = significant.trim_end_matches('0');
    if trimmed.is_empty() {
        return integer(0, out);
    }
    let exponent = exponent + (significant.len() - trimmed.len()) as i64;
    if exponent >= 0 && trimmed.len() as i64 + exponent <= INT64_DIGITS_MAX {
        let sign = if negative { "-" } else { "" };
        let zeros = "0".repeat(exponent as usize);
        if let Ok(value) = format!("{sign}{trimmed}{zeros}").parse() {
            return integer(value, out);
        }
    }
    real(negative, trimmed, exponent, out);
}

fn real(negative: bool, digits: &str, exponent: i64, out: &mut Canonical) {
    out.push(REAL);
    out.push(u8::from(negative));
    out.extend_from_slice(digits.as_bytes());
    out.push(b'e');
    out.extend_from_slice(&exponent.to_be_bytes());
}

/// The first `N` bytes of a fixed-width value; shorter input (a broken frame) is filled with zeros.
fn fixed<const N: usize>(value: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let length = value.len().min(N);
    bytes[..length].copy_from_slice(&value[..length]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, RawDocumentBuf, doc};

    fn of(value: impl Into<Bson>) -> Canonical {
        let document = RawDocumentBuf::try_from(&doc! { "_id": value.into() }).unwrap();
        canonical(&elements(&document).unwrap()[0])
    }

    fn dec(text: &str) -> Bson {
        Bson::Decimal128(text.parse().unwrap())
    }

    #[test]
    fn numbers_the_server_calls_equal_are_one_key() {
        for one in [
            Bson::Int64(1),
            Bson::Double(1.0),
            dec("1"),
            dec("1.000"),
            dec("10E-1"),
        ] {
            assert_eq!(of(1), of(one));
        }
        assert_eq!(of(0.0), of(-0.0));
        assert_eq!(of(0), of(dec("-0E+3")));
        assert_eq!(of(0.5), of(dec("0.50")));
        assert_eq!(of(1e20), of(dec("1E20")));
        assert_eq!(of(i64::MIN), of(dec("-9223372036854775808")));
        assert_eq!(of(f64::NAN), of(dec("NaN")));
        assert_eq!(of(f64::INFINITY), of(dec("Infinity")));
    }

    #[test]
    fn numbers_that_only_look_alike_are_different_keys() {
        assert_ne!(of(0.1), of(dec("0.1")));
        assert_ne!(of(1), of(-1));
        assert_ne!(of(i64::MAX), of(i64::MAX as f64));
        assert_ne!(of(f64::INFINITY), of(f64::NEG_INFINITY));
        assert_ne!(of(1), of("1"));
        assert_ne!(of(1), of(true));
    }

    #[test]
    fn sub_documents_compare_by_value_and_by_field_order() {
        assert_eq!(
            of(doc! { "a": 1, "b": 2.0 }),
            of(doc! { "a": 1.0, "b": 2_i64 })
        );
        assert_ne!(of(doc! { "a": 1, "b": 2 }), of(doc! { "b": 2, "a": 1 }));
        assert_ne!(of(doc! { "a": { "b": 1 } }), of(doc! { "a": {}, "b": 1 }));
    }

    #[test]
    fn arrays_inside_sub_documents_compare_by_value() {
        let list = |items: Vec<Bson>| of(doc! { "k": items });
        assert_eq!(
            list(vec![1.into(), doc! { "b": 2 }.into()]),
            list(vec![1.0.into(), doc! { "b": 2_i64 }.into()])
        );
        assert_ne!(
            list(vec![1.into(), 2.into()]),
            list(vec![2.into(), 1.into()])
        );
        assert_ne!(list(vec![1.into()]), of(doc! { "k": { "0": 1 } }));
    }

    #[test]
    fn a_symbol_is_the_string_it_spells() {
        assert_eq!(of("x"), of(Bson::Symbol("x".into())));
    }
}
