"""What an app calls to learn why a slate shows an item."""

from __future__ import annotations

from weakref import ref

from sanderling.arguments import check_slate, items_on_slate
from sanderling.engine_parts import EngineParts
from sanderling.ranking.reasons import explain_item
from sanderling.reasons import Reasons
from sanderling.slate import Slate, SlateItem, set_explainer


class ReasonCalls(EngineParts):
    """The calls of `Engine` that explain slates."""

    def why(self, slate: Slate, item: SlateItem | str) -> Reasons:
        """Return why one of the last 256 slates shows an item: `slate[0].why()` does the same.

        The reasons are those of the time of the decision. Nothing is prepared when a slate is made,
        so this takes milliseconds, and about as long as encoding them for each word of a context.

        Raises `ValueError` for an item that is not on the slate, `KeyError` with the reason for an
        older slate and for one of a user who was forgotten since.
        """
        check_slate(slate)
        (shown,) = items_on_slate(slate, [item])
        scorer = self._active_bundle.scorer
        return explain_item(self._profiles.decision_inputs(slate, scorer), shown.id)

    def _let_explain(self, slate: Slate) -> None:
        """Let the items of a new slate explain themselves."""
        explainer = _SlateExplainer(self, slate)
        for item in slate.items:
            set_explainer(item, explainer)


class _SlateExplainer:
    """Explains the items of a slate. It keeps neither the engine alive nor the items, which would
    be a cycle that the garbage collector cannot see."""

    __slots__ = ("_decision", "_engine", "_pseudonym", "_release", "_user")

    def __init__(self, engine: ReasonCalls, slate: Slate) -> None:
        self._engine = ref(engine)
        self._decision = slate.decision
        self._user = slate.user
        self._pseudonym = slate.pseudonym
        self._release = slate.release

    def why(self, item: SlateItem) -> Reasons:
        """Return why the slate shows an item; raise `LookupError` if the engine is gone."""
        engine = self._engine()
        if engine is None:
            raise LookupError(
                "why: expected the engine that made the slate, found that it is gone; keep it"
            )
        slate = Slate(self._decision, self._user, self._pseudonym, self._release, (item,))
        return engine.why(slate, item)
