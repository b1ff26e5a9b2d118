import json
import math
from collections import Counter
from pathlib import Path

import pytest

from cloc.files import is_text, parse_json, parse_object, parse_yaml, read_json, read_json_lines, read_object, read_yaml


def test_what_is_right_reads_as_json_has_it() -> None:
    value = {"a": [1, -2.5, True, None, "é 😀"], "b": {"c": [[]]}, "big": 2**63 - 1, "small": -(2**63)}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        for data in (text, text.encode(), b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16")):
            assert parse_json(data, "it") == value


def test_an_integer_beyond_64_bits_is_a_float() -> None:
    for digits, value in ((str(2**63), 2.0**63), (str(-(2**63) - 1), -(2.0**63)), ("1" + 5000 * "0", math.inf)):
        found = parse_json(f"[{digits}]", "it")[0]
        assert type(found) is float
        assert found == value


BAD = {
    "deep": 100_000 * "[" + 100_000 * "]",
    "deep, by objects": 500 * '{"a":' + "1" + 500 * "}",
    "deep, with neighbours": 200 * "[1, " + "2" + 200 * "]",
    "cut": '{"a": [1, 2',
    "nothing": "",
    "half a pair": '{"a": "\\ud83d"}',
    "half a pair in a name": '{"\\uDE00 x": 1}',
    "two": "{} {}",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_one_value_error_that_names_the_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\Ait: expected JSON, got [^\n]+\Z"):
        parse_json(BAD[name], "it")
    file = tmp_path / "card.json"
    file.write_text(BAD[name])
    with pytest.raises(ValueError, match=r"card.json: expected the card, got [^\n]+; make it again\Z"):
        read_json(file, "the card", "make it again")


def test_no_text_no_file_too_large_and_no_object(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with pytest.raises(ValueError, match="found no file"):
        read_json(file)
    with pytest.raises(ValueError, match="found no file"):
        read_json(tmp_path)
    file.write_bytes(b'"\xff"')
    with pytest.raises(ValueError, match="no JSON"):
        read_json(file)
    file.write_text("[1, 2]")
    with pytest.raises(ValueError, match="got a JSON list instead of an object"):
        read_object(file, "a card")
    with pytest.raises(ValueError, match="expected a JSON object, got a list"):
        parse_object(b"[]", "it")
    with pytest.raises(ValueError, match="at most 3 bytes"):
        read_json(file, largest=3)


def test_half_a_pair_can_be_replaced_and_whole_pairs_stay() -> None:
    assert parse_json('["\\ud83d", {"a\\ude00": "\\ud83d\\ude00"}]', "it", replace_halves=True) == ["�", {"a�": "😀"}]
    assert parse_json('["\\ud83d\\ude00", "\\\\ud83d"]', "it") == ["😀", "\\ud83d"]
    assert [is_text(one) for one in ("😀", "\ud83d", None)] == [True, False, False]


def test_lines_are_counted_or_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = ['\ufeff{"a": 1}', "", '{"a": "line\u2028separator"}', "{", 1000 * "[", '"\\ud800"', "7"]
    file.write_text("\n".join(lines), encoding="utf-8")
    dropped = Counter[str]()
    found = list(read_json_lines(file, "rows", dropped))
    assert found == [(1, {"a": 1}), (3, {"a": "line\u2028separator"}), (7, 7)]
    assert dropped == {"bad_row": 3}
    with pytest.raises(ValueError, match=r"a\.jsonl:4: expected a line of rows, got text that is no JSON"):
        list(read_json_lines(file, "rows"))
    file.write_bytes(b'1\n"\xff"\n2')
    assert [value for _, value in read_json_lines(file, dropped=dropped)] == [1, 2]


BAD_YAML = {
    "no yaml": "a: [",
    "deep": 5000 * "[",
    "deep, by blocks": "".join(f"{level * ' '}a:\n" for level in range(200)) + 200 * " " + "b: 1",
    "laughs": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]\n" for i in range(1, 12)),
    "into itself": "a: &a [*a]",
    "merged": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)),
    "huge integer": "a: " + 5000 * "9",
    "no integer": "a: !!int x",
    "no truth": "a: !!bool x",
    "no time": "a: !!timestamp x",
    "13th month": "a: 2026-13-01",
    "python": "a: !!python/object/apply:os.system [id]",
    "control": "a: \x00",
    "long": "a: " + (1 << 20) * "b",
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_yaml_that_is_wrong_is_one_value_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"\Ait: expected YAML[^\n]*\Z"):
        parse_yaml(BAD_YAML[name], "it")


def test_yaml(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes("\ufeffa: &a {b: [1, 2.5, é]}\nc: *a\nd: {<<: *a, e: 1}".encode())
    inner = {"b": [1, 2.5, "é"]}
    assert read_yaml(file) == {"a": inner, "c": inner, "d": {**inner, "e": 1}}
    assert parse_yaml("", "it") is None
    assert parse_yaml(f"a: {2**64}", "it") == {"a": 2.0**64}
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="UTF-8"):
        read_yaml(file)


def test_files_of_json_and_yaml_are_read_in_one_place() -> None:
    """Any other place would have its own idea of what a hostile file may be."""
    root = Path(__file__).resolve().parents[2]
    own = {"jobs.py", "timm.py", "card.py", "verify.py"}  # texts that the same code has written
    for package in ("cloc", "mllm_bridge", "benchmarks"):
        for file in (root / package).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            if file != root / "cloc" / "files.py":
                assert not any(call in text for call in ("json.load(", "yaml.safe_load(", "yaml.load(")), file
                assert file.name in own or "json.loads(" not in text, f"{file}: use cloc.files"
