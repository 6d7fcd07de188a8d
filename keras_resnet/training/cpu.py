"""What the CPU is, and which 16-bit types it multiplies (Linux; elsewhere it is not known)."""

from pathlib import Path

# Instructions of x86 that multiply a policy's 16-bit type; oneDNN has no fast convolutions without them.
NATIVE = {
    "mixed_bfloat16": ("avx512_bf16", "amx_bf16"),
    "mixed_float16": ("avx512_fp16",),  # Linux does not show amx_fp16
}


def cpu_name() -> str:
    return _cpuinfo("model name") or "CPU"


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the CPU; empty where they are not known."""
    return frozenset(_cpuinfo("flags").split())


def native(policy: str) -> tuple[bool, str]:
    """Whether the CPU multiplies a policy's 16-bit type, and how that is known."""
    flags = cpu_flags()
    if not flags:
        return False, "what the CPU multiplies natively is not known"
    if found := sorted(flags & set(NATIVE[policy])):
        return True, f"the CPU multiplies {policy.removeprefix('mixed_')} natively ({found[0]})"
    return False, f"the CPU has no {' or '.join(NATIVE[policy])}"


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
