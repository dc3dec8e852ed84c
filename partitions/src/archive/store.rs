//! An object store and its content: objects and manifests as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::manifest::{FORMAT, Listing, Manifest, Probed};
use super::{ArchiveError, open};

/// A larger object is not a manifest: a table has at most 1,600 columns, with entries of about 300 bytes.
const LARGEST_MANIFEST: u64 = 4 * 1024 * 1024;

/// The place of archives: an object store, and a prefix in it.
#[derive(Clone)]
pub struct Archive {
    place: open::Store,
    prefix: Path,
    /// Scheme, host and path: safe to show.
    name: String,
}

/// Only the name: a store's own text may hold its keys.
impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Archive").field(&self.name).finish()
    }
}

impl Archive {
    /// `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, if this build has them (features
    /// `s3`, `gcs` and `azure`). `options` have the names of the store's environment variables, in lower case (`aws_endpoint`,
    /// `aws_access_key_id`, `google_service_account`, `azure_storage_account_name`); the variables are read too. Does not
    /// connect.
    pub fn open(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Self, ArchiveError> {
        let parsed = url::Url::parse(url).map_err(|error| ArchiveError::Url { why: error.to_string() })?;
        let name = format!("{}://{}{}", parsed.scheme(), parsed.host_str().unwrap_or(""), parsed.path());
        let options: Vec<(String, String)> = options.into_iter().collect();
        let (place, prefix) = open::store(&parsed, &name, &options)?;
        Ok(Self { place, prefix, name })
    }

    /// Scheme, host and path, without secrets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The store, if it exists: a folder may be mounted later or unmounted.
    pub(super) fn store(&self) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        self.place.get()
    }

    /// Makes the folder of a place at its first use.
    pub(crate) fn make(&self) -> Result<(), ArchiveError> {
        self.place.make()
    }

    /// Writes a new object: [`ArchiveError::Exists`] if it exists.
    pub(super) async fn put_once(&self, place: &Path, value: &impl serde::Serialize) -> Result<(), ArchiveError> {
        let json = serde_json::to_vec_pretty(value)
            .map_err(|error| ArchiveError::Corrupt { object: place.to_string(), why: error.to_string() })?;
        let once = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let store = self.store().map_err(ArchiveError::doing("write", place))?;
        store.put_opts(place, json.into(), once).await.map(drop).map_err(ArchiveError::doing("write", place))
    }

    /// Reads a small object; `None` if it is missing.
    pub(super) async fn get_small(&self, place: &Path) -> Result<Option<Bytes>, ArchiveError> {
        let doing = || ArchiveError::doing("read", place);
        let read = async {
            let answer = self.store()?.get(place).await?;
            if answer.meta.size > LARGEST_MANIFEST {
                return Ok(Err(answer.meta.size));
            }
            answer.bytes().await.map(Ok)
        };
        match read.await {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(size)) => {
                let why = format!("it is not a manifest: it has {size} bytes");
                Err(ArchiveError::Corrupt { object: place.to_string(), why })
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(doing()(error)),
        }
    }

    pub(super) async fn delete(&self, place: &Path) -> Result<(), object_store::Error> {
        self.store()?.delete(place).await
    }

    /// Writes a small object (`probe`), reads it, compares it and removes it: this tests that the store works. Then writes one
    /// object twice as new: this tests that the store prevents one writer from overwriting another writer's object.
    pub async fn probe(&self) -> Result<Probed, ArchiveError> {
        let place = self.at(&["probe"]);
        let text = chrono::Utc::now().to_rfc3339();
        let store = self.store().map_err(ArchiveError::doing("write", &place))?;
        store.put(&place, text.clone().into()).await.map_err(ArchiveError::doing("write", &place))?;
        let read = self.get_small(&place).await?;
        self.delete(&place).await.map_err(ArchiveError::doing("remove", &place))?;
        if read.as_deref() != Some(text.as_bytes()) {
            let why = "the bytes read back differ from the written bytes".to_owned();
            return Err(ArchiveError::Corrupt { object: place.to_string(), why });
        }
        let once = self.at(&[&format!("probe-{:016x}", rand::random::<u64>())]);
        self.put_once(&once, &text).await?;
        let again = self.put_once(&once, &text).await;
        self.delete(&once).await.map_err(ArchiveError::doing("remove", &once))?;
        match again {
            Err(ArchiveError::Exists { .. }) => Ok(Probed { writes_once: true }),
            Ok(()) => Ok(Probed { writes_once: false }),
            Err(error) => Err(error),
        }
    }

    /// Whether the object exists with the size in the manifest.
    pub async fn check(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let object = object_of(manifest)?;
        let doing = || ArchiveError::doing("look for", &object);
        let found = self.store().map_err(doing())?.head(&object).await.map_err(doing())?;
        sized(manifest, found.size)
    }

    /// Whether the stored manifest exists and is equal.
    pub async fn check_manifest(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let place = self.manifest_of(manifest)?;
        let Some(json) = self.get_small(&place).await? else {
            return Err(ArchiveError::Missing { object: place.to_string() });
        };
        match manifest.difference(&parsed(&place, &json)?) {
            None => Ok(()),
            Some(why) => Err(ArchiveError::Corrupt { object: place.to_string(), why }),
        }
    }

    /// Writes the manifest beside its object again; an existing manifest moves below `void/`.
    pub(crate) async fn replace_manifest(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let place = self.manifest_of(manifest)?;
        self.set_aside(&place).await?;
        self.put_once(&place, manifest).await
    }

    /// The manifests of a table (`schema.table`), or of all tables, by key and time, and the errors of unreadable ones.
    pub async fn list(&self, table: Option<&str>) -> Result<Listing, ArchiveError> {
        let prefix = match table {
            Some(table) => self.at(&["manifests", table]),
            None => self.at(&["manifests"]),
        };
        let mut listing = Listing::default();
        for object in self.objects(&prefix).await? {
            let read = match self.get_small(&object.location).await {
                Ok(Some(json)) => parsed(&object.location, &json),
                // Another process set it aside meanwhile.
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match read {
                Ok(manifest) => listing.manifests.push(manifest),
                // If the service does not answer, all other reads would fail too.
                Err(error @ ArchiveError::Store { .. }) if !self.place.is_folder() => return Err(error),
                Err(error) => listing.unreadable.push(error),
            }
        }
        let order = |manifest: &Manifest| {
            (manifest.table.clone(), manifest.key, manifest.to, manifest.version, manifest.created_at)
        };
        listing.manifests.sort_by_key(order);
        Ok(listing)
    }

    /// The objects below a prefix; none if there is no folder.
    pub(super) async fn objects(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, ArchiveError> {
        let store = match self.store() {
            Ok(store) => store,
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(ArchiveError::doing("list", prefix)(error)),
        };
        store.list(Some(prefix)).try_collect().await.map_err(ArchiveError::doing("list", prefix))
    }

    /// The names and sizes of all objects and manifests of a table: an overview without reading any of them.
    pub(crate) async fn sizes(&self, table: &str) -> Result<HashMap<String, u64>, ArchiveError> {
        let mut sizes = HashMap::new();
        for kind in ["data", "manifests"] {
            let found = self.objects(&self.at(&[kind, table])).await?;
            sizes.extend(found.into_iter().map(|object| (object.location.to_string(), object.size)));
        }
        Ok(sizes)
    }

    /// The entry of one archive in this overview.
    pub(crate) fn judge(&self, manifest: &Manifest, sizes: &HashMap<String, u64>) -> Result<(), ArchiveError> {
        let (object, place) = (object_of(manifest)?.to_string(), self.manifest_of(manifest)?.to_string());
        match (sizes.get(&object), sizes.contains_key(&place)) {
            (None, _) => Err(ArchiveError::Missing { object }),
            (_, false) => Err(ArchiveError::Missing { object: place }),
            (Some(size), true) => sized(manifest, *size),
        }
    }

    /// Moves a void archive, whose leaf was written again, out of the data: below `void/`, where no query reads.
    pub async fn void(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        for place in [self.manifest_of(manifest)?, object_of(manifest)?] {
            self.set_aside(&place).await?;
        }
        Ok(())
    }

    /// Moves earlier versions of the same life of the leaf out of the data, complete or not: also the remains of a crash. Does
    /// not touch archives of another life of this leaf or of another database.
    pub(crate) async fn void_earlier(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let (object, place) = (object_of(manifest)?, self.manifest_of(manifest)?);
        for own in [place, object] {
            let parent = Path::from_iter(own.parts().take(own.parts().count().saturating_sub(1)));
            // The name in the form of the store, which may encode names.
            for other in self.objects(&parent).await?.into_iter().map(|found| found.location) {
                if is_earlier(other.filename(), own.filename()) {
                    self.set_aside(&other).await?;
                }
            }
        }
        Ok(())
    }

    /// Moves an object below `void/`; a missing object is no error.
    async fn set_aside(&self, place: &Path) -> Result<(), ArchiveError> {
        let rest = place.prefix_match(&self.prefix).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
        let aside = self.prefix.parts().chain([object_store::path::PathPart::from("void")]).chain(rest).collect();
        let doing = || ArchiveError::doing("set aside", place);
        match self.store().map_err(doing())?.rename(place, &aside).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(doing()(error)),
        }
    }

    pub(super) fn at(&self, parts: &[&str]) -> Path {
        self.prefix.parts().chain(parts.iter().map(|part| object_store::path::PathPart::from(*part))).collect()
    }

    /// Beside the object, under the same name.
    pub(super) fn manifest_of(&self, manifest: &Manifest) -> Result<Path, ArchiveError> {
        let object = object_of(manifest)?;
        let odd = |why: String| ArchiveError::Corrupt { object: manifest.object.clone(), why };
        let stem = object.filename().and_then(|file| file.strip_suffix(".parquet"));
        let stem = stem.ok_or_else(|| odd("its name is not the name of an archive".to_owned()))?;
        let folder = self.at(&["manifests", &manifest.table, &format!("key={}", manifest.key)]);
        Path::parse(format!("{folder}/{stem}.json")).map_err(|error| odd(error.to_string()))
    }
}

/// A checksum in the form of a manifest.
pub(super) fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Bytes::copy_from_slice(bytes))
}

/// The path of a manifest's object in the store.
pub(super) fn object_of(manifest: &Manifest) -> Result<Path, ArchiveError> {
    let odd = |why: String| ArchiveError::Corrupt { object: manifest.object.clone(), why };
    if manifest.format != FORMAT {
        return Err(odd(format!("it has format {}, and this program knows {FORMAT}", manifest.format)));
    }
    Path::parse(&manifest.object).map_err(|error| odd(error.to_string()))
}

/// Whether a file is an earlier version of `own`: `<name>.v0001.parquet` beside `<name>.v0002.parquet`.
fn is_earlier(file: Option<&str>, own: Option<&str>) -> bool {
    fn version(file: &str) -> Option<(&str, u32, &str)> {
        let (rest, ending) = file.rsplit_once('.')?;
        let (name, version) = rest.rsplit_once(".v")?;
        Some((name, version.parse().ok()?, ending))
    }
    let versions = file.and_then(version).zip(own.and_then(version));
    versions.is_some_and(|(file, own)| (file.0, file.2) == (own.0, own.2) && file.1 < own.1)
}

fn parsed(place: &Path, json: &[u8]) -> Result<Manifest, ArchiveError> {
    let wrong =
        |error| ArchiveError::Corrupt { object: place.to_string(), why: format!("it is not a manifest: {error}") };
    serde_json::from_slice(json).map_err(wrong)
}

fn sized(manifest: &Manifest, size: u64) -> Result<(), ArchiveError> {
    match size == manifest.bytes {
        true => Ok(()),
        false => {
            let why = format!("it has {size} bytes, and the written file has {}", manifest.bytes);
            Err(ArchiveError::Corrupt { object: manifest.object.clone(), why })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_version_is_one_of_the_same_name() {
        let own = Some("logs.a-b.v0012.parquet");
        for (file, expected) in [
            ("logs.a-b.v0011.parquet", true),
            ("logs.a-b.v0012.parquet", false),
            ("logs.a-b.v0013.parquet", false),
            ("logs.a-c.v0001.parquet", false),
            ("logs.v0001.parquet", false),
            ("logs.a-b.v0001.json", false),
            ("x", false),
        ] {
            assert_eq!(is_earlier(Some(file), own), expected, "{file}");
        }
    }

    #[tokio::test]
    async fn a_manifest_is_not_read_when_it_is_too_large_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(&format!("file://{}", folder.path().display()), []).unwrap();
        assert_eq!(archive.list(None).await.unwrap(), Listing::default());
        let place = folder.path().join("manifests/public.t/key=1");
        std::fs::create_dir_all(&place).unwrap();
        let file = std::fs::File::create(place.join("t.v0001.json")).unwrap();
        for (bytes, why) in [(LARGEST_MANIFEST, "expected value"), (1 << 33, "it has 8589934592 bytes")] {
            file.set_len(bytes).unwrap();
            let listing = archive.list(None).await.unwrap();
            let refused = listing.unreadable[0].to_string();
            assert!(refused.contains(why) && listing.manifests.is_empty(), "{refused}");
        }
    }
}
