"""
A coil in the hand
==================

`jm.plot.live` is a widget: the coil is moved, and the field on the cortex, the numbers of the target and the muscles
follow. It needs a browser (the extra "live") and is not run when these pages are made; the picture was taken from this
call.

.. image:: /images/live.png
   :alt: A translucent head with its cortex coloured under a figure-8 coil; beside it sliders, numbers, bars of muscles.
   :width: 800
"""

# sphinx_gallery_thumbnail_path = 'images/live.png'


def show(basis_path, sources_path):
    import jaxm2m as jm

    head = jm.head.atlas(spacing=2.0)
    coil = jm.coil.figure8()
    basis = jm.efield.Basis.load(basis_path)
    sources = jm.muscle.Sources.load(sources_path)
    return jm.plot.live(head, basis.bind(jm.coil.tabulate(coil)), coil, target="C3", model=sources, didt=60e6)
