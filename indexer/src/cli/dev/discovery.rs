//! Which contracts of the devnet are those of the user's project: by their code, as soon as they emit.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, b256};
use dalp_fixtures::Rpc;
use serde_json::json;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use tracing::{debug, info};

use super::artefact::{Artefact, clone_of};
use crate::cli::failure::Failure;
use crate::config::Config;
use crate::store::connect::{connect_direct, explain};
use crate::store::int8;

/// Pause between two looks for new emitters.
const LOOK: Duration = Duration::from_secs(1);
/// Blocks that are looked at again: a devnet goes back.
const AGAIN: i64 = 256;

/// The contracts of each kind, with the files of their ABI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    kinds: BTreeMap<String, (BTreeSet<PathBuf>, BTreeSet<Address>)>,
}

impl Known {
    /// Adds a contract; whether it was unknown.
    pub fn add(&mut self, kind: &str, abi: PathBuf, address: Address) -> bool {
        let (files, addresses) = self.kinds.entry(kind.to_owned()).or_default();
        let is_new_file = files.insert(abi);
        addresses.insert(address) || is_new_file
    }

    /// As sections of the configuration.
    pub fn toml(&self) -> String {
        let mut text = String::new();
        for (kind, (files, addresses)) in &self.kinds {
            let quoted = |text: String| toml::Value::String(text).to_string();
            let files: Vec<String> = files.iter().map(|path| quoted(path.display().to_string())).collect();
            let addresses: Vec<String> = addresses.iter().map(|address| quoted(address.to_string())).collect();
            // Writing to a text cannot fail.
            let _ = writeln!(
                text,
                "\n[contracts.{kind}]\nabi = [{}]\naddresses = [{}]",
                files.join(", "),
                addresses.join(", ")
            );
        }
        text
    }
}

/// Looks for contracts of the project among those whose logs are stored.
pub(super) struct Discovery {
    artefacts: Vec<Artefact>,
    rpc: Rpc,
    chain_id: i64,
    client: Option<Client>,
    seen: HashSet<Address>,
    last_block: i64,
    pub known: Known,
}

impl Discovery {
    pub fn new(artefacts: Vec<Artefact>, rpc: Rpc, chain_id: u64, known: Known) -> Self {
        let (client, seen) = (None, HashSet::new());
        Self { artefacts, rpc, chain_id: int8(chain_id), client, seen, last_block: -1, known }
    }

    /// Waits until contracts were found that were unknown. Pending without artefacts. Cancel-safe.
    pub async fn found(&mut self, config: &Config) {
        if self.artefacts.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(LOOK).await;
            match self.look(config).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    self.client = None;
                    debug!(%error, "the emitters of logs are unknown");
                }
            }
        }
    }

    async fn look(&mut self, config: &Config) -> Result<bool, Failure> {
        let client = match self.client.take() {
            Some(client) => self.client.insert(client),
            None => self.client.insert(connect_direct(&config.database, &config.database.reader_url).await?),
        };
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&self.chain_id, Type::INT8), (&(self.last_block - AGAIN), Type::INT8)];
        let rows = client.query_typed(EMITTERS, &params).await;
        let rows = rows.map_err(|error| Failure::other(explain(&error)))?;
        let (mut is_new, mut last) = (false, self.last_block);
        for row in rows {
            let address = Address::try_from(row.get::<_, &[u8]>(0)).unwrap_or_default();
            last = last.max(row.get(1));
            if self.seen.contains(&address) {
                continue;
            }
            if let Some(artefact) = self.artefact_of(address).await? {
                let (kind, path) = (artefact.kind.clone(), artefact.path.clone());
                info!(what = %address, "a contract of the kind {kind}");
                is_new |= self.known.add(&kind, path, address);
            }
            self.seen.insert(address);
        }
        self.last_block = last;
        Ok(is_new)
    }

    /// The artefact of a contract's code, or of the code that a proxy passes its calls on to.
    async fn artefact_of(&self, address: Address) -> Result<Option<&Artefact>, Failure> {
        let code = self.code(address).await?;
        let own = |code: &[u8]| self.artefacts.iter().find(|artefact| artefact.is(code));
        let mut implementations: Vec<Address> = clone_of(&code).map(Address::from).into_iter().collect();
        for slot in [EIP_1967, EIP_1822] {
            let word: B256 = self.rpc.call("eth_getStorageAt", json!([address, slot, "latest"])).await?;
            implementations.extend(Some(Address::from_word(word)).filter(|to| *to != Address::ZERO));
        }
        let beacon: B256 = self.rpc.call("eth_getStorageAt", json!([address, EIP_1967_BEACON, "latest"])).await?;
        if beacon != B256::ZERO {
            let call = json!([{ "to": Address::from_word(beacon), "data": "0x5c60da1b" }, "latest"]);
            let answer: Bytes = self.rpc.call("eth_call", call).await?;
            implementations.extend(answer.first_chunk::<32>().map(|word| Address::from_word(B256::from(*word))));
        }
        for implementation in implementations {
            if let Some(artefact) = own(&self.code(implementation).await?) {
                return Ok(Some(artefact));
            }
        }
        Ok(own(&code))
    }

    async fn code(&self, address: Address) -> Result<Bytes, Failure> {
        Ok(self.rpc.call("eth_getCode", json!([address, "latest"])).await?)
    }
}

const EMITTERS: &str = "SELECT address, max(block_number) FROM dalp_indexed.logs WHERE chain_id = $1 AND block_number > $2 GROUP BY address";
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
    fn contracts_are_sections_of_the_configuration() {
        let mut known = Known::default();
        let (one, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        assert!(known.add("bond", "out/Bond.json".into(), one) && !known.add("bond", "out/Bond.json".into(), one));
        assert!(known.add("bond", "out/Bond.json".into(), other) && known.add("bond", "v2/Bond.json".into(), other));
        let text = format!(
            "\n[contracts.bond]\nabi = [\"out/Bond.json\", \"v2/Bond.json\"]\naddresses = [\"{one}\", \"{other}\"]\n"
        );
        assert_eq!(known.toml(), text);
    }
}
