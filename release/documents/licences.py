"""Licence identifiers: those that the Hub knows, and what SPDX calls them.

Source: the Hub's documentation, "Licenses" (repositories-licenses), and the SPDX licence list; state of 2026.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# Identifier on the Hub -> SPDX identifier, where the two name the same text.
SPDX_OF: Mapping[str, str] = MappingProxyType({
    "apache-2.0": "Apache-2.0", "mit": "MIT", "afl-3.0": "AFL-3.0", "artistic-2.0": "Artistic-2.0", "bsl-1.0": "BSL-1.0",
    "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause", "bsd-3-clause-clear": "BSD-3-Clause-Clear", "c-uda": "C-UDA-1.0",
    "cc0-1.0": "CC0-1.0", "cc-by-2.0": "CC-BY-2.0", "cc-by-2.5": "CC-BY-2.5", "cc-by-3.0": "CC-BY-3.0", "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-3.0": "CC-BY-SA-3.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc-by-nc-2.0": "CC-BY-NC-2.0", "cc-by-nc-3.0": "CC-BY-NC-3.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0", "cc-by-nd-4.0": "CC-BY-ND-4.0", "cc-by-nc-nd-3.0": "CC-BY-NC-ND-3.0",
    "cc-by-nc-nd-4.0": "CC-BY-NC-ND-4.0", "cc-by-nc-sa-2.0": "CC-BY-NC-SA-2.0", "cc-by-nc-sa-3.0": "CC-BY-NC-SA-3.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0", "cdla-sharing-1.0": "CDLA-Sharing-1.0", "cdla-permissive-1.0": "CDLA-Permissive-1.0",
    "cdla-permissive-2.0": "CDLA-Permissive-2.0", "wtfpl": "WTFPL", "ecl-2.0": "ECL-2.0", "epl-1.0": "EPL-1.0", "epl-2.0": "EPL-2.0",
    "etalab-2.0": "etalab-2.0", "eupl-1.1": "EUPL-1.1", "eupl-1.2": "EUPL-1.2", "agpl-3.0": "AGPL-3.0-only", "gpl-2.0": "GPL-2.0-only",
    "gpl-3.0": "GPL-3.0-only", "lgpl-2.1": "LGPL-2.1-only", "lgpl-3.0": "LGPL-3.0-only", "isc": "ISC", "lppl-1.3c": "LPPL-1.3c",
    "ms-pl": "MS-PL", "mpl-2.0": "MPL-2.0", "odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "osl-3.0": "OSL-3.0", "postgresql": "PostgreSQL",
    "ofl-1.1": "OFL-1.1", "ncsa": "NCSA", "unlicense": "Unlicense", "zlib": "Zlib", "pddl": "PDDL-1.0", "lgpl-lr": "LGPLLR"})
# Known to the Hub, but not in SPDX, or not one text.
OTHER_HUB_LICENCES = frozenset({
    "openrail", "openrail++", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0", "bigcode-openrail-m", "bsd", "cc",
    "gfdl", "gpl", "lgpl", "intel-research", "apple-ascl", "apple-amlr", "openmdw-1.0", "deepfloyd-if-license",
    "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "grok2-community", "gemma",
    "h-research", "unknown", "other"})
HUB_LICENCES = frozenset(SPDX_OF) | OTHER_HUB_LICENCES
# SPDX expressions of the packages that stages record, as their distributions state them.
PACKAGE_LICENCES: Mapping[str, str] = MappingProxyType({
    "glideslope": "Apache-2.0", "torch": "BSD-3-Clause", "open_clip_torch": "MIT", "timm": "Apache-2.0", "scikit-learn": "BSD-3-Clause",
    "numpy": "BSD-3-Clause", "pillow": "MIT-CMU", "safetensors": "Apache-2.0", "python": "PSF-2.0"})


def cyclonedx_licence(hub_licence: str) -> list[dict[str, Any]]:
    """A licence of the Hub as CycloneDX writes it: by SPDX identifier, or by name where SPDX knows none."""
    spdx = SPDX_OF.get(hub_licence.lower())
    return [{"license": {"name": hub_licence} if spdx is None else {"id": spdx}}]
