"""What breaks is told with its cause and its remedy, in the places and within the time that the table of
support/breakages.py says; the remedies mend it, and one line tells so."""

import time

import pytest

from support import breakage_scenes, breakages
from support.database_side import install
from support.pipelines import LONG, SLOW_FACTOR

pytestmark = pytest.mark.usefixtures("relay_bin")


class Missing:
    """What a scene has not said yet: a breakage, a pipeline and a place each."""

    def __init__(self, name, scene):
        self._scene = scene
        self._left = [(each, about, place) for each in breakages.BREAKAGES if each.scene == name
                      for about in each.about or (None,) for place in each.places.split()]
        assert self._left, f"no row of the table is about {name}"
        self._last = {}

    def look(self):
        """Asks each place once; what is there is missing no more."""
        for place in breakages.PLACES:
            wanted = [entry for entry in self._left if entry[2] == place]
            if not wanted:
                continue
            asked = time.monotonic()
            texts = self._last[place] = self._scene.says(place)
            for entry in wanted:
                limit = self._scene.since + entry[0].within * SLOW_FACTOR
                if asked <= limit and self._is_said(entry, texts):
                    self._left.remove(entry)

    @staticmethod
    def _is_said(entry, texts):
        breakage, about, place = entry
        cause = breakages.pattern(breakage.cause)
        remedy = breakages.pattern(breakage.remedy)
        named = [text for text in texts if about is None or about in text
                 or place == "check" and breakage.scene == "database"]
        return any(cause.search(text) and remedy.search(text) for text in named)

    def __bool__(self):
        return bool(self._left)

    def in_time(self):
        return any(time.monotonic() <= self._scene.since + each.within * SLOW_FACTOR
                   for each, _, _ in self._left)

    def story(self):
        told = [f"{each.what} ({about}): not in {place} within {each.within} s"
                for each, about, place in self._left]
        for place in sorted({place for _, _, place in self._left}):
            told += [f"--- {place}", *map(str, self._last.get(place, []))]
        return "\n".join(told)


SCENES = [each for each in breakage_scenes.SCENES if LONG or each is not breakage_scenes.brokers]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_breakage_is_told_with_its_cause_and_remedy(scene, db, tmp_path):
    for name, broken in scene(db=db, tmp_path=tmp_path, install=install):
        missing = Missing(name, broken)
        while missing and missing.in_time():
            missing.look()
            time.sleep(0.05)
        assert not missing, missing.story()


def test_every_row_has_a_cause_a_remedy_and_a_place():
    for each in breakages.BREAKAGES:
        assert each.cause.strip() and each.remedy.strip(), each
        assert each.places and set(each.places.split()) <= set(breakages.PLACES), each


def test_the_documentation_has_the_table():
    assert breakages.documented_lines() == breakages.lines(), \
        "make it anew: scripts/breakage-table"
