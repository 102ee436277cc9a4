"""Flat elements of a tetrahedral mesh, made rounder by moving their nodes."""

import numpy as np
from jaxtyping import Float, Int

_BAD = 0.05  # roundness: moved are the nodes of elements below
_SWEEPS = 30
_MOVES = (0.1, 0.3)  # of the mean edge at a node
_DIRECTIONS = 4


def roundness(corners: Float[np.ndarray, "n 4 3"]) -> Float[np.ndarray, " n"]:
    """6 sqrt(2) volume / (root mean square edge)^3: 1 if regular, 0 if flat, negative if inverted."""
    a, b, c = (corners[:, i] - corners[:, 0] for i in (1, 2, 3))
    square = sum(np.einsum("ni,ni->n", d, d) for d in (a, b, c, b - a, c - b, a - c)) / 6
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = a.T, b.T, c.T
    volume = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    return np.sqrt(2) * volume / square**1.5


def repair(nodes: Float[np.ndarray, "node 3"], elements: Int[np.ndarray, "element 4"]) -> Float[np.ndarray, "node 3"]:
    """Move the nodes of flat elements until the elements are round enough; elements keep their nodes.

    Nodes of flat elements try short steps to the mean of their neighbours and in random directions, and keep those that
    make the flattest element at the node rounder. No two nodes of one element move at once. Interfaces move with their
    nodes, by less than half an edge, where elements were flat.

    Parameters
    ----------
    nodes
        (n_node, 3) mm.
    elements
        (n_element, 4) indices of their nodes.

    Returns
    -------
    nodes
        (n_node, 3) mm, moved.
    """
    nodes = nodes.copy()
    random = np.random.default_rng(0)
    quality = roundness(nodes[elements])
    for _ in range(_SWEEPS):
        bad = quality < _BAD
        if not bad.any():
            break
        chosen = np.zeros(len(nodes), bool)
        chosen[elements[bad]] = True
        near = np.flatnonzero(chosen[elements].any(1))
        row, corner = np.nonzero(chosen[elements[near]])
        order = np.argsort(elements[near[row], corner], kind="stable")
        which, corner = near[row[order]], corner[order]
        node, first = np.unique(elements[which, corner], return_index=True)
        owner = np.repeat(np.arange(len(node)), np.diff([*first, len(which)]))
        corners = nodes[elements[which]]
        pair = np.arange(len(which))
        mean = np.add.reduceat(corners.sum(1) - corners[pair, corner], first)
        mean = mean / (3 * np.diff([*first, len(which)]))[:, None]
        position = nodes[node]
        length = np.add.reduceat(np.linalg.norm(corners - position[owner][:, None], axis=2).sum(1), first)
        length = length / (3 * np.diff([*first, len(which)]))
        best = np.minimum.reduceat(quality[which], first)
        target = position.copy()
        steps = [t * (mean - position) for t in (0.2, 0.5)]
        for _ in range(_DIRECTIONS):
            d = random.standard_normal(position.shape)
            d *= (length / np.linalg.norm(d, axis=1))[:, None]
            steps += [t * d for t in _MOVES]
        for step in steps:
            corners[pair, corner] = (position + step)[owner]
            worst = np.minimum.reduceat(roundness(corners), first)
            better = worst > best
            best = np.where(better, worst, best)
            target[better] = (position + step)[better]
        moved = (target != position).any(1)
        priority = np.zeros(len(nodes))
        priority[node[moved]] = random.random(int(moved.sum()))
        alone = np.minimum.reduceat(priority[elements[which]].max(1) == priority[node[owner]], first) & moved
        if not moved.any():
            break
        nodes[node[alone]] = target[alone]
        quality[near] = roundness(nodes[elements[near]])
    return nodes
