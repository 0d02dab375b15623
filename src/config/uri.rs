//! Where a cluster's connection string comes from: exactly one of four places.

use std::path::Path;

use super::environment::Environment;
use super::keys::variable_of;
use super::typed::Settings;

const SCHEMES: [&str; 2] = ["mongodb://", "mongodb+srv://"];

/// The connection string of the cluster that `table` describes.
///
/// # Errors
/// A key and a problem. It never shows what was typed: that may be a connection string under the
/// wrong key.
pub fn find(
    settings: &Settings,
    table: &str,
    folder: &Path,
    environment: &Environment,
) -> Result<String, (String, String)> {
    let key = only_one_given(settings, table)?;
    let refused = |what: &str| (key.clone(), what.to_owned());
    let typed = settings.text(&key);
    let found = if key.ends_with(".uri_env") {
        environment
            .get(typed)
            .ok_or_else(|| refused("names an environment variable that is not set"))?
            .to_owned()
    } else if key.ends_with(".uri_file") {
        std::fs::read_to_string(folder.join(typed)).map_err(|error| {
            refused(&format!(
                "names a file that cannot be read: {}",
                error.kind()
            ))
        })?
    } else {
        typed.to_owned()
    };
    let found = found.trim();
    if !SCHEMES.iter().any(|scheme| found.starts_with(scheme)) {
        let [plain, srv] = SCHEMES;
        return Err(refused(&format!(
            "must give a connection string that starts with {plain} or {srv}"
        )));
    }
    Ok(found.to_owned())
}

fn only_one_given(settings: &Settings, table: &str) -> Result<String, (String, String)> {
    let keys = ["uri", "uri_env", "uri_file"].map(|name| format!("{table}.{name}"));
    let variable = variable_of(&keys[0]);
    let given_twice = settings.is_given_twice(&keys[0]);
    let mut given = keys
        .into_iter()
        .filter(|key| settings.text_given(key).is_some());
    let ways = format!("uri, uri_env, uri_file and the environment variable {variable}");
    match (given.next(), given.next()) {
        (None, _) => Err((table.to_owned(), format!("give one of {ways}"))),
        (Some(key), None) if !given_twice => Ok(key),
        (Some(_), _) => Err((table.to_owned(), format!("give only one of {ways}"))),
    }
}
