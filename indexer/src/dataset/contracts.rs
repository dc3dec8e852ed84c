//! The contracts of each kind: a log belongs to a kind's tables by its emitter.

use std::collections::BTreeMap;

use alloy::primitives::map::FbMap;
use alloy::primitives::{Address, FixedBytes};

/// The configured contracts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contracts {
    /// By chain.
    chains: BTreeMap<u64, Vec<Contract>>,
}

/// A contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Its address.
    pub address: Address,
    /// The name of its kind.
    pub kind: String,
    /// The first block whose logs of it are of this kind.
    pub from: u64,
    /// The last one; `None`: it is of this kind for ever.
    pub to: Option<u64>,
}

impl Contracts {
    /// Adds a contract of a chain.
    pub fn add(&mut self, chain_id: u64, contract: Contract) {
        self.chains.entry(chain_id).or_default().push(contract);
    }

    /// The contracts of a chain.
    pub fn of(&self, chain_id: u64) -> &[Contract] {
        self.chains.get(&chain_id).map_or(&[], Vec::as_slice)
    }
}

/// The kind of a contract, by its index among the kinds.
pub type KindAt = u16;

/// Contracts of one chain, each with its kinds and the blocks of each. A million of them take 88 MB, by measurement: no entry owns memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Emitters {
    of: FbMap<22, Since>,
    /// The last blocks of those few that are of their kind no more.
    ended: FbMap<22, u64>,
}

/// Since when a contract is of a kind.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Since {
    /// The first block whose logs count, for whatever reason.
    from: u64,
    /// The first block with an event that announces it; the last number if none does. An announcement counts also if the contract is
    /// given: it stays when nobody gives it any more.
    found: u64,
}

impl Since {
    const NEVER: Self = Self { from: u64::MAX, found: u64::MAX };
}

impl Emitters {
    /// Whether a contract is of this kind in block `number`. Runs for each log of a kind's event.
    #[inline]
    pub fn has(&self, address: &Address, kind: KindAt, number: u64) -> bool {
        let key = key(address, kind);
        self.of.get(&key).is_some_and(|since| since.from <= number) && !self.is_ended(&key, number)
    }

    #[inline]
    fn is_ended(&self, key: &FixedBytes<22>, number: u64) -> bool {
        !self.ended.is_empty() && self.ended.get(key).is_some_and(|last| number > *last)
    }

    /// Whether an event announces a contract of this kind in block `number` or below.
    pub fn is_found(&self, address: &Address, kind: KindAt, number: u64) -> bool {
        self.of.get(&key(address, kind)).is_some_and(|since| since.found <= number)
    }

    /// Adds a contract that is announced in this block.
    pub fn find(&mut self, address: &Address, kind: KindAt, block: u64) {
        let since = self.of.entry(key(address, kind)).or_insert(Since::NEVER);
        *since = Since { from: since.from.min(block), found: since.found.min(block) };
    }

    /// Adds these contracts, which are announced.
    pub fn extend(&mut self, found: &Self) {
        found.iter().for_each(|(address, kind, block)| self.find(&address, kind, block));
    }

    /// Sets the first block of a contract, and the block of its announcement; without a first block, it is none of this kind.
    pub fn set(&mut self, address: &Address, kind: KindAt, from: Option<u64>, found: Option<u64>) {
        match from {
            Some(from) => self.of.insert(key(address, kind), Since { from, found: found.unwrap_or(u64::MAX) }),
            None => self.of.remove(&key(address, kind)),
        };
    }

    /// Sets the last block of a contract, if there is one.
    pub fn end(&mut self, address: &Address, kind: KindAt, to: Option<u64>) {
        match to {
            Some(to) => self.ended.insert(key(address, kind), to),
            None => self.ended.remove(&key(address, kind)),
        };
    }

    /// Each contract with its kind and first block.
    pub fn iter(&self) -> impl Iterator<Item = (Address, KindAt, u64)> {
        self.of.iter().map(|(key, since)| {
            let (address, kind) = key.split_at(20);
            (Address::from_slice(address), KindAt::from_be_bytes([kind[0], kind[1]]), since.from)
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

fn key(address: &Address, kind: KindAt) -> FixedBytes<22> {
    let mut key = [0; 22];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(&kind.to_be_bytes());
    FixedBytes(key)
}

/// The known contracts of one chain, as of a version. The state row has the version of the stored ones, from 1 on, so a batch that was
/// sorted by others is refused; 0 is that of a process that knows none yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory {
    /// Rises with each change.
    pub version: i64,
    /// The contracts.
    pub emitters: Emitters,
}

/// The known contracts of a chain, and those that a batch itself announces.
#[derive(Clone, Copy, Debug)]
pub struct Known<'e> {
    pub(super) of: &'e Emitters,
    pub(super) found: &'e Emitters,
}

impl<'e> Known<'e> {
    /// These, and those that were found beside them.
    pub fn new(of: &'e Emitters, found: &'e Emitters) -> Self {
        Self { of, found }
    }

    pub(super) fn is_found(&self, address: &Address, kind: KindAt, number: u64) -> bool {
        self.of.is_found(address, kind, number) || self.found.is_found(address, kind, number)
    }

    #[inline]
    pub(super) fn has(&self, address: &Address, kind: KindAt, number: u64) -> bool {
        self.of.has(address, kind, number) || (!self.found.is_empty() && self.has_found(address, kind, number))
    }

    /// A last block that is given ends a contract that is announced, too.
    fn has_found(&self, address: &Address, kind: KindAt, number: u64) -> bool {
        self.found.has(address, kind, number) && !self.of.is_ended(&key(address, kind), number)
    }
}
