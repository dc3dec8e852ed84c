//! Middles, spreads and tails.

use std::time::Duration;

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// The middle of several; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The least value that `share` of them do not pass; 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// The middle, and the least and the greatest where they differ.
pub fn spread(values: &[f64], digits: usize) -> String {
    let (least, most) = (quantile(values, 0.0), quantile(values, 1.0));
    let [middle, least, most] = [median(values), least, most].map(|value| format!("{value:.digits$}"));
    if least == most { middle } else { format!("{middle} ({least} to {most})") }
}
