"""What the CPU is, and which 16-bit types it multiplies."""

from __future__ import annotations

from pathlib import Path

# Instructions of x86 that multiply a policy's 16-bit type; oneDNN has no fast convolutions without them.
NATIVE = {
    "mixed_bfloat16": ("avx512_bf16", "amx_bf16"),
    "mixed_float16": ("avx512_fp16",),  # Linux does not show amx_fp16
}


def cpu_name() -> str:
    """Model name of the CPU, as the kernel gives it."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "CPU"


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the CPU on Linux; empty elsewhere."""
    for line in _cpuinfo():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def native(policy: str) -> tuple[bool, str]:
    """Whether the CPU multiplies a policy's 16-bit type, and how that is known."""
    flags = cpu_flags()
    if not flags:
        return False, "what the CPU multiplies natively is not known"
    if not flags & set(NATIVE[policy]):
        return False, f"the CPU has no {' or '.join(NATIVE[policy])}"
    named = ", ".join(sorted(flags & set(NATIVE[policy])))
    return True, f"the CPU multiplies {policy.removeprefix('mixed_')} natively ({named})"


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
