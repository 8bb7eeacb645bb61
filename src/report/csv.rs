//! Comma-separated values, a line per row.

use super::{Document, Row};

type Column = (&'static str, fn(&Row) -> Option<String>);

const COLUMNS: &[Column] = &[
    ("case", |r| Some(r.case.clone())),
    ("op", |r| Some(r.op.clone())),
    ("device", |r| Some(r.device.clone())),
    ("dtype", |r| Some(r.dtype.clone())),
    ("verified", |r| Some(r.verified.to_string())),
    ("error_relative", |r| number(r.error("relative"))),
    ("error_optimal_ratio", |r| number(r.error("optimal_ratio"))),
    ("error_orthogonality", |r| number(r.error("orthogonality"))),
    ("error_of_limit", |r| number(r.error("of_limit"))),
    ("error_orthogonality_u", |r| number(r.error("orthogonality_u"))),
    ("error_orthogonality_v", |r| number(r.error("orthogonality_v"))),
    ("error_residual", |r| number(r.error("residual"))),
    ("error_singular_values", |r| number(r.error("singular_values"))),
    ("error_attention_output", |r| number(r.error("attention_output"))),
    ("error_keys", |r| number(r.error("keys"))),
    ("error_values", |r| number(r.error("values"))),
    ("kappa", |r| number(r.figure("kappa"))),
    ("kept_bytes", |r| number(r.figure("kept_bytes"))),
    ("seconds_median", |r| number(r.seconds.map(|s| s.median))),
    ("seconds_min", |r| number(r.seconds.map(|s| s.min))),
    ("seconds_max", |r| number(r.seconds.map(|s| s.max))),
    ("runs", |r| r.seconds.map(|s| s.runs.to_string())),
    ("bytes", |r| Some(r.bytes.to_string())),
    ("flops", |r| Some(r.flops.to_string())),
    ("bytes_per_second", |r| number(r.bytes_per_second())),
    ("flops_per_second", |r| number(r.flops_per_second())),
    ("roofline_bound", |r| r.roofline.as_ref().map(|x| x.bound.clone())),
    ("roofline_fraction", |r| number(r.roofline.as_ref().and_then(|x| x.fraction))),
    ("baseline", |r| r.baseline.as_ref().map(|b| b.name.clone())),
    ("baseline_seconds", |r| number(r.baseline.as_ref().map(|b| b.seconds))),
    ("baseline_ratio", |r| number(r.baseline.as_ref().map(|b| b.ratio))),
    ("note", |r| r.note.clone()),
];

/// The rows of a run with a header line, those beyond what is promised last; what is unknown is empty.
pub fn csv(document: &Document) -> String {
    let mut out = line(COLUMNS.iter().map(|(name, _)| (*name).to_owned()));
    for row in document.rows.iter().chain(&document.beyond) {
        out += &line(COLUMNS.iter().map(|(_, cell)| cell(row).unwrap_or_default()));
    }
    out
}

fn number(value: Option<f64>) -> Option<String> {
    value.filter(|v| v.is_finite()).map(|v| v.to_string())
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.map(quoted).collect();
    cells.join(",") + "\n"
}

fn quoted(cell: String) -> String {
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}
