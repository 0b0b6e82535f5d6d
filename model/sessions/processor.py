"""What the processor computes fast, as Linux tells it."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Instructions that multiply and add in it, any of which will do."""


def computes_in(instructions: frozenset[str]) -> bool:
    """Say whether the processor has one of some instructions; where nobody tells, it has none."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return not instructions.isdisjoint(flags.split())
