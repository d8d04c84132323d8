"""Runs a command in a memory cgroup of its own (v1 or v2) and says what it cost.

Needs the right to make a cgroup (root). Without a limit no cgroup is made.
"""
import os
import subprocess
import time

V1 = '/sys/fs/cgroup/memory'
V2 = '/sys/fs/cgroup'


class Cgroup:
    def __init__(self, limit_bytes):
        self.v1 = os.path.exists(V1 + '/memory.limit_in_bytes')
        root = V1 if self.v1 else V2
        self.path = f'{root}/onetrip-compare-{os.getpid()}'
        os.mkdir(self.path)
        if self.v1:
            self._write('memory.limit_in_bytes', limit_bytes)
            self._write('memory.memsw.limit_in_bytes', limit_bytes, may_fail=True)
        else:
            self._write('memory.max', limit_bytes)
            self._write('memory.swap.max', 0, may_fail=True)

    def _write(self, name, value, may_fail=False):
        try:
            with open(f'{self.path}/{name}', 'w') as f:
                f.write(str(value))
        except OSError:
            if not may_fail:
                raise

    def enter(self):
        """In the child, before exec."""
        with open(f'{self.path}/cgroup.procs', 'w') as f:
            f.write(str(os.getpid()))

    def peak_bytes(self):
        name = 'memory.max_usage_in_bytes' if self.v1 else 'memory.peak'
        try:
            with open(f'{self.path}/{name}') as f:
                return int(f.read())
        except OSError:
            return None

    def close(self):
        for _ in range(100):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.05)


def drop_cache(path):
    """Asks the kernel to forget the file's pages (those that nobody maps)."""
    with open(path, 'rb') as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm_cache(path):
    with open(path, 'rb', buffering=0) as f:
        buf = bytearray(8 << 20)
        while f.readinto(buf):
            pass


def _io(pid):
    with open(f'/proc/{pid}/io') as f:
        return {k: int(v) for k, v in (line.split(': ') for line in f)}


def run(command, limit_bytes=None, env=None, timeout_s=300):
    """Runs to the end. Returns a dict: rc (negative: signal), seconds, stdout, stderr, read_bytes (by
    the kernel's count), peak_rss_bytes, cgroup_peak_bytes (None without a limit). What takes longer
    than timeout_s is killed, and has failed."""
    group = Cgroup(limit_bytes) if limit_bytes else None
    try:
        start = time.monotonic()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, errors='replace',
                                 env={**os.environ, **(env or {})},
                                 preexec_fn=group.enter if group else None)
        seen = {'read_bytes': 0}

        # A zombie's counters can still be read; so the pipes are drained first, then it is waited
        # for without being reaped.
        try:
            out, err = _drain(child, timeout_s)
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            seen = _io(child.pid)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = '', 'timed out'
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        return dict(rc=child.returncode, seconds=time.monotonic() - start, stdout=out, stderr=err,
                    read_bytes=seen['read_bytes'], peak_rss_bytes=usage.ru_maxrss * 1024,
                    cgroup_peak_bytes=group.peak_bytes() if group else None)
    finally:
        if group:
            group.close()


def _drain(child, timeout_s):
    import selectors
    text = {child.stdout: [], child.stderr: []}
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for stream in text:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(child.args, timeout_s)
            for key, _ in selector.select(left):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                text[key.fileobj].append(data.decode(errors='replace'))
    return ''.join(text[child.stdout]), ''.join(text[child.stderr])
