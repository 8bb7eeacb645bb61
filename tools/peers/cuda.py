#!/usr/bin/env python3
"""The bundle's workloads in PyTorch on a GPU: times by CUDA events (medians), errors against f64, as JSON.

Shapes are those of run.sh's kvbench cases; matrices are normal columns scaled by 1/j, mirrored at a random hyperplane.
"""

import argparse
import json
import statistics
import sys


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="write JSON here instead of standard output")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="small shapes, for a try-out on any device")
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


class Bench:
    def __init__(self, torch, args):
        self.torch, self.args, self.rows = torch, args, []

    def seconds(self, call):
        torch = self.torch
        call()
        if self.args.device == "cpu":
            import time

            samples = []
            for _ in range(self.args.runs):
                start = time.perf_counter()
                call()
                samples.append(time.perf_counter() - start)
            return statistics.median(samples)
        samples = []
        for _ in range(self.args.runs):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            samples.append(start.elapsed_time(end) / 1e3)
        return statistics.median(samples)

    def add(self, workload, by, call, error=None):
        """One peer; what it cannot do is said and is no failure of the run."""
        try:
            value = None if error is None else float(error(call()))
            self.rows.append({"workload": workload, "by": by, "seconds": self.seconds(call), "error": value})
        except (RuntimeError, ValueError, NotImplementedError) as refusal:
            self.rows.append({"workload": workload, "by": by, "seconds": None, "error": None, "refused": str(refusal)[:200]})
        print(self.rows[-1], file=sys.stderr)


def power(torch, batch, rows, cols, device):
    torch.manual_seed(0)
    a = torch.randn(batch, rows, cols, device=device) / torch.arange(1, cols + 1, device=device)
    mirror = torch.randn(cols, device=device)
    return a - (a @ mirror)[..., None] * mirror * (2 / mirror.dot(mirror))


def svd(bench):
    torch, quick = bench.torch, bench.args.quick
    batch, rows, cols, rank = (4, 256, 32, 8) if quick else (512, 4096, 128, 32)
    a = power(torch, batch, rows, cols, bench.args.device)
    optimum = torch.linalg.svdvals(a[:4].double())[:, rank:].square().sum(-1).sqrt()

    def over_optimum(factors):
        u, s, v = factors
        kept = (u[:4] * s[:4, None]).double() @ v[:4].double().mT
        return ((a[:4].double() - kept).flatten(1).norm(dim=1) / optimum).max()

    def gram():
        values, vectors = torch.linalg.eigh(a.mT @ a)
        v = vectors[..., -rank:].flip(-1)
        s = values[..., -rank:].flip(-1).clamp_min(0).sqrt()
        return (a @ v) / s[:, None], s, v

    workload = f"svd {batch}x{rows}x{cols} f32 rank {rank}"
    bench.add(workload, "torch Gram + eigh", gram, over_optimum)
    bench.add(workload, "torch svd_lowrank(q=rank+10)", lambda: lowrank(torch, a, rank), over_optimum)
    few = a[: max(1, batch // 32)]
    bench.add(f"{workload}, the first {len(few)} matrices", "torch svd", lambda: torch.linalg.svd(few, full_matrices=False))


def lowrank(torch, a, rank):
    u, s, v = torch.svd_lowrank(a, q=rank + 10, niter=2)
    return u[..., :rank], s[..., :rank], v[..., :rank]


def attention(bench):
    torch, quick = bench.torch, bench.args.quick
    batch, context, heads, kv_heads, width = (1, 256, 4, 2, 64) if quick else (4, 16384, 32, 8, 128)
    shape = (batch, kv_heads, context, width)
    q = torch.randn(batch, heads, 1, width, device=bench.args.device, dtype=torch.bfloat16)
    k, v = (torch.randn(shape, device=bench.args.device, dtype=torch.bfloat16) for _ in range(2))
    attend = torch.nn.functional.scaled_dot_product_attention
    exact = attend(q.double(), k.double(), v.double(), enable_gqa=True)

    def error(found):
        return (found.double() - exact).norm() / exact.norm()

    workload = f"attention decode, batch {batch}, context {context}, heads {heads}/{kv_heads}, head_dim {width}, bf16"
    backends = torch.nn.attention.SDPBackend
    for backend in (backends.FLASH_ATTENTION, backends.CUDNN_ATTENTION, backends.EFFICIENT_ATTENTION, backends.MATH):

        def call(backend=backend):
            with torch.nn.attention.sdpa_kernel(backend):
                return attend(q, k, v, enable_gqa=True)

        bench.add(workload, f"torch SDPA, {backend.name}", call, error)


def linear(bench):
    torch, quick = bench.torch, bench.args.quick
    n, k = (64, 64) if quick else (4096, 4096)
    for m in (1, 8):
        x = torch.randn(m, k, device=bench.args.device, dtype=torch.bfloat16)
        dense = torch.randn(n, k, device=bench.args.device, dtype=torch.bfloat16)
        bench.add(f"linear m {m}, {n}x{k} bf16", "torch dense", lambda: x @ dense.T)
        for rank in (8,) if quick else (256, 1024):
            b = torch.randn(rank, k, device=bench.args.device, dtype=torch.bfloat16)
            a = torch.randn(n, rank, device=bench.args.device, dtype=torch.bfloat16)
            bench.add(f"linear m {m}, {n}x{k} rank {rank} bf16", "torch, two products", lambda: (x @ b.T) @ a.T)


def mask(bench):
    torch, quick = bench.torch, bench.args.quick
    rows, cols = (64, 128) if quick else (4096, 14336)
    for dtype in (torch.float32, torch.bfloat16):
        w = torch.randn(rows, cols, device=bench.args.device, dtype=dtype)

        def topk(w=w):
            kept = torch.zeros_like(w, dtype=torch.bool)
            return kept.scatter_(1, w.abs().topk(cols // 2, dim=1).indices, True)

        bench.add(f"mask {rows}x{cols} {dtype}, half of each row", "torch topk + scatter", topk)


def main():
    args = arguments()
    try:
        import torch
    except ImportError:
        sys.exit("error: cannot import torch (hint: use the python3 that has PyTorch)")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: PyTorch sees no GPU (hint: --device cpu --quick tries the script)")
    bench = Bench(torch, args)
    for workload in (svd, attention, linear, mask):
        workload(bench)
    document = {"schema": 1, "torch": torch.__version__, "device": args.device, "rows": bench.rows}
    if args.device == "cuda":
        document["gpu"] = torch.cuda.get_device_name()
    text = json.dumps(document, indent=1) + "\n"
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
