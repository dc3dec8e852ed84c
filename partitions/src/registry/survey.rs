//! The archives: in the registry, which is the list, and in the store, which is the proof.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::claim;
use crate::{Advice, Archive, ArchiveError, Entry, Error, Finding, Manifest, Severity, Table};

/// An archive in the registry's list or in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// The registry's manifest, or the store's if the registry has none.
    pub manifest: Manifest,
    /// The registry's rows about it; empty if only the store has it.
    pub ids: Vec<i64>,
    /// Its place, by the registry, if it is not the asked one.
    pub elsewhere: Option<String>,
    /// Whether object and manifest exist, by their names and the object's size.
    pub stands: bool,
}

impl Archived {
    /// Whether the registry lists it.
    pub fn is_registered(&self) -> bool {
        !self.ids.is_empty()
    }
}

/// All archives of a table.
#[derive(Debug, Default)]
pub struct Survey {
    /// By key and time.
    pub archives: Vec<Archived>,
    /// The errors of unreadable manifests, of the registry or of the store.
    pub unreadable: Vec<ArchiveError>,
}

const REGISTERED: &str = "
    SELECT leaf_id, manifest, NULLIF(place, $3) FROM registry.leaf
    WHERE table_schema = $1 AND table_name = $2 AND manifest IS NOT NULL ORDER BY key, to_time, leaf_id";

/// The registry's list for a table, by object. `place` is the place of the asked archive.
async fn registered(client: &Client, table: &Table, place: &str, survey: &mut Survey) -> Result<(), Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table.schema, Type::TEXT), (&table.name, Type::TEXT), (&place, Type::TEXT)];
    let rows = client.query_typed(&table.registered(REGISTERED), &parameters).await;
    let mut by_object: HashMap<String, usize> = HashMap::new();
    for row in rows.map_err(Error::doing("look up the archives", table))? {
        let id: i64 = row.get(0);
        match serde_json::from_value::<Manifest>(row.get(1)) {
            Ok(manifest) => {
                let next = survey.archives.len();
                let at = *by_object.entry(manifest.object.clone()).or_insert(next);
                if at == next {
                    survey.archives.push(Archived { manifest, ids: Vec::new(), elsewhere: row.get(2), stands: false });
                }
                survey.archives[at].ids.push(id);
            }
            Err(error) => {
                let (object, why) = (format!("the registry's manifest of row {id}"), error.to_string());
                survey.unreadable.push(ArchiveError::Corrupt { object, why });
            }
        }
    }
    Ok(())
}

/// All archives of a table: the registry's list, and the other archives in the store.
///
/// # Errors
/// If the server or the store does not answer.
pub async fn survey(client: &Client, table: &Table, archive: &Archive) -> Result<Survey, Error> {
    let mut survey = Survey::default();
    registered(client, table, archive.name(), &mut survey).await?;
    let name = format!("{}.{}", table.schema, table.name);
    let listing = archive.list(Some(&name)).await?;
    survey.unreadable.extend(listing.unreadable);
    for manifest in listing.manifests {
        if !survey.archives.iter().any(|known| known.manifest.object == manifest.object) {
            survey.archives.push(Archived { manifest, ids: Vec::new(), elsewhere: None, stands: false });
        }
    }
    let sizes = archive.sizes(&name).await?;
    for archived in &mut survey.archives {
        archived.stands = archive.judge(&archived.manifest, &sizes).is_ok();
    }
    let order = |archived: &Archived| (archived.manifest.key, archived.manifest.to, archived.manifest.created_at);
    survey.archives.sort_by_key(order);
    Ok(survey)
}

/// Reads a whole archive, compares it with its manifest, and compares the manifest with the stored one. Returns its rows.
///
/// # Errors
/// The fault of the archive.
pub async fn verify(archive: &Archive, archived: &Archived) -> Result<u64, ArchiveError> {
    let named = |error: ArchiveError| match (&archived.elsewhere, error) {
        (Some(place), ArchiveError::Missing { object }) => {
            ArchiveError::Missing { object: format!("{object} (which the registry has in {place})") }
        }
        (_, error) => error,
    };
    archive.check_manifest(&archived.manifest).await.map_err(named)?;
    Ok(archive.verify(&archived.manifest).await?.rows)
}

/// Writes the registry's manifest beside an intact object, if the stored manifest is missing or different; a different one moves
/// below `void/`. Returns whether this was necessary.
///
/// # Errors
/// If the object differs from the registry's manifest, if the place is not ours, and if the server or the store refuses.
pub async fn repair(client: &Client, table: &Table, archive: &Archive, archived: &Archived) -> Result<bool, Error> {
    let manifest = &archived.manifest;
    match archive.check_manifest(manifest).await {
        Ok(()) => return Ok(false),
        Err(ArchiveError::Missing { .. } | ArchiveError::Corrupt { .. }) if archived.is_registered() => {}
        Err(error) => return Err(error.into()),
    }
    archive.verify(manifest).await?;
    claim::must_be_ours(client, table, archive).await?;
    archive.replace_manifest(manifest).await?;
    Ok(true)
}

/// The manifest of an archived leaf.
pub(crate) fn manifest_of(entry: &Entry) -> Result<Manifest, Error> {
    let parsed = entry.manifest.clone().map(serde_json::from_value::<Manifest>);
    match parsed {
        Some(Ok(manifest)) => Ok(manifest),
        Some(Err(error)) => Err(Error::Refused {
            leaf: entry.relation(),
            why: format!(
                "its manifest in the registry cannot be read ({error}): compare it with the manifest in the archive"
            ),
        }),
        None => {
            Err(Error::Refused { leaf: entry.relation(), why: "it has no manifest, so it is not archived".to_owned() })
        }
    }
}

/// The condition for dropping rows: the store has the listed archive, with an unchanged manifest and an object that is read as a
/// whole.
pub(crate) async fn prove(archive: &Archive, table: &Table, entry: &Entry, manifest: &Manifest) -> Result<(), Error> {
    let proof = async {
        archive.check_manifest(manifest).await?;
        archive.verify(manifest).await.map(drop)
    };
    match (proof.await, entry.place.as_ref().filter(|place| *place != archive.name())) {
        (Ok(()), _) => Ok(()),
        (Err(error), None) => Err(error.into()),
        (Err(error), Some(place)) => {
            let why =
                format!("{error} The registry has it in {place}, and {} is {}", Advice::ArchivePlace, archive.name());
            Err(Error::Refused { leaf: table.sibling(&entry.leaf), why })
        }
    }
}

const VERIFIED: &str = "UPDATE registry.leaf SET verified_at = clock_timestamp() WHERE leaf_id = ANY ($1)";

/// Records that an archive was read as a whole and is unchanged.
///
/// # Errors
/// If the server refuses.
pub async fn note_verified(client: &Client, table: &Table, archived: &Archived) -> Result<(), Error> {
    let noted = client.query_typed(&table.registered(VERIFIED), &[(&archived.ids, Type::INT8_ARRAY)]).await;
    noted.map(drop).map_err(Error::doing("note that an archive was verified", table))
}

/// The listed archives that the store lacks, by names and sizes. Without an archive, the whole list.
///
/// # Errors
/// If the server or the store does not answer.
pub async fn missing(client: &Client, table: &Table, archive: Option<&Archive>) -> Result<Vec<Finding>, Error> {
    let mut known = Survey::default();
    registered(client, table, archive.map_or("", Archive::name), &mut known).await?;
    let name = format!("{}.{}", table.schema, table.name);
    let Some(archive) = archive else {
        let finding = |count: usize| Finding {
            severity: Severity::Error,
            object: name.clone(),
            what: format!("the registry lists {count} archives, and no archive is configured"),
            next: format!("set {} to their place", Advice::ArchivePlace),
        };
        return Ok(Some(known.archives.len()).filter(|count| *count > 0).map(finding).into_iter().collect());
    };
    if known.archives.is_empty() && known.unreadable.is_empty() {
        return Ok(Vec::new());
    }
    let sizes = archive.sizes(&name).await?;
    let judged = known.archives.iter().filter_map(|archived| {
        let error = archive.judge(&archived.manifest, &sizes).err()?;
        let elsewhere = archived.elsewhere.as_ref().map(|place| format!(" (the registry has it in {place})"));
        let object = archived.manifest.leaf.clone();
        Some((object, format!("{error}{}", elsewhere.unwrap_or_default())))
    });
    let unreadable = known.unreadable.iter().map(|error| (name.clone(), error.to_string()));
    let finding = |(object, what)| Finding {
        severity: Severity::Error,
        object,
        what,
        next: format!("mount the archive, or put a copy back; then {}", Advice::VerifyArchives),
    };
    Ok(judged.chain(unreadable).map(finding).collect())
}

/// A restored archive is listed twice: for the dropped leaf, and for the restored one.
const VERIFIED_OF: &str = "
    SELECT key, count(DISTINCT manifest), count(DISTINCT manifest) FILTER (WHERE verified_at IS NOT NULL), min(verified_at)
    FROM registry.leaf
    WHERE table_schema = $1 AND table_name = $2 AND manifest IS NOT NULL GROUP BY key";

/// The verified archives of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Archives in the registry's list.
    pub archives: i64,
    /// Archives that were read as a whole since this is recorded.
    pub verified: i64,
    /// The oldest time of such a verification.
    pub since: Option<chrono::DateTime<chrono::Utc>>,
}

/// The verified archives of a table, and their times, by key.
///
/// # Errors
/// If the server refuses.
pub async fn verified(client: &Client, table: &Table) -> Result<BTreeMap<i64, Verified>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&table.schema, Type::TEXT), (&table.name, Type::TEXT)];
    let rows = client.query_typed(&table.registered(VERIFIED_OF), &parameters).await;
    let rows = rows.map_err(Error::doing("look up the verifications", table))?;
    let verified =
        |row: &tokio_postgres::Row| Verified { archives: row.get(1), verified: row.get(2), since: row.get(3) };
    Ok(rows.iter().map(|row| (row.get(0), verified(row))).collect())
}
