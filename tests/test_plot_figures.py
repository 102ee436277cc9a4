"""Figures: that they show the right thing in the right place, not only that they draw."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxm2m as jm
from jaxm2m import fem
from jaxm2m.plot import _scene, _slices, style

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def head(precision):
    return jm.head.sphere(spacing=6.0)


@pytest.fixture(scope="module")
def coil(precision):
    return jm.coil.figure8(sides=12, layers=1, turns=3)


@pytest.fixture(scope="module")
def pose(head):
    # a coil on the left side, its plane vertical
    return np.array([[0, 0, 1, -98.0], [0, 1, 0, 0], [-1, 0, 0, 20], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def field(head):
    """A made-up field: |E| = 2 V/m in grey matter on the left, 0.5 elsewhere in the head."""
    fractions = np.asarray(head.fractions)
    tissue = np.where(fractions.sum(0) > 0.5, fractions.argmax(0), -1)
    index = np.stack(np.meshgrid(*map(np.arange, head.shape), indexing="ij"), -1)
    x = (index @ np.asarray(head.affine)[:3, :3].T + np.asarray(head.affine)[:3, 3])[..., 0]
    size = np.where((tissue == 1) & (x < -20), 2.0, 0.5) * (tissue >= 0)
    e = np.zeros((*head.shape, 3))
    e[..., 1] = size
    stats = fem.Stats(iterations=jnp.int32(1), residual=jnp.float32(0), status=jnp.int32(0))
    phi = jnp.zeros([n + 1 for n in head.shape])
    return jm.efield.Field(
        e=jnp.asarray(e), tissue=jnp.asarray(tissue), phi=phi, stats=stats, didt=jnp.asarray(1e6), head=head
    )


def pixels(figure: Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="rgba")
    width, height = (int(n) for n in figure.get_size_inches() * figure.dpi)
    return np.frombuffer(file.getvalue(), np.uint8).reshape(height, width, 4)[..., :3].astype(float) / 255


def likeness(image: np.ndarray, colour: tuple) -> np.ndarray:
    return np.abs(image - np.asarray(colour[:3])).max(-1) < 0.03


def test_slices_are_right_way_round_and_take_each_tissues_field(field):
    figure = jm.plot.slices(field, (0, 0, 0), limit=2.0, title="x")
    planes = [ax for ax in figure.axes if ax.images]
    assert len(planes) == 3
    coronal = planes[1].images[0]
    left, right, bottom, top = coronal.get_extent()
    assert left < -92 < 92 < right
    assert bottom < -92 < 92 < top
    picture = np.asarray(coronal.get_array())
    x = np.linspace(left, right, picture.shape[1], endpoint=False) + (right - left) / picture.shape[1] / 2
    middle = picture[picture.shape[0] // 2]

    def at(mm):
        return middle[np.abs(x - mm).argmin()]

    strong, weak = style.FIELD(1.0)[:3], style.FIELD(0.25)[:3]
    # the left of the page is the left of the head, and grey at 74 mm does not leak into white at 66
    np.testing.assert_allclose(at(-74), strong, atol=0.02)
    np.testing.assert_allclose(at(-64), weak, atol=0.02)
    np.testing.assert_allclose(at(74), weak, atol=0.02)
    np.testing.assert_allclose(at(-83), _slices._convert_colour(_slices._OUTSIDE["skull"]), atol=0.02)
    np.testing.assert_allclose(at(-96), 1, atol=0.02)
    assert [text.get_text() for text in figure.texts][:3] == [
        "sagittal, x = 0 mm",
        "coronal, y = 0 mm",
        "axial, z = 0 mm",
    ]


def test_slices_of_a_turned_head_are_those_of_the_world(field, head):
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    other = jm.head.sphere(spacing=6.0, rotation=turn)
    tissue = np.asarray(jm.head.Head.tissue_at(other, _centres(other)))
    size = np.where((tissue == 1) & (_centres(other)[..., 0] < -20), 2.0, 0.5) * (tissue >= 0)
    e = jnp.asarray(np.stack([0 * size, size, 0 * size], -1))
    turned = jm.efield.Field(
        e=e, tissue=jnp.asarray(tissue), phi=field.phi, stats=field.stats, didt=field.didt, head=other
    )
    here, there = (
        np.asarray([ax for ax in jm.plot.slices(f, (0, 0, 0), limit=2.0).axes if ax.images][2].images[0].get_array())
        for f in (field, turned)
    )
    n = min(here.shape[0], there.shape[0]), min(here.shape[1], there.shape[1])
    middle = [
        a[(a.shape[0] - n[0]) // 2 :, (a.shape[1] - n[1]) // 2 :][60 : n[0] - 60, 60 : n[1] - 60] for a in (here, there)
    ]
    assert (np.abs(middle[0] - middle[1]).max(-1) > 0.1).mean() < 0.03


def _centres(head):
    index = np.stack(np.meshgrid(*map(np.arange, head.shape), indexing="ij"), -1)
    return index @ np.asarray(head.affine)[:3, :3].T + np.asarray(head.affine)[:3, 3]


def test_cortex_is_seen_from_where_the_field_is(field):
    def strong(figure):
        # shading dims a colour but keeps its hue: the top of the scale has a quarter as much green as red
        image = pixels(figure)[:, : int(0.8 * 7.2 * 150)]
        return (image[..., 1] < 0.45 * image[..., 0]).mean()

    # a ball of 74 mm fills a good part of the page; from the other side nothing strong is seen
    assert strong(jm.plot.cortex(field, limit=2.0, target=(-74, 0, 0))) > 0.2
    assert strong(jm.plot.cortex(field, limit=2.0, view=(1, 0, 0))) < 0.01


def test_pose_hides_what_is_behind_the_head(head, coil, pose):
    view = _scene.make_camera((1, 0, 0))
    from jaxm2m.plot import _pose

    points = _scene.transform_points(np.asarray(pose), np.array([[0, 0, -5.0], [-140.0, 0, -5]]))
    # from the right the centre of a coil on the left is behind the head, a point high above it is not
    assert _pose.find_hidden(head, view, points).tolist() == [True, False]
    assert not _pose.find_hidden(head, _scene.make_camera((-1, 0, 0)), points).any()
    figure = jm.plot.pose(head, coil, pose, target=(-70, 0, 20), title="x")
    copper = likeness(pixels(figure), (0xB4 / 255, 0x56 / 255, 0x1F / 255))
    half = copper.shape[1] // 2
    assert copper[:, :half].mean() > 0.003
    assert copper[:, half:].mean() > 0.0003


def test_pose_draws_dipoles_and_coils_without_a_casing(head, pose):
    dipoles = jm.coil.Dipoles(jnp.asarray([[0, 0, -5.0], [30, 0, -5]]), jnp.asarray([[0, 0, 1.0], [0, 0, -1]]))
    bare = jm.coil.Coil((dipoles,), None, jnp.asarray([jnp.nan]), jm._pytree.StaticMetadata(name="two"))
    assert isinstance(jm.plot.pose(head, bare, pose), Figure)


def test_ascent_measures_movement():
    start = np.eye(4)
    twist = np.array([[0, 0, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0], [0, 0, 0, 0, 0, np.pi / 2]], float)
    poses = np.asarray(jm.coil.move(start, twist))
    figure = jm.plot.ascent(poses, [1.0, 1.5, 2.0], title="x")
    value, moved, turned = (ax.lines[0].get_ydata() for ax in figure.axes)
    np.testing.assert_allclose(value, [1, 1.5, 2])
    np.testing.assert_allclose(moved, [0, 5, 0], atol=1e-5)
    np.testing.assert_allclose(turned, [0, 0, 90], atol=0.05)
    assert any("+100.0 %" in text.get_text() for text in figure.axes[0].texts)
    assert isinstance(jm.plot.ascent(poses[:1], [1.0]), Figure)


def _found(head, starts, checked=float("nan")):
    """A search whose starts end at the angles (rad) of their last entries, round a sphere's front."""
    from jaxm2m.placement import _placement

    def posed(angle):
        outward = np.array([np.sin(angle), np.cos(angle), 0.0])
        y = np.array([0, 0, 1.0])
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([np.cross(y, -outward), y, -outward], -1)
        matrix[:3, 3] = 96 * outward
        return matrix

    poses = np.array([[posed(start[min(k, len(start) - 1)][0]) for start in starts] for k in range(4)])
    values = np.array([[start[min(k, len(start) - 1)][1] for start in starts] for k in range(4)])
    counts = np.array([[min(k, len(start) - 1) + 1 for start in starts] for k in range(4)])
    best = int(np.nanargmax(values[-1]))
    ranked = (_placement.Candidate(poses[-1, best], float(values[-1, best]), 1e6, best, 1, "peak"),)
    history = _placement.History(poses, values, counts)
    return jm.placement.Placement(
        ranked, history, ("peak",) * len(starts), int(counts[-1].sum()), "subject", checked, 1.0
    )


def test_search_draws_each_start_here_and_there(head, coil):
    nan = float("nan")
    starts = [[(0.3, 1.0), (0.1, 2.0), (0.0, 3.0)], [(-0.2, 1.5), (0.02, 2.5)], [(3.1, 0.5), (3.0, 1.2)], [(0.2, nan)]]
    figure = jm.plot.search(_found(head, starts), head, (0, 50, 0), coil=coil, label="mean |E| (V/m)", title="x")
    scalp, bar, over = figure.axes
    assert bar.get_ylabel() == "mean |E| (V/m)"
    # the lost start is nowhere, the one behind the head on the right only
    assert sorted(t.get_text() for t in over.texts) == ["1", "2", "3"]
    assert sorted(t.get_text() for t in scalp.texts if t.get_text().isdigit()) == ["1", "2"]
    lines = [line.get_xydata() for line in over.lines if line.get_marker() == "None"]
    assert [2.0, 2.0] in np.concatenate(lines).round(6).tolist()
    assert max(line[:, 1].max() for line in lines) == 3
    ring = [line for line in scalp.lines if line.get_marker() == "o" and line.get_markersize() == 13]
    np.testing.assert_allclose(ring[0].get_xydata(), [[0, 0]], atol=1e-6)
    # from the front the head's left is on the page's right: the first start lies at x = 96 sin(0.3), on the left
    first = [line.get_xydata()[0] for line in scalp.lines if line.get_color() == "white" and line.get_marker() == "o"]
    np.testing.assert_allclose(np.sort([x for x, _ in first]), [-96 * np.sin(0.3), 96 * np.sin(0.2)], atol=1e-6)
    crosses = [line.get_xydata()[0] for line in scalp.lines if line.get_marker() == "+"]
    np.testing.assert_allclose(crosses, np.zeros((2, 2)), atol=0.5)
    (arrow,) = [t for t in scalp.texts if getattr(t, "arrow_patch", None) is not None]
    np.testing.assert_allclose(arrow.xy, [0, -34], atol=1e-6)  # the handle hangs
    # the casing in the corner, as large as it is
    (overview,) = scalp.child_axes
    outline = np.concatenate([s for c in overview.collections if hasattr(c, "get_segments") for s in c.get_segments()])
    width = np.ptp(np.asarray(coil.casing.vertices)[:, 0])
    np.testing.assert_allclose(np.ptp(outline[:, 0]), width, rtol=0.02)
    pixels(figure)


def test_search_with_one_value_or_a_check_has_a_scale(head):
    assert isinstance(jm.plot.search(_found(head, [[(0.0, 2.0)]]), head), Figure)
    assert isinstance(jm.plot.search(_found(head, [[(0.0, 0.0)]]), head), Figure)
    figure = jm.plot.search(_found(head, [[(0.1, -2.0), (0.0, -1.0)]], checked=-0.5), head)
    low, high = figure.axes[2].get_ylim()
    assert low < -2
    assert high > -0.5
    assert [t.get_text() for t in figure.axes[2].get_legend().get_texts()] == ["best pose, checked"]
    diamond = [line for line in figure.axes[2].lines if line.get_marker() == "D"]
    assert diamond[0].get_ydata().tolist() == [-0.5]


def test_a_start_far_below_all_others_leaves_them_room(head):
    starts = [[(0.1 * i, 0.9), (0.05 * i, 1.0), (0.0, 1.0 + 0.05 * i)] for i in range(5)]
    starts.append([(0.3, -30.0), (0.3, -29.0)])
    figure = jm.plot.search(_found(head, starts), head)
    _, bar, over = figure.axes
    low, high = over.get_ylim()
    assert -2 < low < 0.9
    assert high > 1.2
    assert [line.get_marker() for line in bar.lines] == ["v"]  # the scale goes on below
    labels = {t.get_text(): t.get_position()[1] for t in over.texts}
    assert len(labels) == 6
    assert low <= labels["6"] == min(labels.values())
    pixels(figure)


def test_labels_are_kept_apart_and_in_order():
    from jaxm2m.plot import _search

    values = np.array([1.0, 5.0, 1.01, 0.99])
    out = _search._spread_labels(values, 0.5)
    assert (np.diff(np.sort(out)) > 0.49).all()
    assert np.argsort(out).tolist() == np.argsort(values).tolist()
    assert out[1] == 5


def test_figures_leave_no_trace(field):
    import matplotlib

    before = dict(matplotlib.rcParams)
    jm.plot.slices(field, (0, 0, 0))
    assert dict(matplotlib.rcParams) == before
    # shown by a notebook without pyplot
    assert jm.plot.slices(field, (0, 0, 0))._repr_png_().startswith(b"\x89PNG")
    import sys

    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_camera_keeps_the_heads_right_hand():
    view = _scene.make_camera((1, 0, 0))
    # from the right side the nose points to the right
    np.testing.assert_allclose(view.flat([[0, 1, 0], [0, 0, 1.0]]), [[1, 0], [0, 1]], atol=1e-12)
    above = _scene.make_camera((0, 0, 1))
    np.testing.assert_allclose(above.flat([[1, 0, 0], [0, 1, 0.0]]), [[1, 0], [0, 1]], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f, h, c, p: jm.plot.slices(f, (0, 0)), "at: "),
        (lambda f, h, c, p: jm.plot.slices(f, (0, 0, 400)), "outside the head"),
        (lambda f, h, c, p: jm.plot.slices(f, (0, 0, 0), tissues=("liver",)), "liver"),
        (lambda f, h, c, p: jm.plot.cortex(f, view=(0, 0, 0)), "view: "),
        (lambda f, h, c, p: jm.plot.pose(h, c, np.stack([p, p])), "one pose"),
        (lambda f, h, c, p: jm.plot.pose(h, c, 2 * p), "pose: "),
        (lambda f, h, c, p: jm.plot.search(_found(h, [[(0.0, 1.0)]]), h, (0, 0)), "target: "),
        (lambda f, h, c, p: jm.plot.ascent(np.stack([p, p]), [1.0]), "values: "),
        (lambda f, h, c, p: jm.plot.ascent(np.stack([p, p]), [1.0, np.nan]), "values: "),
    ],
)
def test_bad_input_is_named(field, head, coil, pose, call, words):
    with pytest.raises(ValueError, match=words):
        call(field, head, coil, pose)


def test_a_head_without_grey_matter_has_no_cortex(field):
    head = jm.head.sphere((80, 92), 12.0, tissues=("csf", "scalp"))
    shape = head.shape
    bare = jm.efield.Field(
        e=jnp.zeros((*shape, 3)),
        tissue=jnp.zeros(shape, int),
        phi=jnp.zeros([n + 1 for n in shape]),
        stats=field.stats,
        didt=field.didt,
        head=head,
    )
    with pytest.raises(ValueError, match="no grey matter"):
        jm.plot.cortex(bare)
    # a field of zero has a scale as well
    assert isinstance(jm.plot.slices(bare, (0, 0, 0), tissues=("csf",)), Figure)
