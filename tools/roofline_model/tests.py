"""Code is read, loops are found, and times follow from them. `python3 -m unittest tests` in this folder."""

import argparse
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools/kernel_report"))

import budget
import compile
import flow
import gpu
import report
import sass
import timing
from flow import Block, Loop
from sources import Refusal
from workload import Laid, Launch, Lines, Runs, Share

H200 = gpu.GPUS["h200"]
# Encodings that nvcc 13.0 made for sm_90.
SASS = """\
//--------------------- .text.planted          --------------------------
.text.planted:
	//## File "/k/device/a.cuh", line 7 inlined at "/k/x.cu", line 12
	//## File "/k/x.cu", line 12
        /*00a0*/                   LDG.E R2, desc[UR8][R2.64] ;                          /* 0x0000000802027981 */
                                                                                         /* 0x000ea4000c1e1900 */
	//## File "/k/x.cu", line 13
        /*00b0*/                   ISETP.NE.AND P0, PT, R2, UR4, PT ;                    /* 0x0000000402007c0c */
                                                                                         /* 0x004fda000bf05270 */
.L_x_1:
        /*00c0*/               @P0 STS.64 [R0+-0x800], RZ ;                              /* 0xfff800ff00007388 */
                                                                                         /* 0x0001e40000000a00 */
        /*00d0*/               @P0 BRA `(.L_x_1) ;                                       /* 0xfffffffc00b09947 */
                                                                                         /* 0x000fec000383ffff */
        /*00e0*/                   EXIT ;                                                /* 0x000000000000794d */
                                                                                         /* 0x000fea0003800000 */
"""

PLANTED = """\
#include "device/mma.cuh"
struct Params { const uint32_t* from; float* to; int steps, parts; };
__device__ __forceinline__ float sum_of(const float* x, int n) {
    float sum = 0;
    for (int k = 0; k < n; k++) sum += x[k];
    return sum;
}
KERNEL(planted, Params, 128) {
    __shared__ float kept[128];
    float d[4] = {};
    for (int part = 0; part < p.parts; part++) {
        const uint32_t a[4] = {p.from[part], 1, 2, 3};
#pragma unroll UNROLLED
        for (int step = 0; step < p.steps; step++) mma_m16n8k16(d, a, a[0], step, bf16{});
        kept[threadIdx.x] = d[0];
        __syncthreads();
        d[0] = kept[127 - threadIdx.x];
        __syncthreads();
    }
#pragma unroll 2
    for (int outer = 0; outer < p.parts; outer++) {
#pragma unroll 1
        for (int inner = 0; inner < p.steps; inner++) mma_m16n8k16(d, {1, 2, 3, 4}, outer, inner, f16{});
        d[2] += outer;
    }
    d[3] += sum_of(p.to + 1000, p.steps);  // first
    d[3] *= sum_of(p.to + 2000, p.parts);  // second
    if (p.steps == 77) {
        for (int i = 0; i < p.parts; i++) p.to[i] += d[1];
    }
    p.to[threadIdx.x] = d[0] * d[1] * d[3];
}
"""
STEPS = Runs("for (int step = 0;", 10, {"HMMA": 1})
PARTS = Runs("for (int part = 0;", 6)
RARE = Runs("for (int i = 0;", 6, {"STG": 1})
OUTER, INNER = Runs("for (int outer = 0;", 7, {"loops": 1}), Runs("for (int inner = 0;", 9, {"HMMA": 1})
SUM = Runs("for (int k = 0;", 5, {"FADD": 1})
LOOPS = [STEPS, PARTS, RARE, OUTER, INNER, SUM]
LAUNCH = Launch("planted", "x/planted.cu", 132, 128, loops=LOOPS)


def instruction(text: str, stall: int = 4, **schedule) -> sass.Instruction:
    opcode, _, operands = text.partition(" ")
    return sass.Instruction(0, None, opcode, operands, (), stall, **schedule)


def follow(code: list[sass.Instruction], warps: int, trips: float = 1, rare=()) -> timing.Alone:
    """A block of warps that runs code so many times, then ends."""
    graph = [Block(0, code, [0, 1]), Block(1, [instruction("EXIT", 1)])]
    loop = Loop(0, {0}, [0], trips=trips)
    laid = mock.Mock(launch=LAUNCH, weight=lambda block, code: (0.25 if code in rare else 1.0, 1.0))
    return timing.Runner(H200, graph, laid, warps).run(Loop(0, {0, 1}, inner=[loop]))


class Reading(unittest.TestCase):
    def test_encodings_hold_stalls_and_scoreboards(self):
        code = sass.parse(SASS)["planted"].code
        self.assertEqual([c.stall for c in code], [2, 13, 2, 6, 5])
        boards = [(c.writes, c.reads, c.waits) for c in code[:3]]
        self.assertEqual(boards, [(2, None, ()), (None, None, (2,)), (None, 0, ())])
        self.assertEqual([c.opcode for c in code], ["LDG.E", "ISETP.NE.AND", "STS.64", "BRA", "EXIT"])
        self.assertEqual([(p.file.name, p.line) for p in code[0].frames], [("a.cuh", 7), ("x.cu", 12)])
        self.assertEqual([(p.file.name, p.line) for p in code[3].frames], [("x.cu", 13)])

    def test_blocks_and_loops(self):
        graph = flow.blocks(sass.parse(SASS)["planted"])
        self.assertEqual([(len(b.code), sorted(b.after)) for b in graph], [(2, [1]), (2, [1, 2]), (1, [])])
        loop = flow.loops(graph).inner[0]
        self.assertEqual((loop.header, loop.blocks, loop.latches), (1, {1}, [1]))

    def test_a_table_leads_to_all_its_places(self):
        table = 'BRXU UR4 -0x20   (*"BRANCH_TARGETS .L_x_2,.L_x_1,.L_x_2"*)'
        code = [instruction(text) for text in (table, "NOP", "BRA `(.L_x_2)", "EXIT")]
        graph = flow.blocks(sass.Function("k", code, {".L_x_1": 1, ".L_x_2": 3}))
        self.assertEqual([block.after for block in graph], [[2, 1], [2], []])
        with self.assertRaisesRegex(Refusal, "only the GPU knows"):
            flow.blocks(sass.Function("k", [instruction("BRX R2 -0x20"), instruction("EXIT")], {}))

    def test_the_dearer_of_two_ways_is_taken_and_loops_nest(self):
        after = [[1], [2, 3], [4], [4], [1, 5], []]
        graph = [Block(i, [instruction("NOP", stall)], a) for i, (stall, a) in enumerate(zip([1, 1, 9, 2, 1, 1], after))]
        graph[5].code.append(instruction("EXIT"))
        kernel = flow.loops(graph)
        length = lambda item: 1 if isinstance(item, Loop) else item.code[0].stall
        self.assertEqual([item.index for item in flow.way(graph, kernel.inner[0], length)], [1, 2, 4])
        self.assertEqual([item.index for item in flow.way(graph, kernel.inner[0], length, min)], [1, 3, 4])
        self.assertEqual(kernel.own(), {0, 5})

    def test_a_guard_reaches_what_is_only_behind_it(self):
        guard, other = (sass.Place(Path("k.cu"), line) for line in (5, 9))
        places = [[other], [guard, guard, other], [other], [guard, other, other]]
        after = [[1, 3], [2], [3], []]
        code = lambda frames: [sass.Instruction(0, None, "NOP", "", (place,)) for place in frames]
        laid = object.__new__(Laid)
        laid.graph = [Block(i, code(frames), to) for i, (frames, to) in enumerate(zip(places, after))]
        self.assertEqual(laid.behind((guard.file, 5, 6)), {1, 2})

    def test_what_instructions_take(self):
        tensor = {
            "HMMA.16816.F32.BF16": 2048 / 1270,
            "HMMA.1688.F32.TF32": 1024 / 635,
            "HMMA.SP.16832.F32.BF16": 4096 / 2540,
            "IMMA.16832.S8.S8": 4096 / 2540,
            "DMMA.884": 256 / 128,
            "HGMMA.64x128x16.F32.BF16": 64 * 128 * 16 / 4 / 2048,  # a warp's part
        }
        for opcode, clocks in tensor.items():
            self.assertAlmostEqual(gpu.work(H200, instruction(opcode))["tensor"], clocks, msg=opcode)
        shared = {"LDS": 1, "LDS.U16": 1, "LDS.64": 2, "STS.128": 4, "LDSM.16.MT88.4": 4, "LDSM.16.M88": 1, "SHFL.BFLY": 1}
        for opcode, clocks in shared.items():
            self.assertEqual(gpu.work(H200, instruction(opcode))["shared"], clocks, opcode)
        self.assertEqual(gpu.work(H200, instruction("DFMA")), {"issue": 0.25, "fp64": 0.5})
        with self.assertRaisesRegex(Refusal, "no unit is known for FROB.X"):
            gpu.work(H200, instruction("FROB.X"))


class Timing(unittest.TestCase):
    def test_a_result_is_waited_for(self):
        code = [instruction("LDS R0", 2, writes=0), instruction("FADD R1", 4, waits=(0,))]
        self.assertEqual(follow(code, 1).cycles, 33 + 4 + 1)
        self.assertEqual(follow(code, 1, 100).cycles, 100 * 37 + 1)

    def test_what_a_run_leaves_under_way_holds_up_the_next(self):
        code = [instruction("FADD R1", 4, waits=(0,)), instruction("LDS R0", 2, writes=0)]
        self.assertEqual(follow(code, 1).cycles, 4 + 2 + 1)
        self.assertEqual(follow(code, 1, 100).cycles, 4 + 99 * 37 + 2 + 1)

    def test_what_is_rare_is_rarely_waited_for(self):
        load, use = instruction("LDG R0", 4, writes=0), instruction("FADD R1", 4, waits=(0,))
        self.assertEqual(follow([load, use], 1, rare=[load]).cycles, 1 + 649 / 4 + 4 + 1)
        self.assertEqual(follow([load, use], 1, rare=[load, use]).cycles, 1 + 649 / 4 + 1 + 1)

    def test_copies_are_waited_for_by_groups(self):
        copy = [instruction("LDGSTS.E.BYPASS.128", 2), instruction("LDGDEPBAR", 2, writes=0)]
        self.assertEqual(follow([*copy, *copy, instruction("DEPBAR.LE SB0, 0x1", 1)], 1).cycles, 650 + 1 + 1)
        self.assertEqual(follow([*copy, *copy, instruction("DEPBAR.LE SB0, 0x0", 1)], 1).cycles, 4 + 650 + 1 + 1)

    def test_warps_share_units_between_barriers(self):
        code = [instruction("DFMA", 4)] * 10 + [instruction("BAR.SYNC", 5)]
        # 40 + 5 cycles for one; sixteen warps need 10 x 16 / 2 clocks of the f64 lanes, and 16 / 4 to issue the end.
        self.assertEqual(follow(code, 1).cycles, 45 + 25 + 1)
        self.assertEqual(follow(code, 16).cycles, 80 + 25 + 4)
        self.assertEqual(follow(code, 16, 7).cycles, 7 * (80 + 25) + 4)
        self.assertEqual(follow(code, 16, 7).work["fp64"], 7 * 80)

    def test_part_of_a_run_takes_part_of_its_time(self):
        code = [instruction("FADD", 10)]
        for trips in (0.25, 1, 2.5, 3, 40.75):
            self.assertAlmostEqual(follow(code, 1, trips).cycles, 10 * trips + 1)

    def test_waves_of_blocks(self):
        laid = mock.Mock(launch=Launch("k", "k", 132 * 5, 128, reads=4.3e6))
        one = timing.Alone(1755.0, {"fp64": 1000.0}, {})
        found = timing.times(H200, laid, [(1.0, one)], resident=2)
        # Two waves of two blocks a multiprocessor at 2000 clocks, and a block more.
        self.assertAlmostEqual(found.compute * H200.clock, 2 * 2000 + 1755)
        self.assertAlmostEqual(found.units["fp64"] * H200.clock, 5000)
        self.assertAlmostEqual(found.memory, 1e-6)
        self.assertEqual(found.bound, "latency")
        self.assertAlmostEqual(found.budget, found.compute + H200.gap)


@unittest.skipUnless((ROOT / ".toolkit/nvidia").is_dir() or shutil.which("nvcc"), "there is no nvcc")
class Compiled(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        (Path(folder.name) / "x").mkdir()
        self.kernels = Path(folder.name)

    def run_of(self, unrolled: int, gpu_name: str = "h200", **changes) -> timing.Alone:
        (self.kernels / "x/planted.cu").write_text(PLANTED.replace("UNROLLED", str(unrolled)))
        args = argparse.Namespace(root=ROOT, kernels=self.kernels, include=ROOT / "kernels", cache=self.kernels / "cache")
        launch = Launch(**{**vars(LAUNCH), **changes})
        usage, functions = budget.Images(gpu.GPUS[gpu_name], args).of(launch.source)
        graph = flow.blocks(functions["planted"])
        kernel = flow.loops(graph)
        laid = Laid(launch, graph, kernel, Lines())
        self.resident, self.times = budget.of_launch(
            launch, gpu.GPUS[gpu_name], usage["planted"], functions["planted"], Lines()
        )
        return timing.Runner(gpu.GPUS[gpu_name], graph, laid, 4).run(kernel)

    def test_products_of_known_loops_however_they_are_unrolled(self):
        for unrolled in (1, 2, 4):
            for name in ("h200", "a100"):
                made = self.run_of(unrolled, name, expect={"HMMA": 4 * (6 * 10 + 7 * 9)}).executed
                self.assertAlmostEqual(made["HMMA"], 4 * (6 * 10 + 7 * 9), msg=f"{unrolled} {name}")
                self.assertAlmostEqual(made["BAR"], 4 * 6 * 2)
                loops = [(at["depth"], at["loop"]) for at in self.times.loops]
                self.assertIn((1, STEPS.at), loops)
                self.assertTrue(all(at["cycles"] < self.times.cycles for at in self.times.loops))

    def test_trips_may_differ_from_entry_to_entry(self):
        loops = [Runs(STEPS.at, range(6), STEPS.each), *LOOPS[1:]]
        self.assertAlmostEqual(self.run_of(4, loops=loops).executed["HMMA"], 4 * (0 + 1 + 2 + 3 + 4 + 5 + 7 * 9))

    def test_a_loop_is_told_apart_by_where_it_is_inlined(self):
        both = self.run_of(1).executed["FADD"]
        second = Runs(f"{SUM.at} @ // second", 12, SUM.each)
        self.assertAlmostEqual(self.run_of(1, loops=[*LOOPS, second]).executed["FADD"], both + 4 * (12 - 5))

    def test_shares_thin_out_what_is_named(self):
        rare = self.run_of(1).executed["STG"]
        self.assertAlmostEqual(rare, 4 * (6 + 1))
        shares = [Share("p.to[i] += d[1]", time=0.0)]
        self.assertAlmostEqual(self.run_of(1, shares=shares).executed["STG"], 4)
        shares = [Share("for (int step", warps=0.5), Share("#pragma unroll 2", to="}", time=0.0)]
        self.assertAlmostEqual(self.run_of(1, shares=shares).executed["HMMA"], 4 * 6 * 10 / 2)

    def test_what_never_runs_needs_no_description(self):
        made = self.run_of(1, loops=[Runs(PARTS.at, 0), *LOOPS[2:]]).executed
        self.assertAlmostEqual(made["HMMA"], 4 * 7 * 9)
        self.run_of(1, loops=[], active=0.0)

    def test_a_wrong_description_is_refused(self):
        for loops, why in (
            (LOOPS[:2] + LOOPS[3:], r"nothing says how often the loop planted.cu:\d+ `for \(int i"),
            ([*LOOPS, Runs("for (int j", 3)], "no loop `for .int j` is in the code"),
            ([Runs(STEPS.at, 10, {"HMMA": 3}), *LOOPS[1:]], "no multiple"),
            ([Runs(STEPS.at, 10), *LOOPS[1:]], "needs `each`"),
            ([*LOOPS[:3], Runs(OUTER.at, 7), INNER, SUM], "'loops': 2} at a time"),
            ([*LOOPS, Runs("for (int", 3)], "more than one entry"),
        ):
            with self.assertRaisesRegex(Refusal, why):
                self.run_of(1, loops=loops)
        with self.assertRaisesRegex(Refusal, "0 lines have `gone`"):
            self.run_of(1, shares=[Share("gone", time=0)])
        with self.assertRaisesRegex(Refusal, "executes 492.0 HMMA, and its work is 984.0"):
            self.run_of(1, expect={"HMMA": 984})

    def test_blocks_that_leave_at_once_cost_little(self):
        self.run_of(1)
        full = self.times.latency
        self.run_of(1, active=0.0, blocks=132)
        self.assertLess(self.times.latency, full / 3)


class Measured(unittest.TestCase):
    def test_a_miss_is_marked(self):
        shape = {"batch": 512, "dtype": "bf16"}
        row = {"op": "svd", "params": {"batch": 512}, "device": "cuda:0", "dtype": "bf16", "seconds": {"median": 2e-3}}
        others = [{**row, "dtype": "f32"}, {**row, "device": "cpu"}]
        self.assertEqual(report.measured({"rows": [*others, row]}, "svd", shape, {}), 2e-3)
        self.assertIsNone(report.measured({"rows": others}, "svd", shape, {}))
        self.assertIsNone(report.measured({"rows": [row]}, "svd", {**shape, "batch": 16}, {}))
        named, usual = {**shape, "output": "usv"}, {"output": "usv"}
        self.assertEqual(report.measured({"rows": [row]}, "svd", named, usual), 2e-3)
        self.assertIsNone(report.measured({"rows": [row]}, "svd", {**shape, "output": "latents"}, usual))
        times = timing.Times(memory=1.6e-3, l2=0, units={}, latency=0, compute=0, gap=0, cycles=1, loops=[])
        for seconds, missed in ((2e-3, False), (2.1e-3, True), (1.1e-3, True), (None, False)):
            document = report.total("svd", "h200", shape, [(LAUNCH, 2, times)], seconds)
            self.assertEqual(document["missed"], missed)
            self.assertEqual("(missed)" in report.as_table(document), missed)


if __name__ == "__main__":
    unittest.main()
