"""What a careful reviewer would check of a paper's numbers, one check a file.

    fingerprints    rows of real sets as hashes, so that overlap can be computed where the sets are not
    real_rows       which files those rows are read from; `python -m autosteer_lib.audit --rows <folder>` does it
    likeness        how alike two texts are by their words
    overlap         what two sets share, and what one holds twice
    contamination   what a rate can be on the rows that are left when some are set aside
    printed         a printed number as the interval that it stands for
    granularity     which percentages n answers can give at all
    paired_bounds   a paired test's p-value, from two rates alone, as bounds

Nothing here needs a model. The three papers' audit is study/audit.py and its neighbours, told in notebook 10.
"""
