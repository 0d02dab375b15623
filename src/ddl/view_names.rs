//! The collections that a view names, as the other cluster calls them. Pure.

use bson::{Array, Bson, Document};

use crate::change::{Namespace, Pair, Renames, Side};

/// Stages that hold pipelines of their own go this deep at most, as on the servers.
const DEPTH_MAX: usize = 20;

/// The options of the view called `names` on each cluster, as the one of `from` has to be on the
/// other one.
///
/// # Errors
/// Why the other cluster cannot have it.
pub fn view_options(
    options: &Document,
    from: Side,
    names: &Pair<Namespace>,
    renames: &Renames,
) -> Result<Document, String> {
    let mut options = options.clone();
    if renames.is_empty() {
        return Ok(options);
    }
    let reading = Reading {
        from,
        names,
        renames,
    };
    if let Some(Bson::String(shown)) = options.get_mut("viewOn") {
        *shown = reading.collection(shown)?;
    }
    if let Some(Bson::Array(pipeline)) = options.get_mut("pipeline") {
        reading.pipeline(pipeline, DEPTH_MAX)?;
    }
    Ok(options)
}

struct Reading<'a> {
    from: Side,
    names: &'a Pair<Namespace>,
    renames: &'a Renames,
}

impl Reading<'_> {
    fn pipeline(&self, stages: &mut Array, depth: usize) -> Result<(), String> {
        if depth == 0 {
            return Err("its pipelines lie too deep in each other".to_owned());
        }
        for stage in stages.iter_mut().filter_map(Bson::as_document_mut) {
            for (name, stage) in stage.iter_mut() {
                self.stage(name, stage, depth)?;
            }
        }
        Ok(())
    }

    fn stage(&self, name: &str, stage: &mut Bson, depth: usize) -> Result<(), String> {
        match (name, stage) {
            ("$unionWith", Bson::String(other)) => *other = self.collection(other)?,
            ("$lookup" | "$graphLookup" | "$unionWith", Bson::Document(parts)) => {
                for field in ["from", "coll"] {
                    if let Some(Bson::String(other)) = parts.get_mut(field) {
                        *other = self.collection(other)?;
                    }
                }
                if let Some(Bson::Array(inner)) = parts.get_mut("pipeline") {
                    self.pipeline(inner, depth - 1)?;
                }
            }
            ("$facet", Bson::Document(facets)) => {
                for (_, inner) in facets.iter_mut() {
                    if let Bson::Array(inner) = inner {
                        self.pipeline(inner, depth - 1)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Views name collections of their own database only.
    fn collection(&self, name: &str) -> Result<String, String> {
        let (here, there) = (&self.names[self.from], &self.names[self.from.other()]);
        let shown = Namespace::new(here.database(), name);
        match self.renames.on_other(self.from, &shown) {
            Some(other) if other.database() == there.database() => {
                Ok(other.collection().to_owned())
            }
            Some(other) => Err(format!(
                "it shows {shown}, which is {other} on the other cluster, in another database than the view"
            )),
            None => Err(format!(
                "it shows {shown}, which has no counterpart on the other cluster"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Rename;
    use bson::doc;

    fn renames() -> Renames {
        let rename = |a: &str, b: &str| Rename {
            a: a.to_owned(),
            b: b.to_owned(),
        };
        Renames::new(vec![
            rename("shop.o*", "shop.eu_o*"),
            rename("shop.far", "other.far"),
        ])
    }

    fn view() -> Pair<Namespace> {
        let view = Namespace::new("shop", "view");
        Pair::new(view.clone(), view)
    }

    #[test]
    fn every_collection_that_a_view_names_is_renamed_there_and_back() {
        let of = |orders: &str| {
            doc! {
                "viewOn": orders,
                "pipeline": [
                    { "$lookup": { "from": orders, "as": "orders", "pipeline": [
                        { "$unionWith": orders },
                    ] } },
                    { "$facet": { "orders": [{ "$graphLookup": { "from": orders } }] } },
                    { "$unionWith": { "coll": "items", "pipeline": [{ "$match": { "from": "orders" } }] } },
                ],
            }
        };
        let there = view_options(&of("orders"), Side::A, &view(), &renames()).unwrap();
        assert_eq!(there, of("eu_orders"));
        let back = view_options(&there, Side::B, &view(), &renames()).unwrap();
        assert_eq!(back, of("orders"));
    }

    #[test]
    fn a_view_that_would_show_another_database_or_nothing_of_the_link_says_so() {
        let far = doc! { "viewOn": "far", "pipeline": [] };
        let why = view_options(&far, Side::A, &view(), &renames()).unwrap_err();
        assert!(why.contains("other.far"), "{why}");
        let none = doc! { "viewOn": "orders", "pipeline": [] };
        let why = view_options(&none, Side::B, &view(), &renames()).unwrap_err();
        assert!(why.contains("no counterpart"), "{why}");
    }

    #[test]
    fn nothing_is_changed_without_renames() {
        let deep = doc! { "viewOn": "x", "pipeline": [{ "$unionWith": "y" }] };
        let same = view_options(&deep, Side::A, &view(), &Renames::default());
        assert_eq!(same, Ok(deep));
    }
}
