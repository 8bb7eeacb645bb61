//! Values given on the command line: lists, ranges, pairs, suffixes.

use std::{fmt, str::FromStr};

use crate::{Error, InputError, Result};

/// The most values one flag may stand for.
const MOST_VALUES: usize = 1024;

/// Two numbers of keys and values or of query and key-value heads, written `16/32`, or once when they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub usize, pub usize);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// Whole numbers: `8,16,32`, a range that doubles (`1k..64k`), suffixes k (1024) and M (1024 k).
///
/// # Errors
/// [`Error::Input`] that names `flag`, for anything else and for numbers outside 1..=`limit`.
pub fn numbers(flag: &str, text: &str, limit: usize) -> Result<Vec<usize>> {
    let refuse = || refusal(flag, text, &format!("whole numbers from 1 to {limit}"), "write 8,16,32 or 1k..64k");
    let mut values = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            None => values.push(number(part, limit).ok_or_else(refuse)?),
            Some((from, to)) => {
                let (from, to) = number(from, limit).zip(number(to, limit)).ok_or_else(refuse)?;
                let doubling = std::iter::successors(Some(from), |n| n.checked_mul(2));
                values.extend(doubling.take_while(|n| *n <= to));
                if to < from {
                    return Err(refuse());
                }
            }
        }
    }
    within_count(flag, text, values)
}

/// Pairs: `32`, `16/48`, or a list of them.
///
/// # Errors
/// As [`numbers`].
pub fn pairs(flag: &str, text: &str, limit: usize) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for part in text.split(',') {
        match part.split_once('/') {
            None => pairs.extend(numbers(flag, part, limit)?.into_iter().map(|n| Pair(n, n))),
            Some((a, b)) => {
                let pair = number(a, limit).zip(number(b, limit));
                let (a, b) = pair.ok_or_else(|| {
                    refusal(flag, text, &format!("pairs of whole numbers from 1 to {limit}"), "write 32, 16/48 or 8/8,16/32")
                })?;
                pairs.push(Pair(a, b));
            }
        }
    }
    within_count(flag, text, pairs)
}

/// Shares between 0 and 1, both excluded: `0.1,0.01`.
///
/// # Errors
/// As [`numbers`].
pub fn shares(flag: &str, text: &str) -> Result<Vec<f64>> {
    let share = |part: &str| part.parse().ok().filter(|x| *x > 0.0 && *x < 1.0);
    let values: Option<Vec<f64>> = text.split(',').map(share).collect();
    within_count(flag, text, values.ok_or_else(|| refusal(flag, text, "numbers between 0 and 1", "write 0.1,0.01"))?)
}

/// Numbers of tokens, none included: `0,64` or `0,16..64`.
///
/// # Errors
/// As [`numbers`].
pub fn tokens(flag: &str, text: &str) -> Result<Vec<usize>> {
    const MOST: usize = 1 << 30;
    let mut values = Vec::new();
    for part in text.split(',') {
        if part == "0" {
            values.push(0);
            continue;
        }
        let refuse = |_| refusal(flag, text, &format!("whole numbers from 0 to {MOST}"), "write 0,64 or 1k");
        values.extend(numbers(flag, part, MOST).map_err(refuse)?);
    }
    within_count(flag, text, values)
}

/// Named values: `f32,f16`.
///
/// # Errors
/// As [`numbers`], listing `allowed`.
pub fn names<T: Copy>(flag: &str, text: &str, allowed: &[(&str, T)]) -> Result<Vec<T>> {
    let list = allowed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let find = |part: &str| allowed.iter().find(|(name, _)| *name == part).map(|(_, value)| *value);
    let values: Option<Vec<T>> = text.split(',').map(find).collect();
    within_count(flag, text, values.ok_or_else(|| refusal(flag, text, &list, "separate several by commas"))?)
}

fn number(text: &str, limit: usize) -> Option<usize> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    // `parse` takes a sign, which no count has.
    let digits = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits)?;
    let value = usize::from_str(digits).ok()?.checked_mul(unit)?;
    (1..=limit).contains(&value).then_some(value)
}

fn within_count<T>(flag: &str, text: &str, values: Vec<T>) -> Result<Vec<T>> {
    if values.len() > MOST_VALUES {
        return Err(refusal(flag, text, &format!("at most {MOST_VALUES} values"), "split the sweep"));
    }
    Ok(values)
}

fn refusal(flag: &str, text: &str, limit: &str, hint: &str) -> Error {
    InputError::new(flag, format!("{text:?}"), limit).hint(hint).into()
}
