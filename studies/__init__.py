"""Studies: one folder each, with its spec, what it runs, and its measured results.

The folder ``studies/`` at the top of the repository is installed as ``lawkit.studies``.
Each study runs as a module, for example ``python -m lawkit.studies.kang2025``.
"""
