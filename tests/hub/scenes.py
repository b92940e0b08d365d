"""The scenes of a rehearsal: what goes wrong in each, and how a publication must end all the same."""

from dataclasses import dataclass
from typing import Literal

from .faults import Fault

Transfer = Literal["lfs", "xet"]
First = Literal["published", "refused", "killed"]
Shown = Literal["before", "release", "somebody else's"]
TRANSFERS: tuple[Transfer, ...] = ("lfs", "xet")


@dataclass(frozen=True)
class Kill:
    """The publisher is killed (SIGKILL) when a request arrives or has been carried out.

    Attributes:
        phase: before the hub carries it out, or after.
        method: the HTTP method.
        path: a regular expression that is searched in the path.
        nth: the how-manieth such request, from 1.
    """

    phase: Literal["before", "after"]
    method: str
    path: str
    nth: int = 1


@dataclass(frozen=True)
class Scene:
    """One publication with something going wrong, and a second one with nothing going wrong.

    Attributes:
        name: what happens.
        first: how the first publication must end.
        faults: what the hub does meanwhile.
        kill: when the publisher is killed.
        is_new: whether the repository is made by the publication; otherwise main shows something earlier.
        shown: what main must show after the first publication.
        last: what main must show after the second one.
        transfer: the only way of transfer that has such a failure; none: both have it.
        is_verified: whether the download is verified in full; otherwise its files are compared with the manifest alone.
    """

    name: str
    first: First
    faults: tuple[Fault, ...] = ()
    kill: Kill | None = None
    is_new: bool = False
    shown: Shown = "before"
    last: Shown = "release"
    transfer: Transfer | None = None
    is_verified: bool = False


STAGE, PROMOTE, TAG, DOWNLOAD = "/commit/staging/", "/commit/main", "/tag/", "/resolve/"
WEIGHTS = r"/resolve/.*\.safetensors"

SCENES: tuple[Scene, ...] = (
    Scene("nothing goes wrong", "published", is_new=True, shown="release", is_verified=True),
    Scene("nothing goes wrong, over something earlier", "published", shown="release"),
    Scene("the answer to the upload's commit is lost", "published", (Fault("lost_response", "POST", STAGE),), shown="release"),
    Scene("the answer to the promotion is lost", "published", (Fault("lost_response", "POST", PROMOTE),), shown="release"),
    Scene("the promotion is carried out and answered with 500", "published", (Fault("applied_500", "POST", PROMOTE),), shown="release"),
    Scene("the answer to the making of the repository is lost", "published", (Fault("lost_response", "POST", "/repos/create"),), is_new=True,
          shown="release"),
    Scene("the answer to the tag is lost", "published", (Fault("lost_response", "POST", TAG),), shown="release"),
    Scene("the hub answers 503 to the upload's commit, twice", "published", (Fault("503", "POST", STAGE, times=2),), shown="release"),
    Scene("the hub answers 500 to the promotion, always", "refused", (Fault("500", "POST", PROMOTE, times=None),)),
    Scene("the promotion is refused with 412", "refused", (Fault("412", "POST", PROMOTE),)),
    Scene("somebody else commits to main meanwhile", "refused", (Fault("moved", "POST", PROMOTE),), shown="somebody else's"),
    Scene("the token expires before the upload's commit", "refused", (Fault("expired_token", "POST", STAGE, times=None),)),
    Scene("the token expires before the promotion", "refused", (Fault("expired_token", "POST", PROMOTE, times=None),)),
    Scene("answers are slow", "published", (Fault("slow", "POST", "/commit/", times=2),), shown="release"),
    Scene("the connection drops half-way through an upload", "published", (Fault("half_upload", "PUT", "/_lfs/"),), shown="release",
          transfer="lfs"),
    Scene("a download is cut", "published", (Fault("cut", "GET", WEIGHTS),), shown="release", transfer="lfs"),
    Scene("one byte of a download is another", "published", (Fault("corrupt", "GET", WEIGHTS),), shown="release", transfer="lfs"),
    Scene("one byte of the card's download is another", "published", (Fault("corrupt", "GET", r"/resolve/.*README\.md"),), shown="release"),
    Scene("one byte of what is stored is another", "refused", (Fault("corrupt", "GET", WEIGHTS, times=None),), transfer="lfs"),
    Scene("one byte of what is stored is another for ever", "refused", (Fault("corrupt", "GET", "/xet-read-token/"),), last="before",
          transfer="xet"),
    Scene("killed when the repository is made", "killed", kill=Kill("after", "POST", "/repos/create"), is_new=True),
    Scene("killed while a large file is uploaded", "killed", kill=Kill("before", "PUT", "/_lfs/"), transfer="lfs"),
    Scene("killed when large files are about to be uploaded", "killed", kill=Kill("before", "GET", "/xet-write-token/"), transfer="xet"),
    Scene("killed before the upload's commit", "killed", kill=Kill("before", "POST", STAGE)),
    Scene("killed after the upload's commit", "killed", kill=Kill("after", "POST", STAGE)),
    Scene("killed while downloading again", "killed", kill=Kill("after", "GET", DOWNLOAD, nth=2)),
    Scene("killed before the promotion", "killed", kill=Kill("before", "POST", PROMOTE)),
    Scene("killed after the promotion", "killed", kill=Kill("after", "POST", PROMOTE), shown="release"),
    Scene("killed after the tag", "killed", kill=Kill("after", "POST", TAG), shown="release"),
    Scene("killed after the staging branch is removed", "killed", kill=Kill("after", "DELETE", "/branch/staging/"), shown="release"))


def scenes_of(transfer: Transfer) -> tuple[Scene, ...]:
    """The scenes that a way of transfer can play."""
    return tuple(scene for scene in SCENES if scene.transfer in (None, transfer))
