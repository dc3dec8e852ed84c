//! The code that a contract runs: its own, or that of the contracts that a proxy passes its calls on to, by block.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alloy::primitives::{Address, B256, Bytes, b256};
use dalp_fixtures::Rpc;
use serde::Deserialize;
use serde_json::json;

use super::artefact::clone_of;
use crate::cli::failure::Failure;

/// The implementations that proxies and beacons announced, by block: the last one of a block counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Upgrades {
    of: BTreeMap<Address, BTreeMap<u64, Address>>,
}

impl Upgrades {
    /// Replaces the upgrades from a block on, in their order; returns the contracts whose upgrades changed.
    pub fn replace(&mut self, from: u64, upgrades: impl Iterator<Item = (Address, u64, Address)>) -> BTreeSet<Address> {
        let before: BTreeMap<Address, _> =
            self.of.iter_mut().map(|(address, blocks)| (*address, blocks.split_off(&from))).collect();
        for (address, block, implementation) in upgrades {
            self.of.entry(address).or_default().insert(block, implementation);
        }
        let now = |blocks: &BTreeMap<u64, Address>| blocks.range(from..).map(|(at, to)| (*at, *to)).collect();
        let changed =
            self.of.iter().filter(|(address, blocks)| before.get(*address).cloned().unwrap_or_default() != now(blocks));
        changed.map(|(address, _)| *address).collect()
    }

    /// The implementations of a contract, each with its first block: the first one counts from the start.
    fn of(&self, address: Address) -> Option<Vec<(u64, Address)>> {
        let blocks = self.of.get(&address).filter(|blocks| !blocks.is_empty())?;
        Some(blocks.iter().enumerate().map(|(at, (block, to))| (if at == 0 { 0 } else { *block }, *to)).collect())
    }
}

/// The code of contracts on a node.
pub(super) struct Codes {
    rpc: Rpc,
    /// Of the contracts that were asked for.
    known: HashMap<Address, Bytes>,
}

/// The codes that a contract runs from a block on, the decisive one first.
pub(super) type Since = (u64, Vec<Bytes>);

impl Codes {
    pub fn new(rpc: Rpc) -> Self {
        Self { rpc, known: HashMap::new() }
    }

    /// Asks the node again: another contract may be there.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// The codes of a contract with a log in this transaction, and the contract whose upgrades change them.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn of(
        &mut self,
        address: Address,
        tx_hash: B256,
        upgrades: &Upgrades,
    ) -> Result<(Address, Vec<Since>), Failure> {
        let own = self.code(address).await?;
        let (follows, implementations) = self.implementations(address, &own, upgrades).await?;
        let mut codes = Vec::with_capacity(implementations.len());
        for (from, implementation) in implementations {
            codes.push((from, vec![self.code(implementation).await?, own.clone()]));
        }
        if codes.is_empty() {
            // A contract that follows no standard, or calls a library: its own code comes first.
            let delegate = self.delegate(address, tx_hash).await;
            let delegate = if let Some(to) = delegate { Some(self.code(to).await?) } else { None };
            codes.push((0, std::iter::once(own).chain(delegate).collect()));
        }
        Ok((follows, codes))
    }

    /// The implementations of a proxy of a standard by block; none of another contract.
    async fn implementations(
        &self,
        address: Address,
        own: &[u8],
        upgrades: &Upgrades,
    ) -> Result<(Address, Vec<(u64, Address)>), Failure> {
        if let Some(to) = clone_of(own) {
            return Ok((address, vec![(0, Address::from(to))]));
        }
        for slot in [EIP_1967, EIP_1822] {
            if let Some(to) = self.slot(address, slot).await? {
                return Ok((address, upgrades.of(address).unwrap_or_else(|| vec![(0, to)])));
            }
        }
        if let Some(beacon) = self.slot(address, EIP_1967_BEACON).await? {
            if let Some(implementations) = upgrades.of(beacon) {
                return Ok((beacon, implementations));
            }
            let call = json!([{ "to": beacon, "data": "0x5c60da1b" }, "latest"]);
            let answer: Bytes = self.rpc.call("eth_call", call).await?;
            let to = answer.first_chunk::<32>().map(|word| (0, Address::from_word(B256::from(*word))));
            return Ok((beacon, to.into_iter().collect()));
        }
        Ok((address, Vec::new()))
    }

    /// The contract to which a contract passed a call on in a transaction: that of a proxy whose storage follows no standard. None where
    /// the node does not trace.
    async fn delegate(&self, address: Address, tx_hash: B256) -> Option<Address> {
        let trace = json!([tx_hash, { "tracer": "callTracer" }]);
        let root: Call = self.rpc.call("debug_traceTransaction", trace).await.ok()?;
        let mut open = vec![root];
        while let Some(call) = open.pop() {
            if call.kind == "DELEGATECALL" && call.from == address {
                return call.to;
            }
            open.extend(call.calls);
        }
        None
    }

    async fn slot(&self, address: Address, slot: B256) -> Result<Option<Address>, Failure> {
        let word: B256 = self.rpc.call("eth_getStorageAt", json!([address, slot, "latest"])).await?;
        Ok(Some(Address::from_word(word)).filter(|to| !to.is_zero()))
    }

    async fn code(&mut self, address: Address) -> Result<Bytes, Failure> {
        if let Some(known) = self.known.get(&address) {
            return Ok(known.clone());
        }
        let code: Bytes = self.rpc.call("eth_getCode", json!([address, "latest"])).await?;
        self.known.insert(address, code.clone());
        Ok(code)
    }
}

/// A call of a trace.
#[derive(Deserialize)]
struct Call {
    #[serde(rename = "type")]
    kind: String,
    from: Address,
    to: Option<Address>,
    #[serde(default)]
    calls: Vec<Call>,
}

/// keccak256("eip1967.proxy.implementation") - 1.
const EIP_1967: B256 = b256!("360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc");
/// keccak256("eip1967.proxy.beacon") - 1.
const EIP_1967_BEACON: B256 = b256!("a3f0ad74e5423aebfd80d3ef4346578335a9a72aeaee59ff6cb3582b35133d50");
/// keccak256("PROXIABLE").
const EIP_1822: B256 = b256!("c5f16f0fcc639fa48a6947836d9850f504798523bf8c9a3a87d5876cf622bcf7");

#[cfg(test)]
mod tests {
    use alloy::primitives::{U256, keccak256};

    use super::*;

    #[test]
    fn slots_are_those_of_the_standards() {
        let below = |text: &str| B256::from(U256::from_be_bytes(keccak256(text).0) - U256::from(1));
        assert_eq!(EIP_1967, below("eip1967.proxy.implementation"));
        assert_eq!(EIP_1967_BEACON, below("eip1967.proxy.beacon"));
        assert_eq!(EIP_1822, keccak256("PROXIABLE"));
    }

    #[test]
    fn upgrades_are_read_again_as_a_devnet_goes_back() {
        let [proxy, other, one, two] = [1, 2, 3, 4].map(Address::repeat_byte);
        let mut upgrades = Upgrades::default();
        let mut replace = |from, of: &[(Address, u64, Address)]| {
            let changed: Vec<Address> = upgrades.replace(from, of.iter().copied()).into_iter().collect();
            (changed, upgrades.of(proxy))
        };
        let first = (proxy, 5, one);
        assert_eq!(replace(0, &[first, (other, 6, one)]), (vec![proxy, other], Some(vec![(0, one)])));
        assert_eq!(replace(4, &[first, (other, 6, one)]), (vec![], Some(vec![(0, one)])));
        let last = (proxy, 9, two);
        assert_eq!(replace(7, &[(proxy, 9, one), last]), (vec![proxy], Some(vec![(0, one), (9, two)])));
        assert_eq!(replace(7, &[]), (vec![proxy], Some(vec![(0, one)])));
        assert_eq!(replace(0, &[]), (vec![proxy, other], None));
    }
}
