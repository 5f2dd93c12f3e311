"""Names of columns, read word by word: which speak of a click or another outcome, which of a feature or of impressions."""

import re


def _set(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_LABEL_WORDS = _set(
    "label labels y click clicks clicked clk isclick clickthrough klick klicks geklickt clic clics cliqué clique clicou",
    "klik kliks клик 点击 是否点击 クリック 클릭 标签 標籤 ラベル",
)
_OUTCOME_WORDS = _set(
    "target outcome response responded result class converted conversion conversions convert cvr ctr purchase purchased buy",
    "bought order ordered install installed attributed like liked rating ratings rate rated score stars churn churned",
    "subscribe subscribed engaged engagement watched finished finish follow followed share shared favorite favourite action",
    "feedback event interaction ziel objetivo cible etiqueta étiquette bewertung note",
)
_FILLERS = _set(
    "is has was did if on the an a of by to ad ads advert banner user item flag ind indicator binary bool boolean col column",
    "value yn true gt ground truth",
)
#: Words that make a name that of a feature: `click_time` and `target_id` are no labels.
_FEATURE_WORDS = _set(
    "id ids time ts date day hour count cnt num n number avg mean history hist seq list prev previous past last total sum",
    "days type category position pos url source price amount cost value duration age income",
)
#: Two-valued features that are common in click logs.
_TWO_VALUED = _set(
    "male female gender sex weekend isweekend holiday weekday mobile tablet desktop smoker married member new returning",
    "premium vip homework logged login wifi child children train test",
)
_IMPRESSION_WORDS = _set("impression impressions imp imps views view shows show exposures exposure displays sent sends")
_NEGATIONS = _set("no not non none un without false neg negative never nein nicht kein nao não нет 0 否 未")


def name_likeliness(name: str) -> int:
    """How much a column's name speaks of a label; names are read word by word.

    4: a click or a label. 3: another outcome, such as a purchase or a rating. 2: words of both kinds. 1: any other name.
    0: the name of a feature.

    >>> [name_likeliness(name) for name in ("Clicked on Ad", "isClick", "is_purchase", "clicks_next_hours", "site", "click_time")]
    [4, 4, 3, 2, 1, 0]
    """
    words = _words(name)
    telling = [word for word in words if word not in _FILLERS and not word.isdigit()] or words
    known = _LABEL_WORDS | _OUTCOME_WORDS
    if all(word in _LABEL_WORDS for word in telling):
        return 4
    if all(word in known for word in telling):
        return 3
    if any(word in _FEATURE_WORDS or word in _TWO_VALUED for word in telling):
        return 0
    return 2 if any(word in known for word in telling) else 1


def _words(name: str) -> list[str]:
    """Lower-case words of a name in snake_case, camelCase, kebab-case or plain text."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word.lower() for word in re.findall(r"[^\W_]+", parted)] or [name.strip().lower()]


def is_negated(text: str) -> bool:
    """Whether a text says no.

    >>> is_negated("no click"), is_negated("click")
    (True, False)
    """
    return any(word in _NEGATIONS for word in _words(text))


def counts_impressions(name: str) -> bool:
    """Whether a column's name speaks of impressions."""
    return any(word in _IMPRESSION_WORDS for word in _words(name))
