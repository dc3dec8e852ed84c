//! From a URL and options to an object store.

use std::path::PathBuf;
use std::sync::Arc;
#[cfg(feature = "_cloud")]
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::path::Path;
#[cfg(feature = "_cloud")]
use object_store::{ClientOptions, RetryConfig};
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use super::ArchiveError;

/// The place of objects.
#[derive(Clone)]
pub(super) enum Store {
    /// A service.
    #[cfg_attr(not(feature = "_cloud"), expect(dead_code, reason = "a folder alone"))]
    Cloud(Arc<dyn ObjectStore>),
    /// A folder. It may be missing: a folder may be mounted later or unmounted, so each use looks for it, and only a first use
    /// makes it.
    Folder(PathBuf),
}

impl Store {
    /// The store, if it exists.
    pub fn get(&self) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        match self {
            Self::Cloud(store) => Ok(store.clone()),
            Self::Folder(folder) => {
                let missing = || object_store::Error::NotFound {
                    path: folder.display().to_string(),
                    source: std::io::Error::from(std::io::ErrorKind::NotFound).into(),
                };
                if !folder.is_dir() {
                    return Err(missing());
                }
                let store = LocalFileSystem::new_with_prefix(folder)?;
                Ok(Arc::new(store.with_fsync(true)))
            }
        }
    }

    /// Whether one object can be unreadable while others are readable.
    pub fn is_folder(&self) -> bool {
        matches!(self, Self::Folder(_))
    }

    /// Makes the folder of a folder store.
    pub fn make(&self) -> Result<(), ArchiveError> {
        match self {
            Self::Cloud(_) => Ok(()),
            Self::Folder(folder) => std::fs::create_dir_all(folder)
                .map_err(|error| ArchiveError::Url { why: format!("{}: {error}", folder.display()) }),
        }
    }
}

/// A store and the prefix in it.
type Place = (Store, Path);

/// The hint for users of a smaller build.
const NOT_ALL: &str = " that this program was built with: see its features s3, gcs and azure";

/// The store at `url`. Messages show `name`.
#[cfg_attr(not(feature = "_cloud"), expect(unused_variables, reason = "a folder has neither options nor a prefix"))]
pub(super) fn store(url: &Url, name: &str, options: &[(String, String)]) -> Result<Place, ArchiveError> {
    let none = || {
        let built = if cfg!(all(feature = "s3", feature = "gcs", feature = "azure")) { "" } else { NOT_ALL };
        ArchiveError::Url { why: format!("{name} is not file:///folder, s3://, gs:// or az://{built}") }
    };
    let (scheme, prefix) = ObjectStoreScheme::parse(url).ok().ok_or_else(none)?;
    match scheme {
        ObjectStoreScheme::Local => folder(url, name),
        #[cfg(feature = "s3")]
        ObjectStoreScheme::AmazonS3 => {
            use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
            let builder =
                AmazonS3Builder::new().with_client_options(client()).with_retry(patience()).with_url(url.as_str());
            let set = |builder: AmazonS3Builder, key: AmazonS3ConfigKey, value: &str| builder.with_config(key, value);
            built(configured(builder, options, set)?.build(), prefix, name)
        }
        #[cfg(feature = "gcs")]
        ObjectStoreScheme::GoogleCloudStorage => {
            use object_store::gcp::{GoogleCloudStorageBuilder as Builder, GoogleConfigKey};
            let builder = Builder::new().with_client_options(client()).with_retry(patience()).with_url(url.as_str());
            let set = |builder: Builder, key: GoogleConfigKey, value: &str| builder.with_config(key, value);
            built(configured(builder, options, set)?.build(), prefix, name)
        }
        #[cfg(feature = "azure")]
        ObjectStoreScheme::MicrosoftAzure => {
            use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder as Builder};
            let builder = Builder::new().with_client_options(client()).with_retry(patience()).with_url(url.as_str());
            let set = |builder: Builder, key: AzureConfigKey, value: &str| builder.with_config(key, value);
            built(configured(builder, options, set)?.build(), prefix, name)
        }
        _ => Err(none()),
    }
}

/// The folder is the root of the store: no name leads outside it.
fn folder(url: &Url, name: &str) -> Result<Place, ArchiveError> {
    let folder = url.to_file_path().map_err(|()| ArchiveError::Url { why: format!("{name}: not a folder") })?;
    Ok((Store::Folder(folder), Path::default()))
}

#[cfg(feature = "_cloud")]
fn unfit(name: &str, error: &object_store::Error) -> ArchiveError {
    ArchiveError::Url { why: format!("{name}: {error}") }
}

/// The time that a request is retried before the store counts as unavailable.
#[cfg(feature = "_cloud")]
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(feature = "_cloud")]
fn built<S: ObjectStore>(
    store: Result<S, object_store::Error>,
    prefix: Path,
    name: &str,
) -> Result<Place, ArchiveError> {
    store.map(|store| (Store::Cloud(Arc::new(store)), prefix)).map_err(|error| unfit(name, &error))
}

/// The builder with the environment's options and, above them, the given options. The store would ignore a misspelt option, so it
/// is an error.
#[cfg(feature = "_cloud")]
fn configured<B, K: std::str::FromStr>(
    builder: B,
    options: &[(String, String)],
    set: impl Fn(B, K, &str) -> B,
) -> Result<B, ArchiveError> {
    // Installs a TLS provider unless the process has one: the client of a store needs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Some((key, _)) = options.iter().find(|(key, _)| key.parse::<K>().is_err()) {
        return Err(ArchiveError::Url { why: format!("there is no option \"{key}\" of this kind of store") });
    }
    let pairs = environment().chain(options.iter().cloned());
    let known = pairs.filter_map(|(key, value)| Some((key.parse().ok()?, value)));
    Ok(known.fold(builder, |builder, (key, value): (K, String)| set(builder, key, &value)))
}

/// The options of object stores in the environment, in lower case.
#[cfg(feature = "_cloud")]
fn environment() -> impl Iterator<Item = (String, String)> {
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let of_stores = texts.filter(|(name, _)| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|store| name.starts_with(store)));
    of_stores.map(|(name, value)| (name.to_ascii_lowercase(), value))
}

/// A single request moves a row group, or makes the store copy a file.
#[cfg(feature = "_cloud")]
fn client() -> ClientOptions {
    ClientOptions::new().with_timeout(Duration::from_secs(300))
}

#[cfg(feature = "_cloud")]
fn patience() -> RetryConfig {
    RetryConfig { retry_timeout: PATIENCE, ..RetryConfig::default() }
}
