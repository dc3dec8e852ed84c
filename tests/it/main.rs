//! Everything that is tested from outside, in one binary: it links once and its tests share what is slow to start.

mod compose;
mod tidy;

use std::path::{Path, PathBuf};

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace's root")
}

/// The text of a file of the repository.
fn text(path: impl AsRef<Path>) -> String {
    let path: PathBuf = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
