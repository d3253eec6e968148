"""Which calls a service has, with the types of what each takes and answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from sanderling.reasons import Reasons
from sanderling.service import messages
from sanderling.slate import Explanation, FoundItems, Slate

PREFIX = "/v1/"


class Route(NamedTuple):
    """A call, `POST /v1/NAME`; without arguments `GET`."""

    name: str
    """The name of the method of `Engine`, and of that of `Endpoints`."""

    takes: type[Struct] | None
    """The arguments, the body of the request."""

    answers: Any
    """The type of the body of the answer with status 200."""

    statuses: tuple[int, ...] = ()
    """What else it may answer, beside what every call may."""

    @property
    def path(self) -> str:
        """The path of the URL."""
        return PREFIX + self.name

    @property
    def method(self) -> str:
        """The method of HTTP."""
        return "GET" if self.takes is None else "POST"


ROUTES = (
    Route("recommend", messages.Recommend, Slate, (404,)),
    Route("reward", messages.Reward, messages.StoredReceipt, (202, 404)),
    Route("reward_all", messages.RewardAll, messages.StoredReceipt, (202, 404)),
    Route("receipt", messages.ReceiptId, messages.StoredReceipt, (202, 404)),
    Route("seen", messages.Seen, messages.Done, (404,)),
    Route("observe", messages.Observe, messages.Done),
    Route("search", messages.Search, FoundItems),
    Route("similar", messages.Similar, FoundItems),
    Route("encode", messages.Encode, messages.Encoded),
    Route("explain", messages.Explain, Explanation, (404,)),
    Route("why", messages.Why, Reasons, (404,)),
    Route("upsert_items", messages.UpsertItems, messages.Done),
    Route("set_attributes", messages.SetAttributes, messages.Done),
    Route("remove_items", messages.RemoveItems, messages.Done),
    Route("forget_user", messages.ForgetUser, messages.Done),
    Route("flush", messages.Timeout, messages.Flushed),
    Route("update", messages.Timeout, messages.Updated),
    Route("rollback", messages.Nothing, messages.Updated),
    Route("warm_up", messages.WarmUp, messages.Done),
    Route("exploring", messages.Exploring, messages.Exploring),
    Route("counters", None, dict[str, Any]),
)
