//! Views, made on one cluster as they are on the other. They hold no documents and have no UUID.

use std::time::Duration;

use bson::{Document, doc};

use super::bring::{Brought, Ran, is_gone};
use super::change::Change;
use super::definition::view_steps;
use super::intent::Subject;
use super::queue::Pending;
use super::turn::Decided;
use super::view_names::view_options;
use super::worker::Worker;
use crate::change::{Namespace, Pair, Side};
use crate::cluster::errors;
use crate::error::{ExitCode, Result};
use crate::pipeline::{Listed, list};

/// How often it is looked whether a turn is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

impl Worker {
    /// Makes a view as it is on the side that decides.
    pub(super) async fn view(&self, side: Side, pending: &Pending) -> Result<()> {
        let _changing = self.ddl.changing_views.lock().await;
        let on_a = &pending.on_a;
        let decided = self.decide(side, |by, other| self.is_about_view(by, other, on_a));
        let loser = decided.winner.other();
        let names = self.view_called(on_a);
        // A collection that has the name by now has a turn of its own, after this one.
        let source = list(self.cluster(decided.winner), &names[decided.winner]).await?;
        let source = source.filter(Listed::is_view);
        let target = list(self.cluster(loser), &names[loser]).await?;
        if target.as_ref().is_some_and(|there| !there.is_view()) {
            if source.is_some() {
                let reason = "a view and something else have the same name";
                self.on_record(side, &pending.event, None, reason).await?;
            }
            return Ok(());
        }
        let brought = self
            .make_view(loser, &names, source, target, &decided)
            .await?;
        // Where the other side wins, its event has a turn of its own.
        if brought == Brought::Refused && decided.winner == side {
            self.refused(side, pending).await?;
        }
        Ok(())
    }

    /// Whether a waiting event of `by` has changed a view, or dropped it with its database.
    fn is_about_view(&self, by: Side, other: &Pending, on_a: &Namespace) -> bool {
        let on = |side| self.shared.collections.renames().on(side, on_a);
        match other.change {
            Change::View => other.on_a == *on_a,
            Change::DropDatabase => other.event.namespace.database() == on(by).database(),
            _ => false,
        }
    }

    fn view_called(&self, on_a: &Namespace) -> Pair<Namespace> {
        let on = |side| self.shared.collections.renames().on(side, on_a);
        Pair::new(on(Side::A), on(Side::B))
    }

    /// Makes the view of `side` what the other one has, `source`. Where that takes anything, what
    /// loses a race goes on record.
    async fn make_view(
        &self,
        side: Side,
        names: &Pair<Namespace>,
        source: Option<Listed>,
        target: Option<Listed>,
        decided: &Decided,
    ) -> Result<Brought> {
        let name = &names[side];
        let renames = self.shared.collections.renames();
        let wanted =
            source.map(|source| view_options(&source.options, side.other(), names, renames));
        let wanted = match wanted.transpose() {
            Ok(wanted) => wanted,
            Err(reason) => {
                self.lose(decided).await?;
                self.ddl.problems.add(side, name, "view", &reason).await?;
                return Ok(Brought::Refused);
            }
        };
        let there: Option<Document> = target.map(|listed| listed.options);
        let steps = view_steps(name, wanted.as_ref(), there.as_ref());
        let subject = of_view(name);
        if !steps.is_empty() {
            self.lose(decided).await?;
        }
        for step in &steps {
            match self.execute(side, &subject, step).await? {
                Ran::Done => {}
                Ran::Refused(code, _) if is_gone(code, step) => {}
                Ran::Refused(_, error) => {
                    let reason = error.reason();
                    self.ddl.problems.add(side, name, "view", &reason).await?;
                    return Ok(Brought::Refused);
                }
            }
        }
        self.ddl.problems.clear(side, name, "view").await?;
        Ok(Brought::Over)
    }

    /// Views of a database that `side` has dropped go without an event of their own. Where the other
    /// side has changed one meanwhile, the later of the two decides; a change that wins has its turn.
    pub(super) async fn drop_views(&self, side: Side, database: &str) -> Result<()> {
        let _changing = self.ddl.changing_views.lock().await;
        let target = side.other();
        for on_a in self.views_of(side, database).await? {
            let names = self.view_called(&on_a);
            let source = list(self.cluster(side), &names[side]).await?;
            let there = list(self.cluster(target), &names[target]).await?;
            let (None, Some(there)) = (
                source.filter(Listed::is_view),
                there.filter(Listed::is_view),
            ) else {
                continue;
            };
            let decided = self.decide(side, |by, other| self.is_about_view(by, other, &on_a));
            if decided.winner == target {
                self.lost(&decided).await?;
                continue;
            }
            self.make_view(target, &names, None, Some(there), &decided)
                .await?;
        }
        Ok(())
    }

    /// Makes a view that a copy or a merge has found on the other side, as it is there by now. Nothing
    /// where it is gone, where `side` has something of its name, or has changed it: such a change has
    /// its turn. Gives the reason where `side` will not have it.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn copy_view(&self, side: Side, on_a: &Namespace) -> Result<Option<String>> {
        if self.ddl.sends(side) {
            self.see(side).await?;
        }
        // A turn between the look and the command would find nothing to be changed yet.
        let _changing = self.ddl.changing_views.lock().await;
        let about_it = |other: &Pending| self.is_about_view(side, other, on_a);
        if !self.ddl.queue.matching(side, about_it).is_empty() {
            return Ok(None);
        }
        let names = self.view_called(on_a);
        let source = list(self.cluster(side.other()), &names[side.other()]).await?;
        let there = list(self.cluster(side), &names[side]).await?;
        let (Some(source), None) = (source.filter(Listed::is_view), there) else {
            return Ok(None);
        };
        let renames = self.shared.collections.renames();
        let options = match view_options(&source.options, side.other(), &names, renames) {
            Ok(options) => options,
            Err(reason) => return Ok(Some(reason)),
        };
        for step in view_steps(&names[side], Some(&options), None) {
            match self.execute(side, &of_view(&names[side]), &step).await {
                Ok(Ran::Done) => {
                    let problems = &self.ddl.problems;
                    problems.clear(side, &names[side], "view").await?;
                }
                Ok(Ran::Refused(Some(errors::NAMESPACE_EXISTS), _)) => {}
                Ok(Ran::Refused(_, error)) => return Ok(Some(error.to_string())),
                Err(error) if error.exit == ExitCode::Cluster && !error.is_retryable() => {
                    return Ok(Some(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns once whatever the other cluster has done to a view of this name has had its turn: `side`
    /// does not have it any more then, if that is what it was.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn let_view_go(&self, side: Side, on_a: &Namespace) -> Result<()> {
        let by = side.other();
        if !self.ddl.sends(by) {
            return Ok(());
        }
        self.see(by).await?;
        let about_it = |other: &Pending| self.is_about_view(by, other, on_a);
        while !self.ddl.queue.matching(by, about_it).is_empty() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Included views of the other cluster that belong into a database of `side`.
    async fn views_of(&self, side: Side, database: &str) -> Result<Vec<Namespace>> {
        let target = side.other();
        let cluster = self.cluster(target);
        let renames = self.shared.collections.renames();
        let doing = format!("list the views of {}", cluster.name);
        let mut found = Vec::new();
        for there in renames.databases_of(side, database) {
            let command =
                doc! { "listCollections": 1, "filter": { "type": "view" }, "nameOnly": true };
            for view in cluster.all(&there, command, &doing).await? {
                let name = Namespace::new(&there, view.get_str("name").unwrap_or_default());
                let on_a = renames.on_a(target, &name);
                let on_a = on_a.filter(|_| self.ddl.namespaces.includes(target, &name));
                let belongs = |on_a: &Namespace| renames.on(side, on_a).database() == database;
                found.extend(on_a.filter(belongs));
            }
        }
        Ok(found)
    }
}

fn of_view(name: &Namespace) -> Subject {
    Subject {
        name: name.clone(),
        uuid: None,
        to: None,
        created: None,
    }
}
