"""Basic blocks of a kernel, its natural loops, and the dearest way through them."""

from dataclasses import dataclass, field

from sass import Function, Instruction
from sources import Refusal

TABLES = ("BRX", "BRXU", "JMX", "JMP")
ENDS = ("BRA", "EXIT", "RET", "CALL", *TABLES)


@dataclass
class Block:
    """Instructions that run one after another."""

    index: int
    code: list[Instruction]
    after: list[int] = field(default_factory=list)


@dataclass
class Loop:
    """A natural loop, or the kernel as a whole, which is one that runs once."""

    header: int
    blocks: set[int]
    latches: list[int] = field(default_factory=list)
    inner: list["Loop"] = field(default_factory=list)
    outer: "Loop | None" = None
    # As a workload says: which loop of the source it is of, and how often it runs per entry.
    source: str = ""
    trips: float = 1.0

    def own(self) -> set[int]:
        """Blocks in no loop within it."""
        return self.blocks.difference(*(loop.blocks for loop in self.inner))

    def all_inner(self) -> list["Loop"]:
        return [found for loop in self.inner for found in (loop, *loop.all_inner())]


def blocks(function: Function) -> list[Block]:
    """All blocks. What a call does is left out: it is the slow way of a division or a root."""
    code, labels = function.code, function.labels
    starts = {0, *labels.values()} | {i + 1 for i, at in enumerate(code) if at.name in ENDS}
    starts = sorted(start for start in starts if start < len(code))
    index = {start: i for i, start in enumerate(starts)}
    found = []
    for i, (start, end) in enumerate(zip(starts, [*starts[1:], len(code)])):
        block, last = Block(i, code[start:end]), code[end - 1]
        if last.name in TABLES and not last.is_jump:
            raise Refusal(f"{function.name}: {last.opcode} leads to where only the GPU knows")
        if last.name == "CALL" and not last.is_jump and "__cuda_" not in last.operands:
            raise Refusal(f"{function.name}: calls {last.operands}, which is not inlined")
        if not (last.is_certain and (last.is_jump or last.name in ("EXIT", "RET"))) and end < len(code):
            block.after.append(index[end])
        for target in last.targets if last.is_jump else []:
            if index[labels[target]] not in block.after:
                block.after.append(index[labels[target]])
        found.append(block)
    return found


def ends_first(start: int, after) -> list[int]:
    """What is reached from a node, each node later than those that `after` says follow it, but for edges back."""
    order, seen, stack = [], {start}, [(start, iter(after(start)))]
    while stack:
        at, rest = stack[-1]
        following = next((node for node in rest if node not in seen), None)
        if following is None:
            order.append(at)
            stack.pop()
        else:
            seen.add(following)
            stack.append((following, iter(after(following))))
    return order


def dominators(graph: list[Block]) -> dict[int, set[int]]:
    """Blocks that every way from the entry to a block goes through; those that no way leads to are left out."""
    order = ends_first(0, lambda at: graph[at].after)
    order.reverse()
    before: dict[int, list[int]] = {at: [] for at in order}
    for at in order:
        for following in graph[at].after:
            before[following].append(at)
    above = {at: set(order) for at in order}
    above[0] = {0}
    changed = True
    while changed:
        changed = False
        for at in order[1:]:
            found = set.intersection(*(above[b] for b in before[at])) | {at}
            if found != above[at]:
                above[at], changed = found, True
    return above


def loops(graph: list[Block]) -> Loop:
    """The kernel, and in it its loops as they are nested."""
    above = dominators(graph)
    found: dict[int, Loop] = {}
    for at in above:
        for header in graph[at].after:
            if header in above[at]:
                loop = found.setdefault(header, Loop(header, {header}))
                loop.latches.append(at)
                loop.blocks |= body(graph, above, header, at)
    whole = Loop(0, set(above))
    nested = [whole]
    for loop in sorted(found.values(), key=lambda loop: -len(loop.blocks)):
        outer = min((o for o in nested if loop.blocks <= o.blocks), key=lambda o: len(o.blocks))
        outer.inner.append(loop)
        loop.outer = outer
        nested.append(loop)
    return whole


def body(graph: list[Block], reachable, header: int, latch: int) -> set[int]:
    """Blocks from which the latch is reached without the header."""
    before: dict[int, list[int]] = {}
    for at in reachable:
        for following in graph[at].after:
            before.setdefault(following, []).append(at)
    found, stack = {header}, [latch]
    while stack:
        at = stack.pop()
        if at not in found:
            found.add(at)
            stack += before.get(at, [])
    return found


def way(graph: list[Block], loop: Loop, length, best=max) -> list:
    """Blocks and inner loops that one run of a loop goes through: of all ways from its header back to it, or to an end
    of the kernel, the dearest (`best` = max) or cheapest, by the `length` of a block or loop."""
    node_of = {at: at for at in loop.own()}
    inner = {loop.header: loop for loop in loop.inner}
    for header, nested in inner.items():
        node_of |= {at: header for at in nested.blocks}
    after: dict[int, set[int]] = {node: set() for node in node_of.values()}
    for at, node in node_of.items():
        following = {node_of[f] for f in graph[at].after if f in node_of and f != loop.header}
        after[node] |= following - {node}
    leaves = [at for at in node_of if graph[at].code[-1].name in ("EXIT", "RET")]
    ends = {node_of[at] for at in loop.latches or leaves}
    costs: dict[int, tuple[float, int | None]] = {}
    order = ends_first(node_of[loop.header], lambda node: sorted(after[node]))
    place = {node: i for i, node in enumerate(order)}
    for node in order:
        if any(place[following] > place[node] for following in after[node]):
            raise Refusal(f"the code at {graph[node].code[0].address:#x} repeats, but is no natural loop")
        ways = [(costs[following][0], following) for following in sorted(after[node]) if following in costs]
        ways += [(0.0, None)] if node in ends else []
        if ways:
            rest = best(ways, key=lambda way: way[0])
            costs[node] = length(inner.get(node) or graph[node]) + rest[0], rest[1]
    if order[-1] not in costs:
        raise Refusal(f"no way leads through the loop at {graph[loop.header].code[0].address:#x}")
    found, node = [], order[-1]
    while node is not None:
        found.append(inner.get(node) or graph[node])
        node = costs[node][1]
    return found
