//! Runs compilers in parallel, and only for what changed since they last ran.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::SystemTime,
};

/// One run of a compiler that writes `output` and, in Makefile form, what it read to `depfile`.
pub(crate) struct Job {
    pub(crate) command: Vec<String>,
    pub(crate) output: PathBuf,
    pub(crate) depfile: PathBuf,
}

impl Job {
    /// The command of the run that made the output.
    fn stamp(&self) -> PathBuf {
        self.output.with_extension("command")
    }

    fn is_fresh(&self) -> bool {
        let stamp = fs::read_to_string(self.stamp());
        stamp.is_ok_and(|stamp| stamp == self.command.join(" ")) && newer_than_inputs(&self.output, &self.depfile)
    }

    fn run(&self) -> Result<(), String> {
        if self.is_fresh() {
            return Ok(());
        }
        // A run that is interrupted leaves no stamp behind and is repeated.
        let _ = fs::remove_file(self.stamp());
        let run = Command::new(&self.command[0]).args(&self.command[1..]).output();
        let run = run.map_err(|error| format!("{}: {error}", self.command[0]))?;
        if !run.status.success() {
            return Err(format!("{}\n{}", self.command.join(" "), String::from_utf8_lossy(&run.stderr)));
        }
        fs::write(self.stamp(), self.command.join(" ")).map_err(|error| format!("{}: {error}", self.stamp().display()))
    }
}

/// Whether every file that a depfile names is older than the output.
fn newer_than_inputs(output: &Path, depfile: &Path) -> bool {
    let when = |path: &Path| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    let (Some(made), Ok(rule)) = (when(output), fs::read_to_string(depfile)) else { return false };
    let Some((_, inputs)) = rule.split_once(": ").or_else(|| rule.split_once(":\\")) else { return false };
    let mut names = inputs.split_whitespace().filter(|word| *word != "\\").peekable();
    names.peek().is_some() && names.all(|name| when(Path::new(name)).is_some_and(|changed| changed <= made))
}

/// Runs all jobs, `threads` at a time, and reports every failure.
pub(crate) fn run(jobs: &[Job], threads: usize) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(failure) = job.run() {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}
