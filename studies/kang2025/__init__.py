"""Kang et al. 2025: how mixtures of web text with three kinds of synthetic text scale.

The main job of lawkit on figures that ship with it: fit, predict, optimise, propose. See the README.md
beside this file for where the figures come from; run it with ``python -m lawkit.studies.kang2025``.
"""
