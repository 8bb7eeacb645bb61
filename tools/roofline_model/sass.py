"""Reads machine code as `nvdisasm -gi -hex -c` prints it, with the scheduling bits of each instruction."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sources import Refusal

SECTION = re.compile(r"//-+ \.text\.(\S+)")
LABEL = re.compile(r"([.$\w]+):$")
FRAME = re.compile(r'\s*//## File "(.*?)", line (\d+)')
CODE = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?(\S+)\s*(.*?)\s*;\s+/\* 0x[0-9a-f]{16} \*/$")
UPPER_HALF = re.compile(r"\s+/\* 0x([0-9a-f]{16}) \*/$")
TARGET = re.compile(r"`\((\S+)\)")
TABLE = re.compile(r'BRANCH_TARGETS ([^"]+)"')
NONE = 7  # the scoreboard that is none


@dataclass(frozen=True)
class Place:
    """A line of source."""

    file: Path
    line: int


@dataclass
class Instruction:
    """One instruction. Scheduling bits as Jia et al. found them ("Dissecting the NVIDIA Volta GPU Architecture via
    Microbenchmarking", 2018, section 2.1), which Ampere and Hopper kept."""

    address: int
    predicate: str | None
    opcode: str
    operands: str
    # Where it comes from, and the calls that were inlined to get there, innermost first.
    frames: tuple[Place, ...]
    # Cycles until the warp may issue the next one.
    stall: int = 1
    # Scoreboards that are set until the result is there, or the operands read.
    writes: int | None = None
    reads: int | None = None
    # Scoreboards that must be clear before it is issued.
    waits: tuple[int, ...] = ()

    def schedule(self, upper: int) -> None:
        """Bits 105 to 121 of the 128."""
        self.stall = max(upper >> 41 & 15, 1)
        writes, reads = upper >> 46 & 7, upper >> 49 & 7
        self.writes = None if writes == NONE else writes
        self.reads = None if reads == NONE else reads
        self.waits = tuple(i for i in range(6) if upper >> 52 + i & 1)

    @cached_property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.split(".")[0]

    @cached_property
    def target(self) -> str | None:
        found = TARGET.search(self.operands)
        return found[1] if found else None

    @cached_property
    def targets(self) -> list[str]:
        """Where a jump may lead: a place, or any of a table."""
        table = TABLE.search(self.operands)
        return table[1].split(",") if table else [self.target]

    @property
    def is_jump(self) -> bool:
        """BRA.DIV is none: only warps whose lanes have come apart take it. sm_80 has calls that never return."""
        is_branch = self.name == "BRA" and not self.opcode.startswith("BRA.DIV")
        is_table = TABLE.search(self.operands) is not None
        return is_branch or is_table or self.name == "CALL" and self.target.startswith(".L_")

    @property
    def is_certain(self) -> bool:
        """Whether it has no condition, neither ahead of it nor among its operands."""
        return self.predicate is None and (self.name != "BRA" or not self.is_jump or self.operands.startswith("`"))


@dataclass
class Function:
    """One kernel, and functions that it has to itself."""

    name: str
    code: list[Instruction]
    labels: dict[str, int]


def parse(text: str) -> dict[str, Function]:
    """The kernels of a disassembly by name."""
    functions: dict[str, Function] = {}
    current, frames, fresh = None, [], False
    for line in text.splitlines():
        if section := SECTION.match(line):
            current = functions.setdefault(section[1], Function(section[1], [], {}))
        elif current is None:
            continue
        elif frame := FRAME.match(line):
            # A frame right after another one belongs to the same instructions.
            frames = [*(frames if fresh else []), Place(Path(frame[1]), int(frame[2]))]
            fresh = True
        elif label := LABEL.match(line):
            current.labels[label[1]] = len(current.code)
        elif code := CODE.match(line):
            current.code.append(Instruction(int(code[1], 16), code[2], code[3], code[4], tuple(frames)))
            fresh = False
        elif current.code and (upper := UPPER_HALF.match(line)):
            current.code[-1].schedule(int(upper[1], 16))
    if not functions:
        raise Refusal("the disassembly has no kernels")
    return functions
