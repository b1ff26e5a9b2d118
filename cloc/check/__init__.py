"""A look at a finished set before anything is trained on it. The command is `python -m cloc.check`."""

from cloc.check.contact_sheet import draw_contact_sheet, write_page
from cloc.check.evaluations import Evaluation, read_evaluation, read_evaluations
from cloc.check.examine import Findings, examine
from cloc.check.published import PUBLISHED, Published, find_published

__all__ = [
    "PUBLISHED",
    "Evaluation",
    "Findings",
    "Published",
    "draw_contact_sheet",
    "examine",
    "find_published",
    "read_evaluation",
    "read_evaluations",
    "write_page",
]
