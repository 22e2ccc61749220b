"""A rehearsal: a profile's own code from end to end on stand-ins, before anything is downloaded.

    model     the family of the profile's checkpoint, shrunk, weights drawn at random      tiny_models/, checkpoint.py
    sets      every published set that it lists, as rows of our own in its exact schema     rows.py
    judge     a coin, since nonsense can be neither refusal nor harm                        judge.py
    sizes     those of the smoke profile; all else is the profile's own                     profile.py
    gate      AutoSteer's opens on everything, so that steered answers are rehearsed too    profile.py
    run       the notebooks in order, by the driver that runs them for real                 __main__.py

It shows that a profile runs on this machine, not what it would find: no number of it means anything.
"""
