"""What a machine's caption or prompt must not say: words for the face, for who somebody is, and for other people."""

import re

_FACE = """
face faces facial eye eyes eyed eyelash eyelashes eyelid eyelids eyebrow eyebrows brow brows nose nostril nostrils
mouth lip lips cheek cheeks cheekbone cheekbones chin jaw jawline forehead ear ears earlobe earlobes tooth teeth dimple
dimples skin complexion freckle freckles freckled wrinkle wrinkles wrinkled mole moles scar scars tanned feature
features hair haired hairstyle hairline haircut bangs ponytail braid braids braided curls bald balding blonde blond
brunette redhead ginger beard bearded moustache mustache goatee stubble sideburns shaven makeup lipstick eyeshadow
mascara
"""
_WHO = """
young younger youthful old older elderly aged age middle-aged teen teenage teenager adolescent senior year-old
years-old year years twenties thirties forties fifties sixties seventies eighties
asian african european caucasian hispanic latino latina latin arab arabic jewish muslim indian chinese japanese korean
american british french german italian spanish russian turkish mexican brazilian nordic scandinavian slavic ethnic
ethnicity race racial nationality heritage descent dark-skinned light-skinned fair-skinned
beautiful pretty handsome attractive cute gorgeous stunning ugly sexy lovely good-looking charming fat chubby
overweight muscular skinny slender petite stocky slim plump curvy obese lanky burly voluptuous
tattoo tattoos tattooed pregnant
celebrity celebrities famous actor actress model singer politician president identity named name resembles resembling
lookalike
"""
_OTHERS = """
man men woman women person people guy guys boy boys girl girls child children kid kids baby babies lady ladies
gentleman gentlemen couple friend friends crowd crowds family mother father son daughter brother sister wife husband
stranger strangers someone somebody others
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FACE, WHO, OTHERS = _words(_FACE), _words(_WHO), _words(_OTHERS)
_PLAIN = re.compile(r"[A-Za-z\u00c0-\u024f0-9 ,.;:!?()'\u2019-]+")
# A comparison says who somebody is like, in whatever words it goes on.
_COMPARED = re.compile(
    r"\b(?:(?:look|seem|appear|sound|pos|dress)\w*\s+(?:\w+\s+)?(?:like|as)|(?:known|famed|styled)\s+(?:as|for)"
    r"|called|nicknamed|reminiscent|lookalike|look-alike|doppelganger|impersonat\w+|resembl\w+|similar\s+to"
    r"|in\s+the\s+(?:style|manner|role|likeness)\s+of|who\s+is)\b",
    re.IGNORECASE,
)
_INITIAL = re.compile(r"(?:^|[.!?:]\s+)[\"'\u2019(]*$")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case; what hyphens join is one word."""
    return [word.lower() for word in _WORD.findall(text)]


def unwanted(text: str, table: frozenset[str], allowed: frozenset[str] = frozenset()) -> str | None:
    """The first word of a text, or part of one joined by hyphens, that a table has; None if there is none."""
    for word in words(text):
        for part in (word, *word.split("-")):
            if part in table and part not in allowed:
                return part
    return None


def named(text: str) -> str | None:
    """The first word with a capital that does not begin a sentence: a name, a brand, a place, a nationality."""
    for match in _WORD.finditer(text):
        word = match[0]
        # "T-shirt" and "V-neck" are no names, and the word "I" is none.
        if word != word.lower() and not re.fullmatch(r"[A-Z](-[a-z-]+)?", word):
            capital_first = word[1:] == word[1:].lower()
            if not (capital_first and _INITIAL.search(text[: match.start()])):
                return word
    return None


def compared(text: str) -> str | None:
    """The first words that compare somebody with somebody else, or introduce them; None if there are none."""
    found = _COMPARED.search(text)
    return " ".join(found[0].split()) if found else None


def plain(text: str) -> bool:
    """Whether a text is made of Latin letters, digits and ordinary punctuation alone, and has a word in it."""
    return _PLAIN.fullmatch(text) is not None and re.search(r"[A-Za-z]{3}", text) is not None
