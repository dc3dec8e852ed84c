//! The compiled contracts of a Foundry or Hardhat project, and the code on a chain that is theirs.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::failure::Failure;
use crate::config::{abi_of, kind_name};

/// Most files of a project: more are another kind of folder.
const FILES: usize = 20_000;
/// Folders without artefacts of contracts.
const OTHERS: &[&str] = &["build-info", "cache", "node_modules", ".git"];

/// A compiled contract with events.
#[derive(Clone, Debug)]
pub(super) struct Artefact {
    /// The kind of its contracts.
    pub kind: String,
    /// Its file.
    pub path: PathBuf,
    code: Vec<u8>,
    /// The bytes that differ from deployment to deployment: immutables, and addresses of libraries.
    masked: Vec<Range<usize>>,
}

/// The artefacts below a folder.
///
/// # Errors
/// The folder cannot be read, holds none, or is no folder of artefacts.
pub(super) fn read(folder: &Path) -> Result<Vec<Artefact>, Failure> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let problem = |error: std::io::Error| Failure::usage(format!("--artifacts: {}: {error}", folder.display()));
        for entry in std::fs::read_dir(&folder).map_err(problem)? {
            let (path, is_folder) =
                entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir()))).map_err(problem)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match is_folder {
                true if !OTHERS.contains(&&*name) => folders.push(path),
                false if name.ends_with(".json") && !name.ends_with(".dbg.json") => files.push(path),
                _ => {}
            }
        }
        if files.len() > FILES {
            let why = format!(
                "{} has more than {FILES} JSON files: name the folder of the compiler's output",
                folder.display()
            );
            return Err(Failure::usage(format!("--artifacts: {why}, such as out or artifacts")));
        }
    }
    files.sort();
    let artefacts: Vec<Artefact> = files.iter().filter_map(|path| Artefact::read(path)).collect();
    if artefacts.is_empty() {
        return Err(Failure::usage(format!(
            "--artifacts: {} has no artefact of a contract with events, among {} JSON files: build the project first (`forge build` or \
             `npx hardhat compile`), and name its folder out or artifacts",
            folder.display(),
            files.len()
        )));
    }
    Ok(artefacts)
}

impl Artefact {
    /// None if the file is no artefact of a contract with code and events, or does not tell which bytes differ.
    fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let artefact: Value = serde_json::from_str(&text).ok()?;
        let hex =
            artefact.pointer("/deployedBytecode/object").or_else(|| artefact.get("deployedBytecode"))?.as_str()?;
        let code = code_of(hex).filter(|code| !code.is_empty())?;
        abi_of(path).ok()?;
        let links = ["/deployedBytecode/linkReferences", "/deployedLinkReferences"];
        let links = links.iter().filter_map(|at| artefact.pointer(at)).flat_map(values).flat_map(values);
        let mut masked: Vec<Range<usize>> = links.flat_map(ranges).collect();
        masked.extend(values(&immutables(path, &artefact)?).flat_map(ranges));
        let fits = |range: &Range<usize>| range.end <= code.len();
        masked.iter().all(fits).then(|| Self { kind: kind_name(path), path: path.to_owned(), code, masked })
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
        let found = read(folder.path()).unwrap();
        assert_eq!((found.len(), found[0].kind.as_str()), (1, "bond"));
        let mut other = code.clone();
        other[5] = 9;
        other[25] = 9;
        assert!(found[0].is(&with_meta(&code, 1)) && found[0].is(&with_meta(&other, 7)));
        other[0] = 0;
        assert!(!found[0].is(&with_meta(&other, 7)) && !found[0].is(&with_meta(&code[1..], 7)) && !found[0].is(&[]));
    }

    #[test]
    fn without_masks_no_match_is_claimed() {
        let hardhat =
            json!({ "abi": abi(), "contractName": "Bond", "sourceName": "Bond.sol", "deployedBytecode": "0x6001" });
        let folder = folder("Bond.json", &hardhat);
        let why = read(folder.path()).unwrap_err().to_string();
        assert!(why.contains("no artefact of a contract with events, among 1 JSON files"), "{why}");
        let build = json!({ "output": { "contracts": { "Bond.sol": { "Bond": { "evm": { "deployedBytecode": {
            "immutableReferences": {} } } } } } } });
        std::fs::write(folder.path().join("Bond.sol/Bond.dbg.json"), r#"{"buildInfo":"../build-info/1.json"}"#)
            .unwrap();
        std::fs::create_dir(folder.path().join("build-info")).unwrap();
        std::fs::write(folder.path().join("build-info/1.json"), build.to_string()).unwrap();
        assert!(read(folder.path()).unwrap()[0].is(&[0x60, 1]));
        assert!(read(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_minimal_proxy_names_its_implementation() {
        let code = format!("363d3d373d3d3d363d73{}5af43d82803e903d91602b57fd5bf3", "11".repeat(20));
        assert_eq!(clone_of(&alloy::hex::decode(code).unwrap()), Some([0x11; 20]));
        assert_eq!(clone_of(&[0x36; 45]), None);
    }
}
