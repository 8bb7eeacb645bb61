"""What compilers print is read as it was meant. `python3 -m unittest tests` in this folder."""

import os
import struct
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import check
import measure
from sources import Refusal, Source, find_sources

# nvcc 13.0: two kernels, one with a function that was not inlined.
PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'svd_gram_f32' for 'sm_80'
ptxas info    : Function properties for svd_gram_f32
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 39 registers, used 1 barriers, 1024 bytes smem, 416 bytes cmem[0]
ptxas info    : Compile time = 12.3 ms
ptxas info    : Compiling entry function 'svd_solve_f32' for 'sm_90'
ptxas info    : Function properties for svd_solve_f32
    16 bytes stack frame, 24 bytes spill stores, 28 bytes spill loads
ptxas info    : Function properties for _Z5outerf
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 40 bytes cumulative stack size
"""

SASS = """\
	code for sm_90
		Function : svd_gram_f32
	.headerflags	@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                               /* 0x00000a00ff017b82 */
                                                                                        /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;                     /* 0x0000000000037919 */
        /*0020*/             @!UPT UIADD3 UR4, URZ, URZ, URZ ;                          /* 0x0000000000037919 */
        /*0030*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;                /* 0x0000000000037919 */
        /*10040*/                  HMMA.16816.F32 R4, R8, R12, R4 ;                     /* 0x0000000000037919 */
		Function : svd_solve_f32
        /*0000*/               @P1 BAR.SYNC.DEFER_BLOCKING 0x0 ;                        /* 0x0000000000037919 */
"""


class Reading(unittest.TestCase):
    def test_registers_memory_and_spills_by_architecture_and_kernel(self):
        found = measure.usage(PTXAS)
        plain = {"registers": 39, "shared_bytes": 1024, "stack_bytes": 0, "spill_bytes": 0}
        self.assertEqual(found["sm_80"], {"svd_gram_f32": plain})
        spilling = {"registers": 255, "shared_bytes": 0, "stack_bytes": 40, "spill_bytes": 32}
        self.assertEqual(found["sm_90"], {"svd_solve_f32": spilling})

    def test_instructions_with_predicates_and_without(self):
        found = measure.instructions(SASS)["sm_90"]
        self.assertEqual(found["svd_gram_f32"], {"LDC": 1, "LDG": 1, "UIADD3": 1, "HMMA": 2})
        self.assertEqual(found["svd_solve_f32"], {"BAR": 1})

    def test_code_sections_of_an_elf_file(self):
        names = b"\0.shstrtab\0.text.svd_gram_f32\0"
        header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF", 2, 190, 1, 0, 0, 64 + len(names), 0, 64, 0, 0, 64, 2, 0)
        strings = struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, 64, len(names), 0, 0, 1, 0)
        text = struct.pack("<IIQQQQIIQQ", 11, 1, 0, 0, 64, 4480, 0, 0, 1, 0)
        self.assertEqual(measure.code_bytes(header + names + strings + text), {"svd_gram_f32": 4480})

    def test_occupancy_is_that_of_the_tightest_limit(self):
        blocks = measure.blocks_per_multiprocessor
        self.assertEqual(blocks("sm_90a", 256, 32, 0), 8)  # threads
        self.assertEqual(blocks("sm_120", 256, 32, 0), 6)
        self.assertEqual(blocks("sm_90", 32, 32, 0), 32)  # blocks
        self.assertEqual(blocks("sm_120", 32, 32, 0), 24)
        self.assertEqual(blocks("sm_80", 256, 40, 0), 6)  # registers, a quarter of them to a quarter of the warps
        self.assertEqual(blocks("sm_80", 128, 255, 0), 2)
        self.assertEqual(blocks("sm_80", 128, 32, 40 << 10), 4)  # shared memory and the system's
        self.assertIsNone(blocks("sm_75", 32, 32, 0))


class Declarations(unittest.TestCase):
    def folder(self, text: str) -> Path:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        (Path(folder.name) / "svd").mkdir()
        (Path(folder.name) / "svd/gram.cu").write_text(text)
        return Path(folder.name)

    def test_kernel_lines_are_found_and_wrong_ones_refused(self):
        folder = self.folder("KERNEL(svd_gram_f32, GramParams, 256) { gram(p); }\n  KERNEL(x)\n")
        self.assertEqual(find_sources(folder, "gram")[0].kernels, {"svd_gram_f32": 256})
        with self.assertRaisesRegex(Refusal, "no kernels"):
            find_sources(folder, "solve")
        with self.assertRaisesRegex(Refusal, r"gram.cu:1: expected KERNEL"):
            find_sources(self.folder("KERNEL(svd_gram_f32, GramParams, kThreads) {}"), "")

    def test_ptx_is_of_the_oldest_architecture_or_of_none(self):
        source = Source(Path("gram.cu"), "svd/gram.cu")
        with mock.patch.dict(os.environ, {"LOWKEY_CUDA_ARCHS": "120,90a,100", "LOWKEY_CUDA_PTX": "on"}):
            self.assertEqual(source.targets()[3:], ["arch=compute_100,code=compute_100"])
            self.assertEqual(source.architectures(), ["sm_120", "sm_90a", "sm_100"])
        with mock.patch.dict(os.environ, {"LOWKEY_CUDA_ARCHS": "90", "LOWKEY_CUDA_PTX": "off"}):
            self.assertEqual(source.targets(), ["arch=compute_90,code=sm_90"])

    def test_code_and_declarations_must_agree(self):
        source = Source(Path("gram_sm90.cu"), "svd/gram_sm90.cu", {"svd_gram_f32": 256, "svd_gram_f16": 256})
        self.assertEqual(source.architectures(), ["sm_90a"])
        figures = {"usage": {"sm_90a": {"svd_gram_f32": {}, "svd_other": {}}}}
        found = measure.Image(source, figures).strangers()
        self.assertIn("svd/gram_sm90.cu: svd_gram_f16 has no code for sm_90a", found)
        self.assertIn("svd/gram_sm90.cu: svd_other has no KERNEL line", found)

    def test_allowances_and_budgets_are_refused_when_they_say_nothing(self):
        folder = self.folder("")
        allowances, budget = folder / "allowances.txt", folder / "budget.txt"
        self.assertEqual(check.read_allowances(allowances), [])
        allowances.write_text("# none\n\nsvd_* sm_90 spill<=32 the compiler unrolls what it must not\n")
        allowance = check.read_allowances(allowances)[0]
        row = {"name": "svd_gram_f32", "arch": "sm_90", "spill_bytes": 32, "stack_bytes": 8}
        self.assertTrue(allowance.covers(row, "spill") and not allowance.covers(row, "stack"))
        self.assertFalse(allowance.covers({**row, "spill_bytes": 33}, "spill"))
        self.assertFalse(allowance.covers({**row, "arch": "sm_80"}, "spill"))
        for wrong in ("svd_gram_f32 sm_90 spill<=32", "svd_gram_f32 sm_90 registers<=32 because"):
            allowances.write_text(wrong)
            with self.assertRaisesRegex(Refusal, "allowances.txt:1"):
                check.read_allowances(allowances)
        budget.write_text("image_bytes 10\ncompile_minutes 0.5\n")
        with self.assertRaisesRegex(Refusal, "no budget for kernels"):
            check.read_budget(budget)
        budget.write_text("image_bytes ten")
        with self.assertRaisesRegex(Refusal, "budget.txt:1"):
            check.read_budget(budget)


if __name__ == "__main__":
    unittest.main()
