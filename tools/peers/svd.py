#!/usr/bin/env python3
"""Batched truncated SVD beside PyTorch, NumPy and scikit-learn: times and errors, in one run.

Every method is pinned to one thread of one core and works on the same seeded matrices: random orthonormal factors around a
power law (s_i = i^-decay times a factor drawn between 0.8 and 1.25), plus white noise of `--noise` times the matrix's norm.
Runs are interleaved, so that a busy machine disturbs all methods alike; medians are printed.

The error is the Frobenius error over the least possible one, in f64; the worst matrix of the batch counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP", "MKL", "OPENBLAS", "RAYON"):
    os.environ[f"{name}_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--decay", type=float, default=1.0)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--core", type=int, help="core to pin to (default: the last one this process may use)")
    parser.add_argument("--quick", action="store_true", help="leave out the full decompositions")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    return parser.parse_args()


def imports():
    missing, found = [], {}
    for name, package in (("numpy", "numpy"), ("safetensors.numpy", "safetensors"), ("torch", "torch")):
        try:
            found[package] = __import__(name, fromlist=["_"])
        except ImportError:
            missing.append(package)
    if missing:
        sys.exit(f"error: cannot import {', '.join(missing)} (hint: pip install {' '.join(missing)} in a virtual environment)")
    try:
        from sklearn.utils.extmath import randomized_svd
    except ImportError:
        print("scikit-learn is not importable: its row is left out", file=sys.stderr)
        randomized_svd = None
    return found["numpy"], found["safetensors"], found["torch"], randomized_svd


def matrices(np, args):
    random = np.random.default_rng(args.seed)
    m, n = args.rows, args.columns
    k = min(m, n)
    batch = np.empty((args.batch, m, n), np.float32)
    for a in batch:
        left = np.linalg.qr(random.standard_normal((m, k)))[0]
        right = np.linalg.qr(random.standard_normal((n, k)))[0]
        s = np.arange(1, k + 1) ** -args.decay * random.uniform(0.8, 1.25, k)
        clean = left * s @ right.T
        noise = random.standard_normal((m, n))
        a[:] = clean + noise * (args.noise * np.linalg.norm(clean) / np.linalg.norm(noise))
    return batch


class Child:
    """Our side: one process that keeps its matrices, output and scratch between runs."""

    def __init__(self, batch, safetensors, folder):
        build = ["cargo", "build", "--release", "--quiet", "--example", "svd_peer", "--message-format=json-render-diagnostics"]
        lines = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
        program = next(a["executable"] for a in map(json.loads, lines) if a.get("target", {}).get("name") == "svd_peer")
        self.folder = folder
        safetensors.save_file({"a": batch}, str(folder / "a.safetensors"))
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask(f"load {folder / 'a.safetensors'}")

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        if not answer:
            sys.exit(f"error: svd_peer stopped at {line!r}")
        return answer

    def factors(self, safetensors):
        path = self.folder / "out.safetensors"
        self.ask(f"write {path}")
        out = safetensors.load_file(str(path))
        return out["u"], out["s"], out["v"]


def methods(np, torch, randomized_svd, batch, args):
    """Name -> function that factorizes the whole batch and returns (u, s, v), v being n x r."""
    rank, tensor = args.rank, torch.from_numpy(batch)

    def gram_eigh():
        values, vectors = torch.linalg.eigh(tensor.mT @ tensor)
        v = vectors[..., -rank:].flip(-1)
        s = values[..., -rank:].flip(-1).clamp_min(0).sqrt()
        return tensor @ v / s[..., None, :], s, v

    def lowrank():
        u, s, v = torch.svd_lowrank(tensor, q=rank + 10)
        return u[..., :rank], s[..., :rank], v[..., :rank]

    def full():
        u, s, vt = torch.linalg.svd(tensor, full_matrices=False)
        return u[..., :rank], s[..., :rank], vt.mT[..., :rank]

    def numpy_full():
        u, s, vt = np.linalg.svd(batch, full_matrices=False)
        return u[..., :rank], s[..., :rank], vt.swapaxes(-1, -2)[..., :rank]

    def sklearn():
        parts = [randomized_svd(a, rank, random_state=0) for a in batch]
        return tuple(np.stack(x) for x in (*list(zip(*parts))[:2], [p[2].T for p in parts]))

    table = {"torch gram + eigh": gram_eigh, f"torch svd_lowrank(q={rank + 10})": lowrank}
    if not args.quick:
        table |= {"torch svd": full, "numpy svd": numpy_full}
        if randomized_svd:
            table["sklearn randomized_svd"] = sklearn
    return table


def worst_error(np, batch, least, factors):
    u, s, v = (np.asarray(x, np.float64) for x in factors)
    errors = [np.linalg.norm(a - (u[i] * s[i]) @ v[i].T) for i, a in enumerate(batch.astype(np.float64))]
    return float(max(e / b for e, b in zip(errors, least)))


def main():
    args = arguments()
    np, safetensors, torch, randomized_svd = imports()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if args.core is None else args.core})
    torch.set_num_threads(1)
    batch = matrices(np, args)
    spectra = [np.linalg.svd(a.astype(np.float64), compute_uv=False) for a in batch]
    least = [np.linalg.norm(s[args.rank :]) for s in spectra]
    with tempfile.TemporaryDirectory() as folder:
        child = Child(batch, safetensors, Path(folder))
        peers = methods(np, torch, randomized_svd, batch, args)
        seconds = {name: [] for name in ["lowkey", *peers]}
        errors = {}
        # One unmeasured round warms caches and allocators.
        for run in range(args.runs + 1):
            elapsed = float(child.ask(f"time {args.rank}"))
            if run:
                seconds["lowkey"].append(elapsed)
            for name, method in peers.items():
                start = time.perf_counter()
                factors = method()
                if run:
                    seconds[name].append(time.perf_counter() - start)
                else:
                    errors[name] = worst_error(np, batch, least, factors)
        errors["lowkey"] = worst_error(np, batch, least, child.factors(safetensors))
    report(args, torch, seconds, errors)


def report(args, torch, seconds, errors):
    median = {name: statistics.median(s) for name, s in seconds.items()}
    rows = [
        {
            "method": name,
            "seconds": {"median": median[name], "min": min(s), "max": max(s), "runs": len(s)},
            "error_ratio": errors[name],
            "times_lowkey": median[name] / median["lowkey"],
        }
        for name, s in sorted(seconds.items(), key=lambda item: median[item[0]])
    ]
    case = f"{args.batch} x ({args.rows} x {args.columns}) f32, rank {args.rank}, decay {args.decay}, noise {args.noise}"
    if args.format == "json":
        print(json.dumps({"case": case, "seed": args.seed, "torch": torch.__version__, "threads": 1, "rows": rows}, indent=2))
        return
    print(f"{case}; one thread; medians of {args.runs} interleaved runs; torch {torch.__version__}")
    print(f"{'method':28}{'median ms':>11}{'min':>9}{'max':>9}{'x lowkey':>10}{'error / least':>15}")
    for row in rows:
        s = row["seconds"]
        times = "".join(f"{1e3 * s[k]:{w}.1f}" for k, w in (("median", 11), ("min", 9), ("max", 9)))
        print(f"{row['method']:28}{times}{row['times_lowkey']:10.2f}{row['error_ratio']:15.6f}")


if __name__ == "__main__":
    main()
