"""Prints a report."""

import json

import check
from measure import Image

# Opcodes that a reader looks for, and what they are.
SHOWN = {
    "HMMA": "mma",
    "HGMMA": "wgmma",
    "LDSM": "ldmatrix",
    "LDGSTS": "cp.async",
    "UTMALDG": "TMA",
    "UBLKCP": "bulk copy",
    "FFMA": "f32 multiply-add",
    "DFMA": "f64 multiply-add",
    "MUFU": "special function",
    "LDG": "load",
    "STG": "store",
    "LDS": "shared load",
    "STS": "shared store",
    "SHFL": "shuffle",
    "BAR": "barrier",
}


# How much of it a block takes is known at launch.
OCCUPANCY_IGNORES = "dynamic shared memory"


def as_json(images: list[Image]) -> str:
    files = [
        {
            "source": image.source.label,
            "kernels": len(image.source.kernels),
            "image_bytes": image.figures["bytes"],
            "compile_seconds": image.figures["seconds"],
        }
        for image in images
    ]
    rows = [row for image in images for row in image.rows()]
    report = {"occupancy_ignores": OCCUPANCY_IGNORES, "kernels": rows, "files": files, "total": check.totals(images)}
    return json.dumps(report, indent=1)


def as_table(images: list[Image]) -> str:
    rows = [row for image in images for row in image.rows()]
    opcodes = [op for op in SHOWN if any(op in row["instructions"] for row in rows)]
    head = ["kernel", "arch", "threads", "registers", "shared", "stack", "spill", "blocks/SM", "occupancy", "code bytes"]
    lines = [[*head, *opcodes]]
    for row in rows:
        occupancy = "-" if row["occupancy"] is None else f"{row['occupancy']:.0%}"
        figures = [row[name] for name in ("max_threads", "registers", "shared_bytes", "stack_bytes", "spill_bytes")]
        cells = [row["name"], row["arch"], *figures, row["blocks_per_sm"] or "-", occupancy, row["image_bytes"]]
        lines.append([*cells, *(row["instructions"].get(op, 0) for op in opcodes)])
    files = [["file", "kernels", "image bytes", "compile seconds"]]
    for image in images:
        seconds = f"{image.figures['seconds']:.1f}"
        files.append([image.source.label, len(image.source.kernels), image.figures["bytes"], seconds])
    total = check.totals(images)
    legend = "; ".join(f"{op} {SHOWN[op]}" for op in opcodes)
    return "\n".join(
        [
            aligned(lines, left=2),
            "",
            f"shared: static, in bytes. blocks/SM and occupancy are upper bounds: they ignore {OCCUPANCY_IGNORES}, known at launch.",
            f"Instructions as they stand in the code, not as often as they run: {legend}.",
            "",
            aligned(files, left=1),
            "",
            f"{total['kernels']} kernels, {total['image_bytes']} bytes of compressed images for all architectures, "
            f"{total['compile_minutes']:.2f} processor minutes of nvcc",
        ]
    )


def aligned(lines: list[list], left: int) -> str:
    """Columns side by side, the first `left` of them to the left."""
    cells = [[str(cell) for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    pad = lambda i, cell: cell.ljust(widths[i]) if i < left else cell.rjust(widths[i])
    return "\n".join("  ".join(pad(i, cell) for i, cell in enumerate(line)).rstrip() for line in cells)
