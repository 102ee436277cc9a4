"""One HTML page that holds all it shows: pictures, tables, methods, versions, references."""

import base64
import html
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from jaxm2m import files

if TYPE_CHECKING:
    import pandas as pd

_STYLE = """
body { font: 15px/1.55 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
figure { margin: 1.2rem 0; } figure img { width: 100%; } figcaption { color: #555; font-size: 0.9rem; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; margin: 0.8rem 0; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 1.5px solid #222; }
pre { background: #f5f4f1; padding: 0.8rem; overflow-x: auto; font-size: 0.8rem; }
details { margin: 0.6rem 0 1.4rem; border-left: 3px solid #ddd; padding-left: 0.8rem; }
summary { cursor: pointer; color: #555; font-size: 0.9rem; } details p { margin: 0.4rem 0; font-size: 0.9rem; }
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
    "akbar2020": """@inproceedings{Akbar2020,
  title = {Mapping motor cortex stimulation to muscle responses: a deep neural network modeling approach},
  author = {Akbar, Md Navid and Yarossi, Mathew and Martinez-Gost, Marc and Sommer, Marc A. and Dannhauer, Moritz and
            Rampersad, Sumientra and Brooks, Dana and Tunik, Eugene and Erdo{\\u{g}}mu{\\c{s}}, Deniz},
  booktitle = {ACM International Conference on PErvasive Technologies Related to Assistive Environments (PETRA)},
  pages = {15}, year = {2020}, doi = {10.1145/3389189.3389203}
}""",
    "goetz2019": """@article{Goetz2019,
  title = {Statistical model of motor-evoked potentials},
  author = {Goetz, Stefan M. and Alavi, S. M. Mahdi and Deng, Zhi-De and Peterchev, Angel V.},
  journal = {IEEE Transactions on Neural Systems and Rehabilitation Engineering},
  volume = {27}, pages = {1539}, year = {2019}
}""",
    "lindley1956": """@article{Lindley1956,
  title = {On a measure of the information provided by an experiment},
  author = {Lindley, Dennis V.},
  journal = {The Annals of Mathematical Statistics},
  volume = {27}, number = {4}, pages = {986--1005}, year = {1956}
}""",
    "thompson1933": """@article{Thompson1933,
  title = {On the likelihood that one unknown probability exceeds another in view of the evidence of two samples},
  author = {Thompson, William R.},
  journal = {Biometrika},
  volume = {25}, number = {3/4}, pages = {285--294}, year = {1933}
}""",
    "weise2020": """@article{Weise2020,
  title = {A novel approach to localize cortical {TMS} effects},
  author = {Weise, Konstantin and Numssen, Ole and Thielscher, Axel and Hartwigsen, Gesa and Kn{\\"o}sche, Thomas R.},
  journal = {NeuroImage},
  volume = {209}, pages = {116486}, year = {2020}, doi = {10.1016/j.neuroimage.2020.116486}
}""",
    "numssen2021": """@article{Numssen2021,
  title = {Efficient high-resolution {TMS} mapping of the human motor cortex by nonlinear regression},
  author = {Numssen, Ole and Zier, Anna-Leah and Thielscher, Axel and Hartwigsen, Gesa and
            Kn{\\"o}sche, Thomas R. and Weise, Konstantin},
  journal = {NeuroImage},
  volume = {245}, pages = {118654}, year = {2021}, doi = {10.1016/j.neuroimage.2021.118654}
}""",
    "lee1999": """@article{LeeSeung1999,
  title = {Learning the parts of objects by non-negative matrix factorization},
  author = {Lee, Daniel D. and Seung, H. Sebastian},
  journal = {Nature},
  volume = {401}, pages = {788--791}, year = {1999}, doi = {10.1038/44565}
}""",
    "wimalasena2022": """@article{Wimalasena2022,
  title = {Estimating muscle activation from {EMG} using deep learning-based dynamical systems models},
  author = {Wimalasena, Lahiru N. and Braun, Jonas F. and Keshtkaran, Mohammad Reza and Hofmann, David and
            Gallego, Juan {\\'A}lvaro and Alessandro, Cristiano and Tresch, Matthew C. and Miller, Lee E. and
            Pandarinath, Chethan},
  journal = {Journal of Neural Engineering},
  volume = {19}, number = {3}, pages = {036013}, year = {2022}, doi = {10.1088/1741-2552/ac6369}
}""",
    "pandarinath2018": """@article{Pandarinath2018,
  title = {Inferring single-trial neural population dynamics using sequential auto-encoders},
  author = {Pandarinath, Chethan and O'Shea, Daniel J. and Collins, Jasmine and Jozefowicz, Rafal and
            Stavisky, Sergey D. and Kao, Jonathan C. and Trautmann, Eric M. and Kaufman, Matthew T. and
            Ryu, Stephen I. and Hochberg, Leigh R. and Henderson, Jaimie M. and Shenoy, Krishna V. and
            Abbott, L. F. and Sussillo, David},
  journal = {Nature Methods},
  volume = {15}, pages = {805--815}, year = {2018}, doi = {10.1038/s41592-018-0109-9}
}""",
    "jaderberg2017": """@misc{Jaderberg2017,
  title = {Population based training of neural networks},
  author = {Jaderberg, Max and Dalibard, Valentin and Osindero, Simon and Czarnecki, Wojciech M. and Donahue, Jeff and
            Razavi, Ali and Vinyals, Oriol and Green, Tim and Dunning, Iain and Simonyan, Karen and
            Fernando, Chrisantha and Kavukcuoglu, Koray},
  year = {2017}, eprint = {1711.09846}, archivePrefix = {arXiv}
}""",
    "efron1993": """@book{EfronTibshirani1993,
  title = {An Introduction to the Bootstrap},
  author = {Efron, Bradley and Tibshirani, Robert J.},
  publisher = {Chapman and Hall}, year = {1993}
}""",
}


def find_versions(*packages: str) -> dict[str, str]:
    """Return the installed versions; what is not installed is left out."""
    installed = {"python": platform.python_version()}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def format_paragraph(text: str) -> str:
    """Write a paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def embed_picture(path: Path, caption: str) -> str:
    """Embed a PNG."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    shown = html.escape(caption)
    return f'<figure><img alt="{shown}" src="data:image/png;base64,{data}"><figcaption>{shown}</figcaption></figure>'


def format_table(rows: "Mapping[str, object] | pd.DataFrame") -> str:
    """Write names and values (a mapping), or a pandas table with three significant digits."""
    head: Sequence[str] = ()
    if not isinstance(rows, Mapping):
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


def format_code(text: str) -> str:
    """Write text as it stands, such as commands."""
    return f"<pre>{html.escape(text)}</pre>"


def fold(summary: str, *pieces: str) -> str:
    """Fold pieces of HTML up under a summary; a click on it shows them."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(pieces)}</details>"


def format_references(*names: str) -> str:
    """Write the BibTeX of what was used."""
    text = "\n\n".join(BIBTEX[name] for name in names).replace("VERSION", version("jaxm2m"))
    return f"<pre>{html.escape(text)}</pre>"


def write(path: Path, title: str, subtitle: str, sections: Mapping[str, Sequence[str]]) -> None:
    """Write the page, whole or not at all. `sections` maps headings to pieces of HTML."""
    body = "".join(f"<h2>{html.escape(name)}</h2>{''.join(pieces)}" for name, pieces in sections.items())
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{format_paragraph(subtitle)}{body}</body></html>"
    )
    with files.atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
