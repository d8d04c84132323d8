/* options.c - one table of options, and the parser that reads it.
 *
 * A row says how the option is written, what it takes, which values are allowed, where the value
 * goes and which commands know it. A flag that means one thing in one command and another in
 * another has two rows with disjoint masks. */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/input.h"

enum kind { FLAG, TEXT, TEXTS, WHOLE, REAL, SIZE, CHOICE, LIST };

struct option {
    char letter;       /* 0: none */
    const char *name;  /* "--temp" */
    const char *value; /* "N"; NULL for a flag */
    enum kind kind;
    double min, max;
    size_t offset;       /* in struct settings */
    const char *choices; /* "auto|cache": of CHOICE the position is the value; of TEXT NULL: any */
    uint32_t mask;
    const char *help;
};

#define AT(field) offsetof(struct settings, field)
enum { RUNS = FOR_RUN | FOR_EVAL | FOR_BENCH };
static const double most_count = 2147483647.0;

/* The order is that of --help. */
static const struct option options[] = {
    {'m', "--model", "MODEL", TEXT, 0, 0, AT(model), 0,
     FOR_RUN | FOR_EVAL | FOR_TOKENIZE | FOR_INSPECT | FOR_BENCH,
     "the model, where it is not given as MODEL"},
    {'p', "--prompt", "TEXT", TEXT, 0, 0, AT(prompt), 0, FOR_RUN | FOR_EVAL | FOR_TOKENIZE,
     "the text; without it and without -f, standard input is read"},
    {'f', "--file", "FILE", TEXT, 0, 0, AT(file), 0, FOR_RUN | FOR_EVAL | FOR_TOKENIZE,
     "read the text from FILE (- for standard input)"},
    {0, "--no-escape", 0, FLAG, 0, 0, AT(no_escape), 0, FOR_RUN,
     "take backslashes in -p, -f and --stop as they are (default: \\n, \\t, \\r, \\', \\\", \\\\, "
     "\\xNN are processed; standard input is always taken as it is)"},
    {0, "--no-escape", 0, FLAG, 0, 0, AT(no_escape), 0, FOR_EVAL | FOR_TOKENIZE,
     "take backslashes in -p and -f as they are (default: \\n, \\t, \\r, \\', \\\", \\\\, \\xNN "
     "are "
     "processed; standard input is always taken as it is)"},
    {0, "--ids", "FILE", TEXT, 0, 0, AT(ids), 0, FOR_EVAL,
     "evaluate token ids from FILE, a JSON array, as they are"},
    {0, "--logits", "OUT.npy", TEXT, 0, 0, AT(logits), 0, FOR_EVAL,
     "write the logits of every position, float32 [n_tokens, n_vocab], in NumPy's format"},
    {0, "--system", "TEXT", TEXT, 0, 0, AT(system), 0, FOR_RUN,
     "system message of the chat; -sys is the same"},
    {0, "--raw", 0, FLAG, 0, 0, AT(raw), 0, FOR_RUN, "no chat template: the text goes in as it is"},
    {0, "--chat-template", "NAME", TEXT, 0, 0, AT(chat),
     "chatml|llama2|llama3|mistral|gemma|phi3|deepseek|zephyr", FOR_RUN,
     "use this chat format instead of the file's own: chatml, llama2, llama3, mistral, gemma, "
     "phi3, deepseek, zephyr"},
    {'n', "--n-predict", "N", WHOLE, -2, most_count, AT(n_predict), 0, FOR_RUN,
     "tokens to generate at most; -1 or -2: until the model ends or the context is full (default "
     "-1)"},
    {0, "--ignore-eos", 0, FLAG, 0, 0, AT(ignore_eos), 0, FOR_RUN,
     "never choose a token that ends the answer"},
    {0, "--stop", "STRING", TEXTS, 0, 0, AT(stops), 0, FOR_RUN,
     "stop before this text; may be given up to 16 times"},
    {'s', "--seed", "N", WHOLE, -1, 9007199254740992.0, AT(seed), 0, FOR_RUN,
     "seed of the random choice; -1: by the clock (default -1)"},
    {0, "--temp", "T", REAL, -1000, 1000, AT(temperature), 0, FOR_RUN,
     "temperature; 0 or less: always the likeliest token (default 0.8)"},
    {0, "--top-k", "N", WHOLE, -1, most_count, AT(top_k), 0, FOR_RUN,
     "choose among the N likeliest; 0 or -1: all (default 40)"},
    {0, "--top-p", "P", REAL, 0, 1, AT(top_p), 0, FOR_RUN,
     "choose among the likeliest that make up P; 1: all (default 0.95)"},
    {0, "--min-p", "P", REAL, 0, 1, AT(min_p), 0, FOR_RUN,
     "leave out what is less than P times as likely as the likeliest; 0: none (default 0.05)"},
    {0, "--repeat-penalty", "X", REAL, 0.000001, 1000, AT(repeat_penalty), 0, FOR_RUN,
     "penalty of tokens that were used lately; 1: none (default 1)"},
    {0, "--repeat-last-n", "N", WHOLE, -1, MAX_REPEAT_LAST_N, AT(repeat_last_n), 0, FOR_RUN,
     "how many tokens count as lately; -1: as many as the context has positions (default 64)"},
    {0, "--draft-max", "N", WHOLE, -1, MAX_DRAFT, AT(n_draft), 0, FOR_RUN,
     "guess at most N tokens ahead where the text repeats itself, and check them in one sweep: the "
     "same text, sooner; 0: never; -1: 7 where weights are streamed, else 3 with AVX2 or AVX-512, else "
     "never (default -1)"},
    {'p', "--n-prompt", "LIST", LIST, 0, most_count, AT(prompts), 0, FOR_BENCH,
     "prompt lengths to measure; 0 leaves them out (default 512)"},
    {'n', "--n-gen", "LIST", LIST, 0, most_count, AT(generates), 0, FOR_BENCH,
     "numbers of tokens to generate; 0 leaves them out (default 128)"},
    {'d', "--n-depth", "LIST", LIST, 0, most_count, AT(depths), 0, FOR_BENCH,
     "tokens already in the context before each test (default 0)"},
    {0, "--n-parallel", "LIST", LIST, 1, 64, AT(parallels), 0, FOR_BENCH,
     "numbers of sequences that generate together, a token of each in every sweep; tokens/s are "
     "all sequences' (default 1); -npl is the same"},
    {0, "--share-depth", 0, FLAG, 0, 0, AT(share_depth), 0, FOR_BENCH,
     "sequences that generate together have the tokens of -d in common, as a shared prompt, not "
     "tokens of their own; -pps is the same"},
    {'r', "--repetitions", "N", WHOLE, 1, 10000, AT(repetitions), 0, FOR_BENCH,
     "repetitions of each test, after one that does not count (default 5)"},
    {'t', "--threads", "LIST", LIST, 0, 1024, AT(threads), 0, FOR_BENCH,
     "numbers of threads; 0: one a core, at least two where two processors may be used (default "
     "0)"},
    {0, "--disk", 0, FLAG, 0, 0, AT(disk), 0, FOR_BENCH,
     "only the disk is measured: what one sweep streams is read, without computing; no tests are "
     "run"},
    {'c', "--ctx-size", "N", WHOLE, 0, most_count, AT(n_ctx), 0, FOR_RUN,
     "positions of the context; 0: as many as the model was made for (default: chosen by the "
     "text, at most that)"},
    {'c', "--ctx-size", "N", WHOLE, 0, most_count, AT(n_ctx), 0, FOR_EVAL,
     "positions of the context, of which a longer text takes several windows; 0: as many as the "
     "model was made for (default: those of the text, at most 4096 and the model's own)"},
    {'t', "--threads", "N", WHOLE, -1, 1024, AT(n_threads), 0, FOR_RUN | FOR_EVAL,
     "threads; 0 or -1: one a core, at least two where two processors may be used, within affinity "
     "and CPU quota (default 0)"},
    {'b', "--batch-size", "N", WHOLE, 0, most_count, AT(n_batch), 0, RUNS,
     "most tokens of a prompt in one sweep; 0: chosen (default 0)"},
    {0, "--ram", "SIZE", SIZE, 0, 0, AT(ram), 0, RUNS,
     "memory budget of the whole process: 4G, 512MiB, bytes, 75% of the memory there is, or auto "
     "(default auto)"},
    {0, "--residency", "MODE", CHOICE, 0, 0, AT(residency), "auto|cache|wired|stream", RUNS,
     "where weights live: auto, cache, wired, stream (default auto)"},
    {0, "--io", "MODE", CHOICE, 0, 0, AT(io), "auto|uring|threads", RUNS,
     "how weights are read: auto, uring, threads (default auto)"},
    {0, "--trace", "FILE", TEXT, 0, 0, AT(trace), 0, RUNS,
     "write which extents were used when, for onetrip simulate"},
    {0, "--report", "FILE", TEXT, 0, 0, AT(report), 0, RUNS, "write the report as JSON"},
    {0, "--ledger", "FILE", TEXT, 0, 0, AT(ledger), 0, RUNS,
     "write every record of the ledger, by tensor: JSON lines, or SQLite where FILE ends in "
     ".sqlite "
     "or .db"},
    {0, "--no-bos", 0, FLAG, 0, 0, AT(no_bos), 0, FOR_TOKENIZE,
     "add no token at the beginning or end"},
    {0, "--no-special", 0, FLAG, 0, 0, AT(no_special), 0, FOR_TOKENIZE,
     "special tokens written in the text are text; with --decode, leave them out"},
    {0, "--no-parse-special", 0, FLAG, 0, 0, AT(no_special), 0, FOR_TOKENIZE,
     "the same, as llama.cpp has it"},
    {0, "--decode", 0, FLAG, 0, 0, AT(decode), 0, FOR_TOKENIZE, "the other way: ids in, text out"},
    {0, "--tensors", 0, FLAG, 0, 0, AT(tensors), 0, FOR_INSPECT, "list every tensor"},
    {0, "--by", "WHAT", TEXT, 0, 0, AT(by), "boundary|class|tensor|cause|layer", FOR_LEDGER,
     "group by boundary, class, tensor, cause or layer (default class)"},
    {0, "--top", "N", WHOLE, 0, most_count, AT(top), 0, FOR_LEDGER,
     "only the N largest of each boundary; 0: all (default 0)"},
    {0, "--budget", "SIZE", SIZE, 1, 0, AT(budget), 0, FOR_SIMULATE,
     "bytes that may stay in memory: 4G, 512MiB, bytes, or 75% of the memory there is"},
    {0, "--policy", "NAME", TEXT, 0, 0, AT(policy), "fixed|lru|clock|sieve|lfu|min", FOR_SIMULATE,
     "fixed, lru, clock, sieve, lfu or min (default: all of them)"},
    {0, "--json", 0, FLAG, 0, 0, AT(json), 0,
     FOR_EVAL | FOR_TOKENIZE | FOR_INSPECT | FOR_BENCH | FOR_SIMULATE, "print JSON"},
    {'q', "--quiet", 0, FLAG, 0, 0, AT(quiet), 0, FOR_RUN | FOR_EVAL,
     "no ledger summary, no notes, no progress"},
    {'q', "--quiet", 0, FLAG, 0, 0, AT(quiet), 0, FOR_BENCH,
     "no progress, and not where the time went"},
    {'h', "--help", 0, FLAG, 0, 0, AT(help), 0, FOR_ALL, "print this and leave"},
    {0, "--version", 0, FLAG, 0, 0, AT(version), 0, FOR_ALL,
     "print version, commit and the kernels in use, and leave"},
};
enum { N_OPTIONS = sizeof options / sizeof *options };

void settings_default(struct settings *s) {
    *s = (struct settings){
        .n_predict = -1,
        .n_ctx = CTX_CHOSEN,
        .seed = -1,
        .top_k = 40,
        .repeat_last_n = 64,
        .n_draft = -1,
        .temperature = 0.8,
        .top_p = 0.95,
        .min_p = 0.05,
        .repeat_penalty = 1.0,
        .by = "class",
        .residency = OT_RESIDENCY_AUTO,
        .io = OT_IO_AUTO,
    };
}

static bool unit_of(const char *unit, double *factor) {
    static const struct {
        const char *name;
        double factor;
    } units[] = {
        {"", 1},
        {"B", 1},
        {"K", 1024.0},
        {"KIB", 1024.0},
        {"KB", 1e3},
        {"M", 1048576.0},
        {"MIB", 1048576.0},
        {"MB", 1e6},
        {"G", 1073741824.0},
        {"GIB", 1073741824.0},
        {"GB", 1e9},
        {"T", 1099511627776.0},
        {"TIB", 1099511627776.0},
        {"TB", 1e12},
    };
    char upper[8] = "";
    for (size_t i = 0; unit[i] != '\0'; i++) {
        if (i + 1 >= sizeof upper) {
            return false;
        }
        upper[i] = (char)toupper((unsigned char)unit[i]);
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(upper, units[i].name) == 0) {
            *factor = units[i].factor;
            return true;
        }
    }
    return false;
}

bool size_parse(const char *text, uint64_t *bytes) {
    if (strcmp(text, "auto") == 0) {
        *bytes = 0;
        return true;
    }
    /* strtod also takes signs, hexadecimal, "inf" and leading spaces. */
    if (!isdigit((unsigned char)text[0]) || text[1] == 'x' || text[1] == 'X') {
        return false;
    }
    char *end;
    double value = strtod(text, &end), factor;
    if (strcmp(end, "%") == 0) {
        if (value <= 0.0 || value > 100.0) {
            return false;
        }
        value = value / 100.0 * (double)ot_memory_bytes();
    } else if (unit_of(end, &factor)) {
        value *= factor;
    } else {
        return false;
    }
    if (!(value >= 1.0) || value > 9e18) {
        return false;
    }
    *bytes = (uint64_t)value;
    return true;
}

static bool parse_whole(const char *text, double min, double max, int64_t *out) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || isspace((unsigned char)text[0]) ||
        (double)value < min || (double)value > max) {
        return false;
    }
    *out = value;
    return true;
}

static bool parse_real(const char *text, double min, double max, double *out) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]) ||
        strpbrk(text, "xX") != NULL || !isfinite(value) || value < min || value > max) {
        return false;
    }
    *out = value;
    return true;
}

static bool parse_choice(const char *text, const char *choices, int64_t *out) {
    size_t length = strlen(text);
    int64_t position = 0;
    for (const char *at = choices; at != NULL; position++) {
        const char *bar = strchr(at, '|');
        size_t n = bar != NULL ? (size_t)(bar - at) : strlen(at);
        if (n == length && strncmp(at, text, n) == 0) {
            *out = position;
            return true;
        }
        at = bar != NULL ? bar + 1 : NULL;
    }
    return false;
}

static bool parse_list(const char *text, double min, double max, struct list_setting *out) {
    struct list_setting list = {.n = 0};
    for (const char *at = text; list.n < MAX_LIST;) {
        size_t n = strcspn(at, ",");
        char item[24];
        int64_t value;
        if (n == 0 || n >= sizeof item) {
            return false;
        }
        memcpy(item, at, n);
        item[n] = '\0';
        if (!parse_whole(item, min, max, &value)) {
            return false;
        }
        list.items[list.n++] = (uint32_t)value;
        if (at[n] == '\0') {
            *out = list;
            return true;
        }
        at += n + 1;
    }
    return false;
}

static int refuse(const struct option *o, const char *value) {
    switch (o->kind) {
    case WHOLE:
        complain("%s: \"%.40s\" is not a whole number from %.0f to %.0f", o->name, value, o->min,
                 o->max);
        break;
    case REAL:
        complain("%s: \"%.40s\" is not a number from %g to %g", o->name, value, o->min, o->max);
        break;
    case LIST:
        complain("%s: \"%.40s\" is not a list of at most %d whole numbers from %.0f to %.0f, as "
                 "128,512",
                 o->name, value, (int)MAX_LIST, o->min, o->max);
        break;
    case SIZE:
        complain("%s: \"%.40s\" is not a size, as 4G, 512MiB%s", o->name, value,
                 o->min > 0.0 ? " or 75%" : ", 75% or auto");
        break;
    case TEXT:
    case CHOICE: complain("%s: \"%.40s\" is none of %s", o->name, value, o->choices); break;
    case TEXTS:
        if (value[0] == '\0') {
            complain("%s: the text is empty", o->name);
        } else {
            complain("%s: more than %d given", o->name, (int)MAX_STOPS);
        }
        break;
    case FLAG: complain("%s: takes no value", o->name); break;
    }
    return EXIT_USAGE;
}

static int store(const struct option *o, const char *value, struct settings *s) {
    void *at = (char *)s + o->offset;
    int64_t position;
    bool ok = true;
    switch (o->kind) {
    case FLAG: *(bool *)at = true; break;
    case TEXT:
        ok = o->choices == NULL || parse_choice(value, o->choices, &position);
        *(const char **)at = value;
        break;
    case TEXTS:
        ok = s->n_stops < MAX_STOPS && value[0] != '\0';
        if (ok) {
            s->stops[s->n_stops++] = value;
        }
        break;
    case WHOLE: ok = parse_whole(value, o->min, o->max, at); break;
    case REAL: ok = parse_real(value, o->min, o->max, at); break;
    case SIZE: {
        struct size_setting *size = at;
        ok = size_parse(value, &size->bytes) && (double)size->bytes >= o->min;
        size->text = value;
        break;
    }
    case CHOICE: ok = parse_choice(value, o->choices, at); break;
    case LIST: ok = parse_list(value, o->min, o->max, at); break;
    }
    return ok ? 0 : refuse(o, value);
}

/* Letters to change, add, leave out or swap with the next to get from a to b; of the first 40. */
static size_t distance(const char *a, const char *b) {
    enum { MOST = 40 };
    size_t n = strnlen(a, MOST), m = strnlen(b, MOST);
    uint8_t d[MOST + 1][MOST + 1]; /* of the first i of a and the first j of b */
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = (uint8_t)(i + j);
                continue;
            }
            bool same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            uint8_t change = (uint8_t)(d[i - 1][j - 1] + !same);
            uint8_t other = (uint8_t)((d[i - 1][j] < d[i][j - 1] ? d[i - 1][j] : d[i][j - 1]) + 1);
            d[i][j] = change < other ? change : other;
            if (swapped && d[i - 2][j - 2] + 1 < d[i][j]) {
                d[i][j] = (uint8_t)(d[i - 2][j - 2] + 1);
            }
        }
    }
    return d[n][m];
}

/* Whether text begins with the n letters of word. */
static bool begins(const char *text, const char *word, size_t n) {
    return strncasecmp(text, word, n) == 0;
}

const char *nearest_word(const char *word, const char *const *words) {
    const char *best = NULL;
    word += strspn(word, "-");
    size_t n = strlen(word), best_distance = n / 3 + 1;
    for (; *words != NULL; words++) {
        const char *other = *words + strspn(*words, "-");
        size_t m = strlen(other);
        if ((n > 1 && begins(other, word, n)) || (m > 2 && begins(word, other, m))) {
            return *words;
        }
        size_t d = distance(word, other);
        if (d < best_distance) {
            best = *words;
            best_distance = d;
        }
    }
    return best;
}

static const struct option *find_name(uint32_t mask, const char *name, size_t length) {
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if ((options[i].mask & mask) != 0 && strlen(options[i].name) == length &&
            strncmp(options[i].name, name, length) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

/* The row of an option that is written as a letter; *attached is the text after it, or NULL. What
 * cannot begin a number is no value of an option that takes one. */
static const struct option *find_letter(uint32_t mask, const char *arg, const char **attached) {
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        bool number = o->kind == WHOLE || o->kind == LIST;
        if ((o->mask & mask) != 0 && o->letter != 0 && arg[1] == o->letter &&
            (arg[2] == '\0' ||
             (number ? strchr("0123456789+-=", arg[2]) != NULL : o->kind != FLAG))) {
            *attached = arg[2] != '\0' ? arg + 2 : NULL;
            return o;
        }
    }
    return NULL;
}

/* The commands that have an option, by name or by letter: a mask. */
static uint32_t who_has(const char *word, size_t length) {
    const char *same = llama_same_as(FOR_ALL, word, length);
    word = same != NULL ? same : word;
    length = same != NULL ? strlen(same) : length;
    uint32_t mask = 0;
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        bool named = strlen(o->name) == length && strncmp(o->name, word, length) == 0;
        bool lettered = length == 2 && o->letter != 0 && word[1] == o->letter;
        mask |= named || lettered ? o->mask : 0;
    }
    return mask;
}

/* Of what other commands or llama.cpp's programs know: false where neither does. */
static bool refuse_known(const struct command *command, const char *word, size_t length) {
    static const char *const names[] = {"run",   "eval",   "tokenize", "inspect",
                                        "bench", "ledger", "simulate"};
    uint32_t mask = who_has(word, length);
    if (mask != 0) {
        char list[80] = "";
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            size_t used = strlen(list);
            if ((mask >> i & 1) != 0) {
                snprintf(list + used, sizeof list - used, "%s%s", used != 0 ? ", " : "", names[i]);
            }
        }
        complain("%s: %.*s is an option of onetrip %s", command->name, (int)length, word, list);
        return true;
    }
    const char *why = llama_elsewhere(command->mask, word, length);
    if (why != NULL) {
        complain("%s: %.*s is an option of llama.cpp; here: %s", command->name, (int)length, word,
                 why);
    }
    return why != NULL;
}

static void refuse_unknown(const struct command *command, const char *word, size_t length) {
    const char *names[N_OPTIONS + 1], *none;
    size_t n = 0;
    char name[48];
    snprintf(name, sizeof name, "%.*s", (int)(length < 47 ? length : 47), word);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        if ((options[i].mask & command->mask) != 0) {
            names[n++] = options[i].name;
        }
    }
    names[n] = NULL;
    bool letter = length == 3 && word[1] == '-'; /* --n for -n */
    const struct option *o = letter ? find_letter(command->mask, name + 1, &none) : NULL;
    const char *near = o != NULL ? o->name : nearest_word(name, names);
    if (near != NULL) {
        complain("%s: unknown option %s; the nearest is %s", command->name, name, near);
    } else {
        complain("%s: unknown option %s; onetrip %s --help lists them", command->name, name,
                 command->name);
    }
}

/* "-p=x": what was meant is known. */
static bool refuse_equals(const struct command *command, const char *arg) {
    const char letter[] = {'-', arg[1], '\0'}, *none;
    const struct option *o = find_letter(command->mask, letter, &none);
    if (o != NULL && o->kind == FLAG) {
        complain("%s: %s takes no value", command->name, letter);
    } else if (o != NULL) {
        complain("%s: %s= is not known: %s %s, or %s=%s", command->name, letter, letter, o->value,
                 o->name, o->value);
    }
    return o != NULL;
}

/* The row that an argument names, NULL after one line on standard error; *attached is the text
 * after "=" or after the letter, or NULL. A name goes before a letter with a value, also one that
 * only others know: -ngl is no -n, -cnv no -c. */
static const struct option *find(const struct command *command, const char *arg,
                                 const char **attached) {
    size_t length = strcspn(arg, "=");
    const char *same = llama_same_as(command->mask, arg, length);
    const struct option *o = same != NULL ? find_name(command->mask, same, strlen(same))
                                          : find_name(command->mask, arg, length);
    *attached = arg[length] == '=' ? arg + length + 1 : NULL;
    if (o != NULL) {
        return o;
    }
    const char *advice = llama_advice(command->mask, arg, length);
    if (advice != NULL) {
        complain("%s: %.*s is an option of llama.cpp; here: %s", command->name, (int)length, arg,
                 advice);
        return NULL;
    }
    if (length == 2 && arg[2] == '=' && refuse_equals(command, arg)) {
        return NULL;
    }
    o = find_letter(command->mask, arg, attached);
    if ((o == NULL || *attached != NULL) && refuse_known(command, arg, length)) {
        return NULL;
    }
    if (o == NULL) {
        refuse_unknown(command, arg, length);
    }
    return o;
}

static int take_operand(const struct command *command, const char *arg, struct settings *s) {
    if (s->operand != NULL) {
        bool takes_text = (command->mask & (FOR_RUN | FOR_EVAL | FOR_TOKENIZE)) != 0;
        complain("%s: one %s expected, found \"%.80s\" as well%s", command->name, command->operand,
                 arg, takes_text ? " (a text goes after -p)" : "");
        return EXIT_USAGE;
    }
    s->operand = arg;
    return 0;
}

/* Stop strings are C strings, unlike texts. */
static int unescape_stops(struct settings *s) {
    for (uint32_t i = 0; i < s->n_stops; i++) {
        char *stop = (char *)(uintptr_t)s->stops[i]; /* an argument of main: ours to change */
        if (input_unescape(stop, strlen(stop)) != strlen(stop)) {
            complain("--stop: a stop string cannot hold the byte 0");
            return EXIT_USAGE;
        }
    }
    return 0;
}

/* What the whole command line means, once it is read. */
static int settle(const struct command *command, struct settings *s) {
    if (s->model != NULL && s->operand != NULL) {
        complain("%s: two models given, \"%.80s\" and -m \"%.80s\": one of them", command->name,
                 s->operand, s->model);
        return EXIT_USAGE;
    }
    s->operand = s->model != NULL ? s->model : s->operand;
    if (!s->help && !s->version && (s->operand == NULL || s->operand[0] == '\0')) {
        complain("%s: %s is missing; onetrip %s --help tells more", command->name, command->operand,
                 command->name);
        return EXIT_USAGE;
    }
    s->top_k = s->top_k < 0 ? 0 : s->top_k;
    s->n_threads = s->n_threads < 0 ? 0 : s->n_threads;
    return s->no_escape ? 0 : unescape_stops(s);
}

int options_parse(const struct command *command, int argc, char **argv, int first,
                  struct settings *s) {
    bool only_operands = false;
    for (int i = first; i < argc; i++) {
        const char *arg = argv[i], *value;
        if (only_operands || arg[0] != '-' || arg[1] == '\0') {
            if (take_operand(command, arg, s) != 0) {
                return EXIT_USAGE;
            }
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_operands = true;
            continue;
        }
        const struct option *o = find(command, arg, &value);
        if (o == NULL) {
            return EXIT_USAGE;
        }
        if (o->kind == FLAG && value != NULL) {
            return refuse(o, value);
        }
        if (o->kind != FLAG && value == NULL) {
            if (i + 1 == argc) {
                complain("%s: %s needs a value (%s)", command->name, arg, o->value);
                return EXIT_USAGE;
            }
            value = argv[++i];
        }
        int rc = store(o, value, s);
        if (rc != 0) {
            return rc;
        }
    }
    return settle(command, s);
}

void options_print(uint32_t mask, FILE *out) {
    enum { INDENT = 28 };
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        if ((o->mask & mask) == 0) {
            continue;
        }
        char left[64], letter[8] = "    ";
        if (o->letter != 0) {
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        }
        snprintf(left, sizeof left, "  %s%s%s%s", letter, o->name, o->value != NULL ? " " : "",
                 o->value != NULL ? o->value : "");
        fprintf(out, "%-*s", INDENT, left);
        if (strlen(left) >= INDENT) {
            fprintf(out, "\n%*s", INDENT, "");
        }
        print_wrapped(o->help, INDENT, out);
    }
}
