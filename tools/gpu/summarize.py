#!/usr/bin/env python3
"""What run.sh left, as one JSON and one page: summarize.py RESULTS. Needs Python's standard library alone.

--gpu DOCTOR.json     says whether `kvbench doctor` found a usable GPU, and exits 1 with the remedy when it did not
--import RESULTS ROOT files results under ROOT/bench-results and a conformance record under ROOT/kernels/conformance
"""

import json
import re
import sys
from pathlib import Path


def load(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def report_gpu(path):
    findings = (load(Path(path)) or {}).get("findings", [])
    by_name = {finding["what"]: finding for finding in findings}
    gpu = by_name.get("gpu", {"state": "gap", "found": "kvbench doctor says nothing about a GPU", "remedy": "run ./kvbench doctor"})
    if gpu["state"] == "ok":
        print(f"{gpu['found']}; {by_name['driver']['found']}")
        return 0
    print(f"{gpu['found']}\n  -> {gpu['remedy']}")
    return 1


def parts(results):
    """Each part's state ("ran", or why not: "absent", "refused"), exit code, seconds and last lines."""
    found = {}
    for status in sorted(results.glob("*.status")):
        fate, seconds = status.read_text().split()
        code = int(fate) if fate.isdigit() else None
        log = results / f"{status.stem}.log"
        tail = log.read_text(errors="replace").splitlines()[-15:] if log.is_file() else []
        state = fate if code is None else "ran"
        found[status.stem] = {"state": state, "exit": code, "seconds": int(seconds), "tail": tail}
    return found


def counts(lines):
    """libtest's own totals."""
    total = {"passed": 0, "failed": 0}
    for line in lines:
        match = re.search(r"test result: .*?(\d+) passed; (\d+) failed", line)
        if match:
            total["passed"] += int(match[1])
            total["failed"] += int(match[2])
    return total


def collect(results):
    documents = {path.stem: load(path) for path in sorted(results.glob("bench-*.json"))}
    rows = [row for document in documents.values() if document for row in document["rows"]]
    skipped = [case for document in documents.values() if document for case in document.get("skipped", [])]
    device = next((document["device"] for document in documents.values() if document), None)
    ran = parts(results)
    smi = results / "nvidia-smi.txt"
    return {
        "schema": 1,
        "bundle": load(results / "bundle.json"),
        "gpu": next(iter(smi.read_text().splitlines()), None) if smi.is_file() else None,
        "device": device,
        "parts": ran,
        "tests": counts(ran.get("tests", {}).get("tail", [])),
        "conformance": counts(ran.get("conformance", {}).get("tail", [])),
        "rows": rows,
        "skipped": skipped,
        "peers": load(results / "peers.json"),
    }


def gpu_name(result):
    """The first column of nvidia-smi's row, where it gave one."""
    return (result["gpu"] or "").split(",")[0]


def microseconds(seconds):
    return "" if seconds is None else f"{seconds * 1e6:.1f}"


def page(result):
    bundle = result["bundle"] or {}
    lines = [f"# lowkey on {gpu_name(result) or 'an unknown GPU'}", "", f"Commit {bundle.get('commit', '?')}, bundle of {bundle.get('made', '?')}.", ""]
    lines += ["| part | state | exit | seconds |", "|---|---|---|---|"]
    for name, part in result["parts"].items():
        code = "" if part["exit"] is None else part["exit"]
        lines.append(f"| {name} | {part['state']} | {code} | {part['seconds']} |")
    lines += ["", f"Tests: {result['tests']['passed']} passed, {result['tests']['failed']} failed.", ""]
    lines += ["| case | verified | us | GB/s | of roofline | ratio to baseline |", "|---|---|---|---|---|---|"]
    for row in result["rows"]:
        seconds = (row.get("seconds") or {}).get("median")
        speed = f"{row['bytes'] / seconds / 1e9:.0f}" if seconds else ""
        fraction = (row.get("roofline") or {}).get("fraction")
        ratio = (row.get("baseline") or {}).get("ratio")
        cells = [row["case"], "yes" if row["verified"] else "NO", microseconds(seconds), speed]
        cells += [f"{fraction:.2f}" if fraction else "", f"{ratio:.2f}" if ratio else ""]
        lines.append("| " + " | ".join(cells) + " |")
    if result["skipped"]:
        lines += ["", "Skipped:", ""] + [f"- {case['case']}: {case['reason']}" for case in result["skipped"]]
    peers = (result["peers"] or {}).get("rows", [])
    if peers:
        lines += ["", "| peer's workload | by | us | relative error |", "|---|---|---|---|"]
        lines += [f"| {row['workload']} | {row['by']} | {microseconds(row['seconds'])} | {row.get('error', '')} |" for row in peers]
    return "\n".join(lines) + "\n"


def file_results(results, root):
    result = load(results / "result.json")
    if result is None:
        sys.exit(f"error: {results}/result.json is missing or no JSON (hint: run.sh writes it last)")
    gpu = re.sub(r"[^a-z0-9]+", "-", (gpu_name(result) or "gpu").lower()).strip("-")
    bundle = result["bundle"] or {}
    stem = f"{bundle.get('made', 'undated')}-{gpu}-{bundle.get('commit', 'unknown')[:12]}"
    kept = root / "bench-results"
    kept.mkdir(exist_ok=True)
    for name, text in ((f"{stem}.json", json.dumps(result, indent=1) + "\n"), (f"{stem}.md", page(result))):
        (kept / name).write_text(text)
        print(kept / name)
    record = load(results / "conformance-record.json")
    if record is not None:
        path = root / "kernels" / "conformance" / f"{gpu}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(path)
    return 0


def main(arguments):
    if arguments[:1] == ["--gpu"] and len(arguments) == 2:
        return report_gpu(arguments[1])
    if arguments[:1] == ["--import"] and len(arguments) == 3:
        return file_results(Path(arguments[1]), Path(arguments[2]))
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit(__doc__)
    results = Path(arguments[0])
    result = collect(results)
    (results / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    text = page(result)
    (results / "summary.md").write_text(text)
    print(text)
    failed = [name for name, part in result["parts"].items() if part["exit"]]
    return 1 if failed or result["tests"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
