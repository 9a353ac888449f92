"""Every preset that is installed is valid, says what it asks, and is found by name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

import search_spaces
from ablate.plan import presets as module
from ablate.plan.estimate import estimate, warnings
from ablate.plan.presets import Preset, find_study, preset_names, presets
from ablate.plan.study import load_study, read_study
from ablate.plan.written import write_study
from tests.plan.conftest import STUDY, plan_of
from trainables.errors import InvalidInput
from trainables.spec import TrialSpec

FOLDER = Path(str(search_spaces.__file__)).parent
FILES = sorted(file for file in FOLDER.rglob("*") if file.suffix in {".yaml", ".yml"})
SEARCHING = "ABLATE_COLLECTIONS"
EXPECTED = {"quickstart", "losses", "temperature", "mix", "positives", "noise", "paper"}


def test_every_file_is_a_preset_under_its_own_name() -> None:
    assert {file.stem for file in FILES} >= EXPECTED
    assert sorted(file.stem for file in FILES) == list(preset_names())
    assert len(set(preset_names())) == len(FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_every_preset_is_valid(
    file: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if SEARCHING in file.read_text(encoding="utf-8"):
        monkeypatch.setenv(SEARCHING, str(request.getfixturevalue("shared_data")))
    study = load_study(file.stem)
    plan = plan_of(study)
    trial = next(plan.trials())
    assert TrialSpec.from_flat(trial.flat).to_flat() == trial.flat
    assert len(plan.cells) > 1
    assert len(study.seeds) > 1
    assert estimate(plan, speed=1e11).minutes is not None
    assert all(note.text.endswith(".") for note in warnings(plan))
    assert read_study(write_study(study), file.stem) == study


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_every_preset_opens_with_its_question_and_its_command(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    opening = text.split("\nquestion:")[0].splitlines()
    assert opening
    assert all(line.startswith("#") for line in opening if line)
    assert re.search(rf"^#     ablate run {file.stem}( |$)", text, re.MULTILINE)
    asked = next(preset for preset in presets() if preset.name == file.stem)
    assert asked.question.endswith("?")


def test_the_commands_that_presets_suggest_are_valid() -> None:
    found = 0
    for file in FILES:
        text = file.read_text(encoding="utf-8").replace("\\\n#", " ")
        for line in re.findall(r"^#     ablate run (.*--set.*)$", text, re.MULTILINE):
            name, *options = line.replace("--set ", "").split()
            load_study(name, dict(option.split("=", 1) for option in options))
            found += 1
    assert found


def test_the_quickstart_asks_what_it_promises() -> None:
    study = load_study("quickstart")
    plan = plan_of(study)
    assert len(study.listed("loss.name")) == 5
    assert len(study.listed("loss.temperature")) == 2
    assert plan.frozen_by_design
    assert study.confirm is not None
    assert study.resources.gpus_per_worker == 0
    assert 0 < float(study.fixed["data.human_fraction"] or 0) < 1


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInput) as caught:
        find_study("quikstart")
    text = str(caught.value)
    assert "is neither a preset nor a file" in text
    assert "did you mean 'quickstart'?" in text


def test_files_are_found_by_path_before_presets(tiny: Path) -> None:
    (tiny / "losses").write_text(STUDY, encoding="utf-8")
    assert find_study("losses").text == STUDY
    assert find_study("mix").text != STUDY


def test_presets_are_found_in_folders_and_in_zip_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "installed.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("search_spaces/__init__.py", "")
        file.writestr("search_spaces/one.yaml", STUDY)
        file.writestr("search_spaces/deeper/two.yml", STUDY)
    root = zipfile.Path(archive, "search_spaces/")
    monkeypatch.setattr(module, "files", lambda package: root)
    asked = "Which loss ranks best?"
    assert presets() == (Preset("one", asked), Preset("two", asked))
    assert find_study("two").text == STUDY
