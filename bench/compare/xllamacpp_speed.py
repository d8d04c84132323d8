"""Prompt and decode speed of xllamacpp: MODEL THREADS N_PROMPT N_GEN; prints one line of JSON.

Runs in the Python that has xllamacpp. The first request warms up; the second is reported.
"""
import json
import random
import sys

import xllamacpp

model, threads, n_prompt, n_gen = sys.argv[1], *map(int, sys.argv[2:5])
params = xllamacpp.CommonParams()
params.model.path = model
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
params.n_ctx = n_prompt + n_gen + 64
params.n_parallel = 1
params.warmup = False
server = xllamacpp.Server(params)
rng = random.Random(7)
for _ in range(2):
    ids = [rng.randrange(1000, 20000) for _ in range(max(n_prompt, 1))]
    answer = server.handle_completions({'prompt': ids, 'n_predict': n_gen, 'ignore_eos': True,
                                        'temperature': 0, 'cache_prompt': False})
    if isinstance(answer, (str, bytes)):
        answer = json.loads(answer)
timings = answer['timings']
print(json.dumps({'pp': timings['prompt_per_second'], 'tg': timings['predicted_per_second']}))
