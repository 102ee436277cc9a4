"""
The coil over the scalp
=======================

`jm.plot.pose` draws windings, casing and axes of a coil: from the coil's side, and along its plane.
"""

import jaxm2m as jm

head = jm.head.atlas(spacing=4.0)
target = (-40, -20, 52)  # mm, MNI152: the left hand knob
coil = jm.coil.figure8()
pose = jm.coil.place(head.scalp, target=target, handle=(-1, -1, 0), distance=4.0)
figure = jm.plot.pose(head, coil, pose, target=target)
