//! Tables for people: a table per operation, each with the columns that matter there.

use comfy_table::{
    CellAlignment, Table, TableStyle,
    presets::{ASCII_MARKDOWN, NOTHING},
};

use super::{Document, Row};

type Column = (&'static str, CellAlignment, fn(&Row) -> Option<String>);

const LEFT: CellAlignment = CellAlignment::Left;
const RIGHT: CellAlignment = CellAlignment::Right;

const SVD: &[Column] = &[
    ("data", LEFT, |r| r.param("data")),
    ("shape", LEFT, |r| r.param("shape")),
    ("dtype", LEFT, |r| Some(r.dtype.clone())),
    ("rank", RIGHT, |r| r.param("rank").or_else(|| Some(format!("{:.1}", r.figure("mean_rank")?)))),
    ("asked", RIGHT, |r| Some(r.param("tolerance").map_or_else(|| "rank".to_owned(), |t| format!("error {t}")))),
    ("bytes kept", RIGHT, |r| percent(r.figure("kept_bytes")?)),
    ("error", RIGHT, |r| small(r.error("relative")?)),
    ("/ optimal", RIGHT, |r| Some(format!("{:.5}", r.error("optimal_ratio")?))),
    ("U'U - 1", RIGHT, |r| small(r.error("orthogonality")?)),
];

const ACCURACY: &[Column] = &[
    ("data", LEFT, |r| r.param("data")),
    ("s_1 / s_r", RIGHT, |r| Some(format!("{:.2e}", r.figure("kappa")?))),
    ("shape", LEFT, |r| r.param("shape")),
    ("dtype", LEFT, |r| Some(r.dtype.clone())),
    ("rank", RIGHT, |r| r.param("rank")),
    ("mode", LEFT, |r| r.param("mode")),
    ("solved", LEFT, |r| r.param("solved")),
    ("/ optimal", RIGHT, |r| Some(format!("{:.5}", r.error("optimal_ratio")?))),
    ("/ limit", RIGHT, |r| Some(format!("{:.3}", r.error("of_limit")?))),
    ("U'U - 1", RIGHT, |r| small(r.error("orthogonality_u")?)),
    ("V'V - 1", RIGHT, |r| small(r.error("orthogonality_v")?)),
    ("AV - US", RIGHT, |r| small(r.error("residual")?)),
    ("s", RIGHT, |r| small(r.error("singular_values")?)),
    ("kept", LEFT, |r| Some(if r.verified { "yes" } else { "NO" }.to_owned())),
];

const ATTENTION: &[Column] = &[
    ("basis", LEFT, |r| r.param("basis")),
    ("rank K/V", RIGHT, |r| r.param("rank")),
    ("latent", LEFT, |r| r.param("latent")),
    ("keys", LEFT, |r| r.param("keys")),
    ("context", RIGHT, |r| r.param("context")),
    ("batch", RIGHT, |r| r.param("batch")),
    ("bytes kept", RIGHT, |r| percent(r.figure("kept_bytes")?)),
    ("fixed bases", RIGHT, |r| r.figure("calibrated_bases_bytes").filter(|b| *b > 0.0).map(|b| format!("{:.1} kB", b / 1e3))),
    ("error K", RIGHT, |r| small(r.error("keys")?)),
    ("error V", RIGHT, |r| small(r.error("values")?)),
    ("error out", RIGHT, |r| small(r.error("attention_output")?)),
    ("kernel", RIGHT, |r| small(r.error("relative")?)),
];

const LINEAR: &[Column] = &[
    ("weights", LEFT, |r| r.param("format-of-weights")),
    ("rank", RIGHT, |r| r.param("rank")),
    ("m", RIGHT, |r| r.param("m")),
    ("n", RIGHT, |r| r.param("n")),
    ("k", RIGHT, |r| r.param("k")),
    ("dtype", LEFT, |r| Some(r.dtype.clone())),
    ("bytes kept", RIGHT, |r| percent(r.figure("kept_bytes")?)),
    ("error", RIGHT, |r| small(r.error("relative")?)),
];

const MASK: &[Column] = &[
    ("data", LEFT, |r| r.param("data")),
    ("shape", LEFT, |r| r.param("shape")),
    ("dtype", LEFT, |r| Some(r.dtype.clone())),
    ("scope", LEFT, |r| r.param("scope")),
    ("kept", RIGHT, |r| percent(r.figure("density")?)),
    ("error", RIGHT, |r| small(r.error("relative")?)),
];

const ANY: &[Column] = &[("case", LEFT, |r| Some(r.case.clone()))];

const SPEED: &[Column] = &[
    ("time", RIGHT, |r| Some(r.seconds.map_or_else(|| "wrong".to_owned(), |s| duration(s.median)))),
    ("+-", RIGHT, |r| percent(r.seconds?.noise?)),
    ("GB/s", RIGHT, |r| Some(format!("{:.2}", r.bytes_per_second()? / 1e9))),
    ("GFLOP/s", RIGHT, |r| Some(format!("{:.2}", r.flops_per_second()? / 1e9))),
    ("roofline", RIGHT, |r| {
        let roofline = r.roofline.as_ref()?;
        Some(format!("{} {}", percent(roofline.fraction?)?, roofline.bound))
    }),
    ("x baseline", RIGHT, |r| Some(format!("{:.2}", r.baseline.as_ref()?.ratio))),
];

/// The run for a terminal.
pub fn table(document: &Document) -> String {
    render(document, NOTHING)
}

/// The run as markdown.
pub fn markdown(document: &Document) -> String {
    render(document, ASCII_MARKDOWN)
}

fn render(document: &Document, style: TableStyle) -> String {
    let mut out = heading(document);
    for op in operations(document) {
        let rows: Vec<&Row> = document.rows.iter().filter(|row| row.op == op).collect();
        out += &format!("\n{op}\n\n{}", one(&rows, op, style));
        out += &format!("\n{}", legend(op));
        let mut baselines: Vec<&str> = rows.iter().filter_map(|r| Some(r.baseline.as_ref()?.name.as_str())).collect();
        baselines.dedup();
        for baseline in baselines {
            out += &format!("x baseline: above 1, faster than {baseline}.\n");
        }
    }
    out + &beyond(document, style) + &remarks(document)
}

fn beyond(document: &Document, style: TableStyle) -> String {
    let rows: Vec<&Row> = document.beyond.iter().collect();
    let Some(first) = rows.first() else { return String::new() };
    format!("\nbeyond what is promised, where nothing counts as wrong\n\n{}", one(&rows, &first.op, style))
}

fn heading(document: &Document) -> String {
    let host = &document.host;
    let mut out = format!(
        "lowkey {}{}: {}, {} threads of {} cores, {}, {}\n",
        document.version,
        document.commit.as_ref().map_or_else(String::new, |c| format!(" ({})", &c[..c.len().min(12)])),
        host.cpu,
        host.threads,
        host.cores,
        host.simd,
        host.os
    );
    let device = &document.device;
    if let Some((bytes, flops)) = device.bytes_per_second.zip(device.flops_per_second) {
        let (bytes, flops) = (bytes / 1e9, flops / 1e9);
        out += &format!("device {}: reads {bytes:.1} GB/s from memory, {flops:.0} GFLOP/s f32 (measured)\n", device.name);
    }
    out
}

fn remarks(document: &Document) -> String {
    let mut out = String::new();
    for row in document.rows.iter().filter(|row| !row.verified || row.note.is_some()) {
        let state = if row.verified { "note" } else { "WRONG, not timed" };
        out += &format!("\n{state}: {}\n  {}\n", row.case, row.note.as_deref().unwrap_or("its error is over the limit"));
    }
    for skipped in &document.skipped {
        out += &format!("\nskipped: {}\n  {}\n", skipped.case, skipped.reason);
    }
    out
}

/// What the columns of an operation mean.
fn legend(op: &str) -> &'static str {
    match op {
        "svd" => {
            "bytes kept: factors over the matrices. error: worst of the batch; / optimal: over the least possible at that rank (f64).\n\
             GB/s, GFLOP/s: of the least work there is, whatever the method does.\n"
        }
        "svd-accuracy" => {
            "worst of the batch, in f64 against an f64 SVD of what the dtype holds. / optimal: error over the least possible at that\n\
             rank; / limit: over what the mode promises. Norms are Frobenius norms, eps = 2^-23: U'U - 1 over m eps, V'V - 1 over\n\
             n eps, AV - US over ||A|| max(m, n) eps, the worst singular value's error over s_1 max(m, n) eps.\n\
             safe: 1.001 optimal + 16 eps ||A||; fast: 1.001 optimal + 400 eps ||A|| for s_1 <= 300 s_r, 1.02 where sketched.\n"
        }
        "attention" => {
            "one decode step through every layer. bytes kept: over a dense 16-bit cache, all scales, online bases, sinks and window\n\
             counted. fixed bases: bytes of calibrated bases, once for the model whatever it reads, not in bytes kept.\n\
             error K, V: of what is kept; error out: of the output against exact keys and values; kernel: of the output\n\
             against f64 attention over the same kept data.\n"
        }
        "linear" => {
            "m rows of k numbers times an n x k weight. bytes kept: of the weights, over dense ones of the same dtype.\n\
             error: of the result, against the same weights in f64.\n"
        }
        "mask" => {
            "kept: share of the elements. error: norm of what is left out, over the norm of all. Every bit is checked.\n\
             GB/s: scores read once and bits written once; GFLOP/s: a comparison for each score.\n"
        }
        _ => "",
    }
}

fn operations(document: &Document) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in &document.rows {
        if !names.contains(&row.op.as_str()) {
            names.push(&row.op);
        }
    }
    names
}

fn columns(op: &str) -> &'static [Column] {
    match op {
        "svd" => SVD,
        "svd-accuracy" => ACCURACY,
        "attention" => ATTENTION,
        "linear" => LINEAR,
        "mask" => MASK,
        _ => ANY,
    }
}

fn one(rows: &[&Row], op: &str, style: TableStyle) -> String {
    let speed = if op == "svd-accuracy" { &[] } else { SPEED };
    let columns: Vec<&Column> = columns(op).iter().chain(speed).collect();
    let mut table = Table::new();
    table.load_style(style).set_header(columns.iter().map(|(title, ..)| *title));
    for row in rows {
        table.add_row(columns.iter().map(|(_, _, cell)| cell(row).unwrap_or_else(|| "-".to_owned())));
    }
    for (i, (_, alignment, _)) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(*alignment);
        }
    }
    let text = table.to_string();
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Seconds in the unit that reads best.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

fn percent(share: f64) -> Option<String> {
    share.is_finite().then(|| format!("{:.1}%", share * 100.0))
}

fn small(value: f64) -> Option<String> {
    match value {
        v if !v.is_finite() => None,
        0.0 => Some("0".to_owned()),
        v if v.abs() < 1e-3 => Some(format!("{v:.1e}")),
        v => Some(format!("{v:.4}")),
    }
}
