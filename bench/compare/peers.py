"""The engines that are compared: how each is started, and how its figures are read.

measure: prompt and decode speed in memory; over_budget: decode in a cgroup. Both return the figures
of cgroup.run and 'pp', 'tg' in tokens a second, or raise Failed.
"""
import json
import os
import tempfile

import cgroup


class Failed(Exception):
    pass


def check(result, command):
    if result['rc'] != 0:
        tail = ' '.join(result['stderr'].split()[-40:])
        raise Failed(f'{" ".join(command)}: exit {result["rc"]}: {tail}')
    return result


class LlamaCpp:
    """llama-bench of a native build."""

    def __init__(self, program, repack=True):
        self.program = program
        self.repack = repack
        self.name = 'llama.cpp' if repack else 'llama.cpp (no repack)'

    def command(self, model, threads, prompt, gen, depth=0, cold=False):
        c = [self.program, '-m', model, '-t', str(threads), '-p', str(prompt), '-n', str(gen),
             '-r', '1', '-o', 'json']
        if depth:
            c += ['-d', str(depth)]
        if not self.repack:
            c += ['--repack', '0']
        if cold:
            c += ['--no-warmup', '-lm', 'mmap']
        return c

    def measure(self, model, threads, prompt, gen, depth=0, cold=False, limit_bytes=None):
        c = self.command(model, threads, prompt, gen, depth, cold)
        result = check(cgroup.run(c, limit_bytes), c)
        for row in json.loads(result['stdout']):
            result['tg' if row['n_gen'] else 'pp'] = row['avg_ts']
        return result

    def over_budget(self, model, threads, n, limit_bytes):
        """n decode steps after one token that is not timed, cold."""
        return self.measure(model, threads, 0, n, 1, cold=True, limit_bytes=limit_bytes)


class Onetrip:
    def __init__(self, program, env=None, name='onetrip'):
        self.program = program
        self.env = env
        self.name = name

    def _report(self, arguments, limit_bytes=None):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'report.json')
            c = [self.program] + arguments + ['--report', path]
            result = check(cgroup.run(c, limit_bytes, self.env), c)
            with open(path) as f:
                result['report'] = json.load(f)
        return result

    def measure(self, model, threads, prompt, gen, depth=0):
        a = ['bench', model, '-t', str(threads), '-p', str(prompt), '-n', str(gen), '-r', '1']
        if depth:
            a += ['-d', str(depth)]
        result = self._report(a)
        for row in result['report']['results']:
            result[row['test'][:2]] = row['tokens_per_s']
        # bench also measures the machine's bandwidth, in buffers of its own: not the engine's memory.
        plain = self._report(['run', model, '--raw', '-p', 'a', '-n', '4', '--ignore-eos',
                              '-t', str(threads), '-c', str(prompt + gen + depth + 64), '--quiet'])
        result['peak_rss_bytes'] = plain['peak_rss_bytes']
        return result

    def over_budget(self, model, threads, n, limit_bytes):
        """n decode steps after a prompt of one token, cold, without guesses, which the others do not
        make either. tg is the report's decode speed."""
        result = self._report(['run', model, '--raw', '-p', 'a', '-n', str(n + 1), '--temp', '0',
                               '--ignore-eos', '-t', str(threads), '-c', str(n + 64),
                               '--draft-max', '0', '--ram', str(limit_bytes),
                               '--quiet'], limit_bytes)
        result['tg'] = result['report']['timing']['decode_tokens_per_s']
        return result

    def first_token(self, model, threads):
        return self._report(['run', model, '--raw', '-p', 'a', '-n', '1', '--temp', '0',
                             '--ignore-eos', '-t', str(threads), '--quiet'])


class Xllamacpp:
    """The PyPI build (AVX2), through its server's timings, in a process of its own."""
    name = 'xllamacpp (AVX2)'

    def __init__(self, python):
        self.python = python

    def measure(self, model, threads, prompt, gen):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'xllamacpp_speed.py')
        c = [self.python, script, model, str(threads), str(prompt), str(gen)]
        result = check(cgroup.run(c), c)
        result.update(json.loads(result['stdout'].splitlines()[-1]))
        return result
