"""Hosts on one machine: namespaces with a network, processes, home, /tmp and sshd of their own.

They are joined by a bridge that leads nowhere else. A host is powered off by killing its first process, and cut off by
taking its link down. Needs root on Linux, and what is in `NEEDED`.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from processes import begin, kill

ROOT = Path(__file__).parents[2]
NEEDED = (
    *("curl", "hostname", "ip", "mount", "nsenter", "pkill", "rsync"),
    *("script", "ssh", "ssh-keygen", "tmux", "umount", "unshare"),
    *("uptime", "/usr/sbin/sshd"),  # by the former Ray's launcher sees that a host is there
)
_APART = ("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
NETWORK = "10.77.0"
_SWITCH = "lab-switch"
_SSHD = """\
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
StrictModes no
PidFile none
Subsystem sftp internal-sftp
"""


def missing() -> str | None:
    """Why there can be no lab here; None if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the lab needs root on Linux"
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"the lab needs {', '.join(absent)}: see .ci/run"
    tried = subprocess.run([*_APART, "--net", "true"], check=False, capture_output=True, text=True)
    return f"the lab needs namespaces: {tried.stderr.strip()}" if tried.returncode else None


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


class Host:
    """One of them.

    Args:
        lab: its folder.
        name: of the host.
        address: its IP address.
        names: addresses of all hosts, by name.
    """

    def __init__(self, lab: Path, name: str, address: str, names: Mapping[str, str]) -> None:
        self.name, self.address = name, address
        self.folder = lab / name
        self.home = self.folder / "home"
        self._lab = lab
        self._outer: subprocess.Popen[bytes] | None = None
        self._first: int | None = None
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        (self.folder / "tmp").mkdir()
        (self.folder / "tmp").chmod(0o1777)
        (self.folder / "resolv.conf").touch()
        lines = ["127.0.0.1 localhost", *(f"{at} {known}" for known, at in names.items())]
        (self.folder / "hosts").write_text("".join(f"{line}\n" for line in lines))
        (self.home / ".bashrc").touch()
        shutil.copy(lab / "key", self.home / ".ssh" / "lab.pem")
        for source, name_there in ((lab / "key.pub", "authorized_keys"), (lab / "key", "host_key")):
            shutil.copy(source, self.folder / name_there)
        (self.folder / "sshd_config").write_text(_SSHD.format(address=address, folder=self.folder))
        self._join()

    def _join(self) -> None:
        """Plugs its network into the switch."""
        space, link = f"lab-{self.name}", f"to-{self.name}"
        _do("ip", "netns", "add", space)
        _do("ip", "-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", link, "netns", _SWITCH)
        _do("ip", "-n", _SWITCH, "link", "set", link, "master", "bridge", "up")
        _do("ip", "-n", space, "link", "set", "lo", "up")
        _do("ip", "-n", space, "address", "add", f"{self.address}/24", "dev", "eth0")
        _do("ip", "-n", space, "link", "set", "eth0", "up")
        # Ray finds its own address by the default route.
        _do("ip", "-n", space, "route", "add", "default", "via", f"{NETWORK}.254")

    def power_on(self) -> None:
        """Boots it; its disk is as it was."""
        visible = [str(path) for path in (self._lab, ROOT, Path(sys.prefix), Path(sys.base_prefix))]
        script = str(Path(__file__).with_name("host.sh"))
        with (self.folder / "console.log").open("ab") as console:
            self._outer = subprocess.Popen(
                ["ip", "netns", "exec", f"lab-{self.name}", *_APART, "sh", script, str(self.folder), *visible],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._first = self._await_first()

    def _await_first(self) -> int:
        """The process that is the host's first, once it is sshd."""
        assert self._outer is not None
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            for child in children.read_text().split() if children.exists() else []:
                if Path(f"/proc/{child}/comm").read_text().strip() == "sshd":
                    return int(child)
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not boot: {(self.folder / 'console.log').read_text()[-500:]}")

    def power_off(self) -> None:
        """At once, with all that runs on it."""
        if self._first is not None:
            os.kill(self._first, signal.SIGKILL)
            assert self._outer is not None
            self._outer.wait(timeout=10)
        self._first = None

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        """Nothing reaches it, and it reaches nothing."""
        link = ("ip", "-n", _SWITCH, "link", "set", f"to-{self.name}")
        _do(*link, "down")
        try:
            yield
        finally:
            _do(*link, "up")

    def start(self, command: str, **environment: str) -> subprocess.Popen[str]:
        """A shell command as a user there would type it, in the background; its output is one text."""
        kept = {"HOME": str(Path.home()), "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin"}
        words = [
            f"{name}={value}" for name, value in {**kept, "LANG": "C.UTF-8", "TERM": "dumb", **environment}.items()
        ]
        enter = ["nsenter", "-t", str(self._first), "-a", f"--wd={Path.home()}"]
        shell = ("env", "-i", *words, "bash", "-c", f". ~/.bashrc; {command}")
        return begin([*enter, "--", *shell], stdin=subprocess.DEVNULL)

    def run(self, command: str, seconds: float = 120.0, **environment: str) -> str:
        """The same to its end; its output, which an error shows if it fails."""
        process = self.start(command, **environment)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill(process)
            raise AssertionError(
                f"{self.name}: `{command}` has not ended: {process.communicate()[0][-3000:]}"
            ) from None
        assert process.returncode == 0, f"{self.name}: `{command}` failed ({process.returncode}): {output[-3000:]}"
        return output


class Lab:
    """All hosts, powered on.

    Args:
        names: last numbers of their addresses, by name.
    """

    def __init__(self, names: Mapping[str, int]) -> None:
        self._spaces = (*(f"lab-{name}" for name in names), _SWITCH)
        self._clear()  # what a killed run left
        self.folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/var/tmp"))  # which no host hides
        self.shared = self.folder / "shared"
        self.shared.mkdir()
        self.hosts: dict[str, Host] = {}
        _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.folder / "key"))
        _do("ip", "netns", "add", _SWITCH)
        _do("ip", "-n", _SWITCH, "link", "set", "lo", "up")
        _do("ip", "-n", _SWITCH, "link", "add", "bridge", "type", "bridge")
        _do("ip", "-n", _SWITCH, "address", "add", f"{NETWORK}.254/24", "dev", "bridge")
        _do("ip", "-n", _SWITCH, "link", "set", "bridge", "up")
        _do("ip", "-n", _SWITCH, "route", "add", "unreachable", "default")  # a refusal at once, no silence
        addresses = {name: f"{NETWORK}.{last}" for name, last in names.items()}
        for name, address in addresses.items():
            self.hosts[name] = Host(self.folder, name, address, addresses)
            self.hosts[name].power_on()

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def close(self) -> None:
        """Powers all off and leaves nothing behind."""
        for host in self.hosts.values():
            host.power_off()
        self._clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _clear(self) -> None:
        for space in self._spaces:
            found = subprocess.run(["ip", "netns", "pids", space], check=False, capture_output=True, text=True)
            for process in found.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)
