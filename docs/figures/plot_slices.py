"""
The field in three planes
=========================

`jm.plot.slices` colours the magnitude of the field in white matter, grey matter and CSF. Each pixel takes the field of
its own tissue.
"""

import jaxm2m as jm

head = jm.head.atlas(spacing=4.0)
target = (-40, -20, 52)  # mm, MNI152
coil = jm.coil.figure8()
pose = jm.coil.place(head.scalp, target=target, handle=(-1, -1, 0), distance=4.0)
field = jm.efield.Simulator(head)(coil, pose, didt=1e6)
figure = jm.plot.slices(field, target)
