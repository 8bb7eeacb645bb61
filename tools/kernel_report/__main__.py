"""What the compiler makes of every kernel: registers, memory, occupancy, instructions, bytes, and seconds.

Kernels are compiled as the build does it, for every architecture; results are kept under target/kernel-report and made
again only for what changed.
"""

import argparse
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the folder of a checkout stays as it is

import check
import compile
import show
from sources import Refusal, find_sources


def arguments() -> argparse.Namespace:
    root = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR") or root / "target")
    parser = argparse.ArgumentParser(prog="tools/kernel-report", description=__doc__.splitlines()[0])
    parser.add_argument("--format", choices=["table", "json"], default="table", help="how to print")
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit 1 on a spill or stack frame that allowances.txt does not list, and on a broken budget.txt",
    )
    parser.add_argument("--only", metavar="NAME", default="", help="only source files whose path has NAME in it")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="compilers at a time")
    parser.add_argument("--kernels", type=Path, default=root / "kernels", help="another folder of kernels")
    parser.add_argument("--include", type=Path, default=root / "kernels", help="where #include starts from")
    parser.add_argument("--cache", type=Path, default=target / "kernel-report", help="where results are kept")
    parser.set_defaults(root=root)
    return parser.parse_args()


def report(args: argparse.Namespace) -> int:
    sources = find_sources(args.kernels, args.only)
    tools = compile.Tools.find(args.root)
    images = compile.images(sources, tools, args)
    print(show.as_json(images) if args.format == "json" else show.as_table(images))
    if not args.check:
        return 0
    findings = check.findings(images, args.kernels, whole=not args.only)
    for finding in findings:
        print(f"error: {finding}", file=sys.stderr)
    return 1 if findings else 0


def main() -> int:
    try:
        return report(arguments())
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # A reader that has seen enough; nothing is left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
