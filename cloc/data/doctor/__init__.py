"""Data room: a look at a finished set before anything is trained on it. The command is `python -m cloc.data.check`."""

from cloc.data.doctor.evaluations import Evaluation, read_evaluation, read_evaluations
from cloc.data.doctor.examine import Findings, examine
from cloc.data.doctor.page import write_page
from cloc.data.doctor.published import PUBLISHED, Published, published_for
from cloc.data.doctor.sheet import contact_sheet

__all__ = [
    "PUBLISHED",
    "Evaluation",
    "Findings",
    "Published",
    "contact_sheet",
    "examine",
    "published_for",
    "read_evaluation",
    "read_evaluations",
    "write_page",
]
