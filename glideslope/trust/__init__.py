"""Why a release may be believed: its manifest, signatures and keys, status, lock file, snapshots of the Hub."""
