"""What can the processor do? Asked without Keras, which takes seconds to import."""

import os
import re
from pathlib import Path

# of the instruction sets that oneDNN can be held to, those that multiply bfloat16; besides, all that begin with these
BFLOAT16_ISAS = (
    "DEFAULT",
    "ALL",
    "AVX2_VNNI_2",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
)
BFLOAT16_FAMILIES = ("AVX10", "AVX512_CORE_AMX")


def multiplies_bfloat16() -> bool:
    """Whether the processor can, and the environment does not keep oneDNN, which does it, from using that.

    Returns:
        False also where /proc/cpuinfo is missing, as nothing is known then.
    """
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or not re.search(
        "avx512_bf16|amx_bf16", cpuinfo.read_text()
    ):
        return False
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return False
    highest = (
        os.environ.get("ONEDNN_MAX_CPU_ISA")
        or os.environ.get("DNNL_MAX_CPU_ISA")
        or "DEFAULT"
    )
    return highest.upper() in BFLOAT16_ISAS or highest.upper().startswith(
        BFLOAT16_FAMILIES
    )
