//! An object store and what is done with archives in it.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio_postgres::{Client, Transaction};

use super::manifest::{Counted, FORMAT, Manifest};
use super::{ArchiveError, open, read, write};
use crate::{Bounds, Table};

/// More is no manifest: a table has 1,600 columns at most, whose entries take some 300 bytes each.
const LARGEST_MANIFEST: u64 = 4 * 1024 * 1024;

/// Where archives are kept: an object store, and a prefix in it.
#[derive(Clone)]
pub struct Archive {
    pub(super) store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Scheme, host and path: what may be shown.
    name: String,
}

/// The name alone: a store's own words may hold its keys.
impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Archive").field(&self.name).finish()
    }
}

impl Archive {
    /// `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, as far as they are built in (the features
    /// `s3`, `gcs` and `azure`). `options` are named as the store's own environment variables are, in lower case (`aws_endpoint`,
    /// `aws_access_key_id`, `google_service_account`, `azure_storage_account_name`); those variables are read, too. Does not connect.
    pub fn open(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Self, ArchiveError> {
        let parsed = url::Url::parse(url).map_err(|error| ArchiveError::Url { why: error.to_string() })?;
        let name = format!("{}://{}{}", parsed.scheme(), parsed.host_str().unwrap_or(""), parsed.path());
        let options: Vec<(String, String)> = options.into_iter().collect();
        let (store, prefix) = open::store(&parsed, &name, &options)?;
        Ok(Self { store, prefix, name })
    }

    /// Scheme, host and path, without secrets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Archives a leaf that nobody writes to: exports it from one snapshot under a temporary name, reads that back and compares, gives it
    /// its name, and then writes the manifest, which is never overwritten.
    ///
    /// Wants a connection whose session is in UTC and whose role may read the leaf.
    pub async fn write(
        &self,
        client: &mut Client,
        table: &Table,
        key: i64,
        leaf: &str,
        bounds: Bounds,
        version: u32,
    ) -> Result<Manifest, ArchiveError> {
        let temporary = self.at(&["tmp", &format!("{:032x}.parquet", rand::random::<u128>())]);
        let written = write::export(self, client, table, leaf, &temporary).await;
        let settled = match written {
            Ok(export) => self.settle(export, table, key, leaf, bounds, version, &temporary).await,
            Err(error) => Err(error),
        };
        if settled.is_err() {
            // Best effort: what stays below tmp/ is nobody's archive.
            let _ = self.store.delete(&temporary).await;
        }
        settled
    }

    #[expect(clippy::too_many_arguments, reason = "all of them are the manifest's")]
    async fn settle(
        &self,
        export: write::Export,
        table: &Table,
        key: i64,
        leaf: &str,
        bounds: Bounds,
        version: u32,
        temporary: &Path,
    ) -> Result<Manifest, ArchiveError> {
        let folder = self.folder(table, key, &bounds);
        let object = folder.clone().join(format!("{leaf}.v{version:04}.parquet"));
        let mut manifest = export.manifest(table, key, leaf, bounds, version);
        manifest.object = temporary.to_string();
        self.verify(&manifest).await?;
        manifest.object = object.to_string();
        let place = self.manifest_of(&manifest);
        // After a restored database, versions may come that there are: what they hold stays.
        for taken in [&object, &place] {
            match self.store.head(taken).await {
                Err(object_store::Error::NotFound { .. }) => {}
                Ok(_) => return Err(ArchiveError::Exists { object: taken.to_string() }),
                Err(error) => return Err(ArchiveError::doing("look for", taken)(error)),
            }
        }
        self.store.rename(temporary, &object).await.map_err(ArchiveError::doing("name the archive", &object))?;
        let named = self.conclude(&manifest, &place).await;
        if named.as_ref().is_err_and(|error| !matches!(error, ArchiveError::Exists { .. })) {
            // A file without its manifest would be read by every query. Best effort: the next version sets it aside.
            let _ = self.store.delete(&object).await;
        }
        named.map(|()| manifest)
    }

    /// Writes the manifest of an object that has its name.
    async fn conclude(&self, manifest: &Manifest, place: &Path) -> Result<(), ArchiveError> {
        self.check(manifest).await?;
        let json = serde_json::to_vec_pretty(manifest)
            .map_err(|error| ArchiveError::Corrupt { object: place.to_string(), why: error.to_string() })?;
        let once = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(place, json.into(), once).await;
        put.map(drop).map_err(ArchiveError::doing("write the manifest", place))
    }

    /// Writes a small object (`probe`), reads it, compares, and removes it: whether the store is there and may be used.
    pub async fn probe(&self) -> Result<(), ArchiveError> {
        let place = self.at(&["probe"]);
        let text = chrono::Utc::now().to_rfc3339();
        self.store.put(&place, text.clone().into()).await.map_err(ArchiveError::doing("write", &place))?;
        let answer = self.store.get(&place).await.map_err(ArchiveError::doing("read", &place))?;
        let read = answer.bytes().await.map_err(ArchiveError::doing("read", &place))?;
        if read != text.as_bytes() {
            let why = "what was read is not what had just been written".to_owned();
            return Err(ArchiveError::Corrupt { object: place.to_string(), why });
        }
        self.store.delete(&place).await.map_err(ArchiveError::doing("remove", &place))
    }

    /// Reads the whole object again and compares it with its manifest: size, checksum, rows, extents, row hash.
    pub async fn verify(&self, manifest: &Manifest) -> Result<Counted, ArchiveError> {
        read::verify(self, manifest).await
    }

    /// Whether the object is there and as large as the manifest says.
    pub async fn check(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let object = object_of(manifest)?;
        let found = self.store.head(&object).await.map_err(ArchiveError::doing("look for", &object))?;
        match found.size == manifest.bytes {
            true => Ok(()),
            false => {
                let why = format!("it has {} bytes, and {} were written", found.size, manifest.bytes);
                Err(ArchiveError::Corrupt { object: manifest.object.clone(), why })
            }
        }
    }

    /// The manifests of a table (`schema.table`), or of all, by key and time.
    pub async fn list(&self, table: Option<&str>) -> Result<Vec<Manifest>, ArchiveError> {
        let prefix = match table {
            Some(table) => self.at(&["manifests", table]),
            None => self.at(&["manifests"]),
        };
        let doing = || ArchiveError::doing("list", &prefix);
        let objects: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.map_err(doing())?;
        let mut manifests = Vec::new();
        for object in objects {
            let place = object.location;
            if object.size > LARGEST_MANIFEST {
                let why = format!("it is no manifest: it has {} bytes", object.size);
                return Err(ArchiveError::Corrupt { object: place.to_string(), why });
            }
            let answer = self.store.get(&place).await.map_err(ArchiveError::doing("read", &place))?;
            let json = answer.bytes().await.map_err(ArchiveError::doing("read", &place))?;
            manifests.push(serde_json::from_slice::<Manifest>(&json).map_err(|error| ArchiveError::Corrupt {
                object: place.to_string(),
                why: format!("it is no manifest: {error}"),
            })?);
        }
        manifests.sort_by(|a, b| (&a.table, a.key, a.to, a.version).cmp(&(&b.table, b.key, b.to, b.version)));
        Ok(manifests)
    }

    /// Takes an archive that is no longer valid, as its leaf was written again, out of the data: below `void/`, where no query looks.
    pub async fn void(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        for place in [self.manifest_of(manifest), object_of(manifest)?] {
            self.set_aside(&place).await?;
        }
        Ok(())
    }

    /// Takes every other version of the leaf out of the data, whole or not: also what a crash left.
    pub(crate) async fn void_others(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let (object, place) = (object_of(manifest)?, self.manifest_of(manifest));
        for own in [place, object] {
            let parent = Path::from_iter(own.parts().take(own.parts().count().saturating_sub(1)));
            // As the store writes it: names may be encoded there.
            let version = format!(".v{:04}.", manifest.version);
            let name = own.filename().and_then(|file| Some(format!("{}.v", file.rsplit_once(&version)?.0)));
            let doing = || ArchiveError::doing("list", &parent);
            let found: Vec<_> = self.store.list(Some(&parent)).try_collect().await.map_err(doing())?;
            for other in found.into_iter().map(|found| found.location) {
                if other != own && is_version(other.filename(), name.as_deref()) {
                    self.set_aside(&other).await?;
                }
            }
        }
        Ok(())
    }

    /// Moves an object below `void/`; one that is gone already is no error.
    async fn set_aside(&self, place: &Path) -> Result<(), ArchiveError> {
        let rest = place.prefix_match(&self.prefix).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
        let aside = self.prefix.parts().chain([object_store::path::PathPart::from("void")]).chain(rest).collect();
        match self.store.rename(place, &aside).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(ArchiveError::doing("set aside", place)(error)),
        }
    }

    /// Sends the rows of an archive into a table that has its columns, `into` (quoted), and answers what was sent. An error means that the
    /// transaction must be rolled back.
    pub async fn load(
        &self,
        transaction: &Transaction<'_>,
        manifest: &Manifest,
        into: &str,
    ) -> Result<Counted, ArchiveError> {
        read::load(self, transaction, manifest, into).await
    }

    fn at(&self, parts: &[&str]) -> Path {
        self.prefix.parts().chain(parts.iter().map(|part| object_store::path::PathPart::from(*part))).collect()
    }

    /// `data/<schema>.<table>/key=<key>/from=<start>`: hive-style, so that a query over the folder can prune.
    fn folder(&self, table: &Table, key: i64, bounds: &Bounds) -> Path {
        let from = bounds.from().map_or_else(|| "min".to_owned(), |from| from.format("%Y%m%dT%H%M%SZ").to_string());
        let (table, key) = (format!("{}.{}", table.schema, table.name), format!("key={key}"));
        self.at(&["data", &table, &key, &format!("from={from}")])
    }

    fn manifest_of(&self, manifest: &Manifest) -> Path {
        let (key, name) = (format!("key={}", manifest.key), format!("{}.v{:04}.json", manifest.leaf, manifest.version));
        self.at(&["manifests", &manifest.table, &key, &name])
    }
}

/// The path of a manifest's object in the store.
pub(super) fn object_of(manifest: &Manifest) -> Result<Path, ArchiveError> {
    let odd = |why: String| ArchiveError::Corrupt { object: manifest.object.clone(), why };
    if manifest.format != FORMAT {
        return Err(odd(format!("it has format {}, and this program knows {FORMAT}", manifest.format)));
    }
    Path::parse(&manifest.object).map_err(|error| odd(error.to_string()))
}

/// Whether a file is some version of the leaf whose files begin so.
fn is_version(file: Option<&str>, name: Option<&str>) -> bool {
    file.zip(name).is_some_and(|(file, name)| file.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manifest_is_not_read_when_it_is_too_large_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(&format!("file://{}", folder.path().display()), []).unwrap();
        assert_eq!(archive.list(None).await.unwrap(), []);
        let place = folder.path().join("manifests/public.t/key=1");
        std::fs::create_dir_all(&place).unwrap();
        let file = std::fs::File::create(place.join("t.v0001.json")).unwrap();
        for (bytes, why) in [(LARGEST_MANIFEST, "expected value"), (1 << 33, "it has 8589934592 bytes")] {
            file.set_len(bytes).unwrap();
            let refused = archive.list(None).await.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
