//! Statements as commands: as few of them as the server's limit allows, each put together once.

use std::ops::Deref;

use bson::raw::CStr;
use bson::{RawDocument, RawDocumentBuf, Uuid, cstr};

use crate::change::{LIST_ELEMENT_BYTES_MAX, with_list};
use crate::fault::Fault;

/// A command may be as large as a document, with 16 KB for what is around it.
const COMMAND_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Statements in as few commands as the server's limit on a command allows. A statement that is
/// larger than that goes alone.
pub fn commands<S: Deref<Target = RawDocument>>(statements: &[S]) -> Vec<&[S]> {
    let mut commands = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (index, statement) in statements.iter().enumerate() {
        let size = statement.as_bytes().len() + LIST_ELEMENT_BYTES_MAX;
        if index > first && bytes + size > COMMAND_BYTES_MAX {
            commands.push(&statements[first..index]);
            (first, bytes) = (index, 0);
        }
        bytes += size;
    }
    if first < statements.len() {
        commands.push(&statements[first..]);
    }
    commands
}

/// The body of an `insert`, `update` or `delete` command.
pub fn write_command<S: Deref<Target = RawDocument>>(
    verb: &'static CStr,
    collection: &str,
    uuid: Option<Uuid>,
    statements: &[S],
) -> RawDocumentBuf {
    let mut command = RawDocumentBuf::new();
    command.append(verb, collection);
    if let Some(uuid) = uuid.filter(|_| !Fault::NoUuid.is_on()) {
        command.append(cstr!("collectionUUID"), bson::Binary::from(uuid));
    }
    if verb != cstr!("delete") {
        command.append(cstr!("bypassDocumentValidation"), true);
    }
    command.append(cstr!("ordered"), true);
    let list = match verb.as_str() {
        "insert" => cstr!("documents"),
        "update" => cstr!("updates"),
        _ => cstr!("deletes"),
    };
    with_list(command, list, statements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn statements_that_fit_into_no_command_together_go_in_several() {
        let of = |bytes: usize| rawdoc! { "s": "x".repeat(bytes) };
        let sizes = |statements: &[RawDocumentBuf]| -> Vec<usize> {
            commands(statements).iter().map(|some| some.len()).collect()
        };
        const MB: usize = 1024 * 1024;
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec![of(10); 1000]), [1000]);
        assert_eq!(sizes(&vec![of(5 * MB); 7]), [3, 3, 1]);
        assert_eq!(sizes(&[of(10), of(17 * MB), of(10)]), [1, 1, 1]);
    }
}
