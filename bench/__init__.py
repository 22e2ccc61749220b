"""Speed and memory, as ratios of alternated samples from one run: `python -m bench`. See README.md here."""
