"""Words of mini-grammar. Every form is by hand, and none is read out in two ways."""

from typing import NamedTuple

__all__ = [
    "ADJECTIVES",
    "ANIMALS",
    "COUNTED",
    "IRREGULAR",
    "IRREGULAR_NOUNS",
    "LIKING",
    "MASSES",
    "MEN",
    "NAMES",
    "OBJECTS",
    "PEOPLE",
    "PLACES",
    "PRONOUNS",
    "REFLEXIVE",
    "TRANSITIVE",
    "VERBS",
    "WOMEN",
    "Irregular",
    "Noun",
    "Verb",
]


class Noun(NamedTuple):
    """One of it, and many."""

    one: str
    many: str


class Verb(NamedTuple):
    """(They) sleep, (she) sleeps, (she) slept, (she has) slept, (she is) sleeping."""

    base: str
    third: str
    past: str
    participle: str
    going_on: str


class Irregular(NamedTuple):
    """A verb whose base, past and participle are three, with something to do it to."""

    base: str
    past: str
    participle: str
    object: str


MEN = (
    Noun("man", "men"),
    Noun("boy", "boys"),
    Noun("king", "kings"),
    Noun("brother", "brothers"),
    Noun("uncle", "uncles"),
    Noun("waiter", "waiters"),
    Noun("father", "fathers"),
)
WOMEN = (
    Noun("woman", "women"),
    Noun("girl", "girls"),
    Noun("queen", "queens"),
    Noun("sister", "sisters"),
    Noun("aunt", "aunts"),
    Noun("waitress", "waitresses"),
    Noun("mother", "mothers"),
)
PEOPLE = (
    *MEN,
    *WOMEN,
    Noun("teacher", "teachers"),
    Noun("doctor", "doctors"),
    Noun("farmer", "farmers"),
    Noun("driver", "drivers"),
    Noun("student", "students"),
    Noun("guest", "guests"),
    Noun("neighbor", "neighbors"),
    Noun("lawyer", "lawyers"),
)
ANIMALS = (
    Noun("dog", "dogs"),
    Noun("cat", "cats"),
    Noun("horse", "horses"),
    Noun("bird", "birds"),
    Noun("rabbit", "rabbits"),
)
OBJECTS = (
    Noun("cup", "cups"),
    Noun("book", "books"),
    Noun("chair", "chairs"),
    Noun("bottle", "bottles"),
    Noun("picture", "pictures"),
    Noun("letter", "letters"),
    Noun("basket", "baskets"),
    Noun("coat", "coats"),
    Noun("hammer", "hammers"),
    Noun("candle", "candles"),
)
IRREGULAR_NOUNS = (
    Noun("man", "men"),
    Noun("woman", "women"),
    Noun("child", "children"),
    Noun("mouse", "mice"),
    Noun("goose", "geese"),
    Noun("policeman", "policemen"),
)
COUNTED = ("apples", "chairs", "letters", "candles", "stamps", "eggs", "shirts")
MASSES = ("water", "bread", "sugar", "butter", "milk", "rice", "furniture")
NAMES = ("Tom", "Anna", "Peter", "Mary", "Robert", "Susan", "David", "Laura")
ADJECTIVES = ("old", "small", "new", "blue", "heavy", "pretty", "broken")
PLACES = ("near", "behind", "beside", "next to")
PRONOUNS = (("he", "him"), ("she", "her"), ("they", "them"), ("we", "us"), ("I", "me"))

VERBS = (
    Verb("sing", "sings", "sang", "sung", "singing"),
    Verb("swim", "swims", "swam", "swum", "swimming"),
    Verb("sleep", "sleeps", "slept", "slept", "sleeping"),
    Verb("smile", "smiles", "smiled", "smiled", "smiling"),
    Verb("laugh", "laughs", "laughed", "laughed", "laughing"),
    Verb("wait", "waits", "waited", "waited", "waiting"),
    Verb("cough", "coughs", "coughed", "coughed", "coughing"),
    Verb("dance", "dances", "danced", "danced", "dancing"),
    Verb("complain", "complains", "complained", "complained", "complaining"),
    Verb("arrive", "arrives", "arrived", "arrived", "arriving"),
)
"""That have no object; singing, swimming and dancing may, but no living one."""

TRANSITIVE = (
    Verb("thank", "thanks", "thanked", "thanked", "thanking"),
    Verb("find", "finds", "found", "found", "finding"),
    Verb("bring", "brings", "brought", "brought", "bringing"),
    Verb("mention", "mentions", "mentioned", "mentioned", "mentioning"),
    Verb("praise", "praises", "praised", "praised", "praising"),
    Verb("avoid", "avoids", "avoided", "avoided", "avoiding"),
)
"""That need an object."""

LIKING = (("like", "likes"), ("know", "knows"), ("feed", "feeds"), ("fear", "fears"))
REFLEXIVE = ("hurt", "washed", "blamed", "described", "defended", "introduced", "admired")

IRREGULAR = (
    Irregular("break", "broke", "broken", "the cup"),
    Irregular("take", "took", "taken", "the train"),
    Irregular("write", "wrote", "written", "the letter"),
    Irregular("eat", "ate", "eaten", "the apple"),
    Irregular("draw", "drew", "drawn", "the picture"),
    Irregular("steal", "stole", "stolen", "the money"),
    Irregular("choose", "chose", "chosen", "the color"),
    Irregular("wear", "wore", "worn", "the coat"),
    Irregular("drive", "drove", "driven", "the car"),
    Irregular("hide", "hid", "hidden", "the key"),
    Irregular("throw", "threw", "thrown", "the ball"),
    Irregular("see", "saw", "seen", "the bird"),
    Irregular("sing", "sang", "sung", "the song"),
    Irregular("begin", "began", "begun", "the work"),
)
