"""BibTeX of the tool, and of the papers whose losses and statistics a study uses."""

from __future__ import annotations

from importlib import metadata

from ablate.learn.report.document import Code, Section, Text
from ablate.learn.results import Results
from trainables.model.losses import LOSSES

KDD = """@inproceedings{wang2026multipositive,
  title     = {Training Dense Retrievers with Multiple Positive Passages},
  author    = {Wang and Tang and Zhang and Guo and Bi},
  booktitle = {Proceedings of KDD},
  year      = {2026},
  note      = {arXiv:2602.12727}
}"""
EMNLP = """@inproceedings{utility2025annotation,
  title     = {Utility-Focused {LLM} Annotation for Retrieval and {RAG}},
  booktitle = {Proceedings of EMNLP},
  year      = {2025},
  note      = {arXiv:2504.05220}
}"""
PAPERS = {"2602.12727": KDD, "2504.05220": EMNLP}
"""arXiv number, as the losses name their source, -> entry."""
WESTFALL = """@book{westfall1993resampling,
  title     = {Resampling-Based Multiple Testing},
  author    = {Westfall, Peter H. and Young, S. Stanley},
  publisher = {Wiley},
  year      = {1993}
}"""
SMYTH = """@article{smyth2004linear,
  title   = {Linear Models and Empirical {Bayes} Methods for Assessing Differential Expression
             in Microarray Experiments},
  author  = {Smyth, Gordon K.},
  journal = {Statistical Applications in Genetics and Molecular Biology},
  year    = {2004}
}"""
SCHUIRMANN = """@article{schuirmann1987comparison,
  title   = {A Comparison of the Two One-Sided Tests Procedure and the Power Approach for
             Assessing the Equivalence of Average Bioavailability},
  author  = {Schuirmann, Donald J.},
  journal = {Journal of Pharmacokinetics and Biopharmaceutics},
  year    = {1987}
}"""


def citations(results: Results) -> Section:
    """What to cite: the tool, the papers of the losses used, the statistics."""
    select = results.study.select
    entries = [_tool(), *_papers(results)]
    if results.comparisons:
        entries += [WESTFALL, SMYTH]
    if results.comparisons and select is not None and select.equal_within is not None:
        entries.append(SCHUIRMANN)
    words = "The tool, the papers whose losses this study uses, and its statistics, as BibTeX."
    lines = "\n\n".join(entries).splitlines()
    return Section("citations", "Cite", (Text(words), Code(tuple(lines))))


def _tool() -> str:
    version = metadata.version("ablate")
    return (
        "@software{ablate,\n"
        "  title   = {ablate: ablations of multi-positive dense retrievers},\n"
        f"  version = {{{version}}}\n}}"
    )


def _papers(results: Results) -> list[str]:
    """The entries of the sources that the registry names for the study's losses."""
    sources = [LOSSES[str(name)].source for name in results.settings("loss.name")]
    return [
        entry for number, entry in PAPERS.items() if any(number in source for source in sources)
    ]
