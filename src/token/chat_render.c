/* chat_render.c - writes a conversation in a chat format. */
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "token/chat_parts.h"

struct part {
    const char *data;
    size_t bytes;
};

static struct part part_of(const struct ot_message *m) {
    return (struct part){m->text, m->text_bytes};
}

/* ---- writing ------------------------------------------------------------------------------ */

static void mark(struct chat_writer *w, const char *markup) {
    text_puts(&w->text, markup);
}

static void say(struct chat_writer *w, struct part p) {
    if (p.bytes == 0) {
        return;
    }
    if (w->n_content == w->capacity) {
        uint32_t capacity = w->capacity + w->capacity / 2 + 8;
        struct vocab_span *grown = mem_realloc(w->content, capacity * sizeof *grown);
        if (grown == NULL) {
            w->failed = true;
            return;
        }
        w->content = grown;
        w->capacity = capacity;
    }
    uint64_t from = w->text.bytes;
    text_append(&w->text, p.data, p.bytes);
    w->content[w->n_content++] = (struct vocab_span){from, w->text.bytes};
}

/* What Python's str.strip takes away: Jinja's trim. */
static bool is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static struct part trimmed_begin(struct part p) {
    uint32_t n;
    while ((n = utf8_char_bytes(p.data, p.bytes)) != 0 && is_space(utf8_decode(p.data, n))) {
        p.data += n;
        p.bytes -= n;
    }
    return p;
}

static struct part trimmed_end(struct part p) {
    bool again = true;
    while (again) {
        again = false;
        for (uint32_t back = 1; back <= 3 && back <= p.bytes && !again; back++) {
            const char *last = p.data + p.bytes - back;
            again = utf8_char_bytes(last, back) == back && is_space(utf8_decode(last, back));
            p.bytes -= again ? back : 0;
        }
    }
    return p;
}

static struct part trimmed(struct part p) {
    return trimmed_end(trimmed_begin(p));
}

/* An earlier answer, without the thinking before it where the template leaves that out. */
static struct part after_thinking(struct part p, const struct chat_facts *f) {
    static const char end[] = "</think>";
    bool strips = f->drops_always;
    while (f->drops_thinking && p.bytes != 0) {
        const char *found = memmem(p.data, p.bytes, end, strlen(end));
        if (found == NULL) {
            break;
        }
        size_t cut = (size_t)(found - p.data) + strlen(end);
        p.data += cut;
        p.bytes -= cut;
        strips = f->drops_newlines;
    }
    while (strips && p.bytes != 0 && *p.data == '\n') {
        p.data++;
        p.bytes--;
    }
    return p;
}

static void mark_text(struct chat_writer *w, const struct text *t) {
    text_append(&w->text, t->bytes == 0 ? "" : t->data, t->bytes);
}

/* The system's message: the first one's if it is one. */
static bool begins_with_system(const struct ot_message *messages, size_t n) {
    return n != 0 && messages[0].role == OT_ROLE_SYSTEM;
}

/* ---- formats of one shape: head, content, end --------------------------------------------- */

struct shape {
    const char *heads[3]; /* by enum ot_role; system NULL: it goes before the next question */
    const char *end;
    bool trims;
};

static struct shape shape_of(const struct chat_writer *w, enum chat_format format,
                             const struct chat_facts *f) {
    switch (format) {
    case CHAT_LLAMA3:
        return (struct shape){{"<|start_header_id|>system<|end_header_id|>\n\n",
                               "<|start_header_id|>user<|end_header_id|>\n\n",
                               "<|start_header_id|>assistant<|end_header_id|>\n\n"},
                              "<|eot_id|>",
                              true};
    case CHAT_GEMMA:
        return (struct shape){
            {NULL, "<start_of_turn>user\n", "<start_of_turn>model\n"}, "<end_of_turn>\n", true};
    case CHAT_PHI3:
        if (f->joined) {
            return (struct shape){{"<|system|>", "<|user|>", "<|assistant|>"}, "<|end|>", false};
        }
        return (struct shape){
            {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"}, "<|end|>\n", false};
    case CHAT_ZEPHYR:
        return (struct shape){{"<|system|>\n", "<|user|>\n", "<|assistant|>\n"}, w->eos, false};
    default:
        if (f->im_sep) {
            return (struct shape){{"<|im_start|>system<|im_sep|>", "<|im_start|>user<|im_sep|>",
                                   "<|im_start|>assistant<|im_sep|>"},
                                  "<|im_end|>",
                                  f->trims};
        }
        return (struct shape){
            {"<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n"},
            "<|im_end|>\n",
            f->trims};
    }
}

/* Llama 3.1 and later write a system message in any case, with these two dates; templates take the
 * second one where they cannot ask for the day. */
static void llama3_system(struct chat_writer *w, const struct shape *shape, struct part system) {
    mark(w, shape->heads[OT_ROLE_SYSTEM]);
    mark(w, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
    say(w, trimmed(system));
    mark(w, shape->end);
}

static void write_shaped(struct chat_writer *w, enum chat_format format, const struct chat_facts *f,
                         const struct ot_message *messages, size_t n) {
    struct shape shape = shape_of(w, format, f);
    struct part waiting = {0}; /* a system prompt for the next question */
    size_t i = 0;
    if (f->dates) {
        bool given = begins_with_system(messages, n);
        llama3_system(w, &shape, given ? part_of(&messages[0]) : waiting);
        i = given ? 1 : 0;
    } else if (f->has_system && !begins_with_system(messages, n)) {
        mark(w, shape.heads[OT_ROLE_SYSTEM]);
        mark_text(w, &f->default_system);
        mark(w, shape.end);
    }
    for (; i < n; i++) {
        enum ot_role role = messages[i].role;
        struct part content = part_of(&messages[i]);
        if (role == OT_ROLE_ASSISTANT) {
            content = after_thinking(content, f);
        }
        if (shape.heads[role] == NULL) {
            bool followed = i + 1 < n && messages[i + 1].role == OT_ROLE_USER;
            waiting = content;
            if (followed) {
                continue;
            }
            role = OT_ROLE_USER;
            content = (struct part){0};
        }
        mark(w, shape.heads[role]);
        if (waiting.bytes != 0) {
            say(w, waiting);
            mark(w, "\n\n");
            waiting = (struct part){0};
        }
        say(w, shape.trims ? trimmed(content) : content);
        mark(w, shape.end);
        mark(w, format == CHAT_ZEPHYR ? "\n" : "");
    }
    mark(w, shape.heads[OT_ROLE_ASSISTANT]);
    mark_text(w, &f->tail);
}

/* ---- [INST] formats ----------------------------------------------------------------------- */

static void write_llama2(struct chat_writer *w, const struct ot_message *messages, size_t n) {
    struct part system = {0};
    bool has_system = false, first = true;
    for (size_t i = 0; i < n; i++) {
        struct part content = part_of(&messages[i]);
        if (messages[i].role == OT_ROLE_ASSISTANT) {
            mark(w, " ");
            say(w, trimmed(content));
            mark(w, " ");
            mark(w, w->eos);
            continue;
        }
        bool is_system = messages[i].role == OT_ROLE_SYSTEM;
        if (is_system) {
            system = content;
            has_system = true;
            if (i + 1 < n && messages[i + 1].role == OT_ROLE_USER) {
                continue;
            }
        }
        mark(w, first ? "" : w->bos); /* the first one is not text: the tokenizer puts it */
        mark(w, "[INST] ");
        if (has_system) {
            mark(w, "<<SYS>>\n");
            say(w, system);
            mark(w, "\n<</SYS>>\n\n");
        }
        content = is_system ? (struct part){0} : content;
        say(w, has_system ? trimmed_end(content) : trimmed(content)); /* the whole is trimmed */
        has_system = false;
        mark(w, " [/INST]");
        first = false;
    }
}

static void mistral_question(struct chat_writer *w, const struct chat_facts *f, struct part system,
                             struct part content) {
    mark(w, f->space_before_inst ? " [INST]" : "[INST]");
    mark(w, f->space_after_inst ? " " : "");
    if (system.bytes != 0) {
        say(w, system);
        mark(w, "\n\n");
    }
    say(w, content);
    mark(w, f->space_before_end ? " [/INST]" : "[/INST]");
}

static void write_mistral(struct chat_writer *w, const struct chat_facts *f,
                          const struct ot_message *messages, size_t n) {
    struct part system = {0};
    for (size_t i = 0; i < n; i++) {
        struct part content = part_of(&messages[i]);
        bool last = i + 1 == n;
        switch (messages[i].role) {
        case OT_ROLE_SYSTEM:
            if (f->system_tags) {
                mark(w, f->space_after_inst ? "[SYSTEM_PROMPT] " : "[SYSTEM_PROMPT]");
                say(w, content);
                mark(w, "[/SYSTEM_PROMPT]");
            } else {
                system = content;
                if (last) {
                    mistral_question(w, f, (struct part){0}, system);
                }
            }
            break;
        case OT_ROLE_USER: {
            bool here = !f->system_last || last;
            mistral_question(w, f, here ? system : (struct part){0}, content);
            system = here ? (struct part){0} : system;
            break;
        }
        case OT_ROLE_ASSISTANT:
            mark(w, f->space_before_answer ? " " : "");
            say(w, f->trims_answers ? trimmed(content) : content);
            mark(w, w->eos);
            break;
        }
    }
}

/* ---- DeepSeek ----------------------------------------------------------------------------- */

static void deepseek_turn(struct chat_writer *w, const struct chat_facts *f,
                          const struct ot_message *m) {
    struct part content = part_of(m);
    bool user = m->role == OT_ROLE_USER;
    switch (f->deepseek) {
    case DEEPSEEK_CODER:
        mark(w, user ? "### Instruction:\n" : "### Response:\n");
        say(w, content);
        mark(w, user ? "\n" : "\n<|EOT|>\n");
        break;
    case DEEPSEEK_V2:
        mark(w, user ? "User: " : "Assistant: ");
        say(w, content);
        mark(w, user ? "\n\n" : w->eos);
        break;
    case DEEPSEEK_V3:
        mark(w, user ? DS_USER : DS_ASSISTANT);
        if (!user && f->tail_in_history) {
            mark_text(w, &f->tail);
        }
        say(w, user ? content : after_thinking(content, f));
        mark(w, !user || f->user_ends ? DS_END : "");
        break;
    }
}

static void write_deepseek(struct chat_writer *w, const struct chat_facts *f,
                           const struct ot_message *messages, size_t n) {
    bool v3 = f->deepseek == DEEPSEEK_V3, system = false;
    if (f->has_system && !begins_with_system(messages, n)) {
        mark_text(w, &f->default_system);
    }
    for (size_t i = 0; i < n && v3; i++) {
        if (messages[i].role == OT_ROLE_SYSTEM) { /* all of them stand before the conversation */
            mark(w, system ? "\n\n" : "");
            say(w, part_of(&messages[i]));
            system = true;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (messages[i].role != OT_ROLE_SYSTEM) {
            deepseek_turn(w, f, &messages[i]);
        } else if (!v3) {
            say(w, part_of(&messages[i]));
            mark(w, f->deepseek == DEEPSEEK_V2 ? "\n\n" : "");
        }
    }
    mark(w, v3 ? DS_ASSISTANT : f->deepseek == DEEPSEEK_V2 ? "Assistant:" : "### Response:");
    mark_text(w, &f->tail);
}

void chat_write(struct chat_writer *w, enum chat_format format, const struct chat_facts *facts,
                const struct ot_message *messages, size_t n_messages) {
    switch (format) {
    case CHAT_LLAMA2: write_llama2(w, messages, n_messages); break;
    case CHAT_MISTRAL: write_mistral(w, facts, messages, n_messages); break;
    case CHAT_DEEPSEEK: write_deepseek(w, facts, messages, n_messages); break;
    default: write_shaped(w, format, facts, messages, n_messages); break;
    }
    w->failed = w->failed || text_failed(&w->text);
}

void chat_writer_deinit(struct chat_writer *w) {
    text_deinit(&w->text);
    mem_free(w->content);
    w->content = NULL;
    w->n_content = w->capacity = 0;
}
