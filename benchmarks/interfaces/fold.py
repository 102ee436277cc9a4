"""A folded cortex under a figure-8 coil, in three dimensions: geometry, coil, volume fractions, reference field.

Box of 72 x 72 x 60 mm, insulated, its top (z = 0) the scalp's surface; layers scalp, skull, csf, grey, white. The
geometry is the image of a plane section under a smooth map (p, y, q) -> (x, y, z):

    x = p + (c(y) + e(y) tau(q)) B(p)               sulci that wind (c) and lean (e), sides fixed (B)
    z = q + d(x, y) Z(q) + u(x, y) Y(q)             a crossing sulcus (d) under a skull that undulates (u)

In the section, scalp and skull are plane layers; csf is the smooth union F > 0 of the half-plane over the crowns
and of three slits (rounded at the fundus, opening upwards); grey is -ribbon < F < 0; white is the rest. Both maps
are monotone in one variable each, so the inverse costs two scalar Newton iterations.

Angles between wall and grid range over more than 30 degrees in every plane; the windows have zero slope at the box's
sides, so that interfaces meet them at right angles and the field has no singularity there.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from . import voxels

NAMES = ("scalp", "skull", "csf", "grey", "white")
SIGMA = (0.465, 0.010, 1.654, 0.275, 0.126)
MU0_4PI = 1e-7
STORED = Path(__file__).with_name("fold_reference.npz")


@dataclass(frozen=True)
class Fold:
    """Parameters in mm (tilts dimensionless); the defaults are the stored reference's."""

    half: float = 36.0
    depth: float = 60.0
    scalp: float = 6.0
    skull: float = 6.0
    csf: float = 2.5
    ribbon: float = 2.75
    centres: tuple[float, ...] = (-19.0, -2.0, 17.0)
    depths: tuple[float, ...] = (14.0, 17.0, 15.0)
    widths: tuple[float, ...] = (1.0, 0.9, 1.15)
    opening: float = 0.05
    rounding: float = 1.2
    winding: float = 3.0
    lean: float = 0.3
    crossing: float = 4.0
    undulation: float = 1.2

    @property
    def origin(self) -> np.ndarray:
        """Outer corner of the box, mm, (3,)."""
        return np.array([-self.half, -self.half, -self.depth])

    def shape(self, spacing: float) -> tuple[int, int, int]:
        """Voxels along each axis."""
        n, nz = round(2 * self.half / spacing), round(self.depth / spacing)
        if abs(n * spacing - 2 * self.half) + abs(nz * spacing - self.depth) > 1e-9:
            raise ValueError(f"spacing: {spacing} mm does not divide the box of 72 x 72 x 60 mm; take 4, 2, 1, 0.5.")
        return n, n, nz

    # the section

    def csf_level(self, p: np.ndarray, q: np.ndarray) -> np.ndarray:
        """F(p, q) in mm, nearly a signed distance to the pia, positive in csf."""
        crown = -(self.scalp + self.skull + self.csf)
        terms = [q - crown]
        for centre, depth, width in zip(self.centres, self.depths, self.widths, strict=True):
            t = q - (crown - depth + width)  # height over the fundus circle's centre
            up = np.maximum(t, 0.0)
            terms.append(width + self.opening * up**2 / (up + 3.0) - np.hypot(p - centre, np.minimum(t, 0.0)))
        stack = np.stack(terms) / self.rounding
        top = stack.max(0)
        return self.rounding * (top + np.log(np.exp(stack - top).sum(0)))

    def section_levels(self, p: np.ndarray, q: np.ndarray) -> np.ndarray:
        """The four level functions (n, 4) in section coordinates, positive above interface k."""
        f = self.csf_level(p, q)
        return np.stack([q + self.scalp, q + self.scalp + self.skull, f, f + self.ribbon], -1)

    # the map

    def _lateral(self, y: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """a = c(y) + e(y) tau(q) and its derivatives by y and q."""
        w = np.pi / (2 * self.half)
        eta = w * (y + self.half)
        scale = 14.0
        tanh = np.tanh((q + 23.0) / scale)
        tau, dtau = scale * tanh, 1 - tanh**2
        a = self.winding * np.cos(3 * eta) + self.lean * np.cos(eta) * tau
        a_y = -3 * w * self.winding * np.sin(3 * eta) - w * self.lean * np.sin(eta) * tau
        return a, a_y, self.lean * np.cos(eta) * dtau

    def _window(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """B(p) and its derivative."""
        w = np.pi / self.half
        return 0.5 + 0.5 * np.cos(w * p), -0.5 * w * np.sin(w * p)

    def _vertical(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Z, Z', Y, Y'."""
        t = np.maximum(-(self.scalp + self.skull) - q, 0.0)
        room = self.depth - self.scalp - self.skull
        rise, fall = 1 - np.exp(-((t / 2) ** 2)), (1 - (t / room) ** 2) ** 2
        z = rise * fall
        z_q = -(t / 2 * np.exp(-((t / 2) ** 2)) * fall - rise * 4 * t / room**2 * (1 - (t / room) ** 2))
        s = -q / 12.0
        bell, cut = s * np.exp(1 - s), (1 - (q / self.depth) ** 2) ** 2
        y = bell * cut
        y_q = -(1 - s) * np.exp(1 - s) / 12.0 * cut - bell * 4 * q / self.depth**2 * (1 - (q / self.depth) ** 2)
        return z, z_q, y, y_q

    def _relief(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """d, d_x, d_y, u, u_x, u_y."""
        w = np.pi / (2 * self.half)
        xi, eta = w * (x + self.half), w * (y + self.half)
        width = 5.5
        off = y - 1.0 - 8.0 * np.cos(xi)
        d = -self.crossing * np.exp(-((off / width) ** 2))
        d_y = -2 * off / width**2 * d
        u = self.undulation * np.cos(2 * xi) * np.cos(eta)
        u_x = -2 * w * self.undulation * np.sin(2 * xi) * np.cos(eta)
        u_y = -w * self.undulation * np.cos(2 * xi) * np.sin(eta)
        return d, d_y * 8.0 * w * np.sin(xi), d_y, u, u_x, u_y

    def forward(self, section: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (..., 3) of (p, y, q) to (x, y, z), and the Jacobian (..., 3, 3)."""
        p, y, q = np.moveaxis(section, -1, 0)
        a, a_y, a_q = self._lateral(y, q)
        b, b_p = self._window(p)
        x = p + a * b
        x_p, x_y, x_q = 1 + a * b_p, a_y * b, a_q * b
        big_z, big_z_q, big_y, big_y_q = self._vertical(q)
        d, d_x, d_y, u, u_x, u_y = self._relief(x, y)
        z = q + d * big_z + u * big_y
        z_x = d_x * big_z + u_x * big_y
        jacobian = np.zeros((*section.shape, 3))
        jacobian[..., 0, 0], jacobian[..., 0, 1], jacobian[..., 0, 2] = x_p, x_y, x_q
        jacobian[..., 1, 1] = 1.0
        jacobian[..., 2, 0] = z_x * x_p
        jacobian[..., 2, 1] = d_y * big_z + u_y * big_y + z_x * x_y
        jacobian[..., 2, 2] = 1 + d * big_z_q + u * big_y_q + z_x * x_q
        return np.stack([x, y, z], -1), jacobian

    def inverse(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of (x, y, z) to (p, y, q), to 1e-10 mm."""
        x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
        d, _, _, u, _, _ = self._relief(x, y)
        q = np.clip(z, -self.depth, 0.0)
        low, high = np.full_like(q, -self.depth - 1), np.full_like(q, 1.0)
        for _ in range(60):  # Newton, safeguarded by bisection
            big_z, big_z_q, big_y, big_y_q = self._vertical(q)
            miss = q + d * big_z + u * big_y - z
            if np.max(np.abs(miss), initial=0.0) < 1e-10:
                break
            low, high = np.where(miss < 0, q, low), np.where(miss > 0, q, high)
            step = q - miss / (1 + d * big_z_q + u * big_y_q)
            q = np.where((step > low) & (step < high), step, (low + high) / 2)
        a, _, _ = self._lateral(y, q)
        p = x - a * self._window(x)[0]
        for _ in range(40):
            b, b_p = self._window(p)
            miss = p + a * b - x
            if np.max(np.abs(miss), initial=0.0) < 1e-10:
                break
            p = p - miss / (1 + a * b_p)
        return np.stack([p, y, q], -1)

    # what a voxel solver needs

    def levels(self, points: np.ndarray) -> np.ndarray:
        """Level functions (n, 4) at points (n, 3) in mm: scalp/skull, skull/csf, pia, grey/white; positive above."""
        section = self.inverse(points)
        return self.section_levels(section[..., 0], section[..., 2])

    def layer(self, points: np.ndarray) -> np.ndarray:
        """Layer index (0 scalp ... 4 white) at points (n, 3)."""
        return (self.levels(points) <= 0).sum(-1)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Distance (n,) in mm to the nearest interface, to first order: min_k |G_k| / |grad G_k|."""
        step = 1e-4
        value = self.levels(points)
        slope = [(self.levels(points + step * e) - self.levels(points - step * e)) / (2 * step) for e in np.eye(3)]
        return (np.abs(value) / np.linalg.norm(slope, axis=0)).min(-1)

    def fractions(self, spacing: float, from_labels: float | None = None, cell: float = 0.5) -> np.ndarray:
        """Volume fractions (5, nx, ny, nz).

        `from_labels` None: exact (sub-cubes of at most `cell` mm cut by planes). Else counted from hard labels of
        that many mm; `from_labels == spacing` are hard labels.
        """
        shape = self.shape(spacing)
        if from_labels is None:
            return voxels.fractions(self.levels, shape, spacing, self.origin, cell)
        return voxels.fractions_of_labels(self.labels(from_labels), round(spacing / from_labels), len(NAMES))

    def labels(self, spacing: float) -> np.ndarray:
        """Layer index at voxel centres (nx, ny, nz), uint8; add 1 for a label volume whose 0 is air."""
        return voxels.labels(self.levels, self.shape(spacing), spacing, self.origin)


# the source


@dataclass(frozen=True)
class Coil:
    """Figure-8 of `turns` loops a wing (radii inner..outer mm), as dipoles in the plane z = `height`.

    All in mm.

    `angle` (degrees) turns the induced field at the centre from +x towards +y; centre in mm.
    """

    angle: float = 15.0
    height: float = 10.0
    centre: tuple[float, float] = (1.0, -3.0)
    inner: float = 26.0
    outer: float = 44.0
    turns: int = 9
    rings: int = 10

    def dipoles(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (n, 3) in mm and moments (n, 3) in A m^2 per A."""
        loops = np.linspace(self.inner, self.outer, self.turns)
        width = self.outer / self.rings
        positions, moments = [], []
        for wing in (-1.0, 1.0):
            for ring in range(self.rings):
                radius = (ring + 0.5) * width
                count = max(4, round(2 * np.pi * radius / width))
                theta = 2 * np.pi * (np.arange(count) + 0.5) / count
                area = np.pi * ((ring + 1) ** 2 - ring**2) * width**2 / count * 1e-6
                enclosing = np.count_nonzero(loops > radius)
                positions.append(
                    np.stack([radius * np.cos(theta), wing * (self.outer + 1) + radius * np.sin(theta), 0 * theta], -1)
                )
                moments.append(np.tile([0.0, 0.0, -wing * enclosing * area], (count, 1)))
        angle = np.deg2rad(self.angle)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
        at = np.concatenate(positions) @ turn.T + np.array([*self.centre, self.height])
        return at, np.concatenate(moments)

    def dadt(self, points: np.ndarray, didt: float = 1e6) -> np.ndarray:
        """dA/dt (n, 3) in V/m at points (n, 3) in mm: mu0/4pi didt sum m x (r - r') / |r - r'|^3."""
        at, moment = self.dipoles()
        at = at * 1e-3
        square_at, twice = (at**2).sum(-1), np.ascontiguousarray(-2 * at.T)
        both = np.concatenate([moment, np.cross(moment, at)], 1)
        out = np.empty((len(points), 3))
        for start in range(0, len(points), 256):  # small enough to stay in cache: six times faster than 8192
            r = np.asarray(points[start : start + 256], float) * 1e-3
            w = r @ twice
            w += square_at
            w += (r**2).sum(-1)[:, None]
            w *= np.sqrt(w)
            np.reciprocal(w, out=w)
            summed = w @ both
            out[start : start + 256] = np.cross(summed[:, :3], r) - summed[:, 3:]
        return MU0_4PI * didt * out


COILS = {"across": Coil(angle=15.0), "along": Coil(angle=75.0)}


def fingerprint(fold: Fold, coils: dict[str, Coil]) -> str:
    """sha256 over the parameters of geometry, coils and conductivities."""
    record = {"fold": asdict(fold), "coils": {k: asdict(c) for k, c in coils.items()}, "sigma": SIGMA}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reference:
    """Reference E at fixed points.

    points (n, 3) mm; layer (n,) 2 csf, 3 grey, 4 white; distance (n,) mm to the nearest interface; e[name] (n, 3)
    V/m at 1e6 A/s for each coil of `COILS`; error[name][layer name] the relative L2 change
    (%) of the last halving of the mesh: a bound on the reference's own error, about 0.4 of it at the observed order.
    """

    points: np.ndarray
    layer: np.ndarray
    distance: np.ndarray
    e: dict[str, np.ndarray]
    error: dict[str, dict[str, float]]
    mesh: dict[str, float]


def load(path: Path = STORED) -> Reference:
    """The stored reference; refuses one that was computed for other parameters."""
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["fingerprint"]) != fingerprint(Fold(), COILS):
            raise ValueError(
                f"{path}: was computed for another geometry or coil; run interfaces/fold_reference.py again."
            )
        metadata = json.loads(str(stored["notes"]))
        return Reference(
            points=stored["points"],
            layer=stored["layer"],
            distance=stored["distance"],
            e={name: stored[f"e_{name}"].astype(float) for name in COILS},
            error=metadata["error"],
            mesh=metadata["mesh"],
        )


def errors(e: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Relative L2 error, and the 95th and 99th percentiles of |E - E_ref| / |E_ref|, in percent.

    For E (n, 3) at points spread uniformly over a tissue's volume.
    """
    miss = np.linalg.norm(e - reference, axis=-1)
    size = np.linalg.norm(reference, axis=-1)
    return {
        "l2": float(100 * np.sqrt((miss**2).sum() / (size**2).sum())),
        "p95": float(100 * np.percentile(miss / size, 95)),
        "p99": float(100 * np.percentile(miss / size, 99)),
    }
