"""Reads what nvcc says and makes: registers and memory, instructions, sizes; and what they mean for occupancy."""

import re
import struct
from dataclasses import dataclass

from sources import Source


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor holds."""

    threads: int
    blocks: int
    shared: int
    registers: int = 65536


# CUDA C++ programming guide, "Technical specifications per compute capability".
MULTIPROCESSORS = {
    "80": Multiprocessor(2048, 32, 164 << 10),
    "90": Multiprocessor(2048, 32, 228 << 10),
    "100": Multiprocessor(2048, 32, 228 << 10),
    "120": Multiprocessor(1536, 24, 100 << 10),
}
WARP = 32
# Registers are given to warps in pieces of this size, shared memory to blocks; each block takes some for the system.
REGISTER_PIECE, SHARED_PIECE, SHARED_FOR_SYSTEM = 256, 128, 1 << 10


@dataclass
class Image:
    """One source and its figures, as `compile` keeps them."""

    source: Source
    figures: dict

    def rows(self) -> list[dict]:
        """A row for each kernel and architecture."""
        rows = [self.row(name, arch) for name in self.source.kernels for arch in self.source.architectures()]
        for row in rows:
            # Shares, so that the rows of a file add up to its seconds.
            row["compile_seconds"] = round(self.figures["seconds"] / len(rows), 4)
        return rows

    def row(self, name: str, arch: str) -> dict:
        threads = self.source.kernels[name]
        usage = self.figures["usage"].get(arch, {}).get(name, {})
        registers, shared = usage.get("registers", 0), usage.get("shared_bytes", 0)
        blocks = blocks_per_multiprocessor(arch, threads, registers, shared)
        most = MULTIPROCESSORS.get(number_of(arch))
        return {
            "name": name,
            "arch": arch,
            "source": self.source.label,
            "max_threads": threads,
            "registers": registers,
            "shared_bytes": shared,
            "stack_bytes": usage.get("stack_bytes", 0),
            "spill_bytes": usage.get("spill_bytes", 0),
            "occupancy": round(blocks * -(-threads // WARP) / (most.threads // WARP), 4) if most else None,
            "blocks_per_sm": blocks,
            "image_bytes": self.figures["code"].get(arch, {}).get(name, 0),
            "instructions": self.figures["instructions"].get(arch, {}).get(name, {}),
        }

    def strangers(self) -> list[str]:
        """Kernels of which declaration or code is missing."""
        found = []
        for arch in self.source.architectures():
            compiled, declared = set(self.figures["usage"].get(arch, {})), set(self.source.kernels)
            found += [f"{self.source.label}: {name} has no code for {arch}" for name in sorted(declared - compiled)]
            found += [f"{self.source.label}: {name} has no KERNEL line" for name in sorted(compiled - declared)]
        return list(dict.fromkeys(found))


def number_of(arch: str) -> str:
    return arch.removeprefix("sm_").rstrip("af")


def blocks_per_multiprocessor(arch: str, threads: int, registers: int, shared: int) -> int | None:
    """Blocks of `threads` that one multiprocessor holds, without dynamic shared memory; None for an unknown one."""
    most = MULTIPROCESSORS.get(number_of(arch))
    if most is None:
        return None
    warps = -(-threads // WARP)
    warp_registers = -(-registers * WARP // REGISTER_PIECE) * REGISTER_PIECE
    # A quarter of a multiprocessor has a quarter of its registers, and a warp stays in its quarter.
    by_registers = (most.registers // 4 // warp_registers) * 4 // warps if registers else most.blocks
    by_shared = most.shared // (-(-(shared + SHARED_FOR_SYSTEM) // SHARED_PIECE) * SHARED_PIECE)
    return min(most.blocks, most.threads // (warps * WARP), by_registers, by_shared)


def usage(log: str) -> dict:
    """From ptxas -v, by architecture and kernel. What functions that were not inlined take counts for their kernel."""
    found: dict = {}
    kernel: dict = {}
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
            kernel = found.setdefault(entry[2], {}).setdefault(
                entry[1], {"registers": 0, "shared_bytes": 0, "stack_bytes": 0, "spill_bytes": 0}
            )
        elif frame := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            kernel["stack_bytes"] = max(kernel["stack_bytes"], int(frame[1]))
            kernel["spill_bytes"] += max(int(frame[2]), int(frame[3]))
        elif used := re.search(r"Used (\d+) registers", line):
            kernel["registers"] = int(used[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                kernel["shared_bytes"] = int(shared[1])
            if stack := re.search(r"(\d+) bytes cumulative stack size", line):
                kernel["stack_bytes"] = int(stack[1])
    return found


def instructions(sass: str) -> dict:
    """From cuobjdump -sass: how often each opcode, without its modifiers, stands in a kernel's code."""
    found: dict = {}
    arch, counts = "", {}
    for line in sass.splitlines():
        if code := re.match(r"\s*code for (sm_\w+)", line):
            arch = code[1]
        elif function := re.match(r"\s*Function : (\w+)", line):
            counts = found.setdefault(arch, {}).setdefault(function[1], {})
        elif op := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", line):
            counts[op[1]] = counts.get(op[1], 0) + 1
    return found


def code_bytes(cubin: bytes) -> dict[str, int]:
    """Bytes of machine code of each kernel: the sections .text.NAME of an ELF file."""
    header = struct.unpack_from("<16sHHIQQQIHHHHHH", cubin)
    table, size, count, names_index = header[6], header[11], header[12], header[13]
    sections = [struct.unpack_from("<IIQQQQIIQQ", cubin, table + i * size) for i in range(count)]
    names = sections[names_index][4]

    def name(section) -> str:
        start = names + section[0]
        return cubin[start : cubin.index(b"\0", start)].decode()

    text = [(name(section), section[5]) for section in sections]
    return {label.removeprefix(".text."): length for label, length in text if label.startswith(".text.")}
