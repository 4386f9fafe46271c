"""One table of options: what is typed, what YAML and manifest hold, and what is refused."""

import inspect
import json

import numpy as np
import pytest
from command_line import command, tiny_prior

import recipes
from inverse_score.cli.reconstruct import OWN_ROWS, reconstruct
from inverse_score.errors import BadRequest
from inverse_score.io.config import load_yaml, parse_yaml
from inverse_score.io.pictures import png
from inverse_score.testing.scans import fastmri_file
from recipes.run import Request
from recipes.run.options import OPERATORS, OWN, PICTURES, SCANS, table
from recipes.run.recipe_file import read_recipe, request_text

MASK = np.isin(np.arange(32), [0, 4, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 28])
QUICK = ("--steps", 2, "--samples", 5, "--maps", "low-resolution", "--quiet", "--no-pages",
         "--baseline", "none")  # fmt: skip
# A value that is not the default, for every row of the table.
OTHER = {
    "operator": "ct", "acc": 3.0, "mask": "other", "noise_std": 0.5, "maps": "espirit",
    "metal": 3000.0, "slices": "1:2", "nan": "zero", "key": "k", "axes": "y,x", "blur": 1.0,
    "factor": 3, "weights": "mean", "label": 3, "size": 20, "samples": 1, "method": "dds",
    "steps": 7, "budget": "accurate", "seed": 4, "baseline": "tv", "withheld": True,
    "couple_z": 0.5, "guidance": 2.0, "prior": "other", "patch": 32, "overlap": 4,
    "out": "elsewhere", "overwrite": True, "format_out": ("dicom",), "keep_phi": True,
    "allow_no_geometry": True, "hash_names": True, "keep_samples": False, "pages": False,
    "device": "cuda", "shard": "1/2", "resume": True, "keep_going": True,
}  # fmt: skip
BESIDE = {"overlap": {"patch": 32}, "keep_phi": {"format_out": ("dicom",)},
          "allow_no_geometry": {"format_out": ("dicom",)}}  # fmt: skip


def request(operator, **options):
    """A request of this operator with what it cannot do without."""
    needs = {"label": 1} if operator == "class" else {"scans": ["a"]}
    operator = "mine:factory" if operator == OWN else operator
    return Request(**{"operator": operator, **needs, **options})


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return tiny_prior(tmp_path_factory.mktemp("prior") / "tiny.safetensors")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return fastmri_file(tmp_path_factory.mktemp("scan") / "scan.h5", mask=MASK)


def test_command_line_request_and_yaml_have_the_options_of_the_table():
    names = set(table())
    assert set(inspect.signature(reconstruct).parameters) == names | set(OWN_ROWS) | {
        "context", "scans"}  # fmt: skip
    assert set(inspect.signature(Request).parameters) == names | {"scans", "options"}
    assert set(OTHER) == names
    assert sum(row.first for row in (*table().values(), *OWN_ROWS.values())) == 10


@pytest.mark.parametrize("operator", OPERATORS)
def test_yaml_gives_back_every_option_that_it_may_set(operator):
    for name, row in table().items():
        if not row.place or operator not in row.only or name == "operator":
            continue
        asked = request(operator, **{name: OTHER[name]}, **BESIDE.get(name, {}))
        found = read_recipe(parse_yaml(request_text(asked)), ["operator"])
        assert found[name] == OTHER[name], name
        given = {"scans": asked.scans, "label": asked.label, **found, "operator": asked.operator}
        again = Request(**given)
        assert request_text(again) == request_text(asked)


def test_options_that_only_say_where_and_by_whom_are_not_in_a_file():
    absent = {name for name, row in table().items() if not row.place}
    assert absent == {"out", "overwrite", "keep_phi", "device", "shard", "resume", "keep_going"}


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_option_that_does_nothing_is_refused_and_any_other_is_not(operator):
    for name, row in table().items():
        if name == "operator":
            continue
        options = {name: OTHER[name], **BESIDE.get(name, {})}
        if operator in row.only:
            assert getattr(request(operator, **options), name) == (
                row.type(OTHER[name]) if name == "out" else OTHER[name]
            )
            continue
        with pytest.raises(BadRequest, match="does nothing for --operator"):
            request(operator, **options)


@pytest.mark.parametrize(
    ("operator", "typed"),
    [
        *(("mri", option) for option in (("--label", 1), ("--guidance", 1.0), ("--blur", 2.0),
                                         ("--factor", 2), ("--size", 28), ("--metal", 3000))),
        *(("colorize", option) for option in (("--acc", 2), ("--metal", 3000), ("--mask", "m.png"),
                                              ("--withheld",), ("--maps", "espirit"),
                                              ("--couple-z", 1), ("--dry-run",))),
        *(("class", option) for option in (("--budget", "fast"), ("--patch", 16),
                                           ("--method", "dps"), ("--noise-std", 0.1))),
        ("ct", ("--maps", "espirit")),
        ("mine:factory", ("--acc", 2)),
    ],
)  # fmt: skip
def test_an_option_that_does_nothing_exits_two_even_at_its_default(
    capsys, tmp_path, operator, typed
):
    needs = ("--label", 1) if operator == "class" else ("a.png",)
    out = tmp_path / "out"
    done = command(capsys, "reconstruct", *needs, "--operator", operator, "-o", out, *typed)
    assert done.code == 2
    assert f"{typed[0]} does nothing for --operator {operator}" in done.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dsp"}, "--method must be one of auto, moment-matching"),
        ({"method": "tv", "samples": 2}, "--method tv has one answer, not samples: --samples 1"),
        ({"baseline": "dps"}, "--baseline must be one of zero-filled"),
        ({"maps": "sense"}, "--maps must be one of auto, fitted, espirit, low-resolution"),
        ({"budget": "slow"}, "--budget must be one of fast, accurate; got 'slow'"),
        ({"nan": "skip"}, "--nan must be one of refuse, zero"),
        ({"noise_std": -0.1}, "--noise-std must be at least 0; got -0.1"),
        ({"noise_std": float("nan")}, "--noise-std must be at least 0; got nan"),
        ({"steps": 0}, "--steps must be at least 2; got 0"),
        ({"samples": 0}, "--samples must be at least 1; got 0"),
        ({"acc": 0.5}, "--acc must be at least 1; got 0.5"),
        ({"couple_z": 0.0}, "--couple-z must be more than 0; got 0.0"),
        ({"slices": "1-3"}, "--slices must be N or FIRST:STOP; got '1-3'"),
        ({"slices": "3:3"}, "--slices FIRST:STOP needs FIRST < STOP; got '3:3'"),
        ({"shard": "3/2"}, "--shard must be I/N with 1 <= I <= N; got '3/2'"),
        ({"format_out": ("tiff",)}, "--format-out must be one of dicom, nifti, bart"),
        ({"keep_phi": True}, "--keep-phi does nothing without --format-out dicom"),
        ({"overlap": 4}, "--overlap is that of patches: give their size, --patch, too"),
        ({"operator": "pet"}, "--operator must be one of mri, ct"),
        ({"scans": []}, "no scan given"),
        ({"operator": "class", "scans": []}, "--operator class needs --label"),
        ({"operator": "class", "label": 1}, "draws from the prior and takes no picture"),
    ],
)  # fmt: skip
def test_a_value_that_no_run_could_take_is_refused_before_anything_is_opened(options, message):
    with pytest.raises(BadRequest) as refused:
        Request(**{"scans": ["not there"], **options})
    assert message in str(refused.value)


def test_what_is_refused_later_leaves_nothing_behind_either(capsys, prior, scan, tmp_path):
    arguments = ("reconstruct", scan, "--prior", prior, "-o", tmp_path / "out", *QUICK)
    (tmp_path / "r.yaml").write_text("recipe: mri\nmethod: {setting: 1}\n")
    for typed, code in (
        (("--resume",), 3),
        (("--acc", 9), 3),
        (("--slices", "5"), 3),
        (("--device", "cuda:99"), 3),
        (("--recipe", tmp_path / "r.yaml"), 3),
    ):
        done = command(capsys, *arguments, *typed)
        assert done.code == code, done.err
        assert not (tmp_path / "out").exists(), typed


def test_the_manifest_holds_the_options_that_results_depend_on(capsys, prior, scan, tmp_path):
    done = command(capsys, "reconstruct", scan, "--prior", prior, "-o", tmp_path / "out", *QUICK,
                   "--shard", "1/4")  # fmt: skip
    assert done.code == 0, done.err
    config = json.loads((tmp_path / "out/manifest.json").read_text())["config"]
    # All that says what is measured and how it is sampled, but for what the plan makes of it.
    made = {"mask", "budget", "prior", "slices"}
    for name, row in table().items():
        of_pictures = not set(row.only) & set(SCANS)
        says = row.group in ("Scan", "Sampling", "Prior") and not of_pictures
        assert row.result == ((says and name not in made) or name == "keep_samples"), name
    results = {name for name, row in table().items() if row.result}
    assert results < set(config)
    # What a run makes of the options that it does not take as they are.
    assert set(config) - results == {
        "options", "mask", "prior", "operator_source", "budget", "chunk", "device", "bfloat16",
        "threads", "version", "torch"}  # fmt: skip
    assert config["samples"] == 5
    assert config["maps"] == "low-resolution"


def test_a_saved_recipe_makes_the_same_bytes_again(capsys, tmp_path):
    """From the command line and from Python; its mask and prior were files."""
    prior = tiny_prior(tmp_path / "tiny.safetensors")
    scan = fastmri_file(tmp_path / "scan.h5")
    np.save(tmp_path / "mask.npy", MASK)
    done = command(capsys, "reconstruct", scan, "--prior", prior, "-o", tmp_path / "one", *QUICK,
                   "--mask", tmp_path / "mask.npy", "--seed", 3, "--noise-std", 0.02,
                   "--no-keep-samples", "--withheld")  # fmt: skip
    assert done.code == 0, done.err
    expected, saved = (tmp_path / "one/scan.h5").read_bytes(), tmp_path / "one/recipe.yaml"
    (tmp_path / "mask.npy").unlink()
    done = command(capsys, "reconstruct", scan, "--recipe", saved, "-o", tmp_path / "two", "-q")
    assert done.code == 0, done.err
    assert (tmp_path / "two/scan.h5").read_bytes() == expected
    summary = recipes.load(saved)(scan, out=tmp_path / "three")
    assert summary["status"] == "complete"
    assert (tmp_path / "three/scan.h5").read_bytes() == expected
    other = recipes.load(saved)(scan, out=tmp_path / "four", seed=4)
    assert other["scans"][0]["attributes"]["seed"] == 4


@pytest.mark.filterwarnings("ignore:the data lie")
@pytest.mark.parametrize("operator", [*PICTURES, "class"])
def test_the_saved_recipe_of_pictures_draws_them_again(capsys, tmp_path, operator):
    draw = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png(draw))
    known = np.full((16, 16), 255, np.uint8)
    known[4:9, 4:9] = 0
    (tmp_path / "m.png").write_bytes(png(known))
    prior = tiny_prior(tmp_path / "p.safetensors", 3)
    scans = () if operator == "class" else (tmp_path / "a.png",)
    own = {"inpaint": ("--mask", tmp_path / "m.png"), "class": ("--label", 3, "--guidance", 2.0)}
    typed = ("--prior", prior) if operator != "class" else ()
    one, two = tmp_path / "one", tmp_path / "two"
    done = command(capsys, "reconstruct", *scans, "--operator", operator, *typed, "--steps", 2,
                   "--samples", 2, "--seed", 5, *own.get(operator, ()), "-o", one)  # fmt: skip
    assert done.code == 0, done.err
    assert "does nothing" not in done.err
    saved = one / "recipe.yaml"
    done = command(capsys, "reconstruct", *scans, "--recipe", saved, "-o", two)
    assert done.code == 0, done.err
    drawn = sorted(path.name for path in one.glob("*.png"))
    assert len(drawn) == (3 if operator == "class" else 4)
    for name in drawn:
        assert (two / name).read_bytes() == (one / name).read_bytes()
    # In Python the recipe takes the picture itself, and the file's samples and seed.
    from recipes.pictures import read_colours, read_picture, write_picture

    channels = {"inpaint": read_colours, "colorize": lambda path: read_picture(path, 1)}
    read = channels.get(operator, read_picture)
    rec = recipes.load(saved)(*map(read, scans))
    assert (rec.num_samples, rec.seed) == (2, 5)
    write_picture(tmp_path / "mean.png", rec.mean[0])
    name = "class-3-mean.png" if operator == "class" else "a-mean.png"
    assert (tmp_path / "mean.png").read_bytes() == (one / name).read_bytes()


def test_pictures_are_not_replaced_and_nothing_is_computed_first(capsys, tmp_path, monkeypatch):
    arguments = ("reconstruct", "--operator", "class", "--label", 3, "--samples", 1, "--steps", 2,
                 "-o", tmp_path / "out")  # fmt: skip
    assert command(capsys, *arguments).code == 0
    monkeypatch.setattr("recipes.run.pictures.class_conditional", None)
    done = command(capsys, *arguments)
    assert done.code == 3
    assert "already holds class-3-samples.png; --overwrite replaces it" in done.err


def test_samples_and_seed_of_a_file_are_what_a_recipe_takes_by_default(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("recipe: super-resolution\nprior: digits\noperator: {factor: 2, seed: 7}\n"
                    "method: {samples: 3, steps: 2}\n")  # fmt: skip
    import torch

    recipe, image = recipes.load(path), torch.full((1, 14, 14), 0.5)
    rec = recipe(image)
    assert (rec.num_samples, rec.seed) == (3, 7)
    rec = recipe(image, num_samples=1, seed=0)
    assert (rec.num_samples, rec.seed) == (1, 0)
    path.write_text(path.read_text().replace("samples: 3", "samples: few"))
    with pytest.raises(ValueError, match="samples must be a whole number; got 'few'"):
        recipes.load(path)


@pytest.mark.parametrize(
    "typed",
    [(), ("--budget", "accurate"), ("--steps", 3), ("--method", "dds"), ("--couple-z", 0.1)],
)
def test_the_dry_run_foresees_the_calls_that_a_run_makes(capsys, prior, scan, tmp_path, typed):
    arguments = ("reconstruct", scan, "--prior", prior, "-o", tmp_path / "out", "--samples", 1,
                 "--maps", "low-resolution", "--baseline", "none", "--no-pages", "--json", "-q",
                 *typed)  # fmt: skip
    planned = command(capsys, *arguments, "--dry-run")
    assert planned.code == 0, planned.err
    done = command(capsys, *arguments)
    assert done.code == 0, done.err
    for entry in json.loads(done.out)["scans"][0]["slices"]:
        assert entry["nfe"] == json.loads(planned.out)["calls"]


def test_the_saved_recipe_names_every_choice(capsys, prior, scan, tmp_path):
    done = command(capsys, "reconstruct", scan, "--prior", prior, "-o", tmp_path / "out", *QUICK)
    assert done.code == 0, done.err
    saved = load_yaml(tmp_path / "out/recipe.yaml")
    assert saved["method"]["budget"] == "fast"
    assert saved["operator"]["maps"] == "low-resolution"
    assert (tmp_path / "out" / saved["prior"]).samefile(prior)
    assert set(SCANS) >= {"mri"}
