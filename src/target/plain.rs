//! Documents put at the end of a collection that takes no transactions, each as it is.

use bson::{RawDocument, RawDocumentBuf, Uuid, cstr, rawdoc};

use super::command::{commands, write_command};
use super::statements::{replace, survives_insert};
use crate::change::{DocumentKey, Namespace};
use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// Inserts documents in their order, with majority (`insert`, `ordered`). They have no origin and no
/// fence, so nobody else may write there. With the collection's UUID, what a killed process had
/// still under way cannot reach a collection that was made anew.
///
/// # Errors
/// As the cluster says; some of them may have been inserted then.
pub async fn append(
    cluster: &Cluster,
    namespace: &Namespace,
    uuid: Option<Uuid>,
    documents: &[RawDocumentBuf],
) -> Result<()> {
    let doing = format!("insert into {namespace} on {}", cluster.name);
    let alike = |one: &RawDocumentBuf, other: &RawDocumentBuf| {
        survives_insert(one) == survives_insert(other)
    };
    for run in documents.chunk_by(alike) {
        let inserts = run.first().is_some_and(|first| survives_insert(first));
        let statements = match inserts {
            true => run.to_vec(),
            false => upserts(namespace, run)?,
        };
        let verb = if inserts {
            cstr!("insert")
        } else {
            cstr!("update")
        };
        for some in commands(&statements) {
            let mut command = write_command(verb, namespace.collection(), uuid, some);
            command.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
            cluster.write(namespace.database(), command, &doing).await?;
        }
    }
    Ok(())
}

fn upserts(namespace: &Namespace, documents: &[RawDocumentBuf]) -> Result<Vec<RawDocumentBuf>> {
    let upsert = |document: &RawDocumentBuf| {
        let document: &RawDocument = document;
        let key = DocumentKey::of(namespace, document);
        let key = key.ok_or_else(|| Error::bug("a document without _id"))?;
        Ok(replace(&key, document))
    };
    documents.iter().map(upsert).collect()
}
