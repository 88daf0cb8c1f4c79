"""Launch of a model process, and trials of an unknown file in one."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec

from kedge.adapters.process.messages import ProofStep, TrialFailure, TrialMessage
from kedge.columns import Offered, ProbeResult
from kedge.core.errors import CorruptArtifact, KedgeError, Refused, UnfitModel
from kedge.core.features.generations import URL_VARIABLE, Online
from kedge.core.inputs import Described
from kedge.core.values import Signature
from kedge.system.interpreter import bare_environment, module_command, safe_environment

PROBE_TIMEOUT_S = 60.0
_LONGEST_LINE = 64 << 20
_SHOWN = 200
"""Bytes shown of a line that is no answer: enough to find its author."""
_MODULE = "kedge.adapters.process"


def command(
    *,
    socket: Path,
    artifacts: Path,
    digest: str,
    flavour: str,
    trusted: Sequence[str] = (),
    memory_mb: int = 4096,
    loader: str | None = None,
    code: str | None = None,
    generation: str | None = None,
    online: Online | None = None,
    fence: str = "warn",
) -> list[str]:
    """Return the command line of a model process; start it with `fenced_environment()`.

    `loader` ("module:Class") names a loader without an entry point. `code` is the bundle of the
    transformation before the model, `generation` the runs that it reads by key, `online` their
    store. On its standard input it gets `first_words`, its socket and its status file
    (`ModelDoor`).
    """
    line = module_command(_MODULE, "serve", "--socket", str(socket), "--fence", fence)
    line += _before(code, generation, online)
    return line + _arguments(artifacts, digest, flavour, trusted, memory_mb, loader)


def _before(code: str | None, generation: str | None, online: Online | None) -> list[str]:
    """Return the arguments for the transformation before the model, and for its lookups."""
    line = ["--code", code] if code is not None else []
    if generation is not None and online is not None:
        told = msgspec.json.encode(without_url(online)[0]).decode()
        line += ["--generation", generation, "--online", told]
    return line


def first_words(generation: str | None, online: Online | None) -> bytes:
    """Return the first line of a model process's standard input: its online store's URL, if any."""
    url = "" if generation is None or online is None else without_url(online)[1]
    return url.encode() + b"\n"


def _arguments(
    artifacts: Path,
    digest: str,
    flavour: str,
    trusted: Sequence[str],
    memory_mb: int,
    loader: str | None,
) -> list[str]:
    line = ["--artifacts", str(artifacts), "--digest", digest, "--flavour", flavour]
    line += ["--trusted", msgspec.json.encode(list(trusted)).decode()]
    line += ["--memory-mb", str(memory_mb)]
    return line + (["--loader", loader] if loader is not None else [])


def environment() -> dict[str, str]:
    """Return the environment of workers and control: one thread for each numeric library.

    The libraries read it once, when they are loaded; two thread pools on one core compete.
    """
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**dict.fromkeys(threads, "1"), **safe_environment()}


def fenced_environment() -> dict[str, str]:
    """Return the environment of a model process: the variables of this one that a table names.

    OpenBLAS starts its threads while NumPy is imported, before the fence, which binds only the
    thread that enters it. So it always gets one thread; OpenMP's threads start later.
    """
    found = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **bare_environment()}
    # joblib would run a program to count cores and make semaphores: the fence forbids both.
    silent = {"LOKY_MAX_CPU_COUNT": "1", "JOBLIB_MULTIPROCESSING": "0"}
    return {**found, **silent, "OPENBLAS_NUM_THREADS": "1"}


def without_url(online: Online) -> tuple[Online, str]:
    """Return the part of an online store for a command line, and its URL with any password.

    Every user of the machine can read a command line. Without a URL in kedge.toml, the URL comes
    from this process's environment.
    """
    if online.store != "redis":
        return online, ""
    url = online.where or os.environ.get(URL_VARIABLE, "")
    return msgspec.structs.replace(online, where=""), url


def reach_of(online: Online) -> str:
    """Return the reach of a model's lookups in their store, in words, without a password."""
    told, url = without_url(online)
    who = "a release that reads values by key"
    if told.store != "redis":
        return f"{who} may read and write {Path(told.where).parent}"
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"{who} may connect to Unix sockets, for {parts.path}"
    return f"{who} may connect to port {parts.port or 6379}, for {parts.hostname}"


STEPS = ("fetch", "verify", "load", "answer", "sample")
"""Steps of a proof, in order."""


def probe(
    *,
    artifacts: Path,
    digest: str,
    flavour: str = "",
    rows: Callable[[Signature, Described], Offered],
    trusted: Sequence[str] = (),
    memory_mb: int = 4096,
    timeout_s: float = PROBE_TIMEOUT_S,
    loader: str | None = None,
    fence: str = "warn",
) -> ProbeResult:
    """Load a model in a process that it may crash, and ask it rows, twice and in groupings.

    Without a flavour the digest is that of a transformation's bundle.

    This process calls `rows` with the model's signature and description, while the other process
    waits. So the model is loaded once, and its rows are judged where none of its code runs.

    Raises:
        UnfitModel: the loader refused it.
        CorruptArtifact: the bytes do not match the digest.
        Refused: it died, hung (`timeout_s` each for loading and answering), exceeded its
            memory, or wrote other data to the stream of its answers.
    """
    line = module_command(_MODULE, "probe")
    line += ["--fence", fence, *_arguments(artifacts, digest, flavour, trusted, memory_mb, loader)]
    with tempfile.TemporaryDirectory() as own, _started(line, Path(own)) as (process, errors):
        heard = bytearray()
        said = _read(process, errors, timeout_s, heard)
        if said.loaded is None:
            raise _refusal(said.failed)
        _tell_rows(process, rows(said.loaded.signature, said.loaded.described))
        more = _read(process, errors, timeout_s, heard)
        if more.answered is None:
            raise _refusal(more.failed)
    return ProbeResult(
        signature=said.loaded.signature,
        load_s=said.loaded.load_s,
        inputs=more.answered.inputs,
        outputs=more.answered.outputs,
        again=more.answered.again,
        fault=more.answered.fault,
        used=more.answered.used,
        grouped=more.answered.grouped,
        plain=more.answered.plain,
        described=said.loaded.described,
    )


def prove(
    *,
    artifacts: Path,
    into: Path,
    digest: str,
    flavour: str,
    rows: Callable[[], dict[str, list[Any]]],
    told: Callable[[ProofStep], None],
    trusted: Sequence[str] = (),
    memory_mb: int = 4096,
    timeout_s: float = PROBE_TIMEOUT_S,
    loader: str | None = None,
    code: str | None = None,
    generation: str | None = None,
    online: Online | None = None,
    fence: str = "warn",
) -> None:
    """Deploy a release from nothing: copy it into `into`, verify, load and ask it there.

    Args as of `command`, and:
        into: an empty directory; its new content stays.
        rows: called after the golden rows are answered; its rows are asked unchanged, of the
            whole release.
        told: called after each of `STEPS`.
        timeout_s: limit of each step.

    Raises:
        KedgeError: as `probe`, for the step that was not completed.
    """
    line = module_command(_MODULE, "prove")
    line += ["--into", str(into), "--parent", str(os.getpid())]
    line += ["--fence", fence, *_before(code, generation, online)]
    line += _arguments(artifacts, digest, flavour, trusted, memory_mb, loader)
    with _started(line, into / "own") as (process, errors):
        _tell(process, first_words(generation, online))
        heard = bytearray()
        for step in STEPS:
            if step == STEPS[-1]:
                _tell_rows(process, rows())
            said = _read(process, errors, timeout_s, heard)
            if said.done is None:
                raise _refusal(said.failed)
            told(said.done)


@contextmanager
def _started(
    line: Sequence[str], directory: Path
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Start a process with pipes that ends with this one; yield it and its stderr.

    `directory` is created here; the process may write it.
    """
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*line, "--own", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=fenced_environment(),
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process, errors
        finally:
            _end(process)


def _read(
    process: subprocess.Popen[bytes], errors: IO[bytes], timeout_s: float, said: bytearray
) -> TrialMessage:
    """Return the next line. Bytes after it stay in `said`."""
    assert process.stdout is not None
    until, whole = perf_counter() + timeout_s, b"\n" in said
    heard = select.poll()  # not select(): it takes no descriptor beyond 1,023
    heard.register(process.stdout, select.POLLIN)
    while not whole:
        ready = heard.poll(1000 * max(until - perf_counter(), 0))
        if not ready:
            raise Refused(
                f"the model did not come to an end within {timeout_s:g} s", code="probe_hung"
            )
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk or len(said) > _LONGEST_LINE:
            raise _death(process, errors, until)
        said += chunk
        whole = b"\n" in chunk
    line, _, rest = bytes(said).partition(b"\n")
    said[:] = rest
    try:
        found = msgspec.json.decode(line, type=TrialMessage)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _garbled(line) from error
    if found == TrialMessage():
        raise _garbled(line)
    return found


def _tell(process: subprocess.Popen[bytes], words: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it died: reading its answer will give the reason
        process.stdin.write(words)
        process.stdin.flush()


def _tell_rows(process: subprocess.Popen[bytes], rows: Offered | dict[str, list[Any]]) -> None:
    """Send the rows. The child reads all of them before it touches the model."""
    assert process.stdin is not None
    _tell(process, msgspec.json.encode(rows))
    with suppress(BrokenPipeError):
        process.stdin.close()


def _death(process: subprocess.Popen[bytes], errors: IO[bytes], until: float) -> Refused:
    try:
        code = process.wait(max(until - perf_counter(), 1))
    except subprocess.TimeoutExpired:
        return Refused("the model closed its output and went on", code="probe_hung")
    errors.seek(max(errors.seek(0, os.SEEK_END) - 2000, 0))
    last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return Refused(
        f"the model's process died while it was tried out ({how})"
        + (f": {last[0]}" if last else ""),
        code="probe_died",
        hint="if it ran out of memory, raise memory_mb",
    )


def _garbled(line: bytes) -> Refused:
    words = line[:_SHOWN].decode(errors="replace").strip()
    return Refused(
        f"the model's process wrote {words!r} where its answers are read",
        code="probe_garbled",
        hint=(
            "print goes elsewhere; look for what writes to a descriptor, or while Python starts"
            " (sitecustomize)"
        ),
    )


def _refusal(failed: TrialFailure | None) -> KedgeError:
    if failed is None:
        return Refused("the model's process answered out of turn", code="probe_garbled")
    kinds: dict[str, type[KedgeError]] = {
        "UnfitModel": UnfitModel,
        "CorruptArtifact": CorruptArtifact,
    }
    kind = kinds.get(failed.kind, Refused)
    return kind(failed.message, code=failed.code, hint=failed.hint, details=failed.details)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its children: its answer is complete, or will not come."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    process.wait()
