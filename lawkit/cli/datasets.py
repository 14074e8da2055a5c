"""``lawkit datasets``: public runs tables, fetched, checked and kept."""

from __future__ import annotations

import click

from lawkit.cli import _output


@click.group("datasets", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List public runs tables, or fetch one.

    They are downloaded from their authors' repositories, checked against a checksum and
    kept in a cache folder, or in the folder that LAWKIT_DATASETS names.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(as_json: bool = False) -> None:
    """List the tables, where they come from and which are here.

    \b
    Example:
      lawkit datasets list
    """
    from lawkit.io.datasets import DATASETS, datasets_folder, missing_files

    folder = datasets_folder()
    found = [
        {
            "name": dataset.name,
            "about": dataset.about,
            "here": bool(dataset.files) and not missing_files(dataset),
            "fetchable": bool(dataset.files),
            "folder": folder / dataset.name,
            "from": f"https://github.com/{dataset.repository} @{dataset.commit[:7]}",
            "licence": dataset.licence,
            "urls": [dataset.url(file) for file in dataset.files],
            "use": dataset.use,
        }
        for dataset in DATASETS
    ]
    if as_json:
        _output.emit_json({"folder": folder, "datasets": found})
        return
    state = {(True, True): "here", (False, True): "to fetch", (False, False): "by hand"}
    _output.show_table(
        ["dataset", "state", "what", "from", "licence"],
        [[d["name"], state[d["here"], d["fetchable"]], d["about"], d["from"], d["licence"]] for d in found],
    )
    _output.note(f"folder: {folder}")


@command.command("fetch")
@click.argument("name")
@click.option("--mirror", metavar="URL", help="Serve the repositories from here instead of GitHub.")
@click.option("--force", is_flag=True, help="Replace files whose content differs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def fetch(name: str, mirror: str | None, force: bool, as_json: bool) -> None:
    """Fetch a table into the cache folder and check it.

    Files that are there already are checked and kept.

    \b
    Examples:
      lawkit datasets fetch regmix
      LAWKIT_DATASETS=tables lawkit datasets fetch slimpajama7
    """
    from lawkit.io.datasets import PUBLIC, fetch_dataset, find_dataset

    dataset = find_dataset(name)
    with _output.working(f"fetching {name}", quiet=as_json):
        folder = fetch_dataset(name, mirror=mirror or PUBLIC, force=force)
    files = [folder / file.name for file in dataset.files]
    if as_json:
        _output.emit_json({"name": name, "folder": folder, "files": files, "use": dataset.use})
        return
    for file in files:
        _output.say(str(file))
    _output.note(f"in that folder: {dataset.use}")
