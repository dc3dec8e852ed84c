//! One maintained table, in few words: combines the functions of this crate.

use std::collections::BTreeMap;

use chrono::Utc;
use tokio_postgres::Client;

use crate::{
    Action, Archive, ArchiveError, Error, Finding, Limits, Moves, Need, Outcome, Policy, Reference, Report, Request,
    Restored, Retention, Scope, Switches, Table, Terms, Undone, add_hold, audit, doctor_table, ensure, hindrances,
    install, newest_rows, plan_moves, read_inventory, release_hold, restore, retire, undo, unfit,
};

/// A table, its layout in leaves, and the retention of its rows.
///
/// Each method needs a direct connection, not one through a pooler. The connection's current role owns the table and may write to
/// its registry. [`Manager::retire`], [`Manager::undo`] and [`Manager::restore`] change session settings, and only one session of
/// a database runs them at a time. All methods are safe to call again after a crash anywhere, and from several processes.
#[derive(Debug, Clone)]
pub struct Manager {
    /// The table, and its registry.
    pub table: Table,
    /// The rule that cuts it into leaves.
    pub policy: Policy,
    /// The retention of its rows.
    pub retention: Retention,
    /// The allowed operations.
    pub switches: Switches,
    /// The place of its archives.
    pub archive: Option<Archive>,
    /// Whether a run may begin with more than [`Retention::max_leaves`] and [`Retention::max_share`] at once: an operator has
    /// checked and allowed this.
    pub allow_many: bool,
}

impl Manager {
    /// A manager with daily leaves and rows that stay for ever.
    pub fn new(table: Table) -> Self {
        let (policy, retention) = (Policy::default(), Retention::default());
        Self { table, policy, retention, switches: Switches::ALL, archive: None, allow_many: false }
    }

    /// The manager with another policy.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The manager with this retention.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// The manager with this archive.
    #[must_use]
    pub fn with_archive(self, archive: Archive) -> Self {
        Self { archive: Some(archive), ..self }
    }

    /// Makes a missing registry for the current role. Returns whether it made one.
    ///
    /// # Errors
    /// As [`install`]; and [`Error::Unfit`], before anything is made, if the table cannot be managed.
    pub async fn install(&self, client: &mut Client) -> Result<bool, Error> {
        if let Some(why) = unfit(client, &self.table).await? {
            return Err(Error::Unfit { what: self.table.to_string(), why });
        }
        install(client, &self.table.registry).await
    }

    /// Makes the leaves for the rows of a key: for the times of the next rows, and ahead of them. If all leaves exist, only the
    /// catalog is queried.
    ///
    /// # Errors
    /// As [`ensure`].
    pub async fn ensure(&self, client: &mut Client, key: i64, need: &Need) -> Result<Report, Error> {
        ensure(client, &self.table, key, &self.policy, Utc::now(), need).await
    }

    /// The first moves that [`Manager::retire`] would make, and the obstacles of the others. Changes nothing.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn plan(&self, client: &mut Client) -> Result<Moves, Error> {
        let reference = self.reference(client).await?;
        let inventory = read_inventory(client, &self.table).await?;
        Ok(plan_moves(&inventory, &self.terms(&reference)))
    }

    /// Does all due moves. A leaf is due if all of its rows are older than the retention's time, counted back from the newest row
    /// of their key; its action then follows.
    ///
    /// # Errors
    /// As [`retire`]. A leaf that could not move is no error: see [`Outcome::failed`].
    pub async fn retire(&self, client: &mut Client) -> Result<Outcome, Error> {
        let reference = self.reference(client).await?;
        retire(client, &self.table, &self.terms(&reference), self.archive.as_ref()).await
    }

    /// Findings about the leaves, about their environment, and about future obstacles.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn audit(&self, client: &mut Client) -> Result<Vec<Finding>, Error> {
        let mut findings = audit(client, &self.table).await?;
        findings.extend(doctor_table(client, &self.table, &Limits::default()).await?);
        let inventory = read_inventory(client, &self.table).await?;
        findings.extend(hindrances(&inventory, &self.table, self.retention.action));
        Ok(findings)
    }

    /// Keeps the rows in `scope`, against the retention, until the hold is released. Returns its number.
    ///
    /// # Errors
    /// As [`add_hold`].
    pub async fn hold(&self, client: &mut Client, scope: &Scope, reason: &str, author: &str) -> Result<i64, Error> {
        add_hold(client, &self.table, scope, reason, author).await.map(|(id, _)| id)
    }

    /// Releases a hold.
    ///
    /// # Errors
    /// If there is no valid hold with this number; if the server refuses.
    pub async fn release(&self, client: &mut Client, hold: i64, by: &str) -> Result<(), Error> {
        release_hold(client, &self.table.registry, hold, by).await
    }

    /// Returns a leaf that is on its way and not dropped to its table, with every newer leaf of its key, and puts a hold on them.
    ///
    /// # Errors
    /// As [`undo`].
    pub async fn undo(&self, client: &mut Client, leaf: &str, reason: &str, author: &str) -> Result<Undone, Error> {
        undo(client, &self.table, leaf, reason, author).await
    }

    /// Restores a dropped leaf from the archive, and puts a hold on it.
    ///
    /// # Errors
    /// As [`restore`]; and if there is no archive.
    pub async fn restore(&self, client: &mut Client, request: &Request<'_>) -> Result<Restored, Error> {
        let Some(archive) = &self.archive else {
            let why = "the manager has none".to_owned();
            return Err(ArchiveError::Url { why }.into());
        };
        restore(client, &self.table, archive, request).await
    }

    fn terms<'m>(&'m self, reference: &'m Reference) -> Terms<'m> {
        Terms {
            retention: &self.retention,
            switches: self.switches,
            reference,
            can_archive: self.archive.is_some(),
            allow_many: self.allow_many,
        }
    }

    /// The newest row of a key decides the age of its rows.
    async fn reference(&self, client: &mut Client) -> Result<Reference, Error> {
        let newest = match self.retention.action {
            Action::Keep => BTreeMap::new(),
            _ => newest_rows(client, &self.table, self.retention.time).await?,
        };
        Ok(Reference::Final(newest))
    }
}
