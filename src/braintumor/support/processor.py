"""What can the processor do? Asked without Keras, which takes seconds to import."""

import os
import re
from pathlib import Path

# the instruction sets that oneDNN can be held to and that multiply bfloat16
BFLOAT16_ISAS = (
    "DEFAULT",
    "ALL",
    "AVX2_VNNI_2",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
)
# and what the names of others begin with
BFLOAT16_FAMILIES = ("AVX10", "AVX512_CORE_AMX")


def multiplies_bfloat16() -> bool:
    """Ask whether oneDNN can multiply bfloat16 natively here.

    Returns:
        Whether the processor can, and the environment lets oneDNN use that. False where
        /proc/cpuinfo is missing, as nothing is known then.
    """
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    if not re.search("avx512_bf16|amx_bf16", cpuinfo.read_text()):
        return False
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return False
    highest = os.environ.get("ONEDNN_MAX_CPU_ISA")
    if not highest:
        highest = os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    highest = highest.upper()
    return highest in BFLOAT16_ISAS or highest.startswith(BFLOAT16_FAMILIES)
