//! The contracts of each kind, chain by chain: a log belongs to a kind's tables by its emitter.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use alloy::primitives::map::AddressMap;

/// The known contracts.
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
}

impl Contracts {
    /// Adds a contract of a chain.
    pub fn add(&mut self, chain_id: u64, contract: Contract) {
        self.chains.entry(chain_id).or_default().push(contract);
    }

    /// The chains with contracts.
    pub fn chains(&self) -> impl Iterator<Item = u64> {
        self.chains.keys().copied()
    }

    /// The contracts of a chain.
    pub fn of(&self, chain_id: u64) -> &[Contract] {
        self.chains.get(&chain_id).map_or(&[], Vec::as_slice)
    }
}

/// The contracts of one chain, by address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Emitters {
    /// The kinds of a contract, each with its first block.
    of: AddressMap<Vec<(u16, u64)>>,
}

impl Emitters {
    /// These contracts. `kinds`: all names, in order.
    pub(super) fn of<'c>(contracts: impl IntoIterator<Item = &'c Contract>, kinds: &[String]) -> Self {
        let mut of = AddressMap::<Vec<(u16, u64)>>::default();
        for contract in contracts {
            let kind = kinds.iter().position(|kind| *kind == contract.kind).and_then(|at| u16::try_from(at).ok());
            of.entry(contract.address).or_default().extend(kind.map(|kind| (kind, contract.from)));
        }
        Self { of }
    }

    /// Whether a contract is of this kind in block `number`.
    #[inline]
    pub(super) fn has(&self, address: &Address, kind: u16, number: u64) -> bool {
        self.of.get(address).is_some_and(|kinds| kinds.iter().any(|(of, from)| *of == kind && *from <= number))
    }
}
