//! `dalp-indexer` as the tests and benchmarks start it: the same program, built beside them.

fn main() -> std::process::ExitCode {
    dalp_indexer::cli::main()
}
