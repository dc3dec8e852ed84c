//! The built-in kinds of contracts: the events of DALP, ERC-3643, ONCHAINID and OpenZeppelin, one file for each type of contract.
//!
//! A file has the current events first, then those of earlier versions: so the current ones have the plain names of tables. Its
//! first line tells which contracts are of the kind.

use strsim::levenshtein;

use super::abi::Abi;

/// A built-in kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name, which begins the names of its tables.
    pub name: &'static str,
    text: &'static str,
}

impl Kind {
    /// Its contracts, in one line.
    pub fn about(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("// ")
    }

    /// Its events that announce contracts: the event, the parameter with the address, and the kind of the contract. Only events of
    /// factories and registries, which create the contract, or name it on behalf of the system's owner.
    pub fn announces(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        let name = self.name;
        ANNOUNCED
            .iter()
            .filter(move |(of, ..)| *of == name)
            .map(|(_, event, parameter, child)| (*event, *parameter, *child))
    }

    /// Its events, the current ones first.
    pub fn abi(&self) -> Abi {
        // A test reads each file.
        Abi::read(self.text).unwrap_or_default()
    }
}

macro_rules! kind {
    ($name:literal) => {
        Kind { name: $name, text: include_str!(concat!("catalogue/", $name, ".abi")) }
    };
}

/// DALP's contracts, then those of the standard and of T-REX, then the building blocks.
const KINDS: &[Kind] = &[
    kind!("smart_token"),
    kind!("yield_schedule"),
    kind!("token_factory"),
    kind!("factory_registry"),
    kind!("identity"),
    kind!("identity_factory"),
    kind!("identity_registry"),
    kind!("identity_registry_storage"),
    kind!("topic_scheme_registry"),
    kind!("trusted_issuers_registry"),
    kind!("trusted_issuers_meta_registry"),
    kind!("compliance"),
    kind!("compliance_module"),
    kind!("module_registry"),
    kind!("system_factory"),
    kind!("system"),
    kind!("access_manager"),
    kind!("addon_factory"),
    kind!("addon_registry"),
    kind!("airdrop"),
    kind!("claim_tracker"),
    kind!("vault"),
    kind!("xvp_settlement"),
    kind!("token_sale"),
    kind!("forwarder"),
    kind!("erc3643_token"),
    kind!("erc3643_identity_registry"),
    kind!("erc3643_identity_storage"),
    kind!("erc3643_trusted_issuers"),
    kind!("erc3643_claim_topics"),
    kind!("erc3643_compliance"),
    kind!("trex_compliance_module"),
    kind!("trex_factory"),
    kind!("trex_gateway"),
    kind!("trex_authority"),
    kind!("onchainid_factory"),
    kind!("onchainid_gateway"),
    kind!("onchainid_authority"),
    kind!("erc20"),
    kind!("erc721"),
    kind!("erc1155"),
    kind!("ownable"),
    kind!("proxy"),
];

/// The discovery of a system from its factory: kind, event, parameter, and the kind of the announced contract.
const ANNOUNCED: &[(&str, &str, &str, &str)] = &[
    ("system_factory", "ATKSystemCreated", "systemAddress", "system"),
    ("system_factory", "ATKSystemCreated", "accessManager", "access_manager"),
    ("system_factory", "SMARTSystemCreated", "systemAddress", "system"),
    ("system", "Bootstrapped", "complianceProxy", "compliance"),
    ("system", "Bootstrapped", "identityRegistryProxy", "identity_registry"),
    ("system", "Bootstrapped", "identityRegistryStorageProxy", "identity_registry_storage"),
    ("system", "Bootstrapped", "systemTrustedIssuersRegistryProxy", "trusted_issuers_registry"),
    ("system", "Bootstrapped", "trustedIssuersRegistryProxy", "trusted_issuers_registry"),
    ("system", "Bootstrapped", "trustedIssuersMetaRegistryProxy", "trusted_issuers_meta_registry"),
    ("system", "Bootstrapped", "topicSchemeRegistryProxy", "topic_scheme_registry"),
    ("system", "Bootstrapped", "identityFactoryProxy", "identity_factory"),
    ("system", "Bootstrapped", "tokenFactoryRegistryProxy", "factory_registry"),
    ("system", "Bootstrapped", "systemAddonRegistryProxy", "addon_registry"),
    ("system", "Bootstrapped", "complianceModuleRegistryProxy", "module_registry"),
    ("system", "Bootstrapped", "organisationIdentity", "identity"),
    ("system", "ComplianceModuleRegistered", "module", "compliance_module"),
    ("system", "TokenFactoryCreated", "proxyAddress", "token_factory"),
    ("factory_registry", "TokenFactoryRegistered", "proxyAddress", "token_factory"),
    ("addon_registry", "SystemAddonRegistered", "proxyAddress", "addon_factory"),
    ("module_registry", "ComplianceModuleRegistered", "moduleAddress", "compliance_module"),
    ("token_factory", "TokenAssetCreated", "tokenAddress", "smart_token"),
    ("token_factory", "TokenAssetCreated", "tokenIdentity", "identity"),
    ("token_factory", "TokenAssetCreated", "accessManager", "access_manager"),
    ("token_factory", "TokenTrustedIssuersRegistryCreated", "registry", "trusted_issuers_registry"),
    ("identity_factory", "IdentityCreated", "identity", "identity"),
    ("identity_factory", "ContractIdentityCreated", "identity", "identity"),
    ("identity_factory", "TokenIdentityCreated", "identity", "identity"),
    ("addon_factory", "ATKPushAirdropCreated", "airdropAddress", "airdrop"),
    ("addon_factory", "ATKTimeBoundAirdropCreated", "airdropAddress", "airdrop"),
    ("addon_factory", "ATKVestingAirdropCreated", "airdrop", "airdrop"),
    ("addon_factory", "ATKVaultCreated", "vault", "vault"),
    ("addon_factory", "ATKVaultCreated", "contractIdentity", "identity"),
    ("addon_factory", "ATKXvPSettlementCreated", "settlement", "xvp_settlement"),
    ("addon_factory", "ATKFixedYieldScheduleCreated", "schedule", "yield_schedule"),
    ("addon_factory", "SMARTFixedYieldScheduleCreated", "schedule", "yield_schedule"),
    ("addon_factory", "TokenSaleDeployed", "tokenSaleAddress", "token_sale"),
    ("trex_factory", "TREXSuiteDeployed", "token", "erc3643_token"),
    ("trex_factory", "TREXSuiteDeployed", "ir", "erc3643_identity_registry"),
    ("trex_factory", "TREXSuiteDeployed", "irs", "erc3643_identity_storage"),
    ("trex_factory", "TREXSuiteDeployed", "tir", "erc3643_trusted_issuers"),
    ("trex_factory", "TREXSuiteDeployed", "ctr", "erc3643_claim_topics"),
    ("trex_factory", "TREXSuiteDeployed", "mc", "erc3643_compliance"),
    ("erc3643_compliance", "ModuleAdded", "module", "trex_compliance_module"),
    ("onchainid_factory", "WalletLinked", "identity", "identity"),
    ("onchainid_factory", "TokenLinked", "identity", "identity"),
];

/// All built-in kinds.
pub fn kinds() -> &'static [Kind] {
    KINDS
}

/// The built-in kind of this name.
pub fn of(name: &str) -> Option<Kind> {
    KINDS.iter().copied().find(|kind| kind.name == name)
}

/// The sentences about a kind that is not built in: the nearest name, if one is near, and all names.
pub fn unknown(name: &str) -> String {
    let near = KINDS.iter().map(|kind| (levenshtein(name, kind.name), kind.name)).min();
    let near = near.filter(|(edits, _)| *edits <= 2.max(name.len() / 5));
    let end = near.map_or(".".to_owned(), |(_, near)| format!("; did you mean {near}?"));
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    format!(
        "the kind {name} is not built in{end} A kind of your own needs the files of its ABI. The built-in kinds are {}",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::events::abi::Event;

    #[test]
    fn each_kind_is_read_whole() {
        let mut names = HashSet::new();
        for kind in kinds() {
            let abi = Abi::read(kind.text).unwrap_or_else(|why| panic!("{}: {why}", kind.name));
            assert_eq!(abi.skipped, Vec::<String>::new(), "{}", kind.name);
            let lines = kind.text.lines().filter(|line| line.starts_with("event "));
            assert_eq!(abi.events.len(), lines.count(), "{}: each event once", kind.name);
            assert!(abi.events.iter().all(|event| event.topic0.is_some()), "{}", kind.name);
            assert!(names.insert(kind.name), "{} is there twice", kind.name);
            let about = kind.about();
            assert!(kind.text.starts_with("// ") && about.starts_with(char::is_uppercase), "{}: {about}", kind.name);
            let unnamed = abi.events.iter().flat_map(|event| &event.params).find(|param| param.name.is_empty());
            assert_eq!(unnamed, None, "{}", kind.name);
        }
    }

    #[test]
    fn each_announced_contract_is_an_address_of_an_event_and_of_a_built_in_kind() {
        for (kind, event, parameter, child) in ANNOUNCED {
            let kind = of(kind).unwrap_or_else(|| panic!("{kind}"));
            assert!(of(child).is_some(), "{child}");
            let is_of = |of: &&Event| of.name == *event && of.params.iter().any(|param| param.name == *parameter);
            let abi = kind.abi();
            let named = abi.events.iter().find(is_of).unwrap_or_else(|| panic!("{}: {event}({parameter})", kind.name));
            let param = named.params.iter().find(|param| param.name == *parameter).unwrap();
            assert_eq!(param.ty, crate::events::ty::Ty::Address, "{event}({parameter})");
        }
    }

    #[test]
    fn topics_are_those_that_contracts_emit() {
        let all: Vec<Event> = kinds().iter().flat_map(|kind| kind.abi().events).collect();
        for (signature, begin, end) in [
            ("Transfer(address,address,uint256)", "ddf252ad", "b3ef"),
            ("TransferCompleted(address,address,address,uint256)", "0d842342", "eea2"),
            ("MintCompleted(address,address,uint256)", "e06a64fb", "95a8"),
            ("BurnCompleted(address,address,uint256)", "92eda58d", "52fa"),
            ("ForcedTransfer(address,address,address,uint256)", "47cea260", "829a"),
            ("AddressFrozen(address,address,bool)", "17ec2643", "2293"),
            ("AddressFrozen(address,bool,address)", "7fa523c8", "f436"),
            ("TokensFrozen(address,address,uint256)", "1bcfa03a", "8e86"),
            ("TokensFrozen(address,uint256)", "a065e63c", "2a45"),
            ("Paused(address)", "62e78cea", "a258"),
            ("IdentityRegistered(address,address,address,uint16)", "6680dc6d", "8237"),
            ("IdentityRegistered(address,address)", "6ae73635", "af19"),
            ("ClaimAdded(bytes32,uint256,uint256,address,bytes,bytes,string)", "46149b18", "43c5"),
            ("RoleGranted(bytes32,address,address)", "2f878811", "6f0d"),
            ("ATKSystemCreated(address,address,address)", "51df0c5d", "8312"),
            ("TokenAssetCreated(address,address,address,bytes4[],address)", "32100191", "5435"),
        ] {
            let event = all.iter().find(|event| event.signature == signature).unwrap_or_else(|| panic!("{signature}"));
            let topic0 = alloy::hex::encode(event.topic0.unwrap());
            assert!(topic0.starts_with(begin) && topic0.ends_with(end), "{signature}: {topic0}");
        }
    }

    #[test]
    fn an_unknown_kind_gets_the_nearest_name_and_all_names() {
        for (name, near) in [
            ("smart_tokn", Some("smart_token")),
            ("erc3643_identity_registy", Some("erc3643_identity_registry")),
            ("bond", None),
        ] {
            let said = unknown(name);
            assert_eq!(said.contains("did you mean"), near.is_some(), "{said}");
            assert!(near.is_none_or(|near| said.contains(&format!("did you mean {near}?"))), "{said}");
            assert!(kinds().iter().all(|kind| said.contains(kind.name)), "{said}");
        }
    }

    #[test]
    fn the_page_lists_each_kind() {
        let page = include_str!("../../../docs/events.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        for kind in kinds() {
            let row = format!("| `{}` | {} | {} |", kind.name, kind.about(), kind.abi().events.len());
            assert!(rows.contains(&row.as_str()), "docs/events.md lacks this row:\n{row}");
        }
    }
}
