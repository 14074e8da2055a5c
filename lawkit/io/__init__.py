"""Tables in and out: readers, importers of other people's tables, checks, public datasets."""
