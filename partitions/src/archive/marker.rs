//! Objects that we write into a place to recognise it: a marker that names the installation, and claims. The newest claim names
//! the database that writes there. Each object is written once and never changed, so the second of two writers gets an error.

use object_store::path::Path;

use super::{Archive, ArchiveError, Claim, Marker};

/// The number of kept claims behind the newest one: a reader of an older list still finds one of them.
const KEPT: u64 = 16;

impl Archive {
    /// The marker; `None` if there is none.
    pub(crate) async fn marker(&self) -> Result<Option<Marker>, ArchiveError> {
        self.read_own(&self.marker_place()).await
    }

    /// Writes the marker: [`ArchiveError::Exists`] if another writer was first.
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

    /// Writes the next claim, and returns the claim under its number: the claim of another writer if that writer was first. A
    /// store without conditional writes gives the same answer, unless both write at once.
    pub(crate) async fn claim(&self, claim: &Claim) -> Result<Claim, ArchiveError> {
        let place = self.claim_place(claim.number);
        match self.put_once(&place, claim).await {
            Ok(()) | Err(ArchiveError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        let stands = self.read_own(&place).await?.ok_or_else(|| ArchiveError::Missing { object: place.to_string() })?;
        if let (true, Some(old)) = (stands == *claim, claim.number.checked_sub(KEPT)) {
            // Best effort: a remaining claim blocks nothing.
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
