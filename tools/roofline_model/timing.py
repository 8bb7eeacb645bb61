"""How long a launch takes: one warp's way through the code, the units that all warps share, and waves of blocks."""

import math
from collections import Counter
from dataclasses import dataclass, field

import flow
import gpu as model
from flow import Block, Loop
from gpu import Gpu
from workload import Laid

# Runs of a loop that are followed one by one; the rest take as long as the last of them.
FOLLOWED = 3


@dataclass
class Warp:
    """A warp on its way: the clock, what it waits for, and the units' work since the block's last barrier and in all."""

    clock: float = 0.0
    scoreboards: dict[int, tuple[float, float]] = field(default_factory=dict)  # when clear, and how likely it was set
    copies: float = 0.0  # when the asynchronous copies issued so far arrive
    groups: list[float] = field(default_factory=list)
    since: float = 0.0
    segment: Counter = field(default_factory=Counter)
    total: Counter = field(default_factory=Counter)
    executed: Counter = field(default_factory=Counter)


@dataclass
class Alone:
    """One block alone on a multiprocessor: cycles it takes, and clocks that it takes of each unit."""

    cycles: float
    work: dict[str, float]
    executed: dict[str, float]
    loops: list[dict] = field(default_factory=list)


class Runner:
    """Follows a warp of `warps` through a kernel."""

    def __init__(self, gpu: Gpu, graph: list[Block], laid: Laid, warps: int):
        self.gpu, self.graph, self.laid, self.warps = gpu, graph, laid, warps
        self.lengths: dict[int, float] = {}
        self.ways: dict[tuple[int, bool], list] = {}
        self.spent: dict[int, float] = {}

    def run(self, kernel: Loop, leaves_at_once: bool = False) -> Alone:
        warp = Warp()
        self.follow(warp, self.way(kernel, min if leaves_at_once else max))
        self.meet(warp)
        work = {unit: clocks * self.warps for unit, clocks in warp.total.items()}
        executed = {name: n * self.warps for name, n in warp.executed.items()}
        return Alone(warp.clock, work, executed, self.loops_of(kernel, 0))

    def loops_of(self, outer: Loop, depth: int) -> list[dict]:
        """Loops that ran, as they are nested, and the cycles of the last entry of each."""
        found = []
        for loop in sorted((loop for loop in outer.inner if id(loop) in self.spent), key=lambda loop: loop.header):
            address = self.graph[loop.header].code[0].address
            figures = {"trips": round(loop.trips, 3), "cycles": round(self.spent[id(loop)], 1)}
            found += [{"depth": depth, "loop": loop.source, "address": hex(address), **figures}]
            found += self.loops_of(loop, depth + 1)
        return found

    def length(self, item: Block | Loop) -> float:
        """Issue cycles, by which ways are compared."""
        if id(item) not in self.lengths:
            if isinstance(item, Loop):
                # Of a loop that never runs no ways are known.
                cycles = item.trips and item.trips * sum(self.length(part) for part in self.way(item, max))
            else:
                cycles = sum(code.stall * self.laid.weight(item, code)[0] for code in item.code)
            self.lengths[id(item)] = cycles
        return self.lengths[id(item)]

    def way(self, loop: Loop, best) -> list:
        key = id(loop), best is min
        if key not in self.ways:
            self.ways[key] = flow.way(self.graph, loop, self.length, best)
        return self.ways[key]

    def follow(self, warp: Warp, way: list) -> None:
        for item in way:
            if isinstance(item, Loop):
                self.repeat(warp, item)
            else:
                self.execute(warp, item)

    def repeat(self, warp: Warp, loop: Loop) -> None:
        if not loop.trips:
            return
        way, left, followed, start = self.way(loop, max), loop.trips, 0, warp.clock
        while left > 0 and followed < FOLLOWED:
            before = warp.clock, warp.since, warp.total.copy(), warp.executed.copy()
            self.follow(warp, way)
            left, followed = left - 1, followed + 1
        if followed:
            # Negative where the last run is one that not every entry makes: a part of it is taken back.
            self.extend(warp, before, left)
            self.spent[id(loop)] = warp.clock - start

    def extend(self, warp: Warp, before: tuple, times: float) -> None:
        """Repeats what happened since `before`, `times` over."""
        clock, since, total, executed = before
        met = warp.since != since
        advance = times * (warp.clock - clock)
        for counter, old in ((warp.total, total), (warp.executed, executed)):
            for name in counter:
                gained = times * (counter[name] - old[name])
                counter[name] += gained
                if counter is warp.total and not met:
                    warp.segment[name] += gained
        warp.clock += advance
        warp.since += advance if met else 0
        warp.copies += advance
        warp.scoreboards = {board: (at + advance, likely) for board, (at, likely) in warp.scoreboards.items()}
        warp.groups = [at + advance for at in warp.groups]

    def execute(self, warp: Warp, block: Block) -> None:
        for code in block.code:
            time, share = self.laid.weight(block, code)
            if time == 0:
                continue
            awaited = [warp.scoreboards.get(board, (0.0, 0.0)) for board in code.waits]
            if code.name == "DEPBAR" and warp.groups:
                awaited.append((self.copied(warp, code), 1.0))
            start = warp.clock + max((min(time, likely) * (at - warp.clock) for at, likely in awaited), default=0)
            start = max(start, warp.clock)
            warp.clock = start + time * code.stall
            self.note(warp, code, start, time)
            warp.executed[code.name] += time * share
            for unit, clocks in model.work(self.gpu, code, self.laid.launch.generic).items():
                warp.segment[unit] += clocks * time * share
                warp.total[unit] += clocks * time * share
            if code.name == "BAR" and "ARV" not in code.opcode:
                self.meet(warp, time * model.BARRIER)

    def note(self, warp: Warp, code, start: float, likely: float) -> None:
        """What clears when."""
        launch = self.laid.launch
        if code.name == "LDGSTS":
            warp.copies = max(warp.copies, start + model.latency(code, launch.served, launch.generic))
        elif code.name == "LDGDEPBAR":
            warp.groups.append(warp.copies)
        elif code.writes is not None:
            self.set(warp, code.writes, start, model.latency(code, launch.served, launch.generic), likely)
        if code.reads is not None:
            self.set(warp, code.reads, start, model.OPERANDS_READ, likely)

    def set(self, warp: Warp, board: int, start: float, latency: float, likely: float) -> None:
        """A scoreboard waits for all that set it: for what holds a warp up most."""
        before, likely_before = warp.scoreboards.get(board, (0.0, 0.0))
        if (before - start) * likely_before < latency * likely:
            warp.scoreboards[board] = start + latency, likely

    def copied(self, warp: Warp, code) -> float:
        """When all but so many of the newest groups of copies are there: `DEPBAR.LE SB0, 0x1`."""
        newest = int(code.operands.split(",")[-1], 16)
        return warp.groups[-1 - newest] if newest < len(warp.groups) else 0

    def meet(self, warp: Warp, cycles: float = 0) -> None:
        """The block's warps wait for each other: none goes on before the units have done the work of all, and `cycles`
        have passed."""
        # A warp has the units of its quarter only.
        quarters = math.ceil(self.warps / 4) * 4
        busy = max((clocks * quarters for clocks in warp.segment.values()), default=0)
        warp.clock = max(warp.clock, warp.since + busy) + cycles
        warp.since = warp.clock
        warp.segment.clear()


@dataclass
class Times:
    """Seconds of a launch by what takes them; cycles of one block alone, and the loops that they go to."""

    memory: float
    l2: float
    units: dict[str, float]
    latency: float
    compute: float
    gap: float
    cycles: float
    loops: list[dict]

    @property
    def budget(self) -> float:
        return max(self.memory, self.l2, self.compute) + self.gap

    @property
    def bound(self) -> str:
        if max(self.memory, self.l2) >= self.compute:
            return "memory" if self.memory >= self.l2 else "l2"
        unit = max(self.units, key=self.units.get)
        return "latency" if self.latency > self.units[unit] else unit


def times(gpu: Gpu, laid: Laid, runs: list[tuple[float, Alone]], resident: int) -> Times:
    """A launch of blocks of several kinds, each with its share of them, `resident` on a multiprocessor at a time."""
    launch = laid.launch
    memory = (launch.reads + launch.writes) / gpu.memory
    l2 = (launch.reads + launch.writes + launch.again) / gpu.l2
    units: Counter = Counter()
    latency = compute = 0.0
    for share, one in runs:
        blocks = share * launch.blocks
        for unit, clocks in one.work.items():
            units[unit] += blocks * clocks / gpu.sms / gpu.clock
        most = max(one.work.values(), default=0)
        whole, rest = divmod(blocks, gpu.sms * resident)
        latency += (whole + (rest > 0)) * one.cycles / gpu.clock
        compute += whole * max(one.cycles, resident * most) / gpu.clock
        if rest:
            compute += max(one.cycles, math.ceil(rest / gpu.sms) * most) / gpu.clock
    return Times(memory, l2, dict(units), latency, compute, gpu.gap, runs[0][1].cycles, runs[0][1].loops)
