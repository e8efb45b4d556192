//! A share and how sure it is.

/// `solved` of `total` in percent, with the 95 % interval (Wilson's).
pub(crate) fn score(solved: usize, total: usize) -> String {
    let (n, p, z) = (total as f64, solved as f64 / total as f64, 1.96);
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let (low, high) = (100.0 * (middle - half), 100.0 * (middle + half));
    format!(
        "{:5.1} % ({low:.1} to {high:.1}), {solved} of {total}",
        100.0 * p
    )
}
