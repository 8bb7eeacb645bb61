"""The time that each kernel of an operation may take, from its machine code and its bytes (docs/roofline.md)."""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the folder of a checkout stays as it is
HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "kernel_report"))

import budget
import report
from gpu import GPUS
from sources import Refusal


def arguments() -> argparse.Namespace:
    root = HERE.parents[1]
    target = Path(os.environ.get("CARGO_TARGET_DIR") or root / "target")
    operations = sorted(path.stem for path in (HERE / "ops").glob("*.py"))
    outer = argparse.ArgumentParser(prog="tools/roofline", description=__doc__)
    named = outer.add_subparsers(dest="op", required=True, metavar="OP", help=", ".join(operations))
    for name in operations:
        operation = importlib.import_module(f"ops.{name}")
        parser = named.add_parser(name, help=operation.__doc__.splitlines()[0])
        parser.add_argument("--gpu", choices=sorted(GPUS), default="h200")
        parser.add_argument("--format", choices=["table", "json"], default="table", help="how to print")
        parser.add_argument("--measured", type=Path, metavar="FILE", help="a result of kvbench --save to compare with")
        parser.add_argument("--loops", metavar="KERNEL", help="print where the time of one of its blocks goes instead")
        for flag, usual in operation.SHAPE.items():
            parser.add_argument(f"--{flag}", type=type(usual), default=usual, help=f"(default {usual})")
        parser.set_defaults(operation=operation)
    outer.set_defaults(root=root, kernels=root / "kernels", include=root / "kernels", cache=target / "kernel-report")
    return outer.parse_args()


def run(args: argparse.Namespace) -> None:
    shape = {flag: getattr(args, flag.replace("-", "_")) for flag in args.operation.SHAPE}
    gpu = GPUS[args.gpu]
    budgets = budget.budgets(args.operation.launches(*shape.values()), gpu, args)
    seconds = None
    if args.measured:
        try:
            seconds = report.measured(json.loads(args.measured.read_text()), args.op, shape, args.operation.SHAPE)
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise Refusal(f"{args.measured}: no result of kvbench: {fault!r}") from None
        if seconds is None:
            raise Refusal(f"{args.measured}: no time of {args.op} with {shape}")
    if args.loops and args.loops not in [launch.kernel for launch, _, _ in budgets]:
        raise Refusal(f"{args.op} has no kernel {args.loops}")
    document = report.total(args.op, gpu.name, shape, budgets, seconds)
    if args.loops:
        print(report.loops_table(next(row for row in document["kernels"] if row["kernel"] == args.loops)))
    else:
        print(report.as_json(document) if args.format == "json" else report.as_table(document))


def main() -> int:
    try:
        run(arguments())
        return 0
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
