"""Configs: the YAMLs of the project, overrides, and errors that name the key."""

from pathlib import Path

import pytest
import yaml

from sddpm.errors import UserError
from sddpm.neurons import NEURONS
from sddpm.registry import one_of
from sddpm.training import Config, load_config
from sddpm.training.config import KINDS
from sddpm.training.config_files import changed_keys, config_names, to_yaml

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
PAPER = ["celeba64", "cifar10", "fashion_mnist", "lsun_bedroom64", "mnist"]
SMALL = ["celeba64_small", "cifar10_small", "fashion_mnist_small", "mnist_small"]

ANN = {"cifar10_ann": "cifar10", "fashion_mnist_small_ann": "fashion_mnist_small", "mnist_small_ann": "mnist_small"}
TSM = {"cifar10_tsm": "cifar10", "fashion_mnist_small_tsm": "fashion_mnist_small"}
PURE = {"cifar10_pure": "cifar10", "fashion_mnist_small_pure": "fashion_mnist_small"}
QUANTIZED = {"fashion_mnist_small_quantized": "fashion_mnist_small"}
MEDIUM = ["fashion_mnist_medium_quantized", "mnist_medium_quantized"]
FSDDIM = {"fashion_mnist_small_fsddim": "fashion_mnist_small_pure"}
CLASSES = {"fashion_mnist_small_classes": "fashion_mnist_small"}
SIGNALS = ["clothing_profiles", "gaussian_process"]
ATTENTION = {"fashion_mnist_small_attention": "fashion_mnist_small"}
NIR = {"fashion_mnist_nir": "fashion_mnist_small_pure"}


def test_the_project_has_the_configs_it_promises():
    assert (
        sorted(
            [
                "digits",
                "digits_quantized",
                *PAPER,
                *SMALL,
                *ANN,
                *TSM,
                *PURE,
                *QUANTIZED,
                *MEDIUM,
                *FSDDIM,
                *CLASSES,
                *ATTENTION,
                *SIGNALS,
                *NIR,
            ]
        )
        == NAMES
    )
    assert set(NAMES) <= set(config_names())


@pytest.mark.parametrize("name", NAMES)
def test_yaml_is_valid_lists_every_key_and_comments_each(name):
    path = CONFIGS / f"{name}.yaml"
    config = load_config(path)
    values = yaml.safe_load(path.read_text())
    there = [section for section in Config.model_fields if getattr(config, section) is not None]
    assert there == ["data", "model", "diffusion", "train"]  # `sddpm distill` adds what else there is
    schema = {section: set(type(getattr(config, section)).model_fields) for section in there}
    assert {section: set(keys) for section, keys in values.items()} == schema
    lines = [line for line in path.read_text().splitlines() if line.startswith("  ")]
    assert len(lines) == sum(map(len, schema.values()))
    assert all(len(line.partition(" # ")[2]) > 3 for line in lines)


@pytest.mark.parametrize("name", PAPER)
def test_paper_size(name):
    """66.7 million parameters: spec of the reference; steps, batch and clipping of the paper."""
    config = load_config(name)
    assert (config.model.base_channels, config.model.channel_mult, config.model.num_res_blocks) == (
        128,
        (1, 2, 2, 4),
        2,
    )
    assert (config.model.T, config.model.patch_size, config.train.steps, config.train.batch_size) == (
        4,
        1,
        500_000,
        128,
    )
    assert (config.train.lr, config.train.warmup_steps, config.train.ema_decay) == (2e-4, 5000, 0.9999)
    assert config.data.flip == (name in ("cifar10", "celeba64"))


@pytest.mark.parametrize(("name", "twin"), ANN.items())
def test_twins_differ_in_their_network_alone(name, twin):
    config, other = load_config(name), load_config(twin)
    assert (config.data, config.diffusion, config.train) == (other.data, other.diffusion, other.train)
    assert config == load_config(twin, ["model.kind=ann"])


@pytest.mark.parametrize(("name", "source"), TSM.items())
def test_fine_tuning_starts_from_the_same_network(name, source):
    config, other = load_config(name), load_config(source)
    assert config.model == other.model.model_copy(update={"temporal_modulation": True})
    assert (config.data, config.diffusion) == (other.data, other.diffusion)
    assert config.train.steps <= other.train.steps / 10


@pytest.mark.parametrize("name", NAMES)
def test_networks_can_be_built_for_their_images(name):
    from sddpm.models.config import size_divisor

    config = load_config(name)
    assert config.data.image_size % size_divisor(config.model.model_dump()) == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learning_rate=1", ["`overrides`", "'train.learning_rate'", "'train.lr'"]),
        ("train.btach_size=1", ["`overrides`", "'train.btach_size'", "'train.batch_size'"]),
        ("model.lr=1", ["`overrides`", "'model.lr'", "'train.lr'"]),
        ("trian.lr=1", ["`overrides`", "'trian'", "'train'"]),
        ("train.zzzz=1", ["`overrides`", "'train.zzzz'", "the keys are", "batch_size"]),
        ("train.lr=fast", ["`overrides`", "train.lr", "'fast'", "number", "Learning rate"]),
        ("train.steps=-5", ["train.steps", "-5", "greater than 0"]),
        ("train.steps=2.5", ["train.steps", "2.5", "whole number"]),
        ("train.steps=true", ["train.steps", "True", "whole number"]),
        ("train.lr=.nan", ["train.lr", "nan", "finite"]),
        ("train.tensorboard=1", ["train.tensorboard", "boolean"]),
        ("model.T=0", ["model.T", "0", "greater than 0"]),
        ("model.neuron=relu", ["model.neuron", "'relu'", one_of(NEURONS)]),
        ("model.kind=dnn", ["model.kind", "'dnn'", *KINDS]),
        ("train.modulation_lr=0.1", ["train.modulation_lr needs model.temporal_modulation=true"]),
        ("train.betas=[0.9]", ["train.betas", "[0.9]"]),
        ("train.ema_decay=1", ["train.ema_decay", "less than 1"]),
        ("train.rate_target=1.5", ["train.rate_target", "1.5", "less than or equal to 1"]),
        ("train.rate_target={'up.*': -1}", ["train.rate_target", "-1", "0 to 1"]),
        ("train.lr", ["`overrides=train.lr`", "section.key=value"]),
        ("lr=1", ["`overrides=lr=1`", "section.key=value"]),
        ("data.path=[a", ["`overrides=data.path=[a`", "YAML"]),
    ],
)
def test_bad_overrides_are_named(override, words):
    with pytest.raises(UserError) as error:
        load_config("digits", [override])
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {lr: 1, lr: 2}", ["'lr'", "twice"]),
        ("train:\n  lr: [", ["line", "YAML"]),
        ("train: 3", ["train", "3"]),
        ("- 1", ["sections", "list"]),
        ("tarin: {}", ["'tarin'", "'train'"]),
        ("train: {wramup_steps: 3}", ["'train.wramup_steps'", "'train.warmup_steps'"]),
        ("train: {lr: '0.1'}", ["train.lr", "'0.1'"]),
        ("data: {limit: 2020-01-01}", ["data.limit", "2020-01-01"]),
    ],
)
def test_bad_files_are_named(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path)
    message = str(error.value)
    assert str(path) in message
    assert all(word in message for word in words), message


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="did you mean mnist_small"):
        load_config("mnist_smal")


def test_not_text_is_refused(tmp_path):
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10")
    with pytest.raises(UserError, match=r"picture\.yaml"):
        load_config(path)


def test_numbers_as_people_write_them():
    config = load_config(
        "digits", ["train.lr=1e-4", "train.steps=1e5", "train.betas=[0, 5e-1]", "train.weight_decay=0"]
    )
    assert (config.train.lr, config.train.steps, config.train.betas) == (1e-4, 100_000, (0.0, 0.5))


def test_later_overrides_win_and_null_and_mappings_work():
    overrides = ["train.lr=1", "train.lr=2", "model.v_reset=null", "model.v_threshold={'*': 1, 'up*': 0.9}"]
    config = load_config("digits", overrides)
    assert (config.train.lr, config.model.v_reset, config.model.v_threshold) == (2.0, None, {"*": 1.0, "up*": 0.9})


def test_an_empty_file_is_the_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert load_config(path) == Config()


@pytest.mark.parametrize("name", NAMES)
def test_resolved_config_reads_back_equal(name, tmp_path):
    config = load_config(name, ["train.lr=1e-5"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


def test_changed_keys_leaves_out_harmless_ones():
    before = load_config("digits")
    now = load_config("digits", ["train.steps=7", "train.log_every=3", "data.path=x", "model.T=2", "train.lr=3"])
    assert changed_keys(before.to_dict(), now.to_dict()) == ["model.T", "train.lr"]


def test_changed_keys_takes_what_an_older_config_does_not_name_for_the_default():
    older = load_config("digits").to_dict()
    del older["model"]["pure"]
    assert changed_keys(older, load_config("digits").to_dict()) == []
    assert changed_keys(older, load_config("digits", ["model.pure=true"]).to_dict()) == ["model.pure"]


def test_another_kind_of_network_keeps_what_both_have():
    """Keys that only the kind in the file has go; keys that were given and do not exist are refused."""
    config = load_config("mnist_small", ["model.kind=ann", "model.attention_resolutions=[8]"])
    assert config.model.kind == "ann"
    assert (config.model.channel_mult, config.model.patch_size) == ((1, 2, 4), 2)
    assert load_config("mnist_small_ann", ["model.kind=spiking"]).model.T == 4
    with pytest.raises(UserError, match=r"`overrides`: unknown key 'model\.T'; .*attention_resolutions"):
        load_config("mnist_small", ["model.kind=ann", "model.T=8"])
    with pytest.raises(UserError, match=r"mnist_small_ann\.yaml: |`overrides`: unknown key 'model\.T'"):
        load_config("mnist_small_ann", ["model.T=8"])
    with pytest.raises(UserError, match=r"model\.attention_resolutions = \['a'\]|model\.attention_resolutions = 'a'"):
        load_config("mnist_small_ann", ["model.attention_resolutions=[a]"])


@pytest.mark.parametrize(("pure", "plain"), PURE.items())
def test_pure_configs_differ_in_nothing_else(pure, plain):
    assert changed_keys(load_config(plain).to_dict(), load_config(pure).to_dict()) == ["model.pure"]


@pytest.mark.parametrize(("conditional", "plain"), CLASSES.items())
def test_conditional_configs_differ_in_nothing_else(conditional, plain):
    assert changed_keys(load_config(plain).to_dict(), load_config(conditional).to_dict()) == ["model.num_classes"]


@pytest.mark.parametrize(("attended", "plain"), ATTENTION.items())
def test_attention_configs_differ_in_nothing_else(attended, plain):
    changed = changed_keys(load_config(plain).to_dict(), load_config(attended).to_dict())
    assert changed == ["model.attention_resolutions"]


@pytest.mark.parametrize(("nir", "plain"), NIR.items())
def test_nir_configs_differ_in_the_shape_of_the_network_alone(nir, plain):
    changed = changed_keys(load_config(plain).to_dict(), load_config(nir).to_dict())
    shape = ("base_channels", "channel_mult", "num_res_blocks", "patch_size")
    assert sorted(changed) == [f"model.{key}" for key in shape]


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.steps=30", "model.v_threshold={up*: 0.5}"],
        {"train.steps": 30, "model.v_threshold": {"up*": 0.5}},
        {"train": {"steps": 30}, "model": {"v_threshold": {"up*": 0.5}}},
    ],
)
def test_overrides_may_be_texts_or_a_mapping(overrides):
    config = load_config("digits", overrides)
    assert (config.train.steps, config.model.v_threshold) == (30, {"up*": 0.5})


def test_one_text_is_one_override():
    assert load_config("digits", "train.steps=30").train.steps == 30


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train": 30}, r"'train' is not a key"),
        ({"train.": 30}, r"'train\.' is not a key"),
        ({"train.lr.x": 30}, r"'train\.lr\.x' is not a key"),
        ({"data.path": "z\udce9"}, "a value is not UTF-8: rename the file or folder"),
        ({"train": {"step": 30}}, r"`overrides`: unknown key 'train.step'; did you mean 'train.steps'"),
        ({"train.steps": "30"}, r"`overrides`: train.steps = '30' should be a whole number"),
    ],
)
def test_a_mapping_that_says_nothing_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        load_config("digits", overrides)
