"""Which generator, and how much of its text: the same documents and prompts, several models, the same proxy runs."""
