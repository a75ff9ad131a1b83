"""What the documentation says is what the program does."""

import pathlib
import re
import subprocess

import pytest

from support.postgres import REPOSITORY
from support.relay import run_command
from support.stream_program import run as run_stream

ROOT = pathlib.Path(REPOSITORY)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PAGE = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


@pytest.fixture(scope="module")
def commands():
    """The help of each command and verb, by its name: "", "run", "dlq", "dlq retry", ..."""
    helps = {"": run_command("--help").stdout}
    for name in subcommands(helps[""]):
        helps[name] = run_command(name, "--help").stdout
        for verb in subcommands(helps[name]):
            helps[f"{name} {verb}"] = run_command(name, verb, "--help").stdout
    return helps


def subcommands(text):
    listed = text.partition("Subcommands:")[2]
    return re.findall(r"^  ([a-z-]+)\b", listed, re.MULTILINE)


def test_the_page_of_options_is_what_the_program_prints(relay_bin):
    printed = run_command("options")
    assert printed.returncode == 0, printed.stderr
    assert (ROOT / "docs/options.md").read_text() == printed.stdout, \
        "make it anew: pgtrickle-relay options > docs/options.md"


def prose(page):
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def headings(page):
    """Its headings as links name them."""
    found = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in found]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@PAGE
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        to = page.parent / name if name else page
        assert to.exists(), target
        assert not heading or heading in headings(to), target


def test_every_page_is_in_the_table_of_contents():
    contents = ROOT / "docs/README.md"
    listed = {(contents.parent / target).resolve()
              for target in re.findall(r"\]\(([^)#\s]+)\)", contents.read_text())}
    pages = {page.resolve() for page in PAGES} - {contents.resolve()}
    assert not pages - listed, "docs/README.md does not name them"


@PAGE
def test_every_command_and_flag_that_is_shown_exists(relay_bin, commands, page):
    flags = "".join(commands.values())
    for line in page.read_text().splitlines():
        for call in re.findall(r"pgtrickle-relay ([^`#|]*)", line):
            words = [word for word in call.split() if re.fullmatch(r"[a-z][a-z-]*", word)]
            if words and call.startswith(words[0]) and words[0] in commands:
                verbs = subcommands(commands[words[0]])
                if verbs and words[1:]:
                    assert words[1] in verbs, line
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", call):
                assert flag in flags, line


@PAGE
def test_every_configuration_of_postgres_stream_is_valid(relay_bin, page, tmp_path):
    for example in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        (tmp_path / "config.yaml").write_text(example)
        env = {name: "x" for name in re.findall(r"\$\{([A-Z_]+)\}", example)}
        checked = run_stream(tmp_path, "check", env=env)
        # With a mistake in the file, nothing else is looked at.
        assert "connecting to PostgreSQL" in checked.stdout, checked.stdout
        assert "config.yaml" not in checked.stdout, checked.stdout


@PAGE
def test_every_command_and_flag_of_postgres_stream_exists(relay_bin, page, tmp_path):
    text = run_stream(tmp_path, "--help").stdout
    flags = text + "".join(run_stream(tmp_path, name, "--help").stdout for name in subcommands(text))
    for call in re.findall(r"(?:^|`)postgres-stream ([a-z-][^`#|\n]*)", page.read_text(), re.MULTILINE):
        if re.match(r"[a-z-]+(`|\s|$)", call) and not call.startswith("-"):
            assert call.split()[0] in subcommands(text), call
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", call):
            assert flag in flags, call


@PAGE
def test_every_test_that_is_named_exists(page):
    name = None
    for file, test in re.findall(r"`(test_\w+\.py)?(?:::(test_\w+))?`", page.read_text()):
        name = file or name
        if not file and not test:
            continue
        (path,) = ROOT.glob(f"tests/*/{name}")
        assert not test or f"def {test}(" in path.read_text(), f"{name}::{test}"


def test_a_build_of_a_part_leaves_no_later_one_without_the_rest(tmp_path):
    """As the README's builds, scripts/demo and then scripts/test do it, in one folder."""
    def configure(*options):
        return subprocess.run(["cmake", "--preset", "release", "-B", str(tmp_path), *options],
                              cwd=REPOSITORY, capture_output=True, text=True, timeout=120)

    def built():
        return set(re.findall(r"  relay::(\w+)::register", (tmp_path / "backends.cc").read_text()))

    done = configure("-DRELAY_TESTS=OFF", "-DRELAY_BACKENDS=kafka,stdout")
    assert done.returncode == 0, done.stderr
    assert built() == {"outbox", "stream", "kafka", "file", "pg_inbox", "feed"}
    done = configure("-DRELAY_BACKENDS=kafka,stdaut")
    assert done.returncode != 0 and "no backend 'stdaut'" in done.stderr
    assert configure().returncode == 0
    assert "RELAY_TESTS:BOOL=ON" in (tmp_path / "CMakeCache.txt").read_text()
    assert built() > {"outbox", "stream", "nats", "webhook", "kafka", "redis", "sqs", "rabbitmq", "pg_inbox",
                      "feed", "file"}
