//! The configured place of archives.

use dalp_partitions::Archive;

use crate::config::Partitions;

/// The place of archives. Its errors stop only archiving.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The configured archive, if there is one and it can be used.
    pub archive: Option<Archive>,
    /// Why the configured archive cannot be used.
    pub fault: Option<String>,
}

impl Place {
    /// By its URL and options; does not connect.
    pub fn open(partitions: &Partitions) -> Self {
        let Some(url) = &partitions.archive_url else { return Self::default() };
        let pairs = partitions.archive_options.iter().filter_map(|pair| pair.expose().split_once('='));
        match Archive::open(url, pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))) {
            Ok(archive) => Self { archive: Some(archive), fault: None },
            Err(error) => Self { archive: None, fault: Some(format!("partitions.archive_url: {error}")) },
        }
    }
}
