"""The kernels as their sources declare them, one `KERNEL(name, Params, max_threads)` line each."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

# As build/nvcc.rs has them; code for the oldest without a letter is kept as PTX too, unless LOWKEY_CUDA_PTX is off.
ARCHITECTURES = "80,90,100,120"


class Refusal(Exception):
    """Something that keeps the report from being made."""


@dataclass
class Source:
    """One .cu file."""

    path: Path
    label: str
    # Threads of a block at most, by kernel.
    kernels: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, kernels: Path) -> "Source":
        source = cls(path, path.relative_to(kernels).as_posix())
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.startswith("KERNEL("):
                continue
            parts = re.match(r"KERNEL\((\w+),\s*(\w+),\s*(\d+)\)", line)
            if not parts:
                raise Refusal(f"{path}:{number}: expected KERNEL(name, Params, max_threads)")
            source.kernels[parts[1]] = int(parts[3])
        return source

    def targets(self) -> list[str]:
        """The -gencode options of this file, as the build has them."""
        if self.path.stem.endswith("_sm90"):
            return ["arch=compute_90a,code=sm_90a"]
        listed = [arch.strip() for arch in (os.environ.get("LOWKEY_CUDA_ARCHS") or ARCHITECTURES).split(",")]
        portable = sorted((arch for arch in listed if arch.isdigit()), key=int)[:1]
        if os.environ.get("LOWKEY_CUDA_PTX") == "off":
            portable = []
        return [f"arch=compute_{arch},code=sm_{arch}" for arch in listed] + [
            f"arch=compute_{arch},code=compute_{arch}" for arch in portable
        ]

    def architectures(self) -> list[str]:
        """The architectures that have machine code."""
        codes = [target.split("code=")[1] for target in self.targets()]
        return [code for code in codes if code.startswith("sm_")]


def find_sources(kernels: Path, only: str) -> list[Source]:
    """Every source below `kernels`, in the order of their names."""
    sources = [Source.read(path, kernels) for path in sorted(kernels.glob("*/*.cu"))]
    sources = [source for source in sources if only in source.label]
    if not sources:
        raise Refusal(f"no kernels in {kernels}" + (f" have {only!r} in their path" if only else ""))
    return sources
