/* reader_impl.h - what the two ways of reading share. Private to sys/. */
#ifndef SYS_READER_IMPL_H
#define SYS_READER_IMPL_H


#include "sys/reader.h"

struct op {
    struct sys_read read;
    uint64_t got_bytes;
    uint64_t ask_bytes; /* of the attempt under way */
    uint32_t n_again;   /* attempts since the last bytes came that are to be repeated */
    int error;
    uint32_t next; /* in a list, by index; OP_NONE ends it */
};
enum { OP_NONE = UINT32_MAX };

/* First in, first out. */
struct op_list {
    uint32_t first, last;
};

struct reader_way {
    /* Begins another attempt at an op. */
    void (*begin)(struct sys_reader *r, uint32_t op);
    void (*start)(struct sys_reader *r);
    /* Moves finished ops to r->done; wait: sleeps until there is one. */
    void (*collect)(struct sys_reader *r, bool wait);
    void (*close)(struct sys_reader *r);
};

struct sys_reader {
    const struct reader_way *way;
    bool uring;
    struct uring *ring;      /* owned; NULL where threads read */
    struct threads *threads; /* owned; without threads while a ring reads */
    struct op *ops;          /* owned [depth] */
    uint32_t depth, n_in_flight, n_threads;
    struct op_list free, done; /* of the caller's thread */
};

void op_push(struct sys_reader *r, struct op_list *list, uint32_t op);
uint32_t op_pop(struct sys_reader *r, struct op_list *list);

/* Takes in an attempt's result, bytes or -errno. True where the op is finished, false where another
 * attempt must follow. */
bool op_result(struct op *op, int64_t result);
/* Asks the hook of the tests: true where the attempt is over already, with *result; else ask_bytes
 * says how much to read. */
bool op_spoiled(struct op *op, int64_t *result);

/* 0, or errno where this way is refused (r is then as before), or ENOMEM. */
int uring_open(struct sys_reader *r);
/* Takes the memory that reading by threads needs; false where there is none. */
bool threads_take(struct sys_reader *r);
/* From now on r->n_threads threads read, or fewer. */
void threads_begin(struct sys_reader *r);
void threads_free(struct sys_reader *r);

#endif
