//! The committed ratios to the ruler, which a change must not fall far below.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Outcome;
use super::case::Case;
use super::report::{least_ratio, median_ratio};

/// Of the committed ratio, at least.
const KEPT: f64 = 0.75;

#[derive(Deserialize, Serialize)]
struct Baseline {
    /// For whoever opens the file.
    how: String,
    /// Percent of the ruler, by case.
    percent: BTreeMap<String, f64>,
}

fn file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/baseline.json"))
}

fn ratios(cases: &[Case], ratio: fn(&Case) -> f64) -> BTreeMap<String, f64> {
    cases.iter().map(|case| (case.name.clone(), ratio(case).round())).collect()
}

/// Writes the ratios of `cases` in the place of the committed ones: each case's least, as the gate's machine may be busier.
pub fn renew(cases: &[Case]) -> Outcome<()> {
    let old: Baseline = serde_json::from_slice(&std::fs::read(file())?)?;
    let new = Baseline { percent: ratios(cases, least_ratio), ..old };
    Ok(std::fs::write(file(), serde_json::to_string_pretty(&new)? + "\n")?)
}

/// Fails where a case's ratio fell by more than a quarter. A case that is not committed is not judged.
pub fn hold(cases: &[Case]) -> Outcome<()> {
    let baseline: Baseline = serde_json::from_slice(&std::fs::read(file())?)?;
    let fallen: Vec<String> = ratios(cases, median_ratio)
        .into_iter()
        .filter_map(|(name, now)| {
            let was = *baseline.percent.get(&name)?;
            (now < was * KEPT).then(|| format!("{name}: {now} % of the ruler, {was} % before"))
        })
        .collect();
    if fallen.is_empty() {
        return Ok(());
    }
    let what = "the indexer became slower against its ruler; find out why, or renew the baseline";
    Err(format!("{what} ({}): {}", file().display(), fallen.join("; ")).into())
}
