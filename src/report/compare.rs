//! Two saved runs side by side.

use std::{collections::HashMap, fmt, fs::File, io::Read, path::Path};

use comfy_table::{
    CellAlignment, Table, TableStyle,
    presets::{ASCII_MARKDOWN, NOTHING},
};
use serde::Serialize;

use super::{Document, Row, SCHEMA, Seconds, table::duration};
use crate::{Error, InputError, Result};

/// Medians nearer than this are the same.
const TOLERANCE: f64 = 0.05;
/// The longest file that is read.
const LIMIT: u64 = 64 << 20;

/// What became of a case from run A to run B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Medians within 5 %; of cases without times, right in both.
    Same,
    /// B's median is lower by more than 5 %, and lower than even the fastest run of A.
    Faster,
    /// B's median is higher by more than 5 %, and even the fastest run of B took longer than A's median.
    Slower,
    /// Medians differ by more than 5 %, yet the runs overlap too much to tell.
    Ambiguous,
    /// A was right, and B no longer is.
    Failed,
    /// Neither was right, so nothing changed.
    Wrong,
    /// A was not right, so there is no time to compare with.
    Repaired,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same",
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Ambiguous => "ambiguous",
            Self::Failed => "failed",
            Self::Wrong => "wrong",
            Self::Repaired => "repaired",
        })
    }
}

/// One case in both runs.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The case.
    pub case: String,
    /// Device.
    pub device: String,
    /// Element type.
    pub dtype: String,
    /// Time in A.
    pub a: Option<Seconds>,
    /// Time in B.
    pub b: Option<Seconds>,
    /// A's median over B's: above 1, B is faster.
    pub ratio: Option<f64>,
    /// What became of it.
    pub verdict: Verdict,
}

/// Two runs matched by case, device and dtype.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Version of this layout.
    pub schema: u32,
    /// Whether both runs were made on the same processor with as many threads.
    pub same_host: bool,
    /// Cases in both.
    pub rows: Vec<Compared>,
    /// Cases of A alone.
    pub only_in_a: Vec<String>,
    /// Cases of B alone.
    pub only_in_b: Vec<String>,
}

impl Comparison {
    /// Whether any case got slower or wrong.
    pub fn is_worse(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.verdict, Verdict::Slower | Verdict::Failed))
    }

    /// Cases with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    /// A line that counts the verdicts.
    pub fn summary(&self) -> String {
        use Verdict::{Ambiguous, Failed, Faster, Repaired, Same, Slower, Wrong};
        let counts = [Same, Faster, Slower, Ambiguous, Failed, Wrong, Repaired].map(|v| (v, self.count(v)));
        let mut parts: Vec<String> = counts[..4].iter().map(|(v, n)| format!("{n} {v}")).collect();
        parts.extend(counts[4..].iter().filter(|(_, n)| *n > 0).map(|(v, n)| format!("{n} {v}")));
        for (name, only) in [("A", &self.only_in_a), ("B", &self.only_in_b)] {
            if !only.is_empty() {
                parts.push(format!("{} only in {name}", only.len()));
            }
        }
        parts.join(", ")
    }

    /// The comparison for a terminal.
    pub fn table(&self) -> String {
        self.render(NOTHING)
    }

    /// The comparison as markdown.
    pub fn markdown(&self) -> String {
        self.render(ASCII_MARKDOWN)
    }

    fn render(&self, style: TableStyle) -> String {
        let mut table = Table::new();
        table.load_style(style).set_header(["case", "dtype", "device", "A", "B", "A / B", "verdict"]);
        for row in &self.rows {
            let time = |s: Option<Seconds>| s.map_or_else(|| "-".to_owned(), |s| duration(s.median));
            let ratio = row.ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
            let cells = [time(row.a), time(row.b), ratio, row.verdict.to_string()];
            table.add_row([row.case.clone(), row.dtype.clone(), row.device.clone()].into_iter().chain(cells));
        }
        for column in 3..6 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{table}\n\n{}\n", self.summary())
    }
}

/// Matches two runs by case, device and dtype.
///
/// # Errors
/// [`Error::Input`] when no case is in both.
pub fn compare(a: &Document, b: &Document) -> Result<Comparison> {
    let in_b: HashMap<_, &Row> = b.rows.iter().map(|row| (key(row), row)).collect();
    let in_a: HashMap<_, &Row> = a.rows.iter().map(|row| (key(row), row)).collect();
    let rows: Vec<Compared> = a.rows.iter().filter_map(|row| Some(compared(row, in_b.get(&key(row))?))).collect();
    if rows.is_empty() {
        let error = InputError::new("rows", format!("{} and {} cases", a.rows.len(), b.rows.len()), "a case in both files");
        return Err(error.hint("run the same command twice with --save").into());
    }
    let only = |rows: &[Row], other: &HashMap<_, &Row>| -> Vec<String> {
        rows.iter().filter(|row| !other.contains_key(&key(row))).map(|row| row.case.clone()).collect()
    };
    Ok(Comparison {
        schema: SCHEMA,
        same_host: a.host.cpu == b.host.cpu && a.host.threads == b.host.threads,
        rows,
        only_in_a: only(&a.rows, &in_b),
        only_in_b: only(&b.rows, &in_a),
    })
}

fn key(row: &Row) -> (&str, &str, &str) {
    (&row.case, &row.device, &row.dtype)
}

fn compared(a: &Row, b: &Row) -> Compared {
    let ratio = a.seconds.zip(b.seconds).map(|(a, b)| a.median / b.median);
    let verdict = match (a.seconds, b.seconds) {
        (Some(a), Some(b)) => verdict(a, b),
        (Some(_), None) => Verdict::Failed,
        (None, Some(_)) => Verdict::Repaired,
        // Wrong, or never timed.
        (None, None) => match (a.verified, b.verified) {
            (true, true) => Verdict::Same,
            (true, false) => Verdict::Failed,
            (false, true) => Verdict::Repaired,
            (false, false) => Verdict::Wrong,
        },
    };
    let (case, device, dtype) = (a.case.clone(), a.device.clone(), a.dtype.clone());
    Compared { case, device, dtype, a: a.seconds, b: b.seconds, ratio, verdict }
}

/// Noise only ever adds time, so the fastest run is the one to hold against the other's median.
fn verdict(a: Seconds, b: Seconds) -> Verdict {
    let change = b.median / a.median;
    if (1.0 / (1.0 + TOLERANCE)..=1.0 + TOLERANCE).contains(&change) {
        Verdict::Same
    } else if change > 1.0 && b.min > a.median {
        Verdict::Slower
    } else if change < 1.0 && a.min > b.median {
        Verdict::Faster
    } else {
        Verdict::Ambiguous
    }
}

/// Reads a run that `--save` or `--format json` wrote.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Input`] when it is too long, not such a run, or holds times
/// that cannot be.
pub fn read(path: &Path) -> Result<Document> {
    let refuse = |field: &str, value: String, limit: &str| -> Error {
        let error = InputError::new(field, value, limit).file(path);
        error.hint("give a file that `kvbench --save` wrote").into()
    };
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    let about = file.metadata().map_err(|source| Error::io(path, source))?;
    if about.is_dir() {
        return Err(refuse("file", "a folder".to_owned(), "a JSON file"));
    }
    // A pipe or a device declares no length, so the reading is limited too.
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(|source| Error::io(path, source))?;
    if text.len() as u64 > LIMIT {
        return Err(refuse("file length", format!("over {LIMIT} bytes"), "at most 64 MiB"));
    }
    let document: Document = serde_json::from_slice(&text)
        .map_err(|error| refuse("JSON", error.to_string(), "the object that `--format json` prints"))?;
    if document.schema != SCHEMA {
        return Err(refuse("schema", document.schema.to_string(), &SCHEMA.to_string()));
    }
    let mut seen = std::collections::HashSet::new();
    for (i, row) in document.rows.iter().enumerate() {
        if !seen.insert(key(row)) {
            return Err(refuse(&format!("rows[{i}].case"), row.case.clone(), "each case once per device and dtype"));
        }
        let Some(s) = row.seconds else { continue };
        let ordered = s.min > 0.0 && s.min <= s.median && s.median <= s.max && s.max.is_finite();
        if !ordered || s.runs == 0 {
            let found = format!("min {}, median {}, max {} of {} runs", s.min, s.median, s.max, s.runs);
            return Err(refuse(&format!("rows[{i}].seconds"), found, "0 < min <= median <= max, and a run"));
        }
    }
    drop(seen);
    Ok(document)
}
