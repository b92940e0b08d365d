"""The small release and the quiet client of the release's tests."""

from ..release.conftest import packed_run, policy, quiet_lfs_client, recipe, release_dir  # noqa: F401  # fixtures
