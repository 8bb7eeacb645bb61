//! The one-line description of a cache: `rank=32/48,basis=calibrated,latent=int4,window=64,sinks=4,block=1024`.

use std::{fmt, str::FromStr};

use crate::{Error, InputError, Result, coded::Format};

/// Where the basis of latents comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BasisKind {
    /// None: rows are stored at full width, as they are or quantized.
    Identity,
    /// The truncated SVD of each sealed block.
    Online,
    /// Fixed per layer and head, from calibration.
    Calibrated,
}

/// What a calibrated basis keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weighting {
    /// The rows themselves (PCA).
    None,
    /// What rows do: keys weighted by queries, values by the output projection.
    Query,
}

/// Whether keys are stored before or after rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyForm {
    /// Before RoPE: lower rank; rotated when used.
    PreRope,
    /// After RoPE: the decoder is absorbed into the query.
    PostRope,
}

/// Which sides are compressed; the other is kept at full width in 16 bits (f32 beside f32 latents).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Only {
    /// Keys and values.
    Both,
    /// Keys only.
    Keys,
    /// Values only.
    Values,
}

/// How a rank is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RankRule {
    /// Columns of keys, of values.
    Columns(usize, usize),
    /// Columns as a share of head_dim.
    Share(f64),
    /// Bytes as a share of the 16-bit dense cache, scales and online bases counted.
    Ratio(f64),
}

/// When tokens are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dense sinks and window; the oldest block is sealed when the window holds that many tokens more than it must.
    Stream,
    /// Every token is sealed as it is appended, before it is attended to; what papers print.
    Whole,
}

/// How a cache keeps its tokens. Read from a line (see the module), printed as one; the mode is not part of the line.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Ranks; unused by [`BasisKind::Identity`].
    pub rank: Option<RankRule>,
    /// Source of the bases.
    pub basis: BasisKind,
    /// What calibrated bases keep.
    pub weighting: Weighting,
    /// Form of stored keys.
    pub keys: KeyForm,
    /// Storage of latents.
    pub latent: Format,
    /// Storage of windows, sinks and sides that are not compressed; also of bases.
    pub dense: Format,
    /// Newest tokens kept dense.
    pub window: usize,
    /// First tokens kept dense.
    pub sinks: usize,
    /// Tokens sealed at a time.
    pub block: usize,
    /// Sides compressed.
    pub only: Only,
    /// Whether calibrated bases are centred.
    pub mean: bool,
    /// When tokens are sealed.
    pub mode: Mode,
}

const KEYS: &str =
    "rank, rank-share, ratio, basis, weighting, keys, latent, dense, window, sinks, block, v-only, k-only or mean";

impl Spec {
    /// A cache that never compresses, stored as `format`.
    pub fn dense(format: Format) -> Self {
        Self {
            rank: None,
            basis: BasisKind::Identity,
            weighting: Weighting::None,
            keys: KeyForm::PostRope,
            latent: format,
            dense: format,
            window: usize::MAX,
            sinks: 0,
            block: usize::MAX,
            only: Only::Both,
            mean: false,
            mode: Mode::Stream,
        }
    }

    /// Whether nothing is ever sealed.
    pub fn is_dense(&self) -> bool {
        self.block == usize::MAX
    }

    /// The same cache in another mode.
    pub fn with_mode(mut self, mode: Mode) -> Self {
        if !self.is_dense() {
            self.mode = mode;
        }
        self
    }

    /// Columns of latents for keys and values of `head_dim`; full width where a side is not compressed.
    ///
    /// # Errors
    /// [`Error::Input`] when a rank is over head_dim or a ratio leaves no column.
    pub fn ranks(&self, head_dim: usize) -> Result<(usize, usize)> {
        let (keys, values) = match self.rank {
            None => (head_dim, head_dim),
            Some(RankRule::Columns(keys, values)) => (keys, values),
            Some(RankRule::Share(share)) => {
                let rank = (share * head_dim as f64).round() as usize;
                (rank, rank)
            }
            Some(RankRule::Ratio(ratio)) => {
                let rank = (1..=head_dim).take_while(|rank| self.share(*rank, head_dim) <= ratio).count();
                (rank, rank)
            }
        };
        for rank in [keys, values] {
            if rank == 0 || rank > head_dim {
                let error = InputError::new("kv rank", rank, format!("1..={head_dim} (head_dim)"));
                return Err(error.hint("choose a rank below head_dim, or a larger ratio").into());
            }
        }
        Ok(match self.only {
            Only::Both => (keys, values),
            Only::Keys => (keys, head_dim),
            Only::Values => (head_dim, values),
        })
    }

    /// Bytes of a sealed row of `rank` latents over those of a 16-bit row, its share of an online basis counted.
    fn share(&self, rank: usize, head_dim: usize) -> f64 {
        let basis = match self.basis {
            BasisKind::Online => self.dense.row_bytes(rank * head_dim) as f64 / self.block as f64,
            _ => 0.0,
        };
        (self.latent.row_bytes(rank) as f64 + basis) / (2 * head_dim) as f64
    }

    /// Refuses combinations that mean nothing.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |field: &str, value: &str, limit: &str, hint: &str| -> Result<()> {
            Err(InputError::new(format!("kv {field}"), value, limit).hint(hint).into())
        };
        let identity = self.basis == BasisKind::Identity;
        match (identity, self.rank.is_some()) {
            (true, true) => return refuse("rank", "a rank with basis=identity", "no rank", "an identity basis has full width"),
            (false, false) => {
                return refuse("rank", "none", "rank=, ratio= or rank-share=", "or basis=identity for plain quantization");
            }
            _ => {}
        }
        if self.weighting == Weighting::Query && self.basis != BasisKind::Calibrated {
            return refuse("weighting", "query", "basis=calibrated", "queries are known only from calibration");
        }
        if self.mean && (self.basis != BasisKind::Calibrated || self.weighting != Weighting::None) {
            return refuse("mean", "mean", "basis=calibrated,weighting=none", "only calibrated PCA has a mean");
        }
        if self.dense.is_quantized() {
            return refuse("dense", "integers", "f32, f16 or bf16", "windows and bases have no scales");
        }
        if self.block == 0 {
            return refuse("block", "0", "at least 1", "the default is 1024");
        }
        Ok(())
    }
}

impl FromStr for Spec {
    type Err = Error;

    /// # Errors
    /// [`Error::Input`] for unknown keys, values out of range, and combinations that mean nothing.
    fn from_str(line: &str) -> Result<Self> {
        let mut spec = Self {
            keys: KeyForm::PreRope,
            window: 64,
            sinks: 4,
            block: 1024,
            basis: BasisKind::Online,
            ..Self::dense(Format::F16)
        };
        let (mut dense, mut weighting, mut seen) = (None, None, Vec::new());
        for item in line.split(',').map(str::trim) {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            if seen.contains(&key) {
                return Err(InputError::new(format!("kv {key}"), format!("{line:?}"), "each key once").into());
            }
            seen.push(key);
            match key {
                "rank" => spec.rank = Some(columns(value)?),
                "rank-share" => spec.rank = Some(RankRule::Share(share(key, value)?)),
                "ratio" => spec.rank = Some(RankRule::Ratio(share(key, value)?)),
                "basis" => spec.basis = choice(key, value, &BASES)?,
                "weighting" => weighting = Some(choice(key, value, &WEIGHTINGS)?),
                "keys" => spec.keys = choice(key, value, &KEY_FORMS)?,
                "latent" => spec.latent = value.parse()?,
                "dense" => {
                    dense = Some(choice(key, value, &[(Format::F32, "f32"), (Format::F16, "f16"), (Format::BF16, "bf16")])?)
                }
                "window" => spec.window = count(key, value)?,
                "sinks" => spec.sinks = count(key, value)?,
                "block" => spec.block = count(key, value)?,
                "v-only" if value.is_empty() => spec.only = Only::Values,
                "k-only" if value.is_empty() => spec.only = Only::Keys,
                "mean" if value.is_empty() => spec.mean = true,
                "group" => {
                    let error = InputError::new("kv group", value, "no group")
                        .hint("one basis spans one head; groups are not built yet");
                    return Err(error.into());
                }
                _ => return Err(InputError::new("kv", format!("{item:?}"), KEYS).into()),
            }
        }
        let rules = ["rank", "rank-share", "ratio"].iter().filter(|rule| seen.contains(rule)).count();
        if rules > 1 || seen.contains(&"v-only") && seen.contains(&"k-only") {
            return Err(
                InputError::new("kv", format!("{line:?}"), "one of rank, rank-share, ratio; one of v-only, k-only").into()
            );
        }
        let natural = if spec.basis == BasisKind::Calibrated && !spec.mean { Weighting::Query } else { Weighting::None };
        spec.weighting = weighting.unwrap_or(natural);
        spec.dense = dense.unwrap_or(spec.latent.companion());
        spec.check()?;
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dense() {
            return write!(f, "dense {}", self.dense);
        }
        match self.rank {
            None => {}
            Some(RankRule::Columns(keys, values)) if keys == values => write!(f, "rank={keys},")?,
            Some(RankRule::Columns(keys, values)) => write!(f, "rank={keys}/{values},")?,
            Some(RankRule::Share(share)) => write!(f, "rank-share={share},")?,
            Some(RankRule::Ratio(ratio)) => write!(f, "ratio={ratio},")?,
        }
        write!(f, "basis={}", name(self.basis, &BASES))?;
        if self.basis == BasisKind::Calibrated {
            write!(f, ",weighting={}", name(self.weighting, &WEIGHTINGS))?;
        }
        write!(f, ",keys={},latent={}", name(self.keys, &KEY_FORMS), self.latent)?;
        if self.dense != self.latent.companion() {
            write!(f, ",dense={}", self.dense)?;
        }
        if self.mode == Mode::Stream {
            write!(f, ",window={},sinks={},block={}", self.window, self.sinks, self.block)?;
        }
        match self.only {
            Only::Both => {}
            Only::Keys => write!(f, ",k-only")?,
            Only::Values => write!(f, ",v-only")?,
        }
        if self.mean { write!(f, ",mean") } else { Ok(()) }
    }
}

const BASES: [(BasisKind, &str); 3] =
    [(BasisKind::Identity, "identity"), (BasisKind::Online, "online"), (BasisKind::Calibrated, "calibrated")];
const WEIGHTINGS: [(Weighting, &str); 2] = [(Weighting::None, "none"), (Weighting::Query, "query")];
const KEY_FORMS: [(KeyForm, &str); 2] = [(KeyForm::PreRope, "pre-rope"), (KeyForm::PostRope, "post-rope")];

fn name<T: PartialEq>(value: T, names: &[(T, &'static str)]) -> &'static str {
    names.iter().find(|(candidate, _)| *candidate == value).map_or("", |(_, name)| name)
}

fn choice<T: Copy>(key: &str, value: &str, names: &[(T, &'static str)]) -> Result<T> {
    let allowed = || names.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    let found = names.iter().find(|(_, name)| *name == value);
    found.map(|(value, _)| *value).ok_or_else(|| InputError::new(format!("kv {key}"), format!("{value:?}"), allowed()).into())
}

fn count(key: &str, value: &str) -> Result<usize> {
    const MOST: usize = 1 << 30;
    let parsed = value.parse().ok().filter(|n| *n <= MOST);
    parsed.ok_or_else(|| {
        InputError::new(format!("kv {key}"), format!("{value:?}"), format!("a count of tokens up to {MOST}")).into()
    })
}

fn columns(value: &str) -> Result<RankRule> {
    let (keys, values) = value.split_once('/').unwrap_or((value, value));
    let parse = |text: &str| text.parse().ok().filter(|rank| (1..=65_536).contains(rank));
    match (parse(keys), parse(values)) {
        (Some(keys), Some(values)) => Ok(RankRule::Columns(keys, values)),
        _ => Err(InputError::new("kv rank", format!("{value:?}"), "R or K/V, each at least 1").into()),
    }
}

fn share(key: &str, value: &str) -> Result<f64> {
    let parsed: Option<f64> = value.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    let hint = if key == "ratio" { "compressed bytes over dense bytes" } else { "columns over head_dim" };
    parsed.ok_or_else(|| InputError::new(format!("kv {key}"), format!("{value:?}"), "a number in (0, 1]").hint(hint).into())
}
