//! The owner of a place for archives, checked before any seal.
//!
//! A registry, and every copy of it, has the name of one installation. A place has a marker with the name of its first
//! installation, and claims; the newest claim names the database that writes there. A restored dump, a base backup, and a
//! database reset to an earlier time carry the same rows. Two things distinguish them: the server (another oid, system, timeline
//! or port), or the claim, which one of them renewed meanwhile. They only read; to write, one of them takes the place over
//! ([`adopt`]).

use std::collections::HashSet;

use chrono::Utc;
use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::activity::{Deed, ensure_activity, record};
use crate::archive::{Claim, FORMAT, Marker, ServerIdentity};
use crate::pg::session::{self, BEGIN, Kind};
use crate::{Advice, Archive, ArchiveError, Error, Manifest, Table};

/// The registry's knowledge of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    installation: String,
    server: ServerIdentity,
    /// Number of our newest claim there; 0 before the first.
    claims: u64,
    token: Option<String>,
    /// The nonce of a claim that was begun and may have been made.
    pending: Option<String>,
    /// The archives in the place, by the registry.
    archives: usize,
    /// The objects of archives without a recorded place.
    unplaced: Vec<String>,
}

/// The content of a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    marker: Option<Marker>,
    claim: Option<Claim>,
    /// The objects of the manifests there; read only if the marker is missing.
    objects: HashSet<String>,
}

/// The allowed operations in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The place is empty: the marker is written.
    First,
    /// The place is ours: the next claim has this number.
    Ours(u64),
    /// Nothing may be written.
    Refused(String),
}

/// A place that this database may write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entered {
    pub installation: String,
    pub server: ServerIdentity,
}

const ADOPT: Advice<'_> = Advice::AdoptArchives;
const PLACE: Advice<'_> = Advice::ArchivePlace;

/// Decides whether this database may write to a place.
fn judge(known: &Known, found: &Found) -> Verdict {
    let refused = |why: String| Verdict::Refused(why);
    let Some(marker) = &found.marker else {
        return unmarked(known, found);
    };
    if marker.installation != known.installation {
        return refused(format!(
            "it belongs to another installation ({}, since {}): set {PLACE} to a separate place",
            marker.server,
            marker.made_at.format("%Y-%m-%d %H:%M")
        ));
    }
    let Some(claim) = &found.claim else {
        // The process ended after it wrote the marker; or a user removed the claims.
        return match marker.server.is_same(&known.server) {
            true => Verdict::Ours(known.claims + 1),
            false => refused(format!(
                "{} used it first, it has no claims, and this is {}: if this database is the writer from now on, {ADOPT}",
                marker.server, known.server
            )),
        };
    };
    let is_own = [&known.token, &known.pending].into_iter().flatten().any(|token| *token == claim.token);
    if !is_own || !claim.server.is_same(&known.server) {
        return refused(format!(
            "{} wrote there last, at {}, and this is {}: a copy of the writer, or the writer reset to an earlier time. \
             This database only reads archives; if it is the writer from now on, {ADOPT}",
            claim.server,
            claim.claimed_at.format("%Y-%m-%d %H:%M"),
            known.server
        ));
    }
    Verdict::Ours(claim.number + 1)
}

fn unmarked(known: &Known, found: &Found) -> Verdict {
    let lost = |archives: usize| {
        Verdict::Refused(format!(
            "the registry has {archives} archives there, and the place has no marker of ours (archive.json): mount it, or \
             correct {PLACE}. If the archives are lost for good, {ADOPT} starts again"
        ))
    };
    if known.claims > 0 || known.archives > 0 {
        return lost(known.archives);
    }
    if !known.unplaced.is_empty() && !known.unplaced.iter().any(|object| found.objects.contains(object)) {
        return lost(known.unplaced.len());
    }
    match found.objects.iter().filter(|object| !known.unplaced.contains(object)).count() {
        0 => Verdict::First,
        others => Verdict::Refused(format!(
            "it holds {others} archives that this registry does not know: set {PLACE} to a separate place; or, if this \
             database made them, {ADOPT}"
        )),
    }
}

const KNOWN: &str = "
    SELECT (SELECT installation::text FROM registry.installation), current_database()::text,
           (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()),
           left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8), claims, token, pending,
           (SELECT count(*) FROM registry.leaf WHERE manifest IS NOT NULL AND leaf.place = $1),
           ARRAY(SELECT manifest->>'object' FROM registry.leaf WHERE manifest IS NOT NULL AND leaf.place IS NULL),
           current_setting('port')::int4
    FROM (SELECT) AS one LEFT JOIN registry.archive_place ON place = $1";
const SYSTEM: &str = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
const MAY_ASK: &str = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')";

async fn known(client: &Client, table: &Table, place: &str) -> Result<Known, Error> {
    let doing = || Error::doing("look up the owner of an archive", table);
    let row = client.query_typed_one(&table.registered(KNOWN), &[(&place, Type::TEXT)]).await.map_err(doing())?;
    let may_ask = client.query_typed_one(MAY_ASK, &[]).await.map_err(doing())?.get(0);
    let system = match may_ask {
        true => Some(client.query_typed_one(SYSTEM, &[]).await.map_err(doing())?.get(0)),
        false => None,
    };
    let server =
        ServerIdentity { database: row.get(1), oid: row.get(2), system, timeline: row.get(3), port: row.get(9) };
    Ok(Known {
        installation: row.get(0),
        server,
        claims: row.get::<_, Option<i64>>(4).unwrap_or(0).unsigned_abs(),
        token: row.get(5),
        pending: row.get(6),
        archives: row.get::<_, i64>(7).unsigned_abs() as usize,
        unplaced: row.get(8),
    })
}

async fn found(archive: &Archive) -> Result<Found, Error> {
    let marker = archive.marker().await?;
    let claim = match &marker {
        Some(_) => archive.newest_claim().await?,
        None => None,
    };
    let objects = match &marker {
        Some(_) => HashSet::new(),
        None => {
            let listing = archive.list(None).await?;
            let unreadable = listing.unreadable.iter().map(ToString::to_string);
            listing.manifests.into_iter().map(|manifest| manifest.object).chain(unreadable).collect()
        }
    };
    Ok(Found { marker, claim, objects })
}

/// The reason why this database may not write to a place; `None` if it may. Writes nothing.
///
/// # Errors
/// If the server or the store does not answer.
pub async fn look(client: &Client, table: &Table, archive: &Archive) -> Result<Option<String>, Error> {
    match judge(&known(client, table, archive.name()).await?, &found(archive).await?) {
        Verdict::Refused(why) => Ok(Some(why)),
        Verdict::First => archive.make().map(|()| None).map_err(Error::from),
        Verdict::Ours(_) => Ok(None),
    }
}

/// An error if this database may not write.
pub(crate) async fn must_be_ours(client: &Client, table: &Table, archive: &Archive) -> Result<(), Error> {
    match look(client, table, archive).await? {
        None => Ok(()),
        Some(why) => Err(ArchiveError::NotOurs { place: archive.name().to_owned(), why }.into()),
    }
}

/// Renews our claim to a place, or makes the first one. If the place is not ours, returns an error and writes nothing.
pub(crate) async fn enter(client: &Client, table: &Table, archive: &Archive) -> Result<Entered, Error> {
    let place = archive.name().to_owned();
    let known = known(client, table, &place).await?;
    let number = match judge(&known, &found(archive).await?) {
        Verdict::Refused(why) => return Err(ArchiveError::NotOurs { place, why }.into()),
        Verdict::Ours(number) => number,
        Verdict::First => {
            archive.make()?;
            mark(archive, &known).await?;
            1
        }
    };
    claim(client, table, archive, &known, number).await
}

/// Writes the marker, unless our marker exists: an answer may be lost, and another process may be first.
async fn mark(archive: &Archive, known: &Known) -> Result<(), Error> {
    let (installation, server) = (known.installation.clone(), known.server.clone());
    let marker = Marker { format: FORMAT, installation, server, made_at: Utc::now() };
    match archive.mark(&marker).await {
        Err(ArchiveError::Exists { object }) => match archive.marker().await? {
            Some(stands) if stands.installation == marker.installation => Ok(()),
            _ => {
                let why =
                    format!("another installation wrote {object} at the same moment: set {PLACE} to a separate place");
                Err(ArchiveError::NotOurs { place: archive.name().to_owned(), why }.into())
            }
        },
        marked => marked.map_err(Error::from),
    }
}

const BEGIN_CLAIM: &str = "
    INSERT INTO registry.archive_place (place, pending) VALUES ($1, $2)
    ON CONFLICT (place) DO UPDATE SET pending = EXCLUDED.pending";
const END_CLAIM: &str = "
    UPDATE registry.archive_place SET claims = $2, token = pending, pending = NULL, claimed_at = clock_timestamp()
    WHERE place = $1 AND pending = $3";

/// The registry knows the claim before the store does: after a crash, the claim in the store is known as ours.
async fn claim(
    client: &Client,
    table: &Table,
    archive: &Archive,
    known: &Known,
    number: u64,
) -> Result<Entered, Error> {
    let doing = || Error::doing("claim an archive", table);
    let (place, token) = (archive.name(), format!("{:032x}", rand::random::<u128>()));
    let begun: [(&(dyn ToSql + Sync), Type); 2] = [(&place, Type::TEXT), (&token, Type::TEXT)];
    client.query_typed(&table.registered(BEGIN_CLAIM), &begun).await.map_err(doing())?;
    let claim = Claim { number, token, server: known.server.clone(), claimed_at: Utc::now() };
    let stands = archive.claim(&claim).await?;
    if stands.token != claim.token {
        let why = format!("{} claimed it at the same moment: if this database is the writer, {ADOPT}", stands.server);
        return Err(ArchiveError::NotOurs { place: place.to_owned(), why }.into());
    }
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let ended: [(&(dyn ToSql + Sync), Type); 3] =
        [(&place, Type::TEXT), (&number, Type::INT8), (&claim.token, Type::TEXT)];
    client.query_typed(&table.registered(END_CLAIM), &ended).await.map_err(doing())?;
    Ok(Entered { installation: known.installation.clone(), server: known.server.clone() })
}

const ANEW: &str =
    "UPDATE registry.leaf SET incarnation = gen_random_uuid(), updated_at = clock_timestamp() WHERE state <> 'DROPPED'";

/// Takes a place over for this database, which is a copy of the writer, or the writer reset to an earlier time: this database
/// writes there from now on, and the other does not. The existing archives stay, and later archives of the same leaves never set
/// them aside.
///
/// # Errors
/// If the place belongs to another installation; if the server or the store refuses.
pub async fn adopt(client: &mut Client, table: &Table, archive: &Archive, author: &str) -> Result<(), Error> {
    let doing = || Error::doing("adopt an archive", table);
    ensure_activity(client, &table.registry).await?;
    let (known, found) = (known(client, table, archive.name()).await?, found(archive).await?);
    match &found.marker {
        Some(marker) if marker.installation != known.installation => {
            let Verdict::Refused(why) = judge(&known, &found) else { return Ok(()) };
            return Err(ArchiveError::NotOurs { place: archive.name().to_owned(), why }.into());
        }
        Some(_) => {}
        None => {
            archive.make()?;
            mark(archive, &known).await?;
        }
    }
    let transaction = session::begin(client, Kind::Write, BEGIN).await.map_err(doing())?;
    transaction.query_typed(&table.registered(ANEW), &[]).await.map_err(doing())?;
    let deed = Deed::new("archive.adopt", archive.name()).with_detail(
        serde_json::json!({ "author": author, "before": found.claim.as_ref().map(|claim| &claim.server) }),
    );
    record(&transaction, &table.registry, &deed).await?;
    transaction.commit().await.map_err(doing())?;
    let number = found.claim.map_or(1, |claim| claim.number + 1);
    claim(client, table, archive, &known, number).await.map(drop)
}

const FORGET: &str = "UPDATE registry.leaf SET manifest = NULL, updated_at = clock_timestamp() \
                      WHERE manifest->>'object' = $1 AND state = 'DROPPED'";

/// Moves the archive of an unsealed leaf out of the data, if this database may write there: the archive of a copy's original
/// stays in place.
///
/// # Errors
/// If the place is not ours; if the server or the store refuses.
pub async fn set_aside(client: &Client, table: &Table, archive: &Archive, manifest: &Manifest) -> Result<(), Error> {
    must_be_ours(client, table, archive).await?;
    archive.void(manifest).await?;
    // An earlier life of the leaf, restored from this archive, loses the archive too.
    let forgotten = client.query_typed(&table.registered(FORGET), &[(&manifest.object, Type::TEXT)]).await;
    forgotten.map(drop).map_err(Error::doing("note that an archive is void", table))
}

#[cfg(test)]
mod tests;
