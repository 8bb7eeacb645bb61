//! What a program says and exits with when it failed.

use std::{error::Error as StdError, io};

use crate::Error;

/// A failure as the programs show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// One line for stderr.
    pub line: String,
    /// Exit status: 1 for a wrong result, 2 for anything that could not be done.
    pub status: u8,
}

/// The failure that `error` is; none when it only says that the reader of the output left (a closed pipe).
pub fn fault(error: &(dyn StdError + 'static)) -> Option<Fault> {
    let chain = || std::iter::successors(Some(error), |error: &&(dyn StdError + 'static)| StdError::source(*error));
    let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    if chain().any(|error| error.downcast_ref().is_some_and(closed)) {
        return None;
    }
    let mut line = String::from("error");
    for part in chain().map(|error| error.to_string()) {
        // Messages of this crate quote their cause already.
        if !line.contains(&part) {
            line += &format!(": {part}");
        }
    }
    // Paths and values of hostile files may hold line ends and terminal codes.
    let line = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let wrong_result = chain().any(|error| matches!(error.downcast_ref(), Some(Error::Numeric { .. })));
    Some(Fault { line, status: if wrong_result { 1 } else { 2 } })
}
