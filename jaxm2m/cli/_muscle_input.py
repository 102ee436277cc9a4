"""What `jaxm2m muscle` reads: fields, MEPs and what goes with them, refused before anything is computed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _arguments

if TYPE_CHECKING:
    import numpy as np

    from jaxm2m.cortex import FiringRate
    from jaxm2m.efield import Grid
    from jaxm2m.muscle import Meps, Sources, TrainingOptions

UNITS = "V/m, V/cm, V/m per A/us"


@dataclass(frozen=True)
class Source:
    """What a file of fields says beside them."""

    path: Path
    count: int
    grid: "Grid"
    poses: "np.ndarray"
    didt: "np.ndarray"
    space: str

    def didt_for(self, rate: "FiringRate | None") -> "np.ndarray | None":
        """dI/dt of the stimuli (A/s), where the threshold of the firing rate needs it."""
        if rate is None or rate.threshold.unit in ("V/m", "V/cm"):
            return None
        if self.didt.shape != (self.count,):
            raise ValueError(
                f"--threshold: {rate.threshold.unit} needs one dI/dt a stimulus, {self.path} has "
                f"{self.didt.shape[1:]} of them; give V/m."
            )
        return self.didt


@dataclass(frozen=True)
class TrainingData:
    """What `compare` and `fit` learn from, checked, without the stimuli that are left out."""

    source: Source
    meps: "Meps"
    rows: "np.ndarray"
    why: str
    rate: "FiringRate | None"
    preset: str | None
    mask: "np.ndarray | None"
    rank: int | None

    def __str__(self) -> str:
        return (
            f"{len(self.rows)} stimuli, {len(self.meps.muscles)} muscles, {format_shape(self.source.grid.shape)} points"
        )

    @property
    def didt(self) -> "np.ndarray | None":
        """A/s, of the stimuli that are kept, where the threshold needs it."""
        didt = self.source.didt_for(self.rate)
        return None if didt is None else didt[self.rows]

    @property
    def options(self) -> dict[str, Any]:
        """Of `muscle.compare` and `muscle.fit`."""
        return {
            "grid": self.source.grid,
            "rate": self.rate,
            "didt": self.didt,
        } | ({} if self.preset is None else {"preset": self.preset})

    def training_options(self, **changes: Any) -> "TrainingOptions":
        """`muscle.TrainingOptions` of the mask, the rank and the changes."""
        import jaxm2m as jm

        return jm.muscle.TrainingOptions(mask=self.mask, rank=self.rank, **changes)

    @contextmanager
    def select_fields(self, out: Path) -> Iterator[Path]:
        """Yield a file of the fields of the kept stimuli: the user's, or for the while a copy without the others.

        A copy on the disk, since fields of hundreds of stimuli on a fine grid do not fit into the memory.
        """
        import h5py
        import jax

        from jaxm2m import files
        from jaxm2m._progress import progress_bar

        if len(self.rows) == self.source.count:
            yield self.source.path
            return
        # of several processes each has its own
        path = out / (f"kept_fields_{jax.process_index()}.h5" if jax.process_index() else "kept_fields.h5")
        try:
            with (
                files.atomic(path) as temporary,
                files.open_hdf5(self.source.path, name="FIELDS") as whole,
                h5py.File(temporary, "w") as part,
                progress_bar(len(self.rows), "copying fields", unit="stimuli") as advance,
            ):
                e = whole["e"]
                how = {"compression": e.compression, "compression_opts": e.compression_opts, "shuffle": e.shuffle}
                data = part.create_dataset(
                    "e", (len(self.rows), *e.shape[1:]), e.dtype, chunks=(1, *e.shape[1:]), **how
                )
                for i, row in enumerate(self.rows):
                    data[i] = e[row]
                    advance()
                part["affine"] = whole["affine"][()]
                if "tissue" in whole:
                    part["tissue"], part.attrs["tissues"] = whole["tissue"][()], whole.attrs["tissues"]
            yield path
        finally:
            path.unlink(missing_ok=True)


def load_training_data(
    fields: Path,
    meps: Path,
    muscles: str | None,
    threshold: str | None,
    preset: str | None,
    mask: Path | None,
    rank: int | None,
    seed: int,
) -> TrainingData:
    """Read and check the arguments of a training; without networks `preset` is None."""
    rate = None if threshold is None else parse_threshold(threshold)

    import jaxm2m as jm
    from jaxm2m import _check

    if preset is not None:
        _check.option(preset, tuple(jm.muscle.PRESETS), "--preset")
    if seed < 0:
        raise ValueError(f"--seed: {seed}; must be at least 0.")
    origin = read_source(fields)
    if preset is not None:
        jm.muscle.PRESETS[preset].check_grid(origin.grid)
    selected, rows, why = select_meps(meps, origin.count, fields, muscles)
    if rank is not None and not 1 <= rank <= len(selected.muscles):
        raise ValueError(f"--rank: {rank} for {len(selected.muscles)} muscles; give 1 to {len(selected.muscles)}.")
    points = None if mask is None else _read_mask(mask, origin.grid)
    data = TrainingData(origin, selected, rows, why, rate, preset, points, rank)
    origin.didt_for(rate)
    return data


@dataclass(frozen=True)
class SourceData:
    """What sources are fitted to, checked: all stimuli, since single MEPs may be missing.

    Attributes
    ----------
    source
        The fields, and what goes with them.
    meps
        MEPs of all stimuli; those that are flagged count for nothing.
    rate
        Firing rate; None: the field itself.
    mask
        The grid's points that are grey matter; None: what the file says.
    """

    source: Source
    meps: "Meps"
    rate: "FiringRate | None"
    mask: "np.ndarray | None"

    def __str__(self) -> str:
        return (
            f"{len(self.meps)} stimuli, {len(self.meps.muscles)} muscles, {format_shape(self.source.grid.shape)} points"
        )

    def fit(self, seed: int) -> "Sources":
        """Fit the sources, and tell what was assumed and which muscles the session says nothing of."""
        import jax

        import jaxm2m as jm

        flagged = int((self.meps.reasons != "").sum())
        if flagged:
            why = ", ".join(f"{reason} {number}" for reason, number in self.meps.count_flags().items())
            _arguments.say(f"{flagged} of {self.meps.reasons.size} MEPs are flagged and count for nothing ({why}).")
        with tell_unknown_grey(self):
            sources = jm.muscle.fit_sources(
                self.source.path,
                self.meps,
                grid=self.source.grid,
                rate=self.rate,
                didt=self.source.didt_for(self.rate),
                grey=self.mask,
                key=jax.random.key(seed),
            )
        for name, reason in sources.unidentified:
            _arguments.say(f"{name}: the session says nothing of it ({reason}).")
        return sources


@contextmanager
def tell_unknown_grey(data: "TrainingData | SourceData", wanted: bool = True) -> Iterator[None]:
    """Tell once, in the words of the options, that nothing says which points are grey matter."""
    import warnings

    from jaxm2m import files

    path = data.source.path
    with warnings.catch_warnings():
        if wanted and data.mask is None:
            with files.open_hdf5(path, name="FIELDS") as file:
                known = "tissue" in file
            if not known:
                _arguments.say(
                    f"warning: {path} does not say which points are grey matter; for sources all with a field count, "
                    "white matter too. Compute it again by `jaxm2m efield`, or give grey matter by --mask."
                )
                warnings.filterwarnings("ignore", message="grey: ")
        yield


def load_source_data(
    fields: Path, meps: Path, muscles: str | None, threshold: str | None, mask: Path | None, seed: int
) -> SourceData:
    """Read and check the arguments of a fit of sources."""
    rate = None if threshold is None else parse_threshold(threshold)
    if seed < 0:
        raise ValueError(f"--seed: {seed}; must be at least 0.")
    origin = read_source(fields)
    selected = _read_meps(meps, origin.count, fields, muscles)
    grey = None if mask is None else _read_mask(mask, origin.grid)
    origin.didt_for(rate)
    return SourceData(origin, selected, rate, grey)


def find_model(path: Path, name: str) -> Path:
    """Find the model at a path: the model itself, or in the folder of `muscle fit`."""
    if not path.exists():
        raise FileNotFoundError(f"{name}: {path} does not exist; give what `jaxm2m muscle fit` wrote.")
    if not path.is_dir() or (path / "model.json").exists():
        return path
    inside = [part for part in (path / "model", path / "model.h5") if part.exists()]
    if len(inside) == 2:
        raise ValueError(f"{name}: {path} holds model and model.h5; give one of the two.")
    return inside[0] if inside else path


def read_source(path: Path) -> Source:
    """Read what goes with the fields of a file."""
    import jaxm2m as jm
    from jaxm2m import _check

    with jm.files.open_hdf5(_check.file(path, "FIELDS", suffixes=(".h5", ".hdf5")), name="FIELDS") as file:
        e = file.get("e")
        if getattr(e, "ndim", 0) != 5 or e.shape[-1] != 3 or not {"affine", "poses", "didt"} <= set(file):
            raise ValueError(f"FIELDS: {path} holds no fields on a grid; compute them by `jaxm2m efield`.")
        rates = "float pose stimulator" if getattr(file["didt"], "ndim", 1) == 2 else "float pose"
        beside = file.arrays({"affine": "float 4 4", "poses": "float pose 4 4", "didt": rates})
        if e.dtype.kind != "f" or not len(e) or not e.size or len(beside["poses"]) != len(e):
            raise ValueError(f"FIELDS: {path} holds {e.dtype} of shape {e.shape}; compute it by `jaxm2m efield`.")
        jm._check.finite(beside["affine"], f"FIELDS: {path}, affine")
        nx, ny, nz = map(int, e.shape[1:4])
        grid = jm.efield.Grid(beside["affine"].astype(float), (nx, ny, nz))
        return Source(
            path, len(e), grid, beside["poses"], beside["didt"].astype(float), file.text("space") or "unknown"
        )


def select_meps(path: Path, count: int, beside: Path | None, muscles: str | None) -> "tuple[Meps, np.ndarray, str]":
    """Read the MEPs that nothing speaks against, their rows among `count` stimuli, and why others are left out."""
    import numpy as np

    loaded = _read_meps(path, count, beside, muscles)
    rows = np.flatnonzero(loaded.kept)
    why = ", ".join(f"{reason} {number}" for reason, number in loaded.count_flags().items())
    if not len(rows):
        raise ValueError(
            f"MEPS: in each of the {count} stimuli of {path} an MEP is flagged ({why}); leave muscles out by --muscles."
        )
    if len(rows) < count:
        _arguments.say(f"left out: {count - len(rows)} of {count} stimuli, of which MEPs are flagged ({why}).")
    return loaded.pick(rows), rows, why


def _read_meps(path: Path, count: int, beside: Path | None, muscles: str | None) -> "Meps":
    """Read the MEPs of `count` stimuli."""
    import jaxm2m as jm

    loaded = jm.muscle.Meps.load(path)
    if muscles is not None:
        loaded = loaded.pick(muscles=parse_names(muscles, "--muscles"))
    if len(loaded) != count:
        raise ValueError(
            f"MEPS: {path} has {len(loaded)} stimuli, {beside} {count}; give one row for each, with empty cells where "
            "there is no MEP."
        )
    return loaded


def parse_threshold(text: str) -> "FiringRate":
    """Make the firing rate of a threshold with its unit."""
    number, _, unit = text.strip().partition(" ")
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf") or not unit:
        raise ValueError(f'--threshold: {text!r}; give a number above zero and its unit ({UNITS}), such as "60 V/m".')

    import jaxm2m as jm
    from jaxm2m import _check

    unit = " ".join(unit.split())
    _check.option(unit, UNITS.split(", "), "--threshold")
    return jm.cortex.FiringRate(jm.cortex.threshold(value, unit))


def _read_mask(path: Path, grid: "Grid") -> "np.ndarray":
    """Return which points of the grid lie in voxels of a NIfTI volume above 0.5."""
    import numpy as np

    from jaxm2m import files

    values, affine = files.read_nifti(path, name="--mask")
    if values.ndim < 3 or values.size != np.prod(values.shape[:3]):
        raise ValueError(f"--mask: {path} has the shape {values.shape}; give one volume.")
    values = values.reshape(values.shape[:3])
    back = np.linalg.inv(affine)
    index = np.rint(grid.positions() @ back[:3, :3].T + back[:3, 3])
    inside = ((index >= 0) & (index < values.shape)).all(1)  # of floats: a file's affine may lead beyond all integers
    mask = np.zeros(len(index), bool)
    mask[inside] = values[tuple(index[inside].astype(int).T)] > 0.5
    if not mask.any():
        raise ValueError(
            f"--mask: {path} has no voxel above 0.5 at the fields' points; check that it is in their space."
        )
    return mask.reshape(grid.shape)


def parse_names(text: str, name: str) -> tuple[str, ...]:
    """Split "a,b" into names."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise ValueError(f"{name}: {text!r}; give different names, with commas between.")
    return names


def format_shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
