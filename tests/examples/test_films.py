"""The films of examples/films: what is hidden of a log, what counts as liked, and distances."""

from __future__ import annotations

import pyarrow as pa
import pytest

from examples.films.films import HIDDEN, Films, distance


def ratings(user, films, disliked=()):
    """Return a user's ratings in the order of the films."""
    return [
        {
            "user_id": user,
            "item_id": film,
            "timestamp": 1_000 + at,
            "reward": -1.0 if film in disliked else 1.0,
            "kind": "dislike" if film in disliked else "like",
        }
        for at, film in enumerate(films)
    ]


def test_the_last_ratings_of_each_user_are_hidden_and_their_likes_wanted():
    """Ann's first two ratings are known, eight of the ten hidden are liked; Bob has no history."""
    films = [f"film-{at}" for at in range(HIDDEN + 2)]
    ann = ratings("ann", films, disliked=["film-1", "film-3", "film-4"])
    bob = ratings("bob", films[:HIDDEN])

    # The users take turns, as in a log in order of time.
    log = [row for pair in zip(bob, ann, strict=False) for row in pair] + ann[HIDDEN:]
    hidden = Films(pa.Table.from_pylist(log))

    assert hidden.had == {"ann": [("film-0", "like"), ("film-1", "dislike")]}
    assert hidden.wanted == {"ann": {"film-2", *films[5:]}}
    assert hidden.past.num_rows == 2


def test_a_list_is_judged_up_to_k():
    """Of two likes the second page has one, so that recall of both pages is one half."""
    films = [f"film-{at}" for at in range(HIDDEN + 1)]
    hidden = Films(pa.Table.from_pylist(ratings("ann", films, disliked=films[3:])))
    assert hidden.wanted == {"ann": {"film-1", "film-2"}}

    found = hidden.judge([["other", "film-1"]], 2)

    assert found["recall"].tolist() == [0.5]
    assert found["ndcg"][0] == pytest.approx(0.6309 / 1.6309, abs=1e-4)


def test_distance_is_the_share_of_genres_not_in_common():
    """Equal genres are at 0, disjoint ones at 1; a slate has the mean over its pairs."""
    genres = {"a": {"War"}, "b": {"War"}, "c": {"War", "Drama"}, "d": {"Comedy"}}
    assert distance(["a", "b"], genres) == 0.0
    assert distance(["a", "d"], genres) == 1.0
    assert distance(["a", "c"], genres) == 0.5
    assert distance(["a", "b", "d"], genres) == pytest.approx(2 / 3)
