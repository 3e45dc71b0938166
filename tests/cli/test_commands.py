"""The commands as a new user meets them: help at once, one line for every mistake, exit codes."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orbitwise.cli.app import main
from orbitwise.errors import EnergyError
from orbitwise.molecules.files.structures import write_extxyz
from orbitwise.molecules.molecule import embed, parse_smiles

PYTHON = [sys.executable, "-m", "orbitwise"]
SMALL = [
    "network.hidden=16",
    "network.layers=1",
    "train.batch_size=16",
    "sampling.steps=4",
    "train.accelerator=cpu",
]


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "methanol.extxyz"
    mol = parse_smiles("CO")
    write_extxyz(path, mol, embed(mol, 30, seed=0))
    return path


def _one_line(capfd, *arguments: str) -> tuple[int, str]:
    """Exit code and the only line on stderr."""
    code = main(list(arguments))
    captured = capfd.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return code, lines[0]


def test_help_needs_no_torch_and_is_quick():
    check = "import sys; from orbitwise.cli.app import main; code = main(['--help']); "
    check += (
        "assert not {'torch', 'rdkit', 'scipy', 'ase'} & set(sys.modules), 'heavy import';"
        " sys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert "conformers" in result.stdout and "evaluate" in result.stdout
    # processor time: the clock on the wall also measures what else the machine is doing
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_methods_need_no_torch(capsys):
    check = (
        "import sys; from orbitwise.cli.app import main; main(['methods', 'show',"
        " 'orbit_diffusion']); "
    )
    check += "main(['methods', 'cite']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)
    assert main(["methods", "list"]) == 0
    assert "orbit_diffusion" in capsys.readouterr().out
    assert main(["methods", "show", "orbit_diffusion"]) == 0
    shown = capsys.readouterr().out
    assert "E[g·x1 | x_t]" in shown and "2502.09890" in shown
    assert main(["methods", "cite", "orbit_diffusion"]) == 0
    assert capsys.readouterr().out.startswith("@inproceedings{tong2025raoblackwell")


@pytest.mark.parametrize(
    ("command", "extras"), [("conformers", ("xtb", "ray")), ("crystals", ("chgnet",))]
)
def test_help_names_the_extras_with_their_brackets(capsys, monkeypatch, command, extras):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"orbitwise[{extra}]" in said for extra in extras), said


def test_version_and_no_command(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)
    main([])
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'config'"),
        (["conformers", "CCO", "--n", "many"], "'--n'"),
        (["conformers", "CCO", "--energy", "dft"], "dft"),
        (["conformers", "CCO", "--tempreature", "3"], "No such option"),
        (["methods", "show", "orbitdiffusion"], "did you mean 'orbit_diffusion'"),
        (["methods", "cite", "nothing"], "unknown method 'nothing'"),
        (["sample", "no_such_folder"], "no such folder"),
        (["evaluate", "."], "not a run folder"),
        (["report", "no_such_folder"], "no such folder"),
        (["train", "none.yaml", "--out", "x"], "no such file or preset"),
        (["train", "orbit_diffusion", "--out", "x"], "data is required"),
    ],
)
def test_mistakes_of_usage(capfd, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, line = _one_line(capfd, *arguments)
    line = line.replace("'CONFIG'", "'config'")  # typer before 0.27 writes it in capitals
    assert code == 2 and line.startswith("error: ") and message in line
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("C1CC(", "around character 5"),
        ("CCO.[Na+]", "2 separate fragments"),
        ("[Na+]", "lone ion"),
        ("C" * 99, "299 atoms"),
        ("", "empty"),
    ],
)
def test_bad_molecules(capfd, smiles, message, tmp_path):
    code, line = _one_line(capfd, "conformers", smiles, "--out", str(tmp_path / "out"))
    assert code == 2 and line.startswith("error: ") and message in line
    assert not (tmp_path / "out").exists()


def test_element_without_parameters(capfd, tmp_path):
    code, line = _one_line(capfd, "conformers", "C[Se]C", "--out", str(tmp_path / "out"))
    assert code == 2 and "Se" in line


def test_bad_data(capfd, frames, tmp_path):
    cut = tmp_path / "cut.extxyz"
    cut.write_text("\n".join(frames.read_text().splitlines()[:-2]))
    run = str(tmp_path / "run")
    code, line = _one_line(capfd, "train", "orbit_diffusion", f"data={cut}", "--out", run)
    assert code == 2 and "truncated" in line and "frame 30" in line and str(cut) in line
    code, line = _one_line(
        capfd, "train", "orbit_diffusion", f"data={tmp_path / 'none.sdf'}", "--out", run
    )
    assert code == 2 and "no such file" in line
    empty = tmp_path / "empty.extxyz"
    empty.touch()
    code, line = _one_line(capfd, "train", "orbit_diffusion", f"data={empty}", "--out", run)
    assert code == 2 and "the file is empty" in line
    code, line = _one_line(
        capfd, "train", "orbit_diffusion", f"data={frames}", "train.stpes=3", "--out", run
    )
    assert code == 2 and "'train.stpes'" in line and "'train.steps'" in line
    bad = tmp_path / "bad.yaml"
    bad.write_text("method: orbit_diffusion\ntrain: {steps: 3\n")
    code, line = _one_line(capfd, "train", str(bad), "--out", run)
    assert code == 2 and re.search(r"bad.yaml, line \d+: not valid YAML", line)
    assert not Path(run).exists()


def test_unwritable_folders(capfd, frames, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "run", tmp_path / "file"):
        code, line = _one_line(
            capfd, "train", "orbit_diffusion", f"data={frames}", *SMALL, "--out", str(out)
        )
        assert code == 2 and "cannot write to the folder" in line and "--out" in line
        code, line = _one_line(capfd, "conformers", "CCO", "--out", str(out))
        assert code == 2 and "cannot write" in line


def test_train_asks_where_to_keep_the_run(capfd, frames):
    code, line = _one_line(capfd, "train", "orbit_diffusion", f"data={frames}")
    assert code == 2 and "--out" in line


def test_dry_runs_stop(capsys, frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "orbit_diffusion", f"data={frames}", "train.steps=7", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "  steps: 7\n" in out and re.search(
        r"# parameters: [\d,]+\n# expected energy calls: 30", out
    )
    assert main(["conformers", "CCO", "--n", "50", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "smiles: CCO\n" in out and re.search(r"# expected energy calls: [1-9]", out)
    assert list(tmp_path.iterdir()) == []


def test_train_sample_evaluate_report(frames, tmp_path, capsys):
    run = tmp_path / "run"
    assert (
        main(
            [
                "train",
                "orbit_diffusion",
                f"data={frames}",
                "train.steps=20",
                *SMALL,
                "--out",
                str(run),
            ]
        )
        == 0
    )
    assert "20 steps" in capsys.readouterr().out
    assert main(["sample", str(run), "--n", "12"]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert "12 samples against 6 held-out frames" in capsys.readouterr().out
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").stat().st_size > 10_000


def test_interruption_keeps_what_was_done(frames, tmp_path):
    run = tmp_path / "run"
    arguments = [
        "train",
        "orbit_diffusion",
        f"data={frames}",
        "train.steps=100000",
        *SMALL,
        "--out",
        str(run),
    ]
    process = subprocess.Popen(
        [*PYTHON, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    log = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1].startswith("interrupted; finished stages are kept")
    assert "Traceback" not in err
    assert (run / "checkpoint.safetensors").exists()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (EnergyError("the energy is\nNaN at step 3"), 2, "error: the energy is NaN at step 3"),
        (OSError(28, "No space left on device", "a/b"), 2, "error: No space left on device (a/b)"),
        (
            KeyboardInterrupt(),
            130,
            "interrupted; finished stages are kept, run the same command again to go on",
        ),
        (
            ZeroDivisionError("surprise"),
            1,
            "unexpected error: ZeroDivisionError: surprise; please report it with",
        ),
    ],
)
def test_every_failure_is_one_line(capfd, monkeypatch, error, code, message, tmp_path):
    from orbitwise.runs import registry

    def fail(names=()):
        raise error

    monkeypatch.setattr(registry, "cite", fail)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found, line = _one_line(capfd, "methods", "cite")
    assert found == code and line.startswith(message)
    if code == 1:
        log = Path(line.rsplit(" ", 1)[1])
        assert "ZeroDivisionError: surprise" in log.read_text() and "Traceback" in log.read_text()
        assert main(["--debug", "methods", "cite"]) == 1
        assert "Traceback" in capfd.readouterr().err


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m orbitwise methods cite | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.stderr == "" and result.stdout.startswith("@")


def test_a_method_without_the_verb_says_so(capfd, tmp_path):
    (tmp_path / "config.yaml").write_text("method: conformers\nsmiles: CCO\n")
    code, line = _one_line(capfd, "evaluate", str(tmp_path))
    assert code == 2 and "conformers has no 'evaluate'" in line
