"""What only a process with torch can tell, as one JSON object; test_torchtitan.py runs it once.

torch and torchtitan are kept out of the tests' own process, whose warnings are errors.
"""

import json
import sys

import torch
import torchtitan.tools.utils as utils

from lawkit.backends.torchtitan.device import join, prepare


def left_alone_by_the_shim() -> bool:
    """Whether nothing of torchtitan's device is changed where torch finds a GPU."""
    here, before = torch.accelerator.current_accelerator, (utils.device_type, utils.device_module)
    torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
    try:
        return prepare() == "cuda" and (utils.device_type, utils.device_module) == before
    finally:
        torch.accelerator.current_accelerator = here


LEFT_ALONE = left_alone_by_the_shim()
DEVICE = prepare()
join(DEVICE)

from torch.nn.attention import SDPBackend  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from lawkit.backends.torchtitan import SIZES, plan, spec  # noqa: E402
from lawkit.backends.torchtitan.ladder import LLAMA3_VOCABULARY, PUBLISHED, size_from  # noqa: E402
from lawkit.backends.torchtitan.loader import MixtureLoader  # noqa: E402
from lawkit.backends.torchtitan.model import model_spec  # noqa: E402
from lawkit.corpus import open_corpus  # noqa: E402


def counts() -> dict:
    """Parameters of every size as torchtitan builds it, without any memory for them."""
    found = {}
    for size in SIZES:
        vocabulary = LLAMA3_VOCABULARY if size in PUBLISHED else 300
        with torch.device("meta"):
            model = model_spec(size, vocab_size=vocabulary, seq_len=256).model.build()
        named = {name: p.numel() for name, p in model.named_parameters()}
        embedding = named.pop("tok_embeddings.weight")
        head = named.pop("lm_head.weight")
        found[size.name] = {"blocks": sum(named.values()), "head": head, "embedding": embedding}
    return found


def flops() -> dict:
    """Operations of one step by torch's own counter, beside ours."""
    size = size_from({"dim": 32, "n_layers": 2, "n_heads": 2})
    model = model_spec(size, vocab_size=300, seq_len=64).model.build()
    with torch.no_grad():
        model.init_weights(buffer_device=None)
    for block in model.layers.values():
        # The counter knows the products of plain attention, not the fused kernel of a CPU.
        block.attention.inner_attention.sdpa_backends = [SDPBackend.MATH]
    tokens = torch.randint(300, (4, 64))
    with FlopCounterMode(display=False) as counter:
        model(tokens).float().logsumexp(-1).sum().backward()
    return {"counted": counter.get_total_flops(), "ours": 4 * 64 * size.flops_per_token(64, 300)}


def rows(corpus_folder: str, folder: str) -> dict:
    """The first steps of a run as 1, 2 and 4 ranks see them, and as a resumed one does."""
    corpus = open_corpus(corpus_folder)
    shape = {"dim": 16, "n_layers": 1, "n_heads": 1}
    run = plan(corpus, corpus_folder, size=shape, n_tokens=1e5, weights={"prose": 0.3, "code": 0.7},
               recipe={"seq_len": 32, "batch_rows": 8})  # fmt: skip
    spec.write_spec(run, folder)

    def loader(ranks: int, rank: int, local: int) -> MixtureLoader:
        return MixtureLoader.Config(run=folder).build(
            dp_world_size=ranks, dp_rank=rank, seq_len=32, local_batch_size=local
        )

    def steps(ranks: int, accumulate: int) -> list:
        local = 8 // (ranks * accumulate)
        iterators = [iter(loader(ranks, rank, local)) for rank in range(ranks)]
        found = []
        for _ in range(5):
            batch = [next(it)[0]["input"] for it in iterators for _ in range(accumulate)]
            found.append(sorted(torch.cat(batch).tolist()))
        return found

    one = steps(1, 1)
    first = loader(1, 0, 8)
    iterator = iter(first)
    for _ in range(3):
        next(iterator)
    resumed = loader(2, 1, 4)
    resumed.load_state_dict(first.state_dict())
    later = next(iter(resumed))[0]["input"].tolist()
    inputs, labels = next(iter(loader(1, 0, 8)))
    return {
        "same": [steps(2, 1) == one, steps(4, 1) == one, steps(2, 2) == one],
        "resumed": all(row in one[3] for row in later) and len(later) == 4,
        "shifted": bool((inputs["input"][:, 1:] == labels[:, :-1]).all()),
    }


if __name__ == "__main__":
    corpus_folder, folder = sys.argv[1:]
    found = {"device": DEVICE, "left_alone": LEFT_ALONE, "counts": counts(), "flops": flops()}
    print(json.dumps({**found, "rows": rows(corpus_folder, folder)}))
