"""Answers from many processes at once: a model on each card of a machine, or of many machines, by Ray.

    on_ray.py        OnRay: hands batches out, takes answers in, survives the death of actors and nodes
    remote_desk.py   what runs in an actor: one resident model
    cluster.py       which Ray, how many actors, does it fit? and the variable by which notebooks hear of it
    slurm.sh         a Ray of all nodes of a SLURM allocation

Ray is optional: nothing here imports it before it is asked for.
"""
