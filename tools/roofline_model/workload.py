"""What a launch does that its machine code does not say, and how that is laid on the code.

Loops are named by the text of their source line, so that neither a compiler's choices nor edits elsewhere matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flow import Block, Loop, dominators
from sass import Instruction, Place
from sources import Refusal

KEYWORDS = ("for (", "while (", "do ")


@dataclass(frozen=True)
class Runs:
    """How often a source loop runs.

    at: text of the loop's line; "a @ b" is loop a where it is inlined into a line with text b, and goes before plain a.
    trips: per entry; a sequence where it differs from entry to entry; 0 where nothing in it runs.
    each: instructions of one run in the source, `{"HMMA": 2}`, or `{"loops": 1}` for the loops in it: tells how often the
        compiler unrolled it. May be left out where every loop in it stands there once."""

    at: str
    trips: float | Sequence[int]
    each: dict[str, int] = field(default_factory=dict)

    def entries(self) -> Sequence[float]:
        return self.trips if isinstance(self.trips, Sequence) else [self.trips]


@dataclass(frozen=True)
class Share:
    """How much of the lines with text `at` (up to the next line with text `to`, where given), and of what is inlined
    into them, is executed: `time`, the probability that a warp does so, and `warps`, the share of the warps that do.
    With `guards`, what is only reached through a block that is mostly of these lines is shared with them: what was inlined
    there, whether the compiler kept its callers or not."""

    at: str
    to: str | None = None
    time: float = 1.0
    warps: float = 1.0
    guards: bool = False


@dataclass(frozen=True)
class Launch:
    """One kernel of an operation's sequence. Bytes are those that memory must move, once each; `again` are those that the
    L2 cache serves. `active` is the share of blocks that do not leave at once."""

    kernel: str
    source: str
    blocks: int
    threads: int
    shared: int = 0
    reads: float = 0
    writes: float = 0
    again: float = 0
    active: float = 1.0
    loops: Sequence[Runs] = ()
    shares: Sequence[Share] = ()
    # Instructions of all warps of a block that does its work: what the loops above must come to.
    expect: dict[str, float] = field(default_factory=dict)
    # Where most global loads are served: "memory" or "l2".
    served: str = "memory"
    # Where addresses lead of which the code does not say it: "global" or "shared".
    generic: str = "global"


class Lines:
    """Text of source lines."""

    def __init__(self):
        self.files: dict[Path, list[str]] = {}

    def of(self, file: Path) -> list[str]:
        if file not in self.files:
            self.files[file] = file.read_text().splitlines() if file.is_file() else []
        return self.files[file]

    def text(self, place: Place) -> str:
        lines = self.of(place.file)
        return lines[place.line - 1].strip() if 0 < place.line <= len(lines) else ""


def loop_frames(code: Instruction, lines: Lines) -> tuple[Place, ...]:
    """The frames of a jump back, from the loop's own line on."""
    for i, place in enumerate(code.frames):
        if any(keyword in lines.text(place) for keyword in KEYWORDS):
            return code.frames[i:]
    return ()


def named(at: str, frames: Sequence[Place], lines: Lines) -> bool:
    """Whether frames, innermost first, are those of "inner @ outer"."""
    own, *outer = at.split(" @ ")
    if not frames or own not in lines.text(frames[0]):
        return False
    rest = iter(frames[1:])
    return all(any(text in lines.text(place) for place in rest) for text in outer)


def same_place(frames: Sequence[Place], others: Sequence[Place]) -> bool:
    """Where one has fewer frames the compiler has lost those further out."""
    known = min(len(frames), len(others))
    return known > 0 and frames[:known] == others[:known]


def within(code: Instruction, place: tuple[Path, int, int]) -> bool:
    """Whether an instruction comes from lines of a file, or was inlined there."""
    file, first, last = place
    return any(at.file == file and first <= at.line <= last for at in code.frames)


def sources(loop: Loop) -> set[str]:
    """The source loops right in a loop."""
    return {inner.source for inner in loop.inner}


def copies(versions: list[Loop], kind) -> int:
    """How often a source loop stands there: versions of different kinds are of one place, those of one kind are not."""
    kinds = [kind(loop) for loop in versions]
    return max(kinds.count(found) for found in kinds)


class Laid:
    """A launch's description laid on its kernel: sets the trips of loops, and knows the weights of instructions."""

    def __init__(self, launch: Launch, graph: list[Block], kernel: Loop, lines: Lines):
        self.launch, self.graph, self.lines = launch, graph, lines
        self.known: dict[tuple[int, tuple[Place, ...]], tuple[float, float]] = {}
        # A call is the slow way of a division or a root, for numbers that do not occur.
        self.block_weights = {
            block.index: 0.0 for block in graph if block.code[-1].name == "CALL" and not block.code[-1].is_jump
        }
        files = {place.file for block in graph for code in block.code for place in code.frames}
        self.ranges = [(share, self.range_of(share, files)) for share in launch.shares]
        self.guarded = {share: self.behind(place) for share, place in self.ranges if share.guards}
        if launch.active == 0:
            return  # nothing of what follows the way out matters
        self.describe(kernel)
        self.kernel = kernel
        versions = {runs.at: [loop for loop in kernel.all_inner() if loop.source == runs.at] for runs in launch.loops}
        for runs in launch.loops:
            if not versions[runs.at]:
                raise Refusal(f"{launch.kernel}: no loop `{runs.at}` is in the code (unrolled, or gone?)")
            self.unroll(runs, versions[runs.at])

    def describe(self, outer: Loop) -> None:
        """Finds what each loop is in the source; what is in a loop that never runs needs no description."""
        for loop in outer.inner:
            runs = self.described(loop)
            loop.source = runs.at
            if runs.trips == 0:
                loop.inner = []
            self.describe(loop)

    def described(self, loop: Loop) -> Runs:
        """What the launch says about a loop."""
        frames = ()
        for latch in loop.latches:
            frames = frames or loop_frames(self.graph[latch].code[-1], self.lines)
        fitting = [runs for runs in self.launch.loops if named(runs.at, frames, self.lines)]
        calls = max((runs.at.count(" @ ") for runs in fitting), default=0)
        fitting = [runs for runs in fitting if runs.at.count(" @ ") == calls]
        if len(fitting) != 1:
            first = self.graph[loop.header].code[0]
            place = (frames or first.frames or [Place(Path("?"), 0)])[0]
            where = f"{place.file.name}:{place.line} `{self.lines.text(place)}` (at {first.address:#x})"
            count = "nothing" if not fitting else "more than one entry"
            raise Refusal(f"{self.launch.kernel}: {count} says how often the loop {where} runs")
        return fitting[0]

    def count(self, loop: Loop, opcode: str) -> int:
        """Instructions of a loop's own, or copies of the loops in it."""
        if opcode != "loops":
            return sum(code.name == opcode for at in loop.own() for code in self.graph[at].code)
        runs = {runs.at: runs for runs in self.launch.loops}
        factor = lambda inner: self.factor(runs[inner.source], inner)
        return sum(copies([inner for inner in loop.inner if inner.source == at], factor) for at in sources(loop))

    def unroll(self, runs: Runs, versions: list[Loop]) -> None:
        """Shares the trips of a source loop out among the versions that the compiler made of it: those that do most at
        a time come first, and what they leave over is for the smaller ones, then for code without a loop."""
        factors = {id(loop): self.factor(runs, loop) for loop in versions}
        sums = {factor: 0.0 for factor in factors.values()}
        left = 0.0
        for entry in runs.entries():
            for factor in sorted(sums, reverse=True):
                often = entry / factor if factor == 1 else entry // factor
                sums[factor] += often
                entry -= often * factor
            left += entry
        for loop in versions:
            loop.trips = loop.trips * sums[factors[id(loop)]] / len(runs.entries())
        left *= copies(versions, lambda loop: factors[id(loop)]) / len(runs.entries())
        if max(sums) > 1:
            self.peel(runs, versions, left)

    def factor(self, runs: Runs, loop: Loop) -> int:
        """How many runs of the source loop one run of a version does."""
        if runs.trips == 0:
            return 1
        each = runs.each or {"loops": len(sources(loop))}
        if not any(each.values()):
            raise Refusal(f"{self.launch.kernel}: `{runs.at}` needs `each`, by which its unrolling is told")
        counts = {opcode: self.count(loop, opcode) for opcode in each}
        factors = {counts[opcode] / each[opcode] for opcode in each}
        if len(factors) != 1 or min(factors) < 1 or min(factors) % 1 or not runs.each and factors != {1}:
            raise Refusal(f"{self.launch.kernel}: `{runs.at}` has {counts} at a time, which is no multiple of {each}")
        return int(min(factors))

    def peel(self, runs: Runs, versions: list[Loop], left: float) -> None:
        """Weights code that does some runs of a loop ahead of it or after it: it shares what is left over."""
        within = {at for loop in versions for at in loop.blocks}
        if "loops" in runs.each:
            inner = {at for loop in versions for at in sources(loop)}
            peeled = [loop for loop in self.kernel.all_inner() if loop.source in inner and loop.header not in within]
            for loop in peeled:
                loop.trips *= min(left / len(peeled), 1.0)
            return
        opcode, count = next(iter(runs.each.items()))
        own = [code for loop in versions for at in loop.own() for code in self.graph[at].code]
        places = {code.frames for code in own if code.name == opcode}
        beside = {at for loop in versions for at in loop.outer.own()}
        is_anchor = lambda code: code.name == opcode and any(same_place(code.frames, place) for place in places)
        held = {at: sum(map(is_anchor, self.graph[at].code)) / count for at in beside}
        peeled = {at: runs_held for at, runs_held in held.items() if runs_held > 0}
        for block in peeled:
            self.block_weights[block] = min(left / sum(peeled.values()), 1.0)

    def range_of(self, share: Share, files: set[Path]) -> tuple[Path, int, int]:
        """File, first and last line of a share."""
        found = [(file, i) for file in sorted(files) for i, line in enumerate(self.lines.of(file), 1) if share.at in line]
        if len(found) != 1:
            raise Refusal(f"{self.launch.kernel}: {len(found)} lines have `{share.at}` in them, one is to be named")
        file, first = found[0]
        last = first
        if share.to is not None:
            last = next((i for i, line in enumerate(self.lines.of(file), 1) if i > first and share.to in line), 0)
        if not last:
            raise Refusal(f"{self.launch.kernel}: no line after `{share.at}` has `{share.to}` in it")
        return file, first, last

    def behind(self, place: tuple[Path, int, int]) -> set[int]:
        """Blocks that are only reached through one that is mostly of lines."""
        mostly = lambda block: 2 * sum(within(code, place) for code in block.code) > len(block.code)
        heads = {block.index for block in self.graph if mostly(block)}
        return {at for at, above in dominators(self.graph).items() if heads & above}

    def weight(self, block: Block, code: Instruction) -> tuple[float, float]:
        """The probability that an instruction is executed when its block is reached, and the share of warps that do."""
        key = block.index if self.guarded else 0, code.frames
        if key not in self.known:
            time, warps = 1.0, 1.0
            for share, place in self.ranges:
                if within(code, place) or block.index in self.guarded.get(share, ()):
                    time, warps = time * share.time, warps * share.warps
            self.known[key] = time, warps
        time, warps = self.known[key]
        return time * self.block_weights.get(block.index, 1.0), warps
