//! A range of `_id`, and how it lies in a progress document.

use bson::{RawBson, RawDocument, RawDocumentBuf, cstr};

use crate::error::{Error, Result};

/// From `min` on, up to but without `max`, in the order of the index; none is without end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Range {
    pub min: Option<RawBson>,
    pub max: Option<RawBson>,
}

impl Range {
    /// Every document there is.
    pub fn whole() -> Range {
        Range::default()
    }

    /// The ranges between boundaries that rise in the order of the index.
    pub(super) fn between(boundaries: Vec<RawBson>) -> Vec<Range> {
        let mut ranges = Vec::with_capacity(boundaries.len() + 1);
        let mut min = None;
        for boundary in boundaries {
            let max = Some(boundary.clone());
            ranges.push(Range { min, max });
            min = Some(boundary);
        }
        ranges.push(Range { min, max: None });
        ranges
    }

    /// `{ min, max }`, without the one that is without end.
    pub fn to_document(&self) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        if let Some(min) = &self.min {
            document.append(cstr!("min"), min.clone());
        }
        if let Some(max) = &self.max {
            document.append(cstr!("max"), max.clone());
        }
        document
    }

    /// Reads what [`Range::to_document`] has written.
    ///
    /// # Errors
    /// A history error where it cannot be read.
    pub fn from_document(document: &RawDocument) -> Result<Range> {
        let end = |name: &str| {
            let value = document.get(name).map_err(|cause| {
                Error::history("a range of _id on record cannot be read").caused_by(cause)
            })?;
            Ok(value.map(RawBson::from))
        };
        Ok(Range {
            min: end("min")?,
            max: end("max")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc, rawdoc};

    fn raw(value: impl Into<Bson>) -> RawBson {
        RawBson::try_from(value.into()).unwrap()
    }

    #[test]
    fn ranges_lie_end_to_end_and_the_outer_ones_are_open() {
        let ranges = Range::between(vec![raw(1), raw("x")]);
        assert_eq!(ranges.len(), 3);
        assert_eq!((&ranges[0].min, &ranges[2].max), (&None, &None));
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].max, pair[1].min);
            assert!(pair[0].max.is_some());
        }
        assert_eq!(Range::between(Vec::new()), [Range::whole()]);
    }

    #[test]
    fn a_range_comes_back_from_a_document_with_its_types() {
        for value in [
            Bson::Null,
            Bson::Double(f64::NEG_INFINITY),
            Bson::Int64(1),
            Bson::MaxKey,
            Bson::Document(doc! { "b": 1, "a": { "x": 1.0 } }),
            Bson::Decimal128("1.50".parse().unwrap()),
        ] {
            for range in Range::between(vec![raw(value)]) {
                let document = range.to_document();
                assert_eq!(Range::from_document(&document).unwrap(), range);
            }
        }
        assert_eq!(Range::from_document(&rawdoc! {}).unwrap(), Range::whole());
    }
}
