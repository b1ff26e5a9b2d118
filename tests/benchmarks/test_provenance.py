"""Where a figure comes from."""

from benchmarks.provenance import hash_tokenizer


def test_a_tokenizer_is_known_by_its_files(tmp_path):
    folders = [tmp_path / name for name in ("one", "same", "other", "moved", "none")]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text(folder.name)  # no part of it
    for folder, text in zip(folders, ("a", "a", "b"), strict=False):
        (folder / "tokenizer.json").write_text(text)
    (folders[3] / "vocab.json").write_text("a")
    one, same, other, moved, none = map(hash_tokenizer, folders)
    assert one == same
    assert len({one, other, moved}) == 3
    assert none is hash_tokenizer(None) is None
