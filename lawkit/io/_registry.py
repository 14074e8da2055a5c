"""The public runs tables that lawkit knows: where they are published and what they must contain."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DATASETS", "PUBLIC", "Dataset", "DatasetFile"]

PUBLIC = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class DatasetFile:
    """One file of a dataset.

    Attributes
    ----------
    name : str
        Its name in the dataset's folder.
    path : str
        Its path in the public repository.
    sha256 : str
        Checksum of the file in the folder.
    reshape : str or None
        How the published file becomes a table, where it is not one as it stands.
    """

    name: str
    path: str
    sha256: str
    reshape: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A public runs table.

    Attributes
    ----------
    name : str
        Its name, and that of its folder.
    about : str
        What it holds.
    repository, commit : str
        GitHub repository and the commit that the checksums belong to.
    licence : str
        As the authors state it.
    files : tuple of DatasetFile
        What to fetch; empty where the authors publish no file with the figures.
    use : str
        The command that brings it into the runs table.
    """

    name: str
    about: str
    repository: str
    commit: str
    licence: str
    files: tuple[DatasetFile, ...]
    use: str

    def url(self, file: DatasetFile, mirror: str = PUBLIC) -> str:
        """Return where a file is published."""
        return f"{mirror.rstrip('/')}/{self.repository}/{self.commit}/{file.path}"


def _files(folder: str, checksums: str, *, ending: str = "") -> tuple[DatasetFile, ...]:
    """Read lines as sha256sum prints them; `folder` is where the repository has the files."""
    lines = [line.split() for line in checksums.strip().splitlines()]
    return tuple(DatasetFile(name + ending, folder + name + ending, sha256) for sha256, name in lines)


_MEIQWQ = ("meiqwq/Explaining-Data-Mixing-Scaling-Laws", "c2bf1106e8e54b8d368cd6de2515d4804f1c8a36")

_CHINCHILLA = """
193478df4e90f040016431996c45682659306840ecdadf83cfb9cd5ca0aa1b30  svg_extracted_data.csv
"""

_REGMIX = """
04a32ef4ab594376bf90e11404c033668f887c351d6a03ad3744824c7296a2d8  train_mixture_1m.csv
49a959aa07ce5c20831d5abe3a7896ff0cd90a398bd407c8913fd5588be0465a  train_pile_loss_1m.csv
197267b7d6f15367e2f46c881e564c35b0d34e51b1754bb09d07e650cf8e1ce8  test_mixture_1m.csv
e027b1674f60140a65a87b5e4a59ab5f09dc33e8fd02c080682678074b160f53  test_pile_loss_1m.csv
197267b7d6f15367e2f46c881e564c35b0d34e51b1754bb09d07e650cf8e1ce8  test_mixture_60m.csv
8fe69d59ab7dd4fae4736459f4265ec93c7ed1ad1eca407346052560edc72b5b  test_pile_loss_60m.csv
"""

_GEMSTONES = """
655467b59c99383403d6f73f5b7f23c02aea3f12935dc110382d8a8b43a0ff5d  wandb_df_for_fitting_hot.jsonl
bdf01b6b21bafc414218124a6f9e195cee07f3d69ceacbfae2fcf069d34f4e61  wandb_df_for_fitting_cool_end.jsonl
"""

_SCALEBENCH = """
d0e6f059e657c7476f8f2636110e391d086c78bd826a50c4cc62f06e73c7b020  data_constrained_scaling_law/train
acdc55ff3bffb3020b365007d2b18bc0bf0ec3e359b2ceb3e09abe2bbb94cc2e  data_constrained_scaling_law/test
b2ca2e6ed1f78d0a462b425394fb748b4b489b079b1aa320753149e5368e2015  domain_mixture_scaling_law/train
98c4167b4b111814bcf8450bef0ec975239da067dd4f42ef6b71f4c1667705bc  farseer_scaling_law/train
3e8bf513e7c7da2b82e3d324c19643256e3f5cc5770aa4d0dcbc0aa3c38768e5  lr_bsz_scaling_law/train
fad8831bc25efb889e0581d5746697b979712ca86f3b4e8002760bde554ec7b6  moe_scaling_law/train
7bee730d20bf12888a1ecb2c72977a1049728b98668cad45b4f63e4098c5f1c0  moe_scaling_law/test
3bf76fabd8f7f5f1b90543b9cb9ef83db888c5674bdc9c4dc23277bd8a92f7b7  parallel_scaling_law/train
16f73df39117534390df840862fba13e4ce032b08c24b31b0406258987d6613c  parallel_scaling_law/test
a91b91ba7826bf262770ed6e7ab363274810819856e99981b5ad579576796127  sparsity_scaling_law/train
959415949e790c46d30b445536d2a364d804c7c942398320dd0677ed3ecdf633  vocab_scaling_law/train
e94a7f367168596511ee0024fe52acca6ef1a2fceef9c605b6b5b62e748396cb  vocab_scaling_law/test
"""

DATASETS: tuple[Dataset, ...] = (
    Dataset(
        "chinchilla_epoch",
        "245 runs (N, C, loss) read off a figure of the Chinchilla paper; D = C/(6N)",
        "epoch-research/analyzing-chinchilla",
        "9225883",
        "none stated; figures with attribution",
        _files("data/", _CHINCHILLA),
        "lawkit runs import svg_extracted_data.csv --params-column 'Model Size' "
        "--flops-column 'Training FLOP' --losses loss -o runs.csv",
    ),
    Dataset(
        "regmix",
        "512 + 256 mixtures of 17 Pile sources at 1M parameters, 256 of them at 60M; 13 losses",
        "sail-sg/regmix",
        "b004d3a3f39846dcec6b3740da22bcd1ba95a5d0",
        "MIT",
        _files("data/", _REGMIX),
        "lawkit runs import train_mixture_1m.csv train_pile_loss_1m.csv --format regmix -o runs.csv",
    ),
    Dataset(
        "slimpajama7",
        "60 mixtures of 7 SlimPajama sources at 122M and 310M parameters, 11 checkpoints each; 8 losses",
        *_MEIQWQ,
        "none stated; figures with attribution",
        (
            DatasetFile(
                "runs_122M_310M.csv",
                "data/dmsl_llm_slimpajama.csv",
                "f199194d48065dbb46a43c767cdc450ccfac007de4fefb9580c7859ed788c179",
                reshape="slimpajama7",
            ),
        ),
        "lawkit runs import runs_122M_310M.csv --params-column model_size -o runs.csv",
    ),
    Dataset(
        "pile4",
        "40 mixtures of 4 Pile sources at 90M and 200M parameters, 3 to 8 billion tokens; 4 losses",
        *_MEIQWQ,
        "none stated; figures with attribution",
        (
            DatasetFile(
                "runs_90M_200M.csv",
                "utils/datas/domain4.py",
                "b5b768017c0c0bef821fdebd9c8d7aa2eeb84ad2d0d3ba704fcaa7b1a5ee4c79",
                reshape="pile4",
            ),
        ),
        "lawkit runs import runs_90M_200M.csv --params-column model_size -o runs.csv",
    ),
    Dataset(
        "datablations",
        "296 runs on repeated data (N, D, unique tokens, loss), collected from the authors' notebooks",
        "huggingface/datablations",
        "1370131",
        "Apache-2.0",
        (),
        "lawkit runs import points.csv --params-column params --tokens-column tokens --source c4 "
        "--unique unique_tokens --losses c4=val_loss --run-id-column name -o runs.csv",
    ),
    Dataset(
        "gemstones",
        "220 + 199 runs (N, D, width, depth, loss), before and after the learning rate is cooled down",
        "mcleish7/gemstone-scaling-laws",
        "5f420478f6057b0cbb4d13405fb10ca64675bccb",
        "MIT",
        _files("wandb_dfs/", _GEMSTONES),
        "lawkit runs import wandb_df_for_fitting_hot.jsonl --params-column params_active_precise "
        "--tokens-column tokens --run-id-column run_name --losses final_loss -o runs.csv",
    ),
    Dataset(
        "scalebench",
        "8 law-fitting tasks with their training figures, four with their tests",
        "PlanarG/active-sl",
        "e0a58ffde4f6fdfb20880d47d6d180fdbcb1440d",
        "MIT / CC-BY-4.0",
        _files("benchmark/dataset/", _SCALEBENCH, ending="-00000-of-00001.parquet"),
        "tables of other shapes, for tests of laws; see the repository",
    ),
)
