//! Who brings a losing version back: put on its record, for whoever audits it.

use std::os::unix::fs::MetadataExt;

use bson::{DateTime, Document, RawDocumentBuf, doc, rawdoc};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::error::Result;

/// The user of this host, the account of the cluster, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restorer {
    pub at: DateTime,
    pub user: String,
    pub host: String,
    pub account: String,
}

impl Restorer {
    /// Whoever runs this process, as the cluster knows it.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn here(cluster: &Cluster) -> Result<Self> {
        let doing = format!("ask {} for this account", cluster.name);
        let command = doc! { "connectionStatus": 1 };
        let reply = cluster.command("admin", command, &doing).await?;
        Ok(Self {
            at: DateTime::now(),
            user: user(),
            host: host(),
            account: account(&reply),
        })
    }

    pub fn to_document(&self) -> RawDocumentBuf {
        rawdoc! {
            "at": self.at,
            "user": self.user.as_str(),
            "host": self.host.as_str(),
            "account": self.account.as_str(),
        }
    }
}

fn account(reply: &Document) -> String {
    let auth = reply.get_document("authInfo").ok();
    let users = auth.and_then(|auth| auth.get_array("authenticatedUsers").ok());
    let names = users.into_iter().flatten().filter_map(|user| {
        let user = user.as_document()?;
        let (name, database) = (user.get_str("user").ok()?, user.get_str("db").ok()?);
        Some(format!("{name}@{database}"))
    });
    let names: Vec<String> = names.collect();
    match names.is_empty() {
        true => "nobody (no authentication)".to_owned(),
        false => names.join(", "),
    }
}

/// The system's name of the user, not what the environment says; who called sudo stands beside it.
fn user() -> String {
    let id = std::fs::metadata("/proc/self").map(|own| own.uid());
    let user = match id {
        Ok(id) => name_of(id).unwrap_or_else(|| format!("user {id}")),
        Err(_) => std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()),
    };
    match std::env::var("SUDO_USER") {
        Ok(caller) => format!("{user} (sudo by {caller})"),
        Err(_) => user,
    }
}

fn name_of(id: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.map(|name| name.trim().to_owned());
    name.ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_named_with_its_database() {
        let of =
            |users: Vec<Document>| account(&doc! { "authInfo": { "authenticatedUsers": users } });
        assert_eq!(of(vec![doc! { "user": "ann", "db": "admin" }]), "ann@admin");
        assert_eq!(of(vec![]), "nobody (no authentication)");
        assert_eq!(account(&doc! {}), "nobody (no authentication)");
    }

    #[test]
    fn the_user_and_the_host_have_names() {
        assert!(!user().is_empty() && user() != "unknown");
        assert!(!host().is_empty());
    }
}
