/* main.c - finds the command, parses its options, runs it, and sees to it that what was printed
 * arrived. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/model_path.h"
#include "cli/options.h"
#include "cli/output.h"

static const struct command commands[] = {
    {"run", FOR_RUN, "MODEL", "generate text",
     "Answers the text of -p, -f or standard input; on a terminal without either, it is a "
     "conversation. The answer goes to standard output, everything else to standard error, and at "
     "the end the ledger: which bytes moved, and how many had to.",
     command_run},
    {"eval", FOR_EVAL, "MODEL", "perplexity of a text, logits",
     "Prints how well the model predicts a text: the perplexity and its standard error. A text "
     "longer than the context is evaluated in windows that do not overlap.",
     command_eval},
    {"tokenize", FOR_TOKENIZE, "MODEL", "text to token ids and back",
     "Prints the ids on one line. Files that hold a vocabulary and no weights will do.",
     command_tokenize},
    {"inspect", FOR_INSPECT, "MODEL", "what a model file holds",
     "Prints architecture, sizes and types, and the bytes that one token needs, by type and role.",
     command_inspect},
    {"bench", FOR_BENCH, "MODEL", "measure speed, and how near the memory's limit it is",
     "Measures prompt (pp) and generation (tg) speed, and the read bandwidth of the machine before "
     "and after. Lists are comma-separated: -p 128,512.",
     command_bench},
    {"ledger", FOR_LEDGER, "FILE", "print a ledger written by --ledger",
     "Reads the records of a run back, JSON lines or SQLite, and prints them as a table. FILE may "
     "be - for standard input.",
     command_ledger},
    {"simulate", FOR_SIMULATE, "TRACE", "replay a trace against residency policies",
     "Replays a trace written by --trace with policies at a budget: hits, misses, bytes.",
     command_simulate},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int unknown_command(const char *name) {
    const char *names[N_COMMANDS + 2];
    for (size_t i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
    }
    names[N_COMMANDS] = "help";
    names[N_COMMANDS + 1] = NULL;
    const char *near = nearest_word(name, names);
    if (name[0] == '-') {
        complain("%.40s: a command comes before options, as in onetrip run MODEL -p TEXT; onetrip "
                 "--help lists them",
                 name);
        return EXIT_USAGE;
    }
    if (model_is_there(name)) {
        complain("\"%.200s\" is no command; to run that model: onetrip run %.200s", name, name);
        return EXIT_USAGE;
    }
    complain("unknown command \"%.40s\"; %s%s", name,
             near != NULL ? "the nearest is " : "onetrip --help lists them",
             near != NULL ? near : "");
    return EXIT_USAGE;
}

static int print_help(void) {
    printf("onetrip runs language models (GGUF files) and says how many bytes moved for it.\n\n"
           "usage: onetrip COMMAND ...\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char usage[32];
        snprintf(usage, sizeof usage, "%s %s", commands[i].name, commands[i].operand);
        printf("  %-18s %s\n", usage, commands[i].summary);
    }
    printf("  %-18s %s\n  %-18s %s\n", "help [COMMAND]", "what a command does and its options",
           "--version", "version, commit and the kernels in use");
    printf("\nMODEL is a path, or the name of a model in the cache\n"
           "(${XDG_CACHE_HOME:-~/.cache}/onetrip/models): smollm2, gemma3, or a file's name.\n"
           "\nexit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted, 141 the reader\n"
           "of the output has gone\n");
    return EXIT_OK;
}

static int print_command_help(const struct command *c) {
    printf("usage: onetrip %s %s [options]\n\n", c->name, c->operand);
    print_wrapped(c->about, 0, stdout);
    printf("\noptions:\n");
    options_print(c->mask, stdout);
    return EXIT_OK;
}

/* A program started without one of the standard streams must not hand its number to a model file.
 * Each gets a stand-in on which reading and writing fail or end. */
static void hold_standard_streams(void) {
    static const int modes[3] = {O_WRONLY, O_RDONLY, O_WRONLY};
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            (void)open("/dev/null", modes[fd]);
        }
    }
}

/* The library takes the best kernels where ONETRIP_ISA names none; who set it is told. */
static int check_isa(void) {
    const char *isa = getenv("ONETRIP_ISA");
    char names[128];
    if (isa == NULL || isa[0] == '\0' || ot_kernels_named(isa, names, sizeof names)) {
        return 0;
    }
    complain("ONETRIP_ISA: \"%.40s\" names no kernels that can be used here: %s", isa, names);
    return EXIT_USAGE;
}

static int print_version(void) {
    printf("onetrip %s (commit %s, kernels %s)\n", ot_version(), ot_commit(), ot_kernels());
    return EXIT_OK;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        complain("a command is missing; onetrip --help lists them");
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        return print_help();
    }
    if (strcmp(name, "--version") == 0) {
        int rc = check_isa();
        return rc != 0 ? rc : print_version();
    }
    bool help = strcmp(name, "help") == 0;
    if (help && (argc == 2 || argv[2][0] == '-')) {
        return print_help();
    }
    if (help) {
        name = argv[2];
    }
    const struct command *command = find_command(name);
    if (command == NULL) {
        return unknown_command(name);
    }
    struct settings settings;
    settings_default(&settings);
    settings.help = help;
    int rc = options_parse(command, argc, argv, help ? 3 : 2, &settings);
    if (rc != 0) {
        return rc;
    }
    if (settings.help) {
        return print_command_help(command);
    }
    rc = check_isa();
    return rc != 0 ? rc : settings.version ? print_version() : command->run(&settings);
}

int main(int argc, char **argv) {
    hold_standard_streams();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of writing, too */
    return output_finish(dispatch(argc, argv));
}
