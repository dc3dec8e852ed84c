//! Moves leaves into an archive and back: writes, proves and loads them.

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio_postgres::{Client, Transaction};

use super::manifest::{Counted, Manifest, Subject};
use super::store::Archive;
use super::{ArchiveError, read, write};
use crate::Table;

impl Archive {
    /// Archives a leaf without writers: exports it from one snapshot under a temporary name, reads the file back and compares it,
    /// renames the file, and then writes the manifest. A manifest is never overwritten.
    ///
    /// Needs a connection whose session is in UTC and whose role may read the leaf.
    pub async fn write(
        &self,
        client: &mut Client,
        table: &Table,
        subject: &Subject<'_>,
    ) -> Result<Manifest, ArchiveError> {
        let temporary = self.at(&["tmp", &format!("{:032x}.parquet", rand::random::<u128>())]);
        let written = write::export(self, client, table, subject.leaf, &temporary).await;
        let settled = match written {
            Ok(export) => self.settle(export, table, subject, &temporary).await,
            Err(error) => Err(error),
        };
        if settled.is_err() {
            // Best effort: no archive uses a file below tmp/.
            let _ = self.delete(&temporary).await;
        }
        settled
    }

    async fn settle(
        &self,
        export: write::Export,
        table: &Table,
        subject: &Subject<'_>,
        temporary: &Path,
    ) -> Result<Manifest, ArchiveError> {
        let [key, start] = export.folders(subject);
        let folder = self.at(&["data", &format!("{}.{}", table.schema, table.name), &key, &start]);
        let (leaf, label) = (subject.leaf, subject.identity.label());
        let object = folder.join(format!("{leaf}.{label}.v{:04}.parquet", subject.version));
        let mut manifest = export.manifest(table, subject);
        manifest.object = temporary.to_string();
        self.verify(&manifest).await?;
        manifest.object = object.to_string();
        let place = self.manifest_of(&manifest)?;
        let store = self.store().map_err(ArchiveError::doing("look for", &object))?;
        // No existing object is overwritten.
        for taken in [&object, &place] {
            match store.head(taken).await {
                Err(object_store::Error::NotFound { .. }) => {}
                Ok(_) => return Err(ArchiveError::Exists { object: taken.to_string() }),
                Err(error) => return Err(ArchiveError::doing("look for", taken)(error)),
            }
        }
        store.rename(temporary, &object).await.map_err(ArchiveError::doing("name the archive", &object))?;
        let named = self.conclude(&manifest, &place).await;
        if named.as_ref().is_err_and(|error| !matches!(error, ArchiveError::Exists { .. })) {
            // Every query would read a file without its manifest. Best effort: the next version sets the file aside.
            let _ = self.delete(&object).await;
        }
        named.map(|()| manifest)
    }

    /// Writes the manifest of a named object.
    async fn conclude(&self, manifest: &Manifest, place: &Path) -> Result<(), ArchiveError> {
        self.check(manifest).await?;
        self.put_once(place, manifest).await
    }

    /// Reads the whole object again and compares it with its manifest: size, checksum, rows, extents, row hash.
    pub async fn verify(&self, manifest: &Manifest) -> Result<Counted, ArchiveError> {
        read::verify(self, manifest).await
    }

    /// Sends the rows of an archive into the table `into` (quoted), which has its columns, and returns the count of the sent
    /// rows. After an error, the caller must roll the transaction back.
    pub async fn load(
        &self,
        transaction: &Transaction<'_>,
        manifest: &Manifest,
        into: &str,
    ) -> Result<Counted, ArchiveError> {
        read::load(self, transaction, manifest, into).await
    }
}
