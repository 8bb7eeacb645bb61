//! When a sketch has enough columns.

use super::Mode;
use crate::Result;

/// Energy that more columns might bring in, beside the energy left out: the promises leave 2e-3 and 4e-2.
const MISSED: f64 = 1.5e-3;
const MISSED_FAST: f64 = 3e-2;
/// What rounding alone may bring in; the promise leaves 5e-11.
const ROUNDING: f64 = 2e-11;
/// Singular values within this share of the largest of them may be one, repeated.
const EQUAL: f32 = 1e-2;
/// A block brings in a share of what the one before did, which is not believed to be larger than this.
const SLOWEST: f64 = 0.9;
/// Singular values up to this many times the last one kept are next to the tail.
const NEAR: f32 = 2.0;
/// What a space still lacks.
pub(super) enum Wanted {
    Nothing,
    /// So many blocks more.
    Steps(usize),
    /// Another beginning: values may be repeated more often than there are columns that it began with.
    Beginning,
}

/// What a space lacks whose largest singular values are `s`, of `[left, energy]`: the energy left out and that of the matrix. It
/// began with so many `columns`; `gains` are the energies that the last block, and the last two, brought to each value.
pub(super) fn wanted(
    s: &[f32],
    [left, energy]: [f64; 2],
    mode: Mode,
    columns: usize,
    gains: impl FnOnce() -> Result<[Vec<f64>; 2]>,
) -> Result<Wanted> {
    let unseen = unseen(s, columns);
    if mode == Mode::Fast {
        let beginning = unseen > MISSED_FAST * left + ROUNDING * energy;
        return Ok(if beginning { Wanted::Beginning } else { Wanted::Nothing });
    }
    let allowed = MISSED * left + ROUNDING * energy;
    let (missed, slope) = missed(gains()?, s);
    Ok(if unseen > 0.5 * allowed {
        Wanted::Beginning
    } else if unseen + missed > allowed {
        let steps = (0.5 * allowed / missed).ln() / slope.ln();
        Wanted::Steps(steps.ceil().max(1.0) as usize)
    } else {
        Wanted::Nothing
    })
}

/// Energy that more blocks would bring in, from what the last two did: a geometric series. How steeply it falls is taken
/// from the singular values next to the tail, as large ones are found long before; it is returned as well.
fn missed([last, both]: [Vec<f64>; 2], s: &[f32]) -> (f64, f64) {
    let near = s.partition_point(|value| *value > NEAR * s[s.len() - 1]);
    let [low, high] = [&last, &both].map(|gains| gains[near..].iter().sum::<f64>());
    let before = high - low;
    let slope = if before > 0.0 { (low / before).min(SLOWEST) } else { SLOWEST };
    (last.iter().sum::<f64>() * slope / (1.0 - slope), slope)
}

/// Energy that copies of repeated values might bring in, in place of smaller ones, where a space that began with so many
/// columns has seen no fewer: it cannot hold more copies than those.
fn unseen(s: &[f32], columns: usize) -> f64 {
    let mut most = 0.0f64;
    for (first, value) in s.iter().enumerate() {
        let end = s.partition_point(|other| *other >= (1.0 - EQUAL) * value);
        if end - first >= columns {
            let gain = |other: &f32| f64::from(*value).powi(2) - f64::from(*other).powi(2);
            most = most.max(s[end..].iter().map(gain).sum());
        }
    }
    most
}
