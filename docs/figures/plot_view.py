"""
In three dimensions
===================

`jm.plot.view` shows scalp, cortex, field and coil, to be turned with the mouse. It needs PyVista (the extra "view") and
is not run when these pages are made; the picture was taken from this call.

.. image:: /images/view.png
   :alt: The coil over a transparent head; under it the field on the cortex.
   :width: 600
"""

# sphinx_gallery_thumbnail_path = 'images/view.png'


def show(path):
    import jaxm2m as jm

    head = jm.head.atlas(spacing=4.0)
    target = (-40, -20, 52)  # mm, MNI152
    coil = jm.coil.figure8()
    pose = jm.coil.place(head.scalp, target=target, handle=(-1, -1, 0), distance=4.0)
    field = jm.efield.Simulator(head)(coil, pose, didt=1e6)
    jm.plot.view(head, coil, pose, field=field, target=target).show(screenshot=path)
