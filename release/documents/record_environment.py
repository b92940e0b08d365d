"""On what a stage ran, as its record says."""

from typing import Any

from ...store.records import Record

MACHINE_KEYS = ("machine", "num_cores", "num_threads", "device", "device_name", "seconds")


def describe(record: Record) -> dict[str, Any]:
    """Versions and machine class of one stage."""
    environment = record.environment
    known = {key: environment[key] for key in MACHINE_KEYS if environment.get(key) is not None}
    return known | {"versions": {str(name): str(version) for name, version in sorted(dict(environment.get("versions", {})).items())}}
