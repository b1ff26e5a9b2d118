import re
from pathlib import Path

import pytest
import yaml

from cloc.config import REPOSITORY, dump_config, find_config, load_config, parse_config

SMALL = {"data": [{"path": "a"}, {"path": "b", "batch_size": 8}], "train": {"steps": 5}}


@pytest.fixture
def file(tmp_path):
    """A small config on disk."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return str(path)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_committed_config_parses(path):
    config = load_config(str(path))
    assert config.steps >= 1
    assert config.run.name


def test_defaults_are_the_papers_where_it_speaks(file):
    config = load_config(file)
    assert (config.loss.regions_per_image, config.loss.image_text) == (4, 1.0)
    assert (config.optim.beta1, config.optim.beta2, config.optim.weight_decay) == (0.9, 0.98, 0.2)
    assert (config.objective, config.batch_size, config.steps) == ("cloc", 40, 5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trian": {}}, r"trian: unknown key; the nearest known one is 'train'"),
        ({"loss": {"region_per_image": 2}}, r"loss\.region_per_image: .* 'loss\.regions_per_image'"),
        ({"model": {"vision": {"patchsize": 2}}}, r"model\.vision\.patchsize: .* 'model\.vision\.patch_size'"),
        ({"data": [{"path": "a", "batchsize": 2}]}, r"data\.0\.batchsize: .* 'data\.0\.batch_size'"),
    ],
)
def test_an_unknown_key_names_the_nearest(changes, told):
    with pytest.raises(ValueError, match=told):
        parse_config({**SMALL, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": {}}, r"train: .*exactly one of train\.steps and train\.samples"),
        ({"train": {"steps": 1, "samples": 2}}, r"train: .*exactly one of train\.steps and train\.samples"),
        ({"train": {"steps": 0}}, r"train\.steps: .*greater than or equal to 1 \(got 0\)"),
        ({"data": []}, r"data: .*at least 1 item"),
        ({"data": [{}]}, r"data\.0\.path: Field required"),
        ({"run": {"name": "a/b"}}, r"run\.name: .*\(got 'a/b'\)"),
        ({"objective": "clop"}, r"objective: Input should be 'clip', 'cloc', 'detclip' or 'joint' \(got 'clop'\)"),
        ({"loss": {"filter_threshold": 1.5}}, r"loss\.filter_threshold: .*\(got 1\.5\)"),
        ({"model": "big"}, r"model: .*\(got 'big'\)"),
    ],
)
def test_a_value_that_does_not_fit_is_named(changes, told):
    with pytest.raises(ValueError, match=told):
        parse_config({**SMALL, **changes}, "FILE")


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ValueError, match=r"(?s)FILE: objective.*\nFILE: train\.steps"):
        parse_config({**SMALL, "objective": "x", "train": {"steps": -1}}, "FILE")


def test_overrides_change_one_field(file):
    overrides = [
        "loss.regions_per_image=2", "optim.lr=1e-3", "data.1.path=c", "model.vision.source=some/name",
        "objective=clip", "train.steps=", "train.samples=41", "model.share_temperature=true",
    ]  # fmt: skip
    config = load_config(file, overrides)
    assert config.loss.regions_per_image == 2
    assert config.optim.lr == pytest.approx(1e-3)  # PyYAML reads 1e-3 as text
    assert [source.path for source in config.data] == ["a", "c"]
    assert config.model.vision.source == "some/name"
    assert config.model.share_temperature is True
    assert config.objective == "clip"
    assert config.steps == 2  # 41 samples in batches of 40


def test_numbers_that_yaml_reads_as_text_work_in_a_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: [{path: a}]\ntrain: {steps: 5}\noptim: {lr: 1e-3, eps: 1e-8}\n")
    config = load_config(str(path))
    assert (config.optim.lr, config.optim.eps) == (1e-3, 1e-8)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("loss.regions_per_image", r"override 'loss\.regions_per_image': expected KEY=VALUE"),
        ("=3", r"override '=3': expected KEY=VALUE"),
        ("data.2.path=c", r"override 'data\.2\.path=c': expected a position from 0 to 1, got '2'"),
        ("data.first.path=c", r"expected a position from 0 to 1, got 'first'"),
        ("loss.filter=1", r"loss\.filter: unknown key; the nearest known one is 'loss\.filter_"),
        ("optim.lr=[1", r"override 'optim\.lr=\[1': expected YAML"),
    ],
)
def test_a_malformed_override_is_refused(override, told, file):
    with pytest.raises(ValueError, match=told):
        load_config(file, [override])


def test_a_file_that_is_missing_or_no_mapping_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config nowhere\.yaml: no such file; known: .*configs/quickstart\.yaml"):
        load_config("nowhere.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"list\.yaml: expected a mapping .* got list"):
        load_config(str(tmp_path / "list.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [1,\nb: {")
    with pytest.raises(ValueError, match=r"broken\.yaml: expected YAML"):
        load_config(str(tmp_path / "broken.yaml"))


def test_a_config_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/quickstart.yaml") == REPOSITORY / "configs/quickstart.yaml"
    Path("configs").mkdir()
    Path("configs/quickstart.yaml").write_text("{}")
    assert find_config("configs/quickstart.yaml") == Path("configs/quickstart.yaml")


def test_a_written_config_is_read_back_equal_and_values_are_frozen(file):
    config = load_config(file, ["optim.lr=3e-4"])
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    with pytest.raises(ValueError, match="frozen"):
        config.optim.lr = 1.0


def test_samples_are_rounded_up_to_whole_steps():
    config = parse_config({**SMALL, "train": {"samples": 161, "accumulation": 2}})
    assert config.steps == 3


def test_an_override_inside_something_without_fields_is_refused(tmp_path):
    path = tmp_path / "flat.yaml"
    path.write_text("data: [photos]\ntrain: {steps: 1}\n")
    with pytest.raises(ValueError, match=r"override 'data\.0\.path=x': expected fields at 'path', got 'photos'"):
        load_config(str(path), ["data.0.path=x"])
    with pytest.raises(ValueError, match=r"expected fields at 'b', got 'photos'"):
        load_config(str(path), ["data.0.b.c=x"])


TWO_KINDS = {
    "objective": "detclip",
    "data": [{"path": "a", "kind": "detection"}, {"path": "b", "kind": "pairs", "from_step": 3}],
    "train": {"steps": 5},
}


def test_a_kind_may_begin_at_a_later_step():
    assert parse_config(TWO_KINDS).starts == {"detection": 0, "pairs": 3}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"objective": "cloc", "data": [{"path": "a", "from_step": 2}]},
            "from_step 2: objective cloc takes every source",
        ),
        ({"train": {"steps": 3}}, "from_step 3: the run has 3 steps, so kind pairs would never be trained on"),
        ({"data": [{"path": "a", "kind": "detection", "from_step": 1}]}, "expected one kind that begins at step 0"),
        (
            {"data": [*TWO_KINDS["data"], {"path": "c", "kind": "pairs"}]},
            r"all sources of kind pairs share from_step, got \[0, 3\]",
        ),
    ],
)
def test_a_start_that_cannot_be_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        parse_config(TWO_KINDS | changes)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "model.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"model\.yaml: expected YAML, got a file that is no UTF-8 text \('utf-8'"):
        load_config(str(tmp_path / "model.yaml"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optim.learning_rate=1", "optim.learning_rate: unknown key; the nearest known one is 'optim.lr'"),
        ("learning_rate=1", "learning_rate: unknown key; the nearest known one is 'optim.lr'"),
        ("lr=1", "the nearest known one is 'optim.lr'"),
        ("wd=0", "the nearest known one is 'optim.weight_decay'"),
        ("batch_size=8", "the nearest known one is 'data.0.batch_size'"),
        ("train.batch_size=8", "the nearest known one is 'data.0.batch_size'"),
        ("train.max_steps=8", "the nearest known one is 'train.steps'"),
        ("train.epochs=8", "train.epochs: unknown key; a run's length is train.steps or train.samples"),
        ("output_dir=x", "runs lie in --runs FOLDER, each under its run.name"),
        ("run.num_workers=2", "the nearest known one is 'run.workers'"),
        ("model.vision.resolution=2", "the nearest known one is 'model.vision.image_size'"),
        ("lossy=1", "the nearest known one is 'loss'"),
        ("optim.zzz=1", "optim.zzz: unknown key; known in optim: lr, text_lr_scale"),
        ("zzz=1", "zzz: unknown key; known: run, data, model, objective, loss, optim, train, export"),
    ],
)
def test_what_is_meant_is_told_and_nothing_that_is_not_near(override, told, file):
    with pytest.raises(ValueError, match=re.escape(told)) as raised:
        load_config(file, [override])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=.inf", "optim.lr=.nan", "optim.lr=nan", "optim.lr=-.inf", "optim.lr=0", "optim.lr=-1e-3",
        "loss.grounding=.nan", "model.logit_scale_init=.inf", "run.name=..", "run.name=.", "run.name=.hidden",
        "run.name=/tmp/x", "run.name=a/../b", "run.name=''", f"run.name={'x' * 300}", "run.name='a\nb'", "run.seed=-1",
        f"run.seed={10**30}", f"train.steps={10**30}", 
        f"train.steps={10**9}", "train.steps=-5", "train.steps=2.5", "train.steps=true",
        "optim.lr=false", "data.0.batch_size=0", f"data.0.batch_size={10**12}", "data.0.image_size=0",
        "data.0.image_size=-32", "data.0.image_size=[[0,32]]", "data.0.image_size=[[32]]", "model.vision.width=-8",
        f"model.vision.width={10**9}", f"model.vision.layers={10**7}", "model.vision.image_size=100000000",
        "model.vision.mlp_ratio=.inf", "model.detector.strides=[0]", "run.workers=-2", "run.workers=100000",
        "run=[1,2]", "data={}", "data=5", "optim=fast", "train=", "data.0=", "model.vision.depths=[-1]", "1=2",
        "loss.regions_per_image=[[[[1]]]]", "run.name={a: b}", "train.checkpoint_every=0", "data.0.weight=.inf",
    ],
)  # fmt: skip
def test_values_that_nobody_can_mean_are_one_line(override, file):
    with pytest.raises(ValueError, match=rf"small\.yaml: {override.partition('=')[0].split('.')[0]}") as raised:
        load_config(file, [override])
    assert len(str(raised.value).splitlines()) <= 2  # a union says it once for each of its kinds
    assert len(str(raised.value)) < 1000


HOSTILE = {
    "a bomb of aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)),
    "deep lists": "data: " + "[" * 5000,
    "deep mappings": "".join("  " * i + "a:\n" for i in range(1500)),
    "a tag of Python": "data: !!python/object/apply:os.system ['true']",
    "half a pair": 'run: {name: "\\ud83d"}',
    "a NUL": "data: [{path: a\0}]",
    "two documents": "a: 1\n---\nb: 2",
    "keys that are no names": "1: 2\n[a, b]: 3\n? {x: y}\n: 4",
    "a merge of a number": "<<: 3",
    "text": "just words",
    "nothing": "",
    "a thousand unknown keys": "".join(f"key{i}: 1\n" for i in range(1000)),
    "a huge number": "data: [{path: a}]\ntrain: {steps: " + "9" * 4000 + "}",
    "an alias of itself": "data: &d [{path: a}, *d]\ntrain: {steps: 1}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_few_words(name, tmp_path):
    (tmp_path / "c.yaml").write_text(HOSTILE[name])
    with pytest.raises(ValueError, match=r"c\.yaml: ") as raised:
        load_config(str(tmp_path / "c.yaml"))
    assert len(str(raised.value)) < 4000
    assert len(str(raised.value).splitlines()) <= 21


def test_samples_that_make_too_many_steps_are_refused():
    with pytest.raises(ValueError, match=r"train\.samples 1000000000000000: .* steps, expected at most 100,000,000"):
        parse_config({**SMALL, "train": {"samples": 10**15}})
