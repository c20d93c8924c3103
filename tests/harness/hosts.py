"""Machines made of namespaces on one machine: each with its own network, processes, /tmp, home and sshd.

A host is what a cluster launcher expects to find at the other end of an SSH connection. It sees this machine's
files, but its processes, its addresses, /tmp, /root, /run, /mnt and /dev/shm are its own, and it ends with everything
that runs in it. Linux as root; the Debian packages are named by `missing`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

NETWORK = "10.77.0"
GATEWAY = f"{NETWORK}.1"
"""This machine's own address on the bridge."""

_BRIDGE = "raycls-bridge"
_STATE = Path("/run/raycls-hosts")
_TURN = Path("/run/raycls-hosts.lock")
"""Held by whoever has hosts: they share one bridge, and a set that begins sweeps away what it finds."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "ip": "iproute2",
    "pkill": "procps",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}

_INIT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
keep() {{ mkdir -p "{state}/kept$1"; mount --bind "$1" "{state}/kept$1"; }}
give() {{ mkdir -p "$1"; mount --bind "{state}/kept$1" "$1"; }}
for folder in {hidden}; do keep "$folder"; done
mount --bind {state}/etc/hosts /etc/hosts
mount --bind {state}/etc/resolv.conf /etc/resolv.conf
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=1777,size=2g shm /dev/shm
mount -t tmpfs mnt /mnt
mount --bind {state}/home /root
for folder in {hidden}; do give "$folder"; done
mkdir /mnt/shared
mount --bind {shared} /mnt/shared
cp {state}/sshd_config {state}/host_key /dev/shm/
mount -t tmpfs -o mode=755 run /run
mkdir /run/sshd
mv /dev/shm/sshd_config /dev/shm/host_key /run/
chmod 600 /run/host_key
hostname {name}
cd /root
/usr/sbin/sshd -D -e -f /run/sshd_config &
trap 'exit 0' TERM
while :; do sleep 86400 & wait $!; done
"""

_SSHD = """
HostKey /run/host_key
PidFile none
AuthorizedKeysFile /root/.ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 50
MaxSessions 50
"""


def missing() -> str:
    """What this machine lacks for hosts, as one sentence; empty where nothing is."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts of namespaces need Linux and root"
    packages = sorted({package for program, package in _PROGRAMS.items() if shutil.which(program) is None})
    if packages:
        return (
            f"hosts of namespaces need the Debian packages {' '.join(packages)}: apt-get install {' '.join(packages)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--uts",
            "--ipc",
            "mount",
            "-t",
            "tmpfs",
            "x",
            folder,
        ]
        tried = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"namespaces are not allowed here: {tried.stderr.strip()}"


@dataclass
class Host:
    """One host. `number` decides its name and address; `process` is this machine's view of its first process."""

    number: int
    state: Path
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        return f"raycls-h{self.number}"

    @property
    def address(self) -> str:
        return address(self.number)

    @property
    def init(self) -> int:
        """The process id of the host's own init, as this machine sees it."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def words(self, *words: str, env: dict[str, str] | None = None, folder: str = "/root") -> list[str]:
        """The command that runs `words` in this host, with only `env` beside what every login has."""
        login = {"HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "PATH": _PATH, **(env or {})}
        enter = ["nsenter", "-t", str(self.init), "-m", "-p", "-n", "-u", "-i", f"--wdns={folder}", "env", "-i"]
        return [*enter, *(f"{name}={value}" for name, value in login.items()), *words]

    def run(
        self,
        *words: str,
        env: dict[str, str] | None = None,
        folder: str = "/root",
        seconds: float = 120.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in this host to its end. AssertionError with all it said where it fails and `check` is set."""
        command = self.words(*words, env=env, folder=folder)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            # files, because a server that the command leaves behind would keep a pipe open
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True)
            try:
                code: int | str = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = f"no end after {seconds:g} s"
            said = [stream.seek(0) or stream.read() for stream in (out, err)]
        text = f"{self.name}: {shlex.join(words)}: {code}\n--- stdout\n{said[0]}\n--- stderr\n{said[1]}"
        assert isinstance(code, int), text
        assert code == 0 or not check, text
        return subprocess.CompletedProcess(command, code, *said)

    def shell(self, text: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run `text` in a login shell of this host."""
        return self.run("bash", "--login", "-c", text, **options)  # type: ignore[arg-type]

    def processes(self) -> list[str]:
        """The command lines of what runs in this host, without its init, its sshd and kernel threads."""
        listed = self.run("ps", "-eo", "pid=,args=").stdout.splitlines()
        own = ("sshd", "sleep 86400", "ps -eo", "bash -c", "/bin/bash -c")
        lines = [line.strip().partition(" ")[2].strip() for line in listed]
        return [line for line in lines if line and not line.startswith(own) and "<defunct>" not in line]

    def kill(self, pattern: str) -> int:
        """SIGKILL for what matches `pattern` in this host, and nowhere else; the exit code of pkill."""
        return self.run("pkill", "-9", "-f", pattern, check=False).returncode

    def cut(self) -> None:
        """Take the network cable out."""
        _ip("link", "set", f"rc-v{self.number}", "down")

    def heal(self) -> None:
        _ip("link", "set", f"rc-v{self.number}", "up")


@dataclass
class Hosts:
    """A set of hosts on one bridge. `shared` is one folder, at /mnt/shared in each of them."""

    shared: Path
    by_number: dict[int, Host] = field(default_factory=dict)

    def __getitem__(self, number: int) -> Host:
        return self.by_number[number]

    @property
    def key(self) -> Path:
        """The private key that every host accepts."""
        return _STATE / "key"

    def add(self, number: int, authorized: str = "") -> Host:
        """Start one more host; `authorized` are public keys that it accepts besides that of `key`."""
        host = _boot(number, self.shared, authorized)
        self.by_number[number] = host
        return host

    def remove(self, number: int) -> None:
        """Take a host away as a power cut does: every process of it ends at once."""
        host = self.by_number.pop(number)
        _power_off(host)


@contextmanager
def standing(count: int) -> Iterator[Hosts]:
    """`count` hosts with the numbers 1 to `count`; nothing of them is left. One set at a time on a machine: others,
    of tests that run beside, are waited for."""
    with _TURN.open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # given back with the process, however that ends
        yield from _standing(count)


def _standing(count: int) -> Iterator[Hosts]:
    _sweep()
    _STATE.mkdir(parents=True)
    shared = _STATE / "shared"
    shared.mkdir()
    hosts = Hosts(shared)
    try:
        for name in ("key", "host_key"):
            _done("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(_STATE / name))
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{GATEWAY}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        for number in range(1, count + 1):
            hosts.add(number)
        yield hosts
    finally:
        for number in list(hosts.by_number):
            hosts.remove(number)
        _sweep()


def address(number: int) -> str:
    """The address of host `number`."""
    return f"{NETWORK}.{10 + number}"


def _boot(number: int, shared: Path, authorized: str) -> Host:
    name, state = f"raycls-h{number}", _STATE / f"h{number}"
    for folder in (state / "home" / ".ssh", state / "etc"):
        folder.mkdir(parents=True)
    keys = (_STATE / "key.pub").read_text() + authorized
    (state / "home" / ".ssh" / "authorized_keys").write_text(keys)
    (state / "home" / ".bash_profile").write_text("if [ -f ~/.bashrc ]; then . ~/.bashrc; fi\n")
    for folder in (state / "home", state / "home" / ".ssh"):
        folder.chmod(0o700)
    (state / "etc" / "hosts").write_text(f"127.0.0.1 localhost\n{address(number)} {name}\n")
    (state / "etc" / "resolv.conf").write_text("")
    (state / "sshd_config").write_text(_SSHD)
    shutil.copy(_STATE / "host_key", state / "host_key")
    _wire(number, name)
    init = _INIT.format(state=state, shared=shared, name=name, hidden=" ".join(map(shlex.quote, _hidden())))
    words = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{name}"]
    words += ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--kill-child", "bash", "-c", init]
    environment = {"HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "TERM": "xterm", "PATH": _PATH}
    with (state / "log").open("wb") as log:
        process = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (state / "pid").write_text(str(process.pid))
    host = Host(number, state, process)
    _await_sshd(host)
    return host


def _wire(number: int, name: str) -> None:
    _ip("netns", "add", name)
    _ip("link", "add", f"rc-v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", f"rc-v{number}", "master", _BRIDGE, "up")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "addr", "add", f"{address(number)}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    # Ray finds its own address by asking how it would reach this one; every other address outside fails at once.
    _ip("-n", name, "route", "add", "8.8.8.8/32", "dev", "eth0")


def _hidden() -> list[str]:
    """Folders that the tests need in a host and that its own /root, /tmp or /mnt would hide."""
    wanted = {sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])}
    return sorted(folder for folder in wanted if folder.startswith(("/root/", "/tmp/", "/mnt/")))


def _await_sshd(host: Host) -> None:
    end = time.monotonic() + 30
    while True:
        with suppress(OSError), socket.create_connection((host.address, 22), timeout=1):
            return
        said = (host.state / "log").read_text()
        assert host.process.poll() is None, f"{host.name} ended: {said}"
        assert time.monotonic() < end, f"{host.name}: no sshd after 30 s: {said}"
        time.sleep(0.05)


def _power_off(host: Host) -> None:
    with suppress(OSError, IndexError):
        os.kill(host.init, signal.SIGKILL)  # the end of its init is the end of every process of the host
    with suppress(ProcessLookupError):
        host.process.kill()
    host.process.wait()
    for words in (("link", "del", f"rc-v{host.number}"), ("netns", "del", host.name)):
        _ip(*words, check=False)
    shutil.rmtree(host.state, ignore_errors=True)


def _sweep() -> None:
    """Remove what an earlier set left, whose test was killed: its processes ended with it, the rest did not."""
    for file in _STATE.glob("h*/pid"):
        pid = file.read_text()
        command = Path(f"/proc/{pid}/cmdline")
        with suppress(OSError):
            if b"raycls-h" in command.read_bytes():
                os.kill(int(pid), signal.SIGKILL)
    listed = json.loads(_done("ip", "-json", "netns", "list") or "[]")
    for name in [entry["name"] for entry in listed]:
        if name.startswith("raycls-h"):
            _ip("link", "del", f"rc-v{name.removeprefix('raycls-h')}", check=False)
            _ip("netns", "del", name, check=False)
    _ip("link", "del", _BRIDGE, check=False)
    shutil.rmtree(_STATE, ignore_errors=True)


def _ip(*words: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"ip {' '.join(words)}: {done.stderr}"


def _done(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
