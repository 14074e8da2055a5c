"""Generators: synthetic text on demand, installed as ``lawkit.generators``.

No generator ships with this version: lawkit fits, optimises and proposes over sources that
exist already, natural or synthetic. The entry-point group ``lawkit.generators`` is the place
where a generator, ours or a third party's, is found by name::

    [project.entry-points."lawkit.generators"]
    mine = "package.module:Generator"
"""
