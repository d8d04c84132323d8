/* llama_options.c - options of llama.cpp's programs that onetrip calls by another name, or lacks.
 *
 * Who brings a command line along is told in one line what stands for an option here, or that it
 * can be left out; nothing is ignored silently. */
#include <string.h>

#include "cli/options.h"

enum { GENERATES = FOR_RUN, LOADS = FOR_RUN | FOR_EVAL | FOR_BENCH, ALL = LOADS | FOR_TOKENIZE };

struct row {
    const char *names; /* between bars; one that ends in * stands for all that begin so */
    uint32_t mask;
    const char *same_as; /* the option of onetrip with the same meaning, or NULL: then advice */
    const char *advice;
};

static const struct row rows[] = {
    {"-sys|--system-prompt", GENERATES, "--system", NULL},
    {"--predict", GENERATES, "--n-predict", NULL},
    {"--temperature", GENERATES, "--temp", NULL},
    {"--draft|--draft-n", GENERATES, "--draft-max", NULL},
    {"-npl", FOR_BENCH, "--n-parallel", NULL},
    {"-pps", FOR_BENCH, "--share-depth", NULL},
    {"--usage", FOR_ALL, "--help", NULL},
    {"-npp", FOR_BENCH, "--n-prompt", NULL},
    {"-ntg", FOR_BENCH, "--n-gen", NULL},
    {"-ngl|--gpu-layers|--n-gpu-layers|-sm|--split-mode|-ts|--tensor-split|-mg|--main-gpu|-dev|"
     "--device|--list-devices|-kvo|--kv-offload|-nkvo|--no-kv-offload|-ot|--override-tensor|-cmoe|"
     "--cpu-moe|-ncmoe|--n-cpu-moe|-ncffn|--n-cpu-ffn|--op-offload|--no-op-offload|-nopo|--no-host|"
     "-fit|--fit|-fitt|"
     "--fit-target|-fitc|--fit-ctx|-rpc|--rpc|-bs|--backend-sampling",
     LOADS, NULL, "everything is computed by the CPU: leave it out"},
    {"--mlock", LOADS, NULL,
     "weights that are wired are locked, too: --residency wired, or a --ram budget"},
    {"--mmap", LOADS, NULL, "--residency cache maps the file"},
    {"--no-mmap|-dio|--direct-io", LOADS, NULL,
     "--residency wired reads the weights directly into memory of its own"},
    {"-lm|--load-mode|-lzm|--lazy-mode|-mmp", LOADS, NULL,
     "--residency says where weights live, --io how they are read"},
    {"--repack|-nr|--no-repack", LOADS, NULL, "weights are never repacked: leave it out"},
    {"-fa|--flash-attn", LOADS, NULL, "there is one kind of attention: leave it out"},
    {"-ctk|--cache-type-k|-ctv|--cache-type-v", LOADS, NULL, "keys and values are float16 always"},
    {"-ub|--ubatch-size", LOADS, NULL, "-b is the most tokens that a sweep takes at once"},
    {"-tb|--threads-batch", LOADS, NULL, "-t is the number of threads for prompts, too"},
    {"-C|--cpu-mask*|-Cr|--cpu-range*|--cpu-strict*|-Cb|-Crb|--numa|--prio*|--poll*", LOADS, NULL,
     "threads keep to the CPUs that taskset or numactl gives them"},
    {"-np|--parallel", FOR_BENCH, NULL, "-npl is the number of sequences that generate together"},
    {"-np|--parallel|-ns|--sequences|-cb|--cont-batching|-nocb|--no-cont-batching|-kvu|--kv-"
     "unified|-no-kvu|--no-kv-unified|-dt|--defrag-thold|-ctxcp|"
     "--ctx-checkpoints|--swa-checkpoints|-cram|--cache-ram|--prompt-cache*",
     LOADS, NULL, "a command has one sequence, computed anew; the library has several"},
    {"--keep|--context-shift|--no-context-shift", LOADS, NULL,
     "the context never shifts: where it is full, the answer ends"},
    {"-hf*|--hf-*|-mu|--model-url|-dr|--docker-repo|--offline|-cl|--cache-list|--gpt-oss-*|"
     "--vision-*",
     ALL | FOR_INSPECT, NULL,
     "nothing is downloaded: give the path of a file, or a name in the cache"},
    {"--rope-*|--yarn-*|-gan|--grp-attn-n|-gaw|--grp-attn-w|--override-kv|--swa-full|--check-"
     "tensors",
     LOADS, NULL, "what the file says counts, and cannot be overridden"},
    {"--lora*|--control-vector*", LOADS, NULL, "adapters are not known"},
    {"-e|--escape", ALL, NULL, "escapes in -p and -f are processed anyway: leave it out"},
    {"-bf|--binary-file", ALL, NULL, "-f takes any bytes, too (with --no-escape: as they are)"},
    {"-sysf|--system-prompt-file", GENERATES, NULL, "write --system \"$(cat FILE)\""},
    {"-cnv|--conversation|-i|--interactive|-if|--interactive-first|-ins|--instruct", GENERATES,
     NULL, "run without -p and -f is a conversation on a terminal: leave it out"},
    {"-no-cnv|--no-conversation|-nocnv", GENERATES, NULL, "--raw puts the text in without a chat"},
    {"-st|--single-turn", GENERATES, NULL, "with -p or -f there is one turn: leave it out"},
    {"-r|--reverse-prompt", GENERATES, NULL, "--stop STRING ends an answer before that text"},
    {"-mli|--multiline-input", GENERATES, NULL,
     "a line that ends in \\ goes on, and a paste is one text: leave it out"},
    {"--in-prefix*|--in-suffix", GENERATES, NULL,
     "the chat format writes what stands around a text: leave it out"},
    {"--reasoning*|-rea|--no-reasoning*|--skip-chat-parsing|--no-skip-chat-parsing", GENERATES,
     NULL, "what a model thinks is part of its answer: leave it out"},
    {"-mm|-mmu|-mv|--model-vocoder|--tts-*|--mmproj*|--no-mmproj*|--image*|--audio", GENERATES,
     NULL, "models of text only"},
    {"-o|--output|--output-file", GENERATES, NULL, "the answer goes to standard output: > FILE"},
    {"--no-display-prompt|-co|--color|--simple-io|--special|-sp|--display-prompt", GENERATES, NULL,
     "the answer alone is printed, as plain text: leave it out"},
    {"--jinja|--no-jinja|--chat-template-file|--chat-template-kwargs", GENERATES, NULL,
     "chat templates are recognised, not run: --chat-template NAME chooses a format"},
    {"--grammar*|-j|--json-schema*|-jf", GENERATES, NULL, "answers cannot be constrained"},
    {"--samplers|--sampler-seq|--sampling-seq|--top-nsigma|--top-n-sigma|--xtc-*|--typical*|"
     "--presence-penalty|--frequency-penalty|--dry-*|--adaptive-*|--dynatemp-*|--mirostat*|-l|"
     "--logit-bias",
     GENERATES, NULL,
     "the samplers are --repeat-penalty, --top-k, --top-p, --min-p and --temp, in this order"},
    {"--host|--port|--path|--api-*|--ssl-*|--webui*|--no-webui|--ui*|--no-ui|--static-path|-to|"
     "--timeout|--threads-http|--slots|--no-slots|--slot-*|-sps|--props|--metrics|--no-metrics|"
     "--cache-reuse|-a|--alias|--models-*|--media-path|--rerank*|--tools*|--cache-prompt|--no-"
     "cache-prompt|--prefill-assistant|"
     "--no-prefill-assistant|--cors-*",
     FOR_ALL, NULL, "there is no server: onetrip run answers a text, or talks on a terminal"},
    {"-md|--model-draft|-lcs|--lookup-cache-*|-lcd|--spec-*|--draft-min*|--draft-p-*|-ngld|-cd|--"
     "ctx-size-draft|-td|-tbd|"
     "--threads-*|-Cd|-Crd|-Cbd|-ctkd|-ctvd|--cache-type-*|-otd|--override-tensor-draft|-cmoed|"
     "--cpu-moe-draft|-ncmoed|--n-cpu-moe-draft|-devd|--device-draft|--gpu-layers-draft|"
     "--n-gpu-layers-draft|--no-spec-*|--draft-n-*",
     GENERATES, NULL, "guesses come from the text itself, without a second model: --draft-max"},
    {"--no-warmup|--warmup", LOADS, NULL, "run has none, bench always has one: leave it out"},
    {"-v|--verbose|-lv|--verbosity|--log-*|--no-log-*|--show-timings|"
     "--no-show-timings|--print-token-count|-ptc|--perf|--no-perf|--verbose-prompt",
     LOADS, NULL, "there is no log: -q turns the ledger off, --report writes all figures"},
    {"-n|--predict|--n-predict", FOR_EVAL, NULL, "no token is chosen: leave it out"},
    {"-s|--seed|--temp|--temperature|--top-*|--min-p|--repeat-*|"
     "--ignore-eos|--sampl*|--xtc-*|--typical*|--presence-penalty|--frequency-penalty|--dry-*|"
     "--adaptive-*|--dynatemp-*|--mirostat*|-l|--logit-bias|--grammar*|-j|--json-schema*|-jf",
     FOR_EVAL | FOR_BENCH, NULL, "no token is chosen: leave it out"},
    {"--chunks|--ppl-*", FOR_EVAL, NULL, "all of the text is evaluated, in windows of -c tokens"},
    {"--hellaswag*|--winogrande*|--multiple-choice*", FOR_EVAL, NULL,
     "the perplexity of a text is all that is measured"},
    {"--kl-divergence*|--save-all-logits", FOR_EVAL, NULL,
     "--logits OUT.npy writes what a comparison needs"},
    {"--ids", FOR_TOKENIZE, NULL, "ids alone are printed: leave it out"},
    {"--stdin", FOR_TOKENIZE, NULL, "without -p and -f standard input is read: leave it out"},
    {"--show-count", FOR_TOKENIZE, NULL, "the ids are one line: | wc -w"},
    {"--log-disable", FOR_TOKENIZE, NULL, "there is no log: leave it out"},
    {"--delay|--progress", FOR_BENCH, NULL, "there is none: leave it out"},
    {"-o|--output|-oe|--output-err", FOR_BENCH, NULL, "--json prints JSON, --report writes it"},
    {"-pps|-tgs|--output-format", FOR_BENCH, NULL,
     "every test begins from the same state; --json prints JSON"},
    {"-pg", FOR_BENCH, NULL, "-p and -n are measured apart; -n with a depth -d is nearest"},
    {"-embd|--embeddings|--embedding|--pooling|--attention|--embd-*|--cls-separator", LOADS, NULL,
     "embeddings cannot be had"},
};

static bool names_it(const char *names, const char *word, size_t length) {
    for (const char *at = names; *at != '\0';) {
        size_t n = strcspn(at, "|");
        bool begins = n > 0 && at[n - 1] == '*';
        size_t compared = begins ? n - 1 : n;
        if ((begins ? length >= compared : length == n) && strncmp(at, word, compared) == 0) {
            return true;
        }
        at += n + (at[n] == '|');
    }
    return false;
}

static const struct row *find(uint32_t mask, const char *word, size_t length) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if ((rows[i].mask & mask) != 0 && names_it(rows[i].names, word, length)) {
            return &rows[i];
        }
    }
    return NULL;
}

const char *llama_same_as(uint32_t mask, const char *word, size_t length) {
    const struct row *row = find(mask, word, length);
    return row != NULL ? row->same_as : NULL;
}

const char *llama_advice(uint32_t mask, const char *word, size_t length) {
    const struct row *row = find(mask, word, length);
    return row != NULL ? row->advice : NULL;
}

const char *llama_elsewhere(uint32_t mask, const char *word, size_t length) {
    return find(FOR_ALL, word, length) == NULL ? NULL
           : (mask & LOADS) != 0               ? "no text is answered: leave it out"
                                               : "nothing is computed: leave it out";
}
