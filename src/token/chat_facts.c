/* chat_facts.c - what a chat template's text says about its format: read, not run.
 *
 * A template is a Jinja program of a known kind with small differences: a default system prompt,
 * spaces, the head of the answer. The differences are looked for as pieces of its text. */
#include <string.h>

#include "token/chat_parts.h"

static bool has(const char *text, const char *part) {
    return strstr(text, part) != NULL;
}

/* Compares text with part, where part may have a space anywhere between two tokens of Jinja that
 * text has not, and either kind of quote stands for the other. Returns the bytes of text, or 0. */
static size_t alike(const char *text, const char *part) {
    const char *t = text;
    for (; *part != '\0'; part++) {
        if (*part == ' ') {
            while (*t == ' ') {
                t++;
            }
            continue;
        }
        bool quote = *part == '\'' && (*t == '\'' || *t == '"');
        if (!quote && *t != *part) {
            return 0;
        }
        t++;
    }
    return (size_t)(t - text);
}

/* In part: ' is any quote, a space is any number of spaces, none included. */
static const char *find_code(const char *text, const char *part) {
    for (; *text != '\0'; text++) {
        if (alike(text, part) != 0) {
            return text;
        }
    }
    return NULL;
}

static const char *find_last(const char *text, const char *part) {
    const char *last = NULL;
    for (const char *p = strstr(text, part); p != NULL; p = strstr(p + 1, part)) {
        last = p;
    }
    return last;
}

/* A line end in a template's string is written as \n or is one. Returns its bytes, or 0. */
static size_t line_end(const char *p) {
    return p[0] == '\n' ? 1 : p[0] == '\\' && p[1] == 'n' ? 2 : 0;
}

/* The string literal that p is inside of, from p on: appended to *out as it would be written.
 * Returns false where stop comes first or the literal does not end. */
static bool read_literal(const char *p, char quote, const char *stop, struct text *out) {
    for (; *p != '\0' && *p != quote; p++) {
        if (stop != NULL && strncmp(p, stop, strlen(stop)) == 0) {
            return true;
        }
        if (*p == '\\' && p[1] != '\0') {
            p++;
            char c = *p == 'n' ? '\n' : *p == 't' ? '\t' : *p;
            text_append(out, &c, 1);
        } else {
            text_append(out, p, 1);
        }
    }
    return *p == quote && stop == NULL;
}

/* The quote that opened the literal which p is inside of; 0 where it is plain text. */
static char quote_before(const char *text, const char *p) {
    while (p > text) {
        p--;
        if (*p == '\'' || *p == '"') {
            return *p;
        }
        if (*p == '}' || *p == '{') {
            return 0;
        }
    }
    return 0;
}

/* The system prompt that a ChatML template writes by itself: whole in one literal. Templates have
 * the head once or twice; looking at each of very many would take the square of the length. */
static void chatml_default_system(struct chat_facts *f, const char *t) {
    enum { LOOKS = 16 };
    static const char head[] = "<|im_start|>system";
    const char *p = strstr(t, head);
    for (int i = 0; i < LOOKS && p != NULL; i++, p = strstr(p + 1, head)) {
        const char *from = p + strlen(head);
        size_t n = line_end(from);
        char quote = quote_before(t, p);
        struct text literal = {0};
        if (n != 0 && read_literal(from + n, quote, "<|im_end|>", &literal) &&
            !has(literal.data == NULL ? "" : literal.data, "{{")) {
            f->has_system = true;
            f->default_system = literal;
            return;
        }
        text_deinit(&literal);
    }
}

/* After the head of an answer, in the part of the template that begins one. */
static void answer_tail(struct chat_facts *f, const char *t, const char *head, bool line) {
    const char *part = find_last(t, "add_generation_prompt");
    const char *p = part == NULL ? NULL : strstr(part, head);
    if (p == NULL) {
        return;
    }
    char quote = quote_before(t, p);
    p += strlen(head);
    size_t n = line ? line_end(p) : 0;
    if (quote == 0 || (line && n == 0)) {
        return;
    }
    read_literal(p + n, quote, NULL, &f->tail);
    /* Thinking that is not asked for is closed at once. */
    const char *closed = strstr(p, "if not enable_thinking");
    closed = closed != NULL ? closed : strstr(p, "if not thinking");
    closed = closed != NULL ? strstr(closed, "{{") : NULL;
    closed = closed != NULL ? strpbrk(closed, "'\"") : NULL;
    if (closed != NULL) {
        read_literal(closed + 1, *closed, NULL, &f->tail);
    }
}

static void thinking(struct chat_facts *f, const char *t) {
    const char *p = find_code(t, ".split('</think>'");
    f->drops_thinking = p != NULL;
    const char *end = p == NULL ? NULL : strstr(p, "}");
    for (; p != NULL && p != end && *p != '\0'; p++) {
        f->drops_newlines = f->drops_newlines || alike(p, ".lstrip('") != 0;
    }
    f->drops_always = f->drops_newlines && find_code(t, "'</think>' in ") == NULL;
}

static void mistral_facts(struct chat_facts *f, const char *t) {
    const char *inst = strstr(t, "[INST]"), *end = strstr(t, "[/INST]");
    f->system_tags = has(t, "[SYSTEM_PROMPT]");
    f->system_last = has(t, "loop.last and system_message");
    f->space_before_inst = inst != NULL && inst > t && inst[-1] == ' ' && inst - t >= 2 &&
                           (inst[-2] == '\'' || inst[-2] == '"');
    f->space_after_inst = inst != NULL && inst[6] == ' ' && inst[7] != '+';
    f->space_before_end = end != NULL && end > t && end[-1] == ' ';
    f->space_before_answer = has(t, "' ' + message['content']") ||
                             has(t, "\" \" + message[\"content\"]") ||
                             has(t, "' ' + message.content") || has(t, "\" \" + message.content");
    f->trims_answers = find_code(t, "message['content'] | trim + eos_token") != NULL;
}

static void deepseek_facts(struct chat_facts *f, const char *t) {
    if (has(t, "### Instruction:")) {
        f->deepseek = DEEPSEEK_CODER;
        answer_tail(f, t, "### Response:", false);
        const char *p = strstr(t, "not ns.found");
        p = p == NULL ? NULL : strstr(p, "{{");
        p = p == NULL ? NULL : strpbrk(p, "'\"");
        f->has_system = p != NULL && read_literal(p + 1, *p, NULL, &f->default_system);
        return;
    }
    f->deepseek = has(t, DS_ASSISTANT) ? DEEPSEEK_V3 : DEEPSEEK_V2;
    if (f->deepseek == DEEPSEEK_V3) {
        answer_tail(f, t, DS_ASSISTANT, false);
        f->tail_in_history = has(t, "is_last_user");
        f->user_ends = find_code(t, DS_USER "' + message['content'] + '<\xEF\xBD\x9C"
                                            "end") != NULL;
    }
}

bool chat_facts_read(struct chat_facts *facts, enum chat_format format, const char *t) {
    memset(facts, 0, sizeof *facts);
    struct chat_facts f = {0};
    if (t == NULL) {
        /* The third version's spaces suit the most Mistral models. */
        f.space_after_inst = f.space_before_answer = f.trims_answers = format == CHAT_MISTRAL;
        *facts = f;
        return true;
    }
    f.says_bos = has(t, "bos_token");
    thinking(&f, t);
    switch (format) {
    case CHAT_CHATML:
        f.im_sep = has(t, "<|im_sep|>");
        f.trims = find_code(t, "message['content'] | trim") != NULL;
        chatml_default_system(&f, t);
        answer_tail(&f, t, f.im_sep ? "<|im_start|>assistant<|im_sep|>" : "<|im_start|>assistant",
                    !f.im_sep);
        break;
    case CHAT_LLAMA3: f.dates = has(t, "Cutting Knowledge Date: December 2023"); break;
    case CHAT_MISTRAL: mistral_facts(&f, t); break;
    case CHAT_PHI3: f.joined = find_code(t, "'|>' + message['content'] + '<|end|>'") != NULL; break;
    case CHAT_DEEPSEEK: deepseek_facts(&f, t); break;
    case CHAT_LLAMA2:
    case CHAT_GEMMA:
    case CHAT_ZEPHYR:
    case CHAT_FORMATS: break;
    }
    if (text_failed(&f.default_system) || text_failed(&f.tail)) {
        chat_facts_deinit(&f);
        return false;
    }
    *facts = f;
    return true;
}

void chat_facts_deinit(struct chat_facts *facts) {
    text_deinit(&facts->default_system);
    text_deinit(&facts->tail);
}

/* What zephyr templates write and others with the same role tokens do not. */
static bool is_zephyr(const char *t) {
    bool roles = has(t, "<|user|>") && has(t, "<|assistant|>");
    bool ends = find_code(t, "message['content'] + eos_token") != NULL ||
                find_code(t, "message['content'] + '<|endoftext|>") != NULL ||
                find_code(t, "message['content'] + '</s>") != NULL;
    return roles && ends && !has(t, "[gMASK]");
}

enum chat_format chat_detect(const char *t) {
    if (has(t, "<|im_start|>")) {
        return has(t, "<end_of_utterance>") ? CHAT_FORMATS : CHAT_CHATML;
    }
    if (has(t, "[INST]")) {
        return has(t, "<<SYS>>") ? CHAT_LLAMA2 : CHAT_MISTRAL;
    }
    if (has(t, "<|start_header_id|>") && has(t, "<|end_header_id|>")) {
        return CHAT_LLAMA3;
    }
    if (has(t, "<start_of_turn>")) {
        return CHAT_GEMMA;
    }
    if ((has(t, "### Instruction:") && has(t, "<|EOT|>")) ||
        find_code(t, "'Assistant: ' + message['content'] + eos_token") != NULL ||
        (has(t, DS_USER) && has(t, DS_ASSISTANT))) {
        return CHAT_DEEPSEEK;
    }
    if (has(t, "<|end|>") &&
        (has(t, "<|assistant|>") || find_code(t, "'<|' + message['role'] + '|>'"))) {
        return CHAT_PHI3;
    }
    return is_zephyr(t) ? CHAT_ZEPHYR : CHAT_FORMATS;
}
