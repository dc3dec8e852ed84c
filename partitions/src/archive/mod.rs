//! Archives of leaves: Parquet files in an object store, compared row by row with what they were made from.
//!
//! A file is trusted only after it was read back. Each row, as binary COPY sends it, is hashed, and the hashes are summed up
//! ([`RowHash`]), which does not depend on the order. Of the table, what the server sent is hashed; of the file, what a restore would
//! send. If both sums, the numbers of rows and the extents are equal, a restore brings back exactly these rows.
//!
//! Nothing is written outside the store, and a row group (about 120,000 rows) at a time is held in memory.

mod columns;
mod error;
mod manifest;
mod numeric;
mod read;
mod write;

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, RetryConfig};
use tokio_postgres::{Client, Transaction};

pub use error::ArchiveError;
pub use manifest::{Counted, Extent, FORMAT, Manifest, ManifestColumn, RowHash};
pub use write::count;

use crate::{Bounds, Table};

/// How long a request is tried again before the store counts as unavailable.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where archives are kept: an object store, and a prefix in it.
#[derive(Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
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
    /// `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. `options` are named as the store's own
    /// environment variables are, in lower case (`aws_endpoint`, `aws_access_key_id`, `google_service_account`, `azure_storage_account_name`);
    /// those variables are read, too. Does not connect.
    pub fn open(url: &str, options: impl IntoIterator<Item = (String, String)>) -> Result<Self, ArchiveError> {
        let parsed = url::Url::parse(url).map_err(|error| ArchiveError::Url { why: error.to_string() })?;
        let name = format!("{}://{}{}", parsed.scheme(), parsed.host_str().unwrap_or(""), parsed.path());
        let unfit = |error: object_store::Error| ArchiveError::Url { why: format!("{name}: {error}") };
        let none = || ArchiveError::Url { why: format!("{name} is none of file:///folder, s3://, gs:// and az://") };
        let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).ok().ok_or_else(none)?;
        let said: Vec<(String, String)> = options.into_iter().collect();
        let options: Vec<(String, String)> = environment().chain(said.iter().cloned()).collect();
        let (store, prefix): (Arc<dyn ObjectStore>, Path) = match scheme {
            ObjectStoreScheme::Local => {
                // The folder is the store: nothing outside it can be named.
                let folder =
                    parsed.to_file_path().map_err(|()| ArchiveError::Url { why: format!("{name}: no folder") })?;
                std::fs::create_dir_all(&folder)
                    .map_err(|error| ArchiveError::Url { why: format!("{}: {error}", folder.display()) })?;
                (Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(unfit)?.with_fsync(true)), Path::default())
            }
            ObjectStoreScheme::AmazonS3 => {
                let builder = AmazonS3Builder::new().with_client_options(client()).with_retry(patience()).with_url(url);
                let builder = options.iter().fold(builder, |builder, (key, value)| match key.parse() {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                });
                refuse_unknown::<AmazonS3ConfigKey>(&said)?;
                (Arc::new(builder.build().map_err(unfit)?), prefix)
            }
            ObjectStoreScheme::GoogleCloudStorage => {
                let builder =
                    GoogleCloudStorageBuilder::new().with_client_options(client()).with_retry(patience()).with_url(url);
                let builder = options.iter().fold(builder, |builder, (key, value)| match key.parse() {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                });
                refuse_unknown::<GoogleConfigKey>(&said)?;
                (Arc::new(builder.build().map_err(unfit)?), prefix)
            }
            ObjectStoreScheme::MicrosoftAzure => {
                let builder =
                    MicrosoftAzureBuilder::new().with_client_options(client()).with_retry(patience()).with_url(url);
                let builder = options.iter().fold(builder, |builder, (key, value)| match key.parse() {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                });
                refuse_unknown::<AzureConfigKey>(&said)?;
                (Arc::new(builder.build().map_err(unfit)?), prefix)
            }
            _ => return Err(none()),
        };
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
        let object = manifest.path()?;
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
        for place in [self.manifest_of(manifest), manifest.path()?] {
            self.set_aside(&place).await?;
        }
        Ok(())
    }

    /// Takes every other version of the leaf out of the data, whole or not: also what a crash left.
    pub(crate) async fn void_others(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let (object, place) = (manifest.path()?, self.manifest_of(manifest));
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

/// Whether a file is some version of the leaf whose files begin so.
fn is_version(file: Option<&str>, name: Option<&str>) -> bool {
    file.zip(name).is_some_and(|(file, name)| file.starts_with(name))
}

/// What the environment says about object stores, in lower case.
fn environment() -> impl Iterator<Item = (String, String)> {
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let of_stores = texts.filter(|(name, _)| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|store| name.starts_with(store)));
    of_stores.map(|(name, value)| (name.to_ascii_lowercase(), value))
}

/// A misspelt option would be as good as none.
fn refuse_unknown<K: std::str::FromStr>(said: &[(String, String)]) -> Result<(), ArchiveError> {
    match said.iter().find(|(name, _)| name.parse::<K>().is_err()) {
        Some((name, _)) => {
            Err(ArchiveError::Url { why: format!("there is no option \"{name}\" of this kind of store") })
        }
        None => Ok(()),
    }
}

/// A single request moves a row group, or has the store copy a file.
fn client() -> ClientOptions {
    ClientOptions::new().with_timeout(Duration::from_secs(300))
}

fn patience() -> RetryConfig {
    RetryConfig { retry_timeout: PATIENCE, ..RetryConfig::default() }
}
