//! One table that is looked after, in a few words: what the functions of this crate do with its parts.

use std::collections::BTreeMap;

use chrono::Utc;
use tokio_postgres::Client;

use crate::{
    Action, Archive, ArchiveError, Error, Finding, Limits, Moves, Need, Outcome, Policy, Reference, Report, Request,
    Restored, Retention, Scope, Switches, Table, Terms, Undone, add_hold, audit, doctor_table, ensure, hindrances,
    install, newest_rows, plan_moves, read_inventory, release_hold, restore, retire, undo, unfit,
};

/// A table, how it is cut, and how long its rows are kept.
///
/// Each method wants a direct connection, not one through a pooler, whose current role owns the table and may write to its registry;
/// [`Manager::retire`], [`Manager::undo`] and [`Manager::restore`] change its session's settings, and one session of a database at a time
/// is in them. All are safe to call again after a crash anywhere, and from several processes.
#[derive(Debug, Clone)]
pub struct Manager {
    /// The table, and its registry.
    pub table: Table,
    /// How it is cut into leaves.
    pub policy: Policy,
    /// How long its rows are kept, and what then.
    pub retention: Retention,
    /// What may be done at all.
    pub switches: Switches,
    /// Where leaves are archived.
    pub archive: Option<Archive>,
    /// Whether more than [`Retention::max_leaves`] and [`Retention::max_share`] say may begin to go at once: somebody looked, and it is
    /// meant.
    pub allow_many: bool,
}

impl Manager {
    /// With leaves of days, and rows that are kept for ever.
    pub fn new(table: Table) -> Self {
        let (policy, retention) = (Policy::default(), Retention::default());
        Self { table, policy, retention, switches: Switches::ALL, archive: None, allow_many: false }
    }

    /// The same, cut another way.
    #[must_use]
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The same, whose rows are kept so long.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// The same, archived there.
    #[must_use]
    pub fn with_archive(self, archive: Archive) -> Self {
        Self { archive: Some(archive), ..self }
    }

    /// Makes the registry where there is none, for the current role. Answers whether anything was made.
    ///
    /// # Errors
    /// As [`install`]; and [`Error::Unfit`], before anything is made, where the table is none that can be managed.
    pub async fn install(&self, client: &mut Client) -> Result<bool, Error> {
        if let Some(why) = unfit(client, &self.table).await? {
            return Err(Error::Unfit { what: self.table.to_string(), why });
        }
        install(client, &self.table.registry).await
    }

    /// Makes the leaves that a key's rows need: of times that are about to be written, and ahead of them. Where all are there, it asks the
    /// catalog and no more.
    ///
    /// # Errors
    /// As [`ensure`].
    pub async fn ensure(&self, client: &mut Client, key: i64, need: &Need) -> Result<Report, Error> {
        ensure(client, &self.table, key, &self.policy, Utc::now(), need).await
    }

    /// What [`Manager::retire`] would do first, and what stands in the way of the rest. Changes nothing.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn plan(&self, client: &mut Client) -> Result<Moves, Error> {
        let reference = self.reference(client).await?;
        let inventory = read_inventory(client, &self.table).await?;
        Ok(plan_moves(&inventory, &self.terms(&reference)))
    }

    /// Does all that is due: leaves whose rows are all older than the retention's time, counted back from the newest row of their key, go
    /// as its action says.
    ///
    /// # Errors
    /// As [`retire`]. A leaf that could not go is no error: see [`Outcome::failed`].
    pub async fn retire(&self, client: &mut Client) -> Result<Outcome, Error> {
        let reference = self.reference(client).await?;
        retire(client, &self.table, &self.terms(&reference), self.archive.as_ref()).await
    }

    /// What should not be, of what stands, of what it stands on, and of what will be in the way one day.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn audit(&self, client: &mut Client) -> Result<Vec<Finding>, Error> {
        let mut findings = audit(client, &self.table).await?;
        findings.extend(doctor_table(client, &self.table, &Limits::default()).await?);
        let inventory = read_inventory(client, &self.table).await?;
        findings.extend(hindrances(&inventory, &self.table, self.retention.action));
        Ok(findings)
    }

    /// Keeps what lies in `scope`, whatever the retention says, until the hold is released. Answers its number.
    ///
    /// # Errors
    /// As [`add_hold`].
    pub async fn hold(&self, client: &mut Client, scope: &Scope, reason: &str, author: &str) -> Result<i64, Error> {
        add_hold(client, &self.table, scope, reason, author).await.map(|(id, _)| id)
    }

    /// Releases a hold.
    ///
    /// # Errors
    /// Where none of this number stands; when the server refuses.
    pub async fn release(&self, client: &mut Client, hold: i64, by: &str) -> Result<(), Error> {
        release_hold(client, &self.table.registry, hold, by).await
    }

    /// Serves a leaf again that is on its way and not dropped, and every newer one of its key; they are held.
    ///
    /// # Errors
    /// As [`undo`].
    pub async fn undo(&self, client: &mut Client, leaf: &str, reason: &str, author: &str) -> Result<Undone, Error> {
        undo(client, &self.table, leaf, reason, author).await
    }

    /// Brings a dropped leaf back from the archive; it is held.
    ///
    /// # Errors
    /// As [`restore`]; and where there is no archive.
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

    /// Rows age by the newest of their key.
    async fn reference(&self, client: &mut Client) -> Result<Reference, Error> {
        let newest = match self.retention.action {
            Action::Keep => BTreeMap::new(),
            _ => newest_rows(client, &self.table, self.retention.time).await?,
        };
        Ok(Reference::Final(newest))
    }
}
