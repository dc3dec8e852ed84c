//! Where archives go, as it is configured.

use dalp_partitions::Archive;

use crate::config::Partitions;

/// Where archives are. What is wrong with it stops archiving alone.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The archive that is configured, if one is and can be used.
    pub archive: Option<Archive>,
    /// Why the one that is configured cannot be used.
    pub fault: Option<String>,
}

impl Place {
    /// By its URL and options; it is not connected to.
    pub fn open(partitions: &Partitions) -> Self {
        let Some(url) = &partitions.archive_url else { return Self::default() };
        let pairs = partitions.archive_options.iter().filter_map(|pair| pair.expose().split_once('='));
        match Archive::open(url, pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))) {
            Ok(archive) => Self { archive: Some(archive), fault: None },
            Err(error) => Self { archive: None, fault: Some(format!("partitions.archive_url: {error}")) },
        }
    }
}
