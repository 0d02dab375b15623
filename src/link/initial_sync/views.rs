//! Views, made once what they show is there.

use bson::doc;

use super::survey::Surveyed;
use crate::change::{Pair, Renames};
use crate::cluster::{Cluster, errors};
use crate::ddl::view_options;
use crate::pipeline::insist;

/// Makes a view as it was found on the other cluster, unless its name is taken. Gives the reason
/// where the target will not have it.
pub async fn create(target: &Cluster, view: &Surveyed, renames: &Renames) -> Option<String> {
    let source = target.side.other();
    let namespace = &view.counterpart;
    let mut names = Pair::new(namespace.clone(), namespace.clone());
    names[source] = view.namespace.clone();
    let options = match view_options(&view.options, source, &names, renames) {
        Ok(options) => options,
        Err(reason) => return Some(reason),
    };
    let mut command = doc! { "create": namespace.collection() };
    command.extend(options);
    command.insert("writeConcern", doc! { "w": "majority" });
    let doing = format!("create the view {namespace}");
    let create = || target.command(namespace.database(), command.clone(), &doing);
    match insist(create).await {
        Ok(_) => None,
        Err(error) if errors::code_of(&error) == Some(errors::NAMESPACE_EXISTS) => None,
        Err(error) => Some(error.to_string()),
    }
}
