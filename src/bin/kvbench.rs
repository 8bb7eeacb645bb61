//! `kvbench`: measures what the kernels reach.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lowkey::{
    Device, Dtype, Error, InputError, Result,
    bench::{self, Request, Watcher, attention, doctor, linear, mask, svd, sweep},
    model,
    report::{self, Row, compare},
};

/// Measures batched truncated SVD, attention over compressed caches, linear layers, and masks: every case is checked against
/// an f64 oracle first, and only a right one is timed.
///
/// With no arguments: about a minute on the key-value cache of the small model that comes with the project.
#[derive(Parser)]
#[command(name = "kvbench", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Common {
    /// Where to run: cpu, cuda:N, or emulated: the kernels of GPUs on the CPU, in small cases timed once, without a rival
    #[arg(long, global = true, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Element types of the input, of the weights for linear: f32,f16,bf16 [default: f32, f16 for attention; off the CPU
    /// bf16 for attention and linear]
    #[arg(long, global = true, value_name = "LIST")]
    dtype: Option<String>,
    /// Take matrices from the [.., tokens, width] tensors of a safetensors file
    #[arg(long, global = true, value_name = "FILE.safetensors")]
    input: Option<PathBuf>,
    /// Take a file even if it holds NaN or Inf
    #[arg(long, global = true)]
    allow_nonfinite: bool,
    /// Run exactly one case, given as an output line names it
    #[arg(long, global = true, value_name = "CASE")]
    only: Option<String>,
    /// Seed of synthetic data
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// How to print
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the run as JSON to a file as well
    #[arg(long, global = true, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Fewer cases and runs: a look, not a figure
    #[arg(long, global = true)]
    quick: bool,
    /// Threads of the CPU device [default: RAYON_NUM_THREADS, or every core]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Log what is done to stderr; LOWKEY_LOG takes a filter instead
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Markdown,
    Csv,
    Json,
    Jsonl,
}

#[derive(Subcommand)]
enum Command {
    /// Batched truncated SVD
    Svd(SvdArgs),
    /// One decode step of attention over a cache, beside the dense cache
    Attention(AttentionArgs),
    /// A linear layer in two factors, beside the dense one
    Linear(LinearArgs),
    /// Masks that keep the largest weights
    Mask(MaskArgs),
    /// Everything, on the cache of the model that comes with the project (what no command does too); synthetic when emulated
    All,
    /// Tell whether anything changed between two saved runs; exits 1 if a case got slower
    Compare {
        /// The run before
        a: PathBuf,
        /// The run after
        b: PathBuf,
    },
    /// Say what this machine and build lack, and what to do about it
    Doctor,
}

/// Lists `a,b,c`, ranges `1k..64k` that double, suffixes k and M.
///
/// A shape means seeded synthetic matrices whose singular values fall like 1/j; none means the cache of the model
/// that comes with the project.
#[derive(Args)]
struct SvdArgs {
    /// Matrices at a time
    #[arg(long, value_name = "LIST")]
    batch: Option<String>,
    /// Rows (tokens) of a matrix
    #[arg(long, value_name = "LIST")]
    rows: Option<String>,
    /// Columns (width) of a matrix
    #[arg(long, value_name = "LIST")]
    cols: Option<String>,
    /// Ranks to keep
    #[arg(long, value_name = "LIST")]
    rank: Option<String>,
    /// Relative errors to stay below, instead of ranks
    #[arg(long, value_name = "LIST", conflicts_with = "rank")]
    tolerance: Option<String>,
    /// Where the ladder of methods starts: single,double,jacobi [default: single]
    #[arg(long, value_name = "LIST")]
    start: Option<String>,
    /// Instead of times, the accuracy of both modes over a grid of spectra, conditions, shapes and dtypes; exits 1 if a
    /// promise is broken
    #[arg(long, conflicts_with_all = ["batch", "rows", "cols", "rank", "tolerance", "start"])]
    accuracy: bool,
}

/// Lists `a,b,c`, ranges `1k..64k` that double, suffixes k and M.
///
/// A number of heads or a head_dim means seeded synthetic keys and values; neither means the cache of the model that
/// comes with the project, its windows of text one after the other where the context is longer than one.
#[derive(Args)]
struct AttentionArgs {
    /// Sequences at a time
    #[arg(long, value_name = "LIST")]
    batch: Option<String>,
    /// Tokens in the cache
    #[arg(long, value_name = "LIST")]
    context: Option<String>,
    /// Query heads / key-value heads
    #[arg(long, value_name = "Q/KV")]
    heads: Option<String>,
    /// Elements of a head
    #[arg(long, value_name = "LIST")]
    head_dim: Option<String>,
    /// Ranks, of keys and values alike (32) or each (16/32)
    #[arg(long, value_name = "LIST")]
    rank: Option<String>,
    /// Storage of latents: f32,f16,bf16,int8,int4,int4-asym
    #[arg(long, value_name = "LIST")]
    latent: Option<String>,
    /// Source of bases: identity,online,calibrated
    #[arg(long, value_name = "LIST")]
    basis: Option<String>,
    /// Keys stored before or after rotary embedding: pre-rope,post-rope
    #[arg(long, value_name = "LIST")]
    keys: Option<String>,
    /// Tokens sealed at a time
    #[arg(long, value_name = "LIST")]
    block: Option<String>,
    /// Newest tokens kept dense
    #[arg(long, value_name = "LIST")]
    window: Option<String>,
    /// First tokens kept dense
    #[arg(long, value_name = "LIST")]
    sinks: Option<String>,
    /// Say on stderr where the bytes of each case lie
    #[arg(long)]
    explain: bool,
}

/// Lists `a,b,c`, ranges `1k..64k` that double, suffixes k and M. Rows and weights are seeded normal numbers.
#[derive(Args)]
struct LinearArgs {
    /// Rows of the input
    #[arg(long, value_name = "LIST")]
    m: Option<String>,
    /// Elements of an output: rows of the weights
    #[arg(long, value_name = "LIST")]
    n: Option<String>,
    /// Elements of an input: columns of the weights
    #[arg(long, value_name = "LIST")]
    k: Option<String>,
    /// Ranks of factorized weights
    #[arg(long, value_name = "LIST")]
    rank: Option<String>,
    /// How weights are kept: dense,factorized [default: both]; bitmap,delta,csr,2:4,int8,int4 are not built yet
    #[arg(long, value_name = "LIST")]
    format_of_weights: Option<String>,
    /// Shares of the weights that bitmap, delta and csr keep
    #[arg(long, value_name = "LIST")]
    density: Option<String>,
}

/// Lists `a,b,c`, ranges `1k..64k` that double, suffixes k and M.
#[derive(Args)]
struct MaskArgs {
    /// Rows of the weights
    #[arg(long, value_name = "LIST")]
    rows: Option<String>,
    /// Columns of the weights
    #[arg(long, value_name = "LIST")]
    cols: Option<String>,
    /// Shares of the weights to keep (a pattern N:M says itself)
    #[arg(long, value_name = "LIST")]
    density: Option<String>,
    /// What to choose by: magnitude
    #[arg(long, value_name = "LIST")]
    score: Option<String>,
    /// Among which weights the largest are kept: row,tensor,N:M [default: row,tensor,2:4]
    #[arg(long, value_name = "LIST")]
    scope: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.common.verbose);
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprint_line(&format!("error: {}", on_one_line(&error.to_string())));
            ExitCode::from(2)
        }
    }
}

fn start_logging(verbose: bool) {
    use tracing_subscriber::EnvFilter;
    let usual = if verbose { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("LOWKEY_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}

fn run(cli: &Cli) -> Result<ExitCode> {
    use_threads(cli.common.threads)?;
    match &cli.command {
        Some(Command::Compare { a, b }) => run_compare(cli.common.format, a, b),
        Some(Command::Doctor) => run_doctor(cli.common.format),
        measured => run_cases(&cli.common, measured.as_ref()),
    }
}

fn use_threads(threads: Option<usize>) -> Result<()> {
    const MOST: usize = 1024;
    let Some(threads) = threads else { return Ok(()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    if !(1..=MOST).contains(&threads) || pool.build_global().is_err() {
        let error = InputError::new("--threads", threads, format!("1 to {MOST} threads that this machine can start"));
        return Err(error.hint("leave it out to use every core").into());
    }
    Ok(())
}

fn run_cases(common: &Common, command: Option<&Command>) -> Result<ExitCode> {
    let request = request(common, command)?;
    if let Some(path) = &common.save {
        check_place(path)?;
    }
    let mut screen = Screen::new(common.format == Format::Jsonl);
    let document = bench::run(&request, &mut screen)?;
    screen.close();
    match common.format {
        Format::Table => print(&report::table(&document)),
        Format::Markdown => print(&report::markdown(&document)),
        Format::Csv => print(&report::csv(&document)),
        Format::Json => print(&json(&document)?),
        // Printed row by row.
        Format::Jsonl => Ok(()),
    }?;
    if matches!(common.format, Format::Csv | Format::Jsonl) {
        for skipped in &document.skipped {
            eprint_line(&on_one_line(&format!("skipped: {}: {}", skipped.case, skipped.reason)));
        }
    }
    if let Some(path) = &common.save {
        save(path, &json(&document)?)?;
    }
    let wrong = document.failures().count();
    if wrong > 0 {
        let _ = writeln!(io::stderr(), "error: {wrong} of {} cases gave a wrong result", document.rows.len());
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

fn request(common: &Common, command: Option<&Command>) -> Result<Request> {
    let every = command.is_none() || matches!(command, Some(Command::All));
    let dtypes = [("f32", Dtype::F32), ("f16", Dtype::F16), ("bf16", Dtype::BF16)];
    Ok(Request {
        device: common.device.parse::<Device>()?,
        dtypes: common.dtype.as_deref().map(|list| sweep::names("--dtype", list, &dtypes)).transpose()?,
        input: common.input.clone(),
        allow_nonfinite: common.allow_nonfinite,
        only: common.only.clone(),
        seed: common.seed,
        quick: common.quick,
        accuracy: matches!(command, Some(Command::Svd(args)) if args.accuracy),
        svd: match command {
            Some(Command::Svd(args)) => Some(svd_sweep(args)?),
            _ => every.then(svd::Sweep::default),
        },
        attention: match command {
            Some(Command::Attention(args)) => Some(attention_sweep(args)?),
            _ => every.then(attention::Sweep::default),
        },
        linear: match command {
            Some(Command::Linear(args)) => Some(linear_sweep(args)?),
            _ => every.then(linear::Sweep::default),
        },
        mask: match command {
            Some(Command::Mask(args)) => Some(mask_sweep(args)?),
            _ => every.then(mask::Sweep::default),
        },
    })
}

fn svd_sweep(args: &SvdArgs) -> Result<svd::Sweep> {
    Ok(svd::Sweep {
        batch: numbers("--batch", args.batch.as_deref(), 1 << 20)?,
        rows: numbers("--rows", args.rows.as_deref(), 1 << 24)?,
        cols: numbers("--cols", args.cols.as_deref(), 1 << 20)?,
        rank: numbers("--rank", args.rank.as_deref(), 1 << 20)?,
        tolerance: args.tolerance.as_deref().map(|list| sweep::shares("--tolerance", list)).transpose()?,
        start: args.start.as_deref().map(|list| sweep::names("--start", list, &svd::STARTS)).transpose()?,
    })
}

fn attention_sweep(args: &AttentionArgs) -> Result<attention::Sweep> {
    let pairs = |flag, list: Option<&str>, limit| list.map(|list| sweep::pairs(flag, list, limit)).transpose();
    let tokens = |flag, text: &Option<String>| text.as_deref().map(|text| sweep::tokens(flag, text)).transpose();
    Ok(attention::Sweep {
        batch: numbers("--batch", args.batch.as_deref(), 1 << 16)?,
        context: numbers("--context", args.context.as_deref(), 1 << 24)?,
        heads: pairs("--heads", args.heads.as_deref(), 1 << 12)?,
        head_dim: numbers("--head-dim", args.head_dim.as_deref(), 1 << 12)?,
        rank: pairs("--rank", args.rank.as_deref(), 1 << 12)?,
        latent: words("--latent", &args.latent, &["f32", "f16", "bf16", "int8", "int4", "int4-asym"])?,
        basis: words("--basis", &args.basis, &["identity", "online", "calibrated"])?,
        keys: words("--keys", &args.keys, &["pre-rope", "post-rope"])?,
        block: numbers("--block", args.block.as_deref(), 1 << 30)?,
        window: tokens("--window", &args.window)?,
        sinks: tokens("--sinks", &args.sinks)?,
        explain: args.explain,
    })
}

fn linear_sweep(args: &LinearArgs) -> Result<linear::Sweep> {
    Ok(linear::Sweep {
        m: numbers("--m", args.m.as_deref(), 1 << 24)?,
        n: numbers("--n", args.n.as_deref(), 1 << 24)?,
        k: numbers("--k", args.k.as_deref(), 1 << 24)?,
        rank: numbers("--rank", args.rank.as_deref(), 1 << 24)?,
        formats: words("--format-of-weights", &args.format_of_weights, &linear::FORMATS)?,
        density: args.density.as_deref().map(|list| sweep::shares("--density", list)).transpose()?,
    })
}

fn mask_sweep(args: &MaskArgs) -> Result<mask::Sweep> {
    // There is one score; the flag exists so that scripts which name it go on working when there are more.
    words("--score", &args.score, &mask::SCORES)?;
    Ok(mask::Sweep {
        rows: numbers("--rows", args.rows.as_deref(), 1 << 24)?,
        cols: numbers("--cols", args.cols.as_deref(), 1 << 24)?,
        density: args.density.as_deref().map(|list| sweep::shares("--density", list)).transpose()?,
        scope: args.scope.as_deref().map(|list| mask::Among::list("--scope", list)).transpose()?,
    })
}

fn words(flag: &str, list: &Option<String>, allowed: &[&'static str]) -> Result<Option<Vec<&'static str>>> {
    let allowed: Vec<(&str, &'static str)> = allowed.iter().map(|name| (*name, *name)).collect();
    list.as_deref().map(|list| sweep::names(flag, list, &allowed)).transpose()
}

fn numbers(flag: &str, list: Option<&str>, limit: usize) -> Result<Option<Vec<usize>>> {
    list.map(|list| sweep::numbers(flag, list, limit)).transpose()
}

fn run_compare(format: Format, a: &Path, b: &Path) -> Result<ExitCode> {
    let comparison = compare::compare(&compare::read(a)?, &compare::read(b)?)?;
    if !comparison.same_host {
        let _ = writeln!(io::stderr(), "warning: the two runs were made on different machines or thread counts");
    }
    match format {
        Format::Table => print(&comparison.table())?,
        Format::Markdown => print(&comparison.markdown())?,
        Format::Json => print(&json(&comparison)?)?,
        Format::Csv | Format::Jsonl => return Err(no_such_format("compare")),
    }
    Ok(ExitCode::from(u8::from(comparison.is_worse())))
}

fn run_doctor(format: Format) -> Result<ExitCode> {
    let diagnosis = doctor::diagnose();
    match format {
        Format::Table | Format::Markdown => print(&diagnosis.text())?,
        Format::Json => print(&json(&diagnosis)?)?,
        Format::Csv | Format::Jsonl => return Err(no_such_format("doctor")),
    }
    Ok(ExitCode::SUCCESS)
}

fn no_such_format(command: &str) -> Error {
    let error = InputError::new("--format", format!("csv or jsonl for {command}"), "table, markdown or json");
    error.hint("use --format json").into()
}

/// Refuses a place that cannot be written to before anything is measured for it.
fn check_place(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() && !path.is_dir() {
        return Ok(());
    }
    let error = InputError::new("--save", path.display(), "a file in a folder that exists");
    Err(error.hint("make the folder first").into())
}

fn save(path: &Path, text: &str) -> Result<()> {
    model::files::replace(path, |file| file.write_all(text.as_bytes()))
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(json_error)
}

fn json_error(error: serde_json::Error) -> Error {
    Error::Numeric { op: "JSON", what: error.to_string() }
}

/// Prints to stdout. A reader that has seen enough and closed the pipe ends the program quietly.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(source) => Err(Error::Io { path: "stdout".into(), source }),
        Ok(()) => Ok(()),
    }
}

/// Progress on stderr when it is a terminal; rows on stdout as they come when asked for line by line.
struct Screen {
    bar: ProgressBar,
    lines: bool,
}

impl Screen {
    fn new(lines: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {wide_msg}");
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())), lines }
    }

    fn close(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watcher for Screen {
    fn begin(&mut self, cases: usize) {
        self.bar.set_length(cases as u64);
    }

    fn doing(&mut self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    fn say(&mut self, line: &str) {
        if io::stderr().is_terminal() {
            self.bar.suspend(|| eprint_line(line));
        } else {
            eprint_line(line);
        }
    }

    fn done(&mut self, row: &Row) -> Result<()> {
        self.bar.inc(1);
        if !self.lines {
            return Ok(());
        }
        print(&(serde_json::to_string(row).map_err(json_error)? + "\n"))
    }
}

/// Paths may hold anything; what reads stderr line by line must not see an error as two.
fn on_one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// A closed stderr is no reason to panic.
fn eprint_line(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
