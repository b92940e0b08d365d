"""What can go wrong between a client and a hub, as data."""

import re
from dataclasses import dataclass
from typing import Literal

FaultKind = Literal["lost_response", "applied_500", "412", "429", "500", "503", "cut", "corrupt", "expired_token", "half_upload", "slow",
                    "moved"]


@dataclass(frozen=True)
class Fault:
    """A failure that befalls some requests.

    Attributes:
        kind: `lost_response`: the request is carried out, then the connection drops; `applied_500`: it is carried out
            and answered with an error; `412`, `429`, `500`, `503`: answered so, not carried out; `cut`: the answer ends half-way;
            `corrupt`: one byte of the answer is another (asked for a Xet read token: one byte of the store);
            `expired_token`: the token is no longer valid; `half_upload`: the connection drops half-way through the request's
            body; `slow`: the answer comes late; `moved`: somebody else commits to the branch just before.
        method: the HTTP method, such as "POST".
        path: a regular expression that is searched in the path.
        nth: the first matching request that it befalls, from 1.
        times: how many requests in a row it befalls; none: all from then on.
        delay_s: how late a slow answer is.
    """

    kind: FaultKind
    method: str
    path: str
    nth: int = 1
    times: int | None = 1
    delay_s: float = 0.3

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is of the kind it befalls."""
        return method == self.method and re.search(self.path, path) is not None

    def befalls(self, number: int) -> bool:
        """Whether it befalls the matching request of this number, counted from 1."""
        return number >= self.nth and (self.times is None or number < self.nth + self.times)
