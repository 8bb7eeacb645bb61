"""Prints budgets."""

import json

from show import aligned

UNITS = ["l2", "issue", "tensor", "fp64", "fma", "alu", "special", "shared", "global"]
MISSED = 0.25  # a measured time further off than this share is marked


def rows(budgets: list) -> list[dict]:
    """A row for each launch, in microseconds."""
    found = []
    for launch, resident, times in budgets:
        units = {f"{unit}_us": times.units.get(unit, 0) * 1e6 for unit in UNITS[1:]}
        figures = {"memory_us": times.memory * 1e6, "l2_us": times.l2 * 1e6, **units, "latency_us": times.latency * 1e6}
        found.append(
            {
                "kernel": launch.kernel,
                "blocks": launch.blocks,
                "active": launch.active,
                "blocks_per_sm": resident,
                "bytes": round(launch.reads + launch.writes),
                **{name: round(value, 2) for name, value in figures.items()},
                "bound": times.bound,
                "budget_us": round(times.budget * 1e6, 2),
                "block_cycles": round(times.cycles),
                "loops": times.loops,
            }
        )
    return found


def as_json(document: dict) -> str:
    return json.dumps(document, indent=1)


def as_table(document: dict) -> str:
    units = [unit for unit in UNITS if any(row[f"{unit}_us"] >= 0.1 for row in document["kernels"])]
    lines = [["kernel", "bound", "blocks", "/SM", "MB", "memory", *units, "latency", "budget us", "measured"]]
    for row in document["kernels"]:
        name = row["kernel"] if row["active"] == 1 else f"{row['kernel']} ({row['active']:.0%} of blocks)"
        times = [f"{row[f'{column}_us']:.1f}" for column in ("memory", *units, "latency", "budget")]
        lines.append([name, row["bound"], row["blocks"], row["blocks_per_sm"], f"{row['bytes'] / 1e6:.1f}", *times, "-"])
    measured = "-"
    if document["measured_us"] is not None:
        measured = f"{document['measured_us']:.1f}" + (" (missed)" if document["missed"] else "")
    empty = [""] * (len(lines[0]) - 3)
    lines.append(["sum", *empty, f"{document['budget_us']:.1f}", measured])
    shape = ", ".join(f"{name} {value}" for name, value in document["shape"].items())
    head = f"{document['op']}: {shape}; {document['gpu']}. All times in microseconds."
    return f"{head}\n\n{aligned(lines, left=2)}"


def loops_table(row: dict) -> str:
    """Where the time of one block goes."""
    lines = [["loop", "address", "trips", "cycles per entry"]]
    lines += [["  " * at["depth"] + at["loop"], at["address"], at["trips"], f"{at['cycles']:.0f}"] for at in row["loops"]]
    return f"{row['kernel']}: {row['block_cycles']} cycles for a block alone\n\n{aligned(lines, left=2)}"


def measured(document: dict, op: str, shape: dict, usual: dict) -> float | None:
    """Seconds that a kvbench result has for this case on a GPU; None when it does not have it. What a result does not
    name is as `usual`."""
    for row in document["rows"]:
        asked = {**usual, **row["params"], "dtype": row["dtype"]}
        same = row["op"] == op and all(str(asked.get(name)) == str(value) for name, value in shape.items())
        if same and row["device"].startswith("cuda") and row["seconds"]:
            return row["seconds"]["median"]
    return None


def total(op: str, gpu: str, shape: dict, budgets: list, seconds: float | None) -> dict:
    found = rows(budgets)
    budget = sum(times.budget for _, _, times in budgets)
    missed = seconds is not None and abs(seconds / budget - 1) > MISSED
    return {
        "op": op,
        "gpu": gpu,
        "shape": shape,
        "kernels": found,
        "budget_us": round(budget * 1e6, 2),
        "measured_us": None if seconds is None else round(seconds * 1e6, 2),
        "missed": missed,
    }
