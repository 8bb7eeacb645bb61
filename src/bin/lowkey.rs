//! `lowkey`: works on models. Argument parsing and printing only.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use lowkey::{
    Device, Error, InputError,
    cache::{KvCache, Mode, Spec},
    calibrate::{self, Evaluation, Evaluator},
    coded::Format as KvFormat,
    model::{self, Encoded, GenerateOptions, Generated, LoadOptions, Model, Sampling, Tokenizer, perplexity},
    report::fault,
};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

/// Works on models: runs them, continues text, measures perplexity.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// Where to compute: cpu
    #[arg(long, global = true, default_value = "cpu")]
    device: String,
    /// How to print results
    #[arg(long, global = true, value_enum, default_value = "table")]
    format: Format,
    /// Accept NaN and Inf in weights
    #[arg(long, global = true)]
    allow_nonfinite: bool,
    /// Log more (-v, -vv); LOWKEY_LOG sets a filter
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// Longest text read, in bytes.
const MAX_TEXT: u64 = 1 << 30;
/// Most tokens of a calibration window where no --window says: moments gain nothing from longer ones.
const CALIBRATION_WINDOW: usize = 512;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
    Jsonl,
}

#[derive(Subcommand)]
enum Command {
    /// Runs token ids through a model and writes logits and hidden states
    Forward(Forward),
    /// Continues a prompt
    Generate(Generate),
    /// Measures perplexity on a text
    Eval(Eval),
}

#[derive(Args)]
struct Forward {
    /// Model folder
    model: PathBuf,
    /// Safetensors with input_ids [batch, tokens], optionally attention_mask
    #[arg(long, value_name = "FILE")]
    ids: PathBuf,
    /// Safetensors to write: logits, hidden_states.i
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Generate {
    /// Model folder
    model: PathBuf,
    /// Text to continue
    #[arg(long)]
    prompt: String,
    /// Most tokens to add
    #[arg(long, default_value_t = 64)]
    max_new_tokens: usize,
    /// Divides the logits; 0 takes the most likely token
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Keep this many tokens; 0 keeps all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Keep tokens up to this probability in all
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Keep tokens this share as likely as the most likely
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How the key-value cache is kept, such as rank=32,latent=int8 (default: dense f32)
    #[arg(long, value_name = "SPEC")]
    kv: Option<String>,
    #[command(flatten)]
    calibration: Calibration,
}

#[derive(Args)]
struct Calibration {
    /// Text that calibrated bases are fitted to
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Windows of the calibration text, spread over it
    #[arg(long, default_value_t = 16)]
    calibrate_windows: usize,
}

impl Calibration {
    fn text(&self, tokenizer: &Tokenizer) -> anyhow::Result<Option<Encoded>> {
        let read = |file: &PathBuf| Ok(tokenizer.encode(&model::read_text(file, MAX_TEXT)?, false)?);
        self.calibrate.as_ref().map(read).transpose()
    }
}

#[derive(Args)]
struct Eval {
    /// Model folder
    model: PathBuf,
    /// Text to score
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a window
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Distance of windows (default: the window)
    #[arg(long)]
    stride: Option<usize>,
    /// Score this many windows, spread over the text (default: all)
    #[arg(long)]
    samples: Option<usize>,
    /// Also score under this key-value cache, such as rank=32,basis=calibrated,latent=int4
    #[arg(long, value_name = "SPEC", conflicts_with = "sweep")]
    kv: Option<String>,
    /// Also score under each cache of this file, a SPEC a line
    #[arg(long, value_name = "FILE")]
    sweep: Option<PathBuf>,
    /// stream: as generation keeps it; whole: every position compressed, as papers print
    #[arg(long, value_enum, default_value = "stream")]
    kv_mode: KvMode,
    #[command(flatten)]
    calibration: Calibration,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum KvMode {
    Stream,
    Whole,
    Both,
}

impl KvMode {
    fn modes(self) -> &'static [Mode] {
        match self {
            Self::Stream => &[Mode::Stream],
            Self::Whole => &[Mode::Whole],
            Self::Both => &[Mode::Whole, Mode::Stream],
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    start_logs(cli.common.verbose)?;
    match &cli.command {
        Command::Forward(args) => forward(args, &cli.common),
        Command::Generate(args) => generate(args, &cli.common),
        Command::Eval(args) => eval(args, &cli.common),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let Some(fault) = fault(error.as_ref()) else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "{}", fault.line);
    ExitCode::from(fault.status)
}

fn start_logs(verbose: u8) -> lowkey::Result<()> {
    let level = ["warn", "lowkey=info", "lowkey=debug", "lowkey=trace"][usize::from(verbose.min(3))];
    let filter = std::env::var_os("LOWKEY_LOG").unwrap_or_default();
    let filter = if filter.is_empty() { level.into() } else { filter };
    let parsed = filter.to_str().and_then(|filter| EnvFilter::try_new(filter).ok()).ok_or_else(|| {
        InputError::new("LOWKEY_LOG", format!("{filter:?}"), "a filter such as debug, or lowkey::model=debug")
    })?;
    tracing_subscriber::fmt().with_env_filter(parsed).with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).init();
    Ok(())
}

fn load(folder: &PathBuf, common: &Common) -> anyhow::Result<Model> {
    let device: Device = common.device.parse()?;
    Ok(Model::load(folder, &device, &LoadOptions { allow_nonfinite: common.allow_nonfinite })?)
}

/// Prints one result: as JSON, or as lines of names and values.
fn print(value: &Value, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (format, value) {
        (Format::Json, _) => writeln!(out, "{value:#}"),
        (Format::Table, Value::Object(fields)) => {
            let width = fields.keys().map(String::len).max().unwrap_or(0);
            fields.iter().try_for_each(|(name, value)| match value {
                Value::String(text) => writeln!(out, "{name:width$}  {text}"),
                other => writeln!(out, "{name:width$}  {other}"),
            })
        }
        _ => writeln!(out, "{value}"),
    }
}

fn forward(args: &Forward, common: &Common) -> anyhow::Result<()> {
    let model = load(&args.model, common)?;
    let start = Instant::now();
    let [batch, tokens] = model::forward_file(&model, &args.ids, &args.out)?;
    let seconds = start.elapsed().as_secs_f64();
    let result = json!({ "out": args.out.display().to_string(), "batch": batch, "tokens": tokens, "seconds": seconds });
    Ok(print(&result, common.format)?)
}

fn generate(args: &Generate, common: &Common) -> anyhow::Result<()> {
    let spec: Option<Spec> = args.kv.as_deref().map(str::parse).transpose()?;
    let model = load(&args.model, common)?;
    let tokenizer = Tokenizer::load(&args.model, model.config().vocab_size)?;
    let prompt = tokenizer.encode(&args.prompt, true)?.ids;
    let context = model.config().context;
    if prompt.is_empty() || prompt.len() > context {
        let limit = format!("from 1 to {context} tokens, the context of the model");
        return Err(Error::from(InputError::new("--prompt", format!("{} tokens", prompt.len()), limit)).into());
    }
    let layout = model.layout(context.min(prompt.len().saturating_add(args.max_new_tokens)))?;
    let spec = spec.unwrap_or(Spec::dense(KvFormat::F32));
    let calibration = args.calibration.text(&tokenizer)?;
    let sampling = calibrate::Sampling { windows: args.calibration.calibrate_windows, window: context.min(CALIBRATION_WINDOW) };
    let bases = calibrate::bases_for(&model, &spec, calibration.as_ref().map(|text| (&text.ids[..], sampling)))?;
    let mut cache = KvCache::new(&layout, &spec, bases.as_ref(), model.device())?;
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            seed: args.seed,
        },
        stop_ids: model.config().stop_ids.clone(),
    };
    let live = common.format == Format::Table;
    let generated = stream_text(&tokenizer, live, |on_token| model::generate(&model, &mut cache, &prompt, &options, on_token))?;
    if live {
        writeln!(io::stdout())?;
    }
    let bytes = cache.bytes();
    if args.kv.is_some() && bytes.sealed == 0 {
        warn_dense(&spec, cache.len())?;
    }
    if live {
        return Ok(());
    }
    let result = json!({
        "text": tokenizer.decode(&generated.ids, true)?,
        "ids": generated.ids,
        "tokens_per_second": generated.tokens_per_second(),
        "prompt_ids": prompt,
        "prefill_seconds": generated.prefill_seconds,
        "kv": spec.to_string(),
        "kv_bytes": bytes.sequence(),
        "dense_kv_bytes": cache.len() * layout.dense_bytes_per_token(),
    });
    Ok(print(&result, common.format)?)
}

/// Runs a generation whose text is printed as it comes, if it is to be `live`.
fn stream_text(
    tokenizer: &Tokenizer,
    live: bool,
    run: impl FnOnce(&mut dyn FnMut(u32) -> bool) -> lowkey::Result<Generated>,
) -> anyhow::Result<Generated> {
    let mut stream = tokenizer.stream();
    let mut failed: Option<anyhow::Error> = None;
    let write = |text: &str| -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    };
    let generated = run(&mut |id| {
        if live {
            failed = stream.push(id).map_err(anyhow::Error::from).and_then(|text| Ok(write(&text)?)).err();
        }
        failed.is_none()
    })?;
    match failed {
        Some(error) => return Err(error),
        None if live => write(&stream.finish()?)?,
        None => {}
    }
    Ok(generated)
}

fn eval(args: &Eval, common: &Common) -> anyhow::Result<()> {
    let specs = specs(args)?;
    let model = load(&args.model, common)?;
    let tokenizer = Tokenizer::load(&args.model, model.config().vocab_size)?;
    let text = tokenizer.encode(&model::read_text(&args.text, MAX_TEXT)?, false)?;
    let calibration = args.calibration.text(&tokenizer)?;
    let sampling = calibrate::Sampling { windows: args.calibration.calibrate_windows, window: args.window };
    let mut options =
        perplexity::Options { window: args.window, stride: args.stride, samples: args.samples, ..Default::default() };
    let windows = perplexity::windows(text.ids.len(), &options)?.len();
    let progress = Progress::new(windows * (1 + specs.len()));
    let on_window = || progress.step();
    options.on_window = &on_window;
    let calibration = calibration.as_ref().map(|text| (&text.ids[..], sampling));
    let evaluator = Evaluator::new(&model, &text, options, calibration)?;
    let dense = evaluator.dense()?;
    let rows: Vec<Evaluation> = specs.iter().map(|spec| evaluator.run(spec)).collect::<lowkey::Result<_>>()?;
    progress.clear();
    for row in rows.iter().filter(|row| row.score.cache.sealed == 0) {
        warn_dense(&row.spec, args.window)?;
    }
    if rows.is_empty() && args.kv_mode != KvMode::Stream {
        writeln!(io::stderr(), "warning: --kv-mode has no effect without --kv or --sweep; this is the dense cache")?;
    }
    let single = args.sweep.is_none() && args.kv_mode != KvMode::Both;
    match (&rows[..], single) {
        ([], _) => Ok(print(&scores(&dense), common.format)?),
        ([row], true) if common.format != Format::Table => {
            let mut result = compressed(row, &dense);
            result["dense"] = scores(&dense);
            Ok(print(&result, common.format)?)
        }
        _ => Ok(print_rows(&dense, &rows, common.format)?),
    }
}

/// Says that a cache never compressed what it was to compress.
fn warn_dense(spec: &Spec, tokens: usize) -> io::Result<()> {
    let hint = "use a smaller block= or window=, or eval --kv-mode whole";
    writeln!(io::stderr(), "warning: {spec}: {tokens} tokens seal nothing, the cache stayed dense; {hint}")
}

/// The caches to score, in the order they are printed in.
fn specs(args: &Eval) -> anyhow::Result<Vec<Spec>> {
    let lines: Vec<String> = match (&args.kv, &args.sweep) {
        (Some(line), _) => vec![line.clone()],
        (None, Some(file)) => {
            let text = model::read_text(file, 1 << 20)?;
            text.lines()
                .map(|line| line.split('#').next().unwrap_or("").trim().to_string())
                .filter(|line| !line.is_empty())
                .collect()
        }
        (None, None) => Vec::new(),
    };
    if args.sweep.is_some() && lines.is_empty() {
        return Err(Error::from(InputError::new("--sweep", "no line", "a SPEC a line")).into());
    }
    let mut specs = Vec::new();
    for line in lines {
        let spec: Spec = line.parse()?;
        specs.extend(args.kv_mode.modes().iter().map(|mode| spec.clone().with_mode(*mode)));
    }
    Ok(specs)
}

fn scores(run: &Evaluation) -> Value {
    let score = &run.score;
    json!({
        "perplexity": score.perplexity,
        "nll": score.nll,
        "bits_per_byte": score.bits_per_byte,
        "tokens": score.tokens,
        "seconds": score.seconds,
    })
}

fn mode(run: &Evaluation) -> &'static str {
    if run.spec.mode == Mode::Whole { "whole" } else { "stream" }
}

fn compressed(run: &Evaluation, dense: &Evaluation) -> Value {
    let mut result = scores(run);
    result["kv"] = json!(run.spec.to_string());
    result["kv_mode"] = json!(mode(run));
    result["kv_bytes"] = json!(run.score.cache.sequence());
    result["dense_kv_bytes"] = json!(run.dense_bytes);
    result["kv_share"] = json!(run.share());
    result["calibrated_basis_bytes"] = json!(run.score.cache.calibrated_bases);
    result["perplexity_ratio"] = json!(run.score.perplexity / dense.score.perplexity);
    result
}

fn print_rows(dense: &Evaluation, rows: &[Evaluation], format: Format) -> io::Result<()> {
    if format != Format::Table {
        let values: Vec<Value> = rows.iter().map(|row| compressed(row, dense)).collect();
        return print(&json!({ "dense": scores(dense), "rows": values }), format);
    }
    let mut out = io::stdout().lock();
    let line = |ppl: f64, share: String, bases: usize, mode: &str, what: &str| {
        format!("{ppl:>10.4}  {:>7.4}  {share:>7}  {bases:>11}  {mode:<6}  {what}", ppl / dense.score.perplexity)
    };
    writeln!(out, "{:>10}  {:>7}  {:>7}  {:>11}  {:<6}  cache", "perplexity", "/ dense", "bytes", "fixed bases", "mode")?;
    writeln!(out, "{}", line(dense.score.perplexity, "1".into(), 0, "", "dense (computed in f32, bytes as 16-bit)"))?;
    for row in rows {
        let share = format!("{:.4}", row.share());
        writeln!(
            out,
            "{}",
            line(row.score.perplexity, share, row.score.cache.calibrated_bases, mode(row), &row.spec.to_string())
        )?;
    }
    Ok(())
}

/// A bar on stderr for what takes over a second, if stderr is a terminal.
struct Progress {
    bar: indicatif::ProgressBar,
    start: Instant,
}

impl Progress {
    fn new(steps: usize) -> Self {
        let bar = indicatif::ProgressBar::with_draw_target(Some(steps as u64), indicatif::ProgressDrawTarget::hidden());
        Self { bar, start: Instant::now() }
    }

    fn step(&self) {
        if self.bar.is_hidden() && self.start.elapsed() > Duration::from_secs(1) {
            self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        self.bar.inc(1);
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
