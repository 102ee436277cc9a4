"""
The field in tetrahedra
=======================

A head of tetrahedra takes the same calls as one of voxels, such as `jm.plot.slices`. Here five shells; a SimNIBS head
is `jm.head.load("m2m_subject/")`.
"""

import jaxm2m as jm

head = jm.head.tetrahedralise(jm.head.sphere(radii=(70, 78, 80, 86, 92), spacing=6.0))
target = (-35, -15, 63)
coil = jm.coil.figure8()
pose = jm.coil.place(head.scalp, target=target, handle=(-1, -1, 0), distance=4.0)
field = jm.efield.Simulator(head)(coil, pose, didt=1e6)
figure = jm.plot.slices(field, target)
