"""One HTML page that holds all it shows: pictures, tables, methods, versions, references."""

import base64
import html
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jaxm2m import files

_STYLE = """
body { font: 15px/1.55 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
figure { margin: 1.2rem 0; } figure img { width: 100%; } figcaption { color: #555; font-size: 0.9rem; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; margin: 0.8rem 0; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 1.5px solid #222; }
pre { background: #f5f4f1; padding: 0.8rem; overflow-x: auto; font-size: 0.8rem; }
"""

BIBTEX = {
    "jaxm2m": """@software{jaxm2m,
  title = {jaxm2m: from a TMS coil to the muscles as one differentiable JAX program},
  author = {{The jaxm2m developers}},
  version = {VERSION}
}""",
    "jax": """@software{jax,
  title = {{JAX}: composable transformations of {Python}+{NumPy} programs},
  author = {Bradbury, James and Frostig, Roy and Hawkins, Peter and Johnson, Matthew James and Leary, Chris and
            Maclaurin, Dougal and Necula, George and Paszke, Adam and VanderPlas, Jake and Wanderman-Milne, Skye and
            Zhang, Qiao},
  year = {2018},
  url = {http://github.com/jax-ml/jax}
}""",
    "coil": """@article{ThielscherKammer2004,
  title = {Electric field properties of two commercial figure-8 coils in {TMS}: calculation of focality and efficiency},
  author = {Thielscher, Axel and Kammer, Thomas},
  journal = {Clinical Neurophysiology},
  volume = {115}, number = {7}, pages = {1697--1708}, year = {2004}
}""",
    "fsaverage": """@article{Fischl1999,
  title = {High-resolution intersubject averaging and a coordinate system for the cortical surface},
  author = {Fischl, Bruce and Sereno, Martin I. and Tootell, Roger B. H. and Dale, Anders M.},
  journal = {Human Brain Mapping},
  volume = {8}, number = {4}, pages = {272--284}, year = {1999}
}""",
    "icbm152": """@article{Fonov2011,
  title = {Unbiased average age-appropriate atlases for pediatric studies},
  author = {Fonov, Vladimir and Evans, Alan C. and Botteron, Kelly and Almli, C. Robert and McKinstry, Robert C. and
            Collins, D. Louis},
  journal = {NeuroImage},
  volume = {54}, number = {1}, pages = {313--327}, year = {2011}
}""",
    "mne": """@article{Gramfort2013,
  title = {{MEG} and {EEG} data analysis with {MNE-Python}},
  author = {Gramfort, Alexandre and Luessi, Martin and Larson, Eric and Engemann, Denis A. and Strohmeier, Daniel and
            Brodbeck, Christian and Goj, Roman and Jas, Mainak and Brooks, Teon and Parkkonen, Lauri and
            H{\\"a}m{\\"a}l{\\"a}inen, Matti},
  journal = {Frontiers in Neuroscience},
  volume = {7}, pages = {267}, year = {2013}
}""",
    "nilearn": """@article{Abraham2014,
  title = {Machine learning for neuroimaging with scikit-learn},
  author = {Abraham, Alexandre and Pedregosa, Fabian and Eickenberg, Michael and Gervais, Philippe and
            Mueller, Andreas and Kossaifi, Jean and Gramfort, Alexandre and Thirion, Bertrand and Varoquaux, Ga{\\"e}l},
  journal = {Frontiers in Neuroinformatics},
  volume = {8}, pages = {14}, year = {2014}
}""",
    "bfgs": """@book{NocedalWright2006,
  title = {Numerical Optimization},
  author = {Nocedal, Jorge and Wright, Stephen J.},
  edition = {2}, publisher = {Springer}, year = {2006}
}""",
    "line search": """@article{HagerZhang2005,
  title = {A new conjugate gradient method with guaranteed descent and an efficient line search},
  author = {Hager, William W. and Zhang, Hongchao},
  journal = {SIAM Journal on Optimization},
  volume = {16}, number = {1}, pages = {170--192}, year = {2005}
}""",
    "yarossi2019": """@inproceedings{Yarossi2019,
  title = {An experimental and computational framework for modeling multi-muscle responses to transcranial magnetic
           stimulation of the human motor cortex},
  author = {Yarossi, Mathew and Quivira, Fernando and Dannhauer, Moritz and Sommer, Marc A. and Brooks, Dana H. and
            Erdo{\\u{g}}mu{\\c{s}}, Deniz and Tunik, Eugene},
  booktitle = {International IEEE/EMBS Conference on Neural Engineering},
  pages = {1122--1125}, year = {2019}, doi = {10.1109/NER.2019.8717159}
}""",
    "efron1993": """@book{EfronTibshirani1993,
  title = {An Introduction to the Bootstrap},
  author = {Efron, Bradley and Tibshirani, Robert J.},
  publisher = {Chapman and Hall}, year = {1993}
}""",
}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def picture(path: Path, caption: str) -> str:
    """A PNG, embedded."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    shown = html.escape(caption)
    return f'<figure><img alt="{shown}" src="data:image/png;base64,{data}"><figcaption>{shown}</figcaption></figure>'


def table(rows: Any) -> str:
    """Names and values (a mapping), or a pandas table with three significant digits."""
    head: Sequence[str] = ()
    if hasattr(rows, "iterrows"):
        head = (str(rows.index.name or ""), *map(str, rows.columns))
        lines = [(str(name), *map(_number, row)) for name, row in rows.iterrows()]
    else:
        lines = [(str(name), str(value)) for name, value in rows.items()]

    def cells(values: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(v)}</{tag}>" for v in values) + "</tr>"

    top = f"<thead>{cells(head, 'th')}</thead>" if head else ""
    return f"<table>{top}<tbody>{''.join(cells(line, 'td') for line in lines)}</tbody></table>"


def _number(value: float) -> str:
    if value != value:
        return "\N{EN DASH}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def references(*names: str) -> str:
    """BibTeX of what was used."""
    text = "\n\n".join(BIBTEX[name] for name in names).replace("VERSION", version("jaxm2m"))
    return f"<pre>{html.escape(text)}</pre>"


def write(path: Path, title: str, subtitle: str, sections: Mapping[str, Sequence[str]]) -> None:
    """The page, whole or not at all. `sections` maps headings to pieces of HTML."""
    body = "".join(f"<h2>{html.escape(name)}</h2>{''.join(pieces)}" for name, pieces in sections.items())
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{paragraph(subtitle)}{body}</body></html>"
    )
    with files.atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
