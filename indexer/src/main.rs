//! The `dalp-indexer` binary; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    dalp_indexer::cli::main(dalp_indexer::dataset::Datasets::own())
}
