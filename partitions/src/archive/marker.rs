//! What we write into a place to know it again: a marker that names the installation, and claims, of which the newest names the database
//! that writes there. Each is written once and never changed, so that of two writers one is told.

use object_store::path::Path;

use super::{Archive, ArchiveError, Claim, Marker};

/// Claims that are kept behind the newest one: whoever read the list before the newest was written still meets one.
const KEPT: u64 = 16;

impl Archive {
    /// The marker; `None` where there is none.
    pub(crate) async fn marker(&self) -> Result<Option<Marker>, ArchiveError> {
        self.read_own(&self.marker_place()).await
    }

    /// Writes the marker: [`ArchiveError::Exists`] where somebody else was first.
    pub(crate) async fn mark(&self, marker: &Marker) -> Result<(), ArchiveError> {
        self.put_once(&self.marker_place(), marker).await
    }

    /// The newest claim.
    pub(crate) async fn newest_claim(&self) -> Result<Option<Claim>, ArchiveError> {
        let objects = self.objects(&self.at(&["claims"])).await?;
        match objects.iter().filter_map(|object| number(&object.location)).max() {
            Some(newest) => self.read_own(&self.claim_place(newest)).await,
            None => Ok(None),
        }
    }

    /// Writes the next claim, and answers the one that stands under its number: another's where that was first. Also a store that knows
    /// no conditional writes answers so, as long as both do not write at once.
    pub(crate) async fn claim(&self, claim: &Claim) -> Result<Claim, ArchiveError> {
        let place = self.claim_place(claim.number);
        match self.put_once(&place, claim).await {
            Ok(()) | Err(ArchiveError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        let stands = self.read_own(&place).await?.ok_or_else(|| ArchiveError::Missing { object: place.to_string() })?;
        if let (true, Some(old)) = (stands == *claim, claim.number.checked_sub(KEPT)) {
            // Best effort: what stays is in nobody's way.
            if let Ok(store) = self.store() {
                let _ = object_store::ObjectStoreExt::delete(&store, &self.claim_place(old)).await;
            }
        }
        Ok(stands)
    }

    async fn read_own<T: serde::de::DeserializeOwned>(&self, place: &Path) -> Result<Option<T>, ArchiveError> {
        let wrong =
            |error| ArchiveError::Corrupt { object: place.to_string(), why: format!("it is not our marker: {error}") };
        self.get_small(place).await?.map(|json| serde_json::from_slice(&json).map_err(wrong)).transpose()
    }

    fn marker_place(&self) -> Path {
        self.at(&["archive.json"])
    }

    fn claim_place(&self, number: u64) -> Path {
        self.at(&["claims", &format!("{number:012}.json")])
    }
}

fn number(place: &Path) -> Option<u64> {
    place.filename()?.strip_suffix(".json")?.parse().ok()
}
