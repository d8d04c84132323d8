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
    {"-sys|--system-prompt", GENERATES, "--system", 0},
    {"--predict", GENERATES, "--n-predict", 0},
    {"--temperature", GENERATES, "--temp", 0},
    {"--draft|--draft-n", GENERATES, "--draft-max", 0},
    {"-ngl|--gpu-layers|--n-gpu-layers|-sm|--split-mode|-ts|--tensor-split|-mg|--main-gpu|-dev|"
     "--device|--list-devices|-kvo|--kv-offload|-nkvo|--no-kv-offload|-ot|--override-tensor|-cmoe|"
     "--cpu-moe|-ncmoe|--n-cpu-moe|--op-offload|--no-op-offload|-nopo|--no-host|-fit|--fit|-fitt|"
     "--fit-target|-fitc|--fit-ctx|--rpc",
     LOADS, 0, "everything is computed by the CPU: leave it out"},
    {"--mlock", LOADS, 0,
     "weights that are wired are locked, too: --residency wired, or a --ram budget"},
    {"--mmap", LOADS, 0, "--residency cache maps the file"},
    {"--no-mmap|-dio|--direct-io", LOADS, 0,
     "--residency wired reads the weights directly into memory of its own"},
    {"-lm|--load-mode|-lzm|--lazy-mode|-mmp", LOADS, 0,
     "--residency says where weights live, --io how they are read"},
    {"--repack|-nr|--no-repack", LOADS, 0, "weights are never repacked: leave it out"},
    {"-fa|--flash-attn", LOADS, 0, "there is one kind of attention: leave it out"},
    {"-ctk|--cache-type-k|-ctv|--cache-type-v", LOADS, 0, "keys and values are float16 always"},
    {"-ub|--ubatch-size", LOADS, 0, "-b is the most tokens that a sweep takes at once"},
    {"-tb|--threads-batch", LOADS, 0, "-t is the number of threads for prompts, too"},
    {"-C|--cpu-mask*|-Cr|--cpu-range*|--cpu-strict*|-Cb|-Crb|--numa|--prio*|--poll*", LOADS, 0,
     "threads keep to the CPUs that taskset or numactl gives them"},
    {"-np|--parallel", LOADS, 0, "a command has one sequence; the library has several"},
    {"--keep|--context-shift|--no-context-shift", LOADS, 0,
     "the context never shifts: where it is full, the answer ends"},
    {"-hf*|--hf-*|-mu|--model-url|-dr|--docker-repo|--offline", ALL, 0,
     "nothing is downloaded: give the path of a file, or a name in the cache"},
    {"--rope-*|--yarn-*|--override-kv|--swa-full|--check-tensors", LOADS, 0,
     "what the file says counts, and cannot be overridden"},
    {"--lora*|--control-vector*", LOADS, 0, "adapters are not known"},
    {"-e|--escape", ALL, 0, "escapes in -p and -f are processed anyway: leave it out"},
    {"-bf|--binary-file", ALL, 0, "-f takes any bytes, too (with --no-escape: as they are)"},
    {"-sysf|--system-prompt-file", GENERATES, 0, "write --system \"$(cat FILE)\""},
    {"-cnv|--conversation|-i|--interactive|-if|--interactive-first", GENERATES, 0,
     "run without -p and -f is a conversation on a terminal: leave it out"},
    {"-no-cnv|--no-conversation|-nocnv", GENERATES, 0, "--raw puts the text in without a chat"},
    {"-st|--single-turn", GENERATES, 0, "with -p or -f there is one turn: leave it out"},
    {"-r|--reverse-prompt", GENERATES, 0, "--stop STRING ends an answer before that text"},
    {"-mli|--multiline-input", GENERATES, 0,
     "a line that ends in \\ goes on, and a paste is one text: leave it out"},
    {"--no-display-prompt|-co|--color|--simple-io|--special|-sp|--display-prompt", GENERATES, 0,
     "the answer alone is printed, as plain text: leave it out"},
    {"--jinja|--no-jinja|--chat-template-file|--chat-template-kwargs", GENERATES, 0,
     "chat templates are recognised, not run: --chat-template NAME chooses a format"},
    {"--grammar*|-j|--json-schema*|-jf", GENERATES, 0, "answers cannot be constrained"},
    {"--samplers|--sampler-seq|--sampling-seq|--top-nsigma|--top-n-sigma|--xtc-*|--typical*|"
     "--presence-penalty|--frequency-penalty|--dry-*|--adaptive-*|--dynatemp-*|--mirostat*|-l|"
     "--logit-bias",
     GENERATES, 0,
     "the samplers are --repeat-penalty, --top-k, --top-p, --min-p and --temp, in this order"},
    {"-md|--model-draft|--spec-*|--draft-min*|--draft-p-*|-ngld|-cd|--ctx-size-draft", GENERATES, 0,
     "guesses come from the text itself, without a second model: --draft-max"},
    {"-v|--verbose|-lv|--verbosity|--log-*|--perf|--no-perf|--verbose-prompt|--no-warmup|--warmup",
     LOADS, 0, "there is no log: -q turns the ledger off, --report writes all figures"},
    {"-o|--output|-oe|--output-err", FOR_BENCH, 0, "--json prints JSON, --report writes it"},
    {"-pg", FOR_BENCH, 0, "-p and -n are measured apart; -n with a depth -d is nearest"},
    {"-embd|--embeddings", LOADS, 0, "embeddings cannot be had"},
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
