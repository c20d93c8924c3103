"""What the doctor asks a node: each function runs in a process there and returns plain values.

They are sent by value and import what they need themselves, so that a node without raycls, or with another
version of it, can still answer.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from typing import Any

__all__ = ["exchange", "graphics", "listing", "objects", "open_port", "remove", "room", "visit"]


def graphics() -> list[dict[str, Any]]:
    """The GPUs that the NVIDIA driver knows, each with `name`, `driver` and `memory` in bytes."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    words = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    lines = [line.rsplit(",", 2) for line in done.stdout.splitlines() if line.count(",") >= 2]
    return [
        {"name": name.strip(), "driver": driver.strip(), "memory": int(float(memory)) << 20}
        for name, driver, memory in lines
    ]


def room(storage: str | None) -> dict[str, Any]:
    """`shared`: `total` and `free` bytes of /dev/shm, or None. `folders`: the same for Ray's folder and `storage`."""
    from ray._private import worker  # the one place that knows where this node keeps its session

    node: Any = worker._global_node
    paths = {"Ray's temporary folder": node.get_session_dir_path()}
    if storage is not None:
        paths["run.storage"] = storage
    folders = []
    for what, path in paths.items():
        there = path
        while not os.path.exists(there):  # what a run would make
            there = os.path.dirname(there)
        usage = shutil.disk_usage(there)
        folders.append({"what": what, "path": path, "total": usage.total, "free": usage.free})
    shared = None
    if os.path.isdir("/dev/shm"):  # noqa: S108 - only looked at
        usage = shutil.disk_usage("/dev/shm")  # noqa: S108
        shared = {"total": usage.total, "free": usage.free}
    return {"shared": shared, "folders": folders}


def visit(uri: str, mark: str, content: str, reply: str) -> dict[str, Any]:
    """Look for the file `mark` with `content` in the storage `uri`; where it is there, write the file `reply`."""
    from raycls.errors import RayclsError
    from raycls.run.storage.store import Store

    try:
        store = Store(uri)
        found = store.find_bytes(mark)
        if found is None or found.decode(errors="replace") != content:
            return {"read": False, "wrote": False, "problem": ""}
        store.write_bytes(reply, content.encode())
    except RayclsError as error:
        return {"read": False, "wrote": False, "problem": f"{error.what}: {error.found}"}
    return {"read": True, "wrote": True, "problem": ""}


def listing(path: str, most: int) -> dict[str, Any]:
    """What is at `path`, cheaply: the names and sizes of its first `most` entries in sorted order, as a digest.

    `kind` is `missing`, `file` or `folder`; `whole` says whether all entries were looked at. For a file the digest
    is of its size and its first 64 KiB.
    """
    digest = hashlib.sha256()
    if os.path.isfile(path):
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            digest.update(f"{size}\n".encode() + file.read(1 << 16))
        return {"kind": "file", "entries": 1, "bytes": size, "whole": True, "digest": digest.hexdigest()}
    if not os.path.isdir(path):
        return {"kind": "missing", "entries": 0, "bytes": 0, "whole": True, "digest": ""}
    entries, total, folders = 0, 0, [""]
    while folders and entries < most:
        folder = folders.pop(0)
        with os.scandir(os.path.join(path, folder)) as found:
            inside = sorted(found, key=lambda entry: entry.name)
        for entry in inside[: most - entries]:
            name = os.path.join(folder, entry.name)
            is_folder = entry.is_dir()
            size = 0 if is_folder else entry.stat().st_size
            digest.update(os.fsencode(f"{name}\n{size}\n"))
            entries, total = entries + 1, total + size
            folders += [name] if is_folder else []
        if len(inside) > most:
            break
    whole = not folders and entries < most
    return {"kind": "folder", "entries": entries, "bytes": total, "whole": whole, "digest": digest.hexdigest()}


def objects(uri: str, most: int, times: int) -> dict[str, Any]:
    """Look below an address of data once, and read the first `most` bytes of one object there, `times` times.

    `listing` and `reading` are seconds, of one look at one folder and of one read; `name` is the object. Where that
    fails, `problem` says how (`denied`, `no answer`, `wrong address` or `nothing there`), and `found` and `fix` what an
    error of a run would say.
    """
    from raycls.data.sources.remote.address import connect, explained, parse
    from raycls.errors import ConfigError
    from raycls.run.storage.retry import is_denial, is_outage

    told: dict[str, Any] = {"problem": "", "found": "", "fix": "", "name": "", "listing": None, "reading": None}
    try:
        address = parse(uri, where="data.source.path")
        files = connect(address).without_retry()
    except ConfigError as error:
        return {**told, "problem": "wrong address", "found": error.found or error.what, "fix": error.fix or ""}
    pattern = min((address.path.find(sign) for sign in "{*[" if sign in address.path), default=len(address.path))
    whole = pattern == len(address.path)
    path = f"{files.base}/{address.path if whole else address.path[:pattern].rpartition('/')[0]}".rstrip("/")
    try:
        path, seconds = _first(files.filesystem, path)
        if not path:
            fix = "correct the path" if files.has_root() else "correct the bucket, or make it"
            return {**told, "problem": "nothing there", "found": "no object below this address", "fix": fix}
        spent = []
        for _ in range(times):
            began = time.perf_counter()
            with files.filesystem.open_input_file(path) as file:
                file.read_at(min(most, file.size()), 0)
            spent.append(time.perf_counter() - began)
    except OSError as error:
        kind = "denied" if is_denial(error) else "no answer" if is_outage(error) else "wrong address"
        known = explained(error, address)
        return {**told, "problem": kind, "found": known.found or known.what, "fix": known.fix or ""}
    return {**told, "name": path.partition("/")[2], "listing": seconds, "reading": sorted(spent)[times // 2]}


def _first(filesystem: Any, path: str) -> tuple[str, float]:
    """The path of the first object at `path` or below it, empty where there is none; the seconds of the last look."""
    from pyarrow import fs

    began = time.perf_counter()
    kind = filesystem.get_file_info(path).type
    seconds = time.perf_counter() - began
    while kind == fs.FileType.Directory:
        began = time.perf_counter()
        inside = filesystem.get_file_info(fs.FileSelector(path))
        seconds = time.perf_counter() - began
        if not inside:
            return "", seconds
        found = min(inside, key=lambda info: (not info.is_file, info.path))
        path, kind = found.path, found.type
    return (path if kind == fs.FileType.File else ""), seconds


def open_port(address: str) -> int:
    """A port of this node that is free now."""
    import socket

    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as opened:
        opened.bind((address, 0))
        return opened.getsockname()[1]


def exchange(
    backend: str, address: str, port: int, rank: int, world: int, floats: int, repeats: int, seconds: float
) -> float:
    """Seconds of one all-reduce of `floats` float32 over `world` nodes, the median of `repeats`.

    The group meets at `address:port`, the node of rank 0, and gives up after `seconds`.
    """
    from contextlib import suppress
    from datetime import timedelta
    from statistics import median

    import torch
    import torch.distributed as dist

    if backend == "gloo":
        with suppress(ImportError):  # a node without raycls, as another row says
            from raycls.launch.gloo import talk_as_ray_does

            talk_as_ray_does()
    if backend == "nccl":
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"  # Ray hides GPUs from what has reserved none
    host = f"[{address}]" if ":" in address else address
    limit = timedelta(seconds=seconds)
    dist.init_process_group(backend, init_method=f"tcp://{host}:{port}", rank=rank, world_size=world, timeout=limit)
    try:
        values = torch.zeros(floats, device="cuda" if backend == "nccl" else "cpu")
        times = []
        for _ in range(repeats + 2):  # the first ones open connections
            began = time.perf_counter()
            dist.all_reduce(values)
            if backend == "nccl":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    finally:
        dist.destroy_process_group()
    return median(times[2:])


def remove(folder: str) -> None:
    """Remove a folder of the doctor's own."""
    shutil.rmtree(folder, ignore_errors=True)
