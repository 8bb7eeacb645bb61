"""Holds a report to what is allowed: allowances.txt and budget.txt beside the kernels."""

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

from measure import Image
from sources import Refusal

BUDGETS = {"image_bytes": int, "compile_minutes": float, "kernels": int}


@dataclass
class Allowance:
    """`kernel arch stack<=BYTES reason` or `kernel arch spill<=BYTES reason`; kernel and arch may have *."""

    line: int
    kernel: str
    arch: str
    what: str
    bytes: int
    is_needed: bool = False

    def covers(self, row: dict, what: str) -> bool:
        named = fnmatch.fnmatchcase(row["name"], self.kernel) and fnmatch.fnmatchcase(row["arch"], self.arch)
        return named and self.what == what and row[f"{what}_bytes"] <= self.bytes


def findings(images: list[Image], kernels: Path, whole: bool) -> list[str]:
    """Everything that is not as it should be. Budgets and allowances that nothing needs are matters of `whole` runs."""
    found = [stranger for image in images for stranger in image.strangers()]
    allowances = read_allowances(kernels / "allowances.txt")
    for row in (row for image in images for row in image.rows()):
        for what in ("stack", "spill"):
            if row[f"{what}_bytes"] == 0:
                continue
            covering = [allowance for allowance in allowances if allowance.covers(row, what)]
            for allowance in covering:
                allowance.is_needed = True
            if not covering:
                size = f"{row[f'{what}_bytes']} bytes"
                means = f"has a stack frame of {size}" if what == "stack" else f"spills {size}"
                where = f"{row['source']}: {row['name']}"
                found.append(f"{where} {means} on {row['arch']}, which allowances.txt does not list")
    if whole:
        compiled = {arch for image in images for arch in image.source.architectures()}
        unused = [a for a in allowances if not a.is_needed and fnmatch.filter(compiled, a.arch)]
        found += [f"allowances.txt:{a.line}: nothing needs it any more" for a in unused]
        found += over_budget(totals(images), read_budget(kernels / "budget.txt"))
    return found


def totals(images: list[Image]) -> dict:
    return {
        "image_bytes": sum(image.figures["bytes"] for image in images),
        "compile_minutes": round(sum(image.figures["seconds"] for image in images) / 60, 3),
        "kernels": sum(len(image.source.kernels) for image in images),
    }


def over_budget(spent: dict, budget: dict) -> list[str]:
    broken = {name: most for name, most in budget.items() if spent[name] > most}
    return [f"{name}: {spent[name]}, over the {most} of budget.txt" for name, most in broken.items()]


def entries(path: Path) -> list[tuple[int, str]]:
    """Lines with something on them but a comment."""
    if not path.is_file():
        return []
    lines = enumerate(path.read_text().splitlines(), 1)
    return [(number, line.strip()) for number, line in lines if line.strip() and not line.strip().startswith("#")]


def read_allowances(path: Path) -> list[Allowance]:
    allowances = []
    for number, line in entries(path):
        parts = re.fullmatch(r"(\S+)\s+(\S+)\s+(stack|spill)<=(\d+)\s+(\S.*)", line)
        if not parts:
            raise Refusal(f"{path}:{number}: expected KERNEL ARCH stack<=BYTES|spill<=BYTES REASON, found {line!r}")
        allowances.append(Allowance(number, parts[1], parts[2], parts[3], int(parts[4])))
    return allowances


def read_budget(path: Path) -> dict:
    budget = {}
    for number, line in entries(path):
        name, _, value = line.partition(" ")
        try:
            budget[name] = BUDGETS[name](value)
        except (KeyError, ValueError):
            names = ", ".join(BUDGETS)
            raise Refusal(f"{path}:{number}: expected one of {names} and a number, found {line!r}") from None
    if missing := [name for name in BUDGETS if name not in budget]:
        raise Refusal(f"{path}: no budget for {', '.join(missing)}")
    return budget
