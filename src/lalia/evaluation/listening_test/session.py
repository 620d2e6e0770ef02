"""A listening test as it goes: who is at which screen, what he may hear, and what he said of it."""

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lalia.errors import ConfigError, DataError, LaliaError
from lalia.evaluation.folders import make_folder
from lalia.evaluation.listening_test.material import Kind, Material, scale
from lalia.evaluation.listening_test.plan import Screen, plan
from lalia.evaluation.listening_test.records import RATINGS, Record, Table
from lalia.evaluation.listening_test.sounds import Part, Played, sounds_of, wav
from lalia.files import atomic_write, sha256

__all__ = ["LISTENERS", "SETUP", "ListeningTest", "Refused", "Task", "setup_of"]

SETUP, LISTENERS = "test.json", "listeners.csv"

_FORMAT = 1
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_GONE_SECONDS = 24 * 3600
"""Without a word for so long, and not done: somebody else takes what was left."""

_OF_THE_TIME = 0.9
"""How much of what a screen lasts must have gone by, as clocks and players go."""


class Refused(LaliaError):
    """What a listener sent is not taken.

    :param reason: ``code`` (not a listener's), ``screen`` (not the one that he is at), ``early`` (he cannot have
        heard it), ``rating`` (not on the scale).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The rating is not taken: {reason}. Load the page again.")
        self.reason = reason


@dataclass(frozen=True)
class Task:
    """What a listener is to do next; nothing that tells whose a sound is.

    :param done: screens behind him.
    :param token: of this screen, None at the end.
    :param sounds: what to hear: the part that it plays, and the token of its sound.
    :param choose: the rating that an instruction asks for.
    """

    done: int
    total: int
    token: str | None = None
    sounds: tuple[tuple[Part, str], ...] = ()
    choose: int | None = None


class ListeningTest:
    """One test in one folder. Whoever opens the folder again goes on where it was left.

    The folder holds ``test.json`` (what it is), ``listeners.csv`` and ``ratings.csv``.

    :param ratings: that each listener gives, without the checks; each item once when not given.
    :param codes: of listeners; when not given, whoever comes chooses one.
    :param clock: seconds since 1970.
    :raises LaliaError: the material cannot be used, or the folder is of another test or in use.
    """

    def __init__(
        self,
        material: Material,
        folder: Path,
        *,
        kind: Kind,
        seed: int = 0,
        ratings: int | None = None,
        codes: Collection[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for code in codes or ():
            if not _CODE.fullmatch(code):
                raise ConfigError(f"The code {code!r} cannot be typed on the page. Use up to 40 letters and digits.")
        self.material, self.folder, self.kind, self.seed, self.ratings = material, folder, kind, seed, ratings
        self._codes = None if codes is None else frozenset(codes)
        self._clock = clock
        self._seconds = material.check(kind)
        plan(material, kind, slot=0, seed=seed, ratings=ratings)  # says at once what it cannot
        self._items = {item.name: item for item in material.items}
        make_folder(folder)
        self._in_use = FileLock(folder / ".lock")
        try:
            self._in_use.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"The test in {folder} is being served already. Stop that, or give another.") from None
        try:
            self._secret = self._setup().encode()
            self._ratings = Table(folder / RATINGS, [f.name for f in fields(Record)])
            self._listeners = Table(folder / LISTENERS, ("time", "listener", "slot"))
            self._slots = {row["listener"]: int(row["slot"]) for row in self._listeners.rows}
            records = [Record.parse(row) for row in self._ratings.rows]
        except ValueError as error:
            self.close()
            raise DataError(f"A row in {folder} is wrong ({error}). Mend it, or give another folder.") from None
        except LaliaError:
            self.close()
            raise
        self._rated: dict[str, set[int]] = {}
        self._seen: dict[str, float] = {r["listener"]: _seconds_of(r["time"]) for r in self._listeners.rows}
        for r in records:
            self._rated.setdefault(r.listener, set()).add(r.position)
            self._seen[r.listener] = _seconds_of(r.time)
        self._given: dict[str, float] = {}
        self._sounds: dict[str, Played] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let others have the folder."""
        self._in_use.release()

    def next(self, listener: str) -> Task:
        """What a listener is to do; he is taken on when he is new.

        :raises Refused: the code is none.
        """
        with self._lock:
            return self._next(listener)

    def rate(self, listener: str, token: str, rating: int, plays: int) -> Task:
        """Keep a rating, and what is to be done next.

        :raises Refused: it is not of the screen that he is at, came too early, or is not on the scale.
        :raises OutputError: it cannot be kept.
        """
        with self._lock:
            if listener not in self._slots:
                raise Refused("code")
            screens = self._plan(listener)
            position = self._position(listener, screens)
            if position is None or not hmac.compare_digest(self._token(listener, position), token):
                raise Refused("screen")
            if rating not in scale(self.kind):
                raise Refused("rating")
            screen, now = screens[position], self._clock()
            given = self._given.get(token)
            if given is not None and now - given < _OF_THE_TIME * self._lasts(screen):
                raise Refused("early")
            record = Record(
                time=_iso(now),
                listener=listener,
                slot=self._slots[listener],
                position=position,
                role=screen.role,
                item=screen.item,
                system=screen.system,
                other=screen.other,
                expected=screen.expected,
                rating=rating,
                seconds=None if given is None else round(now - given, 2),
                plays=plays,
            )
            self._ratings.add(asdict(record))
            self._rated.setdefault(listener, set()).add(position)
            self._seen[listener] = now
            return self._next(listener)

    def sound(self, token: str) -> bytes | None:
        """A recording as WAV, by its token; None where nobody was given it.

        :raises AudioError: it has gone.
        """
        played = self._sounds.get(token)
        return None if played is None else wav(played, self.kind)

    # -- within ------------------------------------------------------------------------------------

    def _next(self, listener: str) -> Task:
        if listener not in self._slots:
            self._take_on(listener)
        screens = self._plan(listener)
        position = self._position(listener, screens)
        done = len(self._rated.get(listener, ()))
        if position is None:
            return Task(done, len(screens))
        screen, token = screens[position], self._token(listener, position)
        sounds = []
        for played in sounds_of(screen, self._items[screen.item], self.kind):
            of = self._token(listener, position, played.part)
            self._sounds[of] = played
            sounds.append((played.part, of))
        self._given.setdefault(token, self._clock())
        return Task(done, len(screens), token, tuple(sounds), screen.expected if screen.role == "instruction" else None)

    def _take_on(self, listener: str) -> None:
        """Give a new listener the first slot that nobody has, or that was left."""
        known = _CODE.fullmatch(listener) if self._codes is None else listener in self._codes
        if not known:
            raise Refused("code")
        now = self._clock()
        taken = {slot for who, slot in self._slots.items() if not self._left(who, now)}
        slot = next(n for n in range(len(taken) + 1) if n not in taken)
        self._listeners.add({"time": _iso(now), "listener": listener, "slot": slot})
        self._slots[listener], self._seen[listener] = slot, now

    def _left(self, listener: str, now: float) -> bool:
        waiting = now - self._seen[listener] > _GONE_SECONDS
        return waiting and self._position(listener, self._plan(listener)) is not None

    def _plan(self, listener: str) -> tuple[Screen, ...]:
        slot = self._slots[listener]
        return plan(self.material, self.kind, slot=slot, seed=self.seed, ratings=self.ratings)

    def _position(self, listener: str, screens: tuple[Screen, ...]) -> int | None:
        rated = self._rated.get(listener, set())
        return next((i for i in range(len(screens)) if i not in rated), None)

    def _lasts(self, screen: Screen) -> float:
        """Seconds that it takes at least to hear a screen; what was made faster does not count."""
        heard = sounds_of(screen, self._items[screen.item], self.kind)
        return sum(self._seconds[p.path] for p in heard if not p.degraded)

    def _token(self, listener: str, position: int, part: str = "") -> str:
        """What stands for a screen or a sound of it: the same recording is called otherwise on each screen."""
        text = f"{listener}/{position}/{part}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()[:32]

    def _setup(self) -> str:
        """Write down what the test is, or see that the folder is of this one; returns its secret."""
        file = self.folder / SETUP
        is_now = {
            "format": _FORMAT,
            "kind": self.kind,
            "seed": self.seed,
            "ratings": self.ratings,
            "systems": list(self.material.systems),
            "items": [item.name for item in self.material.items],
            "sound": _identity(self.material),
        }
        if file.exists():
            was = setup_of(self.folder)
            for key, value in is_now.items():
                if was.get(key) != value:
                    raise ConfigError(
                        f"The test in {self.folder} was begun with other {key}. Give the same, or another folder."
                    )
            return str(was["secret"])
        secret = secrets.token_hex(16)
        with atomic_write(file) as temporary:
            text = json.dumps({**is_now, "secret": secret}, ensure_ascii=False, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
        return secret


def setup_of(folder: Path) -> dict[str, object]:
    """What the test in a folder is.

    :raises DataError: there is none.
    """
    file = folder / SETUP
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}). Give the folder of a listening test.") from None
    if not isinstance(found, dict) or not {"kind", "secret", "systems", "items"} <= set(found):
        raise DataError(f"{file} is not that of a listening test. Give the folder of one.")
    return found


def _identity(material: Material) -> str:
    """SHA-256 of all sound, by system and item (128 bits)."""
    lines = []
    for item in material.items:
        parts = {**item.sounds, "\nprompt": item.prompt, "\nreference": item.reference}
        lines += [f"{item.name}\n{part}\n{sha256(path)}" for part, path in parts.items() if path is not None]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _seconds_of(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
