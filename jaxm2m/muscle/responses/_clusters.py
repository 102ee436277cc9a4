"""Synergies of several subjects, grouped by likeness."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

from jaxm2m import _check
from jaxm2m.muscle.responses._synergies import Synergies


@dataclass(frozen=True, eq=False, repr=False)
class SynergyClusters:
    """Groups of synergies that are alike across subjects.

    Attributes
    ----------
    subject, synergy, cluster : (n,) int arrays
        Subject and column of each synergy, and the cluster that it is in; clusters are in order of falling size.
    centres : (n_muscle, n_cluster) float array
        Mean of the synergies of each cluster; columns sum to 1.
    silhouette : float
        Mean silhouette of the synergies (cosine distance): 1, clusters far apart; 0, none.
    muscles : tuple of str
        Names of the muscles.
    """

    subject: Int[np.ndarray, " n"]
    synergy: Int[np.ndarray, " n"]
    cluster: Int[np.ndarray, " n"]
    centres: Float[np.ndarray, "n_muscle n_cluster"]
    silhouette: float
    muscles: tuple[str, ...]

    def __repr__(self) -> str:
        n = len(set(self.subject.tolist()))
        return (
            f"SynergyClusters({len(self.cluster)} synergies of {n} subjects in {self.centres.shape[1]} clusters, "
            f"silhouette {self.silhouette:.2f})"
        )

    def table(self) -> pd.DataFrame:
        """Tabulate the clusters.

        Returns
        -------
        pandas.DataFrame
            A row for each cluster: synergies, subjects (that have one in it), and the share of each muscle.
        """
        rows = []
        for k, centre in enumerate(self.centres.T):
            members = self.cluster == k
            counts = {"synergies": int(members.sum()), "subjects": len(set(self.subject[members].tolist()))}
            rows.append(counts | dict(zip(self.muscles, centre, strict=True)))
        return pd.DataFrame(rows).rename_axis("cluster")


def cluster_synergies(subjects: Sequence[Synergies], n_clusters: int | None = None) -> SynergyClusters:
    """Group the synergies of several subjects: average linkage of cosine distances.

    Parameters
    ----------
    subjects
        `Synergies` of each subject, of the same muscles; their numbers may differ.
    n_clusters
        Number of clusters; None: that of the largest mean silhouette.

    Returns
    -------
    SynergyClusters
        The clusters.

    Raises
    ------
    ValueError
        Fewer than two subjects, other muscles, more clusters than there are synergies less one.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> rng = np.random.default_rng(0)
    >>> vectors = np.array([[4.0, 3, 0, 0], [0, 0, 2, 3]])
    >>> subjects = [jm.muscle.synergies(rng.gamma(1, 1, (60, 2)) @ vectors, 2) for _ in range(5)]
    >>> jm.muscle.cluster_synergies(subjects)
    SynergyClusters(10 synergies of 5 subjects in 2 clusters, silhouette 1.00)
    """
    subjects = list(subjects)
    if len(subjects) < 2:
        raise ValueError(f"subjects: {len(subjects)}; pass the Synergies of at least two.")
    muscles = subjects[0].muscles
    for i, one in enumerate(subjects):
        if one.muscles != muscles:
            raise ValueError(
                f"subjects: {', '.join(one.muscles)} of number {i + 1}, but the first has {', '.join(muscles)}; take "
                "the same muscles in the same order."
            )
    origin = [(i, k) for i, one in enumerate(subjects) for k in np.flatnonzero(one.vectors.any(0))]
    vectors = np.array([subjects[i].vectors[:, k] for i, k in origin])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    away = np.clip(1 - unit @ unit.T, 0, None)
    np.fill_diagonal(away, 0)
    tree = hierarchy.linkage(squareform(away, checks=False), "average")
    most = len(vectors) - 1
    if n_clusters is not None and not 2 <= _check.integer(n_clusters, "n_clusters") <= most:
        raise ValueError(f"n_clusters: {n_clusters} of {len(vectors)} synergies; take from 2 to {most}.")
    best, labels = -np.inf, np.zeros(len(vectors), int)
    for count in range(2, most + 1) if n_clusters is None else [n_clusters]:
        cut = hierarchy.fcluster(tree, count, "maxclust") - 1
        if 2 <= len(set(cut.tolist())) <= most:
            score = float(silhouette_score(away, cut, metric="precomputed"))
            if score > best + 1e-9:
                best, labels = score, cut
    order = np.argsort(-np.bincount(labels), kind="stable")
    labels = np.argsort(order)[labels]
    centres = np.stack([vectors[labels == k].mean(0) for k in range(labels.max() + 1)], -1)
    subject, synergy = np.array(origin, int).T
    return SynergyClusters(subject, synergy, labels, centres / centres.sum(0), best, muscles)
