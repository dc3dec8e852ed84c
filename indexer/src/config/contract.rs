//! `[contracts.NAME]`: contracts of a user's own, whose events get tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use alloy::primitives::Address;

use super::chain::{Chain, chains};
use super::given::{Given, Read};
use super::kind;
use super::section::settings;
use crate::dataset::{Contract, Contracts, Dataset, Datasets, Factory, tables};
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
        /// The event that announces its contracts, if one does.
        pub factory: Option<Announced>,
    } {
        /// The files with the ABI: a JSON array, an artefact of Foundry, Hardhat or Truffle, or lines such as `event Paid(address indexed by)`.
        ///
        /// Several files are versions of the ABI, the oldest first: an event with the same types has one table. Not needed for a built-in
        /// kind; there, the files add versions.
        pub abi: Vec<PathBuf> = unset "abi/Bond.json", kind::FILE;

        /// The addresses of the contracts.
        ///
        /// A log belongs to these tables by its contract, never by its topics alone. Without addresses, the section makes the tables of
        /// its kind for contracts that a factory announces, or that `dalp-indexer contracts add` names later.
        pub addresses: Vec<Address> = unset "0x5fbdb2315678afecb367f032d93f642f64180aa3", kind::ADDRESS;

        /// The kind of the contracts, which begins the names of their tables: `bond` makes `bond_transfer`. Its own name if it is not set.
        ///
        /// Contracts of one kind have one set of tables, on all chains. `dalp-indexer abi kinds` lists the built-in kinds, which need no
        /// ABI.
        pub kind: Option<String> = unset "smart_token", kind::NAME;

        /// The name of the chain in `[chains.NAME]`.
        ///
        /// Not needed with a single chain.
        pub chain: Option<String> = unset "anvil", kind::NAME;

        /// The first block whose logs of these contracts have rows in the tables.
        ///
        /// The block of the first contract's deployment; logs before it were another program's at the same address.
        pub start_block: u64 = "0", kind::Int(0, kind::MAX_INT);

        /// The last block whose logs of these contracts have rows in the tables, if there is one.
        ///
        /// A proxy that is upgraded has events of another ABI from then on: a second section takes them.
        pub end_block: Option<u64> = unset "1500000", kind::Int(0, kind::MAX_INT);

        /// Whether contracts that these contracts announce are indexed too, of built-in kinds: the tokens of a token factory, and all
        /// contracts of a system of a system factory.
        ///
        /// Without it, only the events of the named contracts have tables.
        pub discover: bool = "true", kind::BOOL;
    }
}

settings! {
    /// The event that announces the contracts of a section.
    pub struct AnnouncedBy in "contracts.*.factory", drafted as FactoryDraft {
        /// The name of the section in `[contracts.NAME]` whose contracts announce the contracts of this section. Each of them is indexed
        /// from the block of its announcement on.
        ///
        /// Contracts of one kind are alike: the events of all contracts of that section's kind count.
        pub contract: Option<String> = unset "bond_factory", kind::NAME;

        /// The event, by its name or its signature, such as `Created(address,string)`.
        ///
        /// A name stands for all forms of the event with that parameter.
        pub event: Option<String> = unset "TokenAssetCreated", kind::EVENT;

        /// The parameter of the event with the address of the contract.
        ///
        /// It is of the type `address`.
        pub parameter: Option<String> = unset "tokenAddress", kind::WORD;
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

/// The event of a section's contracts that announces contracts: the section, the event, the parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The section.
    pub contract: String,
    /// The event.
    pub event: String,
    /// The parameter.
    pub parameter: String,
}

/// The sections of contracts, their factories, and what of their ABIs could not be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sections {
    pub of: Vec<ContractsOf>,
    pub factories: Vec<Factory>,
    pub skipped: Vec<String>,
}

/// All sections. Their tables are added to the known ones.
pub(super) fn read(given: &mut Given) -> Sections {
    let mut of = Vec::new();
    for name in given.names(SECTION) {
        let factory = announced(given, &name);
        let draft = ContractDraft::read(given, &name);
        of.extend(draft.finish(name, factory));
    }
    let (mut kinds, skipped) = kinds_of(given, &of);
    let mut factories = catalogued(&of, &mut kinds);
    factories.extend(configured(given, &of, &kinds));
    for (kind, abi) in kinds {
        match with_tables(given.datasets(), &kind, &abi.events) {
            Ok(datasets) => given.extend(datasets),
            Err(why) => {
                given.object(&format!("{SECTION}.{kind}"), why);
            }
        }
    }
    Sections { of, factories, skipped }
}

/// The factory of a section, which has all of its three settings or none.
fn announced(given: &mut Given, name: &str) -> Option<Announced> {
    let draft = FactoryDraft::read(given, name).finish().ok()?;
    match (draft.contract, draft.event, draft.parameter) {
        (None, None, None) => None,
        (Some(contract), Some(event), Some(parameter)) => Some(Announced { contract, event, parameter }),
        _ => {
            let why = "it needs contract, event and parameter: the section of the factory, its event, and the parameter with the address";
            given.object(&format!("{SECTION}.{name}.factory"), why.to_owned());
            None
        }
    }
}

/// The ABI of each kind, and what of them could not be read.
fn kinds_of(given: &mut Given, sections: &[ContractsOf]) -> (BTreeMap<String, Abi>, Vec<String>) {
    let (mut kinds, mut skipped): (BTreeMap<String, Abi>, _) = (BTreeMap::new(), Vec::new());
    for section in sections {
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
    for section in sections {
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
    (kinds, skipped)
}

/// The factories among the built-in kinds of these sections, and among the kinds that they announce, which are added.
fn catalogued(sections: &[ContractsOf], kinds: &mut BTreeMap<String, Abi>) -> Vec<Factory> {
    let built_in = sections.iter().filter(|section| section.discover).filter_map(ContractsOf::built_in);
    let mut open: Vec<catalogue::Kind> = built_in.collect();
    let (mut seen, mut factories) = (BTreeSet::new(), Vec::new());
    while let Some(kind) = open.pop() {
        if !seen.insert(kind.name) {
            continue;
        }
        for (event, parameter, child) in kind.announces() {
            let Some(child) = catalogue::of(child) else { continue };
            if !kinds.contains_key(child.name) {
                kinds.insert(child.name.to_owned(), child.abi());
            }
            open.push(child);
            // A test finds each of them.
            factories
                .extend(Factory::of(kind.name, &kind.abi().events, event, parameter, child.name).unwrap_or_default());
        }
    }
    factories
}

/// The factories of the sections' own settings.
fn configured(given: &mut Given, sections: &[ContractsOf], kinds: &BTreeMap<String, Abi>) -> Vec<Factory> {
    let named = |name: &str| sections.iter().find(|section| section.name == name);
    let mut factories = Vec::new();
    for section in sections {
        let Some(announced) = &section.factory else { continue };
        let key = |last: &str| format!("{SECTION}.{}.factory{last}", section.name);
        let Some(factory) = named(&announced.contract) else {
            let why =
                format!("there is no section [{SECTION}.{}]: name the section of the factory", announced.contract);
            given.object(&key(".contract"), why);
            continue;
        };
        if let Some(cycle) = rootless(section, named) {
            given.object(&key(""), cycle);
        }
        let Some(abi) = kinds.get(factory.kind()) else { continue };
        match Factory::of(factory.kind(), &abi.events, &announced.event, &announced.parameter, section.kind()) {
            Ok(found) => factories.extend(found),
            Err(why) => {
                given.object(&key(""), why);
            }
        }
    }
    factories
}

/// The reason why no contract of a section can ever be found: its factories announce each other, and none of them has an address.
fn rootless<'s>(section: &'s ContractsOf, named: impl Fn(&str) -> Option<&'s ContractsOf>) -> Option<String> {
    let mut way = vec![section.name.as_str()];
    let mut at = section;
    while at.addresses.is_empty() {
        at = named(&at.factory.as_ref()?.contract)?;
        way.push(&at.name);
        if way[..way.len() - 1].contains(&at.name.as_str()) {
            return Some(format!(
                "these factories announce each other, and none of them has an address: {}; give one of them addresses",
                way.join(" by ")
            ));
        }
    }
    None
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
pub(super) fn chains_with(given: &mut Given, sections: &Sections) -> (Read<Vec<Chain>>, Read<Datasets>) {
    let mut chains = match chains(given) {
        Ok(chains) => chains,
        Err(reported) => return (Err(reported), Err(reported)),
    };
    let datasets = given.datasets().with_factories(&sections.factories);
    let datasets = contracts(given, &sections.of, &datasets, &mut chains).map(|of| datasets.of_contracts(of));
    if let Ok(datasets) = &datasets {
        for chain in &mut chains {
            chain.datasets = datasets.clone();
        }
    }
    (Ok(chains), datasets)
}

/// What is wrong with the last block of a section, if anything is.
fn wrong_end(section: &ContractsOf) -> Option<String> {
    let end = section.end_block?;
    if section.addresses.is_empty() {
        return Some(
            "it is the last block of the section's addresses, and there are none: name them, or take it away"
                .to_owned(),
        );
    }
    (end < section.start_block)
        .then(|| format!("it is before start_block, which is {}: give a later block", section.start_block))
}

/// The contracts of all sections, on the chains that they name. A chain with a list of addresses indexes these contracts too.
fn contracts(
    given: &mut Given,
    sections: &[ContractsOf],
    datasets: &Datasets,
    chains: &mut [Chain],
) -> Read<Contracts> {
    let (mut contracts, mut refused) = (Contracts::default(), Ok(()));
    for section in sections {
        let named = |chain: &&mut Chain| section.chain.as_ref().is_none_or(|name| *name == chain.name);
        let several = section.chain.is_none() && chains.len() > 1 && !section.addresses.is_empty();
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
        if let Some(why) = wrong_end(section) {
            refused = Err(given.object(&format!("{SECTION}.{}.end_block", section.name), why));
        }
        if section.addresses.is_empty() {
            continue;
        }
        if datasets.is_factory(section.kind())
            && let Some(why) = hides_children(chain)
        {
            refused = Err(given.object(&format!("{SECTION}.{}", section.name), why));
        }
        for address in &section.addresses {
            if !chain.addresses.is_empty() && !chain.addresses.contains(address) {
                chain.addresses.push(*address);
            }
            let (kind, from, to) = (section.kind().to_owned(), section.start_block, section.end_block);
            contracts.add(chain.chain_id, Contract { address: *address, kind, from, to });
        }
    }
    refused.map(|()| contracts)
}

/// Why a chain lacks logs of contracts that are announced.
fn hides_children(chain: &Chain) -> Option<String> {
    let name = &chain.name;
    let end = "or index no announced contracts: discover = false, and no factory that names this section";
    if !chain.addresses.is_empty() {
        return Some(format!(
            "its contracts announce others, whose logs the chain's list of addresses leaves out: remove chains.{name}.addresses, {end}"
        ));
    }
    (!chain.raw).then(|| {
        format!(
            "its contracts announce others, and the logs of one that is found late come from the raw logs: set chains.{name}.raw = true, \
             {end}"
        )
    })
}
