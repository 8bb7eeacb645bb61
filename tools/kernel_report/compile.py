"""Compiles sources with nvcc, reads what it made, and keeps the results."""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import measure
from sources import Refusal, Source

OLDEST = (13, 0)
FLAGS = ["-fatbin", "-std=c++17", "-O3", "-lineinfo", "-Xfatbin=-compress-all", "-Xptxas=-v"]
# What is kept is read by this version of the tool only.
TOOL = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


@dataclass
class Tools:
    """The programs that make and read images."""

    nvcc: Path
    version: str
    cuobjdump: Path
    nvdisasm: Path

    @classmethod
    def find(cls, root: Path) -> "Tools":
        toolkit = root / ".toolkit/nvidia/cu13/bin"
        nvcc, version = find_nvcc(toolkit)
        return cls(nvcc, version, *(find_reader(name, nvcc, toolkit) for name in ("cuobjdump", "nvdisasm")))


def find_reader(name: str, nvcc: Path, toolkit: Path) -> Path:
    """A program that reads images: the one beside nvcc, else any."""
    on_path = shutil.which(name)
    places = [nvcc.resolve().parent / name, toolkit / name, *([Path(on_path)] if on_path else [])]
    for place in places:
        if place.is_file():
            return place
    raise Refusal(f"{name} is neither beside {nvcc} nor in PATH nor under .toolkit (tools/setup fetches it)")


def find_nvcc(toolkit: Path) -> tuple[Path, str]:
    """The nvcc that the build would take: a named one, else the first that is new enough."""
    named = os.environ.get("NVCC")
    homes = [Path(home) / "bin/nvcc" for name in ("CUDA_HOME", "CUDA_PATH") if (home := os.environ.get(name))]
    path = [Path(folder) / "nvcc" for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    places = [Path(named)] if named else [*homes, *path, Path("/usr/local/cuda/bin/nvcc"), toolkit / "nvcc"]
    refusal = f"NVCC={named} is no file" if named else "nvcc was not found (tools/setup fetches it)"
    for place in places:
        if not place.is_file():
            continue
        text = subprocess.run([place, "--version"], capture_output=True, text=True).stdout
        release = re.search(r"release (\d+)\.(\d+), V(\S+)", text)
        if release and (int(release[1]), int(release[2])) >= OLDEST:
            return place, release[3]
        refusal = f"{place} is not of version {OLDEST[0]}.{OLDEST[1]} or newer (tools/setup fetches one)"
    raise Refusal(refusal)


def images(sources: list[Source], tools: Tools, args: argparse.Namespace) -> list[measure.Image]:
    """What became of every source, compiled where nothing is kept."""
    args.cache.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(args.jobs, 1)) as pool:
        return list(pool.map(lambda source: image(source, tools, args), sources))


def image(source: Source, tools: Tools, args: argparse.Namespace) -> measure.Image:
    command = command_of(source, tools, args.include, source.targets())
    return measure.Image(source, kept(source, tools, args.cache, command, "", build))


def command_of(source: Source, tools: Tools, include: Path, targets: list[str]) -> list[str]:
    return [str(tools.nvcc), *FLAGS, f"-I{include}", *(f"-gencode={target}" for target in targets), str(source.path)]


def kept(source: Source, tools: Tools, cache: Path, command: list[str], kind: str, make) -> dict:
    """What `make` finds of a source, and the files it was made from: from an earlier run where nothing has changed."""
    name = hashlib.sha256(str(source.path).encode()).hexdigest()[:16]
    path = cache / f"{source.path.stem}-{name}{kind}.json"
    key = {"command": command, "nvcc": tools.version, "tool": TOOL}
    found = read_kept(path, key)
    if found is None:
        found, inputs = make(source, tools, command)
        text = json.dumps({**key, "inputs": hashes(inputs), "image": found})
        staged = path.with_suffix(f".{os.getpid()}")
        staged.write_text(text)
        staged.replace(path)
    return found


def read_kept(kept: Path, key: dict) -> dict | None:
    """The result of an earlier run, when everything it depends on is as it was."""
    try:
        record = json.loads(kept.read_text())
        same = all(record[name] == value for name, value in key.items())
        return record["image"] if same and hashes(record["inputs"]) == record["inputs"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def hashes(paths) -> dict[str, str]:
    return {str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}


def build(source: Source, tools: Tools, command: list[str]) -> tuple[dict, list[str]]:
    """Figures of one source, and the files that it was made from."""
    with tempfile.TemporaryDirectory() as scratch:
        fatbin, log, seconds, inputs = compiled(tools, command, scratch)
        sass, _ = run([str(tools.cuobjdump), "-sass", str(fatbin)])
        code = {arch: measure.code_bytes(cubin.read_bytes()) for arch, cubin in cubins(tools, fatbin).items()}
        figures = {
            "bytes": fatbin.stat().st_size,
            "seconds": seconds,
            "usage": measure.usage(log),
            "instructions": measure.instructions(sass),
            "code": code,
        }
    return figures, inputs


def disassembled(source: Source, tools: Tools, command: list[str]) -> tuple[dict, list[str]]:
    """Registers and memory of one source compiled for one architecture, and its code with lines and encodings."""
    with tempfile.TemporaryDirectory() as scratch:
        fatbin, log, _, inputs = compiled(tools, command, scratch)
        texts = [run([str(tools.nvdisasm), "-gi", "-hex", "-c", str(cubin)])[0] for cubin in cubins(tools, fatbin).values()]
        return {"usage": measure.usage(log), "sass": "".join(texts)}, inputs


def compiled(tools: Tools, command: list[str], scratch: str) -> tuple[Path, str, float, list[str]]:
    """The image that a command makes, what the compiler says, its seconds, and the files that it read."""
    fatbin, rule = Path(scratch) / "image.fatbin", Path(scratch) / "image.d"
    log, seconds = run([*command, "-MD", "-MF", str(rule), "-o", str(fatbin)])
    # Headers of the toolkit belong to its version.
    inputs = rule.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    toolkit = tools.nvcc.resolve().parents[1]
    is_ours = lambda path: not Path(path).resolve().is_relative_to(toolkit) and not path.startswith("/usr/")
    return fatbin, log, seconds, [path for path in inputs if is_ours(path)]


def cubins(tools: Tools, fatbin: Path) -> dict[str, Path]:
    """The machine code in an image by architecture."""
    run([str(tools.cuobjdump), "-xelf", "all", str(fatbin)], str(fatbin.parent))
    found = {}
    for cubin in sorted(fatbin.parent.glob("*.cubin")):
        arch = re.search(r"\.(sm_\w+)\.cubin$", cubin.name)
        found[arch[1] if arch else cubin.stem] = cubin
    return found


def run(command: list[str], folder: str | None = None) -> tuple[str, float]:
    """Output of a command, stderr included, and the processor seconds that it took with all it started."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        raise Refusal(f"{' '.join(command)}\n{text.strip()}")
    return text, round(used.ru_utime + used.ru_stime, 3)
