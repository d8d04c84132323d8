#!/usr/bin/env python3
"""Runs onetrip and its peers in turn on the same files and writes a Markdown table.

    compare.py memory MODEL... [options]    prompt and decode speed, warm, in memory
    compare.py budget MODEL... [options]    decode in a memory cgroup smaller than the model, cold
    compare.py start  MODEL... [options]    process start to the end of the first token, warm and cold
    compare.py busy   MODEL... [options]    decode while another process occupies a core

Every round runs each engine once; tables show medians, and the least and the most in brackets.
budget and the cold part of start need root (cgroups) and a file that nobody else maps.
Python 3 standard library only. Build the peers first: build_peers.sh.
"""
import argparse
import datetime
import os
import statistics
import subprocess
import sys
import time

import cgroup
import peers

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'),
                     'onetrip', 'peers')


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def spread(values, digits=2):
    """Median with the least and the most."""
    values = [v for v in values if v is not None]
    if not values:
        return '-'
    m = f'{statistics.median(values):.{digits}f}'
    if len(values) == 1:
        return m
    return f'{m} ({min(values):.{digits}f}..{max(values):.{digits}f})'


def ratio(a, b):
    """Of the medians, and of the best runs: on a machine that others use, too, the best ones tell more
    of the engines and the medians more of the others."""
    if not median(a) or not median(b):
        return '-'
    best = max(v for v in a if v) / max(v for v in b if v)
    return f'{median(a) / median(b):.2f}x / {best:.2f}x'


def table(head, rows):
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    lines += ['| ' + ' | '.join(str(c) for c in row) + ' |' for row in rows]
    return '\n'.join(lines) + '\n'


def first_line_of(path, key):
    try:
        with open(path) as f:
            for line in f:
                if line.startswith(key):
                    return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return 'unknown'


def version(program):
    """What the program itself says it was built from."""
    c = subprocess.run([program, '--version'], capture_output=True, text=True)
    return ' '.join(c.stdout.split()) or 'unknown version'


def header(o):
    return (f'- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC; '
            f'{version(o.onetrip)}\n'
            f'- machine: {first_line_of("/proc/cpuinfo", "model name")}, {os.cpu_count()} cores, '
            f'{int(first_line_of("/proc/meminfo", "MemTotal").split()[0]) / 1e6:.1f} GB, Linux '
            f'{os.uname().release}; load average before: {os.getloadavg()[0]:.2f}\n'
            f'- command: `compare.py {" ".join(shown(a) for a in sys.argv[1:])}`\n'
            f'- {o.rounds} rounds, the engines in turn; median (least..most); ratios of the medians / of '
            f'the best\n')


def shown(argument):
    return os.path.basename(argument) if os.path.sep in argument else argument


ENGINES = {
    'onetrip': lambda o: peers.Onetrip(o.onetrip),
    'onetrip-avx2': lambda o: peers.Onetrip(o.onetrip, {'ONETRIP_ISA': 'avx2'}, 'onetrip (AVX2)'),
    'llama': lambda o: peers.LlamaCpp(o.llama_bench),
    'norepack': lambda o: peers.LlamaCpp(o.llama_bench, repack=False),
    'xllamacpp': lambda o: peers.Xllamacpp(o.xllamacpp_python),
}


def engines(o):
    return [ENGINES[name](o) for name in o.engines.split(',')]


def attempt(measure, *arguments, **named):
    """A run's figures, or None; what went wrong is said on stderr."""
    try:
        result = measure(*arguments, **named)
        keep = {k: v for k, v in result.items() if isinstance(v, (int, float))}
        print(f'  {keep}', file=sys.stderr, flush=True)
        return result
    except peers.Failed as failure:
        print(f'  failed: {failure}', file=sys.stderr, flush=True)
        return None


def column(results, key):
    return [r.get(key) if r else None for r in results]


def size_gb(path):
    return f'{os.path.getsize(path) / 1e9:.2f} GB'


def memory(o):
    rows = []
    for model in o.models:
        cgroup.warm_cache(model)
        results = {e.name: [] for e in engines(o)}
        for _ in range(o.rounds):
            for e in engines(o):
                print(f'{shown(model)} {e.name}', file=sys.stderr)
                results[e.name].append(attempt(e.measure, model, o.threads, o.prompt, o.gen,
                                               **({'depth': o.depth} if o.depth else {})))
        base = results[engines(o)[0].name]
        for name, r in results.items():
            rss = [b / 1e6 if b else None for b in column(r, 'peak_rss_bytes')]
            rows.append([f'{shown(model)} ({size_gb(model)})', name, spread(column(r, 'pp'), 1),
                         ratio(column(r, 'pp'), column(base, 'pp')), spread(column(r, 'tg')),
                         ratio(column(r, 'tg'), column(base, 'tg')), spread(rss, 0)])
    depth = f' at depth {o.depth}' if o.depth else ''
    return table(['model', 'engine', f'pp{o.prompt} tok/s{depth}', 'ratio', f'tg{o.gen} tok/s{depth}',
                  'ratio', 'peak RSS MB'], rows)


def budget(o):
    """Bytes a token: the difference of two runs of different length, so that loading cancels."""
    few, many = max(2, o.gen // 3), o.gen
    rows = []
    for model in o.models:
        for share in o.shares:
            limit = int(os.path.getsize(model) * share / 100) + o.extra_bytes
            results = {e.name: [] for e in engines(o)}
            for _ in range(o.rounds):
                for e in engines(o):
                    pair = []
                    for n in (few, many):
                        print(f'{shown(model)} {share} % {e.name} n={n}', file=sys.stderr)
                        cgroup.drop_cache(model)
                        pair.append(attempt(e.over_budget, model, o.threads, n, limit))
                    if all(pair):
                        pair[1]['token_mb'] = (pair[1]['read_bytes'] - pair[0]['read_bytes']) / (
                            (many - few) * 1e6)
                    results[e.name].append(pair[1])
            base = results[engines(o)[0].name]
            for name, r in results.items():
                peak = [b / 1e6 if b else None for b in column(r, 'cgroup_peak_bytes')]
                failed = sum(1 for x in r if x is None)
                rows.append([f'{shown(model)} ({size_gb(model)})', f'{share} %: {limit / 1e6:.0f} MB',
                             name, spread(column(r, 'tg')), ratio(column(r, 'tg'), column(base, 'tg')),
                             spread(column(r, 'token_mb'), 0), spread(peak, 0), failed or ''])
    return table(['model', 'cgroup limit', 'engine', f'tg{many} tok/s', 'ratio', 'MB read a token',
                  'cgroup peak MB', 'failed'], rows)


def start(o):
    rows = []
    for model in o.models:
        for cold in (False, True):
            seconds, disk = [], []
            for _ in range(o.rounds):
                if cold:
                    cgroup.drop_cache(model)
                    disk.append(read_seconds(model))
                    cgroup.drop_cache(model)
                else:
                    cgroup.warm_cache(model)
                r = attempt(peers.Onetrip(o.onetrip).first_token, model, o.threads)
                seconds.append(r['seconds'] if r else None)
            rows.append([f'{shown(model)} ({size_gb(model)})', 'cold' if cold else 'warm',
                         spread(seconds), spread(disk) if cold else '',
                         f'{median(seconds) / median(disk):.2f}x' if cold and median(seconds) else ''])
    return table(['model', 'page cache', 'start to exit after the first token, s',
                  'reading the file with O_DIRECT, s', 'ratio'], rows)


def read_seconds(path):
    """Time to read the whole file directly, two reads of 1 MiB in flight."""
    begin = time.monotonic()
    halves = [subprocess.Popen(['dd', f'if={path}', 'of=/dev/null', 'bs=1M', 'iflag=direct',
                                f'skip={skip}', f'count={count}'], stderr=subprocess.DEVNULL)
              for skip, count in split(os.path.getsize(path) // (1 << 20) + 1)]
    for half in halves:
        half.wait()
    return time.monotonic() - begin


def split(blocks):
    half = blocks // 2
    return (0, half), (half, blocks - half)


def busy(o):
    rows = []
    for model in o.models:
        cgroup.warm_cache(model)
        alone = {e.name: [] for e in engines(o)}
        beside = {e.name: [] for e in engines(o)}
        for _ in range(o.rounds):
            for e in engines(o):
                alone[e.name].append(attempt(e.measure, model, o.threads, 0, o.gen))
                hog = subprocess.Popen(['taskset', '-c', '0', 'sh', '-c', 'while :; do :; done'])
                try:
                    beside[e.name].append(attempt(e.measure, model, o.threads, 0, o.gen))
                finally:
                    hog.kill()
                    hog.wait()
        for name in alone:
            a, b = column(alone[name], 'tg'), column(beside[name], 'tg')
            kept = f'{100 * median(b) / median(a):.0f} %' if median(a) and median(b) else '-'
            rows.append([shown(model), name, spread(a), spread(b), kept])
    return table(['model', 'engine', f'tg{o.gen} tok/s alone', 'with core 0 occupied', 'kept'], rows)


def refuse(p, o):
    """What would fail in the middle of the work, said before it."""
    least = 3 if o.what == 'budget' else 1  # budget takes the difference of two lengths
    if o.gen < least:
        p.error(f'-n: {o.gen}, expected {least} or more')
    if o.prompt < 0 or o.depth < 0 or o.rounds < 1:
        p.error('-p and -d are 0 or more, -r is 1 or more')
    for name in o.engines.split(','):
        if name not in ENGINES:
            p.error(f'--engines: {name} is none of {", ".join(ENGINES)}')
    if 'xllamacpp' in o.engines.split(',') and (o.what == 'budget' or o.depth):
        p.error('xllamacpp is measured in memory and at depth 0 only')


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['memory', 'budget', 'start', 'busy'])
    p.add_argument('models', nargs='+')
    p.add_argument('-t', '--threads', type=int, default=2)
    p.add_argument('-r', '--rounds', type=int, default=3)
    p.add_argument('-p', '--prompt', type=int, default=512)
    p.add_argument('-n', '--gen', type=int, default=None, help='default 64; budget: 12')
    p.add_argument('-d', '--depth', type=int, default=0)
    p.add_argument('--shares', type=int, nargs='+', default=[75, 50, 25])
    p.add_argument('--extra-bytes', type=int, default=0, help='added to the share of the file')
    p.add_argument('--engines', default=None,
                   help='of llama,norepack,xllamacpp,onetrip,onetrip-avx2; ratios are to the first')
    p.add_argument('--onetrip', default=os.path.join(HERE, '..', '..', 'build', 'onetrip'))
    p.add_argument('--llama-bench', default=os.path.join(CACHE, 'llama-bench-0.3.36'))
    p.add_argument('--xllamacpp-python', default=os.path.join(CACHE, 'venv', 'bin', 'python'))
    p.add_argument('-o', '--out', help='append to this file')
    o = p.parse_args()
    if o.gen is None:
        o.gen = 12 if o.what == 'budget' else 64
    o.engines = o.engines or ('norepack,onetrip' if o.what == 'budget' else 'llama,onetrip')
    refuse(p, o)
    text = header(o) + '\n' + globals()[o.what](o)
    print(text)
    if o.out:
        with open(o.out, 'a') as f:
            f.write('\n' + text)


if __name__ == '__main__':
    main()
