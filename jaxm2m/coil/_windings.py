"""Coils computed from the geometry of their windings."""

import jax.numpy as jnp
import numpy as np

from jaxm2m import _check
from jaxm2m._pytree import StaticMetadata
from jaxm2m._types import DTypeLike
from jaxm2m.coil import _casing
from jaxm2m.coil._coil import Coil
from jaxm2m.coil._conductors import STEP, conductor_points
from jaxm2m.coil._didt import make_limits
from jaxm2m.coil._segments import Segments


def figure8(
    *,
    inner_diameter: float | int = 56.0,
    outer_diameter: float | int = 87.0,
    turns: int = 9,
    wing_distance: float | int = 90.0,
    wire_height: float | int = 7.0,
    layers: int = 2,
    casing_thickness: float | int = 3.0,
    sides: int = 24,
    didt_max: float | int = float("nan"),
    dtype: DTypeLike | None = None,
) -> Coil:
    """Build a planar figure-8 coil from its winding geometry; by default the Magstim 70 mm double coil.

    Each wing is `turns` concentric circles, equally spaced in radius; each turn, a strip standing on edge, is `layers`
    filaments at the Gauss points of its height. Diameters and turns (56 and 87 mm, 9 a wing) are the literature values
    for the Magstim coil (Thielscher and Kammer, Clin. Neurophysiol. 115, 2004, 1697). Wing distance, conductor height
    and its depth are not from there: they are those of the published 2712-dipole model of the coil (wings at +-45 mm,
    three layers of 7 mm in all from z = -3 to -10 mm).

    The current of positive dI/dt runs so that E = -dA/dt under the centre points along +y: 0.977 V/m at (0, 0, 40) mm
    and 1 A/us (0.988 V/m from the 2712-dipole model of the same coil).

    With the default 24 sides and 2 layers (864 segments) A differs from 400 sides and 6 layers by at most 0.004 % of
    its largest value 5 mm off the casing and 0.001 % at 40 mm; B by 0.015 and 0.001 % (root mean square). One layer
    (432 segments): 0.5 and 0.3 % in A.

    Parameters
    ----------
    inner_diameter, outer_diameter
        mm, between the centre lines of the innermost and outermost turn of a wing.
    turns
        Turns of each wing.
    wing_distance
        mm between the centres of the wings, along x.
    wire_height
        mm, extent of the conductor along z.
    layers
        Filaments for each turn (Gauss-Legendre points over the height).
    casing_thickness
        mm of plastic round the conductor. The casing's face towards the head is z = 0.
    sides
        Straight segments for each circle; they lie on a polygon of the circle's area, which removes the leading error
        of the polygon.
    didt_max
        Largest dI/dt, A/s, if known.
    dtype
        Of its arrays. Default: `jnp.result_type(float)`.

    Returns
    -------
    Coil
        One element of line segments, and a casing.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> coil = jm.coil.figure8()
    >>> below = jnp.array([[0.0, 0.0, 40.0]])  # mm
    >>> e = -jm.coil.vector_potential(coil, jnp.eye(4), below, didt=1e6)  # V/m of the free coil, along +y
    >>> [f"{abs(v):.2f}" for v in e[0]]
    ['0.00', '0.98', '0.00']
    """
    _check.positive(wing_distance, "wing_distance", zero=True)
    half = wing_distance / 2
    return _build_planar(
        "Figure-8",
        ((-half, -1.0), (half, 1.0)),
        inner_diameter,
        outer_diameter,
        turns,
        wire_height,
        layers,
        casing_thickness,
        sides,
        didt_max,
        dtype,
    )


def circular(
    *,
    inner_diameter: float | int = 66.0,
    outer_diameter: float | int = 123.0,
    turns: int = 14,
    wire_height: float | int = 7.0,
    layers: int = 2,
    casing_thickness: float | int = 3.0,
    sides: int = 24,
    didt_max: float | int = float("nan"),
    dtype: DTypeLike | None = None,
) -> Coil:
    """Build a planar circular coil from its winding geometry; by default a 90 mm coil of 14 turns.

    Under the centre E is zero; under the winding on the +x side, E of positive dI/dt points along +y.

    Parameters
    ----------
    inner_diameter, outer_diameter
        mm, between the centre lines of the innermost and outermost turn.
    turns
        Number of turns.
    wire_height
        mm, extent of the conductor along z.
    layers
        Filaments for each turn (Gauss-Legendre points over the height).
    casing_thickness
        mm of plastic round the conductor. The casing's face towards the head is z = 0.
    sides
        Straight segments for each circle, as for `figure8`.
    didt_max
        Largest dI/dt, A/s, if known.
    dtype
        Of its arrays. Default: `jnp.result_type(float)`.

    Returns
    -------
    Coil
        One element of line segments, and a casing.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jaxm2m as jm
    >>> coil = jm.coil.circular()
    >>> b = jm.coil.magnetic_field(coil, jnp.eye(4), jnp.zeros((1, 3)), didt=1e6)  # in its middle, along its axis
    >>> print(f"{abs(float(b[0, 2])):.0f} T/s")
    186 T/s
    """
    return _build_planar(
        "Circular",
        ((0.0, -1.0),),
        inner_diameter,
        outer_diameter,
        turns,
        wire_height,
        layers,
        casing_thickness,
        sides,
        didt_max,
        dtype,
    )


def _build_planar(name, wings, inner, outer, turns, height, layers, thickness, sides, didt_max, dtype) -> Coil:
    for value, key in ((inner, "inner_diameter"), (outer, "outer_diameter")):
        _check.positive(value, key)
    for value, key in ((height, "wire_height"), (thickness, "casing_thickness")):
        _check.positive(value, key, zero=True)
    for value, key, least in ((turns, "turns", 1), (layers, "layers", 1), (sides, "sides", 8)):
        _check.integer(value, key, minimum=least)
    if outer < inner or (outer == inner and turns > 1):
        raise ValueError(f"outer_diameter: {outer} mm is not above the inner_diameter of {inner} mm; exchange them.")
    radii = np.linspace(inner, outer, turns) / 2 if turns > 1 else np.array([(inner + outer) / 4])
    node, weight = np.polynomial.legendre.leggauss(layers)
    depth = -thickness - height / 2 * (1 - node)
    angle = 2 * np.pi * np.arange(sides + 1) / sides
    # a polygon with the circle's area: the dipole moment, which rules the far field, is then exact
    swell = np.sqrt(angle[1] / np.sin(angle[1]))
    start, end, current = [], [], []
    for centre, sign in wings:
        # sign +1 is anticlockwise seen from +z; between the wings both run towards -y, so -dA/dt points along +y
        for radius in radii:
            x = centre + swell * radius * np.cos(angle)
            y = swell * radius * np.sin(angle)
            for z, part in zip(depth, weight / 2, strict=True):
                ring = np.column_stack([x, y, np.full_like(x, z)])
                start.append(ring[:-1])
                end.append(ring[1:])
                current.append(np.full(sides, sign * part))
    dtype = dtype or jnp.result_type(float)
    first, last, share = (jnp.asarray(np.concatenate(a), dtype) for a in (start, end, current))
    element = Segments(first, last, share)
    # the conductor stands on edge: its filaments again, over its whole height
    one = conductor_points([element])
    one = np.unique(one[:, :2].round(6), axis=0)
    heights = -thickness - np.linspace(0, height, int(np.ceil(height / STEP)) + 1)
    points = np.concatenate([np.column_stack([one, np.full(len(one), z)]) for z in heights])
    casing = _casing.offset_surface(points, thickness, dtype)
    metadata = StaticMetadata(
        name=f"{name} {inner:g}/{outer:g} mm, {turns} turns",
        brand="",
        version="computed from windings",
        stimulators=(),
        casing=f"surface {thickness:g} mm off the conductors",
    )
    return Coil((element,), casing, make_limits([didt_max], dtype), metadata)
