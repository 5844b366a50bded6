"""What a figure was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

# Instruction sets that decide how fast int8 is, by their names in /proc/cpuinfo.
_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 bfloat16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bfloat16",
    "neon": "NEON",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "i8mm": "NEON int8 matrix product",
}
_PACKAGES = ("earmark", "numpy", "onnxruntime")


def machine(
    cpuinfo: Path = Path("/proc/cpuinfo"),
    governor: Path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
) -> dict[str, Any]:
    """The processor, its load and the software, as plain values.

    ``cpu``, ``features`` (instruction sets that matter for int8), ``cores``, ``system``, ``load``
    (average of the last minute, None where the system has none), ``governor`` (of the clock rate,
    None where there is none, as in most virtual machines), ``versions``.

    Args:
        cpuinfo: Linux' description of the processor; elsewhere less is known.
        governor: Linux' choice of the clock rate.
    """
    fields: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                fields.setdefault(name.strip().lower(), value.strip())
    flags = f"{fields.get('flags', '')} {fields.get('features', '')}".split()
    features = [name for flag, name in _FEATURES.items() if flag in flags]
    if not features and platform.machine().lower() in ("arm64", "aarch64"):
        features = ["NEON"]  # belongs to every 64-bit Arm
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "features": features,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "governor": governor.read_text().strip() if governor.is_file() else None,
        "versions": {"python": platform.python_version()}
        | {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine_line(found: dict[str, Any]) -> str:
    """One line for people."""
    features = f" ({', '.join(found['features'])})" if found["features"] else ""
    load = "" if found["load"] is None else f", load {found['load']:g}"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    governor = f", governor {found['governor']}" if found.get("governor") else ""
    return (
        f"{found['cpu']}{features}, {found['cores']} cores, {found['system']}{governor}{load}; "
        f"{versions}"
    )
