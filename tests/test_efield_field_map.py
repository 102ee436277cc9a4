"""The field at fixed points as a function of the pose: which points, and what a call refuses."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxm2m import coil as coils
from jaxm2m import efield, head
from jaxm2m._pytree import StaticMetadata

RADII = (26, 32, 34, 37, 42)
CENTRE = np.array([2.1, -1.2, 25.3])  # where white meets grey
N_FEW = 10


@pytest.fixture(scope="module")
def ball(precision):
    dtype = jnp.result_type(float)
    sim = efield.Simulator(head.sphere(RADII, 12.0, centre=(0.4, -0.3, 0.7)))
    element = coils.Dipoles(
        jnp.asarray([[-9.0, 2, -5], [8, 1, -4]], dtype), jnp.asarray([[0, 0, 3e-3], [0, 1e-3, -2e-3]], dtype)
    )
    coil = coils.Coil((element,), None, jnp.full(1, jnp.nan, dtype), StaticMetadata(name="two dipoles"))
    grid = efield.Grid.around(CENTRE, (7, 6, 8), 3.0)
    random = np.random.default_rng(1)
    points = efield.Points(random.uniform(-8, 8, (40, 3)) + CENTRE)
    poses = np.tile(np.diag([-1.0, 1.0, -1.0, 1.0]), (3, 1, 1))
    poses[:, :3, 3] = [[0, 0, 47], [4, -3, 48], [-5, 2, 50]]
    maps = {"grid": sim.bind(coil, grid), "points": sim.bind(coil, points)}
    fields = {name: np.asarray(field_map(poses)) for name, field_map in maps.items()}
    return SimpleNamespace(sim=sim, grid=grid, maps=maps, poses=poses, fields=fields)


@pytest.fixture(params=["grid", "points"])
def case(ball, request):
    return SimpleNamespace(at=ball.maps[request.param], e=ball.fields[request.param], poses=ball.poses)


def tissue_of(field_map):
    """Index of the tissue of each point; -1 where there is no field."""
    tissue = np.full(field_map.n_point, -1)
    tissue[np.asarray(field_map.active)] = np.asarray(field_map.tissue)
    return tissue


def test_within_is_a_ball_in_tissues(case):
    at = case.at
    points, tissue, names = np.asarray(at.points), tissue_of(at), list(at.metadata["tissues"])
    assert names[:2] == ["white", "grey"]
    near = np.linalg.norm(points - CENTRE, axis=1) <= 9
    grey, white, both = (
        at.within(CENTRE, 9.0),
        at.within(CENTRE, 9, ("white",)),
        at.within(CENTRE, 9, ("grey", "white")),
    )
    for mask, wanted in ((grey, [1]), (white, [0]), (both, [0, 1])):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, near & np.isin(tissue, wanted))
        assert mask.any()
    # by default grey matter within 5 mm
    middle = points[grey][0]
    np.testing.assert_array_equal(at.within(middle), (np.linalg.norm(points - middle, axis=1) <= 5) & (tissue == 1))
    assert (at.within(middle) == at.within(jnp.asarray(middle))).all()


def test_picked_points_have_the_numbers_of_the_whole(case, tolerance):
    """By a mask, by indices in any order, again of those that are left."""
    at, e = case.at, case.e
    bound = tolerance(1e-5, 1e-12) * np.abs(e).max()
    near = np.flatnonzero(at.within(CENTRE, 9.0, ("grey", "white")))[:N_FEW]
    mask = np.isin(np.arange(at.n_point), near)
    order = np.random.default_rng(2).permutation(np.asarray(at.active))[:N_FEW]
    for where, index in ((mask, near), (order, order)):
        few = at.pick(where)
        assert few.n_point == N_FEW
        np.testing.assert_array_equal(few.points, np.asarray(at.points)[index])
        np.testing.assert_array_equal(tissue_of(few), tissue_of(at)[index])
        np.testing.assert_allclose(few(case.poses), e[:, index], rtol=0, atol=bound)
        # it costs what it holds
        assert few.solver.recovery.voxels.shape[0] == N_FEW
    one = few.pick(np.arange(N_FEW) == 4)
    assert one.n_point == 1
    np.testing.assert_array_equal(one.points[0], np.asarray(at.points)[order[4]])
    assert tissue_of(one)[0] == tissue_of(at)[order[4]]
    assert one.within(one.points[0], tissues=at.metadata["tissues"]).tolist() == [True]


@pytest.mark.float32
def test_points_without_a_field_are_refused(ball):
    at = ball.maps["grid"]
    outside = tissue_of(at) < 0
    assert 0 < outside.sum() < at.n_point
    with pytest.raises(ValueError, match=rf"^where: {outside.sum()} of 336 points have no field .*grey and white"):
        at.pick(np.ones(336, bool))
    with pytest.raises(ValueError, match=r"^where: 1 of 2 points have no field"):
        at.pick([int(at.active[0]), int(np.flatnonzero(outside)[0])])
    with pytest.raises(ValueError, match=r"^where: 0 of 0 points have no field .*choose one or more"):
        at.pick(np.zeros(336, bool))
    for mask in (np.ones(335, bool), np.ones((7, 6, 8), bool), np.array(True)):
        with pytest.raises(ValueError, match=r"^where: a mask of shape \(.*\) for 336 points"):
            at.pick(mask)
    for index in ([336], [-1], [0.5], [], [[0, 1]], 0, "grey"):
        with pytest.raises(ValueError, match=r"^where: give a mask of 336 points or a list of indices from 0 to 335\."):
            at.pick(index)


@pytest.mark.float32
def test_no_target_is_refused(ball):
    at = ball.maps["grid"]
    with pytest.raises(
        ValueError,
        match=r"^centre: no point of grey or white within 2 mm of \(0\.0, 0\.0, 80\.0\) mm; the nearest point with a "
        r"field is \d+\.\d mm away\. Move",
    ):
        at.within((0, 0, 80.0), 2, ("grey", "white"))
    with pytest.raises(ValueError, match=r"^tissues: 'gray'; choose one of 'white', 'grey'"):
        at.within(CENTRE, tissues=("gray",))
    with pytest.raises(ValueError, match=r"^radius: 0; must be above zero"):
        at.within(CENTRE, 0.0)
    with pytest.raises(ValueError, match=r"^centre: shape \(2,\)"):
        at.within((0.0, 0.0))
    with pytest.raises(ValueError, match=r"^centre: shape \(2, 3\)"):
        at.within(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^centre: 1 of 3 values are NaN"):
        at.within((0.0, 0.0, np.nan))
