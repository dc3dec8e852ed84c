//! The compiled contracts of a Foundry or Hardhat project, and the code on a chain that is theirs.

use std::ops::Range;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::{abi_of, kind_name};

/// A compiled contract with events.
#[derive(Clone, Debug)]
pub(super) struct Artefact {
    /// The kind of its contracts.
    pub kind: String,
    abi: Value,
    code: Vec<u8>,
    /// The bytes that differ from deployment to deployment: immutables, and addresses of libraries.
    masked: Vec<Range<usize>>,
}

impl Artefact {
    /// None if the file is no artefact of a contract with code and events, or does not tell which bytes differ.
    pub fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let mut artefact: Value = serde_json::from_str(&text).ok()?;
        let hex =
            artefact.pointer("/deployedBytecode/object").or_else(|| artefact.get("deployedBytecode"))?.as_str()?;
        let code = code_of(hex).filter(|code| !code.is_empty())?;
        abi_of(path).ok()?;
        let links = ["/deployedBytecode/linkReferences", "/deployedLinkReferences"];
        let links = links.iter().filter_map(|at| artefact.pointer(at)).flat_map(values).flat_map(values);
        let mut masked: Vec<Range<usize>> = links.flat_map(ranges).collect();
        masked.extend(values(&immutables(path, &artefact)?).flat_map(ranges));
        let fits = |range: &Range<usize>| range.end <= code.len();
        let is_whole = masked.iter().all(fits);
        let abi = artefact.get_mut("abi").map(Value::take)?;
        is_whole.then(|| Self { kind: kind_name(path), abi, code, masked })
    }

    /// The same code and events under another name.
    pub fn of_kind(self, kind: String) -> Self {
        Self { kind, ..self }
    }

    /// The same as a file of Foundry's form.
    pub fn to_json(&self) -> Value {
        let masked: Vec<_> =
            self.masked.iter().map(|range| json!({ "start": range.start, "length": range.len() })).collect();
        let code = alloy::hex::encode_prefixed(&self.code);
        json!({ "abi": self.abi, "deployedBytecode": { "object": code, "immutableReferences": { "0": masked } } })
    }

    /// Whether code on a chain is this contract's: except for immutables, addresses of libraries, and the compiler's metadata.
    pub fn is(&self, code: &[u8]) -> bool {
        let (ours, theirs) = (without_metadata(&self.code), without_metadata(code));
        let masked = |at: usize| self.masked.iter().any(|range| range.contains(&at));
        ours.len() == theirs.len() && (0..ours.len()).all(|at| ours[at] == theirs[at] || masked(at))
    }
}

/// Where immutables stand in the code: in the artefact, or in Hardhat's build-info.
fn immutables(path: &Path, artefact: &Value) -> Option<Value> {
    let own = artefact.pointer("/deployedBytecode/immutableReferences").or_else(|| artefact.get("immutableReferences"));
    if let Some(own) = own {
        return Some(own.clone());
    }
    if artefact.pointer("/deployedBytecode/object").is_some() {
        // Foundry leaves the field out where there are none.
        return Some(Value::Object(serde_json::Map::new()));
    }
    let json = |path: &Path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).ok()?).ok();
    let debug = json(&path.with_extension("dbg.json"))?;
    let build = json(&path.parent()?.join(debug.get("buildInfo")?.as_str()?))?;
    let of = |key: &str| artefact.get(key).and_then(Value::as_str);
    let contract = build.get("output")?.get("contracts")?.get(of("sourceName")?)?.get(of("contractName")?)?;
    contract.pointer("/evm/deployedBytecode/immutableReferences").cloned()
}

/// The bytes of hexadecimal digits with placeholders of libraries, such as `__$1f…$__`, which stand for an address.
fn code_of(hex: &str) -> Option<Vec<u8>> {
    let mut digits = hex.strip_prefix("0x").unwrap_or(hex).to_owned();
    while let Some(at) = digits.find("__") {
        digits.replace_range(at..digits.len().min(at + 40), &"0".repeat(40));
    }
    alloy::hex::decode(digits).ok()
}

fn values(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_object().into_iter().flat_map(|map| map.values())
}

fn ranges(list: &Value) -> Vec<Range<usize>> {
    let number = |of: &Value, key: &str| usize::try_from(of.get(key)?.as_u64()?).ok();
    let range = |of: &Value| {
        let start = number(of, "start")?;
        Some(start..start.checked_add(number(of, "length")?)?)
    };
    list.as_array().into_iter().flatten().filter_map(range).collect()
}

/// The code without the compiler's metadata at its end: a CBOR map, and its length in two bytes. The same source in another folder has
/// other metadata.
fn without_metadata(code: &[u8]) -> &[u8] {
    let Some((rest, length)) = code.split_last_chunk::<2>() else { return code };
    let length = usize::from(u16::from_be_bytes(*length));
    let at = rest.len().checked_sub(length).filter(|at| length > 0 && matches!(rest[*at], 0xa1..=0xa4));
    at.map_or(code, |at| &code[..at])
}

/// The address that a minimal proxy (ERC-1167) passes its calls on to.
pub(super) fn clone_of(code: &[u8]) -> Option<[u8; 20]> {
    let rest = code.strip_prefix(&[0x36, 0x3d, 0x3d, 0x37, 0x3d, 0x3d, 0x3d, 0x36, 0x3d, 0x73])?;
    let (address, rest) = rest.split_first_chunk::<20>()?;
    rest.starts_with(&[0x5a, 0xf4, 0x3d, 0x82, 0x80, 0x3e, 0x90, 0x3d, 0x91, 0x60, 0x2b, 0x57, 0xfd, 0x5b, 0xf3])
        .then_some(*address)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const META: [u8; 5] = [0xa1, 0x01, 0x02, 0x00, 0x03];

    fn with_meta(code: &[u8], meta: u8) -> Vec<u8> {
        let mut all = [code, &META].concat();
        all[code.len() + 1] = meta;
        all
    }

    /// A folder with one artefact.
    fn folder(name: &str, artefact: &Value) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("Bond.sol")).unwrap();
        std::fs::write(folder.path().join("Bond.sol").join(name), artefact.to_string()).unwrap();
        folder
    }

    fn bond(folder: &tempfile::TempDir) -> Option<Artefact> {
        Artefact::read(&folder.path().join("Bond.sol/Bond.json"))
    }

    fn abi() -> Value {
        json!([{ "type": "event", "name": "A", "inputs": [], "anonymous": false }])
    }

    #[test]
    fn code_is_compared_without_what_differs_from_deployment_to_deployment() {
        let link = format!("0x6001{}6002", format_args!("__${}$__", "ab".repeat(17)));
        let code = [vec![0x60, 1], vec![0; 20], vec![0x60, 2], vec![0; 4]].concat();
        let whole = format!("{link}00000000{}", alloy::hex::encode(META));
        let artefact = json!({ "abi": abi(), "deployedBytecode": { "object": whole,
            "linkReferences": { "Lib.sol": { "Lib": [{ "start": 2, "length": 20 }] } },
            "immutableReferences": { "7": [{ "start": 24, "length": 4 }] } } });
        let folder = folder("Bond.json", &artefact);
        let found = bond(&folder).unwrap();
        assert_eq!(found.kind, "bond");
        let mut other = code.clone();
        other[5] = 9;
        other[25] = 9;
        std::fs::write(folder.path().join("Bond.sol/Bond.json"), found.to_json().to_string()).unwrap();
        for found in [found, bond(&folder).unwrap()] {
            let mut other = other.clone();
            assert!(found.is(&with_meta(&code, 1)) && found.is(&with_meta(&other, 7)));
            other[0] = 0;
            assert!(!found.is(&with_meta(&other, 7)) && !found.is(&with_meta(&code[1..], 7)) && !found.is(&[]));
        }
    }

    #[test]
    fn without_masks_no_match_is_claimed() {
        let hardhat =
            json!({ "abi": abi(), "contractName": "Bond", "sourceName": "Bond.sol", "deployedBytecode": "0x6001" });
        let folder = folder("Bond.json", &hardhat);
        assert!(bond(&folder).is_none());
        let build = json!({ "output": { "contracts": { "Bond.sol": { "Bond": { "evm": { "deployedBytecode": {
            "immutableReferences": {} } } } } } } });
        std::fs::write(folder.path().join("Bond.sol/Bond.dbg.json"), r#"{"buildInfo":"../build-info/1.json"}"#)
            .unwrap();
        std::fs::create_dir(folder.path().join("build-info")).unwrap();
        std::fs::write(folder.path().join("build-info/1.json"), build.to_string()).unwrap();
        assert!(bond(&folder).unwrap().is(&[0x60, 1]));
    }

    #[test]
    fn a_minimal_proxy_names_its_implementation() {
        let code = format!("363d3d373d3d3d363d73{}5af43d82803e903d91602b57fd5bf3", "11".repeat(20));
        assert_eq!(clone_of(&alloy::hex::decode(code).unwrap()), Some([0x11; 20]));
        assert_eq!(clone_of(&[0x36; 45]), None);
    }
}
