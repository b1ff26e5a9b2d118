"""Names of the earlier layout: each still leads to what it meant, and says its new name."""

from importlib import import_module

import pytest

from cloc.moved import read_table


@pytest.mark.filterwarnings("ignore:.*the old name goes:FutureWarning")
def test_every_old_name_leads_somewhere():
    wrong = []
    for old, (home, names) in read_table().items():
        module = import_module(old)
        if old != home and import_module(home) is module:
            wrong.append(old)
        wrong += [f"{old}.{name}" for name in names if not hasattr(module, name)]
    assert wrong == []


def test_an_old_name_warns_and_is_the_new_one():
    from cloc.formats.frames import FrameWatch
    from cloc.tokenizer import clip_tokenizer

    with pytest.warns(FutureWarning, match=r"cloc\.text\.clip_tokenizer is cloc\.tokenizer\.clip_tokenizer now"):
        from cloc.text import clip_tokenizer as old
    assert old is clip_tokenizer
    with pytest.warns(FutureWarning):
        from cloc.data.formats.frames import FrameWatch as OldFrameWatch
    assert OldFrameWatch is FrameWatch
    with pytest.raises(ImportError):
        from cloc.text import nothing_of_the_kind  # noqa: F401
