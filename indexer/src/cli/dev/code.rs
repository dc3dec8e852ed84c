//! The code that a contract runs: its own, or that of the contracts that a proxy passes its calls on to, by block.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alloy::primitives::{Address, B256, Bytes, b256};
use dalp_fixtures::{Error, Rpc};
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

    /// The implementations that a contract announced, each with its block.
    fn of(&self, address: Address) -> Vec<(u64, Address)> {
        self.of.get(&address).into_iter().flatten().map(|(block, to)| (*block, *to)).collect()
    }
}

/// The code of contracts on a node.
pub(super) struct Codes {
    rpc: Rpc,
    /// Of the contracts that were asked for.
    known: HashMap<Address, Bytes>,
}

/// The implementations of a proxy, each with its first block, and the contract whose upgrades change them.
pub(super) struct Proxied {
    pub follows: Address,
    pub since: Vec<(u64, Address)>,
}

/// The contract to which a contract passed a call on in a transaction.
pub(super) enum Traced {
    To(Address),
    Nowhere,
    /// The node does not trace, or not this transaction any more.
    Unknown,
}

impl Codes {
    pub fn new(rpc: Rpc) -> Self {
        Self { rpc, known: HashMap::new() }
    }

    /// Asks the node again: another contract may be there.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// The implementations of a proxy of a standard; none of another contract.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn proxied(&self, address: Address, own: &[u8], upgrades: &Upgrades) -> Result<Option<Proxied>, Failure> {
        if let Some(to) = clone_of(own) {
            return Ok(Some(Proxied { follows: address, since: vec![(0, Address::from(to))] }));
        }
        for slot in [EIP_1967, EIP_1822] {
            if let Some(to) = self.slot(address, slot, None).await? {
                let mut since = upgrades.of(address);
                let before = before(&since);
                let first = if before.is_some() { self.slot(address, slot, before).await.ok().flatten() } else { None };
                let announced = since.first().map(|(_, to)| *to);
                begin(&mut since, first.or(announced).unwrap_or(to));
                return Ok(Some(Proxied { follows: address, since }));
            }
        }
        let Some(beacon) = self.slot(address, EIP_1967_BEACON, None).await? else { return Ok(None) };
        let mut since = upgrades.of(beacon);
        let before = before(&since);
        let first = if before.is_some() || since.is_empty() { self.implementation(beacon, before).await } else { None };
        if let Some(first) = first.or_else(|| since.first().map(|(_, to)| *to)) {
            begin(&mut since, first);
        }
        Ok(Some(Proxied { follows: beacon, since }))
    }

    /// The contract to which a contract passed a call on in a transaction: that of a proxy whose storage follows no standard.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn delegate(&self, address: Address, tx_hash: B256) -> Result<Traced, Failure> {
        let trace = json!([tx_hash, { "tracer": "callTracer" }]);
        let root: Call = match self.rpc.call("debug_traceTransaction", trace).await {
            Ok(root) => root,
            Err(Error::Refused { .. }) => return Ok(Traced::Unknown),
            Err(error) => return Err(error.into()),
        };
        let mut open = vec![root];
        while let Some(call) = open.pop() {
            if let ("DELEGATECALL", Some(to), true) = (&*call.kind, call.to, call.from == address) {
                return Ok(Traced::To(to));
            }
            open.extend(call.calls.into_iter().rev());
        }
        Ok(Traced::Nowhere)
    }

    /// What a beacon answers in a block; none if it reverts.
    async fn implementation(&self, beacon: Address, block: Option<u64>) -> Option<Address> {
        let call = json!([{ "to": beacon, "data": "0x5c60da1b" }, tag(block)]);
        let answer: Bytes = self.rpc.call("eth_call", call).await.ok()?;
        let word = answer.first_chunk::<32>()?;
        Some(Address::from_word(B256::from(*word))).filter(|to| !to.is_zero())
    }

    async fn slot(&self, address: Address, slot: B256, block: Option<u64>) -> Result<Option<Address>, Failure> {
        let word: B256 = self.rpc.call("eth_getStorageAt", json!([address, slot, tag(block)])).await?;
        Ok(Some(Address::from_word(word)).filter(|to| !to.is_zero()))
    }

    /// The code of a contract.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn code(&mut self, address: Address) -> Result<Bytes, Failure> {
        if let Some(known) = self.known.get(&address) {
            return Ok(known.clone());
        }
        let code: Bytes = self.rpc.call("eth_getCode", json!([address, "latest"])).await?;
        // A contract that is gone may come back.
        if !code.is_empty() {
            self.known.insert(address, code.clone());
        }
        Ok(code)
    }
}

/// The block before the first upgrade: some constructors set the first implementation without an event.
fn before(since: &[(u64, Address)]) -> Option<u64> {
    since.first().and_then(|(block, _)| block.checked_sub(1))
}

/// Makes this implementation that of the blocks before the first upgrade, which is the same if the constructor announced it.
fn begin(since: &mut Vec<(u64, Address)>, first: Address) {
    match since.first_mut() {
        Some(known) if known.1 == first => known.0 = 0,
        _ => since.insert(0, (0, first)),
    }
}

fn tag(block: Option<u64>) -> String {
    block.map_or_else(|| "latest".to_owned(), |number| format!("{number:#x}"))
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
        assert_eq!(replace(0, &[first, (other, 6, one)]), (vec![proxy, other], vec![(5, one)]));
        assert_eq!(replace(4, &[first, (other, 6, one)]), (vec![], vec![(5, one)]));
        let last = (proxy, 9, two);
        assert_eq!(replace(7, &[(proxy, 9, one), last]), (vec![proxy], vec![(5, one), (9, two)]));
        assert_eq!(replace(7, &[]), (vec![proxy], vec![(5, one)]));
        assert_eq!(replace(0, &[]), (vec![proxy, other], vec![]));
    }

    #[test]
    fn the_first_implementation_may_be_without_an_event() {
        let [one, two] = [1, 2].map(Address::repeat_byte);
        let begun = |since: &[(u64, Address)], first| {
            let mut since = since.to_vec();
            begin(&mut since, first);
            since
        };
        assert_eq!(begun(&[], one), [(0, one)]);
        assert_eq!(begun(&[(5, one), (9, two)], one), [(0, one), (9, two)]);
        assert_eq!(begun(&[(9, two)], one), [(0, one), (9, two)]);
        assert_eq!([before(&[]), before(&[(0, one)]), before(&[(9, one)])], [None, None, Some(8)]);
    }
}
