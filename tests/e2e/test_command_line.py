"""The command line of both programs: misspelt words, ranges, version, completion and the manual."""

import json
import os
import re
import shutil
import subprocess

import pytest

from support.fixtures import need
from support.relay import clean_environment, relay_binary, run_command

OK, FAILED, USAGE, INVALID = 0, 1, 2, 3

pytestmark = pytest.mark.usefixtures("relay_bin")


def stream_binary():
    return os.path.join(os.path.dirname(relay_binary()), "postgres-stream")


def programs():
    """Those that are built: the relay of an example has no postgres-stream beside it."""
    return [path for path in (relay_binary(), stream_binary()) if os.access(path, os.X_OK)]


def run(program, *arguments):
    return subprocess.run([program, *map(str, arguments)], env=clean_environment(),
                          capture_output=True, text=True, timeout=60)


# Misspelt words ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, word, near", [
    (["staus"], 'unknown command "staus"', "status"),
    (["pipelines", "shwo", "rows"], 'unknown command "shwo"', "show"),
    (["dlq", "discrad", 3], 'unknown command "discrad"', "discard"),
    (["help", "pipelnes"], 'unknown command "pipelnes"', "pipelines"),
    (["help", "pipelines", "shwo"], 'unknown command "shwo"', "show"),
    (["completion", "bsh"], 'unknown shell "bsh"', "bash"),
    (["status", "--jsn"], 'unknown flag "--jsn"', "--json"),
    (["run", "--drain-timout=5s"], 'unknown flag "--drain-timout"', "--drain-timeout"),
    (["dlq", "list", "--limt", "5"], 'unknown flag "--limt"', "--limit"),
    (["apply", "-f", "x", "--purne"], 'unknown flag "--purne"', "--prune"),
    (["run", "--log-level", "inof"], "log_level", "info"),
    (["run", "--ha-mode", "leadr"], "ha_mode", "leader"),
])
def test_a_misspelt_word_is_named_with_the_nearest(arguments, word, near):
    done = run_command(*arguments)
    assert done.returncode == USAGE, done.stdout + done.stderr
    assert word in done.stderr and f'id you mean "{near}"?' in done.stderr, done.stderr


def test_postgres_stream_knows_the_nearest_word_too():
    need(os.access(stream_binary(), os.X_OK), "postgres-stream")
    for arguments, near in ((["chekc"], "check"), (["--confg", "x"], "--config")):
        done = run(stream_binary(), *arguments)
        assert done.returncode == USAGE and f'did you mean "{near}"?' in done.stderr, done.stderr


def test_a_word_that_is_near_none_gets_all_that_there_are():
    done = run_command("pipelines", "xyzzy")
    assert done.returncode == USAGE and "replay" in done.stderr and "did you mean" not in done.stderr


def test_a_secret_behind_a_misspelt_flag_is_not_shown():
    for arguments in (["run", "--admin-tokn", "very-secret-word"],
                      ["run", "--admin-tokn=very-secret-word"],
                      ["run", "--postgres-ulr", "postgresql://x:very-secret-word@localhost/x"]):
        done = run_command(*arguments)
        assert done.returncode == USAGE and "very-secret-word" not in done.stdout + done.stderr


# Ranges ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, allowed", [
    (["dlq", "list", "--limit", "-5"], "from 1 to 1000000"),
    (["dlq", "list", "--limit", "0"], "from 1 to 1000000"),
    (["dlq", "list", "--limit", "9" * 30], "from 1 to 1000000"),
    (["dlq", "list", "--limit", "ten"], "from 1 to 1000000"),
    (["dlq", "list", "--limit=nan"], "from 1 to 1000000"),
    (["dlq", "show", "-1"], "of at least 1"),
    (["tail", "x", "--count", "-1"], "of at least 0"),
    (["tail", "x", "--from=-1"], "of at least 0"),
    (["pipelines", "replay", "x", "--from", "0"], "of at least 1"),
    (["pipelines", "replay", "x", "--from", "1", "--to", "-1"], "of at least 1"),
    (["quickstart", "--rate", "0"], "from 1 to 100000"),
    (["quickstart", "--duration", "-1"], "from 0 to 31622400"),
    (["quickstart", "--duration", "inf"], "from 0 to 31622400"),
    (["run", "--drain-timeout", "-5s"], "from 0s to 86400s"),
    (["run", "--drain-timeout=10000h"], "from 0s to 86400s"),
    (["run", "--discovery-interval", "0"], "from 10ms to 3600s"),
    (["run", "--lease-timeout", "-1"], "from 100ms to 3600s"),
    (["run", "--pool-size", "0"], "from 1 to 1000"),
])
def test_a_value_out_of_range_is_refused_with_what_is_allowed(arguments, allowed):
    done = run_command(*arguments)
    assert done.returncode == USAGE, done.stdout + done.stderr
    assert allowed in done.stderr, done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1", "9090",
                                     "127.0.0.1:", "127.0.0.1:x"])
def test_an_address_without_a_port_that_can_be_is_refused(address):
    done = run_command("run", "--metrics-addr", address, "--postgres-url", "postgresql://x@127.0.0.1/x")
    assert done.returncode in (FAILED, USAGE) and "--metrics-addr" in done.stderr, done.stderr


def test_an_age_below_zero_purges_nothing(db):
    done = run_command("dlq", "purge", "--older-than=-1 day", "--postgres-url", db.dsn)
    assert done.returncode == FAILED and "not negative" in done.stderr


# Help and version --------------------------------------------------------------------------


def commands_of(program):
    """The paths of all commands, as the help of each names those inside it."""
    paths, todo = [], [[]]
    while todo:
        path = todo.pop()
        text = run(program, *path, "--help").stdout
        inside = re.findall(r"^  ([a-z][a-z-]*) ", text.partition("Subcommands:")[2], re.M)
        todo += [path + [name] for name in inside]
        paths += [path + [name] for name in inside]
    return paths


def test_every_command_has_help_with_its_exit_codes():
    for program in programs():
        paths = commands_of(program)
        assert ["quickstart"] in paths and len(paths) > 5
        for path in paths:
            help_of = run(program, *path, "--help")
            assert help_of.returncode == OK and "Exit codes: 0" in help_of.stdout, path
            by_word = run(program, "help", *path)
            assert by_word.returncode == OK and "Exit codes: 0" in by_word.stdout, path
            assert by_word.stdout.splitlines()[0] == help_of.stdout.splitlines()[0], path
        assert run(program, "help").stdout.splitlines()[0] == \
            run(program, "--help").stdout.splitlines()[0]


def test_the_version_has_commit_backends_and_libraries():
    for program in programs():
        told = json.loads(run(program, "version", "--json").stdout)
        assert re.fullmatch(r"\d+\.\d+\.\d+", told["version"])
        assert re.fullmatch(r"[0-9a-f]{7,40}|unknown|\S+", told["commit"])
        assert "pg-inbox" in told["sinks"] and "libpq" in told["libraries"]
        if "kafka" in told["sinks"]:
            assert re.match(r"\d+\.\d+", told["libraries"]["librdkafka"])
        text = run(program, "version").stdout
        assert text == run(program, "--version").stdout
        assert text.startswith(f"{told['program']} {told['version']}\n") and told["commit"] in text


def test_output_that_cannot_be_written_is_a_failure():
    """An export onto a full disk must not pass for one."""
    with open("/dev/full", "wb") as full:
        for arguments in (["options"], ["version"], ["help"]):
            done = subprocess.run([relay_binary(), *arguments], env=clean_environment(), stdout=full,
                                  stderr=subprocess.PIPE, text=True, timeout=60)
            assert done.returncode == FAILED and "cannot be written" in done.stderr, arguments


# The manual --------------------------------------------------------------------------------


def test_the_manual_is_well_formed_and_names_every_command_and_flag(tmp_path):
    need(shutil.which("man"), "man (man-db)")
    need(shutil.which("mandoc"), "mandoc")
    for program in programs():
        page = tmp_path / f"{os.path.basename(program)}.1"
        page.write_text(run(program, "man").stdout)
        env = {**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": "",
               "PAGER": "cat"}
        shown = subprocess.run(["man", "--warnings", "-l", page], env=env, capture_output=True,
                               text=True, timeout=60)
        assert shown.returncode == 0 and shown.stderr == "", shown.stderr
        lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True,
                              text=True, timeout=60)
        # Two builds are equal: there is no date.
        found = [line for line in lint.stdout.splitlines() if "missing date" not in line]
        assert found == [] and lint.stderr == "", lint.stdout
        text = re.sub(r".\x08", "", shown.stdout).replace("\u2010", "-").replace("\u2212", "-")
        for path in commands_of(program):
            assert f"{os.path.basename(program)} {' '.join(path)}" in text, path
            for flag in re.findall(r"--[a-z][a-z-]+", run(program, *path, "--help").stdout):
                assert flag in text, flag


def test_two_runs_write_the_same_manual_and_completion():
    for program in programs():
        for arguments in (["man"], ["completion", "bash"], ["completion", "zsh"],
                          ["completion", "fish"]):
            assert run(program, *arguments).stdout == run(program, *arguments).stdout != ""


# Completion --------------------------------------------------------------------------------


CASES = [
    ("sta", {"status"}),
    ("pipelines ", {"list", "show", "enable", "disable", "pause", "resume", "replay", "take-over"}),
    ("pipelines --json re", {"resume", "replay"}),
    ("--log-level debug dlq re", {"retry"}),
    ("run --log-level ", {"debug", "info", "warn", "error"}),
    ("run --log-level=d", {"debug"}),
    ("--ha-mode l", {"leader"}),
    ("pipelines replay x --f", {"--from"}),
    ("apply --pr", {"--prune"}),
    ("completion ", {"bash", "zsh", "fish"}),
    ("help exp", {"export"}),
    ("dlq list --limit ", set()),
    ("apply -f pipe", {"pipes.toml"}),
    ("quickstart --directory some", {"some-folder"}),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pipes.toml").write_text("")
    (tmp_path / "some-folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("line, wanted", CASES)
def test_bash_completes(folder, line, wanted):
    """In a real bash, whose words are cut as readline cuts them."""
    script = f"""
        source <({relay_binary()} completion bash)
        line={repr("pgtrickle-relay " + line)}
        read -ra COMP_WORDS <<< "${{line//=/ = }}"
        [ "${{line: -1}}" = ' ' ] && COMP_WORDS+=('')
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _pgtrickle_relay
        printf '%s\\n' "${{COMPREPLY[@]}}"
        complete -p pgtrickle-relay >&2"""
    done = subprocess.run(["bash", "--norc", "-c", script], cwd=folder, capture_output=True,
                          text=True, timeout=60)
    assert set(done.stdout.split()) == wanted, done.stdout + done.stderr
    assert done.stderr == "complete -F _pgtrickle_relay pgtrickle-relay\n"


@pytest.mark.parametrize("line, wanted", CASES)
def test_fish_completes(folder, line, wanted):
    need(shutil.which("fish"), "fish")
    script = (f"{relay_binary()} completion fish | source; "
              f"complete -C {repr('pgtrickle-relay ' + line)}")
    done = subprocess.run(["fish", "--no-config", "-c", script], cwd=folder, capture_output=True,
                          text=True, timeout=60, env={**os.environ, "HOME": str(folder)})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    offered = {text.split("\t")[0].rstrip("/") for text in done.stdout.splitlines()}
    # fish offers the flag with the value.
    assert {text.rpartition("=")[2] for text in offered} == wanted, done.stdout


@pytest.mark.parametrize("line, wanted", [case for case in CASES if "=" not in case[0]])
def test_zsh_completes(folder, line, wanted):
    """The value of a flag, where it stands behind a blank."""
    need(shutil.which("zsh"), "zsh")
    words = ["pgtrickle-relay", *line.split()] + ([""] if line.endswith(" ") else [])
    # What zsh's own functions would show is written instead.
    script = f"""
        compdef() {{ }}
        source <({relay_binary()} completion zsh)
        offer() {{ for word in "$@"; do [[ $word == ${{words[CURRENT]}}* ]] && print -r -- $word; done }}
        compadd() {{ shift; offer "$@" }}
        _describe() {{ local name=${{@[-1]}}; local -a all; all=(${{(P)name}}); offer ${{all%%:*}} }}
        _files() {{ offer *(N) }}
        _message() {{ }}
        words=({' '.join(map(repr, words))}); CURRENT={len(words)}
        _pgtrickle_relay"""
    done = subprocess.run(["zsh", "-f", "-c", script], cwd=folder, capture_output=True, text=True,
                          timeout=60)
    assert done.stderr == "" and set(done.stdout.split()) == wanted, done.stdout + done.stderr


def test_the_scripts_of_both_programs_have_good_syntax(tmp_path):
    for program in programs():
        for shell in ("bash", "zsh", "fish"):
            need(shutil.which(shell), shell)
            path = tmp_path / shell
            path.write_text(run(program, "completion", shell).stdout)
            assert subprocess.run([shell, "-n", path], capture_output=True).returncode == 0
