//! The one error type of the crate.

use std::{fmt, io, path::PathBuf};

use crate::Dtype;

/// Result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do where a device has no kernel.
const USE_CPU: &str = "use --device cpu";

/// What went wrong. Each message names what was found and what was needed.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shapes, strides, ranks or lengths that do not fit the operation.
    #[error("{op}: {found}; expected {expected}")]
    Shape {
        /// Operation that refused.
        op: &'static str,
        /// The offending argument and its shape.
        found: String,
        /// What the operation takes.
        expected: String,
    },
    /// An element type that the operation does not take.
    #[error("{op}: dtype {found} is not supported; expected one of {}", list(.expected))]
    Dtype {
        /// Operation that refused.
        op: &'static str,
        /// The dtype it was given.
        found: Dtype,
        /// The dtypes it takes.
        expected: &'static [Dtype],
    },
    /// A device that is absent, full, failed, or not the one the arguments live on.
    #[error("{found}; {hint}")]
    Device {
        /// What is missing or failed, with the figures known.
        found: String,
        /// What would make it work.
        hint: String,
    },
    /// A file, flag or field with a value outside its limits.
    #[error(transparent)]
    Input(#[from] Box<InputError>),
    /// Arithmetic that could not deliver its promise.
    #[error("{op}: {what}")]
    Numeric {
        /// Operation that failed.
        op: &'static str,
        /// What happened and where (matrix, token, layer).
        what: String,
    },
    /// The caller wanted no more of it.
    #[error("{op}: cancelled")]
    Cancelled {
        /// Operation that was ended.
        op: &'static str,
    },
    /// The operating system refused.
    #[error("{}: {source}{}", path.display(), remedy(source))]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Where an input is wrong, what it held, what is allowed, and what to do about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputError {
    /// File the value was read from, if any.
    pub file: Option<PathBuf>,
    /// Field, tensor, flag or key.
    pub field: String,
    /// The value found.
    pub value: String,
    /// What would be accepted.
    pub limit: String,
    /// What the reader can do.
    pub hint: String,
}

impl InputError {
    /// An error about `field`, which held `value` where `limit` was required.
    pub fn new(field: impl Into<String>, value: impl fmt::Display, limit: impl Into<String>) -> Self {
        Self { field: field.into(), value: value.to_string(), limit: limit.into(), ..Self::default() }
    }

    /// Names the file.
    pub fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Adds what the reader can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "{}: found {}", self.field, self.value)?;
        if !self.limit.is_empty() {
            write!(f, ", expected {}", self.limit)?;
        }
        if !self.hint.is_empty() {
            write!(f, " (hint: {})", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for InputError {}

impl From<InputError> for Error {
    fn from(error: InputError) -> Self {
        Self::Input(Box::new(error))
    }
}

impl Error {
    pub(crate) fn shape(op: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Shape { op, found: found.into(), expected: expected.into() }
    }

    /// An error about `what`, for which `device` has no kernel.
    pub(crate) fn no_kernel(what: &str, device: impl fmt::Display) -> Self {
        Self::device(format!("{what} has no kernel for {device} yet"), USE_CPU)
    }

    /// Whether arguments were turned down, as they are where a device has no kernel for them, rather than work failed.
    #[cfg(feature = "cli")]
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Shape { .. } | Self::Dtype { .. } => true,
            Self::Device { hint, .. } => hint == USE_CPU,
            _ => false,
        }
    }

    pub(crate) fn device(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Device { found: found.into(), hint: hint.into() }
    }

    #[cfg(feature = "model")]
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

/// What the reader can do about a refusal of the system, where that is known.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (hint: check the path)",
        io::ErrorKind::PermissionDenied => " (hint: check who may read or write it)",
        io::ErrorKind::StorageFull => " (hint: make room on the disk)",
        _ => "",
    }
}

fn list(dtypes: &[Dtype]) -> String {
    dtypes.iter().map(Dtype::to_string).collect::<Vec<_>>().join(", ")
}
