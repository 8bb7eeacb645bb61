#!/usr/bin/env python3
"""Batched truncated SVD beside PyTorch, NumPy, scikit-learn and faer: times and errors, in one run.

Every method is pinned to the same cores and works on the same seeded matrices: random orthonormal factors around a power law
(s_i = i^-decay, times a factor drawn between 0.8 and 1.25 with --jitter), plus white noise of --noise times the matrix's norm.
Runs are interleaved, so that a busy machine disturbs all methods alike; medians are printed. Peers that take no 16-bit
matrices cast them to f32 within the time. The error is the Frobenius error over the least possible one at that rank, in f64
against what the dtype holds; the worst matrix of the batch counts.

Methods with settings (scikit-learn, svd_lowrank) are tried at each of them on the first matrix: what is timed is the usual
setting, and the cheapest one whose error is no worse than ours.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "batch": {"batch": 64, "rows": 2048, "columns": 128, "rank": 32, "decay": 1.0, "noise": 0.01, "jitter": True},
    "large": {"batch": 1, "rows": 2048, "columns": 2048, "rank": 256, "decay": 0.7, "noise": 0.0, "jitter": False},
}
# How much worse than ours an error may be and still count as no worse.
SAME = 1e-4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="batch", help="sizes and spectrum; the flags below change them")
    for name, kind in (("batch", int), ("rows", int), ("columns", int), ("rank", int), ("decay", float), ("noise", float)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--jitter", action=argparse.BooleanOptionalAction)
    parser.add_argument("--dtype", choices=("f32", "f16", "bf16"), default="f32")
    parser.add_argument("--mode", choices=("safe", "fast"), default="safe", help="of ours")
    parser.add_argument("--output", choices=("usv", "latent", "qb"), default="usv", help="of ours")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, for all but NumPy and scikit-learn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", help="cores to pin to, as 0,1 (default: the last ones this process may use)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="leave out the full decompositions")
    parser.add_argument("--scaling", action="store_true", help="ours alone, on one thread and on two, beside a multiply-add loop")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    args = parser.parse_args()
    for name, value in CASES[args.case].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.runs < 1 or args.threads < 1:
        parser.error("--runs and --threads must be at least 1")
    return args


def pin(args):
    """Pins this process, and so its children, to as many cores as there are threads; libraries read their counts when imported."""
    threads = 2 if args.scaling else args.threads
    allowed = sorted(os.sched_getaffinity(0))
    cores = [int(core) for core in args.cores.split(",")] if args.cores else allowed[-threads:]
    if len(cores) < threads:
        sys.exit(f"error: {threads} threads on {len(cores)} cores")
    os.sched_setaffinity(0, cores)
    for name in ("OMP", "MKL", "OPENBLAS", "RAYON"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)


def imports():
    missing, found = [], []
    for name, package in (("numpy", "numpy"), ("safetensors.torch", "safetensors"), ("torch", "torch")):
        try:
            found.append(__import__(name, fromlist=["_"]))
        except ImportError:
            missing.append(package)
    if missing:
        sys.exit(f"error: cannot import {', '.join(missing)} (hint: pip install {' '.join(missing)} in a virtual environment)")
    try:
        from sklearn.utils.extmath import randomized_svd
    except ImportError:
        print("scikit-learn is not importable: its rows are left out", file=sys.stderr)
        randomized_svd = None
    return *found, randomized_svd


def matrices(np, args):
    random = np.random.default_rng(args.seed)
    m, n = args.rows, args.columns
    k = min(m, n)
    batch = np.empty((args.batch, m, n), np.float32)
    for a in batch:
        left = np.linalg.qr(random.standard_normal((m, k)))[0]
        right = np.linalg.qr(random.standard_normal((n, k)))[0]
        s = np.arange(1, k + 1) ** -args.decay * (random.uniform(0.8, 1.25, k) if args.jitter else 1.0)
        clean = left * s @ right.T
        if args.noise:
            noise = random.standard_normal((m, n))
            clean += noise * (args.noise * np.linalg.norm(clean) / np.linalg.norm(noise))
        a[:] = clean
    return batch


class Child:
    """Our side: one process that keeps its matrices, output and scratch between runs."""

    def __init__(self, args, folder):
        build = ["cargo", "build", "--release", "--quiet", "--example", "svd_peer", "--message-format=json-render-diagnostics"]
        everywhere = os.environ | {"RAYON_NUM_THREADS": str(os.cpu_count())}
        lines = subprocess.run(build, cwd=ROOT, env=everywhere, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
        program = next(a["executable"] for a in map(json.loads, lines) if a.get("target", {}).get("name") == "svd_peer")
        self.folder = folder
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask(f"device {args.device}")
        self.ask(f"options {args.threads} {args.mode} {args.output}")

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        if not answer or answer.startswith("refused: "):
            raise RuntimeError(f"svd_peer, {line!r}: {answer or 'it stopped'}")
        return answer

    def load(self, safetensors, **tensors):
        path = self.folder / "in.safetensors"
        safetensors.save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(path))
        self.ask(f"load {path}")
        path.unlink()

    def factors(self, safetensors, output):
        path = self.folder / "out.safetensors"
        self.ask(f"write {path}")
        out = safetensors.load_file(str(path))
        s = out["s"] if output == "usv" else out["u"].new_ones(out["u"].shape[0], out["u"].shape[-1])
        return out["u"], s, out["v"]


class Peers:
    """What others do, each a function of a batch that returns (u, s, v), v being n x r."""

    def __init__(self, np, torch, randomized_svd, args):
        self.np, self.torch, self.randomized_svd, self.rank = np, torch, randomized_svd, args.rank

    def cut(self, u, s, vt):
        r = self.rank
        return u[..., :r], s[..., :r], vt[..., :r, :].mT

    def gram_eigh(self, a):
        a, r = a.float(), self.rank
        values, vectors = self.torch.linalg.eigh(a.mT @ a)
        v, s = vectors[..., -r:].flip(-1), values[..., -r:].flip(-1).clamp_min(0).sqrt()
        return a @ v / s[..., None, :], s, v

    def lowrank(self, a, extra=10, rounds=2):
        u, s, v = self.torch.svd_lowrank(a.float(), q=min(self.rank + extra, *a.shape[-2:]), niter=rounds)
        return u[..., : self.rank], s[..., : self.rank], v[..., : self.rank]

    def full(self, a, driver=None):
        return self.cut(*self.torch.linalg.svd(a.float(), full_matrices=False, driver=driver))

    def numpy(self, a):
        parts = self.np.linalg.svd(a.float().cpu().numpy(), full_matrices=False)
        return self.cut(*map(self.torch.from_numpy, parts))

    def sklearn(self, a, extra=10, rounds="auto", normalizer="auto"):
        settings = {"n_oversamples": extra, "n_iter": rounds, "power_iteration_normalizer": normalizer, "random_state": 0}
        parts = [self.randomized_svd(one, self.rank, **settings) for one in a.float().cpu().numpy()]
        return self.cut(*(self.torch.from_numpy(self.np.stack(part)) for part in zip(*parts)))

    def table(self, args):
        """Methods at their usual settings, by name."""
        table = {"torch gram + eigh": self.gram_eigh, f"torch svd_lowrank(q={args.rank + 10})": self.lowrank}
        if args.device != "cpu":
            table |= {f"cuSOLVER {name}": lambda a, name=name: self.full(a, name) for name in ("gesvda", "gesvdj")}
        elif not args.quick:
            table["torch svd"] = self.full
        if not args.quick:
            table["numpy svd"] = self.numpy
        if self.randomized_svd:
            table["sklearn randomized_svd"] = self.sklearn
        return table

    def settings(self):
        """Methods at every setting that is tried, by family and name."""
        extras = [10, self.rank // 2, self.rank]
        lowrank = {
            f"torch svd_lowrank(q={self.rank + e}, niter={i})": lambda a, e=e, i=i: self.lowrank(a, e, i)
            for e, i in itertools.product(extras, (1, 2, 4, 6))
        }
        found = {"lowrank": lowrank}
        if self.randomized_svd:
            found["sklearn"] = {
                f"sklearn (+{e}, n_iter={i}, {n})": lambda a, e=e, i=i, n=n: self.sklearn(a, e, i, n)
                for e, i, n in itertools.product(extras, (1, 2, 4, 6), ("none", "LU"))
            }
        return found


class Bench:
    def __init__(self, torch, args, batch):
        self.torch, self.args = torch, args
        self.exact = batch.double().cpu()
        tails = (torch.linalg.svdvals(a)[args.rank :] for a in self.exact)
        self.least = [float(torch.linalg.vector_norm(tail)) for tail in tails]

    def error(self, factors):
        """The worst error over the least possible one."""
        u, s, v = (x.double().cpu() for x in factors)
        norm = self.torch.linalg.matrix_norm
        return max(float(norm(a - (u[i] * s[i]) @ v[i].mT)) / b for i, (a, b) in enumerate(zip(self.exact[: len(u)], self.least)))

    def seconds(self, method, a):
        """Seconds until the device is done, and the factors."""
        cuda = self.args.device != "cpu"
        if cuda:
            self.torch.cuda.synchronize()
        start = time.perf_counter()
        factors = method(a)
        if cuda:
            self.torch.cuda.synchronize()
        return time.perf_counter() - start, factors

    def cheapest(self, family, a, limit):
        """The quickest of a family on one matrix whose error is below the limit."""
        best = None
        for name, method in family.items():
            took, factors = self.seconds(method, a)
            if self.error(factors) <= limit:
                best = min(best or (took, name), (took, name))
        return best and best[1]


def rounds(bench, child, peers, batch, ours):
    """Interleaved runs: name -> seconds, name -> error. What a method refuses is said, and its row left out."""
    args, seconds, errors = bench.args, {}, {}
    # One unmeasured round warms caches and allocators.
    for run in range(args.runs + 1):
        for name, line in ours.items():
            took = float(child.ask(line))
            if run:
                seconds.setdefault(name, []).append(took)
        for name in list(peers):
            try:
                took, factors = bench.seconds(peers[name], batch)
            except (RuntimeError, ValueError, NotImplementedError) as refusal:
                print(f"{name} refuses: {str(refusal).splitlines()[0]}", file=sys.stderr)
                del peers[name]
                continue
            if run:
                seconds.setdefault(name, []).append(took)
            else:
                errors[name] = bench.error(factors)
    return seconds, errors


def compare(args, np, safetensors, torch, randomized_svd):
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[args.dtype]
    batch = torch.from_numpy(matrices(np, args)).to(dtype).to(args.device)
    bench = Bench(torch, args, batch)
    sources = Peers(np, torch, randomized_svd, args)
    with tempfile.TemporaryDirectory() as folder:
        child = Child(args, Path(folder))
        inputs = {"a": batch} | ({} if args.dtype == "f32" else {"wide": batch.float()})
        child.load(safetensors, **inputs)
        child.ask(f"time a {args.rank}")
        own = bench.error(child.factors(safetensors, args.output))
        peers, notes = sources.table(args), []
        for family, methods in sources.settings().items():
            found = bench.cheapest(methods, batch[:1], max(own, 1.0) + SAME)
            if found:
                peers[found] = methods[found]
            else:
                notes.append(f"no setting of {family} that was tried comes as near as ours")
        ours = {"lowkey": f"time a {args.rank}"}
        if args.dtype != "f32":
            ours["lowkey on the same in f32"] = f"time wide {args.rank}"
        if args.device == "cpu" and not args.quick:
            ours["faer thin_svd"] = "faer a"
        seconds, errors = rounds(bench, child, peers, batch, ours)
    report(args, torch, seconds, errors | {"lowkey": own}, notes)


def report(args, torch, seconds, errors, notes):
    median = {name: statistics.median(s) for name, s in seconds.items()}
    rows = [
        {
            "method": name,
            "seconds": {"median": median[name], "min": min(s), "max": max(s), "runs": len(s)},
            "error_ratio": errors.get(name),
            "times_lowkey": median[name] / median["lowkey"],
        }
        for name, s in sorted(seconds.items(), key=lambda item: median[item[0]])
    ]
    case = (
        f"{args.batch} x ({args.rows} x {args.columns}) {args.dtype}, rank {args.rank}, decay {args.decay}, noise {args.noise}; "
        f"{args.mode}, {args.output}; {args.device}, {args.threads} thread{'s' * (args.threads > 1)}"
    )
    about = {"case": case, "seed": args.seed, "torch": torch.__version__, "threads": args.threads}
    if args.format == "json":
        print(json.dumps(about | {"rows": rows, "notes": notes}, indent=2))
        return
    print(f"{case}; medians of {args.runs} interleaved runs; torch {torch.__version__}")
    width = max(len(row["method"]) for row in rows) + 2
    print(f"{'method':{width}}{'median ms':>11}{'min':>9}{'max':>9}{'x lowkey':>10}{'error / least':>15}")
    for row in rows:
        s, error = row["seconds"], row["error_ratio"]
        times = "".join(f"{1e3 * s[k]:{w}.1f}" for k, w in (("median", 11), ("min", 9), ("max", 9)))
        print(f"{row['method']:{width}}{times}{row['times_lowkey']:10.2f}{'-' if error is None else f'{error:.6f}':>15}")
    for note in notes:
        print(note)


def scaling(args, np, safetensors, torch):
    """What a second thread brings us, over what it brings a loop of multiply-adds that nothing holds up."""
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[args.dtype]
    gains = {"ours": [], "loop": []}
    with tempfile.TemporaryDirectory() as folder:
        child = Child(args, Path(folder))
        child.load(safetensors, a=torch.from_numpy(matrices(np, args)).to(dtype))
        for run in range(args.runs + 1):
            times, rates = [], []
            for threads in (1, 2):
                child.ask(f"options {threads} {args.mode} {args.output}")
                times.append(float(child.ask(f"time a {args.rank}")))
                rates.append(float(child.ask("fma")))
            if run:
                gains["ours"].append(times[0] / times[1])
                gains["loop"].append(rates[1] / rates[0])
    ours, loop = (statistics.median(gains[side]) for side in ("ours", "loop"))
    if args.format == "json":
        print(json.dumps({"case": args.case, "dtype": args.dtype, "ours": ours, "loop": loop, "share": ours / loop, "gains": gains}, indent=2))
        return
    print(f"{args.case}, {args.dtype}, {args.mode}: medians of {args.runs} interleaved runs")
    for side, gain in (("ours", ours), ("multiply-adds", loop)):
        spread = gains["ours" if side == "ours" else "loop"]
        print(f"{side:14} two threads over one: {gain:.3f} ({min(spread):.3f} to {max(spread):.3f})")
    print(f"{'share':14} {ours / loop:.3f}")


def main():
    args = arguments()
    pin(args)
    np, safetensors, torch, randomized_svd = imports()
    torch.set_num_threads(args.threads)
    if args.scaling:
        scaling(args, np, safetensors, torch)
    else:
        compare(args, np, safetensors, torch, randomized_svd)


if __name__ == "__main__":
    main()
