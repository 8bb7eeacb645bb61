//! Images for GPUs: one fatbin a source, by nvcc where it is found.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    compile::{self, Job},
    sources::Source,
    threads, watched,
};

/// What images are compiled for.
const ARCHITECTURES: &str = "80,90,100,120";

/// The first nvcc that knows every architecture above and accepts `__grid_constant__` in all of them.
const OLDEST: (u32, u32) = (13, 0);

/// The fatbins of this build.
pub(crate) struct Images {
    folder: Option<PathBuf>,
    /// As messages name them: `sm_80`, ..., `compute_80`.
    pub(crate) architectures: Vec<String>,
}

impl Images {
    /// A build without nvcc.
    pub(crate) fn none() -> Self {
        Self { folder: None, architectures: Vec::new() }
    }

    /// The fatbin of a source.
    pub(crate) fn of(&self, source: &Source) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{}_{}.fatbin", source.folder, source.stem)))
    }
}

/// Compiles every source, or none where there is no nvcc and `LOWKEY_CUDA` does not require one.
pub(crate) fn compile(root: &Path, out: &Path, sources: &[Source]) -> Result<Images, String> {
    let mode = watched("LOWKEY_CUDA").unwrap_or_else(|| "auto".to_owned());
    if !["auto", "require", "off"].contains(&mode.as_str()) {
        return Err(format!("LOWKEY_CUDA={mode}: expected auto, require or off"));
    }
    let listed = watched("LOWKEY_CUDA_ARCHS").unwrap_or_else(|| ARCHITECTURES.to_owned());
    let ptx = watched("LOWKEY_CUDA_PTX").unwrap_or_else(|| "on".to_owned());
    if !["on", "off"].contains(&ptx.as_str()) {
        return Err(format!("LOWKEY_CUDA_PTX={ptx}: expected on or off"));
    }
    let documented = watched("DOCS_RS").is_some();
    if mode == "off" || documented {
        return Ok(Images::none());
    }
    let nvcc = match find(root) {
        Ok(nvcc) => nvcc,
        Err(reason) if mode == "require" => return Err(format!("LOWKEY_CUDA=require, and {reason}")),
        Err(reason) => {
            println!("cargo::warning={reason}: building without CUDA kernels (LOWKEY_CUDA=off silences this)");
            return Ok(Images::none());
        }
    };
    let targets = Targets::new(parse(&listed)?, ptx == "on");
    let images = Images { folder: Some(out.to_owned()), architectures: targets.names() };
    let jobs: Vec<Job> = sources.iter().map(|source| job(root, &nvcc, source, &targets, &images)).collect();
    compile::run(&jobs, threads())?;
    Ok(images)
}

fn job(root: &Path, nvcc: &Path, source: &Source, targets: &Targets, images: &Images) -> Job {
    let output = images.of(source).unwrap_or_default();
    let depfile = output.with_extension("d");
    let mut command: Vec<String> = vec![nvcc.display().to_string()];
    command.extend(["-fatbin", "-std=c++17", "-O3", "-lineinfo", "-Xfatbin=-compress-all"].map(str::to_owned));
    command.push(format!("-I{}", root.join("kernels").display()));
    if source.is_hopper_only() {
        command.push("-gencode=arch=compute_90a,code=sm_90a".to_owned());
    } else {
        command.extend(targets.native.iter().map(|arch| format!("-gencode=arch=compute_{arch},code=sm_{arch}")));
        command.extend(targets.portable.iter().map(|arch| format!("-gencode=arch=compute_{arch},code=compute_{arch}")));
    }
    command.extend(["-MD".to_owned(), "-MF".to_owned(), depfile.display().to_string()]);
    command.extend(["-o".to_owned(), output.display().to_string(), source.path.display().to_string()]);
    Job { command, output, depfile }
}

fn parse(list: &str) -> Result<Vec<String>, String> {
    let architectures: Vec<String> = list.split(',').map(|arch| arch.trim().to_owned()).collect();
    let is_known = |arch: &String| {
        let digits = arch.trim_end_matches(['a', 'f']);
        digits.parse::<u32>().is_ok_and(|number| number >= 80) && arch.len() - digits.len() <= 1
    };
    match architectures.iter().find(|arch| !is_known(arch)) {
        None => Ok(architectures),
        Some(arch) => Err(format!("LOWKEY_CUDA_ARCHS: {arch:?}: expected numbers from 80, such as 80,90a")),
    }
}

/// What sources are compiled for.
struct Targets {
    /// Architectures with machine code.
    native: Vec<String>,
    /// The architecture whose PTX serves newer GPUs: the oldest without a letter.
    portable: Option<String>,
}

impl Targets {
    fn new(native: Vec<String>, ptx: bool) -> Self {
        let numbers = native.iter().filter_map(|arch| arch.parse::<u32>().ok());
        let portable = numbers.min().filter(|_| ptx).map(|oldest| oldest.to_string());
        Self { native, portable }
    }

    fn names(&self) -> Vec<String> {
        let images = self.native.iter().map(|arch| format!("sm_{arch}"));
        images.chain(self.portable.iter().map(|arch| format!("compute_{arch}"))).collect()
    }
}

/// nvcc, or why there is none that serves. A named one must serve; others are passed over.
fn find(root: &Path) -> Result<PathBuf, String> {
    if let Some(named) = watched("NVCC") {
        let nvcc = PathBuf::from(named);
        return version(&nvcc).and_then(|found| serves(&nvcc, found)).map(|()| nvcc);
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(watched).map(|home| PathBuf::from(home).join("bin/nvcc"));
    // PATH is not watched: it differs from shell to shell, and every change would compile the crate again.
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = env::split_paths(&path).map(|folder| folder.join("nvcc")).collect();
    let toolkit = root.join(".toolkit/nvidia/cu13/bin/nvcc");
    let mut reason = "nvcc was not found (tools/setup fetches it)".to_owned();
    for nvcc in homes.chain(on_path).chain([PathBuf::from("/usr/local/cuda/bin/nvcc"), toolkit]) {
        if !nvcc.is_file() {
            continue;
        }
        match version(&nvcc).and_then(|found| serves(&nvcc, found)) {
            Ok(()) => return Ok(nvcc),
            Err(refusal) => reason = refusal,
        }
    }
    Err(reason)
}

fn serves(nvcc: &Path, (major, minor): (u32, u32)) -> Result<(), String> {
    let (least, below) = OLDEST;
    if (major, minor) >= OLDEST {
        return Ok(());
    }
    Err(format!(
        "{} is version {major}.{minor}, and {least}.{below} or newer is needed (tools/setup fetches it)",
        nvcc.display()
    ))
}

fn version(nvcc: &Path) -> Result<(u32, u32), String> {
    let run = Command::new(nvcc).arg("--version").output();
    let run = run.map_err(|error| format!("{} does not run ({error})", nvcc.display()))?;
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let release = text.split("release ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("");
    let parts = release.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parts.ok_or_else(|| format!("{} --version says no version", nvcc.display()))
}
