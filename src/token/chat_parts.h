/* chat_parts.h - what chat.c, chat_facts.c and chat_render.c share. */
#ifndef TOKEN_CHAT_PARTS_H
#define TOKEN_CHAT_PARTS_H

#include <stdbool.h>

#include "base/text.h"
#include "token/chat.h"

enum chat_format {
    CHAT_CHATML,
    CHAT_LLAMA2,
    CHAT_LLAMA3,
    CHAT_MISTRAL,
    CHAT_GEMMA,
    CHAT_PHI3,
    CHAT_DEEPSEEK,
    CHAT_ZEPHYR,
    CHAT_FORMATS
};

/* DeepSeek's marks. */
#define DS_USER                                                                                    \
    "<\xEF\xBD\x9C"                                                                                \
    "User\xEF\xBD\x9C>"
#define DS_ASSISTANT                                                                               \
    "<\xEF\xBD\x9C"                                                                                \
    "Assistant\xEF\xBD\x9C>"

#define DS_END                                                                                     \
    "<\xEF\xBD\x9C"                                                                                \
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"

enum chat_deepseek { DEEPSEEK_V3, DEEPSEEK_V2, DEEPSEEK_CODER };

/* What a template's text says about its variant of a format. Zeros mean the format's usual form. */
struct chat_facts {
    bool says_bos;              /* it writes the BOS token itself */
    bool has_system;            /* default_system is meant, also where it is empty */
    struct text default_system; /* owned; what the system says where the user gives nothing */
    struct text tail;           /* owned; what follows the head of the answer: "<think>\n" */
    bool tail_in_history;       /* earlier answers have it, too */
    bool drops_thinking;        /* earlier answers lose all up to </think> */
    bool drops_newlines;        /* and the line ends after it... */
    bool drops_always;          /* ...also where there is none */
    bool trims;                 /* ChatML: content loses white space at both ends */
    bool im_sep;                /* ChatML with <|im_sep|> after the role and no line ends (Phi-4) */
    bool dates;                 /* Llama 3.1 and later: the system header has two dates */
    bool joined;                /* Phi-3 without line ends (Phi-4-mini) */
    bool system_last;           /* Mistral: the system prompt goes into the last question */
    bool system_tags;           /* Mistral: [SYSTEM_PROMPT] */
    bool space_before_inst, space_after_inst, space_before_end, space_before_answer; /* Mistral */
    bool trims_answers;                                                              /* Mistral */
    bool user_ends; /* DeepSeek: an end of sentence after questions, too */
    enum chat_deepseek deepseek;
};

/* The format a template writes, or CHAT_FORMATS. */
enum chat_format chat_detect(const char *template_text);
/* template_text NULL: the usual form. false: no memory; *facts is then empty. */
bool chat_facts_read(struct chat_facts *facts, enum chat_format format, const char *template_text);
void chat_facts_deinit(struct chat_facts *facts);

/* The conversation as text, and which parts of it are content. Zero-initialise. */
struct chat_writer {
    struct text text;
    struct vocab_span *content; /* owned [n_content], ascending */
    uint32_t n_content, capacity;
    bool failed;
    char bos[64], eos[64]; /* as text; "" unknown */
};

/* Check w->failed afterwards. */
void chat_write(struct chat_writer *w, enum chat_format format, const struct chat_facts *facts,
                const struct ot_message *messages, size_t n_messages);
void chat_writer_deinit(struct chat_writer *w);

#endif
