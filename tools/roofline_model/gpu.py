"""What a GPU does in a clock: the constants of the model and where they are from."""

import re
from dataclasses import dataclass

from sass import Instruction
from sources import Refusal

WARP = 32
# Cycles from issue until a scoreboard clears. Unloaded, Luo et al. ("Benchmarking and Dissecting the Nvidia Hopper GPU
# Architecture", 2024, arXiv 2402.13499) find about 30 for shared memory, 260 for the L2 cache and 480 for memory; the
# figures here allow for some load, and those of other classes are estimates.
LATENCY = {"shared": 33, "l2": 300, "memory": 650, "shuffle": 25, "special": 25, "constant": 30, "other": 25}
OPERANDS_READ = 15
BARRIER = 25
PIPES = ("issue", "tensor", "fp64", "fma", "alu", "special", "shared", "global")


@dataclass(frozen=True)
class Gpu:
    """One GPU; rates are per multiprocessor and clock."""

    name: str
    arch: str
    sms: int
    clock: float  # Hz that it holds under load
    memory: float  # bytes/s that a kernel reaches
    l2: float  # bytes/s
    fma: int  # f32 lanes
    fp64: int  # lanes
    tensor_16bit: int  # products of mma.sync, operands of 16 bits
    warpgroup_16bit: int  # the same of wgmma; 0: none
    tensor_fp64: int
    gap: float = 2e-6  # seconds from one kernel of a stream to the next; an estimate


GPUS = {
    # NVIDIA's H200 data sheet: 4.8 TB/s, 67 TFLOP/s f32 and f64 on tensor cores, 34 f64, 989 dense bf16, hence 2048 products
    # at 1.83 GHz. The clock is the 1.755 GHz that it holds under tensor load, not the 1.98 it boosts to; 4.3 TB/s is what
    # anchors.md counts on. mma.sync reaches 62 % of wgmma's rate (Luo et al.).
    "h200": Gpu("h200", "90", 132, 1.755e9, 4.3e12, 5.5e12, 128, 64, 1270, 2048, 128),
    # NVIDIA's A100 80 GB data sheet: 2.04 TB/s, 312 TFLOP/s dense bf16, 9.7 f64, 19.5 on tensor cores, 1.41 GHz.
    "a100": Gpu("a100", "80", 108, 1.41e9, 1.75e12, 3.5e12, 64, 32, 1024, 0, 64),
}

# The other rates are those of the CUDA programming guide's table "Throughput of native arithmetic instructions", the same
# for 8.0 and 9.0: results per clock, 32 to a warp's instruction.
ALU, SPECIAL, SHARED_BYTES, GLOBAL_BYTES = 64, 16, 128, 64

FMA = "FADD FMUL FFMA HADD2 HMUL2 HFMA2 FSWZADD FADD32I FMUL32I FFMA32I"
MULTIPLY = "IMAD IMUL IDP IDP4A"
FP64 = "DADD DMUL DFMA DSETP DMNMX"
INTEGER = """IADD3 IADD LOP3 PLOP3 LOP SHF SHL SHR ISETP FSETP HSETP2 SEL FSEL PRMT LEA VIADD VIADDMNMX VIMNMX IMNMX IABS
FMNMX MOV FCHK F2FP SGXT BMSK R2P P2R VOTE VOTEU I2FP HMNMX2 VABSDIFF CS2R I2IP"""
SPECIAL_UNITS = "MUFU POPC FLO BREV F2F F2I I2F FRND MATCH REDUX"
CONTROL = """BRA BRX BRXU EXIT BSSY BSYNC BREAK BAR WARPSYNC NOP NANOSLEEP YIELD CALL RET MEMBAR DEPBAR LDGDEPBAR ERRBAR CCTL
CGAERRBAR FENCE BPT WARPGROUP ENDCOLLECTIVE LDC S2R S2UR R2UR B2R R2B BMOV ELECT SYNCS ARRIVES QSPC"""
CLASSES = {op: "fma" for op in FMA.split()} | {op: "imad" for op in MULTIPLY.split()} | {op: "fp64" for op in FP64.split()}
CLASSES |= {op: "alu" for op in INTEGER.split()} | {op: "special" for op in SPECIAL_UNITS.split()}
CLASSES |= {op: "control" for op in CONTROL.split()}
CLASSES |= {op: "shared" for op in "LDS STS LDSM STSM ATOMS SHFL MOVM".split()} | {"LDGSTS": "async"}
CLASSES |= {op: "global" for op in "LDG STG LDL STL RED ATOM ATOMG REDG".split()}
CLASSES |= {op: "generic" for op in "LD ST".split()}
CLASSES |= {op: "tensor" for op in "HMMA IMMA DMMA HGMMA IGMMA QGMMA BMMA".split()}


def class_of(code: Instruction, generic: str) -> str:
    """The unit of an instruction; `generic` is that of addresses of which the code does not say where they lead."""
    if kind := CLASSES.get(code.name):
        return generic if kind == "generic" else kind
    if code.name.startswith("U"):
        return "control"  # the uniform datapath has a unit of its own
    raise Refusal(f"no unit is known for {code.opcode} (at {code.address:#x})")


def work(gpu: Gpu, code: Instruction, generic: str = "global") -> dict[str, float]:
    """Clocks of a whole multiprocessor's units that one warp's instruction takes."""
    kind = class_of(code, generic)
    taken = {"issue": 1 / 4}
    if kind == "fma":
        taken["fma"] = WARP / gpu.fma
    elif kind == "imad":
        taken["fma"] = WARP / 64
    elif kind == "fp64":
        taken["fp64"] = WARP / gpu.fp64
    elif kind == "alu":
        taken["alu"] = WARP / ALU
    elif kind == "special":
        # Conversions that leave 64 bits aside are quicker than other things here.
        quick = code.name in ("F2F", "F2I", "I2F") and "64" not in code.opcode
        taken["special"] = WARP / (ALU if quick else SPECIAL)
    elif kind in ("shared", "async"):
        taken["shared"] = max(bytes_of(code) * WARP / SHARED_BYTES, 1)
    elif kind == "global":
        taken["global"] = max(bytes_of(code) * WARP / GLOBAL_BYTES, 1)
    elif kind == "tensor":
        taken["tensor"] = products(code) / tensor_rate(gpu, code)
    if kind == "async":
        taken["global"] = bytes_of(code) * WARP / GLOBAL_BYTES
    return taken


def bytes_of(code: Instruction) -> int:
    """Bytes of one lane."""
    if code.name in ("LDSM", "STSM"):
        matrices = re.search(r"\.([124])$", code.opcode.removesuffix(".T").replace(".MT88", ".M88"))
        return 4 * int(matrices[1]) if matrices else 4
    modifiers = code.opcode.split(".")[1:]
    widths = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
    return next((widths[m] for m in modifiers if m in widths), 4)


def products(code: Instruction) -> float:
    """Multiply-adds of one warp's instruction: of a shape such as 16816, m16n8k16, or 64x128x16 for four warps."""
    if wide := re.search(r"\.(\d+)x(\d+)x(\d+)", code.opcode):
        return int(wide[1]) * int(wide[2]) * int(wide[3]) / 4
    shape = re.search(r"\.(?:SP\.)?(16|8)8?(\d+)(?:\.|$)", code.opcode)
    if not shape:
        raise Refusal(f"the shape of {code.opcode} is not understood")
    return int(shape[1]) * 8 * int(shape[2])


def tensor_rate(gpu: Gpu, code: Instruction) -> float:
    """Products per clock of a multiprocessor: with tf32 half as many as with 16 bits, with int8 and f8 twice as many, and
    with sparse operands too."""
    if code.name == "DMMA":
        return gpu.tensor_fp64
    rate = float(gpu.warpgroup_16bit if code.name.endswith("GMMA") else gpu.tensor_16bit)
    if "TF32" in code.opcode:
        rate /= 2
    if code.name in ("IMMA", "QGMMA", "IGMMA"):
        rate *= 2
    return rate * 2 if ".SP" in code.opcode else rate


def latency(code: Instruction, served: str, generic: str) -> float:
    """Cycles until a result is there, where a scoreboard guards it."""
    kind = class_of(code, generic)
    if code.name in ("SHFL", "MOVM"):
        return LATENCY["shuffle"]
    if code.name in ("LDC", "ULDC", "LDCU"):
        return LATENCY["constant"]
    if code.name == "LDL":
        return LATENCY["shared"]
    if kind in ("global", "async"):
        return LATENCY[served]
    return LATENCY[kind if kind in LATENCY else "other"]
