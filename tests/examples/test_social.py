"""The social example reads posts, hides what a feed must not show, and ranks by habit and age."""

from __future__ import annotations

import io
import tarfile

from examples.social import posts, social
from examples.social.posts import WEEK, Post

DAY = 86_400


def post(id: str, day: float, author: str, community: str = "cooking", **fields) -> Post:
    """Return a post that begins a conversation unless `fields` say otherwise."""
    links = {"answers": None, "conversation": id} | fields
    return Post(id, int(day * DAY), author, False, community, id, **links)


def mail(id: str, author: str, hour: int, subject: str, answers: str = "") -> bytes:
    """Return a message to a mailing list of 1 August 2002."""
    lines = [
        f"From: {author} <{author}@home.example>",
        f"Date: Thu, 1 Aug 2002 {hour:02}:00:00 +0000",
        f"Subject: {subject}",
        "List-Id: Cooking <cooking.example>",
        f"Message-Id: {id}",
    ]
    return "\n".join([*lines, f"In-Reply-To: {answers}", "", "text"]).encode()


def test_posts_are_read_with_what_they_answer(tmp_path, monkeypatch):
    """Order, list, title and conversation come from the headers; an author is new three times."""
    mails = [mail(f"<{hour}>", "ann", hour, "Bread") for hour in range(1, 5)]
    mails.append(mail("<5>", "bob", 5, "Re: [Cooking] Bread", "<2>"))
    mails.append(mail("<6>", "cis", 6, "Re: Re: Bread", "<5>"))
    (tmp_path / "social").mkdir()
    with tarfile.open(tmp_path / "social" / posts.ARCHIVE, "w:gz") as archive:
        for at, content in reversed(list(enumerate(mails))):
            member = tarfile.TarInfo(f"package/data/easy-ham-1/{at}.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setenv("SANDERLING_DATA", str(tmp_path))

    found = posts.read()

    assert [each.id for each in found] == ["<1>", "<2>", "<3>", "<4>", "<5>", "<6>"]
    assert [each.is_new_author for each in found] == [True, True, True, False, True, True]
    assert {each.community for each in found} == {"cooking.example"}
    assert {each.text for each in found} == {"Bread"}
    assert [each.answers for each in found[3:]] == [None, "<2>", "<5>"]
    assert found[5].conversation == "<2>"


def test_a_feed_hides_blocked_authors_own_conversations_and_old_posts():
    """What is left is of others, of the last week, and not of a conversation already joined."""
    log = [
        post("old", 0.0, "bob"),
        post("joined", 3.0, "bob"),
        post("mine", 4.0, "ann", answers="joined", conversation="joined"),
        post("also joined", 5.0, "cis", answers="joined", conversation="joined"),
        post("blocked", 6.0, "dan"),
        post("other", 6.5, "cis"),
        post("next", 8.0, "ann"),
    ]

    mine, feed, hidden = posts.opening(log, 6, "dan")

    assert [each.id for each in mine] == ["mine"]
    assert [each.id for each in feed] == ["other"]
    assert hidden == ["joined", "mine", "also joined"]
    assert log[6].time - log[0].time > WEEK


def test_the_baseline_knows_the_lists_of_a_reader_and_the_age_of_posts():
    """Of equally old posts that of the reader's list leads; age decides within a list."""
    now = post("now", 2.0, "ann")
    mine = [post("mine", 0.0, "ann", "baking")]
    feed = [post("a", 1.0, "bob", "baking"), post("b", 1.0, "bob"), post("c", 1.5, "bob", "baking")]

    assert social.habit((now, mine, feed, []), 0.1, 1.5) == ["c", "a", "b"]
