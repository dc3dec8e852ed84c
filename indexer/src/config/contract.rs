//! `[contracts.NAME]`: contracts of a user's own, whose events get tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use alloy::primitives::Address;

use super::chain::{Chain, chains};
use super::given::{Given, Read};
use super::kind;
use super::section::settings;
use crate::dataset::{Contract, Contracts, Dataset, Datasets, tables};
use crate::events::abi::{Abi, Event};
use crate::events::catalogue;
use crate::events::name::snake;

/// The section.
pub(super) const SECTION: &str = "contracts";

/// The most bytes of a file with an ABI: the largest artefacts of compilers have a few MB.
const ABI_BYTES: u64 = 64 << 20;

settings! {
    /// Contracts of one kind on a chain, with tables for the events of their ABI.
    pub struct ContractsOf in "contracts.*", drafted as ContractDraft, beside {
        /// Its name in the configuration: a-z, 0-9 and `_`.
        pub name: String,
    } {
        /// The files with the ABI: a JSON array, an artefact of Foundry, Hardhat or Truffle, or lines such as `event Paid(address indexed by)`.
        ///
        /// Several files are versions of the ABI, the oldest first: an event with the same types has one table. Not needed for a built-in
        /// kind; there, the files add versions.
        pub abi: Vec<PathBuf> = unset "abi/Bond.json", kind::FILE;

        /// The addresses of the contracts.
        ///
        /// A log belongs to these tables by its contract, never by its topics alone.
        pub addresses: Vec<Address> = must "0x5fbdb2315678afecb367f032d93f642f64180aa3", kind::ADDRESS;

        /// The kind of the contracts, which begins the names of their tables: `bond` makes `bond_transfer`. Its own name if it is not set.
        ///
        /// Contracts of one kind have one set of tables, on all chains. `dalp-indexer abi kinds` lists the built-in kinds, which need no
        /// ABI.
        pub kind: Option<String> = unset "bond", kind::NAME;

        /// The name of the chain in `[chains.NAME]`.
        ///
        /// Not needed with a single chain.
        pub chain: Option<String> = unset "mainnet", kind::NAME;

        /// The first block whose logs of these contracts have rows in the tables.
        ///
        /// The block of the first contract's deployment; logs before it were another program's at the same address.
        pub start_block: u64 = "0", kind::Int(0, kind::MAX_INT);
    }
}

impl ContractsOf {
    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or(&self.name)
    }

    /// Its built-in kind: a kind that the section names, or has to name because it has no ABI. A section with an ABI and the name of
    /// a built-in kind keeps its own events: a later release may build in any name.
    fn built_in(&self) -> Option<catalogue::Kind> {
        let names_it = self.kind.is_some() || self.abi.is_empty();
        catalogue::of(self.kind()).filter(|_| names_it)
    }
}

/// The sections of contracts, and what of their ABIs could not be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sections {
    pub of: Vec<ContractsOf>,
    pub skipped: Vec<String>,
}

/// All sections. Their tables are added to the known ones.
pub(super) fn read(given: &mut Given) -> Sections {
    let (mut sections, mut skipped) = (Vec::new(), Vec::new());
    for name in given.names(SECTION) {
        let draft = ContractDraft::read(given, &name);
        sections.extend(draft.finish(name));
    }
    let mut kinds: BTreeMap<String, Abi> = BTreeMap::new();
    for section in &sections {
        match (section.built_in(), section.abi.is_empty()) {
            // Before the files of all sections: it has the plain names of tables.
            (Some(kind), _) => {
                kinds.insert(section.kind().to_owned(), kind.abi());
            }
            (None, true) => {
                let key = if section.kind.is_some() { "kind" } else { "abi" };
                given.object(&format!("{SECTION}.{}.{key}", section.name), catalogue::unknown(section.kind()));
            }
            (None, false) => {}
        }
    }
    for section in &sections {
        for path in &section.abi {
            let abi = kinds.remove(section.kind()).unwrap_or_default();
            match abi_of(path).and_then(|more| abi.joined(more)) {
                Ok(mut abi) => {
                    let left_out = std::mem::take(&mut abi.skipped);
                    skipped.extend(left_out.iter().map(|why| format!("{}: {why}", path.display())));
                    kinds.insert(section.kind().to_owned(), abi);
                }
                Err(why) => {
                    let message = format!("{}: {why}", path.display());
                    given.object(&format!("{SECTION}.{}.abi", section.name), message);
                }
            }
        }
    }
    for (kind, abi) in kinds {
        match with_tables(given.datasets(), &kind, &abi.events) {
            Ok(datasets) => given.extend(datasets),
            Err(why) => {
                given.object(&format!("{SECTION}.{kind}"), why);
            }
        }
    }
    Sections { of: sections, skipped }
}

/// Reads a file with an ABI.
///
/// # Errors
/// Why it cannot be read, or what is wrong in it.
pub fn abi_of(path: &Path) -> Result<Abi, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > ABI_BYTES {
        return Err(format!("it has {bytes} bytes, and an ABI has at most {ABI_BYTES}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Abi::read(&text)
}

/// The kind of contracts that a file is named after.
pub fn kind_name(path: &Path) -> String {
    let name = snake(&path.file_stem().unwrap_or_default().to_string_lossy());
    let name: String = name.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    if name.starts_with(|first: char| first.is_ascii_lowercase()) { name } else { format!("abi_{name}") }
}

/// These datasets, and the tables of a kind.
///
/// # Errors
/// Two tables with one name.
fn with_tables(datasets: &Datasets, kind: &str, events: &[Event]) -> Result<Datasets, String> {
    let tables = tables(kind, events).into_iter().map(|(dataset, _)| dataset);
    Datasets::new(datasets.iter().cloned().chain(tables.collect::<Vec<Dataset>>()))
}

/// All configured chains, and the tables of their logs with the contracts whose logs they are.
pub(super) fn chains_with(given: &mut Given, sections: &[ContractsOf]) -> (Read<Vec<Chain>>, Read<Datasets>) {
    let mut chains = match chains(given) {
        Ok(chains) => chains,
        Err(reported) => return (Err(reported), Err(reported)),
    };
    let datasets = contracts(given, sections, &mut chains).map(|of| given.datasets().of_contracts(of));
    if let Ok(datasets) = &datasets {
        for chain in &mut chains {
            chain.datasets = datasets.clone();
        }
    }
    (Ok(chains), datasets)
}

/// The contracts of all sections, on the chains that they name. A chain with a list of addresses indexes these contracts too.
fn contracts(given: &mut Given, sections: &[ContractsOf], chains: &mut [Chain]) -> Read<Contracts> {
    let (mut contracts, mut refused) = (Contracts::default(), Ok(()));
    for section in sections {
        let named = |chain: &&mut Chain| section.chain.as_ref().is_none_or(|name| *name == chain.name);
        let several = section.chain.is_none() && chains.len() > 1;
        let Some(chain) = chains.iter_mut().find(named).filter(|_| !several) else {
            let key = format!("{SECTION}.{}.chain", section.name);
            let why = match &section.chain {
                Some(name) => format!("there is no chain of the name {name}: add [chains.{name}]"),
                None if several => "there are several chains: name the one with these contracts".into(),
                None => "there is no chain: add [chains.NAME]".into(),
            };
            refused = Err(given.object(&key, why));
            continue;
        };
        for address in &section.addresses {
            if !chain.addresses.is_empty() && !chain.addresses.contains(address) {
                chain.addresses.push(*address);
            }
            let (kind, from) = (section.kind().to_owned(), section.start_block);
            contracts.add(chain.chain_id, Contract { address: *address, kind, from });
        }
    }
    refused.map(|()| contracts)
}
