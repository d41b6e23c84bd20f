"""Where trainings run side by side: processes of this machine, or a Dask cluster by its address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from ..errors import InputError

#: Seconds until a scheduler that does not answer counts as not there.
PATIENCE = 10


def jobs_or_address(parameter: str, given: int | str) -> int | str:
    """A number of processes, or the address of a Dask scheduler, as a command line gives either."""
    if isinstance(given, str) and re.fullmatch(r"(tcp|tls|ucx|ws|wss)://\S+", given):
        return given
    if isinstance(given, bool) or not re.fullmatch(r"[1-9]\d{0,3}", str(given)):
        accepted = "a whole number from 1 to 9999, or a Dask scheduler's address such as tcp://host:8786"
        raise InputError(parameter, given, accepted)
    return int(given)


@contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """The workers of the Dask scheduler at ``address``; what a lost worker had begun, another one begins again.

    The workers import the same code and see the same folders; one thread each suits trainings best.
    """
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise InputError("jobs", address, "the extra: pip install 'hybridft-utils[cluster]'") from error
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        accepted = f"the address of a running Dask scheduler ({str(error).splitlines()[0][:150]})"
        raise InputError("jobs", address, accepted) from error
    with client:
        yield client.get_executor(pure=False)
