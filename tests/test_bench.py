"""What the benches read from compiled programs."""

from infojax.bench.collectives import Collective, bytes_moved, collectives


class Program:
    """Some HLO, as XLA prints it."""

    def __init__(self, *lines):
        self.lines = lines

    def as_text(self):
        return "\n".join(self.lines)


def test_collectives_of_a_text():
    program = Program(
        "%fused_computation.200 (param_0: bf16[4,4]) -> bf16[8,4] {",
        '  %gather.1 = bf16[8,4]{1,0} all-gather(%x), channel_id=2, metadata={op_name="a"}',
        "%async_collective_fusion.68 (param_0: bf16[4,4]) -> bf16[8,4] {",
        '  %gather.2 = bf16[8,4]{1,0:T(8,128)S(1)} all-gather(%x), channel_id=2, metadata={op_name="a"}',
        "ENTRY %main.50_spmd (param.11: f32[1024,32]) -> f32[] {",
        "  %r = (f32[10]{0:T(128)S(1)}, f32[10,128]{1,0:T(8,128)}) all-reduce(%a, %b), channel_id=1, to_apply=%add",
        "  %again = f32[8,4]{1,0} all-reduce(%y), channel_id=1",
        "  %twice = f32[8,4]{1,0} all-reduce(%again), channel_id=1",
        "  %cp = (f32[4,64]{1,0}, f32[4,64]{1,0}, u32[]{:S(2)}, u32[]) collective-permute-start(%z), channel_id=3",
        "  %done = f32[4,64]{1,0} collective-permute-done(%cp)",
        "  %scalar = f32[] all-reduce-start(%s), channel_id=4",
        "  %dot = f32[512,512]{1,0} dot(%all-reduce.1, %ag)",
    )
    reduced = [("all-reduce", 40 + 5120), ("all-reduce", 128), ("all-reduce", 128)]
    expected = [("all-gather", 64), *reduced, ("collective-permute", 1024), ("all-reduce", 4)]
    assert collectives(program) == [Collective(*pair) for pair in expected]
    assert bytes_moved(program) == {"all-reduce": 5420, "all-gather": 64, "collective-permute": 1024}
