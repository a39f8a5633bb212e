"""How much graphics memory this process takes, as NVIDIA's driver says."""

import os


def used_vram_mb() -> int:
    """Of this process, on all cards together; 0 where there is no NVIDIA card."""
    try:
        import pynvml  # type: ignore[import-untyped]  # it has none
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return sum(_on_card(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(_cards()))
    except pynvml.NVMLError:
        return 0
    finally:
        pynvml.nvmlShutdown()


def _cards() -> int:
    import pynvml

    return int(pynvml.nvmlDeviceGetCount())


def _on_card(handle: object) -> int:
    import pynvml

    processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return sum((p.usedGpuMemory or 0) >> 20 for p in processes if p.pid == os.getpid())
