//! The compiled contracts of a user's project, and the versions of them that are on the chain.
//!
//! A version is kept in a file of ours as soon as a contract has its code: the compiler overwrites its own, and the contract stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::artefact::Artefact;
use crate::cli::failure::Failure;

/// Most files of a project: more are another kind of folder.
const FILES: usize = 20_000;
/// Folders without artefacts of contracts.
const OTHERS: &[&str] = &["build-info", "cache", "node_modules", ".git"];

/// When a file was written last, and its length.
type Stamp = (Option<SystemTime>, u64);

/// The compiled contracts of a project.
#[derive(Debug, Default)]
pub(super) struct Project {
    folder: PathBuf,
    /// What the compiler wrote, by file; none where the file is no artefact of a contract with events.
    files: BTreeMap<PathBuf, (Stamp, Option<Artefact>)>,
    kept_in: PathBuf,
    /// The versions that are on the chain, each with its file, in the order in which they were found.
    kept: Vec<(PathBuf, Artefact)>,
}

impl Project {
    /// Reads the artefacts below a folder.
    ///
    /// # Errors
    /// The folder cannot be read, holds no artefact, or is no folder of artefacts.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let mut project = Self { folder: folder.to_owned(), ..Self::default() };
        project.refresh()?;
        if !project.files.values().any(|(_, artefact)| artefact.is_some()) {
            return Err(Failure::usage(format!(
                "--artifacts: {} has no artefact of a contract with events, among {} JSON files: build the project first (`forge build` or \
                 `npx hardhat compile`), and name its folder out or artifacts",
                folder.display(),
                project.files.len()
            )));
        }
        Ok(project)
    }

    /// Keeps the versions in this folder, which may have some of an earlier run.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn keep_in(&mut self, folder: PathBuf) -> Result<(), Failure> {
        let kept = if folder.exists() { stamps(&folder, &[])? } else { BTreeMap::new() };
        self.kept_in = folder;
        for path in kept.into_keys() {
            let kind = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
            self.kept.extend(Artefact::read(&path).map(|artefact| (path, artefact.of_kind(kind))));
        }
        Ok(())
    }

    /// Reads the files that changed; returns whether some did.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn refresh(&mut self) -> Result<bool, Failure> {
        let found = stamps(&self.folder, OTHERS)?;
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = self.files.len() < before;
        for (path, stamp) in found {
            if self.files.get(&path).is_none_or(|(known, _)| *known != stamp) {
                let artefact = Artefact::read(&path);
                self.files.insert(path, (stamp, artefact));
                changed = true;
            }
        }
        Ok(changed)
    }

    /// The kind of contracts with this code, whose version is kept from now on.
    ///
    /// # Errors
    /// The version cannot be written.
    pub fn kind_of(&mut self, code: &[u8]) -> Result<Option<String>, Failure> {
        let of = |artefact: &&Artefact| artefact.is(code);
        if let Some(known) = self.kept.iter().map(|(_, artefact)| artefact).find(of) {
            return Ok(Some(known.kind.clone()));
        }
        let Some(new) = self.files.values().filter_map(|(_, artefact)| artefact.as_ref()).find(of).cloned() else {
            return Ok(None);
        };
        let folder = self.kept_in.join(&new.kind);
        // A file that cannot be read is not written over.
        let free = (1..).map(|number| folder.join(format!("{number:04}.json"))).find(|path| !path.exists());
        let path = free.unwrap_or_default();
        let problem = |error: std::io::Error| Failure::other(format!("{}: {error}", path.display()));
        std::fs::create_dir_all(&folder).map_err(problem)?;
        let whole = path.with_extension("part");
        std::fs::write(&whole, new.to_json().to_string()).map_err(problem)?;
        std::fs::rename(&whole, &path).map_err(problem)?;
        let kind = new.kind.clone();
        self.kept.push((path, new));
        Ok(Some(kind))
    }

    /// The versions on the chain: the kind and the file of each.
    pub fn versions(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.kept.iter().map(|(path, artefact)| (artefact.kind.as_str(), path.as_path()))
    }
}

/// The JSON files below a folder that may be artefacts, but not in folders of these names.
fn stamps(folder: &Path, others: &[&str]) -> Result<BTreeMap<PathBuf, Stamp>, Failure> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        let problem = |error: std::io::Error| Failure::usage(format!("--artifacts: {}: {error}", folder.display()));
        for entry in std::fs::read_dir(&folder).map_err(problem)? {
            let (path, about) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))).map_err(problem)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match about.is_dir() {
                true if !others.contains(&&*name) => folders.push(path),
                false if name.ends_with(".json") && !name.ends_with(".dbg.json") => {
                    files.insert(path, (about.modified().ok(), about.len()));
                }
                _ => {}
            }
        }
        if files.len() > FILES {
            return Err(Failure::usage(format!(
                "--artifacts: {} has more than {FILES} JSON files: name the folder of the compiler's output, such as out or artifacts",
                folder.display()
            )));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(folder: &Path, event: &str, code: &str) {
        let abi = json!([{ "type": "event", "name": event, "inputs": [], "anonymous": false }]);
        let artefact = json!({ "abi": abi, "deployedBytecode": { "object": code } });
        std::fs::create_dir_all(folder.join("Bond.sol")).unwrap();
        std::fs::write(folder.join("Bond.sol/Bond.json"), artefact.to_string()).unwrap();
    }

    #[test]
    fn versions_on_the_chain_stay_when_the_project_is_built_again() {
        let home = tempfile::tempdir().unwrap();
        let (out, kept) = (home.path().join("out"), home.path().join("kept"));
        std::fs::create_dir(&out).unwrap();
        let why = Project::open(&out).unwrap_err().to_string();
        assert!(why.contains("no artefact of a contract with events, among 0 JSON files"), "{why}");
        assert!(Project::open(&out.join("nowhere")).is_err());
        let open = || {
            let mut project = Project::open(&out).unwrap();
            project.keep_in(kept.clone()).unwrap();
            project
        };
        write(&out, "Paid", "0x6001");
        let mut project = open();
        assert!(!project.refresh().unwrap());
        let bond = Some("bond".to_owned());
        assert_eq!([1, 1, 2].map(|code| project.kind_of(&[0x60, code]).unwrap()), [bond.clone(), bond.clone(), None]);
        write(&out, "Repaid", "0x600255");
        assert_eq!(project.kind_of(&[0x60, 2, 0x55]).unwrap(), None);
        assert!(project.refresh().unwrap());
        let kinds =
            |project: &mut Project| [&[0x60, 1][..], &[0x60, 2, 0x55]].map(|code| project.kind_of(code).unwrap());
        assert_eq!(kinds(&mut project), [bond.clone(), bond.clone()]);
        let files = |project: &Project| project.versions().map(|(_, path)| path.to_owned()).collect::<Vec<_>>();
        assert_eq!(files(&project), [kept.join("bond/0001.json"), kept.join("bond/0002.json")]);
        let mut again = open();
        assert_eq!(kinds(&mut again), [bond.clone(), bond]);
        assert_eq!(files(&again), files(&project));
        std::fs::remove_file(out.join("Bond.sol/Bond.json")).unwrap();
        assert!(again.refresh().unwrap());
    }
}
