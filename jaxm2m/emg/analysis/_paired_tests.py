"""Whether one method decodes better than another: paired tests."""

import numpy as np
import pandas as pd
from scipy import stats

from jaxm2m.emg.analysis._decode import Decoding


def ttest(first: Decoding, second: Decoding) -> pd.DataFrame:
    """Test whether two methods differ in VAF, by a paired t-test over the same folds.

    Folds share most of their training data, so that p is too small; it is what the source reports.

    Parameters
    ----------
    first, second
        The decodings of the two methods, in the same folds and of the same outputs.

    Returns
    -------
    pandas.DataFrame
        A row for each output: output, difference (first - second), t, p (two-sided).
    """
    _same(first, second)
    if len(first.vaf) != len(second.vaf):
        raise ValueError(f"second: {len(second.vaf)} folds against {len(first.vaf)}; decode both in the same folds.")
    result = stats.ttest_rel(first.vaf, second.vaf)
    return pd.DataFrame(
        {
            "output": first.outputs,
            "difference": first.mean - second.mean,
            "t": np.atleast_1d(result.statistic),
            "p": np.atleast_1d(result.pvalue),
        }
    )


def signed_rank(first: Decoding, second: Decoding) -> pd.Series:
    """Test whether the first method has the higher VAF, paired over outputs (channels).

    One-sided Wilcoxon signed-rank test of the mean VAFs.

    Parameters
    ----------
    first, second
        The decodings of the two methods, of the same outputs.

    Returns
    -------
    pandas.Series
        n, first and second (mean VAFs over all outputs), w, p.
    """
    _same(first, second)
    result = stats.wilcoxon(first.mean, second.mean, alternative="greater")
    return pd.Series(
        {
            "n": len(first.outputs),
            "first": first.mean.mean(),
            "second": second.mean.mean(),
            "w": float(result.statistic),
            "p": float(result.pvalue),
        }
    )


def _same(first: Decoding, second: Decoding) -> None:
    if first.outputs != second.outputs:
        raise ValueError(
            f"second: outputs {', '.join(second.outputs)} against {', '.join(first.outputs)}; decode the same."
        )
