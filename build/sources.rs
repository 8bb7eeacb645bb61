//! The kernels as their sources declare them: one `KERNEL(name, Params, max_threads)` line each.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::nvcc::Images;

/// One `.cu` file of a folder under `kernels/`.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// The folder, which is an operation's name.
    pub(crate) folder: String,
    /// The file's name without its ending.
    pub(crate) stem: String,
    pub(crate) kernels: Vec<Kernel>,
}

/// One instantiation.
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) params: String,
    pub(crate) max_threads: u32,
}

impl Source {
    /// Every source below `kernels`, in the order of their names.
    pub(crate) fn find(kernels: &Path) -> Result<Vec<Self>, String> {
        let mut sources = Vec::new();
        for folder in entries(kernels)?.into_iter().filter(|path| path.is_dir()) {
            for path in entries(&folder)? {
                if path.extension().is_some_and(|ending| ending == "cu") {
                    sources.push(Self::read(path)?);
                }
            }
        }
        let mut names = BTreeMap::new();
        for source in &sources {
            for kernel in &source.kernels {
                if let Some(other) = names.insert(&kernel.name, &source.path) {
                    let (name, here) = (&kernel.name, source.path.display());
                    return Err(format!("{here}: kernel {name} is in {} as well", other.display()));
                }
            }
        }
        Ok(sources)
    }

    fn read(path: PathBuf) -> Result<Self, String> {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = |part: Option<&std::ffi::OsStr>| part.map_or_else(String::new, |part| part.to_string_lossy().into_owned());
        let (folder, stem) = (name(path.parent().and_then(Path::file_name)), name(path.file_stem()));
        let lines = text.lines().enumerate().filter(|(_, line)| line.starts_with("KERNEL("));
        let kernels = lines
            .map(|(number, line)| {
                Kernel::read(line, &folder).map_err(|error| format!("{}:{}: {error}", path.display(), number + 1))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if kernels.is_empty() {
            return Err(format!("{}: no line begins with KERNEL(name, Params, max_threads)", path.display()));
        }
        Ok(Self { path, folder, stem, kernels })
    }

    /// The file, relative to `kernels/`.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}.cu", self.folder, self.stem)
    }

    /// Whether it is written for compute capability 9.0a alone.
    pub(crate) fn is_hopper_only(&self) -> bool {
        self.stem.ends_with("_sm90")
    }
}

impl Kernel {
    fn read(line: &str, folder: &str) -> Result<Self, String> {
        let inside = line.strip_prefix("KERNEL(").and_then(|rest| rest.split_once(')')).map(|(inside, _)| inside);
        let parts: Vec<&str> = inside.unwrap_or("").split(',').map(str::trim).collect();
        let [name, params, threads] = parts[..] else {
            return Err(format!("{line}: expected KERNEL(name, Params, max_threads)"));
        };
        let max_threads = threads.parse().map_err(|_| format!("{threads}: max_threads is a literal number"))?;
        if !name.starts_with(&format!("{folder}_")) {
            return Err(format!("{name}: a kernel's name begins with its folder's, {folder}_"));
        }
        Ok(Self { name: name.to_owned(), params: params.to_owned(), max_threads })
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = read.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    Ok(paths)
}

/// For each folder, a Rust file with a typed handle for each of its kernels.
pub(crate) fn handles(sources: &[Source]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::<String, String>::new();
    let mut index = 0;
    for source in sources {
        let file = files.entry(source.folder.clone()).or_default();
        for kernel in &source.kernels {
            let (constant, name, params) = (kernel.name.to_uppercase(), &kernel.name, &kernel.params);
            let _ = writeln!(file, "/// `{name}` of `kernels/{}`.", source.label());
            let _ = writeln!(file, "pub(crate) const {constant}: Kernel<{params}> = Kernel::new({index});");
            index += 1;
        }
    }
    files
}

/// The table of all kernels and the images of their sources.
pub(crate) fn table(sources: &[Source], images: &Images) -> String {
    let mut kernels = String::new();
    let mut rows = String::new();
    for (image, source) in sources.iter().enumerate() {
        let label = source.label();
        for Kernel { name, max_threads, .. } in &source.kernels {
            let _ = writeln!(
                kernels,
                "    KernelInfo {{ name: {name:?}, source: {label:?}, max_threads: {max_threads}, image: {image} }},"
            );
        }
        let fatbin = images.of(source).map_or_else(|| "&[]".to_owned(), |path| format!("include_bytes!({path:?})"));
        let _ = writeln!(rows, "    Image {{ source: {label:?}, fatbin: {fatbin} }},");
    }
    let architectures = images.architectures.join("\", \"");
    let architectures = if architectures.is_empty() { String::new() } else { format!("\"{architectures}\"") };
    format!(
        "pub(crate) static KERNELS: &[KernelInfo] = &[\n{kernels}];\n\n\
         #[cfg(feature = \"cuda\")]\npub(crate) static IMAGES: &[Image] = &[\n{rows}];\n\n\
         pub(crate) static ARCHITECTURES: &[&str] = &[{architectures}];\n"
    )
}
