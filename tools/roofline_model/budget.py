"""From launches to budgets: compiles, reads the code, lays the description on it, and times it."""

import argparse

import compile
import flow
import measure
import sass
import timing
from gpu import WARP, Gpu
from sources import Refusal, Source
from workload import Laid, Launch, Lines

# Executed instructions may differ by so much from what a launch expects.
TOLERANCE = 0.02


class Images:
    """Code of the sources that were asked for."""

    def __init__(self, gpu: Gpu, args: argparse.Namespace):
        self.gpu, self.args, self.tools = gpu, args, compile.Tools.find(args.root)
        self.found: dict[str, tuple[dict, dict[str, sass.Function]]] = {}
        args.cache.mkdir(parents=True, exist_ok=True)

    def of(self, label: str) -> tuple[dict, dict[str, sass.Function]]:
        """What ptxas says of each kernel, and its code."""
        if label not in self.found:
            path = self.args.kernels / label
            if not path.is_file():
                raise Refusal(f"{path} is no file")
            source = Source.read(path, self.args.kernels)
            number = lambda target: measure.number_of(target.split("code=")[1])
            targets = [target for target in source.targets() if number(target) == self.gpu.arch]
            if not targets:
                raise Refusal(f"{label} is not compiled for {self.gpu.name}, sm_{self.gpu.arch}")
            command = compile.command_of(source, self.tools, self.args.include, targets[:1])
            kind = f"-{self.gpu.arch}"
            found = compile.kept(source, self.tools, self.args.cache, command, kind, compile.disassembled)
            self.found[label] = next(iter(found["usage"].values())), sass.parse(found["sass"])
        return self.found[label]


def budgets(launches: list[Launch], gpu: Gpu, args: argparse.Namespace) -> list[tuple[Launch, int, timing.Times]]:
    """Every launch, its blocks on a multiprocessor, and its times."""
    images, lines, found = Images(gpu, args), Lines(), []
    for launch in launches:
        usage, functions = images.of(launch.source)
        if launch.kernel not in functions:
            raise Refusal(f"{launch.source} has no kernel {launch.kernel}")
        resident, times = of_launch(launch, gpu, usage[launch.kernel], functions[launch.kernel], lines)
        found.append((launch, resident, times))
    return found


def of_launch(launch: Launch, gpu: Gpu, usage: dict, function: sass.Function, lines: Lines) -> tuple[int, timing.Times]:
    shared = usage["shared_bytes"] + launch.shared
    resident = measure.blocks_per_multiprocessor(gpu.arch, launch.threads, usage["registers"], shared)
    if not resident:
        raise Refusal(f"{launch.kernel}: a block of {launch.threads} threads and {shared} bytes does not fit")
    graph = flow.blocks(function)
    kernel = flow.loops(graph)
    laid = Laid(launch, graph, kernel, lines)
    runner = timing.Runner(gpu, graph, laid, -(-launch.threads // WARP))
    full = runner.run(kernel)
    for opcode, count in launch.expect.items():
        if abs(full.executed.get(opcode, 0) - count) > TOLERANCE * count:
            made = full.executed.get(opcode, 0)
            what = f"a block executes {made:.1f} {opcode}, and its work is {count:.1f}"
            raise Refusal(f"{launch.kernel}: {what}: a loop is misjudged")
    runs = [(launch.active, full), (1 - launch.active, runner.run(kernel, leaves_at_once=True))]
    return resident, timing.times(gpu, laid, [run for run in runs if run[0] > 0], resident)
