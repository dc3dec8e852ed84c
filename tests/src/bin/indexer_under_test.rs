//! `dalp-indexer` for tests and benchmarks: the same program, built beside them.

fn main() -> std::process::ExitCode {
    let datasets = match std::env::var_os("DALP_TEST_MADE_UP") {
        Some(_) => dalp_tests::made_up::datasets(),
        None => dalp_indexer::dataset::Datasets::own(),
    };
    dalp_indexer::cli::main(datasets)
}
